"""A handler to be tested: it shouts back what it is told."""

from __future__ import annotations

from trio_ws import WebSocketRequest


async def shout(request: WebSocketRequest) -> None:
    if request.query.get("key") != "sesame":
        await request.reject(401, body="which key?")
        return
    async with request.accept() as ws:
        async for message in ws:
            if not isinstance(message, str):
                await ws.aclose(1003, "words, please")
                return
            await ws.send(message.upper())
