"""One TCP connection of a server: whom it counts, and lets in, behind a proxy."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_ws import (
    ConnectionRejected,
    Options,
    Request,
    Response,
    Routes,
    WebSocketRequest,
    open_websocket_over_stream,
    serve_websocket_unix,
)
from trio_ws.testing import Connect, open_server

EVERYBODY = ["0.0.0.0/0", "::/0"]

routes = Routes()


@routes.websocket("/")
async def whoami(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        assert ws.remote_address == request.remote_address
        await ws.send(f"{request.remote_address} {request.secure} {request.tls is not None}")
        await ws.wait_closed()


@routes.get("/")
async def page(request: Request) -> Response:
    return Response(f"{request.remote_address} {request.secure}")


@asynccontextmanager
async def behind_proxy(**options: Any) -> AsyncGenerator[Connect, None]:
    options.setdefault("trusted_proxies", EVERYBODY)
    async with open_server(routes, options=Options(**options)) as connect:
        yield connect


async def ask(connect: Connect, headers: dict[str, str], origin: str | None = None) -> str:
    async with connect("/", headers=headers, origin=origin) as ws:
        return str(await ws.receive())


async def refusal(connect: Connect, headers: dict[str, str], origin: str | None = None) -> int:
    with pytest.raises(ConnectionRejected) as caught:
        await ask(connect, headers, origin)
    return caught.value.status


CLIENT = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}


async def test_by_default_nobody_is_believed(autojump_clock: MockClock) -> None:
    async with behind_proxy(trusted_proxies=()) as connect:
        answer = await ask(connect, CLIENT)
        assert "203.0.113.7" not in answer
        assert answer.endswith("False False")


async def test_a_trusted_proxy_is_believed(autojump_clock: MockClock) -> None:
    async with behind_proxy() as connect:
        assert await ask(connect, CLIENT) == "('203.0.113.7', 0) True False"
        said = {"X-Forwarded-For": "203.0.113.7:99"}
        assert await ask(connect, said) == "('203.0.113.7', 99) False False"


async def test_a_page_learns_of_the_client_as_well(autojump_clock: MockClock) -> None:
    async with (
        behind_proxy() as connect,
        await connect.network.connect("server.test", 80) as stream,
    ):
        request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        lines = "".join(f"{name}: {value}\r\n" for name, value in CLIENT.items())
        await stream.send_all(f"{request}{lines}\r\n".encode())
        answer = b"".join([bytes(data) async for data in stream])
        assert answer.endswith(b"('203.0.113.7', 0) True")


async def test_the_origin_is_that_of_the_host_that_the_proxy_tells(
    autojump_clock: MockClock,
) -> None:
    outer = {**CLIENT, "X-Forwarded-Host": "example.org"}
    async with behind_proxy() as connect:
        assert await ask(connect, outer, "https://example.org")
        assert await refusal(connect, outer, "http://example.org") == 403  # TLS was left
        assert await refusal(connect, outer, "http://server.test") == 403
        assert await ask(connect, {}, "http://server.test")
        port = {**CLIENT, "X-Forwarded-Host": "example.org:8443"}
        assert await ask(connect, port, "https://example.org:8443")
        assert await refusal(connect, port, "https://example.org") == 403
    async with behind_proxy(trusted_proxies=()) as connect:
        assert await refusal(connect, outer, "https://example.org") == 403


async def test_what_a_proxy_writes_wrong_is_400(autojump_clock: MockClock) -> None:
    async with behind_proxy(forwarded_header="Forwarded") as connect:
        assert await refusal(connect, {"Forwarded": 'for="'}) == 400
        said = {"Forwarded": "for=203.0.113.7;proto=https"}
        assert await ask(connect, said) == "('203.0.113.7', 0) True False"


async def test_clients_are_counted_and_not_their_proxy(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    ann, bob = ({"X-Forwarded-For": address} for address in ("203.0.113.7", "203.0.113.8"))
    async with behind_proxy(max_connections_per_address=1) as connect:
        hosts = connect.server._state.networks
        async with connect("/", headers=ann), connect("/", headers=bob), connect("/"), connect():
            assert hosts == {"203.0.113.7": 1, "203.0.113.8": 1, None: 2}
            assert await refusal(connect, ann) == 503
        await trio.testing.wait_all_tasks_blocked()
        assert not hosts
        assert await ask(connect, ann)
    assert "too many connections from this address" in caplog.text


async def test_a_proxy_may_bring_one_client_after_the_other_on_a_connection(
    autojump_clock: MockClock,
) -> None:
    async with behind_proxy(max_connections_per_address=1) as connect:
        hosts = connect.server._state.networks
        async with await connect.network.connect("server.test", 80) as stream:
            for address in ("203.0.113.7", "203.0.113.7", "203.0.113.8"):
                lines = f"Host: x\r\nX-Forwarded-For: {address}\r\n\r\n"
                await stream.send_all(f"GET / HTTP/1.1\r\n{lines}".encode())
                await stream.receive_some()
                assert hosts == {address: 1}
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive_some()
            assert hosts == {None: 1}
        await trio.testing.wait_all_tasks_blocked()
        assert not hosts


async def test_the_log_names_the_client(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with behind_proxy() as connect:
        await refusal(connect, CLIENT, "https://elsewhere.example")
        await refusal(connect, {}, "https://elsewhere.example")
    first, second = caplog.messages
    assert "from 203.0.113.7: refused: 403" in first
    assert "refused: 403" in second
    assert "None" not in second  # the proxy, at least


async def test_over_a_unix_socket_the_proxy_is_whoever_may_connect(tmp_path: Any) -> None:
    path = tmp_path / "socket"
    for proxies, expected in ((["unix"], "('203.0.113.7', 0) True False"), ([], " False False")):
        options = Options(trusted_proxies=proxies)
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Any], options: Options = options) -> None:
                await serve_websocket_unix(routes, path, options=options, task_status=task_status)

            await nursery.start(start)
            stream = await trio.open_unix_socket(path)
            async with open_websocket_over_stream(stream, "ws://x/", headers=CLIENT) as ws:
                assert await ws.receive() == expected
            nursery.cancel_scope.cancel()
