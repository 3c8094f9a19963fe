"""Each call can be cancelled; every 32nd, and the first, lets others run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_ws._pace import STRIDE, Pace


class Steps(trio.abc.Instrument):
    """Counts how often any task is resumed."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_each_step_can_be_cancelled() -> None:
    pace = Pace()
    for _ in range(2 * STRIDE):
        with trio.CancelScope() as scope:
            scope.cancel()
            await pace.step()
        assert scope.cancelled_caught


async def test_a_step_that_is_too_late_to_be_cancelled_is_not() -> None:
    pace = Pace()
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(2 * STRIDE):
            await pace.step_uncancelled()
    assert not scope.cancelled_caught


@pytest.mark.parametrize("step", [Pace.step, Pace.step_uncancelled])
async def test_others_run_at_the_first_and_then_at_every_32nd_step(
    step: Callable[[Pace], Awaitable[None]],
) -> None:
    pace = Pace()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    counts = []
    for _ in range(2 * STRIDE + 1):
        steps.count = 0
        await step(pace)
        counts.append(steps.count)
    trio.lowlevel.remove_instrument(steps)
    yielding = [index for index, count in enumerate(counts) if count]
    assert yielding == [0, STRIDE, 2 * STRIDE]
