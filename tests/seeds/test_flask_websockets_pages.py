"""What flask-websockets' guide shows, row by row: routes."""

from __future__ import annotations

from trio.testing import MockClock

from trio_ws import Request, Response, Routes, WebSocketRequest
from trio_ws.testing import open_server


def make_feature() -> Routes:
    """Make a part of an application that knows nothing of the rest."""
    routes = Routes()

    @routes.get("/")
    async def page(request: Request) -> Response:
        return Response("a page of the feature")

    @routes.websocket("/ws")
    async def ws(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send(request.path)

    return routes


async def test_f1_a_websocket_is_a_route_among_pages(autojump_clock: MockClock) -> None:
    """Of an application on our own server; on an ASGI server see tests/asgi."""
    async with open_server(make_feature()) as connect:
        async with connect("/ws") as ws:
            assert await ws.receive() == "/ws"
        async with await connect.network.connect("server.test", 80) as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join([bytes(data) async for data in stream])
        assert answer.endswith(b"a page of the feature")


async def test_f12_routes_are_values_that_compose(autojump_clock: MockClock) -> None:
    app = Routes()
    app.include("/one", make_feature())
    app.include("/two", make_feature())
    async with open_server(app) as connect:
        for prefix in ("/one", "/two"):
            async with connect(f"{prefix}/ws") as ws:
                assert await ws.receive() == f"{prefix}/ws"
