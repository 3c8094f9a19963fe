"""What Quart's websocket tutorial shows, row by row."""

from __future__ import annotations

import contextlib
import contextvars
import doctest
import functools
import io
import re

import pytest
import trio
from _browser import launch_browser, open_browser
from _seeds import ROOT, echo
from trio.testing import MockClock

from trio_ws import Request, Response, Routes, WebSocket, WebSocketRequest, serve_websocket
from trio_ws.testing import MemoryNetwork, open_server


async def test_q1_a_route_loops_over_receive_and_send(autojump_clock: MockClock) -> None:
    routes = Routes()

    @routes.websocket("/ws")
    async def ws(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                await ws.send(f"echo {message}")

    async with open_server(routes) as connect, connect("/ws") as client:
        for text in ("one", "two"):
            await client.send(text)
            assert await client.receive() == f"echo {text}"


async def test_q2_what_a_handler_calls_can_reach_the_connection(
    autojump_clock: MockClock,
) -> None:
    """By a context variable: trio's tasks inherit it."""
    current: contextvars.ContextVar[WebSocket] = contextvars.ContextVar("current")

    async def deep_down(word: str) -> None:
        await current.get().send(word)

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, trio.open_nursery() as nursery:
            current.set(ws)
            async for message in ws:
                await deep_down(f"called: {message}")
                nursery.start_soon(deep_down, f"started: {message}")

    async with open_server(handler) as connect, connect() as one, connect() as other:
        for client, word in ((one, "1"), (other, "2")):
            await client.send(word)
            assert await client.receive() == f"called: {word}"
            assert await client.receive() == f"started: {word}"


@pytest.mark.parametrize("message", ["text", b"bytes"])
async def test_q5_text_and_bytes_keep_their_type(
    autojump_clock: MockClock, message: str | bytes
) -> None:
    async with open_server(echo) as connect, connect() as ws:
        await ws.send(message)
        received = await ws.receive()
        assert received == message
        assert type(received) is type(message)


async def test_q6_a_test_client_needs_no_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    routes = Routes()
    routes.websocket("/ws")(echo)
    async with open_server(routes, network=network, host="app.test") as connect:
        async with connect("/ws") as ws:
            await ws.send(b"bob")
            assert await ws.receive() == b"bob"
        async with network.open_websocket("ws://app.test/ws") as ws:  # by its name
            await ws.send(b"bob")
            assert await ws.receive() == b"bob"


async def test_q7_a_page_in_a_browser_opens_the_websocket() -> None:
    routes = Routes()
    routes.websocket("/ws")(echo)

    @routes.get("/")
    async def index(request: Request) -> Response:
        return Response.html(
            """<p id="said">nothing yet</p><script>
            const ws = new WebSocket("ws://" + document.domain + ":" + location.port + "/ws");
            ws.onopen = () => ws.send("bob");
            ws.onmessage = (event) => document.getElementById("said").innerText = event.data;
            </script>"""
        )

    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_websocket, routes, 0, host="127.0.0.1")
        server = await nursery.start(serve)
        with launch_browser() as devtools:
            async with open_browser(devtools) as browser:
                page = await browser.open_page(f"http://127.0.0.1:{server.port}/")
                await page.wait_for_text("bob", "#said")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("chapter", ["rooms", "deploy", "chat"])
def test_q8_the_tutorial_does_what_it_shows(chapter: str) -> None:
    """Its snippets as a reader copies them, each with the output that stands below it."""
    source = (ROOT / "docs" / "tutorial" / f"{chapter}.rst").read_text()
    blocks = re.findall(
        r"^\.\. (testcode|testoutput)::\n\n((?:   .*\n|\n)+)", source, re.MULTILINE
    )
    assert "testoutput" in [kind for kind, _ in blocks]
    namespace: dict[str, object] = {}  # what is not imported by the reader is not there
    said = ""
    for kind, block in blocks:
        text = re.sub(r"^   ", "", block, flags=re.MULTILINE).strip() + "\n"
        if kind == "testcode":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(text, "tutorial", "exec"), namespace)  # noqa: S102  # our own docs
            said += output.getvalue()
        else:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert doctest.OutputChecker().check_output(text, said, flags), (text, said)
            said = ""


async def test_q10_receiver_and_sender_are_cancelled_together(autojump_clock: MockClock) -> None:
    events: list[str] = []

    async def produce(ws: WebSocket) -> None:
        try:
            while True:
                await ws.send("tick")
                await trio.sleep(1)
        finally:
            events.append("producer ended")

    async def consume(ws: WebSocket) -> None:
        async for message in ws:
            events.append(str(message))  # noqa: PERF401  # as one writes it
        events.append("consumer ended")

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, ws.open_nursery() as nursery:
            nursery.start_soon(produce, ws)
            nursery.start_soon(consume, ws)
        events.append("both ended")

    async with open_server(handler) as connect, connect() as ws:
        assert [await ws.receive() for _ in range(3)] == ["tick"] * 3
        await ws.send("hello")
    assert events[0] == "hello"
    assert set(events[1:3]) <= {"producer ended", "consumer ended"}
    assert events[-1] == "both ended"
