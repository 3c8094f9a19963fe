"""Load: thousands of clients in one process, and what they took.

::

    python examples/echo/server.py
    python examples/load/clients.py ws://127.0.0.1:8000/echo --count 2000

So many clients a second connect, but no more than a hundred at a time: a server that is behind
would serve those who have given up. Each sends a message every so often, and waits for its echo.
Whoever is disconnected comes back, so the server may be restarted under load. In the end:
how long echoes took, how often a connection was lost, and how much memory and CPU it was.

A connection is a descriptor: the limit is raised as far as it may be (``ulimit -Hn``). And from
one address some 28,000 connections can be made to one address and port.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
from pathlib import Path
from statistics import quantiles

import attrs
import trio

from trio_ws import ConnectionClosed, Options, WebSocket, open_reconnecting

OPTIONS = Options(compression=None)
AT_A_TIME = 100  # who connect


@attrs.define
class Load:
    """What the clients do, and what came of it."""

    url: str
    count: int
    interval: float
    connected: int = 0
    lost: int = 0
    echoes: list[float] = attrs.field(factory=list[float])
    complete: trio.Event = attrs.field(factory=trio.Event)
    places: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(AT_A_TIME))

    async def run(self, rate: float) -> None:
        """Let so many a second connect, and stay until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(self.count):
                await self.places.acquire()
                nursery.start_soon(self.be_client)
                await trio.sleep(1 / rate)

    async def be_client(self) -> None:
        """Stay connected until cancelled."""
        known = False
        async with open_reconnecting(self.url, options=OPTIONS) as sessions:
            async for ws in sessions:
                if not known:
                    known = True
                    self.places.release()
                self.connected += 1
                if self.connected == self.count:
                    self.complete.set()
                try:
                    with contextlib.suppress(ConnectionClosed):
                        await self.ask_for_echoes(ws)
                    self.lost += 1
                finally:
                    self.connected -= 1

    async def ask_for_echoes(self, ws: WebSocket) -> None:
        """Ask until the connection ends."""
        while True:
            started = trio.current_time()
            await ws.send("hello")
            await ws.receive()
            self.echoes.append(trio.current_time() - started)
            await trio.sleep(self.interval)


def allow_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory() -> int:
    """Return the bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def main() -> None:
    parser = argparse.ArgumentParser(description="Be thousands of clients.")
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8000/echo")
    parser.add_argument("--count", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=500, help="per second: %(default)s")
    parser.add_argument("--interval", type=float, default=10, help="seconds: %(default)s")
    parser.add_argument("--seconds", type=float, default=30, help="default: %(default)s")
    args = parser.parse_args()

    allow_descriptors()
    load = Load(args.url, args.count, args.interval)
    memory_before = memory()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run, args.rate)
        with trio.move_on_after(args.count / args.rate + 300):  # a slow machine takes longer
            await load.complete.wait()
        cpu_before, echoes_before = cpu(), len(load.echoes)
        await trio.sleep(args.seconds)
        used, echoes = cpu() - cpu_before, load.echoes[echoes_before:]
        size = (memory() - memory_before) / args.count / 1024
        print(f"{load.connected} of {args.count} connected; {load.lost} connections lost")
        print(f"{size:.1f} KiB of memory per client")
        nursery.cancel_scope.cancel(reason="time is up")

    rate = len(echoes) / args.seconds
    print(f"{used / args.seconds:.1%} of a CPU for {rate:.0f} echoes a second")
    if len(echoes) > 1:
        times = quantiles(echoes, n=100)
        print(f"echoes: median {times[49] * 1000:.1f} ms, 99 % within {times[98] * 1000:.1f} ms")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(main)
