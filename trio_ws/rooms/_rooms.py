"""Rooms: who is where, and what is published to whom."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

import trio

from .._messages import PreparedMessage
from .._websocket import WebSocket
from ._member import Joining, Member
from ._overflow import Overflow


class Rooms:
    """Named rooms of connections in this process."""

    def __init__(self) -> None:
        self._members: dict[str, dict[Member, None]] = {}

    def join(
        self,
        ws: WebSocket,
        *rooms: str,
        buffer: int = 64,
        overflow: Overflow = Overflow.DISCONNECT,
        meta: Any = None,
    ) -> Joining:
        """Be in rooms for the length of a block: ``async with rooms.join(ws, "lobby") as member``."""
        return Joining(Member(self, ws, buffer, overflow, meta), rooms)

    def members(self, room: str) -> tuple[Member, ...]:
        """Return who is in a room."""
        return tuple(self._members.get(room, ()))

    async def publish(
        self, room: str | Iterable[str], data: Any, *, exclude: Collection[Member] = ()
    ) -> int:
        """Send a message to all members; return how many took it. Waits for none of them."""
        await trio.lowlevel.checkpoint_if_cancelled()
        count = self.publish_nowait(room, data, exclude=exclude)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return count

    def publish_nowait(
        self, room: str | Iterable[str], data: Any, *, exclude: Collection[Member] = ()
    ) -> int:
        """`publish` without a checkpoint."""
        message = _prepare(data)
        names = (room,) if isinstance(room, str) else room
        targets = dict.fromkeys(member for name in names for member in self.members(name))
        return sum(member._take(message) for member in targets if member not in exclude)

    def _enter(self, room: str, member: Member) -> None:
        self._members.setdefault(room, {})[member] = None

    def _leave(self, room: str, member: Member) -> None:
        members = self._members[room]
        del members[member]
        if not members:
            del self._members[room]


def _prepare(data: Any) -> PreparedMessage:
    if isinstance(data, PreparedMessage):
        return data
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return PreparedMessage(data)
