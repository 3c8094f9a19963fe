"""The vocabulary of rooms: what travels through them, and what is told about it."""

from __future__ import annotations

import enum
import re
from typing import Any, Final, Self

import attrs

from .._messages import PreparedMessage


@attrs.frozen
class Position:
    """A place in the history of a room: after the message with this ``offset``.

    Offsets count the messages of a room from 1. They mean something only together with
    the ``epoch``, which changes when the counting begins anew.
    """

    epoch: str
    """Some letters and digits."""
    offset: int
    """The number of the message."""

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that ``str(position)`` has written.

        Raises:
          ValueError: the text is no position.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:80]!r} is no position: it looks like 'epoch:offset'")
        return cls(match[1], int(match[2]))


_POSITION: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}):(0|[1-9][0-9]{0,17})")

START: Final = Position("", 0)
"""``join(..., since=START)``: everything that the history still has."""


class Resume(enum.Enum):
    """What came of ``join(..., since=...)``."""

    NEW = "new"
    """There was nothing to resume: no ``since``, or ``START``."""
    COMPLETE = "complete"
    """Everything that was missed has been replayed."""
    LOST = "lost"
    """Some of what was missed is gone, or may be: what is left has been replayed."""


@attrs.frozen
class RoomMessage:
    """A message as it stands in the history of a room."""

    room: str
    """The room that it was published in."""
    data: Any
    """What was published."""
    position: Position
    """Its place in this room."""
    key: str | None
    """What the publisher said for `Overflow.LATEST`."""
    places: tuple[tuple[str, Position], ...] = attrs.field(repr=False)
    """Its places in all rooms, if it was published to several at the same time."""
    order: int = attrs.field(repr=False)
    """Its place among the messages of all rooms: greater in each room with the offset."""
    prepared: PreparedMessage = attrs.field(repr=False)
    """What is sent to members: encoded once."""
    exclude: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    """The names of those who do not get it."""
    only: frozenset[str] | None = attrs.field(default=None, repr=False)
    """The names of those who get it; `None`: all."""

    @property
    def others(self) -> tuple[tuple[str, Position], ...]:
        """Its places in the other rooms that it was published to at the same time."""
        return tuple(place for place in self.places if place[0] != self.room)


@attrs.frozen
class Missed:
    """What a subscription yields in the place of messages that it has missed."""

    count: int | None
    """How many; `None` if nobody knows."""


@attrs.frozen
class Occupant:
    """Somebody in a room, as presence tells it."""

    id: str
    """`Member.id`."""
    meta: Any
    """What was given to `Rooms.join`."""


@attrs.frozen
class Joined:
    """Somebody has entered the room."""

    room: str
    """Which one."""
    id: str
    """`Member.id`."""
    meta: Any
    """What was given to `Rooms.join`."""


@attrs.frozen
class Left:
    """Somebody has left the room."""

    room: str
    """Which one."""
    id: str
    """`Member.id`."""
    meta: Any
    """What was given to `Rooms.join`."""
