"""Delivering: what comes from Redis goes to the rooms of this process, in order and once.

::

    what is published ─→ follows on the last one? ─ yes ─→ Mirror, Sink
                              │ no
                              └─→ the room is stale: what comes is put by, until the
                                  history was fetched ─ catch_up ─→ Mirror, Sink

Nothing is awaited here, but for letting others run between two messages of a long history.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Final

import attrs
import trio

from ..rooms import Codec, Delivery, Joined, Left, Position, Publication, RoomMessage, Sink
from ._catching_up import Fetched, Jump, Stand, catch_up
from ._mirror import Log, Mirror
from ._outgoing import Pending
from ._roster import Roster
from ._wire import Presence, Record, parse, parse_epoch

logger: Final = logging.getLogger("trio_ws")


@attrs.define(eq=False)
class OpenRoom:
    """A room that somebody in this process is in, or is about to enter."""

    name: str
    roster: Roster
    log: Log | None = None
    """None until it was fetched for the first time."""
    heard: list[Record] | None = attrs.field(factory=list)
    """What was published since it is stale; `None`: it is not."""
    presences: list[Presence] = attrs.field(factory=list)
    """What others have told of who is there since then."""
    anchor: Stand | None = None
    """Where it stood before messages were published in this process alone."""
    alone: bool = False
    """Whether it was opened without Redis, which nobody knows where it stands in therefore."""
    ready: trio.Event = attrs.field(factory=trio.Event)

    @property
    def stand(self) -> Stand | None:
        """Where it stands in Redis; `None`: unknown."""
        if self.log is None or self.alone:
            return None
        return self.anchor or Stand(self.log.position, self.log.time, self.log.run)


class Delivering:
    """The rooms that are open in this process, and the way to those who are in them."""

    def __init__(self, process: str, mirror: Mirror, codec: Codec) -> None:
        self.mirror = mirror
        self.rooms: dict[str, OpenRoom] = {}
        self.stale: dict[str, OpenRoom] = {}
        """Rooms whose histories have to be fetched."""
        self.stale_news: trio.Event = trio.Event()
        self.unsaid: set[str] = set()
        """Rooms with messages that no other process has heard of."""
        self.pending: dict[str, Pending] = {}
        """Publications of this process that are on their way, by their origin."""
        self.sink: Sink
        self._process = process
        self._codec = codec

    # Rooms...

    def add(self, name: str) -> OpenRoom:
        """Begin with a room."""
        room = self.rooms[name] = OpenRoom(name, Roster(name))
        self.mark_stale(room)
        return room

    def remove(self, room: OpenRoom) -> None:
        """Know nothing of a room any more."""
        del self.rooms[room.name]
        self.stale.pop(room.name, None)
        if room.log is not None:
            self.mirror.forget(room.log)
        for pending in tuple(self.pending.values()):
            self.check(pending)

    def mark_stale(self, room: OpenRoom) -> list[Record]:
        """Let a room be caught up with; return where to put what is published meanwhile."""
        heard = room.heard = room.heard or []
        self.stale[room.name] = room
        self.stale_news.set()
        return heard

    def mark_all_stale(self) -> None:
        """What has happened in the rooms meanwhile is unknown."""
        for room in self.rooms.values():
            room.heard = None  # an earlier link may have been told less than all
            room.presences = []
            self.mark_stale(room)

    def take_stale(self, fetched: set[str]) -> list[OpenRoom]:
        """Return the rooms whose histories are to be fetched now.

        Those that were ``fetched`` a moment ago, and have become stale again, have their turn
        when that was delivered.
        """
        rooms = [room for room in self.stale.values() if room.name not in fetched]
        self.stale = {name: self.stale[name] for name in self.stale.keys() & fetched}
        if not self.stale:
            self.stale_news = trio.Event()
        for room in rooms:
            if room.heard is None:
                room.heard = []
        return rooms

    def mark_involved(self, fetched: list[tuple[OpenRoom, Fetched]]) -> None:
        """Mark those rooms as stale that what was fetched was published in, too.

        Who is in several of a message's rooms gets it once, if it is delivered to all of
        these together.
        """
        known = {room.name for room, _ in fetched}
        for room, found in fetched:
            stand = room.stand
            for record in found.records:
                if stand is not None and record.time > stand.time:
                    for name in self.rooms.keys() & set(record.rooms) - known:
                        self.mark_stale(self.rooms[name])

    # What is published...

    def hear(self, name: str, data: bytes) -> None:
        """Take what was published in the channel of a room."""
        room = self.rooms.get(name)
        if room is None:
            return
        match data[:1]:
            case b"M":
                self._hear_message(parse(data))
            case b"P":
                presence = Presence.parse(data)
                if presence.process != self._process:
                    room.presences.append(presence)
                if room.heard is None:
                    self._hear_presences(room)
            case _:
                self._hear_epoch(room, data)

    def _hear_message(self, record: Record) -> None:
        new: list[OpenRoom] = []
        follows = True
        for name, place in zip(record.rooms, record.places, strict=True):
            room = self.rooms.get(name)
            if room is None:
                continue
            if room.heard is not None or room.log is None:
                follows = False
            elif record.time <= room.log.time:
                continue  # known: it has come through another room's channel, or was fetched
            else:
                last = room.log.position
                follows &= place == Position(last.epoch, last.offset + 1)
            new.append(room)
        if follows and new:
            self._deliver(record, new)
        else:  # for all of its rooms together, or somebody who is in two would get it twice
            for room in new:
                heard = self.mark_stale(room) if room.heard is None else room.heard
                heard.append(record)

    def _hear_presences(self, room: OpenRoom) -> None:
        presences, room.presences = room.presences, []
        for presence in presences:
            self.tell(room.roster.hear(presence))

    def tell(self, events: Iterable[Joined | Left]) -> None:
        """Tell those in this process who has come and gone."""
        for event in events:
            self.sink.present(event)

    def _hear_epoch(self, room: OpenRoom, data: bytes) -> None:
        """Somebody says that messages are missing; what follows on them is to be fetched."""
        if room.log is None or parse_epoch(data) != room.log.position.epoch:
            self.mark_stale(room)

    def _deliver(self, record: Record, rooms: list[OpenRoom], age: float = 0.0) -> None:
        pending = self.pending.get(record.origin)
        try:
            publication = pending.publication if pending else record.publication(self._codec)
            messages = [self._make(publication, room.name, record) for room in rooms]
        except Exception:  # the user's codec, which may do anything
            logger.exception("a message from Redis could not be decoded")
            for room in rooms:
                self._jump(room, Jump(record.place(room.name), record.time))
            delivery = Delivery(waits=False)
        else:
            for room, message in zip(rooms, messages, strict=True):
                assert room.log is not None
                self.mirror.append(room.log, message, age)
            delivery = self.sink.deliver(messages, publication)
        if pending is not None:
            pending.delivery = delivery
            self.check(pending)

    def _make(self, publication: Publication, room: str, record: Record) -> RoomMessage:
        return self.sink.make(publication, room, record.place(room), record.shared, record.time)

    def check(self, pending: Pending) -> None:
        """Let the publisher go on, if all is known: that it is published, and to whom here."""
        here = any(name in self.rooms for name in pending.publication.rooms)
        if pending.acknowledged and (pending.delivery is not None or not here):
            self.finish(pending)

    def finish(self, pending: Pending) -> None:
        """Let the publisher go on, whatever is known."""
        self.pending.pop(pending.origin, None)
        pending.done.set()

    def finish_all(self) -> None:
        """The link is down: what was published is fetched later, if at all."""
        for pending in tuple(self.pending.values()):
            if pending.acknowledged:
                self.finish(pending)

    # What was fetched...

    async def update(self, fetched: list[tuple[OpenRoom, Fetched]], now: int) -> None:
        """Bring rooms up to date: all of them together, in the order of their messages.

        ``now`` is when the first of them was asked for. What is newer is left for `_go_on`:
        of a message to several rooms, only some might have it so far.
        """
        steps: list[tuple[OpenRoom, Record | Jump]] = []
        for room, found in fetched:
            stand, heard = room.stand, room.heard or []
            if stand is None:
                self._begin(room, found, now)
                continue
            todo = catch_up(room.name, stand, found, heard, now)
            steps += [(room, step) for step in todo]
            heard += [record for record in found.records if record.time > now]
        for group in _in_order(steps):
            await trio.lowlevel.checkpoint()
            here = [room for room, _ in group if self.is_open(room)]
            for room in here:
                room.anchor = None  # it is where Redis is; from now on it may be alone anew
            step = group[0][1]
            if isinstance(step, Record):
                self._deliver(step, here, _age(step, now))
            else:
                for room in here:
                    self._jump(room, step)
        self._go_on([(room, found) for room, found in fetched if self.is_open(room)])

    def is_open(self, room: OpenRoom) -> bool:
        """Whether a room was not closed in the meantime."""
        return self.rooms.get(room.name) is room

    def _begin(self, room: OpenRoom, found: Fetched, now: int) -> None:
        """Know where a room stands in Redis for the first time."""
        if room.log is not None:
            self.mirror.forget(room.log)
        stand = found.stand
        log = room.log = Log(room.name, stand.position, stand.time, stand.run)
        for record in found.records:
            try:
                message = self._make(record.publication(self._codec), room.name, record)
            except Exception:  # the user's codec, which may do anything
                logger.exception("a message from Redis could not be decoded")
                self.mirror.forget(log)  # or it would look as if nothing was missing
            else:
                self.mirror.append(log, message, _age(record, now))
        log.position, log.time = stand.position, stand.time
        if room.alone:  # what was said before is unknown to those who are in it already
            room.alone = False
            self.sink.gap(room.name)

    def _jump(self, room: OpenRoom, jump: Jump) -> None:
        assert room.log is not None
        self.mirror.jump(room.log, jump.position, jump.time)
        if not jump.silent:
            self.sink.gap(room.name)

    def _go_on(self, fetched: list[tuple[OpenRoom, Fetched]]) -> None:
        heard: dict[tuple[int, str], Record] = {}
        for room, found in fetched:
            assert room.log is not None
            heard |= {(record.time, record.origin): record for record in room.heard or ()}
            room.heard = None
            self._hear_presences(room)
            room.log.run = found.stand.run
            room.ready.set()
        for _, record in sorted(heard.items()):
            self._hear_message(record)

    # Without Redis...

    def begin_alone(self, room: OpenRoom) -> None:
        """Open a room though nobody knows where it stands."""
        room.alone = True
        room.log = Log(room.name, Position(fresh_epoch(), 0), 0, "")
        room.ready.set()

    def publish_alone(self, publication: Publication) -> Delivery:
        """Deliver to those in this process, and note that nobody else hears it."""
        self.unsaid.update(publication.rooms)
        found = [self.rooms[name] for name in publication.rooms if name in self.rooms]
        logs = [room.log for room in found if room.log is not None]
        for room in found:
            if room.log is not None and room.anchor is None and not room.alone:
                room.anchor = room.stand
                self.mirror.jump(room.log, Position(fresh_epoch(), 0), room.log.time)
        order = max(time.time_ns() // 1000, *(log.time + 1 for log in logs), 0)
        stands = [
            (log.room, Position(log.position.epoch, log.position.offset + 1)) for log in logs
        ]
        places = tuple(stands) if len(stands) > 1 else ()
        messages = [self.sink.make(publication, *stand, places, order) for stand in stands]
        for log, message in zip(logs, messages, strict=True):
            self.mirror.append(log, message)
        return self.sink.deliver(messages, publication)


def fresh_epoch() -> str:
    """Return the name of an epoch that there never was."""
    return secrets.token_hex(6)


def _age(record: Record, now: int) -> float:
    return max(0, now - record.time) / 1e6


def _in_order(
    steps: Iterable[tuple[OpenRoom, Record | Jump]],
) -> Iterator[list[tuple[OpenRoom, Record | Jump]]]:
    """Yield steps in the order of time, those together that belong to one message."""

    def place(step: tuple[OpenRoom, Record | Jump]) -> tuple[int, int, str]:
        room, what = step
        if isinstance(what, Record):
            return what.time, 0, what.origin
        return what.time, 1, room.name  # it comes behind the message before the gap

    for _, group in itertools.groupby(sorted(steps, key=place), place):
        yield list(group)
