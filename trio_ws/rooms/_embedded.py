"""The embedded broker: rooms of one process."""

from __future__ import annotations

import math
from typing import Any

import trio

from ._broker import Publication, Replay, Sink
from ._history import History, HistoryStore, Record
from ._messages import Joined, Left, Occupant, Position, RoomMessage
from ._queue import Delivery


class EmbeddedBroker:
    """A `Broker` without a network: what is published is delivered before ``publish`` returns."""

    immediate = True
    degraded: str | None = None

    def __init__(self, history: History | None = None, *, max_memory: float = math.inf) -> None:
        self._store = HistoryStore(history, max_memory)
        self._order = 0
        self._occupants: dict[str, dict[str, Occupant]] = {}

    def bind(self, sink: Sink) -> None:
        """Deliver to this manager from now on."""
        self._sink = sink

    # Messages...

    async def open(self, room: str) -> None:
        """Begin to deliver: nothing needs to be waited for."""
        self._store.hold(room)

    def close(self, room: str) -> None:
        """Stop to deliver."""
        self._store.release(room)

    async def publish(self, publication: Publication) -> Delivery:
        """Deliver: nothing needs to be waited for."""
        return self.publish_nowait(publication)

    @trio.lowlevel.enable_ki_protection
    def publish_nowait(self, publication: Publication) -> Delivery:
        """Give the message its place in each room's history, and deliver it."""
        store = self._store
        found = [store.find(room) for room in publication.rooms]
        records = [record for record in found if record is not None]
        try:
            messages = self._make(records, publication)
        except BaseException:
            for record in records:
                store.forget_if_empty(record)
            raise
        store.append(records, messages)
        return self._sink.deliver(messages, publication)

    def _make(self, records: list[Record], publication: Publication) -> list[RoomMessage]:
        stands = [(record.room, Position(record.epoch, record.offset + 1)) for record in records]
        places = tuple(stands) if len(stands) > 1 else ()
        messages: list[RoomMessage] = []
        for room, position in stands:
            self._order += 1
            messages.append(self._sink.make(publication, room, position, places, self._order))
        return messages

    def replay(self, room: str, since: Position | None) -> Replay:
        """Return what the history has after ``since``."""
        return self._store.replay(room, since)

    def history(self, room: str) -> tuple[RoomMessage, ...]:
        """Return what is kept of a room's messages."""
        return self._store.messages(room)

    @property
    def history_messages(self) -> int:
        """How many messages are kept."""
        self._store.expire()
        return len(self._store)

    @property
    def history_memory(self) -> int:
        """How much memory they take, in bytes."""
        self._store.expire()
        return self._store.memory

    # Presence...

    def check(self, meta: Any) -> None:
        """Take any: it stays in this process."""

    def enter(self, room: str, occupant: Occupant) -> None:
        """Let presence know of somebody."""
        self._occupants.setdefault(room, {})[occupant.id] = occupant
        self._sink.present(Joined(room, occupant.id, occupant.meta))

    def leave(self, room: str, occupant: Occupant) -> None:
        """Let presence forget somebody."""
        occupants = self._occupants[room]
        del occupants[occupant.id]
        if not occupants:
            del self._occupants[room]
        self._sink.present(Left(room, occupant.id, occupant.meta))

    def occupants(self, room: str) -> tuple[Occupant, ...]:
        """Return who is in a room."""
        return tuple(self._occupants.get(room, {}).values())
