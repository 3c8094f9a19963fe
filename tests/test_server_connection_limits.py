"""What a server does with a crowd: places are counted, refusals bounded, lines written."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws import (
    Options,
    Request,
    Response,
    Server,
    WebSocketRequest,
    serve_websocket_listeners,
)

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Door(trio.abc.Listener[trio.abc.Stream]):
    """A listener in memory."""

    def __init__(self) -> None:
        self._arrive, self._accept = trio.open_memory_channel[trio.abc.Stream](1000)

    async def accept(self) -> trio.abc.Stream:
        return await self._accept.receive()

    async def aclose(self) -> None:
        await self._accept.aclose()

    def enter(self, failure: Exception | None = None) -> Any:
        ours, theirs = trio.testing.memory_stream_pair()

        async def fail() -> None:
            await trio.lowlevel.checkpoint()
            assert failure is not None
            raise failure

        if failure is not None:
            theirs.receive_stream.receive_some_hook = fail
        self._arrive.send_nowait(theirs)
        return ours


async def accept(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        await ws.wait_closed()


@asynccontextmanager
async def serve(handler: Any = accept, **options: Any) -> AsyncIterator[tuple[Door, Server]]:
    door = Door()
    async with trio.open_nursery() as nursery:
        run = partial(serve_websocket_listeners, handler, [door], options=Options(**options))
        server: Server = await nursery.start(run)
        yield door, server
        nursery.cancel_scope.cancel()


async def answer(door: Door, request: bytes = REQUEST) -> tuple[int | None, Any]:
    """Return the status of the answer, if there is one, and the stream."""
    stream = door.enter()
    await stream.send_all(request)
    head = bytes(await stream.receive_some(4096))
    return (int(head[9:12]) if head else None), stream


async def test_refused_newcomers_take_no_place(autojump_clock) -> None:
    async with serve(max_connections=2) as (door, server):
        streams = [(await answer(door))[1] for _ in range(2)]
        refused = [await answer(door) for _ in range(10)]
        assert [status for status, _ in refused] == [503] * 10
        await streams[0].aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await answer(door))[0] == 101  # and the refused are still there
        assert server.statistics().connections == 2
        assert server.statistics().rejected == {503: 10}


@pytest.mark.parametrize(("handshakes", "refusals"), [(3, 100), (120, 120)])
async def test_beyond_as_many_refusals_as_handshakes_or_a_hundred_there_is_no_answer(
    handshakes: int, refusals: int, autojump_clock
) -> None:
    async with serve(max_connections=1, max_handshakes=handshakes) as (door, server):
        await answer(door)
        statuses = [(await answer(door))[0] for _ in range(125)]
        assert statuses == [503] * refusals + [None] * (125 - refusals)
        await trio.sleep(2)  # the refused have been let go
        assert (await answer(door))[0] == 503
        assert server.statistics().connections == 1


@pytest.mark.parametrize("request_", [REQUEST, b"nonsense\r\n\r\n"])
async def test_a_handshake_is_over_when_it_is_answered(request_: bytes, autojump_clock) -> None:
    async with serve(max_handshakes=1) as (door, server):
        for _ in range(5):
            status, _ = await answer(door, request_)
            assert status != 503
            assert server.statistics().opening == 0
        half = door.enter()
        await half.send_all(REQUEST[:50])
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().opening == 1
        assert (await answer(door))[0] == 503
        await half.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().opening == 0


class Slow:
    """A handler whose pages take their time."""

    async def __call__(self, request: WebSocketRequest) -> None:
        await accept(request)

    async def respond(self, request: Request) -> Response:
        await trio.sleep(100)
        return Response("at last")


async def test_a_page_that_takes_its_time_is_no_handshake(autojump_clock) -> None:
    async with serve(Slow(), max_handshakes=1) as (door, server):
        visitors = []
        for _ in range(3):
            visitors.append(visitor := door.enter())
            await visitor.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().opening == 0
        assert (await answer(door))[0] == 101
        for visitor in visitors:
            assert (await visitor.receive_some()).endswith(b"at last")


# One line in the log for each...


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return levels and texts, without the names of the connections."""
    found = [
        (record.levelname, record.getMessage().partition(" from None: ")[2])
        for record in caplog.records
        if record.name == "trio_ws"
    ]
    caplog.clear()
    return found


async def test_who_is_dropped_or_lost_early_takes_a_line(autojump_clock, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve() as (door, _):
        half = door.enter()
        await half.send_all(REQUEST[:50])
        await trio.sleep(11)
        assert lines(caplog) == [("INFO", "dropped before a request had come")]
        assert await half.receive_some(1) == b""

        door.enter(failure=trio.BrokenResourceError("TLS went wrong"))
        await trio.testing.wait_all_tasks_blocked()
        assert lines(caplog) == [("INFO", "lost: TLS went wrong")]

        late = door.enter()
        await late.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        late.receive_stream.close()  # the answer cannot be sent
        await trio.testing.wait_all_tasks_blocked()
        assert lines(caplog) == [
            ("INFO", "refused: 426: a WebSocket is served here, over HTTP/1.1"),
            ("DEBUG", "lost: MemoryReceiveStream was closed"),
        ]


# The budget (see test_budget.py)...


async def test_newcomers_are_refused_when_memory_is_short(autojump_clock) -> None:
    async with serve(memory_budget=1000) as (door, server):
        _, stream = await answer(door)
        await stream.send_all(b"\x02\xfe\x02\xee" + bytes(4 + 750))  # begins a message of 750
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory == 750
        assert (await answer(door))[0] == 503
        await stream.send_all(b"\x00\xfe\x00\xfb" + bytes(4 + 251))
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().memory == 0
        assert (await answer(door))[0] == 101
