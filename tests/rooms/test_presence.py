from __future__ import annotations

import pytest
import trio
import trio.testing
from _helpers import settle
from _seats import Seats

from trio_ws.rooms import Joined, JoinRefused, Left, Occupant, Presence, RoomLimits, Rooms
from trio_ws.rooms._presence import MANY
from trio_ws.testing import cancellations


async def drain(presence: Presence) -> list[tuple[str, str]]:
    """Return what there is to be told: who, and what."""
    events = [await presence.receive() for _ in range(len(presence._events))]
    return [(event.meta, type(event).__name__) for event in events]


async def test_the_snapshot_and_the_events_leave_no_gap() -> None:
    rooms = Rooms()
    async with Seats(3) as (a, b, c), rooms.join(a.ws, "x", meta="a") as first:
        async with rooms.presence("x") as presence:
            assert presence.snapshot == (Occupant(first.id, "a"),)
            async with rooms.join(b.ws, "x", meta="b") as second:
                assert await presence.receive() == Joined("x", second.id, "b")
                async with rooms.join(c.ws, "other", meta="c") as third:
                    await third.join("x")
                    third.leave("x")
            assert await drain(presence) == [("c", "Joined"), ("c", "Left"), ("b", "Left")]
        assert rooms.members("x") == (first,)


async def test_subscriptions_are_not_present() -> None:
    rooms = Rooms()
    async with rooms.presence("x") as presence, rooms.subscribe("x"):
        assert await drain(presence) == []
    async with rooms.subscribe("x"), rooms.presence("x") as presence:
        assert presence.snapshot == ()


async def test_watching_keeps_a_room_and_the_end_of_it_lets_it_go() -> None:
    rooms = Rooms()
    async with rooms.presence("x"):
        assert rooms.statistics().rooms["x"].members == 0
    assert rooms.statistics().rooms == {}


async def test_news_of_a_room_that_nobody_here_is_in_are_no_news() -> None:
    rooms = Rooms()
    rooms._registry.present(Joined("x", "1", None))  # as a distributed broker may say
    async with rooms.presence("x") as presence:
        assert await drain(presence) == []


async def test_who_waits_is_told_at_once() -> None:
    rooms = Rooms()
    async with Seats(1) as (a,), rooms.presence("x") as presence:
        events: list[object] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                events.extend([await presence.receive(), await presence.receive()])

            await settle()
            async with rooms.join(a.ws, "x", meta="a") as member:
                pass
        assert events == [Joined("x", member.id, "a"), Left("x", member.id, "a")]


async def test_closing_wakes_who_waits_and_can_be_repeated() -> None:
    rooms = Rooms()
    async with rooms.presence("x") as presence:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def watch() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await presence.receive()

            await settle()
            with trio.testing.assert_checkpoints():
                await presence.aclose()
        await presence.aclose()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await presence.receive()
    assert rooms.statistics().rooms == {}


async def test_it_can_be_entered_once() -> None:
    rooms = Rooms()
    presence = rooms.presence("x")
    with pytest.raises(trio.ClosedResourceError):
        await presence.receive()
    async with presence:
        with pytest.raises(RuntimeError, match="again"):
            await presence.__aenter__()


async def test_the_number_of_rooms_is_limited_for_watchers_too() -> None:
    rooms = Rooms(limits=RoomLimits(max_rooms=1))
    async with rooms.presence("x"), rooms.presence("x"):
        with pytest.raises(JoinRefused, match="1 rooms"):
            async with rooms.presence("y"):
                pass


async def test_cancelling_leaves_nothing_behind() -> None:
    rooms = Rooms()
    async for attempt in cancellations():
        with attempt:
            async with rooms.presence("x"):
                await trio.lowlevel.checkpoint()
        assert rooms.statistics().rooms == {}


async def test_a_cancelled_receive_loses_nothing() -> None:
    rooms = Rooms()
    async with Seats(1) as (a,):
        async for attempt in cancellations():
            async with rooms.presence("x") as presence:
                async with rooms.join(a.ws, "x", meta="a"):
                    pass
                told: list[object] = []
                with attempt:
                    told.append(await presence.receive())
                assert len(told) + len(await drain(presence)) == 2


async def test_visitors_do_not_pile_up_for_who_does_not_listen() -> None:
    rooms = Rooms()
    async with (
        Seats(2) as (stays, visits),
        rooms.join(stays.ws, "x", meta="stays") as member,
        rooms.presence("x") as presence,
    ):
        member.leave("x")
        for _ in range(MANY):
            async with rooms.join(visits.ws, "x", meta="visits"):
                pass
        await member.join("x")
        member.leave("x")
        await member.join("x")
        assert len(presence._events) < MANY
        told = await drain(presence)
        assert told[0] == ("stays", "Left")
        assert told[-1] == ("stays", "Joined")
        there = set[str]()
        for who, what in told:  # and it all makes sense
            if what == "Joined":
                assert who not in there
                there.add(who)
            elif who in there:
                there.remove(who)
        assert there == {"stays"}


async def test_many_who_stay_are_all_told() -> None:
    rooms = Rooms(limits=RoomLimits(max_rooms_per_connection=None))
    count = MANY + 10
    async with Seats(1) as (a,), rooms.presence("x") as presence, trio.open_nursery() as nursery:
        for index in range(count):

            async def stay(meta: str = str(index)) -> None:
                async with rooms.join(a.ws, "x", meta=meta):
                    await trio.sleep_forever()

            nursery.start_soon(stay)
        await settle()
        told = await drain(presence)
        assert sorted(told) == sorted((str(index), "Joined") for index in range(count))
        nursery.cancel_scope.cancel()
