"""What is left behind is found, and told so that one can go there."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws.testing import MemoryNetwork
from trio_ws.testing._leaks import PATIENCE, Snapshot, describe, settle, task_with, where


async def test_nothing_is_left_of_nothing(autojump_clock) -> None:
    assert await settle(Snapshot.take().leftovers, PATIENCE) == []


async def test_a_task_that_still_runs_is_described(nursery, autojump_clock) -> None:
    before = Snapshot.take()
    nursery.start_soon(linger, name="the lingerer")
    begin = trio.current_time()
    (left,) = await settle(before.leftovers, 5)
    assert trio.current_time() - begin == pytest.approx(5)
    told = describe(left)
    assert told.startswith("a task that still runs: the lingerer\n    test_testing_leaks.py:")
    assert told.endswith(" in linger: await trio.sleep_forever()  # here")


async def linger() -> None:
    await trio.sleep_forever()  # here


async def test_a_task_that_is_about_to_end_is_given_time(nursery, autojump_clock) -> None:
    before = Snapshot.take()
    nursery.start_soon(trio.sleep, 3)
    assert before.leftovers()
    assert await settle(before.leftovers, 5) == []


async def test_a_system_task_is_a_task(autojump_clock) -> None:
    before = Snapshot.take()
    stop = trio.Event()
    trio.lowlevel.spawn_system_task(stop.wait)
    assert len(await settle(before.leftovers, 1)) == 1
    stop.set()
    assert await settle(before.leftovers, 1) == []


async def test_an_open_socket_is_described() -> None:
    before = Snapshot.take()
    listener = MemoryNetwork().listen()
    (left,) = before.leftovers()
    assert describe(left) == "a socket that is open: <MemorySocket ('127.0.0.1', 80) listening>"
    await listener.aclose()
    assert before.leftovers() == []


async def test_where_a_clock_stands_still_nobody_waits_for_it(nursery, mock_clock) -> None:
    before = Snapshot.take()
    nursery.start_soon(trio.sleep_forever)
    assert len(await settle(before.leftovers, PATIENCE)) == 1


async def test_a_clock_that_runs_is_waited_for(nursery) -> None:
    before = Snapshot.take()
    nursery.start_soon(trio.sleep, 0.01)
    assert await settle(before.leftovers, PATIENCE) == []


class Thing:
    async def stay(self) -> None:
        await trio.sleep_forever()


async def test_the_task_of_an_object_is_found(nursery) -> None:
    thing = Thing()
    assert task_with(thing) is None
    nursery.start_soon(thing.stay, name="here")
    await trio.testing.wait_all_tasks_blocked()
    task = task_with(thing)
    assert task is not None
    assert task.name == "here"


async def test_the_way_to_where_a_task_waits_can_begin_inside_of_a_module(nursery) -> None:
    nursery.start_soon(linger, name="the lingerer")
    await trio.testing.wait_all_tasks_blocked()
    (task,) = (each for each in nursery.child_tasks if each.name == "the lingerer")
    assert len(where(task)) == 1
    assert len(where(task, inside=__name__)) == 1
    assert where(task, inside="trio._timeouts") == []


class Opaque:
    """Something to await that trio cannot look into."""

    def __await__(self):
        sleep = trio.sleep_forever
        self._steps = sleep().__await__()
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        return self._steps.send(value)

    def throw(self, *args):
        return self._steps.throw(*args)


async def test_what_cannot_be_looked_into_is_left_out(autojump_clock) -> None:
    async def wait() -> None:
        await Opaque()

    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            assert "await Opaque()" in describe(task)
