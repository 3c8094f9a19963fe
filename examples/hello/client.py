"""Hello: the client, which says a name and prints the answer.

See ``server.py``.
"""

from __future__ import annotations

import argparse
import sys

import trio

from trio_ws import WebSocketError, open_websocket


async def ask(url: str, name: str) -> str | bytes:
    async with open_websocket(url) as ws:
        await ws.send(name)
        return await ws.receive()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Say a name to the hello server.")
    parser.add_argument("name", nargs="?", default="World")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/", help="default: %(default)s")
    args = parser.parse_args()

    try:
        with trio.fail_after(10):  # any timeout is put around what it is for
            print(await ask(args.url, args.name))
    except (OSError, WebSocketError, trio.TooSlowError) as exc:
        sys.exit(f"No answer from {args.url}: {exc}")


if __name__ == "__main__":
    trio.run(main)
