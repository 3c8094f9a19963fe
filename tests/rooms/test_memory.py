"""What waits for slow members draws on the budget of their server."""

from __future__ import annotations

from _helpers import settle
from _site import bounded, open_one
from trio.testing import MockClock

from trio_ws import WebSocketRequest
from trio_ws._options import KIB
from trio_ws.rooms import Overflow, Rooms


async def test_what_waits_for_slow_members_draws_on_it_once(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def member(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "a"):
            await ws.wait_closed()

    async with bounded(100 * KIB, member, send_buffer=1) as (site, budget):
        for _ in range(3):
            await open_one(site)
        for visitor in site.listener.visitors:
            visitor.way.buffer = 0
        for _ in range(4):  # the first goes out, as far as the connection is concerned
            await rooms.publish("a", b"x" * 10 * KIB)
        assert rooms.statistics().total.queued == 9
        assert budget.used == 30 * KIB
        for visitor in site.listener.visitors:
            visitor.way.buffer = None
        await settle()
        assert budget.used == 0


async def test_a_room_full_of_slow_members_stays_within_it(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def member(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, request.path):
            await ws.wait_closed()

    async with bounded(100 * KIB, member, send_buffer=1) as (site, budget):
        peers = [await open_one(site, f"/{index % 4}") for index in range(8)]
        for visitor in site.listener.visitors[:6]:
            visitor.way.buffer = 0
        for _ in range(30):
            for index in range(4):
                await rooms.publish(f"/{index}", b"x" * KIB)
                await settle()
                assert budget.used <= budget.limit
        assert 4 <= len(site.server.connections) < 8
        for peer in peers[6:]:
            assert len([await peer.receive_message() for _ in range(30)]) == 30


async def test_what_is_made_for_one_member_counts_for_it_alone(
    autojump_clock: MockClock,
) -> None:
    rooms = Rooms()

    async def member(request: WebSocketRequest) -> None:
        async with (
            request.accept() as ws,
            rooms.join(ws, "a", transform=lambda message: message.data + b"!"),
        ):
            await ws.wait_closed()

    async with bounded(100 * KIB, member) as (site, budget):
        for _ in range(2):
            await open_one(site)
        for visitor in site.listener.visitors:
            visitor.way.buffer = 0
        await rooms.publish("a", b"x" * 999)
        assert budget.used == 2 * 1004


async def test_latest_counts_what_it_keeps(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def member(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "a", overflow=Overflow.LATEST):
            await ws.wait_closed()

    async with bounded(100 * KIB, member) as (site, budget):
        await open_one(site)
        site.listener.visitors[0].way.buffer = 0
        for size in (100, 200, 300, 50):
            await rooms.publish("a", b"x" * size, key="k")
        assert budget.used == 50
        await rooms.publish("a", b"x" * 7, key="other")
        assert budget.used == 57
