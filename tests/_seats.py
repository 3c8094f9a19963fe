"""Connections in memory for rooms: each with its peer, and a network that can be held up."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final

import _helpers

from trio_ws._deflate import DeflateParameters
from trio_ws._messages import PreparedMessage
from trio_ws._options import Options
from trio_ws._websocket import WebSocket
from trio_ws.rooms import Position, RoomMessage
from trio_ws.testing._socket import link_under

NARROW: Final = Options(send_buffer=1, ping_interval=None, write_timeout=None)
"""A connection that has room for one message: the next one waits in the member's queue."""


PEER: Final = Options(receive_buffer=None, ping_interval=None, close_grace=0.001)
"""A peer that takes all there is, and does not care for what is left unread at the end."""


class Seat:
    """A connection: ``ws`` on the side of the rooms, and what its ``peer`` makes of it."""

    def __init__(self, ws: WebSocket, peer: WebSocket) -> None:
        self.ws = ws
        self.peer = peer
        self.link = link_under(ws._connection._transport.stream)
        self.way = self.link.to_server if ws._connection.client else self.link.to_client

    def stall(self) -> None:
        """Let the network take nothing any more."""
        self.way.buffer = 0

    def release(self) -> None:
        """Let the network take everything again."""
        self.way.buffer = None

    async def received(self) -> list[Any]:
        """Return what the peer has received since the last time."""
        await _helpers.settle()
        return await self.read()

    async def read(self) -> list[Any]:
        """Return what has arrived by now."""
        self.link.recorder.clear()  # or a crowd's transcripts would take more than its rooms
        return [await self.peer.receive() for _ in range(self.peer.statistics().unread_messages)]


class Seats:
    """``async with Seats(3) as (a, b, c)``: so many connections, all closed at the end."""

    def __init__(
        self,
        count: int,
        options: Options = NARROW,
        *,
        deflate: DeflateParameters | None = None,
        role: _helpers.Role = "server",
    ) -> None:
        self._count = count
        self._options = options
        self._deflate = deflate
        self._role = role
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> list[Seat]:
        seats: list[Seat] = []
        for _ in range(self._count):
            ours, theirs = _helpers.connect(self._role, self._options, PEER, deflate=self._deflate)
            peer = await self._stack.enter_async_context(theirs)
            seats.append(Seat(await self._stack.enter_async_context(ours), peer))
        return seats

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(etype, exc, traceback)


def message(
    offset: int, *, room: str = "a", size: int = 1, key: str | None = None, data: Any = None
) -> RoomMessage:
    """Return a message as a broker would make it."""
    prepared = PreparedMessage("x" * size)
    found = offset if data is None else data
    return RoomMessage(room, found, Position("e", offset), key, (), offset, prepared)
