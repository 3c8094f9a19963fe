"""What Twisted's how-to shows, row by row: pages, requests, the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from _command import run_command
from trio.testing import MockClock

from trio_ws import (
    ConnectionRejected,
    Routes,
    WebSocketRequest,
    basic_auth,
    open_websocket,
)
from trio_ws.testing import open_server


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def test_t1_a_websocket_stands_in_the_tree_beside_static_files(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    await trio.Path(tmp_path / "index.html").write_text("<h1>the page</h1>")
    routes = Routes()
    routes.websocket("/socket")(echo)
    routes.static("/", tmp_path)
    async with open_server(routes) as connect:
        async with await connect.network.connect("server.test", 80) as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join([bytes(data) async for data in stream])
        assert answer.endswith(b"<h1>the page</h1>")
        async with connect("/socket") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"


async def test_t2_the_handler_has_the_request_before_it_accepts(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        assert not request.answered
        user = request.cookies.get("user", request.headers.get("X-User", "nobody"))
        async with request.accept(headers={"X-Welcome": user}) as ws:
            await ws.send(f"{user} at {request.path}")

    async with (
        open_server(handler) as connect,
        connect("/a", headers={"Cookie": "user=ann"}) as ws,
    ):
        assert await ws.receive() == "ann at /a"


async def test_t3_negotiation_begins_and_ends_in_two_places(autojump_clock: MockClock) -> None:
    steps: list[str] = []

    async def handler(request: WebSocketRequest) -> None:
        steps.append(f"started: {request.subprotocols}")
        async with request.accept("chat") as ws:
            steps.append(f"finished: {ws.subprotocol}")

    async with open_server(handler) as connect, connect("/", subprotocols=["chat"]) as ws:
        assert ws.subprotocol == "chat"
        await ws.wait_closed()
    assert steps == ["started: ('chat',)", "finished: chat"]


async def test_t12_http_authentication_and_sessions_guard_a_websocket(
    autojump_clock: MockClock,
) -> None:
    def check(user: str, password: str) -> bool:
        return (user, password) == ("ann", "secret")

    async def by_session(request: WebSocketRequest) -> None:
        if request.cookies.get("session") == "6f2c":
            await echo(request)

    routes = Routes()
    routes.websocket("/password")(basic_auth(echo, check, realm="chat"))
    routes.websocket("/session")(by_session)
    async with open_server(routes) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect("/password"):
                pass
        assert caught.value.status == 401
        assert caught.value.headers["WWW-Authenticate"].startswith('Basic realm="chat"')
        with pytest.raises(ConnectionRejected, match="403"):
            async with connect("/session"):
                pass
        for path, headers in (
            ("/password", {"Authorization": "Basic YW5uOnNlY3JldA=="}),
            ("/session", {"Cookie": "session=6f2c"}),
        ):
            async with connect(path, headers=headers) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"


APP = """
async def handler(request):
    async with request.accept() as ws:
        await ws.send("hello")
"""


async def test_t14_a_command_serves_a_folder_and_a_websocket(tmp_path: Path) -> None:
    await trio.Path(tmp_path / "app.py").write_text(APP)
    await trio.Path(tmp_path / "web").mkdir()
    await trio.Path(tmp_path / "web" / "index.html").write_text("<h1>the page</h1>")
    arguments = ("serve", "--static", "web", "app:handler", "--port", "0")
    async with run_command(*arguments, cwd=tmp_path) as program:
        port = int((await program.wait_for("serving ")).rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join([bytes(data) async for data in stream])
        assert answer.endswith(b"<h1>the page</h1>")
        async with open_websocket(f"ws://127.0.0.1:{port}/socket") as ws:
            assert await ws.receive() == "hello"
