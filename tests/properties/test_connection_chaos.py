"""Whatever two users do to a connection, and the network: it ends, whole, and nothing is left."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest
import trio
from _helpers import DEFLATE, STATEFUL_DEFLATE, connected_streams, session

from trio_ws._errors import ConnectionClosed
from trio_ws._options import Options

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_ws._session import Session
    from trio_ws._websocket import WebSocket

TOLD = (ConnectionClosed, trio.ClosedResourceError, trio.BusyResourceError)
"""What a user may be told at any time."""
CODES = {1000, 1001, 1006, 1011, 4000}
"""How such a connection may end: no 1002 and no 1007, for nobody breaks a rule."""


class User:
    """A task that does what comes to its mind, and gives it up when that takes too long."""

    def __init__(self, ws: WebSocket, chance: random.Random) -> None:
        self.ws = ws
        self.chance = chance

    async def run(self) -> None:
        often = [self.send, self.send_much, self.receive, self.iterate, self.ping]
        seldom = [self.send_parts, self.receive_parts, self.open_nursery]
        rarely = [self.close, self.close_forcefully, self.fail]
        for _ in range(self.chance.randrange(1, 12)):
            action = self.chance.choice(often * 4 + seldom * 3 + rarely)
            with trio.move_on_after(self.chance.choice([0, 0.01, 0.3, 2, 10])):
                with contextlib.suppress(*TOLD):
                    await action()

    async def send(self) -> None:
        text = f"{self.chance.random()} " * self.chance.randrange(50)
        await self.ws.send(text, compress=self.chance.choice([None, True, False]))

    async def send_much(self) -> None:
        await self.ws.send(bytes(self.chance.randrange(70_000)))

    async def send_parts(self) -> None:
        async with self.ws.open_message(text=False) as part:
            for _ in range(self.chance.randrange(4)):
                await part.send(bytes(self.chance.randrange(3000)))

    async def receive(self) -> None:
        await self.ws.receive()

    async def iterate(self) -> None:
        async for _ in self.ws:
            if self.chance.random() < 0.3:
                break

    async def receive_parts(self) -> None:
        async with self.ws.receive_message() as parts:
            async for _ in parts:
                if self.chance.random() < 0.2:
                    break

    async def ping(self) -> None:
        await self.ws.ping()

    async def open_nursery(self) -> None:
        async with self.ws.open_nursery() as nursery:
            for _ in range(self.chance.randrange(3)):
                nursery.start_soon(User(self.ws, self.chance).run)
            if self.chance.random() < 0.3:
                nursery.start_soon(trio.sleep_forever)

    async def close(self) -> None:
        await self.ws.aclose(self.chance.choice([1000, 4000]))

    async def close_forcefully(self) -> None:
        await trio.aclose_forcefully(self.ws)

    async def fail(self) -> None:
        raise ZeroDivisionError


async def use(us: Session, chance: random.Random) -> None:
    try:
        with trio.move_on_after(chance.choice([1, 5, 60, 60])):
            async with us as ws, trio.open_nursery() as nursery:
                for _ in range(chance.randrange(1, 4)):
                    nursery.start_soon(User(ws, chance).run)
    except* ZeroDivisionError:
        pass
    assert us.ws.close_info is not None
    assert us.ws.close_info.code in CODES, us.ws.close_info


def some_options(chance: random.Random) -> Options:
    return Options(
        send_buffer=chance.choice([1, 1000, None]),
        receive_buffer=chance.choice([1, 1000, 65536]),
        close_grace=chance.choice([1, 5]),
        write_timeout=chance.choice([2, 30, None]),
        ping_interval=chance.choice([1, 20, None]),
        ping_timeout=chance.choice([1, 20, None]),
    )


@pytest.mark.parametrize("seed", range(100))
async def test_it_ends_and_nothing_is_torn_or_left(autojump_clock: MockClock, seed: int) -> None:
    chance = random.Random(seed)
    deflate = chance.choice([None, DEFLATE, STATEFUL_DEFLATE])
    link, streams = connected_streams()
    for direction in (link.to_server, link.to_client):
        direction.buffer = chance.choice([100, 5000, None])
        direction.bandwidth = chance.choice([1000, 100_000, None])
        direction.chunk = chance.choice([(1, 100), (1, 10_000), None])
        direction.latency = chance.random()
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            for role, stream in streams.items():
                us = session(stream, role, some_options(chance), deflate=deflate)
                nursery.start_soon(use, us, chance)
