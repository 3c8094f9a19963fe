"""One TCP connection of a server: pages that are made while they are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from _site import Site, get, serve
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import Options, Request, Response, WebSocketRequest

Answer = Callable[[Any, Any, Any], Awaitable[None]]


class Live:
    """A handler whose pages are made by a function of ``begin`` and ``write``."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def __call__(self, request: WebSocketRequest) -> None:
        pytest.fail("nobody asks for a WebSocket")

    async def respond(self, request: Request) -> Live:
        return self


async def hello(begin: Any, write: Any, wait_gone: Any) -> None:
    await begin(Response(status=201, headers={"X-A": "b"}), 5)
    await write(b"he")
    await write(b"")
    await write(b"llo")


def pages(site: Site) -> dict[int, int]:
    return site.server.statistics().pages


async def test_a_page_of_known_length(autojump_clock: MockClock) -> None:
    async with serve(Live(hello)) as site:
        visitor = site.visit()
        for _ in range(2):  # on one connection
            answer = await visitor.ask(get())
            assert (answer.status, answer.headers["X-A"], answer.body) == (201, "b", b"hello")
        assert (await visitor.ask(get(method="HEAD"), body=False)).headers["Content-Length"] == "5"
        assert pages(site) == {201: 3}


async def test_a_page_takes_its_time_and_a_client_that_takes_nothing_does_not(
    autojump_clock: MockClock,
) -> None:
    async def slow(begin: Any, write: Any, wait_gone: Any) -> None:
        await begin(Response(), None)
        await trio.sleep(1000)
        await write(b"x")
        await trio.sleep(1000)

    async with serve(Live(slow), Options(write_timeout=3)) as site:
        visitor = site.visit()
        await visitor.send(get("/", "Connection: close"))
        assert (await visitor.until_eof()).endswith(b"1\r\nx\r\n0\r\n\r\n")
        assert 2000 <= trio.current_time() < 2002

        visitor = site.visit()
        visitor.way.buffer = 0
        before = trio.current_time()
        await visitor.send(get())
        await visitor.until_eof()
        assert 3 <= trio.current_time() - before < 5


async def test_a_page_that_fails_before_it_begins_is_answered_500(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(begin: Any, write: Any, wait_gone: Any) -> None:
        raise KeyError("oops")

    async with serve(Live(fails)) as site:
        assert (await site.visit().ask(get())).status == 500
        assert (pages(site), site.server.statistics().handler_errors) == ({500: 1}, 1)
    assert "handler failed" in caplog.text


async def test_a_page_that_fails_in_the_middle_ends_the_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(begin: Any, write: Any, wait_gone: Any) -> None:
        await begin(Response(), 100)
        await write(b"some")
        raise KeyError("oops")

    async with serve(Live(fails)) as site:
        visitor = site.visit()
        await visitor.send(get())
        assert (await visitor.until_eof()).endswith(b"\r\n\r\nsome")
        assert site.server.statistics().handler_errors == 1
    assert "handler failed" in caplog.text


async def test_a_client_that_leaves_is_no_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def endless(begin: Any, write: Any, wait_gone: Any) -> None:
        await begin(Response(), None)
        while True:
            await write(b"x")
            await trio.sleep(1)

    async with serve(Live(endless)) as site:
        visitor = site.visit()
        await visitor.send(get())
        await wait_all_tasks_blocked()
        await visitor.stream.aclose()
        await trio.sleep(5)
        assert not site.server._state.connections
        assert site.server.statistics().handler_errors == 0


async def test_a_server_that_is_being_drained_says_so_in_its_last_page(
    autojump_clock: MockClock,
) -> None:
    async def waits(begin: Any, write: Any, wait_gone: Any) -> None:
        await trio.sleep(1)
        await hello(begin, write, wait_gone)

    async with serve(Live(waits)) as site:
        visitor = site.visit()
        await visitor.send(get())
        await wait_all_tasks_blocked()
        site.nursery.start_soon(site.server.drain)
        answer = await visitor.answer()
        assert (answer.headers["Connection"], answer.body) == ("close", b"hello")
