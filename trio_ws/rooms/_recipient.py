"""What stands behind a member or a subscription: its places in rooms, and its queue."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from .._budget import Account
from ._messages import Occupant, Resume, RoomMessage
from ._overflow import Overflow, Terms
from ._queue import Delivery, Queue
from ._registry import Registry, Since
from ._room import Place
from ._statistics import Counters, MemberStatistics


class BaseRecipient(ABC):
    """Somebody in rooms; the subclasses say what taking a message means."""

    connection_id: str | None = None
    occupant: Occupant | None = None
    request: Any = None

    def __init__(self, registry: Registry, terms: Terms, account: Account | None = None) -> None:
        self.id: str = secrets.token_hex(8)
        self.names: frozenset[str] = frozenset({self.id})
        self.patient: bool = terms.overflow is Overflow.WAIT
        self.places: dict[str, Place] = {}
        self.over: bool = False
        """Whether it will never be in a room again."""
        self._registry = registry
        self._transform = terms.transform
        self._queue = Queue(terms, account)

    # Coming and going...

    async def join(self, names: Sequence[str], since: Since) -> None:
        """Enter those rooms that it is not in."""
        new = [name for name in dict.fromkeys(names) if name not in self.places]
        await self._registry.enter(self, new, since)

    @abstractmethod
    def check_open(self) -> None:
        """Raise if it is over, and can enter nothing."""

    def leave(self, names: Sequence[str]) -> None:
        """Leave those rooms that it is in, and forget what they have left in the queue."""
        for name in names:
            if name in self.places:
                self._queue.purge(name)
                self._registry.leave(self, name)

    def end(self, *, lost: bool) -> None:
        """Be in no room ever again; ``lost``: because the connection is over."""
        self.over = True
        self._queue.discard(lost=lost)
        for name in tuple(self.places):
            self._registry.leave(self, name)

    # Taking messages...

    @abstractmethod
    def take(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        """Take a message, or do what the policy says; return whether it was taken."""

    @abstractmethod
    def greet(self, greeting: RoomMessage | None, resume: Resume) -> None:
        """Learn where it stands in a room, and what came of ``since``."""

    @property
    def ready(self) -> bool:
        """Whether it would take a message at once."""
        return self._queue.ready

    def _take_changed(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        """Take what its ``transform`` makes of a message."""
        try:
            changed = self._change(message)
        except Exception as exc:  # noqa: BLE001  # the user's code, which may do anything
            counters.disconnected += 1
            self._on_transform_error(exc)
            return False
        if changed is None:
            counters.addressed -= 1
            return False
        return self._hand_over(changed, counters, delivery)

    def catch_up(self, missed: Sequence[tuple[RoomMessage, Counters]]) -> None:
        """Take what was missed."""
        for message, counters in missed:
            try:
                changed = self._change(message)
            except Exception as exc:  # noqa: BLE001  # the user's code, which may do anything
                self._on_transform_error(exc)
                return
            if changed is not None:
                counters.replayed += 1
                self._queue.put_extra(changed)

    def _change(self, message: RoomMessage) -> RoomMessage | None:
        if self._transform is None:
            return message
        data = self._transform(message)
        if data is None or data is message:
            return data
        return self._registry.remake(message, data)

    def _hand_over(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        taken = self._queue.put(message, counters, delivery)
        if taken is None:
            counters.disconnected += 1
            self._on_too_slow()
            return False
        return taken

    @abstractmethod
    def _on_too_slow(self) -> None:
        """It does not keep up, and `Overflow.DISCONNECT` says what to do."""

    @abstractmethod
    def _on_transform_error(self, exc: Exception) -> None:
        """Its ``transform`` has raised: nobody else is to blame."""

    def statistics(self) -> MemberStatistics:
        """Return a snapshot."""
        queue = self._queue
        return MemberStatistics(queued=queue.length, queued_bytes=queue.size, missed=queue.missed)
