"""The mirror: what this process knows of its rooms: where they stand, and their histories.

It is there so that a room can be entered without an await, and it is in step with what has
been delivered here. Redis is ahead of it by what is on the way.

A room that has begun a new epoch may hold messages of older ones. Between two epochs
something may be missing; within one, nothing is.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TypeAlias

import attrs
import trio

from ..rooms import START, History, Position, Replay, Resume, RoomMessage
from ..rooms._history import COPIES, MESSAGE_COST


@attrs.define(eq=False)
class Log:
    """What is known of one room."""

    room: str
    position: Position
    """That of the last message which was delivered here, or of what is missing before it."""
    time: int
    """Redis' time of that."""
    run: str
    """The run of Redis that this is from."""
    kept: deque[RoomMessage] = attrs.field(factory=deque)
    size: int = 0


_Line: TypeAlias = "OrderedDict[tuple[str, int], tuple[Log, float]]"


class Mirror:
    """The logs of all rooms that are open in this process."""

    def __init__(self, bounds: History | None, max_memory: float = math.inf) -> None:
        self._bounds = bounds
        self._max_memory = max_memory
        self._line: _Line = OrderedDict()  # of all messages, as they came, with their ends
        self.memory = 0

    def __len__(self) -> int:
        return len(self._line)

    def append(self, log: Log, message: RoomMessage, age: float = 0.0) -> None:
        """Count a message that is so many seconds old, and keep it."""
        log.position = message.position
        log.time = message.order
        bounds = self._bounds
        if bounds is None:
            return
        log.kept.append(message)
        log.size += len(message.prepared.payload)
        self.memory += _memory(message)
        self._line[log.room, message.order] = log, trio.current_time() + bounds.age - age
        while len(log.kept) > bounds.count or log.size > bounds.size:
            self._drop_first(log)
        while self.memory > self._max_memory:
            self._drop_first(next(iter(self._line.values()))[0])

    def jump(self, log: Log, position: Position, time: int) -> None:
        """Go on at another place: what is between may be missing."""
        if position.epoch == log.position.epoch:
            self.forget(log)  # it could not be told from what follows without a gap
        log.position = position
        log.time = time

    def forget(self, log: Log) -> None:
        """Drop what is kept of a room."""
        while log.kept:
            self._drop_first(log)

    def messages(self, log: Log) -> tuple[RoomMessage, ...]:
        """Return what is kept of a room."""
        now = trio.current_time()
        while log.kept and self._line[log.room, log.kept[0].order][1] <= now:
            self._drop_first(log)
        return tuple(log.kept)

    def expire(self) -> None:
        """Drop what is too old."""
        now = trio.current_time()
        while self._line:
            log, end = next(iter(self._line.values()))
            if now < end:
                break
            self._drop_first(log)

    def replay(self, log: Log, since: Position | None) -> Replay:
        """Return what follows on ``since``; see `Broker.replay`."""
        kept = self.messages(log)
        if since is None:
            return Replay((), log.position, Resume.NEW)
        if since == START:
            return Replay(kept, log.position, Resume.NEW)
        missed = log.position.offset - since.offset
        known = since.epoch == log.position.epoch
        behind = kept if known and missed < 0 else _behind(kept, since)
        complete = known and missed == len(behind)
        return Replay(behind, log.position, Resume.COMPLETE if complete else Resume.LOST)

    def _drop_first(self, log: Log) -> None:
        message = log.kept.popleft()
        del self._line[log.room, message.order]
        log.size -= len(message.prepared.payload)
        self.memory -= _memory(message)


def _memory(message: RoomMessage) -> int:
    return MESSAGE_COST + COPIES * len(message.prepared.payload)


def _behind(kept: Sequence[RoomMessage], since: Position) -> Sequence[RoomMessage]:
    """Return what comes behind a place; everything, if that is not known."""
    for index in range(len(kept) - 1, -1, -1):
        position = kept[index].position
        if position.epoch == since.epoch and position.offset <= since.offset:
            return kept[index + 1 :]
    epochs = [message.position.epoch for message in kept]
    return kept[epochs.index(since.epoch) :] if since.epoch in epochs else kept
