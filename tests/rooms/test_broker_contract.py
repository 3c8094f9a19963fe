"""What every broker promises: add yours to ``BROKERS``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio
from _helpers import settle
from _redis import open_broker_on, redis_server

from trio_ws._messages import PreparedMessage
from trio_ws.rooms import (
    START,
    Broker,
    Delivery,
    History,
    Joined,
    Left,
    Occupant,
    Position,
    Publication,
    Resume,
    RoomMessage,
)
from trio_ws.rooms._embedded import EmbeddedBroker

OpenBroker: TypeAlias = "Callable[[History | None], AbstractAsyncContextManager[Broker]]"


@asynccontextmanager
async def embedded(history: History | None) -> AsyncIterator[Broker]:
    yield EmbeddedBroker(history)


@asynccontextmanager
async def redis(history: History | None) -> AsyncIterator[Broker]:
    with redis_server() as server:
        async with open_broker_on(server.url, history=history) as broker:
            yield broker


BROKERS: list[OpenBroker] = [embedded, redis]


@pytest.fixture(params=BROKERS)
def open_broker(request: pytest.FixtureRequest) -> OpenBroker:
    broker: OpenBroker = request.param
    return broker


class Recorder:
    """A `Sink` that writes down what it is told, and checks what may be checked at once."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.messages: list[RoomMessage] = []
        self.events: list[Joined | Left] = []
        self.gaps: list[str] = []
        self.open_rooms: set[str] = set()
        self.failure: Exception | None = None
        self.kept = False
        broker.bind(self)

    def make(
        self,
        publication: Publication,
        room: str,
        position: Position,
        places: tuple[tuple[str, Position], ...],
        order: int,
    ) -> RoomMessage:
        if self.failure is not None and room == publication.rooms[-1]:
            raise self.failure
        prepared = PreparedMessage(publication.payload)
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

    def deliver(self, messages: Any, publication: Publication) -> Delivery:
        for message in messages:
            if message.room in self.open_rooms:
                self.messages.append(message)
                assert not self.kept or message in self.broker.history(message.room)
        delivery = Delivery(waits=publication.waits)
        delivery.taken = 7
        return delivery

    def present(self, event: Joined | Left) -> None:
        self.events.append(event)
        found = {each.id for each in self.broker.occupants(event.room)}
        assert (event.id in found) == isinstance(event, Joined)

    def gap(self, room: str) -> None:
        self.gaps.append(room)

    async def open(self, *rooms: str) -> None:
        for room in rooms:
            await self.broker.open(room)
            self.open_rooms.add(room)

    def close(self, room: str) -> None:
        self.open_rooms.remove(room)
        self.broker.close(room)

    async def publish(self, data: str, *rooms: str) -> Delivery:
        return await self.broker.publish(Publication(rooms, data, data))

    def offsets(self, room: str) -> list[int]:
        return [each.position.offset for each in self.messages if each.room == room]


async def test_messages_are_counted_from_1_and_come_in_order_to_open_rooms(
    open_broker: OpenBroker,
) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a", "b")
        for data in "xyz":
            delivery = await sink.publish(data, "a")
            assert delivery.taken == 7
        await sink.publish("other", "b")
        await settle()
        assert [each.data for each in sink.messages] == ["x", "y", "z", "other"]
        assert sink.offsets("a") == [1, 2, 3]
        assert sink.offsets("b") == [1]
        assert len({each.position.epoch for each in sink.messages if each.room == "a"}) == 1


async def test_a_message_arrives_as_it_was_published(open_broker: OpenBroker) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        names, others = frozenset({"bob"}), frozenset({"eve"})
        for data in ("text", b"\0\xff"):
            await broker.publish(
                Publication(("a",), data, data, key="k", exclude=names, only=others)
            )
        await settle()
        assert [each.data for each in sink.messages] == ["text", b"\0\xff"]
        for each in sink.messages:
            assert (each.key, each.exclude, each.only) == ("k", names, others)


async def test_closed_rooms_get_nothing(open_broker: OpenBroker) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        sink.close("a")
        await sink.publish("x", "a")
        await sink.publish("x", "never opened")
        await settle()
        assert sink.messages == []


async def test_a_publication_to_several_rooms_knows_all_of_its_places(
    open_broker: OpenBroker,
) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a", "b", "c")
        await sink.publish("x", "b")
        await sink.publish("y", "a", "b", "c")
        await settle()
        *_, a, b, c = sink.messages
        assert [each.position.offset for each in (a, b, c)] == [1, 2, 1]
        assert dict(a.others) == {"b": b.position, "c": c.position}
        assert dict(b.others) == {"a": a.position, "c": c.position}


async def test_the_order_of_all_messages_agrees_with_that_in_each_room(
    open_broker: OpenBroker,
) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a", "b")
        for rooms in (["a"], ["b", "a"], ["b"], ["a", "b"]):
            await sink.publish("x", *rooms)
        await settle()
        in_order = sorted(sink.messages, key=lambda each: each.order)
        for room in "ab":
            offsets = [each.position.offset for each in in_order if each.room == room]
            assert offsets == sorted(offsets)
        assert len({(each.room, each.order) for each in sink.messages}) == 6


async def test_what_cannot_be_made_has_not_happened(open_broker: OpenBroker) -> None:
    async with open_broker(History()) as broker:
        sink = Recorder(broker)
        await sink.open("a", "b")
        sink.failure = ValueError("no")
        with pytest.raises(ValueError, match="no"):
            await sink.publish("x", "a", "b")
        sink.failure = None
        await sink.publish("y", "a", "b")
        await settle()
        assert [each.data for each in sink.messages] == ["y", "y"]
        assert sink.offsets("a") == sink.offsets("b") == [1]
        assert len(broker.history("a")) == 1


async def test_what_is_delivered_is_in_the_history_by_then(open_broker: OpenBroker) -> None:
    async with open_broker(History(count=2)) as broker:
        sink = Recorder(broker)
        sink.kept = True
        await sink.open("a")
        for data in "xyz":
            await sink.publish(data, "a")
        await settle()
        assert [each.data for each in broker.history("a")] == ["y", "z"]
        assert list(broker.history("a")) == sink.messages[1:]
        assert broker.history_messages == 2
        assert broker.history_memory > 0


async def test_a_replay_is_followed_by_what_is_delivered(open_broker: OpenBroker) -> None:
    async with open_broker(History()) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        for data in "wxyz":
            await sink.publish(data, "a")
        await settle()
        seen = sink.messages[1].position
        replay = broker.replay("a", seen)
        assert replay.resume is Resume.COMPLETE
        assert [each.data for each in replay.messages] == ["y", "z"]
        assert replay.position == sink.messages[-1].position
        await sink.publish("!", "a")
        await settle()
        assert sink.messages[-1].position.offset == replay.position.offset + 1


async def test_a_replay_of_nothing_and_of_everything(open_broker: OpenBroker) -> None:
    async with open_broker(History()) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        await sink.publish("x", "a")
        await settle()
        assert broker.replay("a", None).messages == ()
        assert [each.data for each in broker.replay("a", START).messages] == ["x"]
        assert broker.replay("a", START).resume is Resume.NEW


async def test_what_is_gone_is_lost(open_broker: OpenBroker) -> None:
    async with open_broker(History(count=1)) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        for data in "xyz":
            await sink.publish(data, "a")
        await settle()
        epoch = sink.messages[0].position.epoch
        for since in (Position(epoch, 1), Position(epoch, 4), Position("elsewhere", 3)):
            replay = broker.replay("a", since)
            assert replay.resume is Resume.LOST
            assert [each.data for each in replay.messages] == ["z"]


async def test_a_room_that_was_closed_can_be_resumed(open_broker: OpenBroker) -> None:
    async with open_broker(History()) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        await sink.publish("x", "a")
        await settle()
        seen = sink.messages[0].position
        sink.close("a")
        await sink.publish("y", "a")
        await sink.open("a")
        replay = broker.replay("a", seen)
        assert replay.resume is Resume.COMPLETE
        assert [each.data for each in replay.messages] == ["y"]


async def test_without_a_history_nothing_is_kept(open_broker: OpenBroker) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a")
        await sink.publish("x", "a")
        await settle()
        assert broker.history("a") == ()
        assert (broker.history_messages, broker.history_memory) == (0, 0)
        position = sink.messages[0].position
        assert broker.replay("a", position).resume is Resume.COMPLETE
        await sink.publish("y", "a")
        await settle()
        assert broker.replay("a", position).resume is Resume.LOST


async def test_presence_tells_who_is_there_and_who_comes_and_goes(
    open_broker: OpenBroker,
) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        await sink.open("a", "b")
        bob, eve = Occupant("1", {"name": "bob"}), Occupant("2", None)
        broker.enter("a", bob)
        broker.enter("a", eve)
        broker.enter("b", bob)
        await settle()
        assert sorted(each.id for each in broker.occupants("a")) == ["1", "2"]
        broker.leave("a", bob)
        await settle()
        assert broker.occupants("a") == (eve,)
        assert broker.occupants("b") == (bob,)
        broker.leave("a", eve)
        broker.leave("b", bob)
        await settle()
        assert broker.occupants("a") == broker.occupants("b") == ()
        assert [event for event in sink.events if event.room == "a"] == [
            Joined("a", "1", {"name": "bob"}),
            Joined("a", "2", None),
            Left("a", "1", {"name": "bob"}),
            Left("a", "2", None),
        ]


async def test_publishing_at_once_does_the_same_where_it_can_be_done(
    open_broker: OpenBroker,
) -> None:
    async with open_broker(None) as broker:
        if not broker.immediate:
            pytest.skip("it has to wait for a network")
        sink = Recorder(broker)
        await sink.open("a")
        delivery = broker.publish_nowait(Publication(("a",), "x", "x", waits=True))
        assert (delivery.taken, delivery.waits) == (7, True)
        assert sink.offsets("a") == [1]


async def test_opening_that_is_cancelled_leaves_the_room_closed(open_broker: OpenBroker) -> None:
    async with open_broker(None) as broker:
        sink = Recorder(broker)
        with trio.CancelScope() as scope:
            scope.cancel()
            await sink.open("a")
        if scope.cancelled_caught:
            await sink.open("a")
        await sink.publish("x", "a")
        await settle()
        assert sink.offsets("a") == [1]
        sink.close("a")
