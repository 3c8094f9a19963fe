"""The chat without its three bugs."""

from __future__ import annotations

import trio

from trio_ws import Rooms, WebSocket, WebSocketRequest

history: list[str] = []
rooms = Rooms()


async def chat(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        name = await receive_within(ws, 30)
        if name is None:
            await ws.aclose(1008, "who are you?")
            return
        async with rooms.join(ws, "chat"):
            while ws.close_info is None:
                await relay(ws, name)


async def relay(ws: WebSocket, name: str) -> None:
    """Pass on a message; after a minute of silence, ask whether anybody is there."""
    message = await receive_within(ws, 60)
    if message is None:
        await ws.send("still there?")
        return
    line = f"{name}: {message}"
    with trio.CancelScope(shield=True):
        await save(line)
    rooms.publish_nowait("chat", line)


async def receive_within(ws: WebSocket, seconds: float) -> str | None:
    with trio.move_on_after(seconds):
        return str(await ws.receive())
    return None


async def save(line: str) -> None:
    await trio.sleep(0.01)  # the time that a database takes
    history.append(line)
