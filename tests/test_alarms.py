"""Alarms: what is looked at in its time, and how little is kept of what is not any more."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import _alarms
from trio_ws._alarms import MOST_CANCELLED, Alarms


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass shall end because the machine has other things to do."""
    monkeypatch.setattr(_alarms, "PASS", math.inf)


@asynccontextmanager
async def running() -> AsyncIterator[Alarms]:
    async with trio.open_nursery() as nursery:
        alarms = Alarms()
        nursery.start_soon(alarms.run)
        yield alarms
        nursery.cancel_scope.cancel()


class Patient:
    """Wants to be looked at after each of these times, and then no more."""

    def __init__(self, *times: float) -> None:
        self._rest = iter(times)
        self.seen: list[float] = []

    def look(self) -> float | None:
        self.seen.append(trio.current_time())
        return next(self._rest, None)


async def test_each_is_looked_at_when_it_wants_to_be(autojump_clock: MockClock) -> None:
    one, other = Patient(5, 6), Patient(5.5)
    async with running() as alarms:
        alarms.set(3, one.look)
        alarms.set(2, other.look)  # before the one that is waited for
        await trio.sleep(10)
        assert one.seen == [3, 5, 6]
        assert other.seen == [2, 5.5]
        assert len(alarms) == 0
        late = Patient()
        alarms.set(4, late.look)  # it is past that
        await wait_all_tasks_blocked()
        assert late.seen == [10]


async def test_what_was_set_before_it_runs_is_looked_at_too(autojump_clock: MockClock) -> None:
    early = Patient()
    alarms = Alarms()
    alarms.set(3, early.look)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        await trio.sleep(4)
        nursery.cancel_scope.cancel()
    assert early.seen == [3]


async def test_what_is_cancelled_is_looked_at_no_more(autojump_clock: MockClock) -> None:
    one, other = Patient(5), Patient()
    async with running() as alarms:
        alarm = alarms.set(3, one.look)
        await trio.sleep(4)
        alarm.cancel()
        alarm.cancel()
        alarms.set(6, other.look)
        await trio.sleep(6)
        assert one.seen == [3]
        assert other.seen == [6]
        assert len(alarms) == 0


async def test_one_may_cancel_itself_or_another_that_is_due(autojump_clock: MockClock) -> None:
    other = Patient()
    async with running() as alarms:

        def look() -> float:
            itself.cancel()
            another.cancel()
            return 5

        itself = alarms.set(3, look)
        another = alarms.set(3, other.look)
        await trio.sleep(10)
        assert other.seen == []
        assert len(alarms) == 0


async def test_whoever_is_let_go_of_is_not_kept(autojump_clock: MockClock) -> None:
    one = Patient()
    alarms = Alarms()
    alarm = alarms.set(3, one.look)
    gone = weakref.ref(one)
    alarm.cancel()
    del one
    assert gone() is None


async def test_many_that_were_cancelled_leave_no_more_than_as_many_as_there_are(
    autojump_clock: MockClock,
) -> None:
    alarms = Alarms()
    lasting = [Patient() for _ in range(200)]
    for number, each in enumerate(lasting):
        alarms.set(number, each.look)
    for _ in range(10_000):
        alarms.set(1000, Patient().look).cancel()
    assert len(alarms) <= 2 * len(lasting) + 2 * MOST_CANCELLED
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarms.run)
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    assert [each.seen for each in lasting] == [[number] for number in range(200)]


async def test_one_that_ended_by_itself_is_not_counted_as_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with running() as alarms:
        over = [alarms.set(1, Patient().look) for _ in range(2 * MOST_CANCELLED)]
        await trio.sleep(2)
        for each in over:
            each.cancel()
        assert alarms._cancelled == 0


async def test_one_that_fails_is_told_of_and_the_others_are_looked_at(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    other = Patient()
    async with running() as alarms:

        def look() -> float | None:
            raise KeyError("bug")

        alarms.set(3, look)
        alarms.set(3, other.look)
        await trio.sleep(4)
        assert other.seen == [3]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


async def test_others_get_their_turn_between_many(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_alarms, "PASS", 0)
    order: list[str] = []

    async def others() -> None:
        for _ in itertools.repeat(None, 6):
            order.append("others")
            await trio.lowlevel.checkpoint()

    def look() -> float | None:
        if not order:
            nursery.start_soon(others)
        order.append("alarm")
        return None

    async with running() as alarms, trio.open_nursery() as nursery:
        for _ in range(4):
            alarms.set(3, look)
        await trio.sleep(4)
    assert order[:5].count("others") >= 2


async def test_after_a_standstill_those_who_have_something_to_do_come_first(
    autojump_clock: MockClock,
) -> None:
    order: list[str] = []

    async def wait() -> None:
        await event.wait()
        await trio.lowlevel.checkpoint()
        order.append("others")

    def look() -> float | None:
        order.append("alarm")
        return None

    event = trio.Event()
    async with running() as alarms, trio.open_nursery() as nursery:
        alarms.set(3, look)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        autojump_clock.jump(5)
        event.set()
        await wait_all_tasks_blocked()
    assert order == ["others", "alarm"]
