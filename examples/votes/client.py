"""A voter that is a program."""

import trio

from trio_ws import open_websocket


async def main() -> None:
    async with open_websocket("ws://localhost:8000/") as ws:
        await ws.send("coffee")
        print(await ws.receive())


trio.run(main)
