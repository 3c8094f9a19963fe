"""What is left behind: tasks that still run, sockets in memory that are open."""

from __future__ import annotations

import contextlib
import linecache
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias, TypeVar

import attrs
import trio
import trio.testing

from ._socket import MemorySocket, open_sockets

T = TypeVar("T")
Leftover: TypeAlias = "trio.lowlevel.Task | MemorySocket"

PATIENCE: Final = 10.0
"""Seconds that something may take to end: twice the default of ``Options.close_grace``."""
STEP: Final = 0.1
"""Seconds between the first two looks at what is about to end."""
GROWTH: Final = 1.25
"""Factor from step to step: what takes long is looked at less often."""
_MACHINERY: Final = frozenset(
    {"trio", "trio_ws", "pytest_trio", "pytest", "_pytest", "contextlib"}
)
"""Packages whose lines tell a user nothing."""


@attrs.frozen
class Snapshot:
    """What there is at a moment."""

    tasks: frozenset[trio.lowlevel.Task]
    sockets: frozenset[MemorySocket]

    @classmethod
    def take(cls) -> Snapshot:
        """Look at this run of trio."""
        return cls(frozenset(_all_tasks()), frozenset(open_sockets()))

    def leftovers(self) -> list[Leftover]:
        """Return what there is now, and was not then."""
        tasks = sorted(set(_all_tasks()) - self.tasks, key=lambda task: task.name)
        return [*tasks, *(each for each in open_sockets() if each not in self.sockets)]


async def settle(look: Callable[[], list[T]], patience: float) -> list[T]:
    """Give what is about to end some time; return what ``look`` still finds then."""
    await trio.lowlevel.checkpoint()
    step = STEP
    while patience > 0 and look():
        await trio.testing.wait_all_tasks_blocked()
        if _time_stands_still():
            break
        await trio.sleep(min(step, patience))
        patience -= step
        step *= GROWTH
    return look()


def describe(left: Leftover) -> str:
    """Say what is left; of a task what it is doing, from the outside in."""
    if isinstance(left, MemorySocket):
        return f"a socket that is open: {left!r}"
    return "\n    ".join([f"a task that still runs: {left.name}", *where(left)])


def where(task: trio.lowlevel.Task, *, inside: str | None = None) -> list[str]:
    """Return the lines that a task is at, from the outside in, as far as users know them.

    ``inside``: only those within a module.
    """
    lines: list[str] = []
    for frame, number in frames_of(task):
        module = str(frame.f_globals.get("__name__"))
        if module == inside:
            lines.clear()
        if module.partition(".")[0] not in _MACHINERY:
            code = frame.f_code
            source = linecache.getline(code.co_filename, number).strip()
            lines.append(f"{Path(code.co_filename).name}:{number} in {code.co_name}: {source}")
    return lines


def task_with(thing: object) -> trio.lowlevel.Task | None:
    """Return the task that is in a method of ``thing``."""
    for task in _all_tasks():
        if any(frame.f_locals.get("self") is thing for frame, _ in frames_of(task)):
            return task
    return None


def frames_of(task: trio.lowlevel.Task) -> Iterator[tuple[FrameType, int]]:
    """Yield what a task is in, from the outside in: frames and line numbers."""
    with contextlib.suppress(TypeError):  # something in between that awaits in its own way
        yield from task.iter_await_frames()


def _all_tasks() -> Iterator[trio.lowlevel.Task]:
    root = trio.lowlevel.current_root_task()
    waiting = [root] if root is not None else []
    while waiting:
        task = waiting.pop()
        yield task
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks


def _time_stands_still() -> bool:
    """Whether sleeping would be for ever: a mock clock that is moved by hand."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock):
        return False
    return clock.rate == 0 and clock.autojump_threshold == math.inf
