"""What Bocadillo's guide shows, row by row: routes and requests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from _components import PATIENCE, free_port
from trio.testing import MockClock

from trio_ws import ConnectionRejected, Routes, WebSocketRequest, open_websocket
from trio_ws.testing import open_server


async def test_b1_a_decorator_registers_a_pattern(autojump_clock: MockClock) -> None:
    routes = Routes()

    @routes.websocket("/echo")
    async def echo(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                await ws.send(message)

    async with open_server(routes) as connect:
        async with connect("/echo") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        with pytest.raises(ConnectionRejected, match="404"):
            async with connect("/other"):
                pass


async def test_b2_parameters_of_the_path_are_arguments_with_their_types(
    autojump_clock: MockClock,
) -> None:
    routes = Routes()

    @routes.websocket("/room/{name}/{n:int}")
    async def room(request: WebSocketRequest, *, name: str, n: int) -> None:
        async with request.accept() as ws:
            await ws.send(f"{name!r} {n + 1}")

    async with open_server(routes) as connect:
        async with connect("/room/tea%20house/41") as ws:
            assert await ws.receive() == "'tea house' 42"
        with pytest.raises(ConnectionRejected, match="404"):
            async with connect("/room/tea/many"):
                pass


STATUSES = {4001: 401, 4003: 403, 4004: 404, 1013: 503}
"""A close code cannot reach a client before the handshake; a status does."""


@pytest.mark.parametrize("code", STATUSES)
async def test_b5_a_code_that_says_why_becomes_a_status(
    code: int, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(STATUSES[code], headers={"X-Code": str(code)})

    async with open_server(handler) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect("/"):
                pass
        assert caught.value.status == STATUSES[code]
        assert caught.value.headers["X-Code"] == str(code)


async def test_b14_the_request_stays_with_the_websocket(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            head = ws.request
            assert head is not None
            seen.extend([head.headers["X-A"], head.target, head.path])
            seen.extend([head.query["q"], head.cookies["c"]])

    async with (
        open_server(handler) as connect,
        connect("/a%20b?q=1", headers={"X-A": "b", "Cookie": "c=d"}) as ws,
    ):
        await ws.wait_closed()
    assert seen == ["b", "/a%20b?q=1", "/a b", "1", "d"]


PROGRAM = """
import trio

from trio_ws import Routes, serve_websocket

routes = Routes()


@routes.websocket("/hello")
async def hello(request):
    async with request.accept() as ws:
        await ws.send("hello")


trio.run(serve_websocket, routes, PORT)
"""


async def test_b17_one_line_runs_the_app(tmp_path: Path) -> None:
    port = free_port()
    program = trio.Path(tmp_path / "app.py")
    await program.write_text(PROGRAM.replace("PORT", str(port)))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.run_process, [sys.executable, str(program)])
            while True:
                try:
                    async with open_websocket(f"ws://localhost:{port}/hello") as ws:
                        assert await ws.receive() == "hello"
                        break
                except OSError:
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
