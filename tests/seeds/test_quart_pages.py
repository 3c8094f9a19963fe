"""What Quart's tutorial and how-to show, row by row: pages, refusals, the command."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from _command import run_command
from trio.testing import MockClock

from trio_ws import (
    ConnectionRejected,
    Request,
    Response,
    Routes,
    WebSocketRequest,
    open_websocket,
)
from trio_ws.testing import MemoryNetwork, open_server


async def get(network: MemoryNetwork, path: str) -> str:
    """Ask for a page; return the whole answer."""
    async with await network.connect("server.test", 80) as stream:
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        )
        return b"".join([bytes(data) async for data in stream]).decode()


@asynccontextmanager
async def serve_module(folder: Path, source: str, *arguments: str) -> AsyncGenerator[str, None]:
    (folder / "app.py").write_text(source)
    async with run_command("serve", "app:routes", *arguments, cwd=folder) as program:
        yield (await program.wait_for("serving ")).rpartition(":")[2]


APP = """
from trio_ws import Routes

routes = Routes()


@routes.websocket("/ws")
async def ws(request):
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(f"echo {message}")
"""


async def test_q3_one_command_starts_the_app_on_a_port_of_localhost(tmp_path: Path) -> None:
    async with (
        serve_module(tmp_path, APP, "--port", "0") as port,
        open_websocket(f"ws://localhost:{port}/ws") as ws,
    ):
        await ws.send("bob")
        assert await ws.receive() == "echo bob"


async def test_q4_one_server_has_the_page_the_files_and_the_websocket(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    await trio.Path(tmp_path / "script.js").write_text("new WebSocket('/ws')")
    routes = Routes()
    routes.static("/static", tmp_path)

    @routes.get("/")
    async def index(request: Request) -> Response:
        return Response.html("<script src=/static/script.js></script>")

    @routes.websocket("/ws")
    async def ws(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send(f"echo {await ws.receive()}")

    async with open_server(routes) as connect:
        assert "<script src=/static/script.js>" in await get(connect.network, "/")
        assert "new WebSocket('/ws')" in await get(connect.network, "/static/script.js")
        async with connect("/ws") as client:
            await client.send("bob")
            assert await client.receive() == "echo bob"


async def test_q9_a_request_is_refused_with_a_status_and_a_body_before_it_is_accepted(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        if "token" not in request.query:
            await request.reject(403, body="no way", headers={"X-Why": "token"})
            return
        async with request.accept() as ws:
            await ws.send("welcome")

    async with open_server(handler) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect("/"):
                pass
        assert (caught.value.status, caught.value.body) == (403, b"no way")
        assert caught.value.headers["X-Why"] == "token"
        async with connect("/?token=x") as ws:
            assert await ws.receive() == "welcome"


async def test_q11_a_path_may_be_a_page_and_a_websocket_and_a_page_only_gets_426(
    autojump_clock: MockClock,
) -> None:
    routes = Routes()

    @routes.get("/both")
    async def page(request: Request) -> Response:
        return Response("the page")

    @routes.websocket("/both")
    @routes.websocket("/ws")
    async def ws(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("the socket")

    async with open_server(routes) as connect:
        assert (await get(connect.network, "/both")).endswith("the page")
        async with connect("/both") as client:
            assert await client.receive() == "the socket"
        answer = (await get(connect.network, "/ws")).lower()
        assert answer.startswith("http/1.1 426")
        assert "upgrade: websocket\r\n" in answer
        assert "sec-websocket-version: 13\r\n" in answer


async def test_q12_closing_has_a_code_and_not_accepting_is_403(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        if request.path == "/ws":
            async with request.accept() as ws:
                await ws.aclose(1000, "that is all")

    async with open_server(handler) as connect:
        async with connect("/ws") as ws:
            info = await ws.wait_closed()
            assert (info.code, info.reason, info.initiator) == (1000, "that is all", "remote")
        with pytest.raises(ConnectionRejected, match="403"):
            async with connect("/other"):
                pass
