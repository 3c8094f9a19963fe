"""A connection of a server with a budget: what it tells, and how it ends when it holds most."""

from __future__ import annotations

import socket
import tracemalloc
from typing import Any, Final

import pytest
import trio
from _helpers import Peer, connected_streams, settle
from trio.testing import MockClock, memory_stream_pair

from trio_ws import CloseInfo, Options
from trio_ws._budget import Budget
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._messages import OVERHEAD
from trio_ws._session import Session
from trio_ws.testing import Frame


def connect(budget: Budget, **options: Any) -> tuple[Session, Peer]:
    link, streams = connected_streams()
    stream = streams["server"]
    us = Session(stream, Options(**options), client=False, leftover=b"", budget=budget)
    return us, Peer("client", link, streams)


async def test_all_that_it_holds_is_told(autojump_clock: MockClock) -> None:
    budget = Budget(100_000)
    us, peer = connect(budget, receive_buffer=100)
    async with us as ws:
        await peer.send(peer.wire(Frame(BINARY, b"x" * 100)) * 2)
        await settle()
        assert budget.used == 100 + OVERHEAD + 2 * len(peer.wire(Frame(BINARY, b"x" * 100)))
        assert await ws.receive() == await ws.receive() == b"x" * 100
        await settle()
        assert budget.used == 0

        peer.way.buffer = 0
        await ws.send("y" * 100)
        assert budget.used == 102
        await peer.aclose()
    assert budget.used == 0


async def test_who_holds_most_is_closed_and_what_it_holds_is_dropped(
    autojump_clock: MockClock,
) -> None:
    budget = Budget(1000)
    us, peer = connect(budget)
    async with us as ws:
        await ws.send("on its way")
        await settle()
        await peer.expect(Frame.text("on its way"))
        peer.way.buffer = 5
        await ws.send("begun")
        await settle()  # in flight: the writing task has it
        await ws.send("dropped")
        await peer.send(Frame(TEXT, b"unread"))
        await peer.send(Frame(BINARY, b"x" * 500, fin=False))
        await settle()
        assert ws.close_info is None
        await peer.send(Frame(CONTINUATION, b"x" * 500, fin=False))
        await settle()
        assert ws.close_info == CloseInfo(1013, "out of memory", "local", clean=False)
        assert ws.statistics().unread_bytes == 0
        assert budget.used == len(b"\x81\x05begun")
        peer.way.buffer = None
        await peer.send(Frame.close(1013))
    assert budget.used == 0
    assert await peer.until_end() == [
        Frame.text("begun"),
        Frame.close(1013, "out of memory"),
    ]


async def test_who_holds_too_much_even_then_goes_without_a_goodbye(
    autojump_clock: MockClock,
) -> None:
    """What is in flight to it cannot be taken back, and it may never read that."""
    budget = Budget(1000)
    (us, peer), (other, other_peer) = connect(budget), connect(budget)
    async with us as ws, other as other_ws:
        await settle()
        peer.way.buffer = 5
        await ws.send("y" * 700)
        await settle()
        began = trio.current_time()
        await other_peer.send(Frame(BINARY, b"x" * 400, fin=False))
        assert await ws.wait_closed() == CloseInfo(1013, "out of memory", "local", clean=False)
        await settle()
        assert trio.current_time() == began
        assert (budget.used, budget.leaving) == (400, 0)
        assert other_ws.close_info is None
        await other_peer.aclose()


async def test_the_end_settles_everything(autojump_clock: MockClock) -> None:
    budget = Budget(1000)
    us, peer = connect(budget)
    async with us as ws:
        await peer.send(Frame(BINARY, b"x" * 500, fin=False))
        await settle()
        assert budget.used == 500
        await peer.aclose()
        await ws.wait_closed()
    assert budget.used == 0
    assert not budget._accounts


async def test_an_end_in_the_middle_of_a_write_settles_everything_once(
    autojump_clock: MockClock,
) -> None:
    """The writing task hears of it after the account is closed, or before: as trio likes."""
    budget = Budget(10_000_000)
    for _ in range(20):
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        us = Session(stream, Options(), client=False, leftover=b"", budget=budget)
        with theirs:
            async with us as ws:
                await ws.send(bytes(1_000_000))
                assert budget.used > 0
                await trio.aclose_forcefully(ws)
    assert budget.used == 0


# What does not count, for it is not there...


async def echo_once(us: Session, peer: trio.abc.Stream, size: int) -> None:
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_all, encode_frame(BINARY, bytes(size), masked=True))
        await ws.send(await ws.receive())
        received = 0
        while received < size:
            received += len(await peer.receive_some())
        await settle()
        IDLE.append(tracemalloc.get_traced_memory()[0])
        await peer.aclose()


IDLE: Final[list[int]] = []
"""Bytes that are allocated while a connection is idle."""


def sides(direct: bool) -> tuple[Session, trio.abc.Stream]:
    ours: trio.abc.Stream
    theirs: trio.abc.Stream
    if direct:
        pair = socket.socketpair()
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in pair)
    else:
        ours, theirs = memory_stream_pair()
    return Session(ours, Options(), client=False, leftover=b""), theirs


@pytest.mark.parametrize("direct", [True, False])
async def test_an_idle_connection_keeps_nothing_of_what_went_through_it(direct: bool) -> None:
    await echo_once(*sides(direct), 60_000)  # what is loaded, or measured, but once
    IDLE.clear()
    us, theirs = sides(direct)
    await trio.lowlevel.checkpoint()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await echo_once(us, theirs, 60_000)
        assert IDLE.pop() - before < 40_000
    finally:
        tracemalloc.stop()
