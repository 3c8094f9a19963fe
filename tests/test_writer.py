"""On a socket, what is sent leaves at once; the writing task takes what does not.

All of that goes for a connection of its own, and for one that a server's pump reads for.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
import pytest
import trio
from _helpers import Peer
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._frames import TEXT, encode_frame
from trio_ws._inbox import Inbox
from trio_ws._messages import CloseInfo, MessagePart, PreparedMessage
from trio_ws._options import Options
from trio_ws._pump import Pump
from trio_ws._session import Session
from trio_ws._transport import Transport
from trio_ws._writer import Writer
from trio_ws.testing import Frame

Sockets = tuple[trio.SocketStream, socket.socket]
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
NO_PATIENCE = Options(close_grace=0.01, compression=None)


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


@pytest.fixture(params=["own task", "pump"])
async def pump(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Pump | None:
    if request.param == "own task":
        return None
    pump = Pump()
    await nursery.start(pump.work)
    return pump


def server(
    stream: trio.abc.Stream, pump: Pump | None = None, options: Options = NO_PATIENCE
) -> Session:
    return Session(stream, options, client=False, leftover=b"", pump=pump)


async def test_the_pongs_of_one_read_leave_together(
    sockets: Sockets, pump: Pump | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    write_now = Transport.write_now

    def note(transport: Transport, data: bytes | memoryview) -> int:
        written.append(bytes(data))
        return write_now(transport, data)

    monkeypatch.setattr(Transport, "write_now", note)
    stream, peer = sockets
    async with server(stream, pump):
        pings = [attrs.evolve(Frame.ping(b"%d" % number), mask=bytes(4)) for number in range(3)]
        peer.send(b"".join(ping.encode() for ping in pings))
        await wait_all_tasks_blocked()
        assert written == [b"\x8a\x010\x8a\x011\x8a\x012"]
        peer.send(CLOSE)


async def test_a_message_has_left_when_send_returns(sockets: Sockets, pump: Pump | None) -> None:
    stream, peer = sockets
    async with server(stream, pump) as ws:
        await ws.send("hello")
        assert peer.recv(100) == b"\x81\x05hello"
        assert ws.statistics().queued_bytes == 0
        peer.send(CLOSE)


async def test_answers_leave_together_while_there_is_more_to_receive(
    sockets: Sockets, pump: Pump | None
) -> None:
    stream, peer = sockets
    async with server(stream, pump) as ws:
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


async def test_what_the_network_does_not_take_at_once_follows_in_order(
    sockets: Sockets, pump: Pump | None
) -> None:
    stream, peer = sockets
    got = bytearray()
    async with server(stream, pump, Options(compression=None, send_buffer=None)) as ws:
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


async def test_room_that_calls_for_more_does_so_without_recursion(
    sockets: Sockets, pump: Pump | None
) -> None:
    stream, peer = sockets
    left = 5000
    message = PreparedMessage("x")

    async with server(stream, pump) as ws:
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


async def test_a_peer_that_is_gone_is_found_by_whoever_sends(
    sockets: Sockets, pump: Pump | None
) -> None:
    stream, peer = sockets
    async with server(stream, pump) as ws:
        peer.close()
        await ws.send("nobody reads that")
        info = await ws.wait_closed()
    assert info.initiator == "lost"


async def test_what_leaves_in_part_is_not_torn_by_a_ping(
    sockets: Sockets, pump: Pump | None, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    got = bytearray()
    async with (
        server(stream, pump, Options(compression=None)) as ws,
        trio.open_nursery() as nursery,
    ):
        message = bytes(4_000_000)
        await ws.send(message[:1_000_000])  # more than the socket takes, in frames
        nursery.start_soon(ws.ping, b"1234")
        while len(got) < 1_000_000 + 4 * 10 + 6:
            await wait_all_tasks_blocked()
            with contextlib.suppress(BlockingIOError):
                got += peer.recv(100_000)
        assert got.count(b"\x89\x041234") == 1
        peer.send(encode_frame(0xA, b"1234", masked=True) + CLOSE)


async def test_a_single_frame_that_leaves_in_part_goes_on_with_the_rest(
    sockets: Sockets, pump: Pump | None, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with server(stream, pump) as ws:
        await ws.send(bytes(60_000))
        assert 0 < ws.statistics().queued_bytes <= 60_004
        await ws.send("behind it")
        got = bytearray()
        while not got.endswith(b"behind it"):
            await wait_all_tasks_blocked()
            with contextlib.suppress(BlockingIOError):
                got += peer.recv(100_000)
        assert got == b"\x82\x7e\xea\x60" + bytes(60_000) + b"\x81\x09behind it"
        assert ws.statistics().bytes_sent == len(got)
        peer.send(CLOSE)


async def test_a_flush_for_what_was_taken_back_tears_no_frame(
    sockets: Sockets, pump: Pump | None, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with server(stream, pump) as ws:
        peer.send(encode_frame(TEXT, b"the first call lets others run", masked=True))
        await wait_all_tasks_blocked()
        await ws.receive()
        peer.send(encode_frame(TEXT, b"not in a hurry", masked=True))
        await wait_all_tasks_blocked()
        connection = ws._connection
        connection.pings.forget(b"1", connection.start_ping(b"1"))
        await ws.receive()
        connection.send_nowait(PreparedMessage(bytes(60_000)))  # leaves in part, past the queue
        connection.send_nowait(PreparedMessage("behind it"))
        got = bytearray()
        while not got.endswith(b"behind it"):
            await wait_all_tasks_blocked()
            with contextlib.suppress(BlockingIOError):
                got += peer.recv(100_000)
        assert got == b"\x82\x7e\xea\x60" + bytes(60_000) + b"\x81\x09behind it"
        peer.send(CLOSE)


async def test_a_peer_that_takes_nothing_is_given_up(
    sockets: Sockets, pump: Pump | None, autojump_clock: MockClock
) -> None:
    stream, _ = sockets
    async with server(stream, pump, Options(compression=None, write_timeout=3)) as ws:
        await ws.send(bytes(4_000_000))
        began = trio.current_time()
        info = await ws.wait_closed()
        assert trio.current_time() - began == 3
    assert info.reason == "no byte was taken for 3 s"


async def test_closing_lets_out_what_was_sent(
    sockets: Sockets, pump: Pump | None, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    got = bytearray()

    async def read() -> None:
        while True:
            await wait_all_tasks_blocked()
            with contextlib.suppress(BlockingIOError):
                got.extend(peer.recv(100_000))
            if got.endswith(b"\x88\x02\x03\xe8"):
                peer.send(CLOSE)
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with server(stream, pump, Options(compression=None)) as ws:
            await ws.send(bytes(250_000))
    assert len(got) == 250_000 + 10 + 4
    assert ws.close_info == CloseInfo(1000, "", "local", clean=True)


async def test_answers_wait_for_nobody_if_the_pump_ends(sockets: Sockets) -> None:
    stream, peer = sockets
    pump = Pump()
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.work)
        async with server(stream, pump) as ws:
            peer.send(
                encode_frame(TEXT, b"1", masked=True) + encode_frame(TEXT, b"2", masked=True)
            )
            await ws.send(await ws.receive())
            pump.stop()
            await wait_all_tasks_blocked()
            assert peer.recv(100) == b"\x81\x011"
            await ws.send(await ws.receive())
            assert peer.recv(100) == b"\x81\x012"
            peer.send(CLOSE)


class SlowNetwork(Transport):
    """One that takes nothing at once, and each write when it is told to."""

    direct = True

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.open = trio.lowlevel.ParkingLot()

    def write_now(self, data: bytes | memoryview) -> int:
        return 0

    async def write(self, data: memoryview) -> int:
        await self.open.park()
        self.written.append(bytes(data))
        return len(data)


class Owner:
    """A connection that expects to answer, and whose pump calls back when it is told to."""

    account = None

    def __init__(self, nursery: trio.Nursery) -> None:
        self.inbox = Inbox(math.inf, lambda: None)
        self.pump: Any = self
        self.due: list[Callable[[], None]] = []
        self._nursery = nursery

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def start_task(self, function: Callable[[], Awaitable[object]], name: str) -> None:
        self._nursery.start_soon(function)


async def test_a_flush_that_comes_while_the_task_writes_leaves_it_to_that() -> None:
    async with trio.open_nursery() as nursery:
        owner, network = Owner(nursery), SlowNetwork()
        outbox = Writer(network, Options(), owner).outbox  # type: ignore[arg-type]
        outbox.put([b"first"])
        await wait_all_tasks_blocked()
        owner.inbox.put(MessagePart("a question", 10, final=True))

        def answer() -> None:
            outbox.feeders.clear()
            outbox.put([b"second"])

        outbox.feeders.append(answer)
        network.open.unpark()
        await wait_all_tasks_blocked()
        (flush,) = owner.due  # for the second, which the task has taken meanwhile
        flush()
        network.open.unpark()
        await wait_all_tasks_blocked()
        outbox.put_close(b"close")
        flush()
        await wait_all_tasks_blocked()
        network.open.unpark()
    assert network.written == [b"first", b"second", b"close"]


# Where there is no socket, everything goes through the task...


async def test_a_stream_gets_everything_in_order(
    connect_peer: Callable[..., tuple[Session, Peer]], autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await ws.send("one")
        await ws.send(b"two")
        await peer.expect(Frame.text("one"), Frame.binary(b"two"))
        await peer.send(Frame.close(1000))
        await ws.wait_closed()


async def test_a_stream_that_breaks_ends_the_connection(
    connect_peer: Callable[..., tuple[Session, Peer]], autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        peer.link.reset()
        await ws.send("nobody reads that")
        info = await ws.wait_closed()
    assert info.initiator == "lost"
