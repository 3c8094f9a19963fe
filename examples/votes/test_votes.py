"""Tests of the votes: without a browser, a port, or a second of waiting."""

import json
from base64 import b64encode

import pytest
import votes

from trio_ws import ConnectionRejected, WebSocket
from trio_ws.testing import Serve


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    votes.votes.update(tea=0, coffee=0, water=0)


async def next_votes(ws: WebSocket) -> dict[str, int]:
    counts: dict[str, int] = json.loads(await ws.receive())
    return counts


def header(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"staff:{password}".encode()).decode()}


async def test_everybody_sees_each_vote(serve: Serve) -> None:
    connect = await serve(votes.routes)
    async with connect("/live") as ann, connect("/live") as bob:
        assert await next_votes(ann) == {"tea": 0, "coffee": 0, "water": 0}
        assert await next_votes(bob) == {"tea": 0, "coffee": 0, "water": 0}
        await ann.send("tea")
        assert await next_votes(ann) == {"tea": 1, "coffee": 0, "water": 0}
        assert await next_votes(bob) == {"tea": 1, "coffee": 0, "water": 0}


async def test_what_is_not_on_the_list_does_not_count(serve: Serve) -> None:
    connect = await serve(votes.routes)
    async with connect("/live") as ann:
        await next_votes(ann)
        await ann.send("beer")
        await ann.send("water")
        assert await next_votes(ann) == {"tea": 0, "coffee": 0, "water": 1}


async def test_the_staff_begins_anew_for_all(serve: Serve) -> None:
    connect = await serve(votes.routes)
    votes.votes["tea"] = 5
    async with (
        connect("/live") as ann,
        connect("/staff/live", headers=header(votes.PASSWORD)) as boss,
    ):
        assert (await next_votes(ann))["tea"] == 5
        await next_votes(boss)
        await boss.send("begin anew")
        assert (await next_votes(ann))["tea"] == 0


@pytest.mark.parametrize("headers", [{}, header("guessed"), header("gerät")])
async def test_nobody_else_gets_to_the_staff(serve: Serve, headers: dict[str, str]) -> None:
    connect = await serve(votes.routes)
    with pytest.raises(ConnectionRejected, match="401"):
        async with connect("/staff/live", headers=headers):
            pass
