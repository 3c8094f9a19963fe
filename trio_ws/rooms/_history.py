"""History: the newest messages of rooms, bounded in number, size, age and memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

import attrs
import trio

from .._options import KIB, _limit, _positive
from ._broker import Replay
from ._messages import START, Position, Resume, RoomMessage

MESSAGE_COST: Final = KIB
"""Bytes that a kept message takes beside its text: the objects around it (measured)."""

ROOM_COST: Final = KIB
"""Bytes that a room takes beside the messages that are kept of it (measured)."""

COPIES: Final = 3
"""A kept message is there as it was published, as payload, and as a frame."""


@attrs.frozen(kw_only=True)
class History:
    """How much of each room is kept, for those who come later or come back.

    `math.inf` or `None` switches a bound off. A room that nobody is in keeps its
    history until the messages are too old, so that a connection that drops can resume.
    """

    count: float = attrs.field(default=100, converter=_limit, validator=_positive)
    """Messages per room: two screens of a chat, or a minute of a lively one."""
    size: float = attrs.field(default=256 * KIB, converter=_limit, validator=_positive)
    """Bytes per room: the payloads of these messages."""
    age: float = attrs.field(default=300, converter=_limit, validator=_positive)
    """Seconds that a message is kept: a phone finds its network again within minutes."""


@attrs.define(eq=False)
class Record:
    """What is remembered of one room."""

    room: str
    epoch: str
    offset: int = 0
    """That of the last message, kept or not."""
    kept: deque[RoomMessage] = attrs.field(factory=deque)
    size: int = 0
    held: bool = False
    """Whether the room is open: then it is remembered even without messages."""


class HistoryStore:
    """The records of all rooms.

    All messages that are kept stand in one line, oldest first: so what is too old, or
    too much for all rooms together, is found at its head without a search. A record
    that is empty and not held is forgotten.

    The epoch of a new record changes whenever a record that had counted messages was
    forgotten, or a message was counted nowhere: so no position is ever given out twice, and
    nothing must be remembered of rooms that were never written to.
    """

    def __init__(self, bounds: History | None, max_memory: float) -> None:
        self._bounds = bounds
        self._max_memory = max_memory
        self._instance = secrets.token_hex(4)  # positions of another run must not match
        self._generation = 0
        self._records: dict[str, Record] = {}
        self._line: OrderedDict[int, tuple[Record, float]] = OrderedDict()
        self.memory = 0
        """Bytes that the messages are counted as."""

    def __len__(self) -> int:
        return len(self._line)

    @property
    def records(self) -> int:
        """How many rooms are remembered."""
        return len(self._records)

    def hold(self, room: str) -> None:
        """Remember a room even if it is empty."""
        self.get(room).held = True

    def release(self, room: str) -> None:
        """Forget a room when its messages are gone."""
        record = self._records[room]
        record.held = False
        self.forget_if_empty(record)
        self.expire()

    def find(self, room: str) -> Record | None:
        """Return the record of a room where a message would be kept or delivered."""
        if self._bounds is not None or room in self._records:
            return self.get(room)
        self._generation += 1  # nobody who comes back must believe that nothing was said
        return None

    def get(self, room: str) -> Record:
        """Return the record of a room; a new one if there is none."""
        record = self._records.get(room)
        if record is None:
            epoch = f"{self._instance}{self._generation:x}"
            record = self._records[room] = Record(room, epoch)
        return record

    def append(self, records: Sequence[Record], messages: Sequence[RoomMessage]) -> None:
        """Count messages, one for each room, and keep them."""
        for record, message in zip(records, messages, strict=True):
            record.offset = message.position.offset
            if self._bounds is not None:
                self._keep(record, message, self._bounds)
        self.expire()  # not before all are kept: it forgets rooms that are empty

    def _keep(self, record: Record, message: RoomMessage, bounds: History) -> None:
        if not record.kept:
            self.memory += ROOM_COST
        record.kept.append(message)
        record.size += len(message.prepared.payload)
        self.memory += _memory(message)
        self._line[message.order] = record, trio.current_time() + bounds.age
        while len(record.kept) > bounds.count or record.size > bounds.size:
            del self._line[record.kept[0].order]
            self._drop_first(record)

    def expire(self) -> None:
        """Drop what is too old, or too much."""
        while self._line:
            order = next(iter(self._line))
            record, end = self._line[order]
            if self.memory <= self._max_memory and trio.current_time() < end:
                break
            del self._line[order]
            self._drop_first(record)

    def messages(self, room: str) -> tuple[RoomMessage, ...]:
        """Return what is kept of a room."""
        self.expire()
        record = self._records.get(room)
        return () if record is None else tuple(record.kept)

    def replay(self, room: str, since: Position | None) -> Replay:
        """Return what follows on ``since``; see `Broker.replay`."""
        self.expire()
        record = self.get(room)
        position = Position(record.epoch, record.offset)
        if since is None:
            return Replay((), position, Resume.NEW)
        if since == START:
            return Replay(tuple(record.kept), position, Resume.NEW)
        missed = record.offset - since.offset
        if since.epoch != record.epoch or not 0 <= missed <= len(record.kept):
            left = missed if since.epoch == record.epoch and missed > 0 else len(record.kept)
            return Replay(_last(record.kept, left), position, Resume.LOST)
        return Replay(_last(record.kept, missed), position, Resume.COMPLETE)

    def _drop_first(self, record: Record) -> None:
        message = record.kept.popleft()
        record.size -= len(message.prepared.payload)
        self.memory -= _memory(message)
        if not record.kept:
            self.memory -= ROOM_COST
        self.forget_if_empty(record)

    def forget_if_empty(self, record: Record) -> None:
        """Forget a room that nobody is in, and of which nothing is kept."""
        if not (record.held or record.kept):
            del self._records[record.room]
            if record.offset:
                self._generation += 1


def _memory(message: RoomMessage) -> int:
    return MESSAGE_COST + COPIES * len(message.prepared.payload)


def _last(messages: deque[RoomMessage], count: int) -> tuple[RoomMessage, ...]:
    return tuple(islice(messages, max(0, len(messages) - count), None))
