"""Connections in memory: both sides ours, or one of them a peer of literal bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias

import pytest
import trio
import trio.testing

from trio_ws import testing
from trio_ws._deflate import DeflateParameters
from trio_ws._options import Options
from trio_ws._pump import Pump
from trio_ws._session import Session
from trio_ws._streams import RelayedStream
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

sessions: list[tuple[Session, trio.SocketStream]] = []
"""Every side that the running test has made: see the leak check in conftest.py."""
ends: list[MemorySocket] = []
"""Every socket that it has made."""


def other(role: Role) -> Role:
    return "server" if role == "client" else "client"


# Streams...


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


def stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return the client's end of a connection in memory, and the server's."""
    _, streams = connected_streams()
    return streams["client"], streams["server"]


# Two sides...


def session(
    stream: trio.SocketStream,
    role: Role,
    options: Options = Options(),
    *,
    deflate: DeflateParameters | None = None,
    leftover: bytes = b"",
    pump: Pump | None = None,
) -> Session:
    client = role == "client"
    us = Session(stream, options, client=client, leftover=leftover, deflate=deflate, pump=pump)
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
    pump: Pump | None = None,
) -> tuple[Session, Peer]:
    """Return this side, which plays ``role``, and a peer that does what a test says."""
    link, streams = connected_streams()
    us = session(streams[role], role, options, deflate=deflate, leftover=leftover, pump=pump)
    return us, Peer(other(role), link, streams)


def break_sending(stream: trio.SocketStream, failure: Exception) -> None:
    """Let all writing fail, though reading does not."""

    async def send(data: object) -> int:
        raise failure

    stream.socket.send = send


class Relayed(RelayedStream):
    """What an ASGI server has accepted, and will close."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pytest.fail("that is for the server that has accepted it")


class Peer(testing.RawPeer):
    """A peer of literal bytes, and the way from the side under test to it.

    What it gets has to be masked as the role of that side demands.
    """

    def __init__(
        self,
        role: Role,
        link: Link,
        streams: dict[Role, trio.SocketStream],
        *,
        leftover: bytes = b"",
    ) -> None:
        super().__init__(streams[role], client=role == "client", patience=1e6)
        self._unread = leftover
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
        break_sending(self.far, failure)

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
