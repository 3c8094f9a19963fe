"""Chat: rooms by URL, nicknames, who is here, and the last messages for a newcomer.

::

    python examples/chat/server.py
    python examples/chat/server.py --host 0.0.0.0      # for the phones in your network, too
    python examples/chat/server.py --port 8001 --redis redis://localhost      # one of several

Each path is a room: ``/chat/lobby``, ``/chat/kitchen``. A browser sends what is said as
plain text, and is sent JSON:

* ``{"people": {id: name}, "you": name}``, ``{"joined": {"id": ..., "name": ...}}`` and
  ``{"left": ...}``: who is here, from the room's presence;
* ``{"position": ..., "data": {"name": ..., "text": ..., "at": ...}}``: what was said. A page
  that reconnects with ``?since=<position>`` gets what it has missed, and nothing twice;
* ``{"unsaid": text}``: Redis is away, so nobody has heard what was said.

A nickname is no identity: whoever needs one checks a cookie or a token before ``accept()``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import signal
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import trio

from trio_ws import (
    START,
    BrokerDown,
    CloseCode,
    Envelope,
    History,
    Joined,
    Options,
    Presence,
    Request,
    Response,
    Rooms,
    Routes,
    WebSocket,
    WebSocketRequest,
    serve_websocket,
)

MAX_NAME = 24  # characters
MAX_ROOM = 32
MAX_TEXT = 1000
PAUSE = 0.05  # seconds between two messages of one person: who floods waits, nobody else
HISTORY = History(count=50, age=24 * 3600)
OPTIONS = Options(max_message_size=4 * MAX_TEXT, close_grace=1)
PAGE = Path(__file__).parent / "page"
# Only what this server serves is run, shown or connected to, whatever a message may smuggle in.
SAFETY = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'"}


@contextlib.asynccontextmanager
async def open_chat_rooms(redis: str | None) -> AsyncGenerator[Rooms, None]:
    """Open rooms: those of this process, or, with the URL of a Redis, of all that have it."""
    if redis is None:
        yield Rooms(history=HISTORY, codec=Envelope())
        return
    from trio_ws.redis import open_rooms  # noqa: PLC0415  # only who needs it installs it

    async with open_rooms(redis, history=HISTORY, codec=Envelope(), prefix="chat") as rooms:
        yield rooms


def make_routes(rooms: Rooms | None = None) -> Routes:
    rooms = rooms or Rooms(history=HISTORY, codec=Envelope())
    index = Response(
        (PAGE / "index.html").read_text("utf-8"),
        content_type="text/html; charset=utf-8",
        headers={"Cache-Control": "no-cache", **SAFETY},
    )
    routes = Routes()
    routes.static("/static", PAGE)

    @routes.get("/")
    async def home(request: Request) -> Response:
        return Response(status=303, headers={"Location": "/chat/lobby"})

    @routes.get("/chat/{room}")
    async def page(request: Request, *, room: str) -> Response:
        return index if is_room(room) else Response("There is no such room.\n", status=404)

    @routes.websocket("/chat/{room}")
    async def chat(request: WebSocketRequest, *, room: str) -> None:
        if not is_room(room):
            await request.reject(404)
            return
        name = clean(request.query.get("name", ""))
        since = request.query.get("since", START)
        async with (
            request.accept() as ws,
            rooms.join(ws, room, meta=name, since=since),
            rooms.presence(room) as presence,
            ws.open_nursery() as nursery,
        ):
            nursery.start_soon(tell_presence, ws, name, presence)
            nursery.start_soon(listen, ws, name, rooms, room)

    return routes


async def tell_presence(ws: WebSocket, name: str, presence: Presence) -> None:
    people = {each.id: each.meta for each in presence.snapshot}
    await ws.send(json.dumps({"people": people, "you": name}))
    async for event in presence:
        what = "joined" if isinstance(event, Joined) else "left"
        await ws.send(json.dumps({what: {"id": event.id, "name": event.meta}}))


async def listen(ws: WebSocket, name: str, rooms: Rooms, room: str) -> None:
    async for text in ws:
        if not isinstance(text, str):
            await ws.aclose(CloseCode.UNSUPPORTED_DATA, "say it as text")
        elif len(text) > MAX_TEXT:
            await ws.aclose(CloseCode.MESSAGE_TOO_BIG, f"at most {MAX_TEXT} characters")
        elif text.strip():
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            try:
                await rooms.publish(room, {"name": name, "text": text.strip(), "at": at})
            except BrokerDown:
                await ws.send(json.dumps({"unsaid": text.strip()}))
            await trio.sleep(PAUSE)


def clean(name: str) -> str:
    """Leave out of a nickname what has no look of its own, such as a change of direction."""
    return "".join(filter(str.isprintable, name)).strip()[:MAX_NAME].strip() or "Nobody"


def is_room(room: str) -> bool:
    return len(room) <= MAX_ROOM and room.isprintable()


async def main() -> None:
    parser = argparse.ArgumentParser(description="A chat, and its page.")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any")
    parser.add_argument("--redis", metavar="URL", help="share the rooms with other processes")
    args = parser.parse_args()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_chat_rooms(args.redis) as rooms, trio.open_nursery() as nursery:
            serve = functools.partial(
                serve_websocket, make_routes(rooms), args.port, host=args.host, options=OPTIONS
            )
            server = await nursery.start(serve)
            print(f"The chat is at http://{args.host}:{server.port}/ (Ctrl-C ends it)", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="told to stop by a signal")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # another Ctrl-C, while it ends
        trio.run(main)
