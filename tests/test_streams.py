"""Streams: addresses, the TLS layer, and the last moment before TCP ends."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from _helpers import Relayed
from trio.testing import MockClock

from trio_ws._streams import (
    LINGER_BYTES,
    LINGER_TIME,
    addresses_of,
    linger,
    network_of,
    over_tls,
    tls_of,
)
from trio_ws.testing import MemoryNetwork


async def tls_pair(network: MemoryNetwork) -> tuple[trio.SSLStream, trio.SSLStream]:
    """Return a client and a server over TLS, the handshake still to be done."""
    listener = network.listen("tls.test", 443, tls=True)
    transport = await network.connect("tls.test", 443)
    server = await listener.accept()
    await listener.aclose()
    client = trio.SSLStream(
        transport, network.client_context, server_hostname="tls.test", https_compatible=True
    )
    return client, server


async def test_addresses_are_those_of_the_socket() -> None:
    network = MemoryNetwork()
    async with network.listen("plain.test", 80) as listener:
        client = await network.connect("plain.test", 80)
        server = await listener.accept()
        async with client, server:
            assert addresses_of(client).remote[1] == 80
            assert addresses_of(server).local[1] == 80
            here = addresses_of(client).local
            assert here == addresses_of(server).remote


async def test_real_sockets_have_their_addresses() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        address = listener.socket.getsockname()
        async with await trio.open_tcp_stream(*address[:2]) as client:
            assert addresses_of(client).remote == address
            async with await listener.accept() as server:
                assert addresses_of(server).local == address


async def test_addresses_are_found_under_tls_in_any_depth() -> None:
    network = MemoryNetwork()
    client, server = await tls_pair(network)
    nested = trio.SSLStream(client, network.client_context, server_hostname="tls.test")
    for stream in (client, nested):
        assert addresses_of(stream).remote[1] == 443
        assert tls_of(stream) is stream
    await trio.aclose_forcefully(nested)
    await trio.aclose_forcefully(server)


async def test_a_stream_that_is_no_socket_has_neither_address_nor_tls() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    assert addresses_of(ours).remote is None
    assert addresses_of(ours).local is None
    assert tls_of(ours) is None


async def test_a_socket_without_a_peer_has_no_address_of_one() -> None:
    with trio.socket.socket() as sock:
        stream = trio.SocketStream(sock)
        assert addresses_of(stream).remote is None  # ENOTCONN
    assert addresses_of(stream).local is None  # EBADF: it is closed


# Lingering...


class HalfOpen(trio.abc.HalfCloseableStream):
    """Sends without end, or what it was told to; notes what was done to it."""

    def __init__(self, chunk: bytes, failure: Exception | None = None) -> None:
        self.chunk = chunk
        self.failure = failure
        self.read = 0
        self.eofs = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert self.eofs == 1, "the end of our side comes first"
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.read += len(self.chunk)
        return self.chunk

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("nothing is to be sent")

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError("nothing is to be sent")

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.eofs += 1

    async def aclose(self) -> None:
        raise AssertionError("whoever has opened it closes it")


async def test_lingering_ends_our_side_and_reads_to_the_end_of_theirs() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(linger, ours)
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"what nobody reads")
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        await theirs.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")  # after the end


async def test_lingering_ends_at_once_if_the_peer_has_ended() -> None:
    stream = HalfOpen(b"")
    before = trio.current_time()
    await linger(stream)
    assert (stream.eofs, stream.read) == (1, 0)
    assert trio.current_time() - before < LINGER_TIME


async def test_lingering_lasts_a_moment_if_the_peer_is_silent(autojump_clock: MockClock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    before = trio.current_time()
    await linger(ours)
    assert trio.current_time() - before == LINGER_TIME


async def test_lingering_lasts_a_moment_if_the_peer_dribbles(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def dribble() -> None:
            while True:
                await theirs.send_all(b"x")
                await trio.sleep(LINGER_TIME / 10)

        nursery.start_soon(dribble)
        before = trio.current_time()
        await linger(ours)
        assert trio.current_time() - before == LINGER_TIME
        nursery.cancel_scope.cancel()


async def test_lingering_reads_so_much_and_no_more() -> None:
    stream = HalfOpen(bytes(1_000_000))
    await linger(stream)
    assert LINGER_BYTES <= stream.read < LINGER_BYTES + 1_000_000


async def test_lingering_tells_that_the_connection_broke() -> None:
    with pytest.raises(trio.BrokenResourceError):
        await linger(HalfOpen(b"x", trio.BrokenResourceError()))


async def test_lingering_over_tls_only_reads(autojump_clock: MockClock) -> None:
    client, server = await tls_pair(MemoryNetwork())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        await server.do_handshake()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(linger, server)
        await client.send_all(b"what nobody reads")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(LINGER_TIME / 2) as scope:
            await client.receive_some()
        assert scope.cancelled_caught  # TLS has no half: its end would be the end of all
        await trio.aclose_forcefully(client)
    await trio.aclose_forcefully(server)


async def test_lingering_can_be_cancelled(autojump_clock: MockClock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    before = trio.current_time()
    with trio.move_on_after(LINGER_TIME / 2) as scope:
        await linger(ours)
    assert scope.cancelled_caught
    assert trio.current_time() - before == LINGER_TIME / 2


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::7", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_of_ipv6_the_network_is_counted(host: str, network: str) -> None:
    assert network_of(host) == network


def test_a_relayed_stream_tells_what_the_other_server_knows() -> None:
    stream = Relayed()
    assert addresses_of(stream).remote is None
    assert not over_tls(stream)
    stream.remote_address, stream.local_address = ("192.0.2.1", 5), ("192.0.2.2", 80)
    stream.secure = True
    assert addresses_of(stream).remote == ("192.0.2.1", 5)
    assert addresses_of(stream).local == ("192.0.2.2", 80)
    assert over_tls(stream)


async def test_who_speaks_tls_to_this_server_is_known() -> None:
    client, server = await tls_pair(MemoryNetwork())
    assert over_tls(server)
    assert not over_tls(server.transport_stream)
    for stream in (client, server):
        await trio.aclose_forcefully(stream)
