"""How users write against the types: never run; type checkers must accept all of it.

Lines with a comment for both checkers must be refused: a comment that refuses nothing is an
error of its own.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Sequence
from typing import Any, Literal, assert_type

import trio
from multidict import CIMultiDictProxy, MultiDictProxy

import trio_ws
import trio_ws.asgi
import trio_ws.redis
from trio_ws import CloseInfo, Options, Response, WebSocket, WebSocketRequest, testing

# Server


async def handler(request: WebSocketRequest) -> None:
    assert_type(request.path, str)
    assert_type(request.query, MultiDictProxy[str])
    assert_type(request.headers, CIMultiDictProxy[str])
    assert_type(request.cookies, dict[str, str])
    assert_type(request.origin, str | None)
    assert_type(request.subprotocols, tuple[str, ...])
    assert_type(request.remote_address, Any)
    if request.origin is None:
        await request.reject()
        await request.reject(403, body="no", headers={"X-Why": "because"})
        await request.reject(403, body=b"no", headers=[("X-Why", "because")])
        await request.reject("403")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with request.accept() as ws:
        assert_type(ws, WebSocket)
    async with request.accept("chat", headers={"X-Served-By": "me"}) as ws:
        assert_type(ws, WebSocket)
    async with request.accept(["chat"]) as ws:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pass


async def wrong_handler(ws: WebSocket) -> None:
    await ws.send("a handler gets a request, and not yet a WebSocket")


async def serve(nursery: trio.Nursery, listeners: Sequence[trio.SocketListener]) -> None:
    server: trio_ws.Server = await nursery.start(trio_ws.serve_websocket, handler, 8000)
    assert_type(server.port, int)
    assert_type(server.connections, tuple[WebSocket, ...])
    assert_type(server.statistics(), trio_ws.ServerStatistics)
    await server.drain()
    await server.drain(1012, "back soon", deadline=10, batch=50, interval=0.1)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    options = Options(max_connections=None)
    await trio_ws.serve_websocket(handler, 8000, host="::", ssl_context=context, options=options)
    await trio_ws.serve_websocket_listeners(handler, listeners, handler_nursery=nursery)
    await trio_ws.serve_websocket_unix(handler, "/run/chat.sock", mode=0o660)
    await trio_ws.serve_websocket(routes, 8000)
    await trio_ws.serve_websocket(wrong_handler, 8000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await trio_ws.serve_websocket(handler, "8000")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Routes

routes = trio_ws.Routes()


@routes.websocket("/chat/{room}")
async def chat(request: WebSocketRequest, *, room: str) -> None:
    async with request.accept() as ws:
        await ws.send(room)


@routes.get("/page/{number:int}")
async def page(request: trio_ws.Request, *, number: int) -> Response:
    return Response(f"{request.path} {number}", content_type="text/plain", status=203)


@routes.get("/wrong")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
async def wrong_page(request: trio_ws.Request) -> str:
    return request.path


routes.static("/static", "web/")
routes.include("/admin", trio_ws.Routes())


asgi_app = trio_ws.asgi.to_asgi(routes, options=Options(max_message_size=5))
assert_type(asgi_app, trio_ws.asgi.ASGIHandler)
trio_ws.asgi.to_asgi(handler)
hosted = trio_ws.asgi.from_asgi(asgi_app, state={"greeting": "hello"})
assert_type(hosted, trio_ws.asgi.HostedApplication)


async def serve_hosted(nursery: trio.Nursery) -> None:
    await trio_ws.serve_websocket(hosted, 8000)
    await trio_ws.asgi.serve_asgi(asgi_app, 8000, host="::")
    server: trio_ws.Server = await nursery.start(trio_ws.asgi.serve_asgi, asgi_app, 8000)
    await server.drain()


trio_ws.asgi.to_asgi(wrong_handler)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Client


async def connect(stream: trio.abc.Stream) -> None:
    async with trio_ws.open_websocket("wss://example.org/") as ws:
        assert_type(ws, WebSocket)
    async with trio_ws.open_websocket(
        "wss://example.org/",
        subprotocols=["chat"],
        headers={"Authorization": "Bearer 1"},
        origin="https://example.org",
        ssl_context=ssl.create_default_context(),
        server_hostname="inside.example.org",
        proxy="https://proxy.example.org:3128",
        proxy_ssl_context=ssl.create_default_context(),
        local_address="192.0.2.1",
        options=Options(compression=None),
    ) as ws:
        await ws.aclose()
    trio_ws.open_websocket("wss://example.org/", proxy=None)
    trio_ws.open_websocket("wss://example.org/", proxy=False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with trio_ws.open_websocket_over_stream(stream, "ws://localhost/") as ws:
        await use(ws)
    trio_ws.open_websocket(b"wss://example.org/")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trio_ws.open_websocket("wss://example.org/", timeout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def token() -> dict[str, str]:
    return {"Authorization": "Bearer 1"}


async def reconnect() -> None:
    async with trio_ws.open_reconnecting("wss://example.org/") as sessions:
        assert_type(sessions, trio_ws.Sessions)
        async for ws in sessions:
            assert_type(ws, WebSocket)
        assert_type(sessions.statistics(), trio_ws.SessionsStatistics)
        assert_type(sessions.statistics().last_error, Exception | None)
    trio_ws.open_reconnecting(
        lambda: "wss://example.org/",
        retry=trio_ws.Backoff(initial=3, max_attempts=None, restart=(0, 1)),
        retry_if=lambda error: isinstance(error, trio_ws.ConnectionLost),
        headers=token,
        subprotocols=["chat"],
    )
    trio_ws.open_reconnecting("wss://example.org/", headers=[("X-One", "1")])
    trio_ws.open_reconnecting("wss://example.org/", retry=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trio_ws.open_reconnecting(token)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trio_ws.Backoff(restart=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(trio_ws.is_transient(OSError()), bool)
    assert_type(trio_ws.Backoff().delay(3, OSError()), float)


# WebSocket


async def use(ws: WebSocket) -> None:
    channel: trio.abc.Channel[str | bytes] = ws
    assert_type(await channel.receive(), str | bytes)
    assert_type(await ws.receive(), str | bytes)
    async for message in ws:
        assert_type(message, str | bytes)

    await ws.send("text")
    await ws.send(b"binary", compress=False)
    await ws.send(bytearray(b"binary"))
    await ws.send(memoryview(b"binary"))
    await ws.send(trio_ws.PreparedMessage("text"))

    assert_type(await ws.ping(), float)
    assert_type(await ws.ping(b"hello"), float)
    await ws.aclose(4000, "bored")
    await ws.aclose(trio_ws.CloseCode.GOING_AWAY)
    assert_type(await ws.wait_closed(), CloseInfo)

    assert_type(ws.close_info, CloseInfo | None)
    assert_type(ws.subprotocol, str | None)
    assert_type(ws.latency, float | None)
    assert_type(ws.id, str)
    assert_type(ws.statistics(), trio_ws.WebSocketStatistics)
    if ws.draining:
        await ws.draining.wait()
    ws.id = "mine"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def use_parts(ws: WebSocket) -> None:
    async with ws.open_message(text=True) as part:
        await part.send("some ")
        await part.send("more")
    async with ws.receive_message() as parts:
        assert_type(parts.text, bool)
        async for chunk in parts:
            assert_type(chunk, str | bytes)
    async with ws.open_nursery() as nursery:
        assert_type(nursery, trio.Nursery)
        nursery.start_soon(use, ws)


# Views


async def use_views(ws: WebSocket) -> None:
    assert_type(ws.text, trio.abc.Channel[str])
    assert_type(ws.binary, trio.abc.Channel[bytes])
    assert_type(ws.json(), trio.abc.Channel[Any])
    assert_type(await ws.text.receive(), str)
    async for data in ws.binary:
        assert_type(data, bytes)
    await ws.text.send("text")
    await ws.text.send(b"data")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await ws.binary.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    numbers = ws.typed(str, int)
    assert_type(numbers, trio.abc.Channel[int])
    await numbers.send(5)
    await numbers.send("5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(ws.typed(encode_point, decode_text, text=True), trio.abc.Channel[complex])
    assert_type(ws.typed(encode_point, decode_data, text=False), trio.abc.Channel[complex])
    ws.typed(encode_point, decode_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ws.typed(encode_point, decode_data, text=True)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ws.typed(decode_text, decode_text, text=True)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]

    stream: trio.abc.HalfCloseableStream = ws.as_stream()
    trio.SSLStream(stream, ssl.create_default_context())


def encode_point(point: complex) -> str:
    return str(point)


def decode_text(text: str) -> complex:
    return complex(text)


def decode_data(data: bytes) -> complex:
    return complex(data.decode())


# Errors


async def errors(ws: WebSocket) -> None:
    try:
        await ws.receive()
    except trio_ws.ConnectionEnded as ended:
        assert_type(ended.info, CloseInfo)
        end_of_channel: trio.EndOfChannel = ended
        raise end_of_channel from None
    except trio_ws.ConnectionClosed as closed:
        assert_type(closed.code, int)
        assert_type(closed.reason, str)
        assert_type(closed.info.initiator, Literal["local", "remote", "lost"])
        assert_type(closed.info.clean, bool)
        closed.info.code = 1000  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    except trio_ws.ConnectionRejected as rejected:
        assert_type(rejected.status, int)
        assert_type(rejected.headers, CIMultiDictProxy[str])
        assert_type(rejected.body, bytes)


# Options


Options(
    handshake_timeout=3,
    close_grace=0.5,
    ping_interval=None,
    ping_timeout=math.inf,
    compression=trio_ws.Deflate(level=9),
    allowed_origins=["https://example.org", re.compile(r"https://\w+\.example\.org")],
    on_handler_error="raise",
).replace(allowed_origins=trio_ws.ANY_ORIGIN)
Options(allowed_origins=trio_ws.SAME_ORIGIN)
Options(on_handler_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Options(ping_interval="20")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Options(no_such_option=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# Rooms

rooms = trio_ws.Rooms()


async def use_rooms(ws: WebSocket) -> None:
    async with rooms.join(ws, "lobby", "news", overflow=trio_ws.Overflow.DISCONNECT) as member:
        assert_type(member, trio_ws.Member)
        assert_type(await rooms.publish("lobby", "hello", exclude={member}), int)
        assert_type(rooms.members("lobby"), tuple[trio_ws.Member, ...])
    rooms.join("lobby")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def use_rooms_on_redis() -> None:
    history = trio_ws.History(count=10)
    async with trio_ws.redis.open_rooms(
        "redis://localhost", history=history, local=True
    ) as shared:
        assert_type(shared, trio_ws.Rooms)
        assert_type(shared.degraded, str | None)
    trio_ws.redis.open_rooms()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# The testing kit


async def use_kit(serve: testing.Serve, network: testing.MemoryNetwork) -> None:
    connect = await serve(handler, tls=True, options=Options(ping_interval=None))
    assert_type(connect, testing.Connect)
    link = testing.Link(latency=0.1, chunk=(1, 9), buffer=None, seed="any")
    async with connect("/chat", link=link) as ws, connect.raw(headers={"Origin": "null"}) as peer:
        assert_type(ws, WebSocket)
        await peer.send(b"\x81\x00", testing.Frame.close(1000))
        assert_type(await peer.receive_frame(), testing.Frame | None)
        await peer.send("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    link.to_client.bandwidth = 1000
    link.to_client.bandwidth = link.to_client.buffer = None
    link.to_client.chunk = 1
    link.to_client.latency = None  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    async with testing.open_pair(link=testing.Link()) as (client, server):
        assert_type(client, WebSocket)
        assert_type(server, WebSocket)
    async with testing.open_pair() as pair:
        assert_type(pair.recorder.frames("client"), list[testing.Frame])
        pair.recorder.frames("clients")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(network.listen("example.org", tls=True), trio.abc.Listener[Any])
    network.listen(tls="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await testing.cancel_everywhere(trio.lowlevel.checkpoint, check=print), int)
    async for attempt in testing.cancellations():
        assert_type(attempt, testing.Attempt)
        with attempt:
            await trio.sleep(1)
        assert_type(attempt.cancelled, bool)
