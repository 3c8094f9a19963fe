"""Tests of a handler: what it says, what it refuses, and what the network does to it."""

from __future__ import annotations

import pytest
import trio
from shout import shout
from trio.testing import MockClock

from trio_ws import ConnectionLost, ConnectionRejected
from trio_ws.testing import Frame, Link, Serve, cancel_everywhere, open_server


async def test_it_shouts_back(serve: Serve) -> None:
    connect = await serve(shout)
    async with connect("/?key=sesame") as ws:
        await ws.send("hello")
        assert await ws.receive() == "HELLO"


async def test_it_wants_the_key(serve: Serve) -> None:
    connect = await serve(shout)
    with pytest.raises(ConnectionRejected, match="which key"):
        async with connect("/?key=please"):
            pass


async def test_it_takes_words_only(serve: Serve) -> None:
    connect = await serve(shout)
    async with connect("/?key=sesame") as ws:
        await ws.send(b"\x00\x01")
        with pytest.raises(ConnectionLost, match="1003 'words, please'"):
            await ws.receive()


async def test_an_hour_of_silence_is_no_reason_to_leave(
    serve: Serve, autojump_clock: MockClock
) -> None:
    connect = await serve(shout)
    async with connect("/?key=sesame") as ws:
        await trio.sleep(3600)
        await ws.send("still here")
        assert await ws.receive() == "STILL HERE"


async def test_it_works_over_a_bad_line(serve: Serve, autojump_clock: MockClock) -> None:
    connect = await serve(shout)
    link = Link(latency=0.3, jitter=0.5, bandwidth=2000, chunk=(1, 9), seed=7)
    async with connect("/?key=sesame", link=link) as ws:
        await ws.send("hello" * 100)
        assert await ws.receive() == "HELLO" * 100


async def test_bytes_that_are_not_utf_8_are_the_protocols_business(serve: Serve) -> None:
    connect = await serve(shout)
    async with connect.raw("/?key=sesame") as peer:
        await peer.send(Frame.text("hello"), Frame.text(b"\xff\xfe"))
        await peer.expect(Frame.text("HELLO"))
        close = await peer.receive_frame()
        assert close is not None
        assert close.code == 1007


async def test_it_can_be_cancelled_anywhere(autojump_clock: MockClock) -> None:
    async def scenario() -> None:
        async with open_server(shout) as connect, connect("/?key=sesame") as ws:
            await ws.send("hello")
            assert await ws.receive() == "HELLO"

    await cancel_everywhere(scenario)
