"""The registry: which rooms there are in this process, and who is in them.

::

    join ─ hooks, limits ─→ hold (the broker opens the room) ─→ enter: from here on sync
    Broker ─ deliver ─→ Room.lineup ─→ Recipient.take, one after the other
    leave, the end of a block, a lost connection ─→ leave ─→ release (the broker closes it)

Entering is all or nothing, and nothing is awaited in it: what is replayed and what is
delivered live follow one on the other. Delivering awaits nothing either, so that all
members of a room get its messages in the same order.
"""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeAlias

import attrs
import trio

from .._errors import BrokerDown, JoinRefused
from .._messages import CloseCode, PreparedMessage
from .._options import MIB, _limit, _positive
from ._broker import Broker, Publication, Replay
from ._codec import Codec
from ._messages import START, Joined, Left, Position, Resume, RoomMessage
from ._queue import Delivery
from ._room import Place, Recipient, Room, concerns
from ._statistics import Counters, RoomsStatistics

OnJoin: TypeAlias = "Callable[[Any, str, Any], Awaitable[None] | None]"
Since: TypeAlias = "Position | str | Mapping[str, Position | str | None] | None"

_NO_POSITION: Final = Position("", -1)
"""What stands for a text that is none: it was never given out, so all is lost."""


@attrs.frozen(kw_only=True)
class RoomLimits:
    """How much peers may make this process remember. `None` or `math.inf`: no limit."""

    max_rooms: float = attrs.field(default=100_000, converter=_limit, validator=_positive)
    """Rooms at a time that somebody is in."""
    max_members: float = attrs.field(default=None, converter=_limit, validator=_positive)
    """Connections in one room. None by default: ``Options.max_connections`` bounds it."""
    max_rooms_per_connection: float = attrs.field(
        default=1000, converter=_limit, validator=_positive
    )
    """Rooms that one connection is in."""
    max_history_memory: float = attrs.field(
        default=64 * MIB, converter=_limit, validator=_positive
    )
    """Bytes of memory for the histories of all rooms together: payloads three times, and
    1 KiB for each message and each room. Beyond it the oldest message of all is dropped."""


class Registry:
    """The rooms of this process: the `Sink` of its broker."""

    def __init__(
        self, broker: Broker, codec: Codec, on_join: OnJoin | None, limits: RoomLimits
    ) -> None:
        self.broker = broker
        self.codec = codec
        self.rooms: dict[str, Room] = {}
        self._on_join = on_join
        self._limits = limits
        self._rooms_of: dict[str, int] = {}  # by connection
        self._gone = Counters()  # of rooms that are no more
        self._busy = False  # with what must not be interrupted: the user's code must not publish
        broker.bind(self)

    # Holding a room...

    async def hold(self, name: str) -> Room:
        """Keep a room open until `release`."""
        room = self.rooms.get(name)
        if room is None:
            if len(self.rooms) >= self._limits.max_rooms:
                raise _busy_now(name, f"there are {len(self.rooms)} rooms already")
            room = self.rooms[name] = Room(name)
        room.holds += 1
        try:
            if not room.open:
                async with room.opening:
                    if not room.open:
                        await self._open(name)
                        room.open = True
        except BaseException:
            self.release(room)
            raise
        return room

    async def _open(self, name: str) -> None:
        try:
            await self.broker.open(name)
        except BrokerDown as exc:  # peers may be told of it, so no address and no details
            raise _busy_now(name, "the room cannot be opened now") from exc

    @trio.lowlevel.enable_ki_protection
    def release(self, room: Room) -> None:
        """Need a room no longer."""
        room.holds -= 1
        if not room.holds:
            if room.open:
                self.broker.close(room.name)
            del self.rooms[room.name]
            self._gone.add(room.counters)

    # Entering...

    async def enter(self, recipient: Recipient, names: Sequence[str], since: Since) -> None:
        """Let somebody into all of these rooms, or into none."""
        positions = _positions(names, since)
        recipient.check_open()
        self._check_count(recipient, names)  # before anybody is asked or anything opened
        await trio.lowlevel.checkpoint_if_cancelled()
        held: list[Room] = []
        try:
            for name in names:
                await self._ask(recipient, name)
                held.append(await self.hold(name))
            self._enter_now(recipient, held, positions)
        finally:
            for room in held:
                self.release(room)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _ask(self, recipient: Recipient, name: str) -> None:
        occupant = recipient.occupant
        if occupant is not None and self._on_join is not None:
            answer: Any = self._on_join(recipient.request, name, occupant.meta)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                raise TypeError(
                    f"on_join returned {answer!r}: to refuse, raise; to let in, return None"
                )

    @trio.lowlevel.enable_ki_protection
    def _enter_now(
        self, recipient: Recipient, rooms: list[Room], positions: dict[str, Position | None]
    ) -> None:
        recipient.check_open()  # it may have come to an end while we waited
        new = [room for room in rooms if room.name not in recipient.places]
        self._check_limits(recipient, new)
        self._busy = True
        try:
            self._settle_in(recipient, new, positions)
        finally:
            self._busy = False

    def _settle_in(
        self, recipient: Recipient, new: list[Room], positions: dict[str, Position | None]
    ) -> None:
        replays = [self.broker.replay(room.name, positions[room.name]) for room in new]
        missed = _merge(recipient, new, replays, positions)
        places = [_place(room, replay) for room, replay in zip(new, replays, strict=True)]
        greetings = [self._greeting(recipient, place) for place in places]

        for place in places:  # nothing below can fail
            room = place.room
            room.holds += 1
            room.add(recipient)
            recipient.places[room.name] = place
            self._count_place(recipient, 1)
            if recipient.occupant is not None:
                self.broker.enter(room.name, recipient.occupant)
        for place, greeting in zip(places, greetings, strict=True):
            recipient.greet(greeting, place.resume)
        recipient.catch_up(missed)

    def _check_limits(self, recipient: Recipient, new: list[Room]) -> None:
        if recipient.connection_id is None:
            return
        for room in new:
            if room.members >= self._limits.max_members:
                raise _busy_now(room.name, f"{room.members} members are in it already")
        self._check_count(recipient, [room.name for room in new])

    def _check_count(self, recipient: Recipient, new: Sequence[str]) -> None:
        if new and recipient.connection_id is not None:
            count = self._rooms_of.get(recipient.connection_id, 0)
            if count + len(new) > self._limits.max_rooms_per_connection:
                raise JoinRefused(new[-1], f"the connection is in {count} rooms already")

    def _greeting(self, recipient: Recipient, place: Place) -> RoomMessage | None:
        room = place.room.name
        text = None
        if recipient.connection_id is not None:
            text = self.codec.greet(room, place.position, place.resume)
        if text is None:
            return None
        return RoomMessage(room, None, place.position, None, (), 0, PreparedMessage(text))

    def _count_place(self, recipient: Recipient, change: int) -> None:
        name = recipient.connection_id
        if name is not None:
            count = self._rooms_of.get(name, 0) + change
            self._rooms_of[name] = count
            if not count:
                del self._rooms_of[name]

    # Leaving...

    @trio.lowlevel.enable_ki_protection
    def leave(self, recipient: Recipient, name: str) -> None:
        """Let somebody out of a room that it is in."""
        place = recipient.places.pop(name)
        place.room.remove(recipient)
        self._count_place(recipient, -1)
        if recipient.occupant is not None:
            self.broker.leave(name, recipient.occupant)
        self.release(place.room)

    # Delivering: what a broker calls...

    def make(
        self,
        publication: Publication,
        room: str,
        position: Position,
        places: tuple[tuple[str, Position], ...],
        order: int,
    ) -> RoomMessage:
        """Return a message for the history and for `deliver`."""
        if self._busy:
            raise RuntimeError(
                "a transform, or a codec's wrap or greet, must not publish: that would overtake"
                " the message at hand"
            )
        self._busy = True
        try:
            data = self.codec.wrap(publication.payload, room, position)
        finally:
            self._busy = False
        if data is not publication.payload:
            prepared = PreparedMessage(data)
        else:
            prepared = publication.prepared or PreparedMessage(data)
            publication.prepared = prepared
        return RoomMessage(
            room,
            publication.data,
            position,
            publication.key,
            places,
            order,
            prepared,
            publication.exclude,
            publication.only,
        )

    @trio.lowlevel.enable_ki_protection
    def deliver(self, messages: Sequence[RoomMessage], publication: Publication) -> Delivery:
        """Deliver a publication to those in its rooms."""
        delivery = Delivery(waits=publication.waits)
        picks = bool(publication.exclude) or publication.only is not None
        got_it: set[Recipient] | None = set() if len(messages) > 1 else None
        self._busy = True
        try:
            for message in messages:
                room = self.rooms.get(message.room)
                if room is None:
                    continue
                lineup: Sequence[Recipient] = room.lineup
                if picks:
                    lineup = [one for one in lineup if concerns(message, one)]
                if got_it is not None:
                    lineup = [one for one in lineup if one not in got_it]
                    got_it.update(lineup)
                room.holds += 1  # or the last one to be lost would take the counters along
                _deliver(message, room.counters, lineup, delivery)
                self.release(room)
        finally:
            self._busy = False
        return delivery

    def present(self, event: Joined | Left) -> None:
        """Tell those who watch a room that somebody has come or gone."""
        room = self.rooms.get(event.room)
        if room is not None:
            for tell in room.watchers.values():
                tell(event)

    def gap(self, room: str) -> None:
        """Tell those in a room that messages got lost on their way to this process."""
        found = self.rooms.get(room)
        if found is None:
            return
        place = Place(found, self.broker.replay(room, None).position, Resume.LOST)
        for recipient in found.lineup:
            recipient.greet(self._greeting(recipient, place), Resume.LOST)

    # Looking...

    def all_ready(self, publication: Publication) -> bool:
        """Whether nobody would make the publisher wait."""
        rooms = [self.rooms[name] for name in publication.rooms if name in self.rooms]
        return all(
            one.ready for room in rooms for one in room.patient if concerns(publication, one)
        )

    def remake(self, message: RoomMessage, data: Any) -> RoomMessage:
        """Return a message with other data, for one member."""
        payload = self.codec.wrap(self.codec.encode(data), message.room, message.position)
        return attrs.evolve(message, data=data, prepared=PreparedMessage(payload))

    def statistics(self) -> RoomsStatistics:
        """Return a snapshot."""
        total = Counters()
        total.add(self._gone)
        for room in self.rooms.values():
            total.add(room.counters)
        rooms = {name: room.statistics() for name, room in self.rooms.items()}
        return RoomsStatistics(
            rooms=rooms,
            total=total.snapshot(
                members=sum(room.members for room in rooms.values()),
                subscriptions=sum(room.subscriptions for room in rooms.values()),
            ),
            history_messages=self.broker.history_messages,
            history_memory=self.broker.history_memory,
            degraded=self.broker.degraded,
        )


def _deliver(
    message: RoomMessage, counters: Counters, lineup: Sequence[Recipient], delivery: Delivery
) -> None:
    counters.published += 1
    counters.addressed += len(lineup)
    taken = 0
    for recipient in lineup:
        if recipient.take(message, counters, delivery):
            taken += 1
    counters.delivered += taken
    delivery.taken += taken


def _busy_now(room: str, reason: str) -> JoinRefused:
    """Make the refusal of one that may come back when others have left."""
    return JoinRefused(room, reason, CloseCode.TRY_AGAIN_LATER)


def _positions(names: Sequence[str], since: Since) -> dict[str, Position | None]:
    if isinstance(since, Mapping):
        return {name: _position(since.get(name)) for name in names}
    position = _position(since)
    if len(names) > 1 and position not in {None, START}:
        raise ValueError("each room has its own positions: since={room: position, ...}")
    return dict.fromkeys(names, position)


def _position(since: object) -> Position | None:
    if since is None or isinstance(since, Position):
        return since
    if not isinstance(since, str):
        raise TypeError(f"since is a Position, a str or None, not {type(since).__name__}")
    try:
        return Position.parse(since)
    except ValueError:
        return _NO_POSITION  # it comes from a peer, who may send what it likes


def _place(room: Room, replay: Replay) -> Place:
    """The member stands in front of what is replayed, lest that gets lost as well."""
    tip = replay.position
    stands = Position(tip.epoch, tip.offset - len(replay.messages))
    return Place(room, stands, replay.resume)


def _merge(
    recipient: Recipient,
    rooms: list[Room],
    replays: list[Replay],
    positions: dict[str, Position | None],
) -> list[tuple[RoomMessage, Counters]]:
    """Return what is replayed of several rooms, in order, what went to several once."""
    counters = {room.name: room.counters for room in rooms}
    replayed: set[tuple[str, Position]] = set()
    merged: list[tuple[RoomMessage, Counters]] = []
    for message in heapq.merge(*(each.messages for each in replays), key=attrgetter("order")):
        others = message.others
        known = any(place in replayed or _has(recipient, positions, *place) for place in others)
        if not known and concerns(message, recipient):
            merged.append((message, counters[message.room]))
            if others:
                replayed.add((message.room, message.position))
    return merged


def _has(
    recipient: Recipient, positions: dict[str, Position | None], room: str, position: Position
) -> bool:
    """Whether somebody had a message already, in another room that it was published to."""
    since = positions.get(room)
    if since is not None and since.epoch == position.epoch and position.offset <= since.offset:
        return True
    place = recipient.places.get(room)
    if place is None or place.position.epoch != position.epoch:
        return False
    return place.position.offset < position.offset
