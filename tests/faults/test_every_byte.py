"""The network fails behind each byte of a conversation, in each direction and manner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
import trio

from trio_ws import (
    ConnectionLost,
    HandshakeError,
    WebSocket,
    WebSocketRequest,
)
from trio_ws.testing import Connect, Direction, Link, open_server
from trio_ws.testing._leaks import Snapshot, settle

FAULTS: dict[str, Callable[[Direction, int], None]] = {
    "the end of TCP": Direction.end_after,
    "a reset": Direction.reset_after,
}
PATIENCE = 10 + 20 + 20 + 5 + 1
"""Seconds: handshake_timeout, ping_interval, ping_timeout, close_grace, and a moment."""


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def converse(ws: WebSocket) -> None:
    for message in ("grüße", bytes(3000), ""):
        await ws.send(message)
        assert await ws.receive() == message
    await ws.ping()
    async with ws.open_message(text=True) as part:
        await part.send("one")
        await part.send("two")
    assert await ws.receive() == "onetwo"
    await ws.aclose(1000, "bye")


async def try_to_converse(connect: Connect, link: Link) -> str:
    """Return how far it came."""
    try:
        async with connect(link=link) as ws:
            await converse(ws)
    except HandshakeError:
        return "no handshake"
    except ConnectionLost:
        return "lost"
    return "all"


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """After the block no task runs and no socket is open that was not before."""
    before = Snapshot.take()
    yield
    assert await settle(before.leftovers, PATIENCE) == []


async def conversation_length(*, tls: bool = False) -> tuple[int, int]:
    """Return the bytes to the server and back."""
    link = Link()
    async with open_server(echo, tls=tls) as connect:
        assert await try_to_converse(connect, link) == "all"
    return link.to_server.received, link.to_client.received


def positions(length: int, *, step: int) -> Iterable[int]:
    """All, or some: but always the first and the last ones."""
    return sorted({*range(0, length, step), *range(min(8, length)), *range(length - 40, length)})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("towards", ["server", "client"])
async def test_a_connection_may_break_behind_any_byte(towards, fault, autojump_clock) -> None:
    length = (await conversation_length())[towards == "client"]
    outcomes = set()
    async with open_server(echo) as connect:
        for count in range(length):
            link = Link()
            FAULTS[fault](getattr(link, f"to_{towards}"), count)
            async with nothing_left():
                with trio.fail_after(PATIENCE):
                    outcomes.add(await try_to_converse(connect, link))
        assert not connect.server.connections
    assert outcomes >= {"no handshake", "lost"}


@pytest.mark.parametrize("towards", ["server", "client"])
async def test_a_connection_may_go_silent_behind_any_byte(towards, autojump_clock) -> None:
    """Whoever pulled the cable told nobody: only the timeouts find out."""
    length = (await conversation_length())[towards == "client"]
    outcomes = set()
    async with open_server(echo) as connect:
        for count in range(length):
            link = Link()
            getattr(link, f"to_{towards}").cut_after(count)
            async with nothing_left():
                with trio.fail_after(PATIENCE):
                    outcomes.add(await try_to_converse(connect, link))
                link.half_open()
        assert not connect.server.connections
    assert outcomes >= {"no handshake", "lost"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("towards", ["server", "client"])
async def test_tls_may_be_cut_short_behind_any_byte(towards, fault, autojump_clock) -> None:
    length = (await conversation_length(tls=True))[towards == "client"]
    outcomes = set()
    async with open_server(echo, tls=True) as connect:
        for count in positions(length - 30, step=29):  # lengths differ by some bytes each time
            link = Link()
            FAULTS[fault](getattr(link, f"to_{towards}"), count)
            async with nothing_left():
                with trio.fail_after(PATIENCE):
                    outcomes.add(await try_to_converse(connect, link))
    assert outcomes >= {"no handshake", "lost"}


async def test_an_end_in_the_middle_of_a_message_is_a_loss_and_keeps_what_was_whole(
    autojump_clock,
) -> None:
    async def receive_all(request: WebSocketRequest, received: list[str | bytes]) -> None:
        async with request.accept() as ws:
            while True:
                received.append(await ws.receive())

    async def handler(request: WebSocketRequest) -> None:
        received: list[str | bytes] = []
        with pytest.raises(ConnectionLost) as raised:
            await receive_all(request, received)
        assert received == ["whole"]
        assert raised.value.code == 1006
        reports.append(raised.value.reason)

    reports: list[str] = []
    async with open_server(handler) as connect, connect.raw() as peer:
        await peer.send(b"\x81\x85\0\0\0\0whole" + b"\x01\x83\0\0\0\0abc" + b"\x80\x85\0\0\0\0x")
        await peer.send_end()
        await peer.expect_end()
    assert reports == ["the peer ended TCP without a Close"]
