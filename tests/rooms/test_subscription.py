from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from _helpers import settle

from trio_ws.rooms import (
    START,
    Envelope,
    History,
    Missed,
    Overflow,
    Position,
    Resume,
    Rooms,
    Subscription,
)
from trio_ws.testing import cancellations


async def publish(rooms: Rooms, *data: Any, room: str = "x") -> list[int]:
    return [await rooms.publish(room, each) for each in data]


async def drain(messages: Subscription) -> list[Any]:
    """Return what is there now."""
    things: list[Any] = []
    while messages.statistics().queued:
        things.append(await messages.receive())
    return things


async def test_it_yields_what_was_published_as_it_was_published() -> None:
    rooms = Rooms(codec=Envelope())
    published = ["text", {"any": ["thing"]}, 3]
    async with rooms.subscribe("x") as messages:
        await publish(rooms, *published)
        assert await drain(messages) == published
    plain = Rooms()
    async with plain.subscribe("x") as messages:
        await plain.publish("x", bytearray(b"\0\1"))
        assert await messages.receive() == b"\0\1"


async def test_it_is_a_channel_that_can_be_iterated() -> None:
    rooms = Rooms()
    got: list[Any] = []
    async with trio.open_nursery() as nursery, rooms.subscribe("x") as messages:
        assert isinstance(messages, trio.abc.ReceiveChannel)

        @nursery.start_soon
        async def read() -> None:
            try:
                async for message in messages:
                    got.append(message)  # noqa: PERF401  # the error would lose a comprehension
            except trio.ClosedResourceError:
                got.append("closed")

        for data in range(3):
            await settle()
            assert await rooms.publish("x", data) == 1
        await settle()
        await messages.aclose()
    assert got == [0, 1, 2, "closed"]
    assert rooms.statistics().rooms == {}


async def test_without_its_block_it_does_not_wait_for_what_never_comes() -> None:
    rooms = Rooms()
    with trio.fail_after(5), pytest.raises(trio.ClosedResourceError, match="async with"):
        await rooms.subscribe("x").receive()


async def test_it_may_be_of_several_rooms_and_change_them() -> None:
    rooms = Rooms()
    async with rooms.subscribe("x", "y") as messages:
        assert await rooms.publish(["x", "y"], 1) == 1
        assert await drain(messages) == [1]
        messages.leave("x")
        messages.leave("x")
        await messages.join("z")
        assert messages.rooms == ("y", "z")
        assert await publish(rooms, "no") == [0]
        assert await publish(rooms, "yes", room="z") == [1]
        assert await drain(messages) == ["yes"]
        assert messages.last is not None
        assert (messages.last.room, messages.last.position.offset) == ("z", 1)
        assert rooms.members("z") == ()
        assert rooms.statistics().rooms["z"].subscriptions == 1
    assert messages.rooms == ()


async def test_it_has_a_name_for_exclude_and_only() -> None:
    rooms = Rooms()
    async with rooms.subscribe("x") as a, rooms.subscribe("x") as b:
        assert repr(a) == f"<Subscription {a.id} to 'x'>"
        assert await rooms.publish("x", "not a", exclude={a}) == 1
        assert await rooms.publish("x", "only a", only={a.id}) == 1
        assert (await drain(a), await drain(b)) == (["only a"], ["not a"])
    assert repr(a) == f"<Subscription {a.id} to no room>"


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        (Overflow.DROP_OLDEST, [Missed(3), 3, 4]),
        (Overflow.DROP_NEWEST, [0, 1, Missed(3)]),
        (Overflow.LATEST, [4]),
    ],
)
async def test_what_it_missed_stands_in_its_place(overflow: Overflow, expected: list[Any]) -> None:
    rooms = Rooms()
    async with rooms.subscribe("x", buffer=2, overflow=overflow) as messages:
        assert sum(await publish(rooms, *range(5))) == (2 if expected[-1] == Missed(3) else 5)
        assert [await messages.receive() for _ in expected] == expected
        await publish(rooms, "and on")
        assert await messages.receive() == "and on"


async def test_it_ends_when_it_is_too_slow_and_is_to_be_disconnected_then() -> None:
    rooms = Rooms()
    async with rooms.subscribe("x", buffer=2, overflow=Overflow.DISCONNECT) as messages:
        assert await publish(rooms, *range(4)) == [1, 1, 0, 0]
        with pytest.raises(trio.BrokenResourceError, match="faster"):
            await messages.receive()
        with pytest.raises(trio.BrokenResourceError, match="faster"):
            await messages.join("y")
        counted = rooms.statistics().total
        assert (counted.addressed, counted.delivered, counted.disconnected) == (3, 0, 3)


async def test_a_publisher_waits_for_it_if_it_is_told_to() -> None:
    rooms = Rooms()
    async with (
        rooms.subscribe("x", buffer=1, overflow=Overflow.WAIT) as messages,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(publish, rooms, *range(5))
        got = [await messages.receive() for _ in range(5)]
    assert got == [0, 1, 2, 3, 4]
    assert rooms.statistics().total.dropped == 0


async def test_a_transform_chooses_and_changes_what_it_yields() -> None:
    rooms = Rooms()
    async with rooms.subscribe(
        "x", transform=lambda m: m.data * 10 if m.data % 2 else None
    ) as odd:
        assert await publish(rooms, 1, 2, 3) == [1, 0, 1]
        assert await drain(odd) == [10, 30]
        assert rooms.statistics().total.addressed == 2


async def test_a_transform_that_fails_is_the_cause_of_its_end() -> None:
    rooms = Rooms()
    async with (
        rooms.subscribe("x", transform=lambda message: message.data / 0) as messages,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def read() -> None:
            with pytest.raises(trio.BrokenResourceError, match="transform") as info:
                await messages.receive()
            assert isinstance(info.value.__cause__, ZeroDivisionError)

        await settle()
        assert await publish(rooms, 1) == [0]


async def test_it_resumes_where_it_was() -> None:
    rooms = Rooms(history=History())
    async with rooms.subscribe("x", since=START) as messages:
        await publish(rooms, *range(3))
        assert [await messages.receive(), await messages.receive()] == [0, 1]
        assert messages.last is not None
        seen = messages.last.position
    await publish(rooms, 3)
    async with rooms.subscribe("x", since=seen) as messages:
        assert messages.resumed("x") is Resume.COMPLETE
        assert messages.position("x") == seen
        await publish(rooms, 4)
        assert [await messages.receive() for _ in range(3)] == [2, 3, 4]


async def test_it_says_when_it_cannot_resume() -> None:
    rooms = Rooms(history=History())
    await publish(rooms, 1)
    async with rooms.subscribe("x", "y", since={"x": Position("other", 1)}) as messages:
        assert messages.resumed("x") is Resume.LOST
        assert [await messages.receive(), await messages.receive()] == [Missed(None), 1]
        await messages.join("z")  # which has lost nothing
        await publish(rooms, 2)
        assert await messages.receive() == 2


async def test_who_waits_while_a_further_room_is_entered_gets_what_is_replayed() -> None:
    rooms = Rooms(history=History())
    await publish(rooms, 1)
    async with rooms.subscribe() as messages, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert await messages.receive() == 1

        await settle()
        await messages.join("x", since=START)


async def test_a_gap_in_the_room_is_a_gap_in_the_messages() -> None:
    rooms = Rooms(codec=Envelope())
    async with rooms.subscribe("x") as messages:
        await publish(rooms, 1)
        rooms._registry.gap("x")
        await publish(rooms, 2)
        assert [await messages.receive() for _ in range(3)] == [1, Missed(None), 2]


async def test_receiving_is_a_checkpoint_and_so_is_closing() -> None:
    rooms = Rooms()
    async with rooms.subscribe("x") as messages:
        await publish(rooms, 1)
        with trio.testing.assert_checkpoints():
            await messages.receive()
        with trio.testing.assert_checkpoints():
            await messages.aclose()
        with trio.testing.assert_checkpoints():
            await messages.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await messages.receive()


async def test_cancelling_it_anywhere_loses_nothing_and_leaves_nothing() -> None:
    rooms = Rooms(history=History())
    async for attempt in cancellations():
        got: list[Any] = []
        async with rooms.subscribe("x", buffer=10) as witness:
            with attempt:
                async with (
                    rooms.subscribe("x", buffer=1, overflow=Overflow.WAIT) as messages,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(publish, rooms, 1, 2, 3)
                    for _ in range(3):
                        got.append(await messages.receive())  # noqa: PERF401  # see got
            published = await drain(witness)
            assert got == published[: len(got)]
            statistics = rooms.statistics()
            assert statistics.rooms["x"].subscriptions == 1
            total = statistics.total
            assert total.addressed == total.delivered + total.dropped + total.disconnected
        assert rooms.statistics().rooms == {}
