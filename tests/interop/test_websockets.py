"""Against the package websockets, over TCP and TLS, with and without compression, both ways."""

from __future__ import annotations

import base64
import random
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import pytest
import trio
import trustme
from websockets.exceptions import ConnectionClosed as TheirConnectionClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import basic_auth
from websockets.sync.server import serve as their_serve

from trio_ws import (
    ConnectionClosed,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Deflate,
    Options,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
)

PATIENCE: Final = 60.0
"""Seconds for any step: what blocks in a thread cannot be cancelled, so it ends by itself."""

MESSAGES: Final = {
    "text": "héllo ✓",
    "binary": bytes(range(256)),
    "empty text": "",
    "empty binary": b"",
    "a MiB of text": "0123456789abcdef" * 65536,
    "a MiB of noise": random.Random(6455).randbytes(2**20),
}

CLOSES: Final = [(1000, ""), (1001, "going"), (1011, "oops"), (3000, "é"), (4999, "x" * 123)]


@attrs.frozen
class Wire:
    """What is between both sides."""

    tls: bool
    deflate: bool
    server_context: ssl.SSLContext | None
    client_context: ssl.SSLContext | None

    @property
    def options(self) -> Options:
        """What our side is given."""
        compression = Deflate(threshold=0) if self.deflate else None
        return Options(compression=compression, on_handler_error="raise")

    @property
    def their_arguments(self) -> dict[str, Any]:
        """What the other side is given."""
        return {
            "compression": "deflate" if self.deflate else None,
            "open_timeout": PATIENCE,
            "close_timeout": PATIENCE,
            "max_size": 2**21,  # they count compressed bytes, and noise grows by that
        }

    def url(self, port: int, *, user: str = "") -> str:
        return f"{'wss' if self.tls else 'ws'}://{user}127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.fixture(params=["tcp", "tcp deflate", "tls", "tls deflate"])
def wire(request: pytest.FixtureRequest, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Wire:
    tls, deflate = "tls" in request.param, "deflate" in request.param
    return Wire(tls, deflate, *(contexts if tls else (None, None)))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """All threads end; trio keeps its own a while, for the next one who needs one."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith("Trio "):
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread} is left"


@asynccontextmanager
async def our_server(
    handler: Callable[[WebSocketRequest], Any], wire: Wire
) -> AsyncGenerator[int, None]:
    """Serve with trio_ws; yield the port."""
    serve = partial(
        serve_websocket, host="127.0.0.1", ssl_context=wire.server_context, options=wire.options
    )
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 4 * PATIENCE
        server = await nursery.start(serve, handler, 0)
        yield server.port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def their_server(
    handler: Callable[[Any], None], wire: Wire, **arguments: Any
) -> AsyncGenerator[int, None]:
    """Serve with websockets, in threads; yield the port."""
    server = their_serve(
        handler,
        "127.0.0.1",
        0,
        ssl=wire.server_context,
        **wire.their_arguments,
        **arguments,
    )

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.to_thread.run_sync(server.serve_forever)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        try:
            yield server.socket.getsockname()[1]
        finally:
            with trio.CancelScope(shield=True):  # they close within their close_timeout
                await trio.to_thread.run_sync(server.shutdown)


async def their_client(
    talk: Callable[[Any], Any], wire: Wire, port: int, *, user: str = "", **arguments: Any
) -> Any:
    """Connect with websockets, in a thread, and return what ``talk`` returns."""

    def run() -> Any:
        opening = connect(
            wire.url(port, user=user),
            ssl=wire.client_context,
            proxy=None,
            **wire.their_arguments,
            **arguments,
        )
        with opening as ws:
            return talk(ws)

    return await trio.to_thread.run_sync(run)


@asynccontextmanager
async def our_client(
    wire: Wire, port: int, *, user: str = "", **arguments: Any
) -> AsyncGenerator[WebSocket, None]:
    with trio.CancelScope(deadline=trio.current_time() + 2 * PATIENCE) as scope:
        async with open_websocket(
            wire.url(port, user=user),
            ssl_context=wire.client_context,
            options=wire.options,
            **arguments,
        ) as ws:
            yield ws
    assert not scope.cancelled_caught, "it took too long"


async def our_echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


def their_echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


# Messages...


async def test_their_client_gets_back_what_it_sends_us(wire: Wire) -> None:
    def talk(ws: Any) -> dict[str, Any]:
        echoes = {}
        for name, message in MESSAGES.items():
            ws.send(message)
            echoes[name] = ws.recv(PATIENCE)
        assert bool(ws.protocol.extensions) == wire.deflate
        return echoes

    async with our_server(our_echo, wire) as port:
        assert await their_client(talk, wire, port) == MESSAGES


async def test_our_client_gets_back_what_it_sends_them(wire: Wire) -> None:
    extensions: list[bool] = []

    def handler(ws: Any) -> None:
        extensions.append(bool(ws.protocol.extensions))
        their_echo(ws)

    async with their_server(handler, wire) as port, our_client(wire, port) as ws:
        for message in MESSAGES.values():
            await ws.send(message)
            assert await ws.receive() == message
    assert extensions == [wire.deflate]


async def test_many_messages_under_way_arrive_in_order(wire: Wire) -> None:
    async with their_server(their_echo, wire) as port, our_client(wire, port) as ws:

        async def send() -> None:
            for number in range(500):
                await ws.send(f"message {number} " * 20)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(500):
                assert await ws.receive() == f"message {number} " * 20


PARTS: Final = {"text": ["hé", "", "llo" * 1000, "✓"], "binary": [b"\0", b"", b"\xff" * 1000]}


@pytest.mark.parametrize("kind", PARTS)
async def test_fragments_of_their_client_are_one_message(kind: str, wire: Wire) -> None:
    parts: list[Any] = PARTS[kind]
    whole = type(parts[0])().join(parts)

    def talk(ws: Any) -> list[Any]:
        ws.send(parts)
        return list(ws.recv_streaming())

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            assert await ws.receive() == whole
            async with ws.open_message(text=kind == "text") as message:
                for part in parts:
                    await message.send(part)

    async with our_server(handler, wire) as port:
        answer = await their_client(talk, wire, port)
    assert type(parts[0])().join(answer) == whole
    assert len(answer) > 1


@pytest.mark.parametrize("kind", PARTS)
async def test_fragments_of_our_client_are_one_message(kind: str, wire: Wire) -> None:
    parts: list[Any] = PARTS[kind]
    whole = type(parts[0])().join(parts)
    came: list[Any] = []

    def handler(ws: Any) -> None:
        came.append(ws.recv(PATIENCE))
        ws.send(parts)

    async with their_server(handler, wire) as port, our_client(wire, port) as ws:
        async with ws.open_message(text=kind == "text") as message:
            for part in parts:
                await message.send(part)
        async with ws.receive_message() as chunks:
            assert chunks.text == (kind == "text")
            answer = [chunk async for chunk in chunks]
    assert type(parts[0])().join(answer) == whole
    assert came == [whole]


# Pings...


async def test_their_client_and_we_answer_each_others_pings(wire: Wire) -> None:
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def talk(ws: Any) -> bool:
        answered = ws.ping(b"theirs").wait(PATIENCE)
        token.run_sync_soon(done.set)
        with pytest.raises(TheirConnectionClosed):
            ws.recv(PATIENCE)
        return bool(answered)

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            assert await ws.ping(b"ours") >= 0
            await done.wait()

    async with our_server(handler, wire) as port:
        assert await their_client(talk, wire, port) is True


async def test_our_client_and_they_answer_each_others_pings(wire: Wire) -> None:
    answers: list[bool] = []

    def handler(ws: Any) -> None:
        answers.append(ws.ping(b"theirs").wait(PATIENCE))
        their_echo(ws)

    async with their_server(handler, wire) as port, our_client(wire, port) as ws:
        assert await ws.ping() >= 0
        await ws.send("between")
        assert await ws.receive() == "between"
    assert answers == [True]


# Closing...


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_a_close_of_their_client_is_told_here(code: int, reason: str, wire: Wire) -> None:
    told: list[ConnectionClosed] = []
    heard = trio.Event()

    def talk(ws: Any) -> tuple[int, str]:
        ws.close(code, reason)
        return ws.close_code, ws.close_reason

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            told.append(caught.value)
            heard.set()

    async with our_server(handler, wire) as port:
        answer = await their_client(talk, wire, port)
        await heard.wait()
        assert answer[0] == code  # what a server answers with: RFC 6455, section 5.5.1
    (error,) = told
    assert (error.code, error.reason) == (code, reason)
    assert isinstance(error, ConnectionEnded if code in (1000, 1001) else ConnectionLost)


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_a_close_of_our_server_is_told_there(code: int, reason: str, wire: Wire) -> None:
    def talk(ws: Any) -> tuple[int, str]:
        with pytest.raises(TheirConnectionClosed) as caught:
            ws.recv(PATIENCE)
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code, caught.value.rcvd.reason

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose(code, reason)
            assert ws.close_info is not None
            assert ws.close_info.code == code

    async with our_server(handler, wire) as port:
        assert await their_client(talk, wire, port) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_a_close_of_their_server_is_told_here(code: int, reason: str, wire: Wire) -> None:
    def handler(ws: Any) -> None:
        ws.send("last words")
        ws.close(code, reason)

    async with their_server(handler, wire) as port, our_client(wire, port) as ws:
        assert await ws.receive() == "last words"
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
    assert (caught.value.code, caught.value.reason) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), CLOSES)
async def test_a_close_of_our_client_is_told_there(code: int, reason: str, wire: Wire) -> None:
    told: list[tuple[int, str]] = []

    def handler(ws: Any) -> None:
        with pytest.raises(TheirConnectionClosed) as caught:
            ws.recv(PATIENCE)
        assert caught.value.rcvd is not None
        told.append((caught.value.rcvd.code, caught.value.rcvd.reason))

    async with their_server(handler, wire) as port, our_client(wire, port) as ws:
        await ws.aclose(code, reason)
        assert ws.close_info is not None
        assert ws.close_info.code == code
    assert told == [(code, reason)]


# The handshake...


async def test_their_client_and_we_agree_on_a_subprotocol(wire: Wire) -> None:
    async def handler(request: WebSocketRequest) -> None:
        assert request.subprotocols == ("a", "b")
        async with request.accept("b") as ws:
            assert ws.subprotocol == "b"

    async with our_server(handler, wire) as port:
        chosen = await their_client(lambda ws: ws.subprotocol, wire, port, subprotocols=["a", "b"])
    assert chosen == "b"


async def test_our_client_and_they_agree_on_a_subprotocol(wire: Wire) -> None:
    async with (
        their_server(their_echo, wire, subprotocols=["b", "c"]) as port,
        our_client(wire, port, subprotocols=["a", "b"]) as ws,
    ):
        assert ws.subprotocol == "b"


async def test_the_password_of_their_client_arrives(wire: Wire) -> None:
    credentials: list[str] = []

    async def handler(request: WebSocketRequest) -> None:
        credentials.append(request.headers["Authorization"])
        async with request.accept():
            pass

    async with our_server(handler, wire) as port:
        await their_client(lambda ws: None, wire, port, user="ann:secret@")
    assert credentials == ["Basic " + base64.b64encode(b"ann:secret").decode()]


async def test_the_password_of_our_client_arrives(wire: Wire) -> None:
    check = basic_auth("test", credentials=("ann", "s:cret é"))
    async with their_server(their_echo, wire, process_request=check) as port:
        async with our_client(wire, port, user="ann:s%3Acret%20%C3%A9@") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        with pytest.raises(ConnectionRejected) as caught:
            async with our_client(wire, port, user="ann:wrong@"):
                pass
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith('Basic realm="test"')


async def test_their_client_is_told_why_it_is_rejected(wire: Wire) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(403, body="not you", headers={"X-Why": "you"})

    async with our_server(handler, wire) as port:
        with pytest.raises(InvalidStatus) as caught:
            await their_client(lambda ws: None, wire, port)
    response = caught.value.response
    assert (response.status_code, response.body) == (403, b"not you")
    assert response.headers["X-Why"] == "you"


async def test_our_client_is_told_why_it_is_rejected(wire: Wire) -> None:
    def refuse(connection: Any, request: Any) -> Any:
        return connection.respond(418, "a teapot\n")

    async with their_server(their_echo, wire, process_request=refuse) as port:
        with pytest.raises(ConnectionRejected) as caught:
            async with our_client(wire, port):
                pass
    assert (caught.value.status, caught.value.body) == (418, b"a teapot\n")
