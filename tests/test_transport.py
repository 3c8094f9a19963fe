"""Bytes in and out: directly where it is a socket, through the stream where it is not."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_ws._transport import WRITE_SLICE, Transport
from trio_ws.testing import MemoryNetwork


def socket_pair() -> tuple[trio.SocketStream, socket.socket]:
    """A stream, and the other end as a plain socket that never waits."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


async def test_a_socket_is_read_and_written_directly() -> None:
    stream, peer = socket_pair()
    transport = Transport(stream)
    async with stream:
        with peer:
            assert transport.write_now(b"out") == 3
            assert peer.recv(10) == b"out"
            peer.send(b"in")
            assert await transport.read() == b"in"
            assert await transport.write(memoryview(b"waited")) == 6
            assert peer.recv(10) == b"waited"
        assert await transport.read() == b""


async def test_a_stream_that_is_no_socket_is_only_written_by_waiting() -> None:
    ours, theirs = memory_stream_pair()
    transport = Transport(ours)
    assert transport.write_now(b"out") == 0
    data = bytes(2 * WRITE_SLICE)
    assert await transport.write(memoryview(data)) == WRITE_SLICE
    assert len(await theirs.receive_some()) == WRITE_SLICE
    await theirs.send_all(b"in")
    assert await transport.read() == b"in"


async def test_a_socket_without_a_descriptor_is_left_to_trio() -> None:
    """A program may bring its own: `trio.abc.SocketFactory`."""
    network = MemoryNetwork()
    async with (
        network.listen() as listener,
        await network.connect("localhost", 80) as stream,
        await listener.accept() as peer,
    ):
        transport = Transport(stream)
        assert not transport.direct
        assert transport.write_now(b"out") == 0
        assert await transport.write(memoryview(b"out")) == 3
        assert await peer.receive_some() == b"out"
        await peer.send_all(b"in")
        assert await transport.read() == b"in"


async def test_what_does_not_fit_is_left_to_whoever_waits() -> None:
    stream, peer = socket_pair()
    transport = Transport(stream)
    async with stream:
        with peer:
            taken = 0
            while now := transport.write_now(bytes(100_000)):
                taken += now
            assert taken > 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.write, memoryview(b"x"))
                await wait_all_tasks_blocked()
                assert nursery.child_tasks
                while taken > 0:
                    taken -= len(peer.recv(taken))
        assert transport.write_now(b"nobody reads that") == 0
        with pytest.raises(OSError, match="Broken pipe"):
            await transport.write(memoryview(b"nobody reads that"))


async def test_a_reset_is_told_as_a_broken_resource() -> None:
    listener = socket.create_server(("127.0.0.1", 0))  # only TCP has resets
    stream = await trio.open_tcp_stream("127.0.0.1", listener.getsockname()[1])
    peer, _ = listener.accept()
    listener.close()
    async with stream:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(trio.BrokenResourceError, match="reading failed"):
            await Transport(stream).read()


async def test_a_socket_that_is_closed_meanwhile_says_so() -> None:
    stream, peer = socket_pair()
    transport = Transport(stream)
    with peer:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await transport.read()

            await wait_all_tasks_blocked()
            await stream.aclose()
        assert transport.write_now(b"x") == 0


async def test_a_socket_that_is_not_readable_after_all_is_waited_for_again() -> None:
    stream, peer = socket_pair()
    other, their_other = socket.socketpair()
    other.setblocking(False)
    their_other.send(b"now")  # `wait_readable` is told of this one...
    transport = Transport(stream)
    filenos = iter([other.fileno(), stream.socket.fileno(), stream.socket.fileno()])

    class TwoFaced:
        def fileno(self) -> int:
            return next(filenos, stream.socket.fileno())

    transport._direct = TwoFaced()  # type: ignore[assignment]  # ... and the read is of ours
    async with stream, trio.open_nursery() as nursery:
        with peer, other, their_other:

            @nursery.start_soon
            async def read() -> None:
                assert await transport.read() == b"at last"

            await wait_all_tasks_blocked()
            assert nursery.child_tasks
            peer.send(b"at last")
            await wait_all_tasks_blocked()


async def test_what_there_is_can_be_read_without_waiting() -> None:
    stream, peer = socket_pair()
    transport = Transport(stream)
    assert transport.read_now() is None
    peer.send(b"in")
    assert transport.read_now() == b"in"
    peer.close()
    assert transport.read_now() == b""
    assert await transport.read() == b""
    transport.close_now()
    assert transport.fileno() == -1


async def test_what_has_failed_at_once_is_told_to_who_waits() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    transport = Transport(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    await wait_all_tasks_blocked()
    assert transport.read_now() == b""
    with pytest.raises(trio.BrokenResourceError, match="reading failed"):
        await transport.read()
    transport.close_now()


async def test_only_a_socket_can_be_closed_without_waiting() -> None:
    ours, theirs = memory_stream_pair()
    Transport(ours).close_now()
    await ours.send_all(b"still open")
    assert await theirs.receive_some() == b"still open"
