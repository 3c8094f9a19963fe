"""``trio-ws bench``: how fast a server sends messages back."""

from __future__ import annotations

import argparse
import json
import secrets
from typing import Any

import attrs
import trio

from .._errors import WebSocketError
from .._websocket import WebSocket
from ._connecting import add_connecting, open_as_told, tell_failure
from ._usage import ExitCode, UsageError


def add_parser(commands: Any) -> None:
    """Add the command ``bench``."""
    bench = commands.add_parser(
        "bench",
        help="measure a server that sends back what it gets",
        description="Send messages over several connections, each when the last one has come back,"
        " and tell how many went and how long they took. This client shares the machine's cores"
        " with the server, if it runs beside it, and is in Python itself: compare, do not quote.",
    )
    bench.set_defaults(run=run_bench)
    bench.add_argument("url", metavar="URL", help="an echo server, as trio-ws echo is")
    add_connecting(bench)
    bench.add_argument("--connections", type=int, default=10, help="(default: %(default)s)")
    bench.add_argument("--seconds", type=float, default=5, help="(default: %(default)s)")
    bench.add_argument("--size", type=int, default=125, help="bytes (default: %(default)s)")
    bench.add_argument("--json", action="store_true", help="one JSON object: for scripts")


@attrs.frozen
class Figures:
    """What has been measured."""

    connections: int
    size: int
    seconds: float
    messages: int
    messages_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    latency_max_ms: float


async def run_bench(options: argparse.Namespace) -> int:
    """Run ``trio-ws bench``."""
    if options.connections < 1 or options.size < 0 or not options.seconds > 0:
        raise UsageError("--connections is 1 or more, --size 0 or more, --seconds above 0")
    race = _Race(options.connections, options.seconds)
    with race.scope:
        async with trio.open_nursery() as nursery:
            for _ in range(options.connections):
                nursery.start_soon(_run_one, options, race)
    for failure in race.failures[:1]:
        if isinstance(failure, UsageError):
            raise failure
        return tell_failure(options, failure)
    _tell(_figures(options, race.times, trio.current_time() - race.began), as_json=options.json)
    return ExitCode.OK if race.times else ExitCode.CLOSED


class _Race:
    """Connections that begin when all are there: opening them is not what is measured."""

    def __init__(self, connections: int, seconds: float) -> None:
        self._missing = connections
        self._seconds = seconds
        self._go = trio.Event()
        self.scope = trio.CancelScope()
        self.began = trio.current_time()
        self.times: list[float] = []
        self.failures: list[Exception] = []

    async def line_up(self) -> None:
        """Wait for the others."""
        self._missing -= 1
        if not self._missing:
            self.began = trio.current_time()
            self.scope.deadline = self.began + self._seconds
            self._go.set()
        await self._go.wait()

    def give_up(self, failure: Exception) -> None:
        """End it for all."""
        self.failures.append(failure)
        self.scope.cancel(reason="a connection failed")


async def _run_one(options: argparse.Namespace, race: _Race) -> None:
    try:
        async with open_as_told(options) as ws:
            await race.line_up()
            await _echo(ws, secrets.token_bytes(options.size), race.times)
    except (WebSocketError, OSError, UsageError) as exc:
        race.give_up(exc)


async def _echo(ws: WebSocket, data: bytes, times: list[float]) -> None:
    while True:
        began = trio.current_time()
        await ws.send(data)
        if await ws.receive() != data:
            raise UsageError("the server does not send back what it gets")
        times.append(trio.current_time() - began)


def _figures(options: argparse.Namespace, times: list[float], seconds: float) -> Figures:
    ordered = sorted(times) or [0.0]

    def at(part: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 3)

    return Figures(
        connections=options.connections,
        size=options.size,
        seconds=round(seconds, 3),
        messages=len(times),
        messages_per_second=round(len(times) / seconds, 1),
        latency_p50_ms=at(0.5),
        latency_p99_ms=at(0.99),
        latency_max_ms=at(1),
    )


def _tell(figures: Figures, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(attrs.asdict(figures)))
        return
    print(
        f"{figures.messages} messages of {figures.size} bytes there and back in"
        f" {figures.seconds:g} s over {figures.connections} connections:"
        f" {figures.messages_per_second:g} a second"
    )
    print(
        f"latency: {figures.latency_p50_ms:g} ms (median), {figures.latency_p99_ms:g} ms (99 %),"
        f" {figures.latency_max_ms:g} ms (most)"
    )
