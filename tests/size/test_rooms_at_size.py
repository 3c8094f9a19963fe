"""Rooms at the size that they are made for."""

from __future__ import annotations

import pytest
import trio
from _crowd import blocks, check_those_who_are_cut_off, check_those_who_drop
from _seats import Seats
from trio.testing import MockClock

from trio_ws.rooms import START, History, RoomLimits, Rooms
from trio_ws.rooms._embedded import EmbeddedBroker

COUNT = 100_000
SLACK = 200
"""Pieces of memory that may come and go for no reason of ours."""


async def test_a_thousand_members_get_two_thousand_messages_though_ten_do_not_read(
    autojump_clock: MockClock,
) -> None:
    await check_those_who_drop(1000, 2000, peers=50, weigh=True)


async def test_a_thousand_members_get_two_thousand_messages_though_ten_are_cut_off(
    autojump_clock: MockClock,
) -> None:
    await check_those_who_are_cut_off(1000, 2000, peers=50)


# Nothing is left behind...


def check_empty(rooms: Rooms) -> None:
    statistics = rooms.statistics()
    assert statistics.rooms == {}
    assert (statistics.total.members, statistics.total.subscriptions) == (0, 0)
    assert (statistics.history_messages, statistics.history_memory) == (0, 0)
    assert rooms._registry._rooms_of == {}
    broker = rooms._broker
    assert isinstance(broker, EmbeddedBroker)
    assert broker._store.records == 0
    assert broker._occupants == {}


@pytest.mark.parametrize("history", [None, History(age=1)])
async def test_a_hundred_thousand_rooms_joined_and_left_leave_no_memory_behind(
    history: History | None, autojump_clock: MockClock
) -> None:
    rooms = Rooms(history=history)
    async with Seats(1) as (seat,), rooms.join(seat.ws) as member:

        async def visit(count: int) -> None:
            for number in range(count):
                name = f"room {number}"
                await member.join(name, since=START)
                rooms.publish_nowait(name, "x")
                member.leave(name)
                if number % 1000 == 0:
                    await seat.received()
                    await trio.sleep(1)
            await seat.received()
            await trio.sleep(1)
            assert rooms.statistics().rooms == {}
            assert rooms.statistics().history_messages == 0

        await visit(1000)
        before = blocks()
        await visit(COUNT)
        assert blocks() - before < SLACK
    assert rooms.statistics().total.published == COUNT + 1000
    check_empty(rooms)


async def test_a_hundred_thousand_rooms_at_a_time_leave_no_memory_behind(
    autojump_clock: MockClock,
) -> None:
    rooms = Rooms(limits=RoomLimits(max_rooms=COUNT, max_rooms_per_connection=None))
    names = [f"room {number}" for number in range(COUNT)]
    async with Seats(1) as (seat,), rooms.join(seat.ws) as member:
        for turn in range(2):
            await member.join(*names)
            assert len(rooms.statistics().rooms) == COUNT
            assert await rooms.publish(names, "once") == 1
            assert await seat.received() == ["once"]
            member.leave(*names)
            if turn == 0:
                before = blocks()
        assert blocks() - before < SLACK
    check_empty(rooms)
