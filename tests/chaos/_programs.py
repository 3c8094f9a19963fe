"""The programs between a room and those who follow it: each can be killed at any time.

::

    python _programs.py relay PORT TARGET_PORT      a proxy that knows nothing of WebSockets
    python _programs.py front PORT HUB              the server that clients see
    python _programs.py clients URL COUNT SEED      those who follow

``relay`` and ``front`` print a line once they listen. ``front`` ends at SIGTERM with Close
1001, at SIGUSR1 with Close 1012. ``clients`` answers each line with one of JSON: ``report``,
or ``leave`` to have all of them end first.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import os
import random
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import attrs
import trio

from trio_ws import (
    Backoff,
    ConnectionLost,
    Options,
    Sessions,
    WebSocket,
    WebSocketRequest,
    open_reconnecting,
    open_websocket,
    serve_websocket,
)

OPTIONS: Final = Options(handshake_timeout=3, close_grace=1, ping_interval=1, ping_timeout=2)
"""So impatient that a dead link is found within three seconds."""
MAXIMUM: Final = 5.0
"""Seconds between two attempts at most."""


# The proxy...


async def relay(port: int, target: int) -> None:
    """Pass bytes on until killed."""
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, functools.partial(_relay_one, target), port)
        print("ready", flush=True)


async def _relay_one(target: int, client: trio.SocketStream) -> None:
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        server = await trio.open_tcp_stream("127.0.0.1", target)
        async with server, trio.open_nursery() as nursery:
            for source, sink in ((client, server), (server, client)):
                nursery.start_soon(_pump, source, sink, nursery.cancel_scope)


async def _pump(
    source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in source:
            await sink.send_all(data)
    scope.cancel()


# The server...


async def front(port: int, hub: str) -> None:
    """Serve until told to end: each client is one of the hub's."""
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
            server = await nursery.start(
                functools.partial(serve_websocket, options=OPTIONS),
                functools.partial(_pass_on, hub),
                port,
            )
            print("ready", flush=True)
            async for number in signals:
                if number == signal.SIGUSR1:
                    await server.drain(deadline=1)
                break
        nursery.cancel_scope.cancel()


async def _pass_on(hub: str, request: WebSocketRequest) -> None:
    with contextlib.suppress(ConnectionLost):
        async with (
            open_websocket(hub + request.target) as source,
            request.accept() as ws,
            ws.open_nursery() as nursery,
        ):
            nursery.start_soon(ws.wait_closed)
            async for message in source:
                await ws.send(message)
            nursery.cancel_scope.cancel()


# Those who follow...


@attrs.define
class Follower:
    """A client, and what it has heard."""

    url: str
    sessions: Sessions = attrs.field(init=False)
    seen: dict[str, str] = attrs.field(factory=dict)
    last: int = 0
    missed: int = 0
    doubled: int = 0
    lost: int = 0
    """How often it was told that something is gone."""

    async def follow(self, chance: random.Random) -> None:
        """Follow the room until cancelled."""
        retry = Backoff(
            initial=0.5, maximum=MAXIMUM, restart=(0, 2), stable_after=3, uniform=chance.uniform
        )
        self.sessions = open_reconnecting(
            lambda: f"{self.url}/?{urlencode(self.seen)}", retry=retry, options=OPTIONS
        )
        async with self.sessions as sessions:
            async for ws in sessions:
                with contextlib.suppress(ConnectionLost):
                    await self.listen(ws)

    async def listen(self, ws: WebSocket) -> None:
        """Count what comes, and what does not."""
        async for text in ws:
            message = json.loads(text)
            self.seen["since"] = message["position"]
            number = message.get("data", self.last + 1)
            self.missed += max(number - self.last - 1, 0)
            self.doubled += number <= self.last
            if "data" in message:
                self.last = number
            self.lost += message.get("resume") == "lost"


async def clients(url: str, count: int, seed: int) -> None:
    """Follow as so many, and report."""
    logging.getLogger("trio_ws").setLevel(logging.ERROR)  # their losses are no news here
    before = _descriptors(), _tasks()
    followers = [Follower(url) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for number, each in enumerate(followers):
            nursery.start_soon(each.follow, random.Random(seed + number))
        async with trio.lowlevel.FdStream(os.dup(0)) as lines:
            print("ready", flush=True)
            async for line in lines:
                if line.strip() == b"leave":
                    break
                print(json.dumps(_report(followers)), flush=True)
            nursery.cancel_scope.cancel()
    gc.collect()
    left = {"descriptors": _descriptors() - before[0], "tasks": _tasks() - before[1]}
    print(json.dumps(_report(followers) | left), flush=True)


def _report(followers: list[Follower]) -> dict[str, Any]:
    counts = [each.sessions.statistics() for each in followers]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "slowest": min(each.last for each in followers),
        "fastest": max(each.last for each in followers),
        "missed": sum(each.missed for each in followers),
        "doubled": sum(each.doubled for each in followers),
        "lost": sum(each.lost for each in followers),
        "attempts": sum(each.attempts for each in counts),
        "opened": sum(each.opened for each in counts),
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss * 1024,
        "descriptors": _descriptors(),
        "tasks": _tasks(),
    }


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


PROGRAMS: Final[dict[str, Callable[..., Awaitable[None]]]] = {
    "relay": relay,
    "front": front,
    "clients": clients,
}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    trio.run(PROGRAMS[name], *(int(each) if each.isdecimal() else each for each in arguments))
