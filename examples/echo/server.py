"""Echo: whatever comes is sent back, and a page to try it, on one port.

::

    python examples/echo/server.py

Text comes back as text, bytes as bytes: ``receive()`` returns `str` or `bytes`, and
``send()`` sends each as what it is.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import signal
from pathlib import Path

import trio

from trio_ws import Routes, WebSocketRequest, serve_websocket

routes = Routes()
routes.static("/", Path(__file__).parent / "page")


@routes.websocket("/echo")
async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Send back whatever comes.")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any")
    args = parser.parse_args()
    serve = functools.partial(serve_websocket, routes, args.port, host=args.host)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve)
            print(f"Echo is at http://{args.host}:{server.port}/ (Ctrl-C ends it)", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="told to stop by a signal")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # another Ctrl-C, while it ends
        trio.run(main)
