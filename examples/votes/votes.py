"""Votes: a page to vote on, a page for the staff behind a password, rooms between them."""

import json
import os
import secrets
from pathlib import Path

from trio_ws import Rooms, Routes, WebSocketRequest, basic_auth

HERE = Path(__file__).parent
PASSWORD = os.environ.get("VOTES_PASSWORD") or secrets.token_hex()  # unset, nobody gets in

routes = Routes()
votes = {"tea": 0, "coffee": 0, "water": 0}
rooms = Rooms()


@routes.websocket("/live")
async def vote(request: WebSocketRequest) -> None:
    async with request.accept() as ws, rooms.join(ws, "votes"):
        await ws.send(json.dumps(votes))
        async for choice in ws.text:
            if choice in votes:
                votes[choice] += 1
                await rooms.publish("votes", votes)


staff = Routes()
staff.static("/", HERE / "staff")


@staff.websocket("/live")
async def control(request: WebSocketRequest) -> None:
    async with request.accept() as ws, rooms.join(ws, "votes"):
        await ws.send(json.dumps(votes))
        async for order in ws.text:
            if order == "begin anew":
                votes.update(dict.fromkeys(votes, 0))
                await rooms.publish("votes", votes)


def check(user: str, password: str) -> bool:
    right = secrets.compare_digest(password.encode(), PASSWORD.encode())
    return user == "staff" and right


routes.include("/staff", basic_auth(staff, check, realm="staff of the votes"))
routes.static("/", HERE / "web")  # last: it takes every path that is left
