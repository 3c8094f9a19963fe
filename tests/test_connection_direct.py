"""On a socket, what is sent leaves at once; the writing task takes what does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws._frames import TEXT, encode_frame
from trio_ws._messages import PreparedMessage
from trio_ws._options import Options
from trio_ws._session import Session


@pytest.fixture
def sockets() -> Iterator[tuple[trio.SocketStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


Sockets = tuple[trio.SocketStream, socket.socket]
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
NO_PATIENCE = Options(close_grace=0.01, compression=None)


def server(stream: trio.SocketStream, options: Options = NO_PATIENCE) -> Session:
    return Session(stream, options, client=False, leftover=b"")


async def test_a_message_has_left_when_send_returns(sockets: Sockets) -> None:
    stream, peer = sockets
    async with server(stream) as ws:
        await ws.send("hello")
        assert peer.recv(100) == b"\x81\x05hello"
        assert ws.statistics().queued_bytes == 0
        peer.send(CLOSE)


async def test_answers_leave_together_while_there_is_more_to_receive(sockets: Sockets) -> None:
    stream, peer = sockets
    async with server(stream) as ws:
        peer.send(encode_frame(TEXT, b"the first call lets others run", masked=True))
        await ws.send(await ws.receive())
        peer.recv(100)
        peer.send(b"".join(encode_frame(TEXT, b"%d" % n, masked=True) for n in range(3)))
        await wait_all_tasks_blocked()
        await ws.send(await ws.receive())
        with pytest.raises(BlockingIOError):  # "2" and "3" wait to be received
            peer.recv(100)
        await ws.send(await ws.receive())
        await ws.send(await ws.receive())
        await wait_all_tasks_blocked()
        assert peer.recv(100) == b"\x81\x010\x81\x011\x81\x012"
        peer.send(CLOSE)


async def test_what_the_network_does_not_take_at_once_follows_in_order(sockets: Sockets) -> None:
    stream, peer = sockets
    got = bytearray()
    async with server(stream, Options(compression=None, send_buffer=None)) as ws:
        messages = [bytes([n]) * 200_000 for n in range(10)]
        for message in messages:
            await ws.send(message)
        assert ws.statistics().queued_bytes > 1_000_000
        while len(got) < 10 * 200_010:
            try:
                got += peer.recv(100_000)
            except BlockingIOError:
                await wait_all_tasks_blocked()
        peer.send(CLOSE)
    payloads = [got[at + 10 : at + 200_010] for at in range(0, len(got) - 4, 200_010)]
    assert payloads == messages


async def test_room_that_calls_for_more_does_so_without_recursion(sockets: Sockets) -> None:
    stream, peer = sockets
    left = 5000
    message = PreparedMessage("x")

    async with server(stream) as ws:
        connection = ws._connection

        def feed() -> None:
            nonlocal left
            while left and connection.outbox.has_room():
                left -= 1
                connection.send_nowait(message)

        connection.outbox.feeders.append(feed)
        await ws.send("first")
        await wait_all_tasks_blocked()
        got = bytearray()
        while len(got) < 7 + 3 * 5000:
            got += peer.recv(100_000)
            await wait_all_tasks_blocked()
        assert left == 0
        peer.send(CLOSE)


async def test_a_peer_that_is_gone_is_found_by_whoever_sends(sockets: Sockets) -> None:
    stream, peer = sockets
    async with server(stream) as ws:
        peer.close()
        await ws.send("nobody reads that")
        info = await ws.wait_closed()
    assert info.initiator == "lost"
