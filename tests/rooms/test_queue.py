from __future__ import annotations

import pytest
import trio
from _helpers import settle
from _seats import message

from trio_ws.rooms import Missed, Overflow
from trio_ws.rooms._overflow import Terms
from trio_ws.rooms._queue import Delivery, Queue
from trio_ws.rooms._statistics import Counters
from trio_ws.testing import cancellations


class Bench:
    """A queue, and the counters of one room."""

    def __init__(
        self, overflow: Overflow, buffer: float = 2, buffer_bytes: float | None = None
    ) -> None:
        self.queue = Queue(Terms(buffer, buffer_bytes, overflow, None))
        self.counters = Counters()

    def put(
        self,
        offset: int,
        *,
        room: str = "a",
        size: int = 1,
        key: str | None = None,
        delivery: Delivery | None = None,
    ) -> bool | None:
        """Do what a room does."""
        self.counters.addressed += 1
        delivery = delivery or Delivery(waits=False)
        taken = self.queue.put(
            message(offset, room=room, size=size, key=key), self.counters, delivery
        )
        if taken:
            self.counters.delivered += 1
        elif taken is None:
            self.counters.disconnected += 1
        self.check()
        return taken

    def put_all(self, *offsets: int) -> list[bool | None]:
        return [self.put(offset) for offset in offsets]

    def get_all(self) -> list[int | Missed]:
        """Return what there is: data, or what was missed."""
        things: list[int | Missed] = []
        while (thing := self.queue.get_nowait()) is not None:
            things.append(thing if isinstance(thing, Missed) else thing.data)
            self.check()
        return things

    def check(self) -> None:
        """Nothing is ever lost from the books."""
        c = self.counters
        assert c.addressed == c.delivered + c.dropped + c.disconnected + c.waiting
        assert (c.queued, c.queued_bytes) == (self.queue.length, self.queue.size)
        assert c.most_queued >= c.queued
        assert c.most_queued_bytes >= c.queued_bytes


@pytest.mark.parametrize("overflow", Overflow)
def test_what_is_put_in_comes_out_in_order(overflow: Overflow) -> None:
    bench = Bench(overflow, buffer=3)
    for offset in (1, 2, 3):
        assert bench.put(offset, key=str(offset))
    assert not bench.queue.ready
    assert bench.get_all() == [1, 2, 3]
    assert bench.queue.ready
    assert bench.counters.delivered == 3
    assert bench.queue.missed == 0


def test_a_full_queue_gives_its_member_up_with_disconnect() -> None:
    bench = Bench(Overflow.DISCONNECT)
    assert bench.put_all(1, 2, 3) == [True, True, None]
    bench.queue.discard(lost=True)
    bench.check()
    assert (bench.counters.delivered, bench.counters.disconnected) == (0, 3)


def test_drop_oldest_drops_the_first_and_says_so_in_their_place() -> None:
    bench = Bench(Overflow.DROP_OLDEST)
    assert bench.put_all(1, 2, 3, 4, 5) == [True] * 5
    assert bench.get_all() == [Missed(3), 4, 5]
    assert (bench.counters.delivered, bench.counters.dropped) == (2, 3)
    assert bench.queue.missed == 3
    assert bench.put_all(6, 7) == [True, True]
    assert bench.get_all() == [6, 7]


def test_drop_newest_drops_what_comes_and_says_so_in_its_place() -> None:
    bench = Bench(Overflow.DROP_NEWEST)
    assert bench.put_all(1, 2, 3, 4) == [True, True, False, False]
    assert bench.queue.get_nowait() is not None
    assert bench.put_all(5, 6) == [True, False]
    assert bench.get_all() == [2, Missed(2), 5, Missed(1)]
    assert (bench.counters.delivered, bench.counters.dropped) == (3, 3)
    assert bench.queue.missed == 3
    assert bench.put_all(7, 8, 9) == [True, True, False]
    assert bench.get_all() == [7, 8, Missed(1)]


def test_latest_keeps_the_newest_of_each_key_in_the_place_of_the_first() -> None:
    bench = Bench(Overflow.LATEST, buffer=3)
    for offset, key in enumerate(["x", "y", "x", None, "x", None]):
        assert bench.put(offset, key=key)
    assert bench.get_all() == [4, 1, 5]
    assert (bench.counters.delivered, bench.counters.dropped) == (3, 3)
    assert bench.put(6, key="x")
    assert bench.get_all() == [6]


def test_latest_tells_rooms_apart() -> None:
    bench = Bench(Overflow.LATEST, buffer=3)
    for offset, room in enumerate(["a", "b", "a", "b"]):
        assert bench.put(offset, room=room, key="x")
    assert bench.get_all() == [2, 3]


def test_latest_drops_the_oldest_of_too_many_keys() -> None:
    bench = Bench(Overflow.LATEST)
    for offset, key in enumerate("xyz"):
        assert bench.put(offset, key=key)
    assert bench.get_all() == [Missed(1), 1, 2]


def test_latest_counts_the_bytes_of_what_took_the_place() -> None:
    bench = Bench(Overflow.LATEST)
    bench.put(1, key="x", size=10)
    bench.put(2, key="x", size=25)
    assert bench.queue.size == bench.counters.most_queued_bytes == 25
    bench.put(3, key="x", size=5)
    assert bench.queue.size == 5
    assert bench.counters.most_queued_bytes == 25


def test_bytes_bound_a_queue_too() -> None:
    bench = Bench(Overflow.DROP_OLDEST, buffer=100, buffer_bytes=10)
    for offset in range(6):
        bench.put(offset, size=4)
    assert bench.queue.size == 8
    assert bench.get_all() == [Missed(4), 4, 5]


def test_a_message_over_the_bound_of_bytes_passes_an_empty_queue_alone() -> None:
    bench = Bench(Overflow.DROP_NEWEST, buffer=100, buffer_bytes=10)
    assert bench.put(1, size=50)
    assert not bench.put(2)
    assert bench.get_all() == [1, Missed(1)]


def test_one_gap_stands_for_all_that_is_missing_at_a_place() -> None:
    bench = Bench(Overflow.DROP_NEWEST, buffer=1)
    bench.put_all(1, 2, 3)
    bench.queue.leave_gap()
    bench.put(4)
    assert bench.get_all() == [1, Missed(None)]
    bench.queue.leave_gap()
    bench.queue.leave_gap()
    bench.put(5)
    assert bench.get_all() == [Missed(None), 5]


def test_a_gap_that_is_dropped_stays_a_gap() -> None:
    bench = Bench(Overflow.DROP_OLDEST, buffer=1)
    bench.queue.leave_gap()
    bench.put_all(1, 2)
    assert bench.get_all() == [Missed(None), 2]


def test_what_is_replayed_takes_no_room_and_is_the_first_to_be_dropped() -> None:
    bench = Bench(Overflow.DROP_OLDEST, buffer=1)
    for offset in (1, 2, 3):
        bench.queue.put_extra(message(offset))
    bench.put(4)
    assert bench.queue.length == 1
    bench.put(5)
    assert bench.get_all() == [Missed(4), 5]
    assert bench.queue.missed == 4


# Waiting publishers...


def test_wait_lets_nobody_in_who_would_not_wait() -> None:
    bench = Bench(Overflow.WAIT)
    assert bench.put_all(1, 2, 3) == [True, True, False]
    assert bench.get_all() == [1, 2, Missed(1)]


def test_wait_takes_a_last_message_that_exceeds_the_bytes_from_who_has_asked_before() -> None:
    bench = Bench(Overflow.WAIT, buffer=5, buffer_bytes=10)
    bench.put(1, size=8)
    assert bench.queue.ready
    assert bench.put(2, size=8)
    assert not bench.queue.ready


async def test_a_publisher_waits_until_there_is_room() -> None:
    bench = Bench(Overflow.WAIT)
    bench.put_all(1, 2)
    delivery = Delivery(waits=True)
    assert bench.put(3, delivery=delivery) is False
    assert bench.counters.waiting == 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.wait)
        await settle()
        assert len(nursery.child_tasks) == 1
        assert not bench.queue.ready
        assert bench.queue.get_nowait() is not None
        bench.check()
    assert delivery.taken == 1
    assert bench.counters.waiting == 0
    assert bench.get_all() == [2, 3]


async def test_publishers_are_let_in_in_the_order_in_which_they_came() -> None:
    bench = Bench(Overflow.WAIT, buffer=1)
    bench.put(1)
    deliveries = [Delivery(waits=True) for _ in range(3)]
    for offset, delivery in enumerate(deliveries, 2):
        bench.put(offset, delivery=delivery)
    assert bench.put(5) is False  # nobody overtakes them, and this one does not wait
    assert bench.get_all() == [1, 2, 3, 4, Missed(1)]
    for delivery in deliveries:
        await delivery.wait()
        assert delivery.taken == 1


async def test_who_gives_up_waiting_leaves_a_gap_in_its_place() -> None:
    bench = Bench(Overflow.WAIT, buffer=1)
    bench.put(1)
    before, delivery, behind = (Delivery(waits=True) for _ in range(3))
    bench.put(2, delivery=before)
    bench.put(3, delivery=delivery)
    bench.put(4, delivery=behind)
    with trio.move_on_after(0) as scope:
        await delivery.wait()
    assert scope.cancelled_caught
    assert delivery.taken == 0
    assert bench.counters.dropped == 1
    bench.check()
    assert bench.get_all() == [1, 2, Missed(1), 4]


async def test_gaps_of_those_who_gave_up_do_not_pile_up() -> None:
    bench = Bench(Overflow.WAIT, buffer=1)
    bench.put(1)
    bench.put(2, delivery=Delivery(waits=True))
    for offset in range(100):
        delivery = Delivery(waits=True)
        bench.put(3 + offset, delivery=delivery)
        with trio.CancelScope() as scope:
            scope.cancel()
            await delivery.wait()
    assert len(bench.queue._line) == 2
    assert bench.get_all() == [1, 2, Missed(100)]


def test_a_gap_behind_those_who_wait_stands_behind_them() -> None:
    bench = Bench(Overflow.WAIT, buffer=1)
    bench.put(1)
    bench.put(2, delivery=Delivery(waits=True))
    bench.queue.leave_gap()
    assert bench.put_all(3, 4) == [False, False]
    assert bench.get_all() == [1, 2, Missed(None)]


async def test_who_gives_up_as_the_first_in_line_lets_the_next_one_in() -> None:
    bench = Bench(Overflow.WAIT, buffer=5, buffer_bytes=10)
    bench.put(1, size=8)
    large, small = Delivery(waits=True), Delivery(waits=True)
    bench.put(2, size=9, delivery=large)
    bench.put(3, size=1, delivery=small)
    with trio.CancelScope() as scope:
        scope.cancel()
        await large.wait()
    await small.wait()
    assert small.taken == 1
    assert bench.get_all() == [1, Missed(1), 3]


async def test_nobody_waits_for_a_member_that_is_gone() -> None:
    bench = Bench(Overflow.WAIT, buffer=1)
    bench.put(1)
    given_up, delivery = Delivery(waits=True), Delivery(waits=True)
    bench.put(2, delivery=delivery)
    bench.put(3, delivery=given_up)
    with trio.CancelScope() as scope:
        scope.cancel()
        await given_up.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.wait)
        await settle()
        bench.queue.discard(lost=True)
    assert delivery.taken == 0
    assert (bench.counters.disconnected, bench.counters.dropped) == (2, 1)
    bench.check()


async def test_one_delivery_waits_for_several_members() -> None:
    slow, slower = Bench(Overflow.WAIT, buffer=1), Bench(Overflow.WAIT, buffer=1)
    delivery = Delivery(waits=True)
    for bench in (slow, slower):
        bench.put(1)
        bench.put(2, delivery=delivery)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.wait)
        await settle()
        assert slow.get_all() == [1, 2]
        await settle()
        assert len(nursery.child_tasks) == 1
        assert slower.get_all() == [1, 2]
    assert delivery.taken == 2


# Waiting members...


async def test_a_message_for_who_waits_is_never_queued() -> None:
    bench = Bench(Overflow.DISCONNECT, buffer=1)
    async with trio.open_nursery() as nursery:
        got: list[object] = []

        async def wait() -> None:
            got.append(await bench.queue.get())

        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await settle()
        assert bench.put_all(1, 2, 3) == [True, True, True]
        assert bench.queue.length == 1
    assert sorted(each.data for each in got) == [1, 2]  # type: ignore[attr-defined]
    assert bench.get_all() == [3]


async def test_a_gap_goes_to_who_waits_too() -> None:
    bench = Bench(Overflow.DISCONNECT, buffer=1)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            assert await bench.queue.get() == Missed(None)

        await settle()
        bench.queue.leave_gap()
        bench.queue.leave_gap()  # the first one is no longer here to be widened
    assert bench.get_all() == [Missed(None)]


async def test_a_cancelled_wait_loses_nothing() -> None:
    async for attempt in cancellations():
        bench = Bench(Overflow.DISCONNECT, buffer=2)
        got: list[int] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait(attempt=attempt, bench=bench, got=got) -> None:
                with attempt:
                    found = await bench.queue.get()
                    assert not isinstance(found, Missed)
                    got.append(found.data)

            await settle()
            bench.put_all(1, 2)
        assert got + bench.get_all() == [1, 2]


async def test_discarding_wakes_who_waits() -> None:
    bench = Bench(Overflow.DISCONNECT)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await bench.queue.get()

        await settle()
        bench.queue.discard(lost=False)


# Leaving a room...


async def test_leaving_a_room_takes_its_messages_out_and_leaves_the_others() -> None:
    bench = Bench(Overflow.WAIT, buffer=4)
    bench.queue.put_extra(message(0, room="b"))
    bench.put(1)
    bench.put(2, room="b")
    bench.queue.leave_gap()
    bench.queue.put_extra(message(3))
    bench.put(3, room="b")
    bench.put(4)
    there, gone, given_up = (Delivery(waits=True) for _ in range(3))
    bench.put(5, delivery=gone)
    bench.put(6, room="b", delivery=there)
    bench.put(7, delivery=given_up)
    with trio.CancelScope() as scope:
        scope.cancel()
        await given_up.wait()

    bench.queue.purge("a")
    bench.check()
    await gone.wait()
    await there.wait()
    assert (gone.taken, there.taken) == (0, 1)
    assert bench.get_all() == [0, 2, Missed(None), 3, 6, Missed(1)]
    assert bench.counters.dropped == 4


def test_what_is_discarded_by_leaving_is_counted_as_dropped() -> None:
    bench = Bench(Overflow.DISCONNECT)
    bench.put(1)
    bench.queue.put_extra(message(2))
    bench.queue.leave_gap()
    bench.queue.discard(lost=False)
    bench.check()
    assert (bench.counters.dropped, bench.counters.disconnected) == (1, 0)
    assert bench.queue.length == 0
