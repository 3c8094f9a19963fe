"""Connections in memory: streams that can be held up, and a peer of literal bytes."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import trio
import trio.testing
from wsproto.connection import Connection as WsprotoConnection
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping

from trio_ws import testing
from trio_ws._deflate import DeflateParameters
from trio_ws._frames import encode_frame
from trio_ws._options import Options
from trio_ws._session import Session
from trio_ws.testing import Direction, Frame, Link
from trio_ws.testing._socket import MemorySocket, Switchboard

Role: TypeAlias = Literal["client", "server"]

CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

DEFLATE: Final = DeflateParameters(True, True, 12, 12)
"""What two sides with default options agree on."""
STATEFUL_DEFLATE: Final = DeflateParameters(False, False, 12, 12)
"""Each message depends on those before: one that is lost or torn spoils all that follow."""

sessions: list[tuple[Session, MemoryStream | trio.SocketStream]] = []
"""Every side that the running test has made: see the leak check in conftest.py."""
ends: list[MemorySocket] = []
"""Every socket that it has made."""


def other(role: Role) -> Role:
    return "server" if role == "client" else "client"


# Streams...


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory; ``window`` is what the network still takes."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self._stream = stream
        self._opened = trio.lowlevel.ParkingLot()
        self.window = math.inf
        self.closed = False
        self.eof_sent = False
        self.failure: Exception | None = None  # what send_all raises

    def open_window(self, size: float = math.inf) -> None:
        self.window += size
        self._opened.unpark_all()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self.failure is not None:
                raise self.failure
            taken = int(min(self.window, len(rest)))
            self.window -= taken
            if taken:
                await self._stream.send_all(rest[:taken])
            rest = rest[taken:]
            if not rest:
                break
            await self._opened.park()
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        self.eof_sent = True
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


def memory_streams() -> tuple[MemoryStream, MemoryStream]:
    ours, theirs = trio.testing.memory_stream_pair()
    return MemoryStream(ours), MemoryStream(theirs)


def connected_streams() -> tuple[Link, dict[Role, trio.SocketStream]]:
    """Return a link and what is at its ends, as if somebody had connected."""
    link = Link(buffer=None)
    switchboard = Switchboard(lambda number: link)
    client, server = MemorySocket(switchboard), MemorySocket(switchboard)
    server.local = ("192.0.2.1", 80)
    client.plug(link, link.to_client, link.to_server, server.local)
    server.plug(link, link.to_server, link.to_client, client.getsockname())
    ends.extend((client, server))
    return link, {"client": trio.SocketStream(client), "server": trio.SocketStream(server)}


# Two sides...


def session(
    stream: MemoryStream | trio.SocketStream,
    role: Role,
    options: Options = Options(),
    *,
    deflate: DeflateParameters | None = None,
    leftover: bytes = b"",
) -> Session:
    us = Session(stream, options, client=role == "client", leftover=leftover, deflate=deflate)
    sessions.append((us, stream))
    return us


def connect(
    role: Role,
    options: Options = Options(),
    peer_options: Options = Options(),
    *,
    deflate: DeflateParameters | None = None,
) -> tuple[Session, Session]:
    """Return this side, which plays ``role``, and its peer."""
    _, streams = connected_streams()
    return (
        session(streams[role], role, options, deflate=deflate),
        session(streams[other(role)], other(role), peer_options, deflate=deflate),
    )


def connect_peer(
    role: Role,
    options: Options = Options(),
    *,
    deflate: DeflateParameters | None = None,
    leftover: bytes = b"",
) -> tuple[Session, Peer]:
    """Return this side, which plays ``role``, and a peer that does what a test says."""
    link, streams = connected_streams()
    us = session(streams[role], role, options, deflate=deflate, leftover=leftover)
    return us, Peer(other(role), link, streams)


class Peer(testing.RawPeer):
    """A peer of literal bytes, and the way from the side under test to it.

    What it gets has to be masked as the role of that side demands.
    """

    def __init__(self, role: Role, link: Link, streams: dict[Role, trio.SocketStream]) -> None:
        super().__init__(streams[role], client=role == "client", patience=1e6)
        self.link = link
        self.far = streams[other(role)]
        """The end of the side under test."""
        self.way: Direction = link.to_client if self.client else link.to_server
        """What the side under test sends."""
        self.back: Direction = link.to_server if self.client else link.to_client
        """What this peer sends."""
        self._turn = trio.Lock()
        self.answered: list[Frame] = []
        """What has come while it was polite: see `answer`."""
        self._polite = False

    @property
    def left(self) -> bool:
        """Whether the side under test has ended TCP."""
        return self.far.socket.fileno() == -1

    def wire(self, *frames: Frame) -> bytes:
        """Return frames as this peer sends them."""
        return b"".join(map(self._as_bytes, frames))

    def break_way(self, failure: Exception) -> None:
        """Let all writing of the side under test fail."""

        async def send(data: object) -> int:
            raise failure

        self.far.socket.send = send

    async def send(self, *items: bytes | Frame) -> None:
        async with self._turn:
            await super().send(*items)

    async def receive_frame(self) -> Frame | None:
        frame = await super().receive_frame()
        if frame is None:
            assert not self._reader.unread, "the last frame was torn"
        else:
            assert (frame.mask is None) == self.client
            if self._polite:
                self.answered.append(frame)
        return frame

    async def until_close(self) -> Frame:
        """Return the Close, whatever comes before it."""
        while True:
            frame = await self.receive_frame()
            assert frame is not None, "no Close came"
            if frame.opcode == CLOSE:
                return frame

    async def until_end(self) -> list[Frame]:
        """Return all there is to come; fail if the last frame was torn."""
        frames: list[Frame] = []
        while (frame := await self.receive_frame()) is not None:
            frames.append(frame)
        return frames

    async def answer(self) -> list[Frame]:
        self._polite = True
        try:
            await super().answer()
        finally:
            await trio.aclose_forcefully(self.stream)
        assert [frame.opcode for frame in self.answered].count(CLOSE) <= 1
        return self.answered

    @property
    def close(self) -> Frame | None:
        """The Close that it has answered: nothing may follow that."""
        last = self.answered[-1] if self.answered else None
        return last if last is not None and last.opcode == CLOSE else None

    @property
    def messages(self) -> list[str | bytes]:
        """The messages that came while it was polite."""
        messages: list[str | bytes] = []
        parts: list[Frame] = []
        for frame in self.answered:
            if frame.opcode < CLOSE:
                assert (frame.opcode == 0) == bool(parts), "fragments of two messages"
                parts.append(frame)
                if frame.fin:
                    messages.append(self._join(parts))
                    parts = []
        return messages


class RawPeer:
    """A peer that sends literal bytes, and reads with wsproto as it is: no limits of ours.

    ``stream`` is its end of the connection, ``far`` that of the side under test.
    """

    def __init__(self, stream: MemoryStream, far: MemoryStream, role: Role) -> None:
        self.stream = stream
        self.far = far
        self.masks = role == "client"
        self.eof = False
        self.messages: list[str | bytes] = []  # those that `answer` has read
        self.close: CloseConnection | None = None
        kind = ConnectionType.CLIENT if self.masks else ConnectionType.SERVER
        self._wsproto = WsprotoConnection(kind)
        self._events: Iterator[Event] = iter(())

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False
    ) -> None:
        await self.send(self.frame(opcode, payload, fin=fin, rsv1=rsv1))

    def frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False
    ) -> bytes:
        return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=self.masks)

    async def send_close(self, code: int = 1000, reason: str = "") -> None:
        await self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())

    async def next_event(self) -> Event | None:
        """Return what comes next; `None` at the end of TCP."""
        while True:
            for event in self._events:
                return event
            if self.eof:
                return None
            await self._read()

    async def _read(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if data:
            self._wsproto.receive_data(bytes(data))
        else:
            self.eof = True
        self._events = self._wsproto.events()

    async def next_message(self) -> str | bytes:
        """Return the next message whole, whatever control frames there are on the way."""
        pieces: list[Any] = []
        while True:
            event = await self.next_event()
            assert not isinstance(event, CloseConnection), event
            assert event is not None
            if isinstance(event, Message):
                pieces.append(event.data)
                if event.message_finished:
                    return type(pieces[0])().join(pieces)

    async def until_eof(self) -> list[Event]:
        """Return all there is to come, pieces joined; fail if the last frame was torn."""
        events: list[Event] = []
        while (event := await self.next_event()) is not None:
            events.append(event)
        self.assert_whole()
        return events

    async def until_close(self) -> CloseConnection:
        """Return the Close, whatever comes before it."""
        while True:
            event = await self.next_event()
            assert event is not None, "no Close came"
            if isinstance(event, CloseConnection):
                return event

    def assert_whole(self) -> None:
        """Check that no frame has been cut short."""
        decoder = self._wsproto._proto._frame_decoder
        assert decoder.header is None
        assert len(decoder.buffer) == 0

    async def answer(self) -> None:
        """Be a polite peer until TCP ends: note messages, answer pings and the Close."""
        pieces: list[Any] = []
        while (event := await self.next_event()) is not None:
            assert self.close is None, "nothing may follow the Close"
            if isinstance(event, Message):
                pieces.append(event.data)
                if event.message_finished:
                    self.messages.append(type(pieces[0])().join(pieces))
                    pieces.clear()
            elif isinstance(event, Ping):
                await self._try_to_send(self.frame(PONG, bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                self.close = event
                await self._try_to_send(self.frame(CLOSE, struct.pack("!H", event.code)))
                await self.stream.send_eof()

    async def _try_to_send(self, data: bytes) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the other side may have gone
            await self.send(data)

    async def aclose(self) -> None:
        await self.stream.aclose()


# Waiting...


async def settle(*, until: Callable[[], bool] | None = None) -> None:
    """Let every other task go as far as it can."""
    await trio.testing.wait_all_tasks_blocked()
    assert until is None or until()


# Counting...


def descriptors(path: Path) -> int:
    """Return how many of this process' descriptors are of one file; others come and go."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found += each.readlink() == path
    return found
