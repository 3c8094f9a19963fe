"""A flag is a truth value that one can wait for."""

from __future__ import annotations

import trio
from trio.testing import assert_checkpoints

from trio_ws._flag import Flag


def test_a_flag_says_what_it_is() -> None:
    flag = Flag()
    assert not flag
    assert not flag.is_set()
    assert repr(flag) == "<Flag not set>"
    flag.set()
    flag.set()
    assert flag
    assert flag.is_set()
    assert repr(flag) == "<Flag set>"


async def test_setting_a_flag_wakes_all_who_wait() -> None:
    flag = Flag()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await flag.wait()
        woken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken
        flag.set()
    assert sorted(woken) == [0, 1, 2]


async def test_waiting_for_a_flag_that_is_set_is_a_checkpoint() -> None:
    flag = Flag()
    flag.set()
    with assert_checkpoints():
        await flag.wait()
