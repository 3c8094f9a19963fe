"""Where received messages wait: bounded in bytes, for one consumer, and nothing gets lost."""

from __future__ import annotations

import math
import signal
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_ws._budget import Budget
from trio_ws._inbox import Inbox
from trio_ws._messages import OVERHEAD, MessagePart
from trio_ws.testing import cancellations

if TYPE_CHECKING:
    from trio_ws._messages import Data


class Consumer:
    """An inbox that is consumed by the test's own task."""

    def __init__(self, limit: float = math.inf) -> None:
        self.drained = 0
        self.room = trio.lowlevel.ParkingLot()
        self.inbox = Inbox(limit, self._on_drained, on_room=self.room.unpark_all)

    async def wait_not_full(self) -> None:
        """Do what whoever reads does."""
        while self.inbox.full:
            self.inbox.paused = True
            await self.room.park()

    def _on_drained(self) -> None:
        self.drained += 1

    def put(self, *pieces: Data, final: bool = True) -> None:
        """Put one message that comes in pieces, the last one of which may be missing."""
        for index, piece in enumerate(pieces):
            size = len(piece.encode() if isinstance(piece, str) else piece)
            self.inbox.put(MessagePart(piece, size, final and index == len(pieces) - 1))

    async def feed(self, *messages: Data) -> None:
        """Put messages of two pieces, each with a checkpoint before it."""
        for data in messages:
            await trio.lowlevel.checkpoint()
            self.put(data[:2], data[2:])

    async def get_all(self) -> list[Data]:
        return [await self.inbox.get() for _ in range(self.inbox.unread_messages)]


async def test_messages_come_out_in_their_order() -> None:
    consumer = Consumer()
    consumer.put("one")
    consumer.put(b"t", b"w", b"o")
    consumer.put("thr", "ee", "")
    assert (consumer.inbox.unread_messages, consumer.inbox.size) == (3, 11)
    assert [await consumer.inbox.get() for _ in range(3)] == ["one", b"two", "three"]
    assert (consumer.inbox.unread_messages, consumer.inbox.size) == (0, 0)


async def test_sizes_are_bytes_on_receipt() -> None:
    consumer = Consumer()
    consumer.put("é€")
    assert consumer.inbox.size == 5
    consumer.put("é", final=False)
    assert consumer.inbox.size == 7


async def test_a_waiting_consumer_gets_the_message_once_it_is_complete() -> None:
    consumer = Consumer()
    got: list[Data] = []

    async def get() -> None:
        got.append(await consumer.inbox.get())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await wait_all_tasks_blocked()
        consumer.put("a", "b", final=False)
        await wait_all_tasks_blocked()
        assert got == []
        consumer.put("c")
        await wait_all_tasks_blocked()
        assert got == ["abc"]


async def test_getting_is_a_checkpoint_and_what_it_cannot_return_it_leaves_there() -> None:
    consumer = Consumer()
    consumer.put("one")
    consumer.put("two")
    with assert_checkpoints():  # not each time: see `Pace`
        assert await consumer.inbox.get() == "one"
    with trio.CancelScope() as scope:
        scope.cancel()
        await consumer.inbox.get()
    assert scope.cancelled_caught
    assert await consumer.inbox.get() == "two"
    consumer.put("part", final=False)
    with assert_checkpoints():
        assert (await consumer.inbox.get_part()).data == "part"


async def test_cancelling_a_consumer_at_any_step_loses_nothing() -> None:
    async for attempt in cancellations():
        consumer = Consumer(limit=10)
        got: list[Data] = []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consumer.feed, "one", "two", b"x" * 20)
            with attempt:
                while len(got) < 3:
                    got.append(await consumer.inbox.get())
            await wait_all_tasks_blocked()
            got += await consumer.get_all()
        assert got == ["one", "two", b"x" * 20]
        assert consumer.inbox.size == 0


# Bounds...


async def test_a_full_inbox_says_so_and_lets_its_reader_go_on_when_it_is_not() -> None:
    consumer = Consumer(limit=3 * OVERHEAD + 30)
    for _ in range(3):
        assert not consumer.inbox.full
        consumer.put(b"x" * 10)
    assert consumer.inbox.full
    resumed = trio.Event()

    async def read() -> None:
        await consumer.wait_not_full()
        resumed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert not resumed.is_set()
        await consumer.inbox.get()
        await resumed.wait()


async def test_a_reader_that_resumes_to_find_it_full_again_waits_on() -> None:
    consumer = Consumer(limit=10)
    consumer.put(b"x" * 10)
    resumed = trio.Event()

    async def read() -> None:
        await consumer.wait_not_full()
        resumed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await consumer.inbox.get()
        consumer.put(b"x" * 10)
        await wait_all_tasks_blocked()
        assert not resumed.is_set()
        nursery.cancel_scope.cancel()


async def test_empty_messages_fill_an_inbox_too() -> None:
    consumer = Consumer(limit=64 * 1024)
    count = 0
    while not consumer.inbox.full:
        consumer.put(b"")
        count += 1
    assert count == 1024


async def test_who_waits_for_a_message_may_have_it_whole_however_long_it_is() -> None:
    consumer = Consumer(limit=10)
    consumer.put(b"x" * 8, b"y" * 8, final=False)
    assert consumer.inbox.full
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.inbox.get)
        await consumer.wait_not_full()
        consumer.put(b"z" * 100, final=False)
        assert not consumer.inbox.full
        nursery.cancel_scope.cancel()
    assert consumer.inbox.full


async def test_only_one_message_is_let_in_for_one_who_waits() -> None:
    """A read may hold a thousand messages, and the consumer cannot run in between."""
    consumer = Consumer(limit=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consumer.inbox.get)
        await wait_all_tasks_blocked()
        consumer.put(b"x" * 8, final=False)
        assert not consumer.inbox.full
        consumer.put(b"x" * 8)
        assert not consumer.inbox.full  # it is as good as taken
        consumer.put(b"x" * 8)
        assert consumer.inbox.full


async def test_a_message_a_byte_at_a_time_takes_no_more_than_its_bytes() -> None:
    consumer = Consumer()
    part = MessagePart(b"x", 1, final=False)
    tracemalloc.start()
    for _ in range(20_000):
        consumer.inbox.put(part)
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 30_000
    assert peak < 80_000
    consumer.put(b"z")
    assert await consumer.inbox.get() == b"x" * 20_000 + b"z"


class CountedBytes(bytes):
    """Bytes that count what is copied when they are joined two by two."""

    copied = 0

    def __add__(self, other: bytes) -> CountedBytes:
        CountedBytes.copied += len(self) + len(other)
        return CountedBytes(super().__add__(other))


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        pytest.param([1] * 4096, 12, id="a byte at a time"),
        pytest.param(range(1, 1000), 12, id="ever larger"),
        pytest.param(range(1000, 0, -1), 0, id="ever smaller"),
        pytest.param([2**exponent for exponent in range(16, -1, -1)], 0, id="in halves"),
    ],
)
async def test_pieces_are_not_copied_again_and_again(sizes: list[int], most: int) -> None:
    consumer = Consumer()
    CountedBytes.copied = 0
    for size in sizes:
        consumer.put(CountedBytes(size), final=False)
    consumer.put(CountedBytes())
    assert len(await consumer.inbox.get()) == sum(sizes)
    assert CountedBytes.copied <= most * sum(sizes)


# One consumer...


async def test_a_second_consumer_is_refused() -> None:
    consumer = Consumer()
    consumer.inbox.enter()
    with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
        consumer.inbox.enter()
    consumer.inbox.leave()
    consumer.inbox.enter()
    assert consumer.inbox.visits == 2
    assert consumer.inbox.consumer is trio.lowlevel.current_task()


# In parts...


async def test_parts_come_as_they_are_and_messages_that_are_complete_as_one() -> None:
    consumer = Consumer()
    consumer.put("ab", "cd", final=False)
    assert await consumer.inbox.get_part() == MessagePart("abcd", 4, final=False)
    consumer.put("e")
    consumer.put("next")
    assert await consumer.inbox.get_part() == MessagePart("e", 1, final=True)
    assert await consumer.inbox.get_part() == MessagePart("next", 4, final=True)
    assert consumer.inbox.size == 0


async def test_waiting_for_a_part() -> None:
    consumer = Consumer()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def feed() -> None:
            await wait_all_tasks_blocked()
            consumer.put("a", final=False)

        assert await consumer.inbox.get_part() == MessagePart("a", 1, final=False)


@pytest.mark.parametrize("begun", [False, True], ids=["whole rest", "half rest"])
async def test_the_rest_of_a_message_can_be_skipped(begun: bool) -> None:
    consumer = Consumer(limit=10)
    consumer.put("a", final=False)
    await consumer.inbox.get_part()
    consumer.put("b" * 10, final=begun)
    assert consumer.inbox.full
    consumer.inbox.skip()
    assert consumer.inbox.size == 0
    assert not consumer.inbox.full
    if not begun:
        consumer.put("c", final=False)
        consumer.put("d")
        assert consumer.inbox.size == 0
    consumer.put("next")
    assert await consumer.inbox.get() == "next"


# The end...


async def test_the_end_comes_behind_the_messages() -> None:
    consumer = Consumer(limit=10)
    consumer.put("x" * 20)
    consumer.put("never complete", final=False)
    consumer.inbox.end(lambda: ValueError("over"))
    assert not consumer.inbox.full
    assert await consumer.inbox.get() == "x" * 20
    assert consumer.drained == 0
    with pytest.raises(ValueError, match="over"):
        await consumer.inbox.get()
    assert consumer.drained == 1


async def test_the_end_comes_behind_the_parts() -> None:
    consumer = Consumer()
    consumer.put("never complete", final=False)
    consumer.inbox.end(lambda: ValueError("over"))
    assert (await consumer.inbox.get_part()).data == "never complete"
    with pytest.raises(ValueError, match="over"):
        await consumer.inbox.get_part()


@pytest.mark.parametrize("method", [Inbox.get, Inbox.get_part])
async def test_the_end_wakes_consumer_and_reader(method: object) -> None:
    consumer = Consumer(limit=10)
    consumer.put(b"x" * 10)
    woken: list[str] = []

    async def read() -> None:
        await consumer.wait_not_full()
        woken.append("reader")

    async def get() -> None:
        with pytest.raises(ValueError, match="over"):
            await method(empty.inbox)
        woken.append("consumer")

    empty = Consumer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(get)
        await wait_all_tasks_blocked()
        assert woken == []
        consumer.inbox.end(lambda: ValueError("over"))
        empty.inbox.end(lambda: ValueError("over"))
    assert sorted(woken) == ["consumer", "reader"]


async def test_who_is_cancelled_by_the_end_hears_of_that_first() -> None:
    consumer = Consumer()
    with trio.CancelScope() as scope:
        scope.cancel()
        consumer.inbox.end(lambda: ValueError("over"))
        await consumer.inbox.get()
    assert scope.cancelled_caught
    assert consumer.drained == 0


async def test_what_is_unread_can_be_dropped() -> None:
    consumer = Consumer()
    consumer.put("one")
    consumer.put("two", final=False)
    consumer.inbox.discard()
    assert (consumer.inbox.unread_messages, consumer.inbox.size) == (0, 0)
    consumer.inbox.end(lambda: ValueError("over"))
    with pytest.raises(ValueError, match="over"):
        await consumer.inbox.get_part()


# A budget (see test_budget.py)...


def make_inbox(budget: Budget) -> Inbox:
    account = budget.open_account(lambda: None)
    inbox = Inbox(math.inf, lambda: None, account)
    account.evict = inbox.discard
    return inbox


async def test_what_is_held_is_told_to_the_budget() -> None:
    budget = Budget(1000)
    inbox = make_inbox(budget)
    inbox.put(MessagePart("abc", 3, final=True))
    inbox.put(MessagePart("de", 2, final=False))
    assert budget.used == inbox.held == 5 + OVERHEAD
    assert await inbox.get() == "abc"
    assert budget.used == 2
    inbox.discard()
    assert budget.used == 0


async def test_an_inbox_may_be_emptied_by_what_it_takes_in() -> None:
    budget = Budget(100)
    inbox = make_inbox(budget)
    inbox.put(MessagePart(b"x" * 101, 101, final=False))
    assert (inbox.size, budget.used) == (0, 0)


async def test_what_was_taken_is_in_hand_until_its_consumer_comes_back() -> None:
    consumer = Consumer()
    consumer.put("one")
    assert not consumer.inbox.in_hand
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            for _ in range(2):
                await consumer.inbox.get()

        await wait_all_tasks_blocked()
        assert not consumer.inbox.in_hand  # it waits for the second one
        consumer.put("two")
        await wait_all_tasks_blocked()
        assert consumer.inbox.in_hand


async def test_whole_messages_are_put_in_a_row() -> None:
    consumer = Consumer(limit=1000)
    async with trio.open_nursery() as nursery:
        got: list[Data] = []

        async def get() -> None:
            got.append(await consumer.inbox.get())

        nursery.start_soon(get)
        await wait_all_tasks_blocked()
        consumer.inbox.put_messages([("one", 3), (b"two", 3)])
    assert got == ["one"]
    assert consumer.inbox.room == 1000 - OVERHEAD - 3
    assert await consumer.get_all() == [b"two"]


async def test_room_is_told_of_only_to_who_waits_for_it() -> None:
    told = 0

    def tell() -> None:
        nonlocal told
        told += 1

    inbox = Inbox(1, lambda: None, on_room=tell)
    inbox.put_messages([("one", 3), ("two", 3), ("three", 5)])
    await inbox.get()
    inbox.paused = True
    await inbox.get()
    assert told == 0  # there is no room yet
    await inbox.get()
    assert told == 1
    assert not inbox.paused
    inbox.end(lambda: ValueError("over"))
    assert told == 1


def test_whole_messages_are_told_to_the_budget() -> None:
    budget = Budget(1000)
    inbox = make_inbox(budget)
    inbox.put_messages([("abc", 3), ("de", 2)])
    assert budget.used == inbox.held == 5 + 2 * OVERHEAD


def test_ctrl_c_finds_no_consumer_that_only_seems_to_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait(abort: Any) -> Any:
        signal.raise_signal(signal.SIGINT)  # in the worst moment
        return waiting(abort)

    async def main() -> None:
        inbox = Inbox(math.inf, lambda: None)
        monkeypatch.setattr(trio.lowlevel, "wait_task_rescheduled", wait)
        try:
            await inbox.get()
        finally:
            monkeypatch.undo()
            inbox.put(MessagePart("late", 4, final=True))  # wakes nobody

    waiting = trio.lowlevel.wait_task_rescheduled
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
