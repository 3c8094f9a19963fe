"""Following a room through losses and restarts: no message is lost, and none comes twice."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from random import Random
from urllib.parse import urlencode

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_ws import (
    START,
    Backoff,
    ConnectionLost,
    Envelope,
    History,
    Options,
    Rooms,
    Server,
    WebSocketRequest,
    open_reconnecting,
    serve_websocket_listeners,
)
from trio_ws.testing import Link, MemoryNetwork

HOST = "feed.test"
FAULTS = 6
"""Connections that break, before the network is mended."""
IMPATIENT = Options(ping_interval=5, ping_timeout=5, close_grace=1)


@attrs.define
class Follower:
    """A client that remembers where it stands."""

    seen: dict[str, str] = attrs.field(factory=dict)
    heard: list[int] = attrs.field(factory=list)
    resumed: list[str] = attrs.field(factory=list)

    def url(self) -> str:
        return f"ws://{HOST}/?{urlencode(self.seen)}"

    async def follow(self, chance: Random) -> None:
        retry = Backoff(uniform=chance.uniform)
        async with open_reconnecting(self.url, retry=retry, options=IMPATIENT) as sessions:
            async for ws in sessions:
                with suppress(ConnectionLost):
                    async for text in ws:
                        message = json.loads(text)
                        self.seen["since"] = message["position"]
                        if "data" in message:
                            self.heard.append(message["data"])
                        else:
                            self.resumed.append(message["resume"])


@attrs.define
class Feed:
    """A room with numbers, and servers that come and go."""

    network: MemoryNetwork
    rooms: Rooms
    sent: int = 0

    async def handle(self, request: WebSocketRequest) -> None:
        since = request.query.get("since", START)
        async with request.accept() as ws, self.rooms.join(ws, "feed", since=since):
            async for _ in ws:
                pass

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Server, None]:
        listener = self.network.listen(HOST)
        async with trio.open_nursery() as nursery:
            yield await nursery.start(
                functools.partial(serve_websocket_listeners, options=IMPATIENT),
                self.handle,
                [listener],
            )
            nursery.cancel_scope.cancel()

    async def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.sent += 1
            await self.rooms.publish("feed", self.sent)

    async def publish_for_ever(self, interval: float) -> None:
        while True:
            await self.publish()
            await trio.sleep(interval)

    def crash(self) -> None:
        for link in self.network.links:
            link.reset()


def remembering() -> Rooms:
    return Rooms(history=History(count=100_000, size=None, age=None), codec=Envelope())


@pytest.mark.parametrize("way", ["stop", "drain", "crash"])
async def test_a_client_survives_ten_restarts_without_a_gap(
    autojump_clock: MockClock, way: str
) -> None:
    """The rooms outlive the servers: those are what a deploy replaces."""
    feed = Feed(MemoryNetwork(), remembering())
    follower = Follower()
    with feed.network.install():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.publish_for_ever, 0.5)
            nursery.start_soon(follower.follow, Random(way))
            for _ in range(11):
                async with feed.serving() as server:
                    await trio.sleep(70)
                    if way == "drain":
                        await server.drain(deadline=1)
                    elif way == "crash":
                        feed.crash()
                await trio.sleep(3)
            nursery.cancel_scope.cancel()
    assert follower.heard == list(range(1, len(follower.heard) + 1))
    assert len(follower.heard) > 0.9 * feed.sent
    assert follower.resumed == ["new"] + ["complete"] * 10


@pytest.mark.parametrize("seed", range(8))
async def test_a_network_that_fails_at_any_byte_costs_no_message(
    autojump_clock: MockClock, seed: int
) -> None:
    chance = Random(seed)

    def make_link(number: int) -> Link:
        link = Link(latency=0.05, jitter=0.05, chunk=(1, 3000), seed=chance.random())
        faults = [
            link.to_client.reset_after,
            link.to_client.end_after,
            link.to_client.cut_after,
            link.to_server.reset_after,
            link.to_server.cut_after,
        ]
        if number < FAULTS:
            chance.choice(faults)(chance.randrange(900))
        return link

    feed = Feed(MemoryNetwork(make_link), remembering())
    follower = Follower()
    with feed.network.install():
        async with feed.serving(), trio.open_nursery() as nursery:
            nursery.start_soon(feed.publish_for_ever, 3)
            nursery.start_soon(follower.follow, chance)
            nursery.cancel_scope.deadline = trio.current_time() + 1500
    assert len(feed.network.links) > FAULTS
    assert follower.heard == list(range(1, len(follower.heard) + 1))
    assert len(follower.heard) >= feed.sent - 1  # one may have been on the way
    assert set(follower.resumed) <= {"new", "complete"}


async def test_a_history_that_is_gone_is_told_as_lost(autojump_clock: MockClock) -> None:
    """A server that restarts with its rooms has forgotten them, and says so."""
    feed = Feed(MemoryNetwork(), remembering())
    follower = Follower()
    with feed.network.install():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.follow, Random(1))
            async with feed.serving():
                await trio.sleep(20)
                await feed.publish(3)
                await trio.sleep(1)
            feed.rooms = remembering()
            await feed.publish(2)  # numbers 4 and 5
            async with feed.serving():
                await trio.sleep(100)
                await feed.publish()
                await trio.sleep(1)
            async with feed.serving():
                await trio.sleep(100)
            nursery.cancel_scope.cancel()
    assert follower.heard == [1, 2, 3, 4, 5, 6]
    assert follower.resumed == ["new", "lost", "complete"]


async def test_a_history_that_is_too_short_is_told_as_lost(autojump_clock: MockClock) -> None:
    rooms = Rooms(history=History(count=5), codec=Envelope())
    feed = Feed(MemoryNetwork(), rooms)
    follower = Follower()
    with feed.network.install():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.follow, Random(1))
            async with feed.serving():
                await trio.sleep(20)
                await feed.publish(3)
                await trio.sleep(1)
            await feed.publish(10)
            async with feed.serving():
                await trio.sleep(100)
            nursery.cancel_scope.cancel()
    assert follower.heard == [1, 2, 3, 9, 10, 11, 12, 13]
    assert follower.resumed == ["new", "lost"]
