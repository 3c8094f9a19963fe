"""Our handlers as an ASGI application: event by event, under a server that tests play."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _asgi import FakeServer
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_ws import (
    CloseInfo,
    ConnectionEnded,
    ConnectionLost,
    Options,
    Request,
    Response,
    Rooms,
    Routes,
    WebSocket,
    WebSocketRequest,
)
from trio_ws.asgi import to_asgi
from trio_ws.asgi._relay import WebSocketRelay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

DENIAL = {"websocket.http.response": {}}


@asynccontextmanager
async def connection(
    handler: Any, *, options: Options = Options(), **scope: Any
) -> AsyncGenerator[FakeServer, None]:
    """Let a handler have a connection whose client has just come."""
    server = FakeServer(**scope)
    server.put("websocket.connect")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, to_asgi(handler, options=options))
        yield server


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


def handling(work: Callable[[WebSocket], Awaitable[object]]) -> Any:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await work(ws)

    return handler


# The request...


async def test_a_request_tells_what_the_server_knows(autojump_clock: MockClock) -> None:
    seen: list[WebSocketRequest] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(request)

    headers = [
        (b"host", b"example.org"),
        (b"cookie", b"a=1"),
        (b"x-a", b"caf\xe9"),
        (b"x-a", b"2"),
        (b"connection", b"Upgrade, close"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"5"),
        (b"sec-websocket-key", b"nonsense"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"Sec-WebSocket-Protocol", b"other"),
    ]
    async with connection(
        handler,
        path="/café/x y",
        query_string=b"a=%20b&c",
        headers=headers,
        subprotocols=["chat", "talk"],
    ) as server:
        assert (await server.next())["type"] == "websocket.close"
    (request,) = seen
    assert request.path == "/café/x y"
    assert request.target == "/caf%C3%A9/x%20y?a=%20b&c"
    assert dict(request.query) == {"a": " b", "c": ""}
    assert request.headers.getall("X-A") == ["café", "2"]
    assert request.headers.getall("Host") == ["example.org"]
    assert request.cookies == {"a": "1"}
    assert request.subprotocols == ("chat", "talk")
    assert request.remote_address == ("192.0.2.1", 1234)
    assert request.local_address == ("192.0.2.2", 80)
    assert request.tls is None
    assert "sec-websocket-extensions" not in request.headers


@pytest.mark.parametrize(
    ("root", "path", "seen"),
    [
        ("", "/a/b", "/a/b"),
        ("/a", "/a/b", "/b"),
        ("/a/", "/a/b", "/b"),
        ("/a", "/a", "/"),
        ("/a", "/ab", "/ab"),  # a server that leaves the root out
        ("/a", "/b", "/b"),
        ("", "", "/"),
    ],
)
async def test_below_a_mount_the_path_is_what_follows_it(
    autojump_clock: MockClock, root: str, path: str, seen: str
) -> None:
    paths = []

    async def handler(request: WebSocketRequest) -> None:
        paths.append(request.path)

    async with connection(handler, root_path=root, path=path) as server:
        await server.rest()
    assert paths == [seen]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("192.0.2.2", 80), "192.0.2.2:80"),
        (("2001:db8::1", 8000), "[2001:db8::1]:8000"),
        (("/run/server.sock", None), "/run/server.sock"),
        (None, "localhost"),
    ],
)
async def test_a_host_that_the_client_does_not_name_is_the_servers(
    autojump_clock: MockClock, address: Any, host: str
) -> None:
    """As far as it is a host: 400 otherwise, as ever."""
    hosts = []

    async def handler(request: WebSocketRequest) -> None:
        hosts.append(request.headers["Host"])

    async with connection(handler, headers=[], server=address) as server:
        await server.rest()
    assert hosts == ([] if host.startswith("/") else [host])


async def test_without_a_client_address_there_is_none(autojump_clock: MockClock) -> None:
    async def check(ws: WebSocket) -> None:
        assert ws.remote_address is None
        await ws.send("fine")

    async with connection(handling(check), client=None) as server:
        assert [event["type"] for event in await server.rest()][1] == "websocket.send"


async def test_line_ends_in_a_header_make_no_header(autojump_clock: MockClock) -> None:
    seen = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(request.headers)

    headers = [(b"host", b"test"), (b"x-a", b"1\r\nX-Admin: yes")]
    async with connection(handler, headers=headers) as server:
        await server.rest()
    assert seen[0]["x-a"] == "1  X-Admin: yes"
    assert "x-admin" not in seen[0]


# The answer...


async def test_accepting_tells_subprotocol_and_headers(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept("chat", headers=[("Set-Cookie", "a=1"), ("X-Why", "é")]) as ws:
            assert ws.subprotocol == "chat"

    async with connection(handler, subprotocols=["talk", "chat"]) as server:
        assert await server.next() == {
            "type": "websocket.accept",
            "subprotocol": "chat",
            "headers": [(b"set-cookie", b"a=1"), (b"x-why", b"\xe9")],
        }
        assert await server.next() == {"type": "websocket.close", "code": 1000, "reason": ""}
        server.put("websocket.disconnect", code=1000)
        assert await server.rest() == []


async def test_a_refusal_is_told_in_full_if_the_server_can(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, body="who are you?", headers={"WWW-Authenticate": "Basic"})

    async with connection(handler, extensions=DENIAL) as server:
        start, *bodies = await server.rest()
    assert start == {
        "type": "websocket.http.response.start",
        "status": 401,
        "headers": [
            (b"www-authenticate", b"Basic"),
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"12"),
        ],
    }
    assert {event["type"] for event in bodies} == {"websocket.http.response.body"}
    assert b"".join(event["body"] for event in bodies) == b"who are you?"
    assert [event["more_body"] for event in bodies] == [True, False]


async def test_a_refusal_is_a_close_if_the_server_cannot(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, body="who are you?")

    async with connection(handler) as server:
        assert await server.rest() == [{"type": "websocket.close", "code": 1008}]


async def test_the_stream_does_not_know_when_there_is_room(autojump_clock: MockClock) -> None:
    server = FakeServer()
    with assert_checkpoints():
        await WebSocketRelay(
            server.scope, trio.sleep_forever, trio.sleep_forever
        ).wait_send_all_might_not_block()


async def test_a_handler_that_fails_before_the_accept_is_answered_500(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        raise KeyError("oops")

    async with connection(handler, extensions=DENIAL) as server:
        assert (await server.next())["status"] == 500
        await server.rest()
    assert "handler failed" in caplog.text


@pytest.mark.parametrize("secure", [True, False])
async def test_origins_are_judged_as_ever(autojump_clock: MockClock, secure: bool) -> None:
    """A page that came in the clear may have been changed: it has no place under TLS."""
    origins = {b"http://test": not secure, b"https://test": True, b"http://evil.test": False}
    for origin, allowed in origins.items():
        headers = [(b"host", b"test"), (b"origin", origin)]
        scheme = "wss" if secure else "ws"
        async with connection(echo, headers=headers, scheme=scheme) as server:
            accepted = (await server.next())["type"] == "websocket.accept"
            assert accepted is allowed
            server.put("websocket.disconnect", code=1000)


async def test_an_accept_that_is_refused_in_code_may_be_tried_again(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(ValueError, match="not offer"):
            async with request.accept("chat"):
                pass
        async with request.accept():
            pass

    async with connection(handler) as server:
        assert (await server.next())["subprotocol"] is None
        server.put("websocket.disconnect", code=1000)
        await server.rest()


# Messages...


async def test_messages_of_both_kinds_come_and_go(autojump_clock: MockClock) -> None:
    async with connection(echo) as server:
        assert (await server.next())["type"] == "websocket.accept"
        big = b"x" * 10**6  # four frames, and 64 writes
        for message in ("café", "", b"\x00\xff", b"", "é" * 300_000, big):
            if isinstance(message, str):  # in each of the ways that ASGI allows
                server.put("websocket.receive", text=message, bytes=None)
                assert await server.next() == {"type": "websocket.send", "text": message}
                server.put("websocket.receive", text=message)
            else:
                server.put("websocket.receive", text=None, bytes=message)
                assert await server.next() == {"type": "websocket.send", "bytes": message}
                server.put("websocket.receive", bytes=message)
            await server.next()
        server.put("websocket.disconnect", code=1001)
        assert await server.rest() == []


async def test_a_message_in_fragments_is_one_event(autojump_clock: MockClock) -> None:
    async def work(ws: WebSocket) -> None:
        async with ws.open_message(text=True) as part:
            await part.send("one, ")
            await part.send("two")

    async with connection(handling(work)) as server:
        await server.next()
        assert await server.next() == {"type": "websocket.send", "text": "one, two"}
        server.put("websocket.disconnect", code=1000)
        await server.rest()


async def test_views_rooms_and_nurseries_work_as_ever(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def work(ws: WebSocket) -> None:
        async with rooms.join(ws, "lobby"), ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            async for value in ws.json():
                await rooms.publish("lobby", str(value["n"] + 1))
        assert ws.close_info == CloseInfo(1001, "gone", "remote", clean=True)

    async with connection(handling(work)) as server:
        await server.next()
        server.put("websocket.receive", text='{"n": 1}')
        assert await server.next() == {"type": "websocket.send", "text": "2"}
        server.put("websocket.disconnect", code=1001, reason="gone")
        assert await server.rest() == []


async def test_limits_are_kept(autojump_clock: MockClock) -> None:
    async with connection(echo, options=Options(max_message_size=5)) as server:
        await server.next()
        server.put("websocket.receive", text="123456")
        close = await server.next()
        assert (close["type"], close["code"]) == ("websocket.close", 1009)
        server.put("websocket.disconnect", code=1009)
        await server.rest()


async def test_a_server_that_does_not_take_messages_holds_the_sender_back(
    autojump_clock: MockClock,
) -> None:
    sent = 0

    async def work(ws: WebSocket) -> None:
        nonlocal sent
        while True:
            await ws.send("x" * 10_000)
            sent += 1

    async with connection(handling(work), options=Options(send_buffer=50_000)) as server:
        await server.next()
        await wait_all_tasks_blocked()
        assert 0 < sent < 20
        server.put("websocket.disconnect", code=1000)
        assert all(event["type"] == "websocket.send" for event in await server.rest())


async def test_messages_that_nobody_reads_are_left_with_the_server(
    autojump_clock: MockClock,
) -> None:
    async def work(ws: WebSocket) -> None:
        await trio.sleep(1)
        assert ws.statistics().reading_paused
        assert ws.statistics().unread_messages < 10
        assert [await ws.receive() for _ in range(50)] == ["x" * 100] * 50

    async with connection(handling(work), options=Options(receive_buffer=500)) as server:
        await server.next()
        for _ in range(50):
            server.put("websocket.receive", text="x" * 100)
        assert (await server.next())["type"] == "websocket.close"
        server.put("websocket.disconnect", code=1000)
        await server.rest()


async def test_nobody_can_ping_through_asgi(autojump_clock: MockClock) -> None:
    async def work(ws: WebSocket) -> None:
        with pytest.raises(NotImplementedError, match="ASGI has no pings"):
            await ws.ping()
        await trio.sleep(1000)  # and our keepalive does not

    async with connection(handling(work)) as server:
        assert len(await server.rest()) == 2
    assert 1000 <= trio.current_time() <= 1000 + Options().close_grace


# Ends...


@pytest.mark.parametrize(
    ("event", "info"),
    [
        ({"code": 1000}, CloseInfo(1000, "", "remote", clean=True)),
        ({"code": 1001, "reason": "lunch"}, CloseInfo(1001, "lunch", "remote", clean=True)),
        ({"code": 4000, "reason": None}, CloseInfo(4000, "", "remote", clean=True)),
        ({"code": 1005}, CloseInfo(1005, "", "remote", clean=True)),
        ({}, CloseInfo(1005, "", "remote", clean=True)),
        (
            {"code": 1006},
            CloseInfo(1006, "the ASGI server knows no close code", "lost", clean=False),
        ),
    ],
)
async def test_the_clients_end_is_told_as_far_as_the_server_knows_it(
    autojump_clock: MockClock, event: dict[str, Any], info: CloseInfo
) -> None:
    async def work(ws: WebSocket) -> None:
        error = ConnectionEnded if info.polite else ConnectionLost
        with pytest.raises(error):
            await ws.receive()
        assert ws.close_info == info

    async with connection(handling(work)) as server:
        await server.next()
        server.put("websocket.disconnect", **event)
        assert await server.rest() == []  # whoever has gone is told nothing
    assert trio.current_time() == 0


async def test_our_close_waits_for_the_clients_within_the_grace(
    autojump_clock: MockClock,
) -> None:
    async def work(ws: WebSocket) -> None:
        await ws.aclose(4001, "enough")

    for code, clean in ((4001, True), (1006, True), (None, False)):
        before = trio.current_time()
        seen: list[WebSocket] = []

        async def handler(request: WebSocketRequest, seen: list[WebSocket] = seen) -> None:
            async with request.accept() as ws:
                seen.append(ws)
                await work(ws)

        async with connection(handler) as server:
            await server.next()
            close = {"type": "websocket.close", "code": 4001, "reason": "enough"}
            assert await server.next() == close
            if code is not None:
                server.put("websocket.disconnect", code=code)
            assert await server.rest() == []
        assert seen[0].close_info == CloseInfo(4001, "enough", "local", clean=clean)
        assert trio.current_time() - before == (0 if clean else Options().close_grace)


async def test_a_handler_that_fails_closes_with_1011(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(ws: WebSocket) -> None:
        raise KeyError("oops")

    async with connection(handling(work)) as server:
        await server.next()
        assert (await server.next())["code"] == 1011
        server.put("websocket.disconnect", code=1011)
        await server.rest()
    assert "handler failed" in caplog.text


async def test_a_server_that_cancels_still_says_1001(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.put("websocket.connect")
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await server.run(to_asgi(echo))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await server.next()
        await wait_all_tasks_blocked()
        scope.cancel()
        assert await server.next() == {"type": "websocket.close", "code": 1001, "reason": ""}
        server.put("websocket.disconnect", code=1001)
    assert scope.cancelled_caught
    assert trio.current_time() == 0


async def test_a_client_that_leaves_before_the_answer_is_no_error(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    server.put("websocket.disconnect", code=1006)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, to_asgi(echo))
        assert await server.rest() == []


async def test_a_server_whose_send_fails_ends_the_connection(autojump_clock: MockClock) -> None:
    """ASGI 2.4: send() raises an OSError once the client has gone."""
    failed = []

    async def work(ws: WebSocket) -> None:
        server.failure = BrokenPipeError("gone")
        await ws.send("x")
        await trio.sleep(1)
        with pytest.raises(ConnectionLost, match="gone") as caught:
            await ws.send("y")
        failed.append(caught.value.code)

    async with connection(handling(work)) as server:
        await server.next()
        assert await server.rest() == []
    assert failed == [1006]


async def test_a_refusal_that_cannot_be_sent_is_no_error(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        server.failure = BrokenPipeError("gone")
        with pytest.raises(ConnectionLost):
            await request.reject(401)

    async with connection(handler, extensions=DENIAL) as server:
        assert await server.rest() == []


async def test_what_is_answered_after_the_goodbye_cannot_be_sent(
    autojump_clock: MockClock,
) -> None:
    """Over TCP it could: there the peer's Close waits for the last answers."""

    async def work(ws: WebSocket) -> None:
        await trio.sleep(1)
        assert await ws.receive() == "a question"
        await ws.send("an answer")

    async with connection(handling(work)) as server:
        await server.next()
        server.put("websocket.receive", text="a question")
        server.put("websocket.disconnect", code=1000)
        assert await server.rest() == []


# Pages...

routes = Routes()


@routes.get("/page")
async def page(request: Request) -> Response:
    return Response.html(f"<p>{request.query.get('q')}", headers={"X-A": "b"})


@routes.get("/big")
async def big(request: Request) -> Response:
    return Response(b"x" * 200_000)


@routes.get("/wrong")
async def wrong(request: Request) -> Response:
    raise KeyError("oops")


@routes.get("/talkative")
async def talkative(request: Request) -> Response:
    return Response("hello", headers={"X-A": "x" * 100_000})


routes.websocket("/ws")(echo)


async def ask(
    path: str,
    method: str = "GET",
    app: Any = routes,
    body: tuple[bytes, ...] = (b"",),
    **scope: Any,
) -> tuple[int, dict[bytes, bytes], bytes]:
    server = FakeServer("http", path=path, method=method, **scope)
    for index, piece in enumerate(body):
        server.put("http.request", body=piece, more_body=index < len(body) - 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, to_asgi(app))
        start, *bodies = await server.rest()
    assert start["type"] == "http.response.start"
    assert {event["type"] for event in bodies} == {"http.response.body"}
    assert [event["more_body"] for event in bodies][-1] is False
    assert all(event["more_body"] for event in bodies[:-1])
    return start["status"], dict(start["headers"]), b"".join(event["body"] for event in bodies)


async def test_pages_are_served(autojump_clock: MockClock) -> None:
    status, headers, body = await ask("/page", query_string=b"q=%C3%A9")
    assert (status, body) == (200, "<p>é".encode())
    assert headers == {
        b"content-type": b"text/html; charset=utf-8",
        b"content-length": b"5",
        b"x-a": b"b",
    }
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/page", 405),
        ("GET", "/ws", 426),
        ("GET", "/wrong", 500),
    ],
)
async def test_errors_of_pages_are_told(
    autojump_clock: MockClock, method: str, path: str, status: int
) -> None:
    assert (await ask(path, method))[0] == status


async def test_a_head_has_no_body(autojump_clock: MockClock) -> None:
    status, headers, body = await ask("/page", "HEAD")
    assert (status, headers[b"content-length"], body) == (200, b"7", b"")


async def test_a_large_page_comes_whole(autojump_clock: MockClock) -> None:
    assert len((await ask("/big"))[2]) == 200_000


async def test_a_page_may_have_long_headers(autojump_clock: MockClock) -> None:
    _, headers, body = await ask("/talkative")
    assert (len(headers[b"x-a"]), body) == (100_000, b"hello")


async def test_a_body_is_taken_up_to_a_limit(autojump_clock: MockClock) -> None:
    assert (await ask("/page", body=(b"x" * 8192, b"x" * 8192)))[0] == 200
    assert (await ask("/page", body=(b"x" * 8192, b"x" * 8193)))[0] == 413
    assert (await ask("/page", body=(b"x" * 10_000,) * 100))[0] == 413  # without reading it all


async def test_upgrades_are_not_offered_over_http_2(autojump_clock: MockClock) -> None:
    assert (await ask("/ws"))[1][b"upgrade"] == b"websocket"
    assert b"upgrade" not in (await ask("/ws", http_version="2"))[1]


async def test_a_handler_of_websockets_alone_has_no_pages(autojump_clock: MockClock) -> None:
    assert (await ask("/", app=echo))[0] == 426


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_error(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("http")
    server.put("http.request", body=b"x", more_body=True)
    server.put("http.disconnect")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, to_asgi(routes))
        assert await server.rest() == []


async def test_a_client_that_leaves_in_the_middle_of_its_page_is_no_error(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer("http", path="/big")
    server.put("http.request", body=b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, to_asgi(routes))
        await server.next()
        server.failure = BrokenPipeError("gone")
        await server.rest()


# The rest of ASGI...


async def test_start_and_end_of_the_server_are_answered(autojump_clock: MockClock) -> None:
    server = FakeServer("lifespan")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, to_asgi(echo))
        server.put("lifespan.startup")
        assert await server.next() == {"type": "lifespan.startup.complete"}
        server.put("lifespan.shutdown")
        assert await server.rest() == [{"type": "lifespan.shutdown.complete"}]


async def test_what_is_neither_http_nor_websocket_is_refused(autojump_clock: MockClock) -> None:
    with pytest.raises(NotImplementedError, match="cannot serve the ASGI scope 'telepathy'"):
        await FakeServer("telepathy").run(to_asgi(echo))


def test_a_server_that_does_not_run_on_trio_is_told_so() -> None:
    """With another event loop, or with none as here."""
    server: dict[str, Any] = {}
    running = to_asgi(echo)(server, None, None)  # type: ignore[arg-type]  # never used
    with pytest.raises(RuntimeError, match="trio_ws runs on trio"):
        running.send(None)  # type: ignore[attr-defined]  # a coroutine


def test_a_handler_has_to_be_one() -> None:
    with pytest.raises(TypeError, match="a handler is an async function"):
        to_asgi("handler")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="options is an Options"):
        to_asgi(echo, options={})  # type: ignore[arg-type]  # likewise


async def test_a_handlers_error_reaches_the_server_if_one_wishes(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        raise KeyError("oops")

    caplog.set_level(logging.INFO)
    server = FakeServer(extensions=DENIAL)
    server.put("websocket.connect")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.rest)
        with pytest.raises(KeyError):
            await server.run(to_asgi(handler, options=Options(on_handler_error="raise")))
