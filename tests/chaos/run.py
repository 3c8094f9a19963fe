"""Chaos: what lies between a room and its followers is killed again and again.

::

    python tests/chaos/run.py [--minutes 5] [--clients 50] [--seed 0] [--no-link]

    followers ─ link ─→ relay ─→ front ─→ the room, here

At random the server that clients see (``front``) is killed, stopped (Close 1001) or drained (Close
1012), the proxy before it (``relay``) is killed or frozen, and the link is taken down: a
pair of virtual interfaces into a network namespace, for which one has to be root. The room with
its history lives in this process, and numbers its messages. The exit code is 0 if in the end
every follower has had every number, once, in order, nothing is left of them, and they have
used next to no CPU while all was down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import attrs
import trio

from trio_ws import START, Envelope, History, Rooms, WebSocketRequest, serve_websocket_unix

PROGRAMS: Final = Path(__file__).with_name("_programs.py")
INTERVAL: Final = 0.05
"""Seconds between two messages."""
SILENCE: Final = 10.0
"""Seconds for which all is down at last."""
COST_OF_ATTEMPT: Final = 0.02
"""Seconds of CPU that an attempt to connect may take: many times what it does."""


# The room...


@attrs.define
class Hub:
    """A room that goes on, whatever happens before its door."""

    rooms: Rooms = attrs.field(
        factory=lambda: Rooms(history=History(count=None, size=None, age=None), codec=Envelope())
    )
    sent: int = 0

    async def serve(self, path: Path, task_status: trio.TaskStatus[object]) -> None:
        """Let the front in."""
        await serve_websocket_unix(self.handle, path, task_status=task_status)

    async def handle(self, request: WebSocketRequest) -> None:
        """Be the room's door."""
        since = request.query.get("since", START)
        async with request.accept() as ws, self.rooms.join(ws, "feed", since=since):
            async for _ in ws:
                pass

    async def publish(self) -> None:
        """Number the messages until cancelled."""
        while True:
            self.sent += 1
            await self.rooms.publish("feed", self.sent)
            await trio.sleep(INTERVAL)


# What is killed...


class Program:
    """One of the programs in ``_programs.py``, as often as it is started."""

    def __init__(self, *arguments: object, namespace: str | None = None) -> None:
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        self._command = [*inside, sys.executable, str(PROGRAMS), *map(str, arguments)]
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        self._process = await trio.lowlevel.open_process(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with trio.fail_after(60):
            assert await self._line() == b"ready\n"

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> None:
        """Wait for its end."""
        assert self._process is not None
        with trio.fail_after(60):
            await self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            await pipe.aclose()

    async def ask(self, what: str = "report") -> Any:
        """Send a line, and return what it answers."""
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send_all(what.encode() + b"\n")
        with trio.fail_after(60):
            return json.loads(await self._line())

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            data = await self._process.stdout.receive_some()
            assert data, f"{self._command} has ended"
            line += data
        return line

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            self.send(signal.SIGKILL)
            await self.wait()


@attrs.define
class LinkPair:
    """Two virtual interfaces: one here, one in a network namespace."""

    name: str = attrs.field(factory=lambda: f"tws{os.getpid() % 10**8}")
    address: str = "10.231.77.1"

    async def _ip(self, *arguments: str) -> None:
        await trio.run_process(["ip", *arguments])

    async def set(self, state: str) -> None:
        """Take it up or down."""
        await self._ip("link", "set", self.name, state)

    async def __aenter__(self) -> Self:
        there = ("-n", self.name)
        await self._ip("netns", "add", self.name)
        await self._ip(
            "link", "add", self.name, "type", "veth", "peer", "eth0", "netns", self.name
        )
        await self._ip("addr", "add", f"{self.address}/30", "dev", self.name)
        await self._ip(*there, "addr", "add", "10.231.77.2/30", "dev", "eth0")
        await self._ip(*there, "link", "set", "eth0", "up")
        await self.set("up")
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self._ip("netns", "del", self.name)  # and the pair with it


@attrs.define
class Chaos:
    """All of it, and what has happened to it."""

    chance: random.Random
    front: Program
    relay: Program
    link: LinkPair | None
    happened: Counter[str] = attrs.field(factory=Counter)

    async def reign(self, seconds: float) -> None:
        """Break something, mend it, and so on, for so long; a slow machine does it twice, too."""
        things: list[Callable[[], Awaitable[None]]] = [
            partial(self.end_front, signal.SIGKILL),
            partial(self.end_front, signal.SIGTERM),
            partial(self.end_front, signal.SIGUSR1),
            self.kill_relay,
            self.freeze_relay,
            *([] if self.link is None else [self.take_link_down]),
        ]
        end = trio.current_time() + seconds
        while trio.current_time() < end or self.happened.total() < 2:
            await trio.sleep(self.chance.uniform(0, 4))
            await self.chance.choice(things)()

    async def end_front(self, number: signal.Signals) -> None:
        """End the server that clients see, and start it again."""
        self.happened[f"front: {number.name}"] += 1
        self.front.send(number)
        await self.front.wait()
        await trio.sleep(self.chance.uniform(0, 2))
        await self.front.start()

    async def kill_relay(self) -> None:
        """Kill the proxy, and start it again."""
        self.happened["relay: SIGKILL"] += 1
        self.relay.send(signal.SIGKILL)
        await self.relay.wait()
        await trio.sleep(self.chance.uniform(0, 2))
        await self.relay.start()

    async def freeze_relay(self) -> None:
        """Let the proxy do nothing for a while: no answer, and no end."""
        self.happened["relay: frozen"] += 1
        self.relay.send(signal.SIGSTOP)
        await trio.sleep(self.chance.uniform(0.5, 6))
        self.relay.send(signal.SIGCONT)

    async def take_link_down(self) -> None:
        """Let every packet vanish for a while."""
        assert self.link is not None
        self.happened["link: down"] += 1
        await self.link.set("down")
        await trio.sleep(self.chance.uniform(0.5, 6))
        await self.link.set("up")


# The whole...


@attrs.frozen
class Outcome:
    """What came of it."""

    sent: int
    happened: Counter[str]
    report: dict[str, Any]
    """Of the followers, once they had caught up; see ``_programs.py``."""
    caught_up_after: float
    """Seconds from the end of the chaos to when all had everything."""
    silence: dict[str, float]
    """Attempts, and seconds of CPU, while all was down."""
    left: dict[str, Any]
    """Of the followers' process, when they had left."""

    @property
    def problems(self) -> list[str]:
        """What must not be."""
        report = self.report
        found = [
            f"{report[what]} {what}" for what in ("missed", "doubled", "lost") if report[what]
        ]
        if report["slowest"] != self.sent:
            found.append(f"the slowest has {report['slowest']} of {self.sent}")
        if self.silence["cpu"] > 0.1 + COST_OF_ATTEMPT * self.silence["attempts"]:
            found.append(f"not idle between attempts: {self.silence}")
        found += [f"{self.left[what]} {what} left" for what in _LEFT if self.left[what] > 0]
        return found


_LEFT: Final = ("descriptors", "tasks")


async def run(
    seconds: float, count: int, seed: int, *, with_link: bool, silent: float = SILENCE
) -> Outcome:
    """Let chaos reign for so long, then look at what so many followers have."""
    hub = Hub()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        link = await stack.enter_async_context(LinkPair()) if with_link else None
        background = await stack.enter_async_context(_background())
        await background.start(hub.serve, folder / "hub")
        front_port, relay_port = _free_port(), _free_port()
        front = Program("front", front_port, f"ws+unix://{folder / 'hub'}:")
        relay = Program("relay", relay_port, front_port)
        for program in (front, relay):
            await stack.enter_async_context(program)
        host = link.address if link else "127.0.0.1"
        followers = Program(
            *("clients", f"ws://{host}:{relay_port}", count, seed),
            namespace=link.name if link else None,
        )
        await stack.enter_async_context(followers)

        chaos = Chaos(random.Random(seed), front, relay, link)
        with trio.CancelScope() as publishing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hub.publish)
                await chaos.reign(seconds)
                publishing.cancel()
        started = trio.current_time()
        report = await _catch_up(followers, hub.sent)
        caught_up_after = trio.current_time() - started
        silence = await _be_silent(relay, followers, silent)
        left = await followers.ask("leave")
        return Outcome(hub.sent, chaos.happened, report, caught_up_after, silence, left)


@asynccontextmanager
async def _background() -> AsyncGenerator[trio.Nursery, None]:
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def _catch_up(followers: Program, sent: int) -> Any:
    report = await followers.ask()
    with trio.move_on_after(60):
        while report["slowest"] < sent:
            await trio.sleep(0.2)
            report = await followers.ask()
    return report


async def _be_silent(relay: Program, followers: Program, seconds: float) -> dict[str, float]:
    """Measure what the followers do when there is nothing to connect to."""
    relay.send(signal.SIGKILL)
    await relay.wait()
    before = await followers.ask()
    await trio.sleep(seconds)
    after = await followers.ask()
    return {what: after[what] - before[what] for what in ("attempts", "cpu")}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def can_have_link() -> bool:
    """Whether network namespaces can be made."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-link", action="store_true", help="leave the network as it is")
    given = parser.parse_args()
    with_link = not given.no_link and can_have_link()
    outcome = trio.run(
        partial(run, given.minutes * 60, given.clients, given.seed, with_link=with_link)
    )
    for what, times in sorted(outcome.happened.items()):
        print(f"{times:6d}  {what}")
    print(f"{outcome.sent} messages to {given.clients} followers: {outcome.report}")
    print(f"all had everything after {outcome.caught_up_after:.1f} s")
    print(f"{SILENCE:.0f} s of silence: {outcome.silence}; left behind: {outcome.left}")
    print(*outcome.problems, sep="\n", file=sys.stderr)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
