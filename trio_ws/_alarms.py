"""Alarms: one task looks after what is due at times on many connections.

A task of its own, with a cancel scope to sleep in, costs each connection 4 KiB, and begins
and ends with it. An alarm is a line in a heap.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Final

import trio

from ._pace import PASS

logger: Final = logging.getLogger("trio_ws")

MOST_CANCELLED: Final = 64
"""Cancelled alarms that may always stay in the heap; beyond, they may be half of it."""

Look = Callable[[], "float | None"]
"""Does what is due, without waiting, and returns when to look again; `None`: never."""


class Alarm:
    """Something that is looked at, at its time, until it is cancelled."""

    __slots__ = ("_alarms", "look")

    def __init__(self, alarms: Alarms, look: Look) -> None:
        self._alarms = alarms
        self.look: Look | None = look

    def cancel(self) -> None:
        """Look no more; whatever it looked at is let go of."""
        if self.look is not None:
            self.look = None
            self._alarms.count_cancelled()


class Alarms:
    """All alarms of a server."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._sleep = trio.CancelScope()

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at: float, look: Look) -> Alarm:
        """Have something looked at, at this time on trio's clock."""
        alarm = Alarm(self, look)
        self._put(at, alarm)
        return alarm

    def _put(self, at: float, alarm: Alarm) -> None:
        heapq.heappush(self._heap, (at, next(self._numbers), alarm))
        self._sleep.deadline = min(self._sleep.deadline, at)

    def count_cancelled(self) -> None:
        """Count one more; if they are too many, put them out of the heap."""
        self._cancelled += 1
        if self._cancelled > max(MOST_CANCELLED, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].look is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Look at what is due, until cancelled."""
        while True:
            next_at = self._heap[0][0] if self._heap else math.inf
            with trio.CancelScope(deadline=next_at) as self._sleep:
                await trio.sleep_forever()
            await self._look()

    async def _look(self) -> None:
        """Look at what is due: ten thousand that were opened together are due together."""
        # If the whole process stood still meanwhile, what came has yet to be read.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        pass_ends = time.perf_counter() + PASS
        while self._heap and self._heap[0][0] <= trio.current_time():
            _, _, alarm = heapq.heappop(self._heap)
            if alarm.look is None:
                self._cancelled -= 1
                continue
            next_at = _attempt(alarm.look)
            if next_at is None:
                alarm.look = None
            elif alarm.look is not None:  # it may have been cancelled meanwhile
                self._put(next_at, alarm)
            if time.perf_counter() >= pass_ends:
                await trio.lowlevel.checkpoint()
                pass_ends = time.perf_counter() + PASS


def _attempt(look: Look) -> float | None:
    """Look; a connection that fails must not stop it for all others."""
    try:
        return look()
    except Exception:
        logger.exception("an alarm of a connection failed inside")
        return None
