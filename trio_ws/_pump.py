"""One task that reads for all connections which wait for nothing but bytes.

A task of its own costs each connection a task switch and two system calls per read
(12 µs where a read itself takes 2), and 3 KiB. So a server has its sockets watched together, by
an epoll that is itself one thing to wait for, and tells a connection when there is
something to read. Whoever has more to do than that, closing above all, leaves the pump
for a task of its own.

What should happen soon, but not within the call that asks for it, is done by a second
task: a connection's answers leave together, and one that was paused goes on reading. A
third sees to what is due at its time (`Alarms`), for those as well that read by themselves.

Only Linux has an epoll. Elsewhere each connection keeps its own task.
"""

from __future__ import annotations

import errno
import logging
import select
import time
from collections.abc import Callable
from typing import Final, Protocol

import trio

from ._alarms import Alarms
from ._pace import PASS

logger: Final = logging.getLogger("trio_ws")

TURN: Final = 64
"""Connections that are read from in a row before other tasks get their turn, if `PASS` seconds
are not over before: a read of a small message takes 20 µs; but 64 KiB of pings, or zeros that
inflate to a MiB, take a hundred times as long, and many connections may send just that at the
same time: 64 of them took up to 0.28 s."""


class Source(Protocol):
    """What can be read from."""

    def read_some(self, now: float) -> None:
        """Read once, without waiting; raises nothing. ``now`` is when this pass began."""
        ...

    def leave_pump(self) -> None:
        """Find another way to read; raises nothing."""
        ...


class Pump:
    """Tells its sources when they can be read."""

    def __init__(self) -> None:
        self.alarms: Alarms = Alarms()
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}
        self._due: dict[Callable[[], None], None] = {}
        self._work = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    def add(self, fd: int, source: Source) -> None:
        """Watch a descriptor; `remove` must follow before it is closed.

        Raises:
          OSError: the system lets nobody watch any more of them (epoll(7),
              max_user_watches), or the pump is closed.
        """
        if self.closed:
            raise OSError(errno.EBADF, "this pump is closed")
        self._epoll.register(fd, select.EPOLLIN)
        self._sources[fd] = source

    def remove(self, fd: int) -> None:
        """Watch a descriptor no more."""
        if self._sources.pop(fd, None) is not None:  # it may have been closed meanwhile
            self._epoll.unregister(fd)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back once those tasks that are ready have had their turn; now, if closed."""
        if self.closed:
            callback()
        else:
            if not self._due:
                self._work.unpark()
            self._due[callback] = None

    @property
    def closed(self) -> bool:
        """Whether it does nothing any more."""
        return self._epoll.closed

    @trio.lowlevel.enable_ki_protection  # up to the end of the last line
    async def work(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until stopped or cancelled; then everybody has to see to themselves."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch)
                    nursery.start_soon(self._call_back)
                    nursery.start_soon(self.alarms.run)
                    task_status.started()
        finally:
            self._close()

    def stop(self) -> None:
        """End `work`."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            now, pass_ends = trio.current_time(), time.perf_counter() + PASS
            for fd, _ in self._epoll.poll(0, TURN):
                if time.perf_counter() >= pass_ends:
                    await trio.lowlevel.checkpoint()
                    now, pass_ends = trio.current_time(), time.perf_counter() + PASS
                source = self._sources.get(fd)  # none if one before it has removed it
                if source is None:
                    continue
                try:
                    source.read_some(now)
                except Exception:
                    logger.exception(_BUG)
                    source.leave_pump()

    @trio.lowlevel.enable_ki_protection
    async def _call_back(self) -> None:
        while True:
            if not self._due:
                await self._work.park()
            await self._call_in_passes()
            await trio.lowlevel.checkpoint()

    async def _call_in_passes(self) -> None:
        due, self._due = self._due, {}
        rest = iter(due)
        pass_ends = time.perf_counter() + PASS
        try:
            for callback in rest:
                _attempt(callback)
                if time.perf_counter() >= pass_ends:
                    await trio.lowlevel.checkpoint()
                    pass_ends = time.perf_counter() + PASS
        finally:
            self._due = {**dict.fromkeys(rest), **self._due}  # if it was stopped in between

    @trio.lowlevel.enable_ki_protection
    def _close(self) -> None:
        self._epoll.close()
        sources, self._sources = self._sources, {}
        for source in sources.values():
            source.leave_pump()
        while self._due:
            due, self._due = self._due, {}
            for callback in due:
                _attempt(callback)


def _attempt(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        logger.exception(_BUG)


_BUG: Final = "a connection failed inside the pump"  # which must not stop it for all others


def open_pump() -> Pump | None:
    """Return a pump, or `None` where the system has none, or no descriptor left for one."""
    try:
        return Pump()
    except (AttributeError, OSError):
        return None
