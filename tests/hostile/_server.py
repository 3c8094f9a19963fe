"""The server under attack: a program of its own, so that it can be measured.

::

    _server.py '{"options": {...}, "files": 64, "certificate": "pem", "jump": true}'

It serves the handlers below by path, with default options but for those that are given,
and answers a command a line on standard input with a line of JSON. It ends when its
standard input does.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import resource
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final

import trio

from trio_ws import (
    Options,
    Rooms,
    Server,
    WebSocket,
    WebSocketRequest,
    serve_websocket,
)

# Handlers...


async def echo(ws: WebSocket) -> None:
    """Send back what comes."""
    async for message in ws:
        await ws.send(message)


async def sleep(ws: WebSocket) -> None:
    """Never receive."""
    async with ws.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def slow(ws: WebSocket) -> None:
    """Receive a message each half second."""
    async for _ in ws:
        await trio.sleep(0.5)


async def leave(ws: WebSocket) -> None:
    """Close at once."""


async def leave_unread(ws: WebSocket) -> None:
    """Close when there is much to receive."""
    for _ in range(1000):
        if ws.statistics().unread_messages >= 300:
            return
        await trio.sleep(0.01)


async def fail(ws: WebSocket) -> None:
    """Fail when something comes."""
    await ws.receive()
    raise LookupError("the handler is broken")


async def push(ws: WebSocket) -> None:
    """Send 8 MiB and ping, and receive meanwhile."""

    async def produce() -> None:
        for _ in range(128):
            await ws.send(bytes(64 * 1024))
            await ws.ping()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        for _ in range(128):
            await ws.receive()
    await ws.wait_closed()  # the client may still wait for a pong


async def produce(ws: WebSocket) -> None:
    """Send for ever, receive nothing."""
    while True:
        await ws.send(bytes(64 * 1024))


async def fill_and_leave(ws: WebSocket) -> None:
    """Send more than the network takes from a peer that does not read, and close."""
    with trio.move_on_after(0.2):
        await produce(ws)


async def stubborn(ws: WebSocket) -> None:
    """Ignore cancellation for a while."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)


rooms = Rooms()


async def listen(ws: WebSocket) -> None:
    """Get what is published in the room."""
    async with rooms.join(ws, "room"):
        async for _ in ws:
            pass


async def publish(ws: WebSocket) -> None:
    """Publish in the room what comes."""
    async for message in ws:
        await rooms.publish("room", message)


HANDLERS: Final[dict[str, Callable[[WebSocket], Awaitable[None]]]] = {
    f"/{each.__name__.replace('_', '-')}": each
    for each in (
        *(echo, sleep, slow, leave, leave_unread, fail, push, produce),
        *(fill_and_leave, stubborn),
        *(listen, publish),
    )
}


async def handle(request: WebSocketRequest) -> None:
    """Serve a path; what is not known is an echo."""
    if request.path in _SPLITTERS:
        await _SPLITTERS[request.path](request)
    elif request.path == "/silent":
        await trio.sleep_forever()
    else:
        async with request.accept() as ws:
            await HANDLERS.get(request.path, echo)(ws)


# Handlers that pass on what a request says...


async def split_accept(request: WebSocketRequest) -> None:
    """Put the query into a header of the 101."""
    async with request.accept(headers=[("X-Value", request.query["value"])]) as ws:
        await echo(ws)


async def split_name(request: WebSocketRequest) -> None:
    """Put the query into a header's name."""
    async with request.accept(headers=[(request.query["value"], "x")]) as ws:
        await echo(ws)


async def split_subprotocol(request: WebSocketRequest) -> None:
    """Take the query for a subprotocol."""
    async with request.accept(request.query["value"]) as ws:
        await echo(ws)


async def split_reject(request: WebSocketRequest) -> None:
    """Put the query into a header of a refusal."""
    await request.reject(403, headers=[("X-Value", request.query["value"])])


_SPLITTERS: Final = {
    f"/{each.__name__.replace('_', '-')}": each
    for each in (split_accept, split_name, split_subprotocol, split_reject)
}


# What is measured inside...


class Passes(trio.abc.Instrument):
    """How much CPU the longest pass of the event loop took: so long everybody else waited."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._since = math.inf

    def after_io_wait(self, timeout: float) -> None:
        """Begin."""
        self._since = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        """End."""
        self.longest = max(self.longest, time.thread_time() - self._since)

    def restart(self) -> None:
        """Forget what was, the current pass included: it is spent on measuring."""
        self.longest = 0.0
        self._since = math.inf


# The program...


async def main(config: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    if files := config.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if config.get("jump"):
        _let_the_wall_clock_jump()
    context = None
    if certificate := config.get("certificate"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    serve = partial(
        serve_websocket,
        handle,
        0,
        host="127.0.0.1",
        ssl_context=context,
        options=Options(**config.get("options", {})),
    )
    async with trio.open_nursery() as nursery:
        stopped = trio.Event()
        scope = trio.CancelScope()

        async def run(  # noqa: ASYNC114  # a name that only this function knows
            task_status: trio.TaskStatus[Server],
        ) -> None:
            with scope:
                await serve(task_status=task_status)
            stopped.set()

        server: Server = await nursery.start(run)
        answer({"port": server.port})
        await obey(server, scope, stopped)
        nursery.cancel_scope.cancel()


async def obey(server: Server, scope: trio.CancelScope, stopped: trio.Event) -> None:
    """Carry out commands."""
    passes = Passes()
    trio.lowlevel.add_instrument(passes)
    pending = b""
    async for data in trio.lowlevel.FdStream(0):
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            started = time.monotonic()
            if line == b"stacks":
                answer(dict(Counter(map(stack, all_tasks()))))
                continue
            if line == b"cpu":
                answer({"cpu": time.process_time()})
                continue
            if line == b"cancel":
                scope.cancel()
                await stopped.wait()
            elif line == b"drain":
                await server.drain(deadline=2)
                await stopped.wait()
            answer({**report(server, passes), "seconds": time.monotonic() - started})


def report(server: Server, passes: Passes) -> dict[str, Any]:
    """Return what only the server itself knows."""
    gc.collect()
    statistics = server.statistics()
    result = {
        "cpu": time.process_time(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "objects": len(gc.get_objects()),
        "longest_pass": passes.longest,
        "connections": statistics.connections,
        "opening": statistics.opening,
        "accepted": statistics.accepted,
        "rejected": statistics.rejected,
        "close_codes": statistics.close_codes,
        "memory": statistics.memory,
    }
    passes.restart()
    return result


def all_tasks() -> Iterator[trio.lowlevel.Task]:
    """Yield every task."""
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        assert task is not None
        yield task
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks


def stack(task: trio.lowlevel.Task) -> str:
    """Return where a task is, innermost first."""
    try:
        frames = [frame for frame, _ in task.iter_await_frames()]
    except TypeError:
        frames = []
    return " < ".join(f"{each.f_code.co_name}:{each.f_lineno}" for each in reversed(frames))


def answer(result: dict[str, Any]) -> None:
    """Print a line."""
    print(json.dumps(result), flush=True)  # noqa: T201  # a program's output


def _let_the_wall_clock_jump() -> None:
    """Every look at the wall clock finds it days away from the last, forth and back."""
    days = 86400 * 7
    offset = days

    def jumping_time() -> float:
        nonlocal offset
        offset = -offset
        return time.clock_gettime(time.CLOCK_REALTIME) + offset

    time.time = jumping_time


if __name__ == "__main__":
    config = json.loads(sys.argv[1])
    logging.basicConfig(level=config["level"], format="%(levelname)s %(name)s %(message)s")
    trio.run(main, config)
