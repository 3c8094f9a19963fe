"""Cancelling everywhere: each checkpoint has its turn, and what breaks is told."""

from __future__ import annotations

import functools
import random

import pytest
import trio
import trio.testing

from trio_ws.testing import MemoryNetwork, cancel_everywhere, cancellations, open_pair
from trio_ws.testing._background import give_last_steps
from trio_ws.testing._leaks import PATIENCE
from trio_ws.testing._recorder import recent


async def test_each_checkpoint_has_its_turn_twice() -> None:
    reached: list[int] = []

    async def scenario() -> None:
        reached.append(0)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            reached[-1] += 1

    runs = await cancel_everywhere(scenario)
    untouched, before, at_and_after_each, confirmed = [3], [0], [0, 0, 1, 1, 2, 2], [3, 3, 3]
    assert reached == [*untouched, *before, *at_and_after_each, *confirmed]
    assert runs == len(reached)


async def test_waiting_is_cancelled_and_so_is_what_follows_it(autojump_clock) -> None:
    """A value that was handed over is lost in one kind of run only."""
    lost: list[str] = []
    async for attempt in cancellations():
        send, receive = trio.open_memory_channel[str](1)
        in_hand: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send.send, "value")
            with attempt:
                in_hand.append(await receive.receive())
                await trio.sleep(1)
                in_hand.clear()
        if in_hand:
            lost.append(str(attempt).partition("\n")[0])
    assert "cancelled while waiting at checkpoint 1" not in lost
    assert [each for each in lost if "right after checkpoint" in each]
    assert [each for each in lost if "while waiting at checkpoint" in each]


@pytest.mark.parametrize("seed", range(10))
async def test_what_differs_by_chance_misses_no_checkpoint(seed: int) -> None:
    """The third checkpoint of one run is the fourth of another."""
    chance = random.Random(seed)

    async def critical() -> None:
        await trio.lowlevel.checkpoint()

    moments: set[str] = set()
    async for attempt in cancellations():
        with attempt:
            for _ in range(chance.randrange(3)):
                await trio.lowlevel.checkpoint()
            await critical()
            if chance.random() < 0.5:
                await trio.lowlevel.checkpoint()
        if "in critical" in str(attempt):
            moments.add(str(attempt).partition(" checkpoint")[0])
    assert moments == {"cancelled while waiting at", "cancelled right after"}


async def test_what_others_start_meanwhile_has_no_turn(autojump_clock) -> None:
    async def start_others() -> None:
        async with trio.open_nursery() as own:
            while True:
                own.start_soon(trio.sleep, 0.1)
                await trio.sleep(0.3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start_others)
        assert await cancel_everywhere(functools.partial(trio.sleep, 5)) == 7
        nursery.cancel_scope.cancel()


async def test_the_steps_that_the_kit_takes_at_the_end_have_no_turn() -> None:
    untouched_before_confirmed = 1 + 1 + 3
    assert await cancel_everywhere(give_last_steps) == untouched_before_confirmed


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_the_check_follows_each_run(kind: str) -> None:
    checked: list[str] = []

    async def check() -> None:
        await trio.lowlevel.checkpoint()
        checked.append("async")

    runs = await cancel_everywhere(
        trio.lowlevel.checkpoint,
        check=check if kind == "async" else lambda: checked.append("plain"),
    )
    assert checked == [kind] * runs


async def test_the_steps_of_the_tasks_of_a_scenario_count() -> None:
    seen: set[tuple[int, int]] = set()

    async def scenario() -> None:
        steps = {"a": 0, "b": 0}

        async def step(name: str, nursery: trio.Nursery) -> None:
            if name == "a":
                nursery.start_soon(step, "b", nursery)
            for _ in range(4):
                await trio.lowlevel.checkpoint()
                steps[name] += 1

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(step, "a", nursery)
        finally:
            seen.add((steps["a"], steps["b"]))

    await cancel_everywhere(scenario)
    assert {a for a, _ in seen} == {b for _, b in seen} == {0, 1, 2, 3, 4}


async def test_other_tasks_have_no_turn(nursery) -> None:
    async def busy() -> None:
        while True:  # noqa: ASYNC110  # it waits for nothing
            await trio.lowlevel.checkpoint()

    nursery.start_soon(busy)
    assert await cancel_everywhere(trio.lowlevel.checkpoint) == 7
    nursery.cancel_scope.cancel()


async def test_it_runs_by_itself_too() -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def scenario() -> None:
        await trio.sleep(3600)

    runs = await trio.to_thread.run_sync(
        lambda: trio.run(cancel_everywhere, scenario, clock=clock)
    )
    assert runs == 7


async def test_a_real_connection_survives_it(autojump_clock) -> None:
    async def scenario() -> None:
        async with open_pair() as (client, server):
            await client.send("hello")
            assert await server.receive() == "hello"

    assert await cancel_everywhere(scenario) > 20


# What breaks...


async def test_a_broken_invariant_is_told_with_the_place() -> None:
    stored: list[str] = []

    async def scenario() -> None:
        stored.clear()
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()  # the second
        stored.append("message")

    def check() -> None:
        if not stored:
            lost.append(True)
        assert len(lost) < 2, "the message is lost"

    lost: list[bool] = []
    with pytest.raises(AssertionError, match="the message is lost") as caught:
        await cancel_everywhere(scenario, check=check)
    (note,) = caught.value.__notes__
    assert note.startswith("This run was cancelled while waiting at checkpoint 1\n")
    assert "in scenario: await trio.lowlevel.checkpoint()" in note


async def test_the_place_is_in_whichever_task_had_its_turn() -> None:
    async def child() -> None:
        for _ in range(9):
            await trio.lowlevel.checkpoint()  # in the child

    cancelled_in: set[str] = set()
    async for attempt in cancellations():
        with attempt:
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # a child is the point
                nursery.start_soon(child)
        cancelled_in |= {line.rpartition(": ")[2] for line in str(attempt).splitlines()}
    assert "await trio.lowlevel.checkpoint()  # in the child" in cancelled_in


@pytest.mark.parametrize("when", ["at once", "when cancelled"])
async def test_what_a_scenario_raises_comes_out_with_a_note(when: str) -> None:
    async def scenario() -> None:
        try:
            if when == "at once":
                raise KeyError("mine")
            await trio.lowlevel.checkpoint()
        except trio.Cancelled:
            raise KeyError("mine") from None  # noqa: ASYNC104  # wrong, on purpose

    with pytest.raises(KeyError) as caught:
        await cancel_everywhere(scenario)
    (note,) = caught.value.__notes__
    expected = "not cancelled" if when == "at once" else "cancelled before the first checkpoint"
    assert note.startswith(f"This run was {expected}")


async def test_a_group_of_a_scenario_comes_out_without_the_cancellation() -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            nursery.start_soon(fail)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    with pytest.RaisesGroup(KeyError):
        await cancel_everywhere(scenario)


async def test_a_task_that_is_left_behind_is_told(nursery, autojump_clock) -> None:
    async def scenario() -> None:
        nursery.start_soon(trio.sleep_forever, name="left alone")
        await trio.lowlevel.checkpoint()

    begin = trio.current_time()
    with pytest.raises(AssertionError, match="left behind:\na task that still runs: left alone"):
        await cancel_everywhere(scenario)
    assert trio.current_time() - begin == pytest.approx(PATIENCE)


async def test_a_socket_that_is_left_open_is_told(autojump_clock) -> None:
    left: list[trio.abc.AsyncResource] = []

    async def scenario() -> None:
        listener = MemoryNetwork().listen()
        left.append(listener)
        await trio.lowlevel.checkpoint()
        await listener.aclose()

    with pytest.raises(AssertionError, match="a socket that is open: <MemorySocket") as caught:
        await cancel_everywhere(scenario, patience=1)
    assert caught.value.__notes__ == ["This run was cancelled before the first checkpoint"]
    for each in left:
        await each.aclose()


async def test_what_is_about_to_end_is_waited_for(nursery, autojump_clock) -> None:
    async def scenario() -> None:
        nursery.start_soon(trio.sleep, 5)
        await trio.lowlevel.checkpoint()

    assert await cancel_everywhere(scenario) >= 7
    with pytest.raises(AssertionError, match="left behind"):
        await cancel_everywhere(scenario, patience=2)


async def test_there_is_an_end_to_it() -> None:
    longer = [0]

    async def scenario() -> None:
        longer[0] += 1
        for _ in range(longer[0]):
            await trio.lowlevel.checkpoint()

    with pytest.raises(AssertionError, match="no end after 50 runs; the last was cancelled"):
        await cancel_everywhere(scenario, most=50)
    assert longer == [50]


# The loop...


async def test_the_loop_leaves_alone_what_is_not_in_the_block(autojump_clock) -> None:
    """What was sent is received, or can still be: `receive` loses nothing."""
    outcomes: set[tuple[bool, bool]] = set()
    async for attempt in cancellations():
        received: list[str | bytes] = []
        async with open_pair() as (client, server):
            await client.send("hello")
            with attempt:
                received.append(await server.receive())
            if not received:
                received.append(await server.receive())
            assert received == ["hello"], attempt
        assert attempt.over
        outcomes.add((attempt.fired, attempt.cancelled))
    assert outcomes >= {(False, False), (True, True)}


async def test_an_attempt_says_what_it_is() -> None:
    told: list[str] = []
    async for attempt in cancellations():
        with attempt:
            await trio.lowlevel.checkpoint()
        told.append(str(attempt).partition("\n")[0])
        assert repr(attempt) == f"<Attempt: {attempt}>"
    assert told == [
        "not cancelled",
        "cancelled before the first checkpoint",
        "cancelled while waiting at checkpoint 1",
        "cancelled right after checkpoint 1",
        "not cancelled",
        "not cancelled",
        "not cancelled",
    ]


async def test_only_the_last_run_is_in_a_report(autojump_clock) -> None:
    recent.clear()
    async with open_pair() as pair:
        runs = 0
        async for attempt in cancellations():
            runs += 1
            async with open_pair():
                with attempt:
                    await trio.lowlevel.checkpoint()
            assert len(recent) == 2
            assert recent[0] is pair.recorder
    assert runs > 3


async def test_a_loop_without_a_block_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="was not entered"):
        async for _ in cancellations():
            pass


async def test_a_loop_may_be_left() -> None:
    async for attempt in cancellations():
        with attempt:
            break
    assert attempt.over


async def test_being_cancelled_cancels_the_run(autojump_clock) -> None:
    with trio.move_on_after(3) as scope:
        await cancel_everywhere(functools.partial(trio.sleep, 10))
    assert scope.cancelled_caught
