"""Against the package websockets where it gets rough: stops, limits, refusals, crowds."""

from __future__ import annotations

import contextlib
import http
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trustme
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_theirs
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_theirs

from trio_ws import (
    ConnectionLost,
    ConnectionRejected,
    Deflate,
    HandshakeError,
    Options,
    Server,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
)

MIB = 1024 * 1024

MESSAGES = [
    "",
    b"",
    "hello",
    "Grüße, 世界, 🎉",
    bytes(range(256)),
    "x" * 125,
    "x" * 126,
    b"y" * 65535,
    b"y" * 65536,
    "compress me " * 5000,
    random.Random(1).randbytes(200_000),
    "ü" * (MIB // 2),
]
"""All lengths of lengths (RFC 6455, section 5.2), and the greatest message that is allowed."""


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture(params=["tcp", "tls"])
def tls(request: pytest.FixtureRequest, contexts: Any) -> tuple[Any, Any]:
    """Return the contexts of server and client: none over plain TCP."""
    return contexts if request.param == "tls" else (None, None)


DEFLATE = Deflate(
    threshold=0,
    server_no_context_takeover=False,
    client_no_context_takeover=False,
    server_max_window_bits=15,
    client_max_window_bits=15,
)
"""Each message depends on those before."""


@pytest.fixture(params=["plain", "with context"])
def deflate(request: pytest.FixtureRequest) -> Deflate | None:
    return None if request.param == "plain" else DEFLATE


def theirs_of(deflate: Deflate | None) -> str | None:
    return None if deflate is None else "deflate"


async def in_thread(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    with trio.fail_after(10):
        return await trio.to_thread.run_sync(partial(function, *arguments, **keywords))


# Our server, their client...


async def handle(request: WebSocketRequest) -> None:
    """Do what the path says."""
    if request.path == "/rejected":
        await request.reject(418, body="a teapot", headers={"X-Kind": "brown"})
        return
    if request.path == "/silent":
        return
    async with request.accept() as ws:
        if request.path == "/fragments":
            await send_in_fragments(ws)
        await echo(ws)


async def echo(ws: WebSocket) -> None:
    with contextlib.suppress(ConnectionLost):  # the code of the peer's Close is told elsewhere
        async for message in ws:
            await ws.send(message)


async def send_in_fragments(ws: WebSocket) -> None:
    async with ws.open_message(text=True) as part:
        for piece in ("one ", "", "twö", " three" * 1000):
            await part.send(piece)
    async with ws.open_message(text=False) as part:
        await part.send(b"\x00" * 70_000)


FRAGMENTS = ["one twö" + " three" * 1000, b"\x00" * 70_000]


@asynccontextmanager
async def our_server(
    ssl_context: ssl.SSLContext | None = None, options: Options = Options()
) -> AsyncIterator[tuple[Server, str]]:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(
                serve_websocket,
                handle,
                0,
                host="127.0.0.1",
                ssl_context=ssl_context,
                options=options,
            )
        )
        yield server, f"{'ws' if ssl_context is None else 'wss'}://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()


def the_end(ws: ClientConnection) -> tuple[int, str]:
    """Return code and reason of the Close that came, as it has to, first."""
    with pytest.raises((ConnectionClosedOK, ConnectionClosedError)) as caught:
        ws.recv()
    assert caught.value.rcvd_then_sent
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_their_client_gets_back_all_that_it_sends(tls: Any, deflate: Any) -> None:
    def talk() -> list[str | bytes]:
        options = {"ssl": tls[1], "compression": theirs_of(deflate), "proxy": None}
        with connect_theirs(url, **options) as ws:
            assert bool(ws.protocol.extensions) == (deflate is not None)
            received = []
            for message in MESSAGES:
                ws.send(message)
                received.append(ws.recv())
            return received

    async with our_server(tls[0], Options(compression=deflate)) as (server, url):
        assert await in_thread(talk) == MESSAGES
        assert server.statistics().handler_errors == 0


async def test_their_client_sends_and_gets_fragments(tls: Any, deflate: Any) -> None:
    def talk() -> None:
        options = {"ssl": tls[1], "compression": theirs_of(deflate), "proxy": None}
        with connect_theirs(f"{url}/fragments", **options) as ws:
            assert len(list(ws.recv_streaming())) > 1
            assert ws.recv() == FRAGMENTS[1]
            ws.send(["frag", "", "ménts"] * 100)
            assert ws.recv() == "fragménts" * 100
            ws.send(iter([b"\x01" * 1000] * 100))
            assert ws.recv() == b"\x01" * 100_000
        with connect_theirs(f"{url}/fragments", **options) as ws:
            assert [ws.recv(), ws.recv()] == FRAGMENTS

    async with our_server(tls[0], Options(compression=deflate)) as (_, url):
        await in_thread(talk)


@pytest.mark.parametrize("drain", [True, False])
async def test_their_client_is_told_when_our_server_stops(drain: bool) -> None:
    def stay() -> int:
        with connect_theirs(url, proxy=None) as ws:
            ws.send("hello")
            ws.recv()
            trio.from_thread.run_sync(connected.set)
            return the_end(ws)[0]

    async def run() -> None:
        codes.append(await in_thread(stay))

    codes: list[int] = []
    connected = trio.Event()
    async with trio.open_nursery() as nursery, our_server() as (server, url):
        nursery.start_soon(run)
        await connected.wait()
        if drain:
            await server.drain()
    assert codes == [1012 if drain else 1001]


async def test_their_client_understands_our_refusals() -> None:
    def knock(path: str, **arguments: Any) -> Any:
        with pytest.raises(InvalidStatus) as caught:
            connect_theirs(url + path, proxy=None, **arguments)
        return caught.value.response

    async with our_server() as (_, url):
        response = await in_thread(knock, "/rejected")
        assert (response.status_code, response.body) == (418, b"a teapot")
        assert response.headers["X-Kind"] == "brown"
        assert (await in_thread(knock, "/silent")).status_code == 403
        assert (await in_thread(knock, "/", origin="http://elsewhere")).status_code == 403


async def test_their_client_is_told_that_a_message_is_too_big(deflate: Any) -> None:
    def talk() -> int:
        options = {"compression": theirs_of(deflate), "proxy": None}
        with connect_theirs(url, **options) as ws:
            ws.send(random.Random(2).randbytes(10_001))
            return the_end(ws)[0]

    options = Options(compression=deflate, max_message_size=10_000)
    async with our_server(options=options) as (_, url):
        assert await in_thread(talk) == 1009


# Their server, our client...


@asynccontextmanager
async def their_server(
    handler: Callable[[ServerConnection], None], **arguments: Any
) -> AsyncIterator[str]:
    scheme = "ws" if arguments.get("ssl") is None else "wss"
    server = serve_theirs(handler, "127.0.0.1", 0, **arguments)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, server.serve_forever)
        try:
            yield f"{scheme}://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(server.shutdown)


def their_echo(ws: ServerConnection) -> None:
    for message in ws:
        ws.send(message)


async def test_our_client_gets_back_all_that_it_sends(tls: Any, deflate: Any) -> None:
    arguments = {"ssl": tls[0], "compression": theirs_of(deflate)}
    options = Options(compression=deflate)
    async with (
        their_server(their_echo, **arguments) as url,
        open_websocket(url, ssl_context=tls[1], options=options) as ws,
    ):
        received = []
        for message in MESSAGES:
            await ws.send(message)
            received.append(await ws.receive())
        assert received == MESSAGES


async def test_our_client_sends_and_gets_fragments(tls: Any, deflate: Any) -> None:
    def handler(ws: ServerConnection) -> None:
        assert ws.recv() == FRAGMENTS[0]
        assert ws.recv() == FRAGMENTS[1]
        ws.send(["frag", "", "ménts"] * 100)
        ws.send(iter([b"\x01" * 1000] * 100))
        their_echo(ws)

    arguments = {"ssl": tls[0], "compression": theirs_of(deflate)}
    options = Options(compression=deflate)
    async with (
        their_server(handler, **arguments) as url,
        open_websocket(url, ssl_context=tls[1], options=options) as ws,
    ):
        await send_in_fragments(ws)
        assert await ws.receive() == "fragménts" * 100
        async with ws.receive_message() as parts:
            assert not parts.text
            assert b"".join([chunk async for chunk in parts]) == b"\x01" * 100_000


async def test_a_stop_of_their_server_is_a_polite_end() -> None:
    async with trio.open_nursery() as nursery, their_server(their_echo) as url:

        async def start(task_status: trio.TaskStatus[None]) -> None:
            async with open_websocket(url) as ws:
                task_status.started()
                assert [message async for message in ws] == []
                assert ws.close_info is not None
                assert ws.close_info.code == 1001

        await nursery.start(start)


async def test_subprotocols_are_agreed_with_their_server() -> None:
    def talk(ws: ServerConnection) -> None:
        ws.send(str(ws.subprotocol))

    async with their_server(talk, subprotocols=["v2.chat", "v1.chat"]) as url:
        async with open_websocket(url, subprotocols=["v0.chat", "v1.chat"]) as ws:
            assert ws.subprotocol == await ws.receive() == "v1.chat"
        with pytest.raises(ConnectionRejected, match="missing subprotocol"):
            async with open_websocket(url):
                raise AssertionError
    async with their_server(talk) as url, open_websocket(url, subprotocols=["any"]) as ws:
        assert ws.subprotocol is None


async def test_their_refusals_come_with_status_headers_and_body(tls: Any) -> None:
    def refuse(ws: ServerConnection, request: Any) -> Any:
        return ws.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"no {request.path}\n")

    async with their_server(their_echo, process_request=refuse, ssl=tls[0]) as url:
        with pytest.raises(ConnectionRejected) as caught:
            async with open_websocket(f"{url}/x?y", ssl_context=tls[1]):
                raise AssertionError
    assert (caught.value.status, caught.value.body) == (503, b"no /x?y\n")
    assert caught.value.headers["content-type"].startswith("text/plain")


async def test_their_origin_policy_sees_our_origin_and_headers() -> None:
    def talk(ws: ServerConnection) -> None:
        assert ws.request is not None
        ws.send(ws.request.headers["X-Mine"])

    async with their_server(talk, origins=["https://here"]) as url:
        async with open_websocket(url, origin="https://here", headers={"X-Mine": "1"}) as ws:
            assert await ws.receive() == "1"
        with pytest.raises(ConnectionRejected) as caught:
            async with open_websocket(url, origin="https://elsewhere"):
                raise AssertionError
        assert caught.value.status == 403


async def test_a_message_of_theirs_that_is_too_big_is_refused_and_they_are_told() -> None:
    def handler(ws: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosedError):
            ws.send(b"x" * 10_001)
            ws.recv()
        codes.append(ws.protocol.close_rcvd.code if ws.protocol.close_rcvd else None)

    codes: list[int | None] = []
    async with their_server(handler, compression=None) as url:
        options = Options(max_message_size=10_000)
        async with open_websocket(url, options=options) as ws:
            with pytest.raises(ConnectionLost) as caught:
                await ws.receive()
        assert caught.value.code == 1009
    assert codes == [1009]


async def test_tls_to_a_plain_port_and_the_other_way_round_is_a_handshake_error(
    contexts: Any,
) -> None:
    async with their_server(their_echo) as url:
        with pytest.raises(HandshakeError, match="TLS with"):
            async with open_websocket(url.replace("ws:", "wss:"), ssl_context=contexts[1]):
                raise AssertionError
    async with their_server(their_echo, ssl=contexts[0]) as url:
        with pytest.raises(HandshakeError):
            async with open_websocket(url.replace("wss:", "ws:")):
                raise AssertionError


async def test_many_tasks_send_at_a_time_and_their_server_sees_whole_messages() -> None:
    async def send(ws: WebSocket, letter: str) -> None:
        for _ in range(20):
            await ws.send(letter * 20_000)

    async with (
        their_server(their_echo) as url,
        open_websocket(url) as ws,
        trio.open_nursery() as nursery,
    ):
        for letter in "abcde":
            nursery.start_soon(send, ws, letter)
        received = [await ws.receive() for _ in range(100)]
    assert all(len(message) == 20_000 and len(set(message)) == 1 for message in received)
