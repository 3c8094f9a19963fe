"""to_asgi: a handler of ours as an ASGI application."""

from __future__ import annotations

import math
from contextlib import suppress

import trio

from .._options import Options, check_options
from .._server import check_handler
from .._server_connection import Handler, ServerConnection, ServerState
from ._relay import PageRelay, WebSocketRelay
from ._types import Receive, Scope, Send


class ASGIHandler:
    """An ASGI application: what `to_asgi` returns."""

    def __init__(self, handler: Handler, options: Options) -> None:
        check_handler(handler)
        self._state = ServerState(handler, options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection of an ASGI server.

        Raises:
          RuntimeError: the server does not run on trio.
          NotImplementedError: it asks for something that is neither HTTP nor a WebSocket.
        """
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError(
                "trio_ws runs on trio, and this ASGI server does not: use hypercorn -k trio"
            )
        kind = scope["type"]
        if kind == "lifespan":
            await _live(receive, send)
            return
        if kind not in ("http", "websocket"):
            raise NotImplementedError(f"trio_ws cannot serve the ASGI scope {kind!r}")
        relay = (PageRelay if kind == "http" else WebSocketRelay)(scope, receive, send)
        await ServerConnection(relay, self._state).run()
        with suppress(trio.BrokenResourceError):  # the client did not wait for the end
            await relay.finish()


async def _live(receive: Receive, send: Send) -> None:
    """There is nothing to be done at the server's start and end; it shall not wait."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


def to_asgi(handler: Handler, *, options: Options = Options()) -> ASGIHandler:
    """Make an ASGI application of a handler or `Routes`.

    For hypercorn's trio worker (``hypercorn --worker-class trio module:app``), or to be
    mounted in Quart-Trio or Starlette. Handlers get the same `WebSocketRequest` and
    `WebSocket` as on our own server, and the same rules are kept: origins, limits, Close 1001
    when the server cancels. Below a mount ``request.path`` is what follows the mount.

    What the ASGI server does itself: TLS, compression, pings. So of ``options``, those fields
    mean nothing here, `WebSocket.ping` measures nothing, and ``request.tls`` is `None`.
    hypercorn does not tell the client's close code: each end by the client is 1006 there.

    Raises:
      TypeError: the handler is none, or ``options`` are none.
    """
    check_options(options)
    return ASGIHandler(handler, options.replace(ping_interval=math.inf, compression=None))
