"""Member: a connection's place in rooms, with its queue."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from .._errors import ConnectionLost
from .._messages import CloseCode, PreparedMessage
from .._websocket import WebSocket
from ._overflow import Overflow

if TYPE_CHECKING:
    from ._rooms import Rooms


class Member:
    """A connection that is in one or more rooms; made by `Rooms.join`."""

    def __init__(
        self, manager: Rooms, ws: WebSocket, buffer: int, overflow: Overflow, meta: Any
    ) -> None:
        self.ws = ws
        self.meta = meta
        self._manager = manager
        self._overflow = overflow
        self._connection = ws._connection
        self._queue_in, self._queue_out = trio.open_memory_channel[PreparedMessage](buffer)
        self._behind = False
        self._rooms: dict[str, None] = {}

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that it is in."""
        return tuple(self._rooms)

    async def join(self, *rooms: str) -> None:
        """Enter more rooms; does nothing for those that it is in."""
        for room in rooms:
            self._manager._enter(room, self)
            self._rooms[room] = None
        await trio.lowlevel.checkpoint()

    def leave(self, *rooms: str) -> None:
        """Leave rooms; does nothing for those that it is not in."""
        for room in rooms:
            if room in self._rooms:
                del self._rooms[room]
                self._manager._leave(room, self)

    def _take(self, message: PreparedMessage) -> bool:
        try:
            if not self._behind and self._connection.send_nowait(message):
                return True
            return self._enqueue(message)
        except (ConnectionLost, trio.ClosedResourceError):
            self._end()
            return False

    def _enqueue(self, message: PreparedMessage) -> bool:
        try:
            self._queue_in.send_nowait(message)
        except trio.WouldBlock:
            if self._overflow is Overflow.DROP_NEWEST:
                return False
            if self._overflow is Overflow.DISCONNECT:
                self._end()
                self._connection.begin_close(CloseCode.TRY_AGAIN_LATER, "too slow")
                return False
            self._queue_out.receive_nowait()
            self._queue_in.send_nowait(message)
        if not self._behind:
            self._behind = True
            self._connection.outbox.feeders.append(self._feed)
        return True

    def _feed(self) -> None:
        try:
            while self._connection.outbox.has_room():
                self._connection.send_nowait(self._queue_out.receive_nowait())
        except trio.WouldBlock:
            self._catch_up()
        except (ConnectionLost, trio.ClosedResourceError):
            self._end()

    def _catch_up(self) -> None:
        if self._behind:
            self._behind = False
            self._connection.outbox.feeders.remove(self._feed)

    def _end(self) -> None:
        self._catch_up()
        self.leave(*self._rooms)


class Joining:
    """The ``async with`` of `Rooms.join`."""

    def __init__(self, member: Member, rooms: tuple[str, ...]) -> None:
        self._member = member
        self._names = rooms

    async def __aenter__(self) -> Member:
        try:
            await self._member.join(*self._names)
        except BaseException:
            self._member._end()
            raise
        return self._member

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._member._end()
