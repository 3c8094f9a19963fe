"""ASGI servers for tests: one in memory that does what a test says, and hypercorn on trio."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from _components import PATIENCE
from hypercorn.config import Config
from hypercorn.trio import serve

import trio_ws
from trio_ws.asgi._types import Application, Event


class FakeServer:
    """One connection of an ASGI server: a test puts events in, and reads what comes out."""

    def __init__(self, kind: str = "websocket", **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws" if kind == "websocket" else "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"test")],
            "client": ("192.0.2.1", 1234),
            "server": ("192.0.2.2", 80),
            **scope,
        }
        if kind == "websocket":
            self.scope.setdefault("subprotocols", [])
        else:
            self.scope.setdefault("method", "GET")
        self._put, self._receive = trio.open_memory_channel[Event](100)
        self._send, self._sent = trio.open_memory_channel[Event](0)
        self.failure: Exception | None = None
        """What ``send()`` raises."""

    async def run(self, app: Application) -> None:
        """Let the application have the connection; at its end there are no more events."""
        async with self._send:
            await app(self.scope, self._receive.receive, self._note)

    async def _note(self, event: Event) -> None:
        if self.failure is not None:
            raise self.failure
        await self._send.send(event)

    def put(self, kind: str, **event: Any) -> None:
        """Let the application receive an event."""
        self._put.send_nowait({"type": kind, **event})

    async def next(self) -> Event:
        """Return the next event that the application sends."""
        return await self._sent.receive()

    async def rest(self) -> list[Event]:
        """Return all that it still sends."""
        return [event async for event in self._sent]


class Hypercorn:
    """A hypercorn that runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        """``http://...`` or ``https://...``, without a slash at the end."""
        self.stop = trio.Event()

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def open(self, path: str, **arguments: Any) -> Any:
        return trio_ws.open_websocket(self.ws_url + path, **arguments)

    async def get(self, path: str, method: str = "GET", *headers: str) -> bytes:
        """Return the whole answer to a request for a page."""
        port = int(self.url.rpartition(":")[2])
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all("\r\n".join(lines).encode())
            answer = b""
            async for chunk in stream:
                answer += chunk
                head, end, body = answer.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                if end and (method == "HEAD" or (length and len(body) == int(length[1]))):
                    break
            return answer


@asynccontextmanager
async def run_hypercorn(
    app: Any, *, tls: tuple[str, str] | None = None
) -> AsyncGenerator[Hypercorn, None]:
    """Serve an ASGI application with hypercorn's trio worker, on a free port.

    ``tls``: files with a certificate and its key.
    """
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 0.1
    config.errorlog = None
    if tls is not None:
        config.certfile, config.keyfile = tls
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            start = partial(serve, app, config, shutdown_trigger=stop.wait)
            (url,) = await nursery.start(start)
            server = Hypercorn(url)
            server.stop = stop
            yield server
            stop.set()


def context_for(authority: Any) -> ssl.SSLContext:
    """Return a context of clients that trust an authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
