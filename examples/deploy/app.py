"""A chat as it is deployed: several of these processes behind nginx, their rooms on Redis.

::

    CHAT_REDIS=redis://localhost python examples/deploy/app.py --port 8001
    CHAT_REDIS=redis://localhost python examples/deploy/app.py --port 8002

SIGTERM drains: nobody new comes in, clients are told Close 1012 and come back to another
process, where they go on from where they were (``?since=``).
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal

import trio

from trio_ws import (
    START,
    BrokerDown,
    CloseCode,
    Envelope,
    History,
    Options,
    Request,
    Response,
    Rooms,
    Routes,
    WebSocketRequest,
    health_page,
    serve_websocket,
)
from trio_ws.redis import open_rooms

OPTIONS = Options(trusted_proxies=["127.0.0.1"])
HISTORY = History(count=200, age=3600)
DRAIN = 20  # seconds; systemd waits longer, see chat@.service


def make_routes(rooms: Rooms) -> Routes:
    routes = Routes()
    routes.get("/health")(health_page())  # 503 while it drains

    @routes.get("/ready")  # 503 while Redis is away, too
    async def ready(request: Request) -> Response:
        reason = rooms.degraded
        return Response("ok\n") if reason is None else Response(f"{reason}\n", status=503)

    @routes.websocket("/chat/{room}")
    async def chat(request: WebSocketRequest, *, room: str) -> None:
        since = request.query.get("since", START)
        async with request.accept() as ws, rooms.join(ws, room, since=since):
            async for text in ws:
                try:
                    await rooms.publish(room, text)
                except BrokerDown:
                    await ws.aclose(CloseCode.TRY_AGAIN_LATER, "not said: the rooms are away")

    return routes


async def main() -> None:
    parser = argparse.ArgumentParser(description="One process of a chat.")
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")  # for journald
    url = os.environ["CHAT_REDIS"]

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            open_rooms(url, history=HISTORY, codec=Envelope(), prefix="chat") as rooms,
            trio.open_nursery() as nursery,
        ):
            serve = functools.partial(
                serve_websocket, make_routes(rooms), args.port, host="127.0.0.1", options=OPTIONS
            )
            server = await nursery.start(serve)
            await anext(signals)
            await server.drain(deadline=DRAIN, batch=100, interval=0.1)


if __name__ == "__main__":
    trio.run(main)
