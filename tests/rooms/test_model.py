"""Anything in any order: rooms against a model of what each policy promises.

Users connect, enter, leave, are held up, let go, cancelled and cut off; publishers publish and
give up; subscriptions read when they like. After each step everybody must have received what
the model says, and the statistics must add up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any, Final, Literal, TypeAlias

import _helpers
import attrs
import trio
import trio.testing
from _helpers import settle
from _seats import NARROW, PEER, Seat
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.rooms import (
    START,
    Envelope,
    History,
    Joined,
    Member,
    Missed,
    Overflow,
    Position,
    Resume,
    Rooms,
    Subscription,
)

NAMES: Final = ("a", "b")
KEPT: Final = 4  # messages in a history
BUFFER: Final = 2
USERS: Final = tuple(Overflow)  # one for each policy
READERS: Final = (Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST)

# What is said...


@attrs.frozen
class Said:
    """A message, as the model remembers it."""

    number: int
    places: dict[str, int] = attrs.field(eq=False)
    """Its offset in each room."""
    key: str | None
    exclude: str | None


@attrs.frozen
class Sent:
    """A message on its way to one user, through one room."""

    said: Said
    room: str

    @property
    def text(self) -> tuple[Any, ...]:
        return self.room, self.said.places[self.room], self.said.number


@attrs.frozen
class Greeting:
    room: str
    offset: int
    resume: str

    @property
    def text(self) -> tuple[Any, ...]:
        return self.room, self.offset, self.resume


Thing: TypeAlias = "Sent | Greeting"


# What the model knows...


@attrs.define(eq=False)
class Publisher:
    """A publish, and for whom it waits."""

    scope: trio.CancelScope
    taken: int = 0
    waits_for: set[int] = attrs.field(factory=set)
    result: int | None = None
    gave_up: bool = False


class ModelQueue:
    """What waits for somebody: ``live`` messages are bounded, what is replayed is not."""

    def __init__(self, overflow: Overflow, buffer: int) -> None:
        self.overflow = overflow
        self.buffer = buffer
        self.things: list[tuple[Thing | Missed, bool]] = []

    @property
    def live(self) -> int:
        return sum(live for _, live in self.things)

    def miss(self, index: int) -> None:
        """Let one more be missing at a place."""
        for near in (index - 1, index):
            if 0 <= near < len(self.things) and isinstance(self.things[near][0], Missed):
                count = self.things[near][0].count  # type: ignore[union-attr]
                assert count is not None
                self.things[near] = (Missed(count + 1), False)
                return
        self.things.insert(index, (Missed(1), False))

    def put(self, sent: Sent) -> Literal["taken", "dropped", "too slow", "wait"]:
        for index, (thing, live) in enumerate(self.things):
            if (
                self.overflow is Overflow.LATEST
                and live
                and isinstance(thing, Sent)
                and (thing.room, thing.said.key) == (sent.room, sent.said.key)
            ):
                self.things[index] = (sent, True)
                return "taken"
        if self.live >= self.buffer:
            if self.overflow is Overflow.DISCONNECT:
                return "too slow"
            if self.overflow is Overflow.WAIT:
                return "wait"
            if self.overflow is Overflow.DROP_NEWEST:
                self.miss(len(self.things))
                return "dropped"
            while self.live >= self.buffer:
                if not isinstance(self.things[0][0], Missed):
                    del self.things[0]
                    self.miss(0)
                else:
                    del self.things[1]
                    self.miss(0)
        self.things.append((sent, True))
        return "taken"

    def purge(self, room: str) -> None:
        self.things = [
            (thing, live)
            for thing, live in self.things
            if isinstance(thing, Missed) or thing.room != room
        ]


@attrs.define(eq=False)
class User:
    """A user, one connection at a time, one member at a time."""

    index: int
    overflow: Overflow
    seat: Seat | None = None
    hang_up: trio.Event | None = None
    member: Member | None = None
    scope: trio.CancelScope | None = None
    go: trio.Event | None = None
    stalled: bool = False
    gone: bool = False
    """Whether the peer has vanished."""
    closed: bool = False
    """Whether this side has begun to close."""
    rooms: dict[str, int] = attrs.field(factory=dict)
    """The rooms it is in, and where it stood on entering."""
    behind: bool = False
    flight: Thing | None = None
    queue: ModelQueue = attrs.field(factory=lambda: ModelQueue(Overflow.WAIT, 0))
    line: list[tuple[Sent, Publisher]] = attrs.field(factory=list)
    expected: list[tuple[Any, ...]] = attrs.field(factory=list)
    received: list[tuple[Any, ...]] = attrs.field(factory=list)
    known: dict[str, str] = attrs.field(factory=dict)
    """The newest position of each room that the peer has been told."""

    @property
    def name(self) -> str:
        return f"user {self.index}"

    @property
    def usable(self) -> bool:
        return self.seat is not None and not (self.gone or self.closed)

    def begin(self) -> None:
        """A block begins."""
        self.queue = ModelQueue(self.overflow, BUFFER)
        self.behind = False

    def offer(self, thing: Thing) -> bool:
        """Hand something to the connection, if nothing waits and it has room."""
        if self.behind or self.flight is not None:
            return False
        if self.stalled:
            self.flight = thing
        else:
            self.expected.append(thing.text)
        return True

    def offer_extra(self, thing: Thing) -> None:
        if not self.offer(thing):
            self.queue.things.append((thing, False))
        self.behind = self.stalled  # all of this goes through the queue

    def release(self) -> None:
        self.stalled = False
        if self.flight is not None:
            self.expected.append(self.flight.text)
            self.flight = None
        if self.closed:
            return
        waiting = [thing for thing, _ in self.queue.things if not isinstance(thing, Missed)]
        self.expected += [thing.text for thing in waiting]
        self.queue.things.clear()
        for sent, publisher in self.line:
            self.expected.append(sent.text)
            publisher.taken += 1
            publisher.waits_for.remove(self.index)
        self.line.clear()
        self.behind = False

    def end(self) -> None:
        """It is in no room any more, and nothing waits for it."""
        self.rooms.clear()
        self.queue.things.clear()
        for _, publisher in self.line:
            publisher.waits_for.remove(self.index)
        self.line.clear()
        self.behind = False
        self.member = None

    def leave(self, room: str) -> None:
        del self.rooms[room]
        self.queue.purge(room)
        for sent, publisher in self.line:
            if sent.room == room:
                publisher.waits_for.remove(self.index)
        self.line = [(sent, publisher) for sent, publisher in self.line if sent.room != room]
        self.admit()

    def admit(self) -> None:
        while self.line and self.queue.live < BUFFER:
            sent, publisher = self.line.pop(0)
            self.queue.things.append((sent, True))
            publisher.taken += 1
            publisher.waits_for.remove(self.index)

    def take(self, sent: Sent, publisher: Publisher) -> None:
        if self.gone or self.closed:
            self.end()
            return
        if self.overflow is Overflow.WAIT and self.line:
            outcome = "wait"
        elif self.offer(sent):
            outcome = "taken"
        else:
            outcome = self.queue.put(sent)
            self.behind = True
        if outcome == "taken":
            publisher.taken += 1
        elif outcome == "wait":
            publisher.waits_for.add(self.index)
            self.line.append((sent, publisher))
        elif outcome == "too slow":
            self.closed = True
            self.end()


@attrs.define(eq=False)
class Reader:
    """A subscription to all rooms."""

    overflow: Overflow
    stack: AsyncExitStack | None = None
    messages: Subscription | None = None
    queue: ModelQueue = attrs.field(factory=lambda: ModelQueue(Overflow.WAIT, 0))


class World:
    """The rooms, and the model beside them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.rooms = Rooms(codec=Envelope(), history=History(count=KEPT, age=None))
        self.users = [User(index, overflow) for index, overflow in enumerate(USERS)]
        self.readers = [Reader(overflow) for overflow in READERS]
        self.publishers: list[Publisher] = []
        self.said: dict[str, list[Said]] = {name: [] for name in NAMES}
        self.number = 0

    # Steps...

    async def connect(self, user: User) -> None:
        if user.usable:
            return
        self.hang_up(user)
        await settle()
        up = trio.Event()
        user.hang_up = trio.Event()
        self.nursery.start_soon(self._connection, user, up, user.hang_up)
        await up.wait()
        user.stalled = user.gone = user.closed = False
        user.flight = None
        user.expected, user.received = [], []

    async def _connection(self, user: User, up: trio.Event, hang_up: trio.Event) -> None:
        ours, theirs = _helpers.connect("server", NARROW, PEER)
        async with theirs as peer, ours as ws:
            user.seat = Seat(ws, peer)
            up.set()
            await hang_up.wait()

    def hang_up(self, user: User) -> None:
        self.exit(user)
        if user.hang_up is not None:
            user.hang_up.set()
        user.seat = None

    async def enter(self, user: User, names: tuple[str, ...], *, resume: bool) -> None:
        if not user.usable or user.scope is not None:
            return
        since = {name: user.known.get(name, START) for name in names} if resume else {}
        user.scope, user.go = trio.CancelScope(), trio.Event()
        user.begin()
        self.nursery.start_soon(self._member, user, user.scope, user.go, names, since)
        self._model_join(user, names, since)
        await settle()
        assert user.member is not None

    async def _member(
        self, user: User, scope: trio.CancelScope, go: trio.Event, names: Any, since: Any
    ) -> None:
        assert user.seat is not None
        with scope:
            async with self.rooms.join(
                user.seat.ws,
                *names,
                buffer=BUFFER,
                overflow=user.overflow,
                name=user.name,
                meta=user.index,
                since=since,
            ) as user.member:
                await go.wait()

    async def join(self, user: User, names: tuple[str, ...], *, resume: bool) -> None:
        if user.member is None or not user.usable:
            return
        new = tuple(name for name in names if name not in user.rooms)
        since = {name: user.known.get(name, START) for name in new} if resume else {}
        member = user.member
        self._model_join(user, new, since)
        await member.join(*names, since=since)

    def leave(self, user: User, name: str) -> None:
        if user.member is not None:
            member = user.member
            if name in user.rooms:
                user.leave(name)
            member.leave(name)

    def exit(self, user: User, *, cancel: bool = False) -> None:
        if user.scope is not None:
            assert user.go is not None
            if cancel:
                user.scope.cancel()
            else:
                user.go.set()
            user.scope = user.go = None
            user.end()

    def stall(self, user: User) -> None:
        if user.seat is not None and not user.gone:
            user.seat.stall()
            user.stalled = True

    def release(self, user: User) -> None:
        if user.seat is not None and not user.gone:
            user.seat.release()
            user.release()

    async def vanish(self, user: User) -> None:
        if user.usable:
            assert user.seat is not None
            user.received += await self._read(user)
            user.gone = True
            await trio.aclose_forcefully(user.seat.peer)
            if user.behind:
                user.end()

    def close(self, user: User, code: int) -> None:
        """This side says goodbye, in the middle of whatever there is."""
        if user.usable:
            assert user.seat is not None
            user.seat.ws._connection.begin_close(code, "")
            user.closed = True
            if user.behind:
                user.end()

    async def publish(self, names: tuple[str, ...], exclude: User | None, key: str | None) -> None:
        self.number += 1
        places = {name: len(self.said[name]) + 1 for name in dict.fromkeys(names)}
        said = Said(self.number, places, key, exclude.name if exclude else None)
        publisher = Publisher(trio.CancelScope())
        self.publishers.append(publisher)
        for name in places:
            self.said[name].append(said)
        got_it: set[int] = set()
        lineups = {name: self._lineup(name) for name in places}
        for name, lineup in lineups.items():
            for user in lineup:
                if user.index not in got_it and user is not exclude:
                    got_it.add(user.index)
                    user.take(Sent(said, name), publisher)
        for reader in self.readers:
            if reader.messages is not None:
                taken = reader.queue.put(Sent(said, next(iter(places)))) == "taken"
                publisher.taken += taken

        async def run() -> None:
            with publisher.scope:
                publisher.result = await self.rooms.publish(
                    names, said.number, key=key, exclude={exclude.name} if exclude else ()
                )

        self.nursery.start_soon(run)

    def give_up(self, which: int) -> None:
        waiting = [each for each in self.publishers if each.waits_for]
        if waiting:
            publisher = waiting[which % len(waiting)]
            publisher.scope.cancel()
            publisher.gave_up = True
            for index in publisher.waits_for:
                user = self.users[index]
                user.line = [each for each in user.line if each[1] is not publisher]
            publisher.waits_for.clear()

    async def subscribe(self, reader: Reader) -> None:
        if reader.stack is None:
            reader.stack = AsyncExitStack()
            reader.queue = ModelQueue(reader.overflow, BUFFER)
            reader.messages = await reader.stack.enter_async_context(
                self.rooms.subscribe(*NAMES, buffer=BUFFER, overflow=reader.overflow)
            )

    async def unsubscribe(self, reader: Reader) -> None:
        if reader.stack is not None:
            await reader.stack.aclose()
            reader.stack = reader.messages = None

    async def read(self, reader: Reader) -> None:
        if reader.messages is not None and reader.queue.things:
            thing, _ = reader.queue.things.pop(0)
            found = await reader.messages.receive()
            if isinstance(thing, Missed):
                assert found == thing
            else:
                assert isinstance(thing, Sent)
                assert found == thing.said.number
                assert reader.messages.last is not None
                assert reader.messages.last.position.offset == thing.text[1]

    # What should be...

    def _lineup(self, name: str) -> list[User]:
        """The members of a room, as the rooms themselves order them: that is checked elsewhere."""
        indices = [member.meta for member in self.rooms.members(name)]
        assert sorted(indices) == [user.index for user in self.users if name in user.rooms]
        return [self.users[index] for index in indices]

    def _model_join(self, user: User, names: Iterable[str], since: Any) -> None:
        starts: dict[str, int] = {}
        missed: dict[int, list[Sent]] = {}
        greetings: list[Greeting] = []
        for name in names:
            total = len(self.said[name])
            kept = self.said[name][-KEPT:]
            start, resume = total, Resume.NEW
            if since.get(name) is START:
                start = total - len(kept)
            elif name in since:
                start, resume = Position.parse(since[name]).offset, Resume.COMPLETE
                if start < total - len(kept):
                    start, resume = total - len(kept), Resume.LOST
            starts[name] = start
            greetings.append(Greeting(name, start, resume.value))
            for said in self.said[name][start:]:
                if said.exclude != user.name and not self._has(user, said, name, since):
                    missed.setdefault(said.number, []).append(Sent(said, name))
        for greeting in greetings:
            user.offer_extra(greeting)
        for number in sorted(missed):  # each through the first of its rooms
            order = list(missed[number][0].said.places)
            user.offer_extra(min(missed[number], key=lambda sent: order.index(sent.room)))
        user.rooms.update(starts)

    @staticmethod
    def _has(user: User, said: Said, name: str, since: Any) -> bool:
        for other, offset in said.places.items():
            if other == name:
                continue
            known = since.get(other)
            if isinstance(known, str) and offset <= Position.parse(known).offset:
                return True
            if other in user.rooms and offset > user.rooms[other]:
                return True
        return False

    # What is...

    async def _read(self, user: User) -> list[tuple[Any, ...]]:
        assert user.seat is not None
        texts: list[tuple[Any, ...]] = []
        for text in await user.seat.received():
            said = json.loads(text)
            position = Position.parse(said["position"])
            user.known[said["room"]] = said["position"]
            texts.append((said["room"], position.offset, said.get("data", said.get("resume"))))
        return texts

    async def check(self) -> None:
        await settle()
        for user in self.users:
            if user.seat is None or user.gone:
                continue
            user.received += await self._read(user)
            assert user.received == user.expected, user
        for publisher in self.publishers:
            if not publisher.gave_up:
                assert publisher.result == (None if publisher.waits_for else publisher.taken)
        self._check_statistics()

    def _check_statistics(self) -> None:
        statistics = self.rooms.statistics()
        for each in (*statistics.rooms.values(), statistics.total):
            parts = each.delivered + each.dropped + each.disconnected + each.waiting
            assert each.addressed == parts
        for name in NAMES:
            self._lineup(name)
        queues = [user.queue for user in self.users] + [
            reader.queue for reader in self.readers if reader.messages is not None
        ]
        assert statistics.total.queued == sum(queue.live for queue in queues)
        assert statistics.total.waiting == sum(len(user.line) for user in self.users)
        for user in self.users:
            if user.seat is not None:
                assert len(user.seat.ws._connection.outbox.feeders) == user.behind


# Any order...

user = st.integers(0, len(USERS) - 1)
reader = st.integers(0, len(READERS) - 1)
some = st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")])
PUBLISH: Final = st.tuples(
    st.just("publish"), some, st.none() | user, st.sampled_from([None, "k", "l"])
)
STEPS: Final = st.one_of(
    PUBLISH,
    PUBLISH,  # more often than the rest
    PUBLISH,
    st.tuples(st.just("connect"), user),
    st.tuples(st.just("enter"), user, some, st.booleans()),
    st.tuples(st.just("join"), user, some, st.booleans()),
    st.tuples(st.just("leave"), user, st.sampled_from(NAMES)),
    st.tuples(st.just("exit"), user, st.booleans()),
    st.tuples(st.just("stall"), user),
    st.tuples(st.just("stall everybody")),
    st.tuples(st.just("release"), user),
    st.tuples(st.just("vanish"), user),
    st.tuples(st.just("close"), user, st.sampled_from([1000, 4000])),
    st.tuples(st.just("give up"), st.integers(0, 3)),
    st.tuples(st.just("subscribe"), reader),
    st.tuples(st.just("unsubscribe"), reader),
    st.tuples(st.just("read"), reader),
)


async def step(world: World, what: str, *how: Any) -> None:  # noqa: C901, PLR0912  # a table
    users, readers = world.users, world.readers
    match what, *how:
        case "connect", index:
            await world.connect(users[index])
        case "enter", index, names, resume:
            await world.enter(users[index], names, resume=resume)
        case "join", index, names, resume:
            await world.join(users[index], names, resume=resume)
        case "leave", index, name:
            world.leave(users[index], name)
        case "exit", index, cancel:
            world.exit(users[index], cancel=cancel)
        case "stall", index:
            world.stall(users[index])
        case ("stall everybody",):
            for each in users:
                world.stall(each)
        case "release", index:
            world.release(users[index])
        case "vanish", index:
            await world.vanish(users[index])
        case "close", index, code:
            world.close(users[index], code)
        case "publish", names, index, key:
            await world.publish(names, None if index is None else users[index], key)
        case "give up", which:
            world.give_up(which)
        case "subscribe", index:
            await world.subscribe(readers[index])
        case "unsubscribe", index:
            await world.unsubscribe(readers[index])
        case "read", index:
            await world.read(readers[index])
        case _:
            raise AssertionError(what)


async def run(steps: list[tuple[Any, ...]]) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        async with world.rooms.presence("a") as presence:
            there: set[int] = set()
            for each in world.users:
                await world.connect(each)
                await world.enter(each, NAMES, resume=False)
            for what, *how in steps:
                await step(world, what, *how)
                await world.check()
                while presence._events:
                    event = await presence.receive()
                    (there.add if isinstance(event, Joined) else there.remove)(event.meta)
                assert there == {each.index for each in world.users if "a" in each.rooms}
        for each in world.readers:
            await world.unsubscribe(each)
        for each in world.users:
            world.release(each)
            world.hang_up(each)
    assert world.rooms.statistics().rooms == {}
    assert world.rooms._registry._rooms_of == {}


@given(st.lists(STEPS, min_size=30, max_size=60))
def test_nothing_is_lost_doubled_or_reordered_but_as_the_policy_says(
    steps: list[tuple[Any, ...]],
) -> None:
    trio.run(run, steps, clock=trio.testing.MockClock(autojump_threshold=0))
