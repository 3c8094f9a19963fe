"""Cancel a scenario at each of its checkpoints, one after the other, and see what breaks.

A checkpoint is known by the lines of code that lead to it, and by how often a run has been
there before. Its number would not do: the scheduler takes turns by chance, so what is the
third checkpoint in one run is the fourth in another, and would have been missed.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import trio

from ._background import give_last_steps
from ._leaks import PATIENCE, Snapshot, describe, frames_of, settle, where
from ._recorder import recent

MOST: Final = 1000
"""Runs of a sweep, if the caller does not say otherwise."""
CONFIRMATIONS: Final = 3
"""Runs in a row that must come to no checkpoint that was not cancelled yet."""

_NO_PLACE: Final = give_last_steps.__code__
"""Where a cancellation would do nothing: of the steps that `open_pair` takes, these are half."""

Moment: TypeAlias = Literal["waiting", "resumed"]
Place: TypeAlias = "tuple[Moment, tuple[tuple[str, str, int], ...], int]"
"""A moment, the files, functions and lines from the task's function inwards, and the how
manieth time. Names, because code objects hash all of their content each time (half of the
time of a sweep, measured)."""


async def cancel_everywhere(
    scenario: Callable[[], Awaitable[object]],
    *,
    check: Callable[[], object] | None = None,
    most: int = MOST,
    patience: float = PATIENCE,
) -> int:
    """Run a scenario again and again, each time cancelled a step later; return how often.

    First it runs untouched. Then it is cancelled before, at and after its 1st, 2nd, ...
    checkpoint: while it waits there, and between what that brought and the next one, the
    moment at which something has been received and would now be lost. The checkpoints of
    all tasks that the scenario starts count. It ends when three runs in a row have come to
    no checkpoint that was not cancelled yet.

    After each run ``check`` is called, an async function or a plain one: it raises if
    something is not as it should be. And nothing may be left: no task that the run has
    started, no open socket of a `MemoryNetwork`. What is about to end (a server's handler
    whose client was cancelled) gets ``patience`` seconds.

    It is an async function, for a test with a virtual clock (pytest-trio's
    ``autojump_clock``); without one: ``trio.run(cancel_everywhere, scenario,
    clock=trio.testing.MockClock(autojump_threshold=0))``.

    Raises:
      AssertionError: something was left behind, or there is no end after ``most`` runs.
      Exception: whatever the scenario or ``check`` raises, but for `trio.Cancelled`. A note
          says at which step the run was cancelled, and where in the code that is.

    If cancelled: so is the run that is going on.

    Concurrency: one at a time; tasks that others start meanwhile would count as left behind.
    """
    runs = 0
    async for attempt in cancellations(most=most, patience=patience):
        runs += 1
        with attempt:
            await scenario()
        if check is not None:
            with attempt.explaining():
                result = check()
                if inspect.isawaitable(result):
                    await result
    return runs


def cancellations(*, most: int = MOST, patience: float = PATIENCE) -> Cancellations:
    """Return the runs of `cancel_everywhere`, for a loop of your own.

    ::

        async for attempt in cancellations():
            async with open_pair() as (client, server):
                with attempt:
                    await client.send("hello")
                await client.aclose()
                ...

    What is to be cancelled goes into ``with attempt``, what is before and behind it is not.
    Each round may leave no more than there was before it.

    Raises: on each round, as `cancel_everywhere`.
    """
    return Cancellations(most, patience)


class Cancellations:
    """The rounds of `cancellations`: ``async for attempt in ...``."""

    def __init__(self, most: int, patience: float) -> None:
        self._most = most
        self._patience = patience
        self._runs = 0
        self._confirmed = 0
        self._known: set[Place | None] = set()
        self._attempt: Attempt | None = None
        self._before: Snapshot | None = None
        self._recorders = tuple(recent)

    def __aiter__(self) -> Cancellations:
        return self

    async def __anext__(self) -> Attempt:
        await trio.lowlevel.checkpoint()
        if self._attempt is not None:
            await self._check_left(self._attempt)
            confirms = self._runs > 1 and not self._attempt.fired
            self._confirmed = self._confirmed + 1 if confirms else 0
        if self._confirmed == CONFIRMATIONS:
            raise StopAsyncIteration
        if self._runs == self._most:
            raise AssertionError(f"no end after {self._runs} runs; the last was {self._attempt}")
        self._runs += 1
        recent.clear()  # so that a report shows the run that has failed
        recent.extend(self._recorders)
        self._before = Snapshot.take()
        self._attempt = Attempt(None if self._runs == 1 else self._known)
        return self._attempt

    async def _check_left(self, attempt: Attempt) -> None:
        if not attempt.over:
            raise RuntimeError("the block of the attempt was not entered: with attempt: ...")
        assert self._before is not None
        with attempt.explaining():
            left = await settle(self._before.leftovers, self._patience)
            if left:
                raise AssertionError("\n".join(["left behind:", *map(describe, left)]))


class Attempt(AbstractContextManager["Attempt"]):
    """One run of a sweep: ``with attempt`` goes around what is to be cancelled."""

    def __init__(self, known: set[Place | None] | None) -> None:
        self.over: bool = False
        """Whether the block was left."""
        self._known = known  # the places of former runs; None: do not cancel this one
        self._when = "not cancelled"
        self._where: list[str] = []
        self._fired = False
        self._visits: Counter[object] = Counter()
        self._number = 0
        self._numbers: dict[trio.lowlevel.Task, int] = {}  # of the last checkpoint of each task
        self._steps: _Steps | None = None
        self._scope = trio.CancelScope()

    @property
    def fired(self) -> bool:
        """Whether the block was still going on when its turn to be cancelled came."""
        return self._fired

    @property
    def cancelled(self) -> bool:
        """Whether the block was left by the cancellation."""
        return self._scope.cancelled_caught

    def __str__(self) -> str:
        return "\n    ".join([self._when, *self._where])

    def __repr__(self) -> str:
        return f"<Attempt: {self}>"

    def __enter__(self) -> Self:
        self._steps = _Steps(self)
        trio.lowlevel.add_instrument(self._steps)
        self._scope.__enter__()
        if self._known is not None and None not in self._known:
            self._fire(None, "cancelled before the first checkpoint")
        return self

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        assert self._steps is not None
        trio.lowlevel.remove_instrument(self._steps)
        self.over = True
        if exc is not None and not isinstance(exc, trio.Cancelled):
            self._explain(exc)
        return self._scope.__exit__(etype, exc, traceback)

    @contextmanager
    def explaining(self) -> Generator[None, None, None]:
        """Add to what an `Exception` says when the run was cancelled."""
        try:
            yield
        except Exception as exc:
            self._explain(exc)
            raise

    def _explain(self, exc: BaseException) -> None:
        exc.add_note(f"This run was {self}")

    def _reach(self, moment: Moment, task: trio.lowlevel.Task) -> None:
        """A task has come to a checkpoint, or is about to go on."""
        if moment == "waiting":
            self._number += 1
            self._numbers[task] = self._number
        if self._fired or self._known is None:
            return
        frames = list(frames_of(task))
        if any(frame.f_code is _NO_PLACE for frame, _ in frames):
            return
        way = tuple(
            (frame.f_code.co_filename, frame.f_code.co_name, line) for frame, line in frames
        )
        self._visits[moment, way] = visits = self._visits[moment, way] + 1
        place = (moment, way, visits)
        if place not in self._known:
            number = self._numbers.get(task)
            when = "while waiting at" if moment == "waiting" else "right after"
            self._where = where(task, inside=__name__)
            told = f"{when} checkpoint {number}" if number else "before a task began"
            self._fire(place, f"cancelled {told}")

    def _fire(self, place: Place | None, when: str) -> None:
        assert self._known is not None
        self._known.add(place)
        self._when = when
        self._fired = True
        self._scope.cancel(reason=f"cancel_everywhere: {when}")


class _Steps(trio.abc.Instrument):
    """Tells an attempt of each step of its tasks: that of the block, and those it starts."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._tasks = {trio.lowlevel.current_task()}

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task in self._tasks:
            self._tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._tasks.discard(task)  # its last step does not end at a checkpoint

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._tasks:
            self._attempt._reach("waiting", task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._tasks:
            self._attempt._reach("resumed", task)
