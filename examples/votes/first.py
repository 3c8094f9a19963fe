"""Votes: who connects says what they would like, and is told that it was heard."""

from trio_ws import WebSocketRequest


async def vote(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for choice in ws.text:
            await ws.send(f"you voted for {choice}")
