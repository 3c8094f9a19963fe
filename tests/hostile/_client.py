"""Our client, in a program of its own: it goes where it is told, and tells what happened.

::

    _client.py '{"options": {...}}'

Each line on standard input is ``{"name": ..., "url": ...}``, and each gets a line as an
answer when that connection is over. Connections run side by side.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import trio

from trio_ws import ConnectionClosed, Options, open_websocket


async def main(config: dict[str, Any]) -> None:
    """Run until standard input ends."""
    options = Options(**config["options"])
    pending = b""
    print("ready", flush=True)  # noqa: T201  # a program's output
    async with trio.open_nursery() as nursery:
        async for data in trio.lowlevel.FdStream(0):
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                nursery.start_soon(visit, json.loads(line), options)


async def visit(order: dict[str, str], options: Options) -> None:
    """Connect, talk until the end, tell."""
    result: dict[str, Any] = {"name": order["name"], "messages": 0}
    if order["name"] == "good":
        options = Options()  # it is in no hurry
    started = trio.current_time()
    try:
        async with open_websocket(order["url"], options=options) as ws:
            if order["name"].startswith("closed at once"):
                return
            if order["name"] == "good":
                await echo_for_ever(ws, result)
            async with trio.open_nursery() as nursery:
                if order["name"].startswith("sends"):
                    nursery.start_soon(send_for_ever, ws)
                async for _ in ws:
                    result["messages"] += 1
                nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: BLE001, ASYNC103  # which one it was is asked
        while isinstance(exc, BaseExceptionGroup):
            exc = exc.exceptions[0]
        result["error"] = "OSError" if isinstance(exc, OSError) else type(exc).__name__
        result["text"] = str(exc)
        if isinstance(exc, ConnectionClosed):
            result["code"] = exc.code
    finally:
        result["seconds"] = trio.current_time() - started
        print(json.dumps(result), flush=True)  # noqa: T201  # a program's output


async def echo_for_ever(ws: Any, result: dict[str, Any]) -> None:
    """Be a well-behaved client."""
    while True:
        message = f"{result['messages']} " + "x" * 1000
        await ws.send(message)
        assert await ws.receive() == message
        await ws.ping()
        result["messages"] += 1
        await trio.sleep(0.1)


async def send_for_ever(ws: Any) -> None:
    """Send more than the peer takes."""
    try:
        while True:
            await ws.send(bytes(10_000))
    except (ConnectionClosed, trio.ClosedResourceError):
        pass


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    trio.run(main, json.loads(sys.argv[1]))
