"""Votes: a page to vote on."""

import json
from pathlib import Path

from trio_ws import Routes, WebSocketRequest

HERE = Path(__file__).parent

routes = Routes()
votes = {"tea": 0, "coffee": 0, "water": 0}


@routes.websocket("/live")
async def vote(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        await ws.send(json.dumps(votes))
        async for choice in ws.text:
            if choice in votes:
                votes[choice] += 1
                await ws.send(json.dumps(votes))


routes.static("/", HERE / "web")
