"""Our handlers in their other homes: hypercorn, Quart-Trio, Starlette, and over HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
from _asgi import context_for, run_hypercorn
from _browser import launch_browser, open_browser
from _components import until
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trio_ws import (
    ConnectionLost,
    ConnectionRejected,
    Options,
    Request,
    Response,
    Rooms,
    Routes,
    WebSocketRequest,
)
from trio_ws.asgi import to_asgi

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Options(compression=None)


def make_routes() -> tuple[Routes, list[Any]]:
    """Return an application, and what has become of its WebSockets."""
    routes = Routes()
    ends: list[Any] = []
    rooms = Rooms()

    @routes.websocket("/echo/{name}")
    async def echo(request: WebSocketRequest, *, name: str) -> None:
        subprotocol = request.subprotocols[0] if request.subprotocols else None
        async with request.accept(subprotocol, headers={"X-Name": name}) as ws:
            scope = request._stream._scope  # type: ignore[attr-defined]  # no public thing tells
            await ws.send(f"hello {name} at {request.path} over {scope['http_version']}")
            async for message in ws:
                await ws.send(message)
        ends.append(ws.close_info)

    @routes.websocket("/room")
    async def room(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "room") as member:
            await ws.send("entered")
            async for message in ws:
                await rooms.publish("room", message, exclude={member})

    @routes.websocket("/bye")
    async def bye(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose(4000, "bye")
        ends.append(ws.close_info)

    @routes.websocket("/no")
    async def no(request: WebSocketRequest) -> None:
        await request.reject(401, body="who are you?", headers={"WWW-Authenticate": "Basic"})

    @routes.get("/")
    async def index(request: Request) -> Response:
        return Response.html("<title>page</title>")

    return routes, ends


# hypercorn...


async def test_a_websocket_under_hypercorn() -> None:
    routes, ends = make_routes()
    async with run_hypercorn(to_asgi(routes)) as server:
        for options in (Options(), PLAIN):
            async with server.open("/echo/é", subprotocols=["chat"], options=options) as ws:
                assert ws.subprotocol == "chat"
                assert await ws.receive() == "hello é at /echo/é over 1.1"
                for message in ("text", b"binary", "é" * 200_000, ""):
                    await ws.send(message)
                    assert await ws.receive() == message
            assert ws.close_info is not None
            assert ws.close_info.clean
    assert [info.code for info in ends] == []  # see below


async def test_hypercorn_does_not_tell_the_clients_close_code() -> None:
    """So each end is a loss there: the handler is left by it, and nobody calls it an error."""
    infos: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            with pytest.raises(ConnectionLost) as caught:
                await ws.receive()
            infos.append(caught.value.info)

    async with run_hypercorn(to_asgi(handler)) as server:
        async with server.open("/") as ws:
            await ws.aclose(4321, "nobody will know")
        await until(lambda: bool(infos))
    assert [(info.code, info.initiator) for info in infos] == [(1006, "lost")]


async def test_the_handlers_close_code_reaches_the_client_through_hypercorn() -> None:
    routes, ends = make_routes()
    async with run_hypercorn(to_asgi(routes)) as server, server.open("/bye") as ws:
        with pytest.raises(ConnectionLost, match="4000 'bye'"):
            await ws.receive()
    assert [(info.code, info.clean) for info in ends] == [(4000, True)]


async def test_a_refusal_comes_whole_through_hypercorn() -> None:
    routes, _ = make_routes()
    async with run_hypercorn(to_asgi(routes)) as server:
        for path, status, body in (("/no", 401, b"who are you?"), ("/nowhere", 404, None)):
            with pytest.raises(ConnectionRejected) as caught:
                async with server.open(path):
                    pass
            assert caught.value.status == status
            assert body in (None, caught.value.body)


async def test_rooms_reach_from_connection_to_connection_under_hypercorn() -> None:
    routes, _ = make_routes()
    async with (
        run_hypercorn(to_asgi(routes)) as server,
        server.open("/room") as one,
        server.open("/room") as other,
    ):
        assert [await one.receive(), await other.receive()] == ["entered", "entered"]
        await one.send("to all others")
        assert await other.receive() == "to all others"


async def test_a_hypercorn_that_stops_says_1001() -> None:
    routes, _ = make_routes()
    app = to_asgi(routes, options=Options(close_grace=0.1))  # it stops reading, as well
    async with run_hypercorn(app) as server, server.open("/echo/x") as ws:
        await ws.receive()
        server.stop.set()
        assert [message async for message in ws] == []
        assert ws.close_info is not None
        assert ws.close_info.code == 1001


async def test_pages_under_hypercorn() -> None:
    routes, _ = make_routes()
    async with run_hypercorn(to_asgi(routes)) as server:
        page = await server.get("/")
        assert page.startswith(b"HTTP/1.1 200")
        assert page.endswith(b"\r\n\r\n<title>page</title>")
        assert page.lower().count(b"\r\ndate:") == 1
        assert (await server.get("/", "HEAD")).endswith(b"\r\n\r\n")
        assert (await server.get("/nowhere")).startswith(b"HTTP/1.1 404")
        assert (await server.get("/room")).startswith(b"HTTP/1.1 426")


# In other applications...


async def test_mounted_in_quart_trio() -> None:
    """Quart has no mounts; whatever is ASGI can be asked first."""
    quart = QuartTrio("test_asgi_servers")

    @quart.route("/")
    async def index() -> str:
        return "quart"

    routes, _ = make_routes()
    chat = to_asgi(routes)
    everything_else = quart.asgi_app

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path", "").startswith("/chat/"):
            await chat({**scope, "root_path": "/chat"}, receive, send)
        else:
            await everything_else(scope, receive, send)

    quart.asgi_app = dispatch  # type: ignore[method-assign]  # as Quart's documents say
    async with run_hypercorn(quart) as server:
        assert (await server.get("/")).endswith(b"quart")
        assert b"<title>page</title>" in await server.get("/chat/")
        async with server.open("/chat/echo/you") as ws:
            assert await ws.receive() == "hello you at /echo/you over 1.1"
            await ws.send("hi")
            assert await ws.receive() == "hi"
        with pytest.raises(ConnectionRejected) as caught:
            async with server.open("/chat/no"):
                pass
        assert (caught.value.status, caught.value.body) == (401, b"who are you?")


async def test_mounted_in_starlette() -> None:
    async def index(request: Any) -> PlainTextResponse:
        return PlainTextResponse("starlette")

    routes, _ = make_routes()
    app = Starlette(routes=[Route("/", index), Mount("/chat", to_asgi(routes))])
    async with run_hypercorn(app) as server:
        assert (await server.get("/")).endswith(b"starlette")
        assert b"<title>page</title>" in await server.get("/chat/")
        async with server.open("/chat/echo/you") as ws:
            assert await ws.receive() == "hello you at /echo/you over 1.1"
            await ws.send("hi")
            assert await ws.receive() == "hi"
        with pytest.raises(ConnectionRejected) as caught:
            async with server.open("/chat/no"):
                pass
        assert (caught.value.status, caught.value.body) == (401, b"who are you?")


# HTTP/2...


async def test_chromium_opens_a_websocket_over_http_2(tmp_path: Path) -> None:
    """RFC 8441: on the connection that the page came over, if that is HTTP/2."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    routes, _ = make_routes()
    with launch_browser("--ignore-certificate-errors") as url:
        async with (
            run_hypercorn(to_asgi(routes), tls=tls) as server,
            open_browser(url) as browser,
        ):
            page = await browser.open_page(server.url + "/")
            heard = await page.evaluate(
                """new Promise((resolve, reject) => {
                    const heard = [];
                    const ws = new WebSocket(location.origin.replace("http", "ws") + "/echo/you", "chat");
                    ws.onmessage = (event) => {
                        heard.push(event.data);
                        if (heard.length == 1) ws.send("hi");
                        else if (heard.length == 2) ws.send("x".repeat(300000));
                        else { heard[2] = heard[2].length; resolve([...heard, ws.protocol]); }
                    };
                    ws.onclose = (event) => reject("closed " + event.code);
                })"""  # noqa: E501  # JavaScript
            )
            assert heard == ["hello you at /echo/you over 2", "hi", 300_000, "chat"]
            refused = await page.evaluate(
                """new Promise((resolve) => {
                    const ws = new WebSocket(location.origin.replace("http", "ws") + "/no");
                    ws.onclose = (event) => resolve(event.code);
                })"""
            )
            assert refused == 1006

            # Our own client speaks HTTP/1.1, to the same handler at the same port.
            context = context_for(authority)
            async with server.open("/echo/me", ssl_context=context) as ws:
                assert await ws.receive() == "hello me at /echo/me over 1.1"
