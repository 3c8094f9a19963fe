from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
import trio
from _helpers import settle
from _seats import Seats

from trio_ws.rooms import (
    START,
    Broker,
    History,
    JoinRefused,
    Position,
    Resume,
    RoomLimits,
    Rooms,
)
from trio_ws.rooms._embedded import EmbeddedBroker
from trio_ws.testing import cancellations

# Limits...


@pytest.mark.parametrize(
    "field", ["max_rooms", "max_members", "max_rooms_per_connection", "max_history_memory"]
)
def test_a_limit_is_positive_or_none(field: str) -> None:
    RoomLimits(**{field: None})
    with pytest.raises(ValueError, match=field):
        RoomLimits(**{field: 0})


async def test_the_number_of_rooms_is_limited() -> None:
    rooms = Rooms(limits=RoomLimits(max_rooms=2))
    async with Seats(1) as (a,), rooms.join(a.ws, "x", "y") as member:
        with pytest.raises(JoinRefused, match="room 'z': there are 2 rooms already") as info:
            await member.join("z")
        assert info.value.code == 1013
        assert member.rooms == ("x", "y")
        member.leave("x")
        await member.join("z")
        with pytest.raises(JoinRefused):
            async with rooms.subscribe("w"):
                pass
    assert rooms.statistics().rooms == {}


async def test_the_number_of_members_is_limited() -> None:
    rooms = Rooms(limits=RoomLimits(max_members=1))
    async with Seats(2) as (a, b), rooms.join(a.ws, "x"):
        with pytest.raises(JoinRefused, match="1 members are in it already") as info:
            async with rooms.join(b.ws, "y", "x"):
                pass
        assert (info.value.room, info.value.code) == ("x", 1013)
        assert set(rooms.statistics().rooms) == {"x"}  # all or nothing
        async with rooms.subscribe("x"), rooms.presence("x"):
            pass  # of these there are as many as the program likes


async def test_the_number_of_rooms_of_a_connection_is_limited() -> None:
    rooms = Rooms(limits=RoomLimits(max_rooms_per_connection=2))
    async with Seats(2) as (a, b), rooms.join(a.ws, "x"), rooms.join(a.ws, "y") as second:
        with pytest.raises(JoinRefused, match="the connection is in 2 rooms already") as info:
            await second.join("z")
        assert info.value.code == 1008  # to come again would not help
        await second.join("y")
        async with rooms.join(b.ws, "x", "y"):
            pass
        second.leave("y")
        await second.join("z")
    assert rooms._registry._rooms_of == {}


async def test_rooms_that_were_left_take_no_memory() -> None:
    rooms = Rooms()
    async with Seats(1) as (a,), rooms.join(a.ws) as member:

        async def visit(count: int) -> None:
            for number in range(count):
                await member.join(f"room {number}")
                rooms.publish_nowait(f"room {number}", "x")
                member.leave(f"room {number}")
                if number % 100 == 0:
                    await a.received()

        await visit(100)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await visit(1000)
        a.link.recorder.clear()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert grown < 50_000  # a room takes 2 KiB
    assert rooms.statistics().total.published == 1100
    broker = rooms._broker
    assert isinstance(broker, EmbeddedBroker)
    assert broker._store.records == 0
    assert broker._occupants == {}


# Who may come in...


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hook_is_asked_with_request_room_and_meta(asynchronous: bool) -> None:
    asked: list[Any] = []

    def ask(request: Any, room: str, meta: Any) -> Any:
        asked.append((request, room, meta))
        return answer() if asynchronous else None

    async def answer() -> None:
        await trio.lowlevel.checkpoint()

    rooms = Rooms(on_join=ask)
    async with Seats(1) as (a,), rooms.join(a.ws, "x", meta="bob") as member:
        await member.join("x", "y")
        async with rooms.subscribe("z"), rooms.presence("z"):
            pass  # the program need not ask itself
    assert asked == [(a.ws.request, "x", "bob"), (a.ws.request, "y", "bob")]


async def test_nobody_is_asked_about_more_rooms_than_there_may_be() -> None:
    asked: list[str] = []
    rooms = Rooms(
        on_join=lambda request, room, meta: asked.append(room),
        limits=RoomLimits(max_rooms_per_connection=3),
    )
    async with Seats(1) as (a,):
        with pytest.raises(JoinRefused, match="the connection is in 0 rooms already"):
            async with rooms.join(a.ws, *map(str, range(10_000))):
                pass
    assert asked == []


@pytest.mark.parametrize("answer", [False, True, "no"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hook_that_returns_something_has_said_nothing(
    answer: Any, *, asynchronous: bool
) -> None:
    """Nobody may be let in because a hook says no in a way that is not heard."""

    async def later() -> Any:
        await trio.lowlevel.checkpoint()
        return answer

    rooms = Rooms(on_join=lambda *_: later() if asynchronous else answer)
    async with Seats(1) as (a,):
        with pytest.raises(TypeError, match=f"on_join returned {answer!r}: to refuse, raise"):
            async with rooms.join(a.ws, "x"):
                pass
    assert rooms.statistics().rooms == {}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hook_that_raises_keeps_a_connection_out_of_all_rooms(asynchronous: bool) -> None:
    async def refuse_later() -> None:
        await trio.lowlevel.checkpoint()
        raise PermissionError("not you")

    def refuse(request: Any, room: str, meta: Any) -> Any:
        if room != "private":
            return None
        if asynchronous:
            return refuse_later()
        raise PermissionError("not you")

    rooms = Rooms(on_join=refuse)
    async with Seats(1) as (a,):
        with pytest.raises(PermissionError, match="not you"):
            async with rooms.join(a.ws, "x", "private"):
                pass
        assert rooms.statistics().rooms == {}
        async with rooms.join(a.ws, "x") as member:
            with pytest.raises(PermissionError):
                await member.join("y", "private")
            assert member.rooms == ("x",)
            assert await rooms.publish(["x", "y"], "hi") == 1


async def test_a_member_that_is_gone_when_the_hook_has_answered_enters_nothing() -> None:
    asked, answer = trio.Event(), trio.Event()

    async def think(request: Any, room: str, meta: Any) -> None:
        if room == "y":
            asked.set()
            await answer.wait()

    rooms = Rooms(on_join=think)
    async with Seats(1) as (a,), trio.open_nursery() as nursery:
        async with rooms.join(a.ws, "x") as member:

            @nursery.start_soon
            async def join() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await member.join("y")

            await asked.wait()
        answer.set()
    assert rooms.statistics().rooms == {}


async def test_two_tasks_that_enter_the_same_room_for_one_member_enter_it_once() -> None:
    async def think(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    rooms = Rooms(on_join=think)
    async with Seats(1) as (a,), rooms.join(a.ws) as member:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.join, "x")
            nursery.start_soon(member.join, "x", "y")
        assert rooms.members("x") == rooms.members("y") == (member,)
        assert await rooms.publish("x", "once") == 1
    assert rooms.statistics().rooms == {}


# A broker that takes its time...


class SlowBroker(EmbeddedBroker):
    """Has to wait for something before a room is open."""

    immediate = False

    def __init__(self, history: History | None = None) -> None:
        super().__init__(history)
        self.log: list[str] = []
        self.ready = trio.Event()
        self.failing = False

    async def open(self, room: str) -> None:
        self.log.append(f"opening {room}")
        await self.ready.wait()
        if self.failing:
            raise OSError("no network")
        await super().open(room)
        self.log.append(f"open {room}")

    def close(self, room: str) -> None:
        super().close(room)
        self.log.append(f"closed {room}")


async def test_a_room_is_opened_once_and_closed_once() -> None:
    broker = SlowBroker()
    rooms = Rooms(broker=broker)
    async with Seats(3) as seats:
        inside = 0
        leave = trio.Event()
        async with trio.open_nursery() as nursery:
            for seat in seats:

                async def stay(ws: Any = seat.ws) -> None:
                    nonlocal inside
                    async with rooms.join(ws, "x"):
                        inside += 1
                        await leave.wait()

                nursery.start_soon(stay)
            await settle()
            assert broker.log == ["opening x"]
            assert rooms.members("x") == ()
            broker.ready.set()
            await settle()
            assert inside == 3
            leave.set()
    assert broker.log == ["opening x", "open x", "closed x"]


async def test_a_room_that_could_not_be_opened_is_tried_again_by_the_next() -> None:
    broker = SlowBroker()
    rooms = Rooms(broker=broker)
    async with Seats(2) as (a, b), trio.open_nursery() as nursery:
        gives_up = trio.CancelScope()

        @nursery.start_soon
        async def first() -> None:
            with gives_up:
                async with rooms.join(a.ws, "x"):
                    pytest.fail("it was cancelled")

        await settle()

        @nursery.start_soon
        async def second() -> None:
            with pytest.raises(OSError, match="no network"):
                async with rooms.join(b.ws, "x"):
                    pass

        await settle()
        gives_up.cancel()
        await settle()
        assert broker.log == ["opening x", "opening x"]
        broker.failing = True
        broker.ready.set()
        await settle()
        assert rooms.statistics().rooms == {}
        broker.failing = False
        async with rooms.join(a.ws, "x"):
            pass
    assert broker.log[2:] == ["opening x", "open x", "closed x"]


async def test_cancelling_while_rooms_are_opened_closes_those_that_were() -> None:
    async for attempt in cancellations():
        broker = SlowBroker()
        broker.ready.set()
        rooms = Rooms(broker=broker)
        async with Seats(1) as (a,):
            with attempt:
                async with rooms.join(a.ws, "x", "y"), rooms.presence("z"):
                    pass
        opened = [entry for entry in broker.log if entry.startswith("open ")]
        closed = [entry for entry in broker.log if entry.startswith("closed ")]
        assert len(opened) == len(closed)
        assert rooms.statistics().rooms == {}


async def test_publishing_at_once_is_refused_where_a_network_must_be_waited_for() -> None:
    broker = SlowBroker()
    broker.ready.set()
    rooms = Rooms(broker=broker)
    async with rooms.subscribe("x") as messages:
        with pytest.raises(RuntimeError, match="use `await"):
            rooms.publish_nowait("x", 1)
        assert await rooms.publish("x", 2) == 1
        assert await messages.receive() == 2


# Several rooms at once...


async def test_a_message_to_several_rooms_reaches_each_member_once() -> None:
    rooms = Rooms()
    async with (
        Seats(3) as (a, b, c),
        rooms.join(a.ws, "x", "y"),
        rooms.join(b.ws, "y", "z"),
        rooms.join(c.ws, "z"),
    ):
        assert await rooms.publish(["x", "y", "x", "nowhere"], 1) == 2
        assert await rooms.publish(("z", "y", "x"), 2) == 3
        assert await a.received() == await b.received() == ["1", "2"]
        assert await c.received() == ["2"]
        counted = rooms.statistics().rooms
        assert [counted[room].addressed for room in "xyz"] == [1, 2, 2]


async def test_what_was_seen_through_one_room_is_not_replayed_by_another() -> None:
    rooms = Rooms(history=History())
    async with rooms.subscribe("x", "y", since=START) as messages:
        await rooms.publish("x", 1)
        await rooms.publish(["x", "y"], 2)
        await rooms.publish("y", 3)
        await rooms.publish(["y", "x"], 4)
        since = {room: messages.position(room) for room in messages.rooms}
        seen: list[int] = []
        for _ in range(2):
            seen.append(await messages.receive())
            assert messages.last is not None
            since[messages.last.room] = messages.last.position
    assert seen == [1, 2]
    assert since["y"].offset == 0  # the second message came through the other room
    async with rooms.subscribe("y", "x", since=since) as messages:
        assert messages.resumed("x") is messages.resumed("y") is Resume.COMPLETE
        assert [await messages.receive(), await messages.receive()] == [3, 4]
        assert messages.statistics().queued == 0
        await rooms.publish("x", 5)
        assert await messages.receive() == 5


async def test_replays_of_several_rooms_keep_the_order_of_each() -> None:
    rooms = Rooms(history=History())
    for number in range(20):
        await rooms.publish(["xy", "x", "y", "yx"][number % 4], number)
    async with rooms.subscribe("x", "y", "xy", since=START) as messages:
        got = [await messages.receive() for _ in range(15)]
    assert got == [number for number in range(20) if number % 4 != 3]


async def test_a_room_entered_later_does_not_repeat_what_came_through_the_first() -> None:
    rooms = Rooms(history=History())
    await rooms.publish(["x", "y"], "before")
    async with rooms.subscribe("x") as messages:
        await rooms.publish(["x", "y"], "live")
        assert await messages.receive() == "live"
        await messages.join("y", since=START)
        assert await messages.receive() == "before"
        await rooms.publish("y", "after")
        assert await messages.receive() == "after"


# Where to resume...


async def test_a_position_may_come_as_text_and_need_not_be_one() -> None:
    rooms = Rooms(history=History())
    await rooms.publish("x", 1)
    await rooms.publish("x", 2)
    (first, _) = rooms.history("x")
    for since, expected in (
        (str(first.position), (Resume.COMPLETE, 1)),
        ("'; DROP TABLE", (Resume.LOST, 2)),
        ("", (Resume.LOST, 2)),
        (None, (Resume.NEW, 0)),
        ({"x": str(first.position), "unknown": "y"}, (Resume.COMPLETE, 1)),
        ({}, (Resume.NEW, 0)),
    ):
        async with Seats(1) as (a,), rooms.join(a.ws, "x", since=since) as member:
            got = await a.received()
            assert (member.resumed("x"), len(got)) == expected


async def test_each_room_has_positions_of_its_own() -> None:
    rooms = Rooms(history=History())
    await rooms.publish("x", 1)
    async with Seats(1) as (a,):
        with pytest.raises(ValueError, match="each room"):
            async with rooms.join(a.ws, "x", "y", since=Position("e", 1)):
                pass
        with pytest.raises(TypeError, match="since"):
            async with rooms.join(a.ws, "x", since=17):  # type: ignore[arg-type]
                pass
        async with rooms.join(a.ws, "x", "y", since=START) as member:
            assert member.resumed("x") is Resume.NEW
        with pytest.raises(LookupError):
            member.position("x")
        with pytest.raises(LookupError):
            member.resumed("x")


async def test_what_was_not_for_somebody_is_not_replayed_to_them() -> None:
    rooms = Rooms(history=History())
    async with Seats(2) as (a, b):
        async with rooms.join(a.ws, "x", name="alice") as alice, rooms.join(b.ws, "x", name="bob"):
            await rooms.publish("x", "for all")
            await rooms.publish("x", "not for alice", exclude={"alice"})
            await rooms.publish("x", "not for this connection", exclude={alice})
            await rooms.publish("x", "for bob", only={"bob"})
            assert await a.received() == ["for all"]
        await b.received()
        for seat, name, expected in (
            (a, "alice", ["for all", "not for this connection"]),
            (b, "bob", ["for all", "not for alice", "not for this connection", "for bob"]),
            (a, None, ["for all", "not for alice", "not for this connection"]),
        ):
            async with rooms.join(seat.ws, "x", name=name, since=START):
                assert await seat.received() == expected
    assert "for bob" not in [kept.data for kept in rooms.history("x")]


def test_the_embedded_broker_is_a_broker() -> None:
    broker: Broker = EmbeddedBroker()
    assert broker.immediate
