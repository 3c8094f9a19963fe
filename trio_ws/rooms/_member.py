"""Member: a connection in rooms.

::

    take() ─ not behind ─→ Connection.send_nowait ─→ the connection's outgoing buffer
       └──── behind, or no room there ─→ Queue ─ feed() when there is room ─┘

A member has no task. While it keeps up, a message goes straight into its connection's
outgoing buffer. Once that is full, messages wait in the member's queue, and the
connection's writing task calls ``feed`` each time it has written something.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final

import trio

from .._errors import ConnectionLost
from .._messages import CloseCode
from .._websocket import WebSocket
from ._messages import Missed, Occupant, Resume, RoomMessage
from ._overflow import Overflow, Terms
from ._participant import Participant
from ._queue import Delivery
from ._recipient import BaseRecipient
from ._registry import Registry, Since
from ._statistics import Counters

logger: Final = logging.getLogger("trio_ws")

_OVER: Final = (ConnectionLost, trio.ClosedResourceError)
"""What a connection raises once nothing can be sent any more."""


class Member(Participant):
    """A connection that is in one or more rooms; made by `Rooms.join`."""

    def __init__(self, recipient: ConnectionRecipient, ws: WebSocket, meta: Any) -> None:
        self._recipient = recipient
        self._ws = ws
        self._meta = meta

    def __repr__(self) -> str:
        return f"<Member {self.id} of {', '.join(map(repr, self.rooms)) or 'no room'}>"

    @property
    def ws(self) -> WebSocket:
        """Its connection."""
        return self._ws

    @property
    def meta(self) -> Any:
        """What was given to `Rooms.join`: who it is, as presence tells others."""
        return self._meta


class Joining(AbstractAsyncContextManager[Member]):
    """The ``async with`` of `Rooms.join`."""

    def __init__(
        self,
        registry: Registry,
        ws: WebSocket,
        rooms: tuple[str, ...],
        terms: Terms,
        *,
        name: str | None,
        meta: Any,
        since: Since,
    ) -> None:
        self._rooms = rooms
        self._since = since
        self._recipient = ConnectionRecipient(registry, terms, ws, name, meta)

    async def __aenter__(self) -> Member:
        member = self._recipient.member
        try:
            await self._recipient.join(self._rooms, self._since)
        except BaseException:
            self._recipient.end(lost=False)
            raise
        return member

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recipient.end(lost=False)


class ConnectionRecipient(BaseRecipient):
    """What stands behind a `Member`: the way from rooms to its connection."""

    def __init__(
        self, registry: Registry, terms: Terms, ws: WebSocket, name: str | None, meta: Any
    ) -> None:
        super().__init__(registry, terms, ws._connection.account)
        more = {ws.id} if name is None else {ws.id, name}
        self.names: frozenset[str] = self.names | more
        self.connection_id: str | None = ws.id
        self.occupant: Occupant | None = Occupant(self.id, meta)
        self.request: Any = ws.request
        self.member: Member = Member(self, ws, meta)
        """Its face; gone once it is over."""
        self._connection = ws._connection
        self._outbox = self._connection.outbox
        self._send = self._connection.send_nowait
        if terms.transform is not None:
            self._send = partial(self._send, shared=False)
        # What LATEST hands over it cannot take back: it does so when all else has left.
        self._most_unwritten = 0 if terms.overflow is Overflow.LATEST else math.inf
        self._behind = False  # then the queue goes first
        self._straight = self._may_go_straight()

    def check_open(self) -> None:
        """Raise if the block has ended or the connection is over."""
        if self.over:
            raise trio.ClosedResourceError("this member's block or connection has ended")
        self._outbox.check()

    # What is published...

    def take(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        """Hand a message to the connection, or queue it; return whether it was taken."""
        if self._straight:
            try:
                if self._send(message.prepared):
                    return True
            except _OVER:
                return self._count_lost(counters)
        elif self._transform is not None:
            return self._take_changed(message, counters, delivery)
        return self._hand_over(message, counters, delivery)

    def _hand_over(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        try:
            if self._behind or self._outbox.size > self._most_unwritten:
                self._outbox.check()
            elif self._send(message.prepared):
                return True
        except _OVER:
            return self._count_lost(counters)
        taken = super()._hand_over(message, counters, delivery)
        self._fall_behind()
        if (account := self._connection.account) is not None:
            account.budget.relieve()
        return taken

    def _count_lost(self, counters: Counters) -> bool:
        counters.disconnected += 1
        self.end(lost=True)
        return False

    def greet(self, greeting: RoomMessage | None, resume: Resume) -> None:
        """Tell the peer what the codec has to say; `Participant.resumed` tells the owner."""
        if greeting is not None:
            self._queue.put_extra(greeting)
            self._fall_behind()

    def catch_up(self, missed: Sequence[tuple[RoomMessage, Counters]]) -> None:
        """Queue what was missed."""
        super().catch_up(missed)
        if missed:
            self._fall_behind()

    # What waits...

    def _fall_behind(self) -> None:
        if not (self._behind or self.over):
            self._behind = True
            self._straight = False
            self._outbox.feeders.append(self._feed)
            self._feed()

    def _draw_level(self) -> None:
        if self._behind:
            self._behind = False
            self._straight = self._may_go_straight()
            self._outbox.feeders.remove(self._feed)

    def _may_go_straight(self) -> bool:
        return self._transform is None and self._most_unwritten == math.inf

    def _feed(self) -> None:
        """Send what waits, as far as there is room. Called when there may be."""
        try:
            self._outbox.check()
            if self._outbox.size > self._most_unwritten:
                return
            while self._outbox.has_room():
                message = self._queue.get_nowait()
                if message is None:
                    self._draw_level()
                    return
                if not isinstance(message, Missed):
                    self._send(message.prepared)
        except _OVER:
            self.end(lost=True)

    # The end...

    @trio.lowlevel.enable_ki_protection
    def end(self, *, lost: bool) -> None:
        """Be in no room ever again."""
        if not self.over:
            super().end(lost=lost)
            self._draw_level()
            del self.member  # or each would keep the other alive

    def _on_too_slow(self) -> None:
        self.end(lost=True)
        self._connection.begin_close(CloseCode.TRY_AGAIN_LATER, "too slow")

    def _on_transform_error(self, exc: Exception) -> None:
        logger.error("websocket %s: a transform failed", self.connection_id, exc_info=exc)
        self.end(lost=True)
        self._connection.begin_close(CloseCode.INTERNAL_ERROR, "")
