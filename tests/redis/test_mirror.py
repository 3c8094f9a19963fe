from __future__ import annotations

import math

import trio
import trio.testing

from trio_ws._messages import PreparedMessage
from trio_ws.redis._mirror import Log, Mirror
from trio_ws.rooms import START, History, Position, Resume, RoomMessage


class Room:
    """A log in a mirror, and what is appended to it."""

    def __init__(self, history: History | None, max_memory: float = math.inf) -> None:
        self.mirror = Mirror(history, max_memory)
        self.log = self.open("a")

    def open(self, name: str) -> Log:
        return Log(name, Position("A", 0), 0, "run")

    def append(self, *, log: Log | None = None, size: int = 1, age: float = 0.0) -> RoomMessage:
        log = log or self.log
        position = Position(log.position.epoch, log.position.offset + 1)
        prepared = PreparedMessage("x" * size)
        message = RoomMessage(log.room, None, position, None, (), log.time + 10, prepared)
        self.mirror.append(log, message, age)
        return message

    def kept(self) -> list[str]:
        return [str(message.position) for message in self.mirror.messages(self.log)]

    def replay(self, since: Position | None) -> tuple[list[str], Resume]:
        replay = self.mirror.replay(self.log, since)
        assert replay.position == self.log.position
        return [str(each.position) for each in replay.messages], replay.resume


async def test_the_number_of_messages_is_bounded() -> None:
    room = Room(History(count=2))
    for _ in range(5):
        room.append()
    assert room.kept() == ["A:4", "A:5"]
    assert len(room.mirror) == 2


async def test_their_size_is_bounded() -> None:
    room = Room(History(size=10))
    for size in (4, 4, 4):
        room.append(size=size)
    assert room.kept() == ["A:2", "A:3"]
    room.append(size=11)
    assert room.kept() == []


async def test_their_age_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    room = Room(History(age=10))
    room.append(age=4)  # it was fetched from Redis
    room.append()
    await trio.sleep(6)
    assert room.kept() == ["A:2"]
    room.mirror.expire()
    assert len(room.mirror) == 1
    await trio.sleep(4)
    room.mirror.expire()
    assert (len(room.mirror), room.mirror.memory) == (0, 0)


async def test_all_rooms_together_are_bounded() -> None:
    room = Room(History(), max_memory=3000)
    other = room.open("b")
    room.append()
    room.append(log=other)
    room.append()
    assert room.kept() == ["A:2"]
    assert len(room.mirror.messages(other)) == 1


async def test_a_replay_says_what_it_can() -> None:
    room = Room(History(count=3))
    for _ in range(5):
        room.append()
    assert room.replay(None) == ([], Resume.NEW)
    assert room.replay(START) == (["A:3", "A:4", "A:5"], Resume.NEW)
    assert room.replay(Position("A", 5)) == ([], Resume.COMPLETE)
    assert room.replay(Position("A", 3)) == (["A:4", "A:5"], Resume.COMPLETE)
    assert room.replay(Position("A", 2)) == (["A:3", "A:4", "A:5"], Resume.COMPLETE)
    assert room.replay(Position("A", 1)) == (["A:3", "A:4", "A:5"], Resume.LOST)
    assert room.replay(Position("A", 6)) == (["A:3", "A:4", "A:5"], Resume.LOST)
    assert room.replay(Position("B", 4)) == (["A:3", "A:4", "A:5"], Resume.LOST)


async def test_without_a_history_a_replay_knows_whether_anything_was_missed() -> None:
    room = Room(None)
    room.append()
    assert len(room.mirror) == 0
    assert room.replay(Position("A", 1)) == ([], Resume.COMPLETE)
    assert room.replay(Position("A", 0)) == ([], Resume.LOST)


async def test_a_replay_across_epochs_is_exact_but_not_complete() -> None:
    room = Room(History())
    room.append()
    room.append()
    room.mirror.jump(room.log, Position("B", 0), 25)
    room.append()
    assert room.kept() == ["A:1", "A:2", "B:1"]
    assert room.replay(Position("A", 1)) == (["A:2", "B:1"], Resume.LOST)
    assert room.replay(Position("A", 9)) == (["B:1"], Resume.LOST)
    assert room.replay(Position("B", 0)) == (["B:1"], Resume.COMPLETE)
    room.mirror.forget(room.log)
    room.mirror.jump(room.log, Position("C", 4), 95)
    room.append()
    assert room.replay(Position("C", 2)) == (["C:5"], Resume.LOST)
    assert room.replay(Position("C", 4)) == (["C:5"], Resume.COMPLETE)


async def test_behind_a_gap_within_an_epoch_the_history_begins_anew() -> None:
    room = Room(History())
    room.append()
    room.mirror.jump(room.log, Position("A", 7), 75)
    room.append()
    assert room.kept() == ["A:8"]
    assert room.replay(Position("A", 1)) == (["A:8"], Resume.LOST)
