"""Kill, freeze and restart Redis under two servers, and read what each member was sent.

::

    python tests/redis/outages.py                      # two servers, 200 members each, 15 outages
    python tests/redis/outages.py --members 10 --outages 3 --pause 0.1

Three publishers count. Whatever a member was sent is written down with the time, and judged at
the end: nothing that was published may be missing without a word, nothing may come twice, and
nothing in another order than at the other members.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does

from _redis import RedisServer

from trio_ws import (
    BrokerDown,
    Envelope,
    History,
    Routes,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
)
from trio_ws.redis import open_rooms

TIMEOUT = 1.0  # seconds: a frozen Redis is noticed after this
PATIENCE = 60  # seconds in which it goes on on any machine


# A server...


async def serve(url: str) -> None:
    """Serve members and publishers until told to stop."""
    routes = Routes()
    terms = {"history": History(count=1000), "codec": Envelope(), "patience": 20}
    async with open_rooms(url, timeout=TIMEOUT, **terms) as rooms:

        @routes.websocket("/member")
        async def member(request: WebSocketRequest) -> None:
            async with request.accept() as ws, rooms.join(ws, "lobby", buffer=1000):
                await ws.wait_closed()

        @routes.websocket("/publisher")
        async def publisher(request: WebSocketRequest) -> None:
            async with request.accept() as ws:
                async for text in ws:
                    try:
                        await rooms.publish("lobby", text)
                    except BrokerDown as exc:
                        await ws.send("uncertain" if exc.uncertain else "down")
                    else:
                        await ws.send("published")

        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(serve_websocket, routes, 0)
                print(server.port, flush=True)  # noqa: T201  # a program that says where it is
                await anext(signals)
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def start_server(url: str) -> AsyncIterator[str]:
    """Start a server as a process of its own."""
    process = await trio.lowlevel.open_process(
        [sys.executable, __file__, "--serve", url], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE):
            port = int(await process.stdout.receive_some())
        yield f"ws://127.0.0.1:{port}"
        process.terminate()
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


# Who takes part...


@attrs.define
class Entry:
    """One thing that a member was sent: a message, or that something is lost."""

    at: float
    position: str
    data: str | None = None


@attrs.define
class Trial:
    """What is to happen, and has happened."""

    members: int
    """Of each server."""
    kinds: int
    """How many outages there are."""
    pause: float
    """Seconds between two messages of a publisher."""
    soon: float
    """Seconds in which delivery has to go on, once Redis is back."""
    transcripts: list[list[Entry]] = attrs.field(factory=list)
    answers: dict[str, str] = attrs.field(factory=dict)
    """What became of each message, as its publisher was told."""
    outages: list[tuple[str, float, float]] = attrs.field(factory=list)
    """Their kinds, begins and ends."""


async def be_member(ws: WebSocket, transcript: list[Entry]) -> None:
    async for text in ws:
        said = json.loads(text)
        if said.get("resume") == "lost" or "data" in said:
            transcript.append(Entry(time.monotonic(), said["position"], said.get("data")))
    raise AssertionError("a member was disconnected")


async def be_publisher(ws: WebSocket, name: str, trial: Trial) -> None:
    for number in itertools.count():
        data = f"{name}:{number}"
        await ws.send(data)
        trial.answers[data] = str(await ws.receive())
        await trio.sleep(trial.pause)


# Outages...


async def restart_empty(redis: RedisServer) -> None:
    redis.kill()
    for leftover in redis.folder.glob("appendonlydir/*"):
        leftover.unlink()
    await trio.sleep(0.5)
    await trio.to_thread.run_sync(redis.start)


async def restart_with_data(redis: RedisServer) -> None:
    redis.kill()
    await trio.sleep(0.5)
    await trio.to_thread.run_sync(redis.start)


async def freeze(redis: RedisServer) -> None:
    redis.signal(signal.SIGSTOP)
    await trio.sleep(3 * TIMEOUT)
    redis.signal(signal.SIGCONT)


async def stutter(redis: RedisServer) -> None:
    redis.signal(signal.SIGSTOP)
    await trio.sleep(TIMEOUT / 4)
    redis.signal(signal.SIGCONT)


async def cut_off(redis: RedisServer) -> None:
    await trio.to_thread.run_sync(redis.command, "CLIENT", "KILL", "TYPE", "normal")
    await trio.to_thread.run_sync(redis.command, "CLIENT", "KILL", "TYPE", "pubsub")


OUTAGES = [restart_empty, restart_with_data, freeze, cut_off, stutter]


async def run(trial: Trial) -> None:
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisServer(Path(folder), "--appendonly", "yes")
        redis.start()
        try:
            await run_servers(redis, trial)
        finally:
            redis.stop()


async def run_servers(redis: RedisServer, trial: Trial) -> None:
    async with (
        start_server(redis.url) as one,
        start_server(redis.url) as other,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(run_clients, trial, [one, other])
        await go_on(trial, time.monotonic())
        for outage in itertools.islice(itertools.cycle(OUTAGES), trial.kinds):
            begin = time.monotonic()
            await outage(redis)
            end = time.monotonic()
            trial.outages.append((outage.__name__, begin, end))
            await go_on(trial, end)
        nursery.cancel_scope.cancel()


async def go_on(trial: Trial, since: float) -> None:
    """Wait until everybody has been sent ten messages that came after a moment."""

    def came(transcript: list[Entry]) -> bool:
        last = [entry for entry in transcript if entry.data][-10:]
        return len(last) == 10 and last[0].at >= since

    with trio.fail_after(PATIENCE):
        while not all(map(came, trial.transcripts)):  # noqa: ASYNC110  # simpler than events
            await trio.sleep(trial.pause)


async def run_clients(trial: Trial, urls: list[str], task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:

        async def run_client(
            url: str, task: Callable[..., object], *args: object, task_status: trio.TaskStatus
        ) -> None:
            async with open_websocket(url) as ws:
                task_status.started()
                await task(ws, *args)

        for url in urls:
            for _ in range(trial.members):
                trial.transcripts.append([])
                await nursery.start(run_client, f"{url}/member", be_member, trial.transcripts[-1])
        for name, url in zip("abc", itertools.cycle(urls), strict=False):
            await nursery.start(run_client, f"{url}/publisher", be_publisher, name, trial)
        task_status.started()


# The judgement...


def judge(trial: Trial) -> dict[str, object]:
    """Check what each member was sent; return figures."""
    order: dict[str, str] = {}
    for transcript in trial.transcripts:
        judge_member(transcript, trial, order)
    resumed = {}
    for number, (kind, _, end) in enumerate(trial.outages):
        slowest = 0.0
        for transcript in trial.transcripts:
            first = next(entry.at for entry in transcript if entry.data and entry.at >= end)
            slowest = max(slowest, first - end)
        resumed[f"{number} {kind}"] = round(slowest, 3)
    answers = Counter(trial.answers.values())
    losses = [sum(entry.data is None for entry in each) for each in trial.transcripts]
    assert max(resumed.values()) < trial.soon + trial.pause, resumed
    return {
        "members": len(trial.transcripts),
        "outages": len(trial.outages),
        "publications": dict(answers),
        "deliveries": sum(len(each) for each in trial.transcripts) - sum(losses),
        "losses announced to each": f"{min(losses)} to {max(losses)}",
        "seconds until delivery went on, slowest member": resumed,
    }


def judge_member(transcript: list[Entry], trial: Trial, places: dict[str, str]) -> None:
    seen: dict[str, int] = {}
    last: dict[str, int] = {}  # per epoch
    epochs: list[str] = []
    by_publisher: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(transcript):
        if entry.data is None:
            continue
        assert entry.data not in seen, f"{entry.data} came twice"
        seen[entry.data] = index
        epoch, _, offset = entry.position.partition(":")
        assert int(offset) > last.get(epoch, 0), f"{entry.data} came too late"
        last[epoch] = int(offset)
        if epoch not in epochs:
            epochs.append(epoch)
        assert epochs[-1] == epoch, f"{entry.data} is of an epoch that was over"
        # Whoever gets a message, gets it with the same place in the order of all.
        assert places.setdefault(entry.data, entry.position) == entry.position
        name, _, number = entry.data.partition(":")
        by_publisher[name].append(int(number))
    for numbers in by_publisher.values():
        assert numbers == sorted(numbers)
    gaps = [index for index, entry in enumerate(transcript) if entry.data is None]
    for data, answer in trial.answers.items():
        if answer == "down":
            assert data not in seen, f"{data} was published, though its publisher heard otherwise"
        if answer == "published" and data not in seen:
            name, _, number = data.partition(":")
            received = by_publisher[name]
            before = max((n for n in received if n < int(number)), default=None)
            after = min((n for n in received if n > int(number)), default=None)
            first = -1 if before is None else seen[f"{name}:{before}"]
            end = len(transcript) if after is None else seen[f"{name}:{after}"]
            if after is None and int(number) >= max(received, default=0):
                continue  # it was on its way when the trial ended
            assert any(first < gap < end for gap in gaps), f"{data} was lost without a word"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=200, help="of each server")
    parser.add_argument("--outages", type=int, default=15)
    parser.add_argument("--pause", type=float, default=0.5, help="between a publisher's messages")
    parser.add_argument("--soon", type=float, default=1, help="when delivery has to go on")
    parser.add_argument("--serve", metavar="URL", help="be one of the servers")
    args = parser.parse_args()
    if args.serve:
        trio.run(serve, args.serve)
        return
    trial = Trial(args.members, args.outages, args.pause, args.soon)
    trio.run(run, trial)
    figures = judge(trial)
    print(json.dumps(figures, indent=2))  # noqa: T201  # its result


if __name__ == "__main__":
    main()
