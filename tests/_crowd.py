"""A crowd in a room: a thousand connections, each of which checks every byte it is sent."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from typing import Final

import attrs
import trio
from _helpers import settle
from _seats import Seat, Seats

from trio_ws._frames import TEXT, encode_frame
from trio_ws._options import Options
from trio_ws._session import Session
from trio_ws.rooms import Overflow, Rooms

BURST: Final = 16
"""Messages that are published before those who read get to it."""
BUFFER: Final = 16
"""Messages that may wait for a member."""
OPTIONS: Final = Options(
    send_buffer=2048, ping_interval=None, write_timeout=None, close_grace=0.001
)
FITTING: Final = 31
"""Messages that the outgoing buffer takes before a member is behind: 68 bytes each."""
CLOSE: Final = 0x88
"""The first byte of a Close frame."""


class Script:
    """What everybody is to be sent, as bytes of the wire."""

    def __init__(self) -> None:
        self.wire = bytearray()
        self.texts: list[str] = []

    def add(self, text: str) -> str:
        """Let this be the next message."""
        self.texts.append(text)
        self.wire += encode_frame(TEXT, text.encode(), masked=False)
        return text


class Tape(trio.abc.Stream):
    """A network that compares what is sent with the script; the peer never says a word."""

    def __init__(self, script: Script, *, reads: bool) -> None:
        self._script = script
        self._reads = reads
        self._closed = trio.Event()
        self.received: int = 0
        """Bytes that have arrived, all of them right."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if not self._reads:
            await self._closed.wait()
            raise trio.ClosedResourceError
        end = self.received + len(data)
        if self._script.wire[self.received : end] == data:
            self.received = end
        else:
            assert data[0] == CLOSE, "a message is missing, doubled, or in the wrong place"

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await self._closed.wait()
        return b""

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


@attrs.define
class Crowd:
    """A room with many members, of whom some do not read."""

    rooms: Rooms
    nursery: trio.Nursery
    script: Script = attrs.field(factory=Script)
    tapes: list[Tape] = attrs.field(factory=list)
    """Of those who read."""
    seats: list[Seat] = attrs.field(factory=list)
    """Of those who read and have a WebSocket as their peer."""
    heard: int = 0
    """Messages that each of these has received, all of them right."""

    async def gather(self, size: int, mute: Iterable[Overflow], *, peers: int) -> None:
        """Let so many enter: some who do not read, some with a WebSocket as their peer."""
        for overflow in mute:
            size -= 1
            await self.nursery.start(self.stay, Tape(self.script, reads=False), overflow)
        for _ in range(size - peers):
            self.tapes.append(Tape(self.script, reads=True))
            await self.nursery.start(self.stay, self.tapes[-1], Overflow.DISCONNECT)
        for _ in range(peers):
            await self.nursery.start(self.stay_with_peer)

    async def stay(
        self, tape: Tape, overflow: Overflow, task_status: trio.TaskStatus[None]
    ) -> None:
        async with (
            Session(tape, OPTIONS, client=False, leftover=b"", deflate=None) as ws,
            self.rooms.join(ws, "x", buffer=BUFFER, overflow=overflow),
        ):
            task_status.started()
            await trio.sleep_forever()

    async def stay_with_peer(self, task_status: trio.TaskStatus[None]) -> None:
        async with Seats(1, OPTIONS) as (seat,), self.rooms.join(seat.ws, "x", buffer=BUFFER):
            self.seats.append(seat)
            task_status.started()
            await trio.sleep_forever()

    async def publish(self, count: int) -> None:
        """Publish so many messages, and let those who read do so, every few of them."""
        end = len(self.script.texts) + count
        while (number := len(self.script.texts)) < end:
            text = self.script.add(f"message {number:06} " + "." * 50)
            if number % BURST < BURST - 1:
                self.rooms.publish_nowait("x", text)
                continue
            await self.rooms.publish("x", text)
            await settle()
            new = self.script.texts[self.heard :]
            for seat in self.seats:
                assert await seat.read() == new
            self.heard = len(self.script.texts)
            assert {tape.received for tape in self.tapes} == {len(self.script.wire)}


async def check_those_who_drop(
    size: int, messages: int, *, peers: int, weigh: bool = False
) -> None:
    """Ten do not read, and miss what their policies say; the others get everything."""
    rooms = Rooms()
    mute = [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST] * 4 + [Overflow.LATEST] * 2
    async with trio.open_nursery() as nursery:
        crowd = Crowd(rooms, nursery)
        await crowd.gather(size, mute, peers=peers)
        await crowd.publish(messages // 2)
        before = blocks() if weigh else 0
        await crowd.publish(messages - messages // 2)
        if weigh:  # each message is kept in the script: that is all that may grow
            assert blocks() - before < messages

        counted = rooms.statistics().rooms["x"]
        assert (counted.members, counted.published) == (size, messages)
        assert counted.addressed == size * messages
        assert counted.delivered + counted.dropped == size * messages
        assert counted.dropped == 8 * (messages - FITTING - BUFFER) + 2 * (messages - 2)
        assert (counted.disconnected, counted.waiting) == (0, 0)
        assert (counted.queued, counted.most_queued) == (8 * BUFFER + 2, BUFFER)
        nursery.cancel_scope.cancel()
    assert rooms.statistics().rooms == {}


async def check_those_who_are_cut_off(size: int, messages: int, *, peers: int) -> None:
    """Ten do not read, and are closed; the others get everything."""
    rooms = Rooms()
    async with trio.open_nursery() as nursery:
        crowd = Crowd(rooms, nursery)
        await crowd.gather(size, [Overflow.DISCONNECT] * 10, peers=peers)
        await crowd.publish(messages)

        counted = rooms.statistics().rooms["x"]
        assert (counted.members, counted.published) == (size - 10, messages)
        assert counted.delivered == (size - 10) * messages + 10 * FITTING
        assert counted.disconnected == 10 * (BUFFER + 1)
        assert counted.addressed == counted.delivered + counted.disconnected
        assert (counted.dropped, counted.queued, counted.most_queued) == (0, 0, BUFFER)
        nursery.cancel_scope.cancel()
    assert rooms.statistics().rooms == {}


def blocks() -> int:
    """Return how many small pieces of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()
