"""A chat with three bugs, none of which shows when one tries it."""

from __future__ import annotations

import trio

from trio_ws import WebSocket, WebSocketRequest

history: list[str] = []
members: set[WebSocket] = set()


async def chat(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        name = str(await ws.receive())
        members.add(ws)
        try:
            while ws.close_info is None:
                await relay(ws, name)
        finally:
            members.discard(ws)


async def relay(ws: WebSocket, name: str) -> None:
    """Pass on a message; after a minute of silence, ask whether anybody is there."""
    with trio.move_on_after(60) as minute:
        line = f"{name}: {await ws.receive()!s}"
        await save(line)
        for member in tuple(members):
            await member.send(line)
    if minute.cancelled_caught:
        await ws.send("still there?")


async def save(line: str) -> None:
    await trio.sleep(0.01)  # the time that a database takes
    history.append(line)
