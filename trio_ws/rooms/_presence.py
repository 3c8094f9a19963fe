"""Presence: who is in a room, and who comes and goes."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Final, Self

import trio

from ._messages import Joined, Left, Occupant
from ._registry import Registry
from ._room import Room

MANY: Final = 1024
"""Events that may wait before those are left out that cancel each other."""


class Presence(trio.abc.ReceiveChannel["Joined | Left"]):
    """Who is in a room, and a `trio.abc.ReceiveChannel` of who comes and goes.

    Made by `Rooms.presence`. ``snapshot`` tells who was there when the block was entered;
    the events follow on it without a gap. Somebody who falls far behind is not told of
    those who came and left in the meantime, so that what waits stays in proportion to
    the number of people.
    """

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self._name = name
        self._room: Room | None = None
        self._snapshot: tuple[Occupant, ...] = ()
        self._events: deque[Joined | Left] = deque()
        self._enough = MANY
        self._news = trio.lowlevel.ParkingLot()

    @property
    def snapshot(self) -> tuple[Occupant, ...]:
        """Who was in the room when the block was entered."""
        return self._snapshot

    async def __aenter__(self) -> Self:
        if self._room is not None:
            raise RuntimeError("this presence is in use: call rooms.presence() again")
        await trio.lowlevel.checkpoint_if_cancelled()
        room = self._room = await self._registry.hold(self._name)
        room.watchers[self] = self._tell
        self._snapshot = self._registry.broker.occupants(self._name)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    async def receive(self) -> Joined | Left:
        """Receive who has come or gone next.

        Raises:
          trio.ClosedResourceError: after ``aclose()``, or outside of the block.

        If cancelled: nothing is lost.

        Concurrency: any number of tasks; each event goes to one of them.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._room is None:
                raise trio.ClosedResourceError("presence is told inside of its block")
            if self._events:
                return self._events.popleft()
            await self._news.park()

    async def aclose(self) -> None:
        """Hear no more. Whoever waits in `receive` hears `trio.ClosedResourceError`.

        Raises: nothing.

        If cancelled: it is closed all the same.

        Concurrency: any number of tasks, any number of times.
        """
        self._close()
        await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    def _close(self) -> None:
        if self._room is not None:
            del self._room.watchers[self]
            self._registry.release(self._room)
            self._room = None
            self._events.clear()
            self._news.unpark_all()

    def _tell(self, event: Joined | Left) -> None:
        self._events.append(event)
        if len(self._events) > self._enough:
            self._events = _without_visitors(self._events)
            self._enough = max(MANY, 2 * len(self._events))
        self._news.unpark()


def _without_visitors(events: deque[Joined | Left]) -> deque[Joined | Left]:
    """Leave out those who have come and left again."""
    kept: dict[int, Joined | Left] = {}
    came: dict[str, int] = {}
    for index, event in enumerate(events):
        if isinstance(event, Left) and event.id in came:
            del kept[came.pop(event.id)]
            continue
        kept[index] = event
        if isinstance(event, Joined):
            came[event.id] = index
    return deque(kept.values())
