"""Time server: two ways to push, and a page that shows both.

::

    python examples/time_server/server.py

``/clock``: one task publishes the time to a room, each second; every client is in it.
``/talk``: each client has a producer, which pushes at random moments, and a consumer,
which answers what the client says. They share a nursery that ends with the connection.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import random
import signal
from datetime import UTC, datetime
from pathlib import Path

import trio

from trio_ws import Options, Overflow, Rooms, Routes, WebSocket, WebSocketRequest, serve_websocket

OPTIONS = Options(max_message_size=1000, close_grace=1)
LONGEST_PAUSE = 3  # seconds


def make_routes(rooms: Rooms) -> Routes:
    routes = Routes()
    routes.static("/", Path(__file__).parent / "page")
    routes.websocket("/talk")(talk)

    @routes.websocket("/clock")
    async def clock(request: WebSocketRequest) -> None:
        # LATEST: a client that is slow gets the newest time, not all the old ones.
        async with request.accept() as ws, rooms.join(ws, "clock", overflow=Overflow.LATEST):
            async for _ in ws:
                pass  # nobody has to say anything here

    return routes


async def tick(rooms: Rooms) -> None:
    """Tell the time to all who are in the room: one task, however many they are."""
    next_tick = trio.current_time()
    while True:
        await rooms.publish("clock", datetime.now(UTC).isoformat())
        next_tick += 1  # not "sleep(1)": that would be late a little more each time
        await trio.sleep_until(next_tick)


async def talk(request: WebSocketRequest) -> None:
    async with request.accept() as ws, ws.open_nursery() as nursery:
        nursery.start_soon(push, ws)
        nursery.start_soon(answer, ws)


async def push(ws: WebSocket) -> None:
    while True:
        await ws.send(f"It is {clock_time()}")
        await trio.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311  # no secret


async def answer(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(f"At {clock_time()} you said {message!r}")


def clock_time() -> str:
    return f"{datetime.now(UTC):%H:%M:%S}"


async def main() -> None:
    parser = argparse.ArgumentParser(description="Tell the time to all who ask.")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any")
    args = parser.parse_args()
    rooms = Rooms()
    routes = make_routes(rooms)
    serve = functools.partial(serve_websocket, routes, args.port, host=args.host, options=OPTIONS)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve)
            nursery.start_soon(tick, rooms)
            print(f"The time is at http://{args.host}:{server.port}/ (Ctrl-C ends it)", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="told to stop by a signal")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # another Ctrl-C, while it ends
        trio.run(main)
