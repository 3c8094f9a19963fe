"""One room, as its manager keeps it in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import trio

from ._broker import Publication
from ._messages import Joined, Left, Occupant, Position, Resume, RoomMessage
from ._queue import Delivery
from ._statistics import Counters, RoomStatistics


class Recipient(Protocol):
    """Whom a room delivers to: what stands behind a `Member` or a `Subscription`."""

    names: frozenset[str]
    """What ``exclude=`` and ``only=`` may call it: its own id, the connection's, a name."""
    connection_id: str | None
    """The WebSocket's id; `None` for a subscription."""
    occupant: Occupant | None
    """What presence tells of it; `None` for a subscription."""
    request: Any
    """What ``on_join`` gets to see."""
    patient: bool
    """Whether publishers wait for it: `Overflow.WAIT`."""
    places: dict[str, Place]
    """The rooms that it is in."""

    @property
    def ready(self) -> bool:
        """Whether it would take a message at once."""
        ...

    def check_open(self) -> None:
        """Raise if it is over, and can enter nothing."""
        ...

    def take(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        """Take a message, or do what the policy says; return whether it was taken."""
        ...

    def greet(self, greeting: RoomMessage | None, resume: Resume) -> None:
        """Learn where it stands in a room; ``greeting`` is what the codec says to members."""
        ...

    def catch_up(self, missed: Sequence[tuple[RoomMessage, Counters]]) -> None:
        """Having been greeted, take what was missed."""
        ...


def concerns(message: Publication | RoomMessage, recipient: Recipient) -> bool:
    """Whether somebody is to get a message, as far as its publisher can tell."""
    names, only = recipient.names, message.only
    return names.isdisjoint(message.exclude) and (only is None or not names.isdisjoint(only))


class Place:
    """Somebody's place in a room."""

    def __init__(self, room: Room, position: Position, resume: Resume) -> None:
        self.room = room
        self.position = position
        """Where it stood on entering: it was handed everything that follows."""
        self.resume = resume


class Room:
    """Who is in a room, who watches it, and what is counted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters: Counters = Counters()
        self.patient: dict[Recipient, None] = {}
        """Recipients that publishers wait for."""
        self.watchers: dict[object, Callable[[Joined | Left], None]] = {}
        """Whom to tell of presence, and how."""
        self.holds = 0
        """How many need the room: recipients, watchers, and those about to be either."""
        self.open = False
        """Whether the broker delivers."""
        self.opening: trio.Lock = trio.Lock()
        self.members: int = 0
        """Recipients that are connections."""
        self._recipients: dict[Recipient, None] = {}
        self._lineup: tuple[Recipient, ...] | None = ()

    @property
    def lineup(self) -> tuple[Recipient, ...]:
        """Who gets the next message, in the order in which they came."""
        if self._lineup is None:
            self._lineup = tuple(self._recipients)
        return self._lineup

    def add(self, recipient: Recipient) -> None:
        """Let somebody in."""
        self._recipients[recipient] = None
        self._lineup = None
        self.members += recipient.connection_id is not None
        if recipient.patient:
            self.patient[recipient] = None

    def remove(self, recipient: Recipient) -> None:
        """Let somebody out."""
        del self._recipients[recipient]
        self._lineup = None
        self.members -= recipient.connection_id is not None
        self.patient.pop(recipient, None)

    def statistics(self) -> RoomStatistics:
        """Return a snapshot."""
        subscriptions = len(self._recipients) - self.members
        return self.counters.snapshot(members=self.members, subscriptions=subscriptions)
