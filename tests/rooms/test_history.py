from __future__ import annotations

import tracemalloc

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trio_ws._messages import PreparedMessage
from trio_ws.rooms import START, History, Position, Resume, RoomMessage
from trio_ws.rooms._history import COPIES, MESSAGE_COST, ROOM_COST, HistoryStore


class Shelf:
    """A store, and the order of what is put into it."""

    def __init__(self, bounds: History | None, max_memory: float = 1 << 30) -> None:
        self.store = HistoryStore(bounds, max_memory)
        self.order = 0

    def append(self, room: str = "a", size: int = 1) -> RoomMessage:
        (new,) = self.append_to([room], size)
        return new

    def append_to(self, rooms: list[str], size: int = 1) -> list[RoomMessage]:
        """Put one message into several rooms at once."""
        records = [self.store.get(room) for room in rooms]
        prepared = PreparedMessage("x" * size)
        messages: list[RoomMessage] = []
        for record in records:
            self.order += 1
            position = Position(record.epoch, record.offset + 1)
            messages.append(
                RoomMessage(record.room, self.order, position, None, (), self.order, prepared)
            )
        self.store.append(records, messages)
        return messages

    def kept(self, room: str = "a") -> list[int]:
        return [each.position.offset for each in self.store.messages(room)]


@pytest.mark.parametrize("field", ["count", "size", "age"])
def test_a_bound_is_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        History(**{field: 0})


async def test_the_number_of_messages_is_bounded() -> None:
    shelf = Shelf(History(count=3))
    for _ in range(10):
        shelf.append()
    assert shelf.kept() == [8, 9, 10]
    assert len(shelf.store) == 3


async def test_their_size_is_bounded() -> None:
    shelf = Shelf(History(size=100))
    for size in (30, 30, 30, 30):
        shelf.append(size=size)
    assert shelf.kept() == [2, 3, 4]
    shelf.append(size=101)
    assert shelf.kept() == []


async def test_their_age_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    shelf = Shelf(History(age=10))
    shelf.append()
    await trio.sleep(6)
    shelf.append()
    await trio.sleep(4)
    assert shelf.kept() == [2]
    await trio.sleep(6)
    assert shelf.kept() == []
    assert shelf.store.records == 0


async def test_the_memory_of_all_rooms_is_bounded_and_the_oldest_message_goes_first() -> None:
    shelf = Shelf(History(), max_memory=3 * (ROOM_COST + MESSAGE_COST + COPIES * 100))
    shelf.append("a", 100)
    shelf.append("b", 100)
    shelf.append("a", 100)
    shelf.append("c", 100)
    assert (shelf.kept("a"), shelf.kept("b"), shelf.kept("c")) == ([2], [1], [1])
    shelf.append("c", 100)
    assert (shelf.kept("a"), shelf.kept("b")) == ([2], [])
    assert shelf.store.records == 2


@pytest.mark.parametrize(("rooms", "size"), [(1, 1000), (1, 1), (1000, 1), (1000, 100)])
async def test_memory_is_counted_about_as_python_holds_it(rooms: int, size: int) -> None:
    shelf = Shelf(History(count=None))
    tracemalloc.start()
    try:
        for number in range(1000):
            new = shelf.append(f"room {number % rooms}", size)
            new.prepared.encoded[None] = (b"\x81\x7e" + new.prepared.payload,)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.6 < shelf.store.memory / used < 2


@pytest.mark.parametrize("cause", ["age", "memory"])
async def test_a_room_whose_last_message_makes_place_for_its_next_one_is_not_forgotten(
    cause: str, autojump_clock: trio.testing.MockClock
) -> None:
    most = 2 * (ROOM_COST + MESSAGE_COST + COPIES) if cause == "memory" else 1 << 30
    shelf = Shelf(History(age=10), max_memory=most)
    shelf.append("b")
    if cause == "age":
        await trio.sleep(10)
    first = shelf.append_to(["a", "b"])
    assert [each.position.offset for each in first] == [1, 2]
    assert (shelf.kept("a"), shelf.kept("b")) == ([1], [2])
    assert shelf.store.records == 2
    await trio.sleep(10)
    assert (shelf.kept("a"), shelf.kept("b"), shelf.store.records) == ([], [], 0)
    assert shelf.store.memory == 0


async def test_without_a_history_messages_are_counted_and_not_kept() -> None:
    shelf = Shelf(None)
    assert shelf.store.find("a") is None
    shelf.store.hold("a")
    assert shelf.store.find("a") is not None
    shelf.append()
    replay = shelf.store.replay("a", None)
    assert (replay.position.offset, shelf.kept()) == (1, [])
    shelf.store.release("a")
    assert shelf.store.records == 0


async def test_a_room_that_nobody_is_in_is_remembered_as_long_as_its_messages(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shelf = Shelf(History(age=10))
    shelf.store.hold("a")
    before = shelf.append()
    shelf.store.release("a")
    await trio.sleep(5)
    shelf.store.hold("a")
    assert shelf.store.replay("a", before.position).resume is Resume.COMPLETE
    shelf.store.release("a")
    await trio.sleep(5)
    shelf.store.hold("b")
    shelf.store.release("b")  # what is too old is found on any occasion
    assert shelf.store.records == 0


async def test_an_open_room_is_remembered_without_messages(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shelf = Shelf(History(age=10))
    shelf.store.hold("a")
    last = shelf.append()
    await trio.sleep(100)
    replay = shelf.store.replay("a", last.position)
    assert (replay.resume, replay.messages) == (Resume.COMPLETE, ())


async def test_no_position_is_given_out_twice() -> None:
    shelf = Shelf(History(size=10))
    positions = {shelf.append(size=11).position for _ in range(5)}  # too large to be kept
    assert shelf.store.records == 0
    assert len(positions) == 5


async def test_a_room_to_which_nothing_was_said_has_lost_nothing() -> None:
    """Whoever was alone in a room, and comes back, need not be told that all is lost."""
    shelf = Shelf(History())
    shelf.store.hold("a")
    position = shelf.store.replay("a", None).position
    shelf.store.release("a")
    assert shelf.store.records == 0
    assert shelf.store.replay("a", position).resume is Resume.COMPLETE


async def test_who_was_alone_and_away_is_not_told_that_nothing_was_said() -> None:
    """Without a history, what is said to an empty room is counted nowhere."""
    shelf = Shelf(None)
    shelf.store.hold("a")
    position = shelf.store.replay("a", None).position
    shelf.store.release("a")
    assert shelf.store.find("a") is None  # somebody publishes
    shelf.store.hold("a")
    assert shelf.store.replay("a", position).resume is Resume.LOST


# Replaying...


async def test_who_asks_for_nothing_gets_nothing() -> None:
    shelf = Shelf(History())
    last = shelf.append()
    replay = shelf.store.replay("a", None)
    assert (replay.messages, replay.position, replay.resume) == ((), last.position, Resume.NEW)


async def test_the_start_is_all_that_is_kept() -> None:
    shelf = Shelf(History(count=2))
    _, *kept = [shelf.append() for _ in range(3)]
    replay = shelf.store.replay("a", START)
    assert (list(replay.messages), replay.resume) == (kept, Resume.NEW)


@given(
    bound=st.integers(1, 6),
    total=st.integers(0, 12),
    seen=st.integers(-2, 14),
    other=st.booleans(),
)
def test_a_replay_is_exact_or_says_that_it_is_not(
    bound: int, total: int, seen: int, other: bool
) -> None:
    async def check() -> None:
        shelf = Shelf(History(count=bound))
        everything = [shelf.append().position.offset for _ in range(total)]
        epoch = shelf.store.get("a").epoch
        replay = shelf.store.replay("a", Position("other" if other else epoch, seen))
        offsets = [each.position.offset for each in replay.messages]

        assert replay.position == Position(epoch, total)
        assert offsets == everything[total - len(offsets) :]
        if replay.resume is Resume.COMPLETE:
            assert offsets == [each for each in everything if each > seen]
        else:
            assert other or seen > total or seen < max(0, total - bound)
            assert len(offsets) == min(bound, total)

    trio.run(check)


async def test_what_is_left_comes_after_what_was_seen() -> None:
    shelf = Shelf(History(count=2))
    for _ in range(5):
        shelf.append()
    replay = shelf.store.replay("a", Position(shelf.store.get("a").epoch, 1))
    assert replay.resume is Resume.LOST
    assert [each.position.offset for each in replay.messages] == [4, 5]
