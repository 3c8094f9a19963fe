"""Sockets in memory behave as TCP does, to trio's own streams and checks."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from trio_ws.testing import Link, MemoryNetwork
from trio_ws.testing._socket import (
    NOT_A_DESCRIPTOR,
    RESET_ON_CLOSE,
    MemorySocket,
    Switchboard,
    link_under,
    open_sockets,
)

Streams = tuple[trio.SocketStream, trio.SocketStream]


async def connect(link: Link | None = None) -> Streams:
    network = MemoryNetwork()
    async with network.listen() as listener:
        client = await network.connect("localhost", 80, link=link)
        return client, await listener.accept()


async def connect_clogged() -> Streams:
    client, server = await connect(Link(buffer=10))
    await client.send_all(b"x" * 10)
    await server.send_all(b"x" * 10)
    return client, server


async def test_trio_finds_nothing_amiss(autojump_clock) -> None:
    await trio.testing.check_half_closeable_stream(connect, connect_clogged)


async def test_trio_finds_nothing_amiss_on_a_slow_link_of_small_chunks(autojump_clock) -> None:
    async def connect_slowly() -> Streams:
        return await connect(Link(latency=0.1, jitter=0.1, bandwidth=1e6, chunk=(1, 5000)))

    await trio.testing.check_half_closeable_stream(connect_slowly, None)


async def test_a_stream_has_addresses() -> None:
    client, server = await connect()
    assert client.socket.getpeername() == server.socket.getsockname() == ("127.0.0.1", 80)
    assert server.socket.getpeername() == client.socket.getsockname()
    async with client, server:
        assert repr(client.socket).startswith("<MemorySocket ('198.51.100.1', 49152) connected")
    assert "closed" in repr(client.socket)


async def test_who_closes_with_something_unread_resets_the_connection() -> None:
    client, server = await connect()
    await client.send_all(b"unread")
    await server.send_all(b"lost")
    await server.aclose()
    with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
        await client.receive_some()
    await client.aclose()


async def test_who_has_read_everything_ends_the_connection() -> None:
    client, server = await connect()
    await client.send_all(b"read")
    assert await server.receive_some() == b"read"
    await server.send_all(b"kept")
    await server.aclose()
    assert await client.receive_some() == b"kept"
    assert await client.receive_some() == b""
    await client.aclose()


async def test_what_is_sent_to_who_has_closed_is_answered_with_a_reset() -> None:
    client, server = await connect()
    await server.send_all(b"lost")
    await server.aclose()
    await client.send_all(b"taken")
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"refused")
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await client.aclose()


async def test_so_linger_makes_a_close_a_reset() -> None:
    client, server = await connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    await client.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()
    await server.aclose()


@pytest.mark.parametrize("operation", ["recv", "send", "wait_writable", "accept"])
async def test_closing_a_socket_wakes_who_waits_for_it(operation: str) -> None:
    client, server = await connect_clogged()
    if operation == "recv":
        await client.receive_some()
    listener = MemoryNetwork().listen()
    sock = listener.socket if operation == "accept" else client.socket
    arguments = {"recv": (1,), "send": (b"x",)}.get(operation, ())

    async def wait() -> None:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await getattr(sock, operation)(*arguments)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        sock.close()
    for each in (client, server, listener):
        await each.aclose()


@pytest.mark.parametrize(
    "operation",
    [
        lambda sock: sock.recv(1),
        lambda sock: sock.send(b"x"),
        lambda sock: sock.wait_writable(),
    ],
    ids=["recv", "send", "wait_writable"],
)
async def test_a_socket_that_is_not_connected_moves_no_bytes(
    operation: Callable[[MemorySocket], Awaitable[object]],
) -> None:
    sock = MemorySocket(Switchboard(lambda number: Link()))
    with pytest.raises(OSError, match=r".") as caught:
        await operation(sock)
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError, match=r".") as caught:
        sock.getpeername()
    assert caught.value.errno == errno.ENOTCONN
    with pytest.raises(OSError, match=r".") as caught:
        await sock.accept()
    assert caught.value.errno == errno.EINVAL
    sock.close()
    with pytest.raises(OSError, match=r".") as caught:
        await operation(sock)
    assert caught.value.errno == errno.EBADF


async def test_a_socket_is_one_of_tcp_without_a_descriptor() -> None:
    sock = MemorySocket(Switchboard(lambda number: Link()))
    assert (sock.family, sock.type, sock.proto) == (
        socket.AF_INET,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
    )
    assert sock.fileno() == NOT_A_DESCRIPTOR
    assert repr(sock) == "<MemorySocket ('0.0.0.0', 0) new>"
    sock.close()
    sock.close()
    assert sock.fileno() == -1


async def test_two_tasks_cannot_receive_or_wait_for_room_at_a_time() -> None:
    client, server = await connect(Link(buffer=0))
    for operation in (lambda: client.socket.recv(1), client.socket.wait_writable):
        with pytest.RaisesGroup(trio.BusyResourceError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operation)
                nursery.start_soon(operation)
    await client.aclose()
    await server.aclose()


async def test_only_one_half_can_be_shut_down() -> None:
    client, server = await connect()
    with pytest.raises(OSError, match="SHUT_WR"):
        client.socket.shutdown(socket.SHUT_RDWR)
    client.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match=r".") as caught:
        await client.socket.send(b"x")
    assert caught.value.errno == errno.EPIPE
    client.socket.shutdown(socket.SHUT_WR)
    assert await server.receive_some() == b""
    await client.aclose()
    await server.aclose()


async def test_connections_that_nobody_accepted_are_reset_with_their_listener() -> None:
    network = MemoryNetwork()
    listener = network.listen()
    client = await network.connect("localhost", 80)
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    await client.aclose()


async def test_open_sockets_are_known_in_order() -> None:
    before = open_sockets()
    network = MemoryNetwork()
    listener = network.listen()
    client = await network.connect("localhost", 80)
    server = await listener.accept()
    assert open_sockets() == [*before, listener.socket, client.socket, server.socket]
    for each in (client, server, listener):
        await each.aclose()
    assert open_sockets() == before


async def test_the_link_under_a_stream_is_found_with_and_without_tls() -> None:
    link = Link()
    client, server = await connect(link)
    assert link_under(client) is link_under(server) is link
    assert link_under(trio.SSLStream(client, ssl.create_default_context())) is link
    await client.aclose()
    await server.aclose()


async def test_sending_nothing_takes_no_room() -> None:
    client, server = await connect(Link(buffer=0))
    assert await client.socket.send(b"") == 0
    await client.aclose()
    await server.aclose()


async def test_a_socket_may_be_bound_before_it_connects() -> None:
    network = MemoryNetwork()
    async with network.listen() as listener:
        with network.install():
            stream = await trio.open_tcp_stream("localhost", 80, local_address="203.0.113.5")
        async with stream, await listener.accept() as peer:
            assert peer.socket.getpeername() == ("203.0.113.5", 49152)
