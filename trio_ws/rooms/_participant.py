"""Participant: what a member and a subscription let their owner see and do."""

from __future__ import annotations

from ._messages import Position, Resume
from ._recipient import BaseRecipient
from ._registry import Since
from ._statistics import MemberStatistics


class Participant:
    """Somebody in rooms: a `Member` or a `Subscription`."""

    _recipient: BaseRecipient

    @property
    def id(self) -> str:
        """A random name of 16 hexadecimal digits, for ``exclude=`` and ``only=``."""
        return self._recipient.id

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that it is in. None once its block has ended or its connection is over."""
        return tuple(self._recipient.places)

    def position(self, room: str) -> Position:
        """Return where it stood on entering a room: it is sent everything that follows.

        Raises:
          LookupError: it is not in the room.
        """
        return self._recipient.places[room].position

    def resumed(self, room: str) -> Resume:
        """Return what came of ``since=``.

        Raises:
          LookupError: it is not in the room.
        """
        return self._recipient.places[room].resume

    async def join(self, *rooms: str, since: Since = None) -> None:
        """Enter more rooms: all of them, or none. Those that it is in are left as they are.

        Raises: as ``async with rooms.join(...)``, and

          trio.ClosedResourceError: its block has ended.

        If cancelled: it has entered none of them.

        Concurrency: any number of tasks.
        """
        await self._recipient.join(check_names(rooms), since)

    def leave(self, *rooms: str) -> None:
        """Leave rooms. Nothing happens for those that it is not in.

        What is queued of these rooms is dropped; what the connection has taken already
        is still sent.

        Concurrency: any number of tasks.
        """
        self._recipient.leave(check_names(rooms))

    def statistics(self) -> MemberStatistics:
        """Return how many messages wait, and how many were missed."""
        return self._recipient.statistics()


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse an argument that is neither `None` nor of its class.

    Raises:
      TypeError: it is something else.
    """
    if not (value is None or isinstance(value, kind)):
        raise TypeError(f"{name} is a {kind.__name__} or None, not {value!r}")


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of rooms if they are.

    Raises:
      TypeError: one of them is no string.
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a room is a str, not {type(name).__name__}")
    return names
