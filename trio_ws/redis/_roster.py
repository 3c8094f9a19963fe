"""The roster: who is in a room, in this process and in others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..rooms import Joined, Left, Occupant
from ._wire import Presence


class Roster:
    """Who is in one room. What changes it returns what there is to tell."""

    def __init__(self, room: str) -> None:
        self._room = room
        self.own: dict[str, Occupant] = {}
        """Those of this process, by `Occupant.id`."""
        self._others: dict[str, dict[str, Occupant]] = {}

    @property
    def occupants(self) -> tuple[Occupant, ...]:
        """All of them."""
        others = (occupant for each in self._others.values() for occupant in each.values())
        return (*self.own.values(), *others)

    @property
    def processes(self) -> Iterable[str]:
        """Which other processes have somebody in the room."""
        return self._others.keys()

    def enter(self, occupant: Occupant) -> Joined:
        """Let somebody of this process in."""
        self.own[occupant.id] = occupant
        return Joined(self._room, occupant.id, occupant.meta)

    def leave(self, occupant: Occupant) -> Left:
        """Let somebody of this process out."""
        del self.own[occupant.id]
        return Left(self._room, occupant.id, occupant.meta)

    def hear(self, presence: Presence) -> Iterable[Joined | Left]:
        """Yield what another process tells, one change at a time."""
        process = presence.process
        there = self._others.get(process, {})
        gone = set(there) - set(presence.came) if presence.complete else set(presence.left)
        for name in [each for each in there if each in gone]:
            occupant = there.pop(name)
            if not there:
                del self._others[process]
            yield Left(self._room, name, occupant.meta)
        for name, meta in presence.came.items():
            there = self._others.setdefault(process, {})
            if name not in there:
                there[name] = Occupant(name, meta)
                yield Joined(self._room, name, meta)

    def read(
        self, found: Mapping[str, Mapping[str, Any]], trusted: Iterable[str]
    ) -> Iterable[Joined | Left]:
        """Yield what Redis knows better; who is not ``trusted`` to be written there stays."""
        for process in {*found, *trusted}:
            yield from self.hear(Presence(process, dict(found.get(process, {})), complete=True))

    def drop(self, process: str) -> Iterable[Left]:
        """Yield the end of those of a process that is no more."""
        for name, occupant in self._others.pop(process, {}).items():
            yield Left(self._room, name, occupant.meta)
