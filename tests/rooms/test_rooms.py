from __future__ import annotations

import contextlib
import threading
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from _seats import Seat, Seats

from trio_ws._errors import ConnectionLost
from trio_ws._messages import PreparedMessage
from trio_ws._options import Options
from trio_ws.rooms import (
    START,
    Codec,
    Envelope,
    History,
    Missed,
    Overflow,
    Resume,
    RoomLimits,
    RoomMessage,
    Rooms,
)
from trio_ws.rooms._embedded import EmbeddedBroker
from trio_ws.testing import cancel_everywhere

AT_MODULE_LEVEL = Rooms()


async def test_publishing_to_nobody_reaches_nobody() -> None:
    rooms = Rooms()
    with trio.testing.assert_checkpoints():
        assert await rooms.publish("x", "hello?") == 0
    assert rooms.publish_nowait("x", "hello?") == 0
    assert rooms.members("x") == ()
    assert rooms.history("x") == ()
    assert rooms.statistics().total.published == 0


async def test_rooms_made_outside_of_trio_work_inside() -> None:
    async with AT_MODULE_LEVEL.subscribe("x") as messages:
        with trio.testing.assert_checkpoints():
            assert await AT_MODULE_LEVEL.publish("x", 1) == 1
        with trio.testing.assert_no_checkpoints():
            assert AT_MODULE_LEVEL.publish_nowait("x", 2) == 1
        assert [await messages.receive(), await messages.receive()] == [1, 2]
    assert repr(AT_MODULE_LEVEL) == "<Rooms 0 rooms>"


@pytest.mark.parametrize(
    ("data", "received"),
    [
        ("text", "text"),
        (b"\0bytes", b"\0bytes"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        (PreparedMessage("prepared"), "prepared"),
        (PreparedMessage(b"prepared"), b"prepared"),
        ({"any": ["thing", None]}, '{"any":["thing",null]}'),
        (None, "null"),
    ],
)
async def test_what_can_be_published(data: Any, received: Any) -> None:
    rooms = Rooms()
    async with Seats(1) as (a,), rooms.join(a.ws, "x"):
        assert await rooms.publish("x", data) == 1
        assert await a.received() == [received]


async def test_a_codec_may_say_it_otherwise() -> None:
    class Shouting(Codec):
        def encode(self, data: Any) -> str:
            return f"{data}".upper()

    rooms = Rooms(codec=Shouting())
    async with Seats(1) as (a,), rooms.join(a.ws, "x"), rooms.subscribe("x") as messages:
        await rooms.publish("x", PreparedMessage("hi"))
        assert await a.received() == ["HI"]
        assert await messages.receive() == "hi"


@pytest.mark.parametrize("data", [object(), {"a", "set"}, float("nan"), "\ud800"])
async def test_what_cannot_be_encoded_is_refused_and_counts_nothing(data: Any) -> None:
    rooms = Rooms(history=History())
    async with Seats(1) as (a,), rooms.join(a.ws, "x"):
        with pytest.raises((TypeError, ValueError)):
            await rooms.publish(["x", "y"], data)
        await rooms.publish("x", "fine")
        assert await a.received() == ["fine"]
        assert [kept.position.offset for kept in rooms.history("x")] == [1]
        assert rooms.statistics().history_messages == 1


async def test_a_codec_that_fails_late_counts_nothing_either() -> None:
    class Fails(Envelope):
        failing = True

        def wrap(self, payload: Any, room: str, position: Any) -> Any:
            if room == "y" and self.failing:
                raise ZeroDivisionError
            return super().wrap(payload, room, position)

    codec = Fails()
    rooms = Rooms(codec=codec, history=History())
    async with rooms.subscribe("x", "y") as messages:
        with pytest.raises(ZeroDivisionError):
            await rooms.publish(["x", "y", "z"], 1)
        codec.failing = False
        assert await rooms.publish(["y", "x"], 2) == 1
        assert await messages.receive() == 2
        assert messages.last is not None
        assert messages.last.position.offset == 1
    assert {len(rooms.history(room)) for room in "xy"} == {1}
    assert rooms.history("z") == ()


@pytest.mark.parametrize("method", ["wrap", "greet", "transform"])
async def test_what_is_called_in_the_middle_must_not_publish(method: str) -> None:
    """What it published would get an offset, and be in the room, before what it is called for."""
    rooms = Rooms(history=History())
    await rooms.publish("x", "before")

    def meddle(*_: object) -> None:
        rooms.publish_nowait("x", "in the middle")

    codec = rooms._codec
    if method == "transform":
        async with Seats(1) as (a,), rooms.join(a.ws, "x", since=START, transform=meddle):
            assert a.ws.close_info is not None
    else:
        setattr(codec, method, meddle)
        with pytest.raises(RuntimeError, match="must not publish"):
            async with Seats(1) as (a,), rooms.join(a.ws, "x"):
                await rooms.publish("x", "not this one either")
        delattr(codec, method)
    assert [kept.data for kept in rooms.history("x")] == ["before"]
    await rooms.publish("x", "after")
    assert [kept.position.offset for kept in rooms.history("x")] == [1, 2]


async def test_excluded_members_do_not_get_it_and_only_those_who_are_meant_do() -> None:
    rooms = Rooms()
    async with (
        Seats(3) as (a, b, c),
        rooms.join(a.ws, "x") as first,
        rooms.join(b.ws, "x", name="bob"),
        rooms.join(c.ws, "x"),
    ):
        assert await rooms.publish("x", 1, exclude={first}) == 2
        assert await rooms.publish("x", 2, exclude=[first, b.ws, c.ws.id]) == 0
        assert await rooms.publish("x", 3, only={"bob", first.id}) == 2
        assert await rooms.publish("x", 4, only={"bob", first}, exclude={"bob"}) == 1
        assert await rooms.publish("x", 5, only=()) == 0
        assert await rooms.publish(["y", "x"], 6, only=[c.ws]) == 1
        assert await a.received() == ["3", "4"]
        assert await b.received() == ["1", "3"]
        assert await c.received() == ["1", "6"]
        counted = rooms.statistics().rooms["x"]
        assert counted.addressed == counted.delivered == 6


async def test_wrong_use_is_refused_at_once() -> None:
    rooms = Rooms()
    async with Seats(1) as (a,):
        with pytest.raises(TypeError, match="the WebSocket itself"):
            rooms.join("x", a.ws)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name of a room"):
            rooms.join(a.ws, ["x", "y"])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name of a member"):
            rooms.join(a.ws, "x", name=7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="buffer"):
            rooms.join(a.ws, "x", buffer=0)
        with pytest.raises(TypeError, match="name of a room"):
            rooms.subscribe(b"x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name of a room"):
            rooms.presence(None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="name of a room"):
            await rooms.publish([b"x"], 1)  # type: ignore[list-item]
        with pytest.raises(TypeError, match="several are a list of them, not 7"):
            await rooms.publish(7, 1)  # type: ignore[arg-type]
        async with rooms.join(a.ws, "x") as member:
            with pytest.raises(TypeError, match=r"exclude=\{\.\.\.\}"):
                await rooms.publish("x", 1, exclude=member)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match=r"only=\{\.\.\.\}"):
                await rooms.publish("x", 1, only="bob")
            with pytest.raises(TypeError, match=r"exclude is a collection of members, .*, not 7"):
                await rooms.publish("x", 1, exclude=7)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="members, connections or ids"):
                await rooms.publish("x", 1, only=[7])  # type: ignore[list-item]
            with pytest.raises(TypeError, match="name of a room"):
                await member.join(7)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="name of a room"):
                member.leave(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="brings its own history"):
        Rooms(broker=EmbeddedBroker(), history=History())


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("history", "history is a History or None, not 5"),
        ("codec", "codec is a Codec or None, not 5"),
        ("limits", "limits is a RoomLimits or None, not 5"),
        ("on_join", "on_join is a function, not 5"),
    ],
)
def test_what_rooms_cannot_be_made_with_is_refused_at_once(argument: str, said: str) -> None:
    made: Any = {argument: 5}
    with pytest.raises(TypeError, match=f"^{said}$"):
        Rooms(**made)


async def test_the_memory_of_histories_is_limited() -> None:
    rooms = Rooms(history=History(), limits=RoomLimits(max_history_memory=10_000))
    for number in range(100):
        await rooms.publish(f"room {number}", "x" * 1000)
    statistics = rooms.statistics()
    assert 0 < statistics.history_memory <= 10_000
    assert statistics.history_messages == 1


async def test_a_history_that_has_grown_too_old_is_in_the_way_of_no_publish(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rooms = Rooms(history=History(age=10))
    await rooms.publish("y", "old")
    await trio.sleep(10)
    await rooms.publish(["x", "y"], "new")
    assert [kept.data for kept in rooms.history("y")] == ["new"]
    await trio.sleep(10)
    assert rooms.statistics().history_messages == 0


@pytest.mark.parametrize("history", [None, History()])
async def test_a_position_holds_only_if_nothing_was_said_since(history: History | None) -> None:
    rooms = Rooms(history=history)
    async with rooms.subscribe("x") as messages:
        position = messages.position("x")
    async with rooms.subscribe("x", since=position) as messages:
        assert messages.resumed("x") is Resume.COMPLETE
    await rooms.publish("x", "to nobody")
    async with rooms.subscribe("x", since=position) as messages:
        assert messages.resumed("x") is (Resume.LOST if history is None else Resume.COMPLETE)
        assert messages.statistics().queued == 0
        await rooms.publish("x", "to somebody")
        if history is not None:
            assert await messages.receive() == "to nobody"
        assert await messages.receive() == (Missed(None) if history is None else "to somebody")


# From threads...


async def test_any_thread_can_publish() -> None:
    rooms = Rooms()
    async with rooms.subscribe("x") as messages:
        assert await trio.to_thread.run_sync(rooms.publish_from_thread, "x", "from trio's") == 1
        counts: list[int] = []
        thread = threading.Thread(
            target=lambda: counts.append(
                rooms.publish_from_thread(["x", "y"], {"n": 1}, exclude=(), only={messages})
            )
        )
        thread.start()
        assert [await messages.receive(), await messages.receive()] == ["from trio's", {"n": 1}]
        await trio.to_thread.run_sync(thread.join)
        assert counts == [1]


async def test_a_thread_waits_where_a_publisher_waits() -> None:
    rooms = Rooms()
    async with (
        rooms.subscribe("x", buffer=1, overflow=Overflow.WAIT) as messages,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(trio.to_thread.run_sync, rooms.publish_from_thread, "x", "a")
        assert [await messages.receive() for _ in range(3)] == ["a"] * 3


async def test_each_of_many_threads_keeps_its_order() -> None:
    rooms = Rooms()
    each = range(30)
    async with rooms.subscribe("x", "y", buffer=None) as messages:

        def publish(thread: int) -> None:
            for number in each:
                room = ["x", "y"] if number % 2 else "x"
                assert rooms.publish_from_thread(room, (thread, number)) == 1

        threads = [threading.Thread(target=publish, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        got = [await messages.receive() for _ in range(6 * len(each))]
        for thread in threads:
            await trio.to_thread.run_sync(thread.join)
    assert all([n for t, n in got if t == thread] == [*each] for thread in range(6))


async def test_a_thread_gets_the_error_of_its_data() -> None:
    rooms = Rooms()
    with pytest.raises(TypeError):
        await trio.to_thread.run_sync(rooms.publish_from_thread, "x", object())


async def test_trios_own_thread_must_not_wait_and_another_must() -> None:
    rooms = Rooms()
    with pytest.raises(RuntimeError, match="thread"):
        rooms.publish_from_thread("x", 1)
    with pytest.raises(RuntimeError, match="publish_from_thread"):
        await trio.to_thread.run_sync(rooms.publish_nowait, "x", 1)


def test_a_thread_needs_to_know_which_trio() -> None:
    rooms = Rooms()
    with pytest.raises(RuntimeError, match="know no trio"):
        rooms.publish_from_thread("x", 1)

    async def use() -> None:
        async with rooms.subscribe("x"):
            pass

    trio.run(use)
    with pytest.raises(trio.RunFinishedError):
        rooms.publish_from_thread("x", 1)

    async def use_again() -> None:
        async with rooms.subscribe("x") as messages:
            await trio.to_thread.run_sync(rooms.publish_from_thread, "x", 1)
            assert await messages.receive() == 1

    trio.run(use_again)


# All together...


def test_cancelled_at_any_checkpoint_rooms_are_consistent() -> None:
    rooms = Rooms()

    async def use() -> None:
        async with (
            rooms.subscribe("x", buffer=1, overflow=Overflow.WAIT, since=START) as messages,
            rooms.presence("y"),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(rooms.publish, "x", 2)
            nursery.start_soon(rooms.publish, ["y", "x"], 3)
            got = [await messages.receive() for _ in range(3)]
            assert sorted(got) == [1, 2, 3]
            await messages.join("y", since=str(rooms.history("y")[0].position))
            messages.leave("x")
            assert await rooms.publish(["x", "y"], 4) == 1
            assert await messages.receive() == 4

    async def scenario() -> None:
        nonlocal rooms
        rooms = Rooms(history=History(), codec=Envelope())
        await rooms.publish(["x", "y"], 1)
        try:
            await use()
        finally:
            statistics = rooms.statistics()
            assert statistics.rooms == {}
            total = statistics.total
            assert (total.queued, total.waiting) == (0, 0)
            assert total.addressed == total.delivered + total.dropped + total.disconnected

    assert trio.run(cancel_everywhere, scenario) > 20


class Restless:
    """Somebody who comes, goes, closes and fails at any moment."""

    def __init__(self, rooms: Rooms, seat: Seat, random: Random) -> None:
        self.rooms = rooms
        self.seat = seat
        self.random = random

    async def stay(self, overflow: Overflow, *, fails: bool) -> None:
        transform = self._fail_at_times if fails else None
        ws, random = self.seat.ws, self.random
        with contextlib.suppress(trio.ClosedResourceError, ConnectionLost):
            async with self.rooms.join(
                ws, "a", buffer=3, overflow=overflow, since=START, transform=transform
            ) as member:
                while True:
                    await trio.sleep(random.random())
                    member.leave(random.choice("ab"))
                    await member.join(*random.choice(["a", "ab"]))
                    if random.random() < 0.05:
                        await ws.aclose()

    async def stall(self) -> None:
        while True:
            await trio.sleep(self.random.random())
            self.random.choice([self.seat.stall, self.seat.release])()

    def _fail_at_times(self, message: RoomMessage) -> Any:
        if self.random.random() < 0.02:
            raise LookupError
        return None if message.data % 3 == 0 else message


@pytest.mark.parametrize("seed", range(5))
async def test_connections_that_close_and_fail_in_the_middle_are_accounted_for(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    random = Random(seed)
    rooms = Rooms(codec=Envelope(), history=History(count=7, size=1000, age=5))
    options = Options(send_buffer=300, ping_interval=None, write_timeout=None, close_grace=1)
    async with Seats(6, options) as seats, trio.open_nursery() as nursery:
        for index, seat in enumerate(seats):
            one = Restless(rooms, seat, random)
            overflow = [*Overflow][index % 5]
            nursery.start_soon(partial(one.stay, overflow, fails=index == 5))
            nursery.start_soon(one.stall)
        for number in range(150):
            with trio.move_on_after(random.random() / 2):
                await rooms.publish([*random.choice(["a", "b", "ab", "ba"])], number)
            await trio.sleep(random.random() / 5)
            statistics = rooms.statistics()
            for each in (*statistics.rooms.values(), statistics.total):
                parts = each.delivered + each.dropped + each.disconnected + each.waiting
                assert each.addressed == parts
        for seat in seats:
            seat.release()
        nursery.cancel_scope.cancel()
    assert rooms.statistics().rooms == {}
    assert rooms.statistics().total.delivered > 10  # how many is left to chance
