"""Hello: a server that takes a name, greets, and closes.

Start it, then the client in another terminal::

    python examples/hello/server.py
    python examples/hello/client.py Ada

Each connection has a handler of its own. When the handler is through, the connection
is closed; when the server is cancelled, so is every handler, and every client is told.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import signal

import trio

from trio_ws import CloseCode, Options, WebSocketRequest, serve_websocket

OPTIONS = Options(max_message_size=1000)  # bytes: more than any name needs


async def hello(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        name = await ws.receive()
        if isinstance(name, str):
            await ws.send(f"Hello {name}!")
        else:
            await ws.aclose(CloseCode.UNSUPPORTED_DATA, "a name is text, not bytes")


async def main() -> None:
    parser = argparse.ArgumentParser(description="Greet whoever says a name.")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any")
    args = parser.parse_args()
    serve = functools.partial(serve_websocket, hello, args.port, host=args.host, options=OPTIONS)

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve)
            print(f"Hello is at ws://{args.host}:{server.port}/ (Ctrl-C ends it)", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="told to stop by a signal")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # another Ctrl-C, while it ends
        trio.run(main)
