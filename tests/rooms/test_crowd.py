"""A crowd, ten of whom do not read. See ``tests/size`` for thousands of messages."""

from __future__ import annotations

from _crowd import check_those_who_are_cut_off, check_those_who_drop
from trio.testing import MockClock


async def test_of_a_thousand_all_but_those_who_do_not_read_get_everything(
    autojump_clock: MockClock,
) -> None:
    await check_those_who_drop(1000, 64, peers=10)


async def test_those_who_do_not_read_are_closed_and_all_others_get_everything(
    autojump_clock: MockClock,
) -> None:
    await check_those_who_are_cut_off(200, 64, peers=10)
