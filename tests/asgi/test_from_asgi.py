"""ASGI applications on our server: raw events, as the specification has them, and Starlette."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from _components import PATIENCE
from _site import Site, get, serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import (
    CloseInfo,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Options,
    open_websocket,
)
from trio_ws.asgi import from_asgi, serve_asgi
from trio_ws.asgi._from import _host_and_port
from trio_ws.asgi._types import Event, Receive, Scope, Send


class Application:
    """An application that notes what it is told, and does what a test says."""

    def __init__(self, act: Any) -> None:
        self._act = act
        self.scopes: list[Scope] = []
        self.errors: list[BaseException] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            await self._act(receive, send)
        except BaseException as exc:
            self.errors.append(exc)
            raise


@asynccontextmanager
async def hosted(
    act: Any, options: Options = Options()
) -> AsyncGenerator[tuple[Site, Application], None]:
    app = Application(act)
    async with serve(from_asgi(app), options) as site:
        yield site, app


async def echo(receive: Receive, send: Send) -> None:
    """As the raw events of every tutorial."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            break
        await send({**event, "type": "websocket.send"})


# WebSockets...


async def test_messages_of_both_kinds_come_and_go(autojump_clock: MockClock) -> None:
    async with hosted(echo) as (site, _), site.open() as ws:
        for message in ("text", "", b"binary", b"", "é" * 100_000):
            await ws.send(message)
            assert await ws.receive() == message


async def test_the_scope_of_a_websocket(autojump_clock: MockClock) -> None:
    async with (
        hosted(echo) as (site, app),
        site.open("/caf%C3%A9/x?a=%201", subprotocols=["a", "b"], headers={"X-Me": "é"}),
    ):
        await wait_all_tasks_blocked()
        (scope,) = app.scopes
        (visitor,) = site.listener.visitors
    headers = scope.pop("headers")
    assert (b"host", b"test") in headers
    assert (b"x-me", "é".encode("latin-1")) in headers
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/café/x",
        "raw_path": b"/caf%C3%A9/x",
        "query_string": b"a=%201",
        "root_path": "",
        "client": visitor.stream.socket.getsockname(),
        "server": ("192.0.2.1", 80),
        "subprotocols": ["a", "b"],
        "extensions": {"websocket.http.response": {}},
        "state": {},
    }


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (("192.0.2.1", 80), ("192.0.2.1", 80)),
        (("2001:db8::1", 80, 0, 0), ("2001:db8::1", 80)),
        ("/run/socket", ("/run/socket", None)),
        ("", None),
        (None, None),
    ],
)
def test_addresses_are_told_as_asgi_has_them(address: Any, told: Any) -> None:
    assert _host_and_port(address) == told


async def test_accepting_with_subprotocol_and_headers(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        headers = [(b"Set-Cookie", b"a=1"), (b"connection", b"close")]
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": headers})

    async with hosted(act) as (site, _), site.open("/", subprotocols=["a", "b"]) as ws:
        assert ws.subprotocol == "b"
        with pytest.raises(ConnectionEnded, match="1000"):  # once the application has returned
            await ws.receive()


@pytest.mark.parametrize("code", [1000, 4001])
async def test_the_clients_end_is_told_with_its_code(autojump_clock: MockClock, code: int) -> None:
    events: list[Event] = []

    async def act(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        events.extend([await receive(), await receive()])
        with pytest.raises(OSError, match="closed"):
            await send({"type": "websocket.send", "text": "late"})

    async with hosted(act) as (site, app), site.open() as ws:
        await ws.aclose(code, "bye")
        await wait_all_tasks_blocked()
        assert not app.errors
    assert events == [{"type": "websocket.disconnect", "code": code, "reason": "bye"}] * 2


async def test_the_applications_close_reaches_the_client(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4002, "reason": "enough"})
        assert (await receive())["code"] == 4002

    async with hosted(act) as (site, app), site.open() as ws:
        with pytest.raises(ConnectionLost, match="4002 'enough'"):
            await ws.receive()
        await wait_all_tasks_blocked()
        assert not app.errors


async def test_a_close_before_the_accept_is_a_403(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with hosted(act) as (site, app):
        with pytest.raises(ConnectionRejected) as caught:
            async with site.open():
                pytest.fail("it is refused")
        assert caught.value.status == 403
        await wait_all_tasks_blocked()
        assert not app.errors


async def test_a_denial_has_status_headers_and_body(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        kind = "websocket.http.response"
        headers = [(b"www-authenticate", b"Basic"), (b"content-length", b"12")]
        await send({"type": f"{kind}.start", "status": 401, "headers": headers})
        await send({"type": f"{kind}.body", "body": b"who are", "more_body": True})
        await send({"type": f"{kind}.body", "body": b" you?"})

    async with hosted(act) as (site, _):
        with pytest.raises(ConnectionRejected) as caught:
            async with site.open():
                pytest.fail("it is refused")
    assert (caught.value.status, caught.value.body) == (401, b"who are you?")
    assert caught.value.headers["WWW-Authenticate"] == "Basic"
    assert caught.value.headers.getall("Content-Length") == ["12"]


async def test_an_application_that_returns_at_once_refuses(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()

    async with hosted(act) as (site, _):
        with pytest.raises(ConnectionRejected, match="403"):
            async with site.open():
                pytest.fail("it is refused")


@pytest.mark.parametrize("accept", [True, False])
async def test_an_application_that_fails_is_a_handler_that_fails(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, accept: bool
) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        if accept:
            await send({"type": "websocket.accept"})
        raise KeyError("oops")

    async with hosted(act) as (site, _):
        if accept:
            async with site.open() as ws:
                with pytest.raises(ConnectionLost, match="1011"):
                    await ws.receive()
        else:
            with pytest.raises(ConnectionRejected, match="500"):
                async with site.open():
                    pytest.fail("it failed before")
        await wait_all_tasks_blocked()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)  # and is in no group


@pytest.mark.parametrize(
    ("accept", "event"),
    [
        (False, {"type": "websocket.send", "text": "early"}),
        (True, {"type": "websocket.accept"}),
        (True, {"type": "websocket.http.response.start", "status": 403}),
        (False, {"type": "websocket.http.response.body"}),
        (True, {"type": "http.response.start"}),
    ],
)
async def test_events_out_of_order_are_the_applications_error(
    autojump_clock: MockClock, accept: bool, event: Event
) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await receive()
        if accept:
            await send({"type": "websocket.accept"})
        with pytest.raises(RuntimeError, match="the WebSocket has been accepted"):
            await send(event)

    async with hosted(act) as (site, app):
        if accept:
            async with site.open():
                await wait_all_tasks_blocked()
        else:
            with pytest.raises(ConnectionRejected, match="403"):
                async with site.open():
                    pytest.fail("it was not accepted")
        await wait_all_tasks_blocked()
        assert not app.errors


async def test_an_application_may_use_tasks_and_scopes_as_it_likes(
    autojump_clock: MockClock,
) -> None:
    async def act(receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(5):
                await receive()
                await send({"type": "websocket.accept"})
            nursery.start_soon(send, {"type": "websocket.send", "text": "from a task"})
        assert (await receive())["text"] == "bye"

    async with hosted(act) as (site, app), site.open() as ws:
        assert await ws.receive() == "from a task"
        await ws.send("bye")
        with pytest.raises(ConnectionEnded):
            await ws.receive()
        assert not app.errors


async def test_cancelling_the_server_says_1001(autojump_clock: MockClock) -> None:
    async with hosted(echo) as (site, app), site.open() as ws:
        await wait_all_tasks_blocked()
        site.scope.cancel()
        assert [message async for message in ws] == []
        assert ws.close_info == CloseInfo(1001, "", "remote", clean=True)
        await site.over.wait()
        assert [type(error) for error in app.errors] == [trio.Cancelled]


# Pages...


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Event:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes = b"", *, more: bool = False) -> Event:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def test_a_page_with_a_body_and_an_answer(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        event = await receive()
        assert event == {"type": "http.request", "body": b"a=1", "more_body": False}
        await send(start(201, (b"X-A", b"caf\xe9"), (b"content-length", b"5")))
        await send(body(b"hello"))
        assert (await receive())["type"] == "http.disconnect"

    async with hosted(act) as (site, app):
        visitor = site.visit()
        for _ in range(2):  # one after the other on a connection
            await visitor.send(get("/form?q=1", "Content-Length: 3", method="POST") + b"a=1")
            answer = await visitor.answer()
            assert (answer.status, answer.body) == (201, b"hello")
            assert answer.headers["X-A"] == "café"
        scope = app.scopes[0]
        assert (scope["type"], scope["scheme"], scope["method"]) == ("http", "http", "POST")
        assert (scope["path"], scope["query_string"]) == ("/form", b"q=1")
        assert "subprotocols" not in scope
        assert not app.errors


async def test_a_page_of_unknown_length_goes_in_chunks_as_it_is_made(
    autojump_clock: MockClock,
) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"one", more=True))
        await trio.sleep(1000)  # no limit of ours
        await send(body(b"two", more=True))
        await send(body())

    async with hosted(act) as (site, _):
        visitor = site.visit()
        await visitor.send(get())
        await wait_all_tasks_blocked()
        first = bytes(await visitor.stream.receive_some())
        assert b"Transfer-Encoding: chunked" in first
        assert first.endswith(b"\r\n\r\n3\r\none\r\n")
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += bytes(await visitor.stream.receive_some())
        assert rest == b"3\r\ntwo\r\n0\r\n\r\n"


async def test_a_head_and_an_answer_without_a_body(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"5")))
        await send(body(b"hello"))

    async with hosted(act) as (site, _):
        visitor = site.visit()
        answer = await visitor.ask(get(method="HEAD"), body=False)
        assert (answer.status, answer.headers["Content-Length"]) == (200, "5")
        answer = await visitor.ask(get())
        assert answer.body == b"hello"


async def test_a_body_that_waits_to_be_asked_for_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    """curl, for one, comes back without the question."""
    async with hosted(echo) as (site, app):
        request = get("/", "Expect: 100-continue", "Content-Length: 5", method="POST")
        assert (await site.visit().ask(request)).status == 417
        assert not app.scopes


async def act_nothing(receive: Receive, send: Send) -> None:
    pass


async def act_head_only(receive: Receive, send: Send) -> None:
    await send(start())


async def act_wrong_event(receive: Receive, send: Send) -> None:
    await send(body())


async def act_wrong_status(receive: Receive, send: Send) -> None:
    await send(start(99))
    await send(body())


async def act_own_pipe(receive: Receive, send: Send) -> None:
    raise BrokenPipeError("of the application's own")


@pytest.mark.parametrize(
    "act", [act_nothing, act_head_only, act_wrong_event, act_wrong_status, act_own_pipe]
)
async def test_an_application_that_does_not_answer_is_told_as_500(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, act: Any
) -> None:
    async with hosted(act) as (site, _):
        assert (await site.visit().ask(get())).status == 500
    assert "handler failed" in caplog.text


async def act_half(receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"10")))
    await send(body(b"hello", more=True))


async def act_short(receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"10")))
    await send(body(b"hello"))


async def act_long(receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"3")))
    await send(body(b"hello"))


@pytest.mark.parametrize("act", [act_half, act_short, act_long])
async def test_an_answer_that_is_not_what_it_says_ends_the_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, act: Any
) -> None:
    """The client must not take it for the whole."""
    async with hosted(act) as (site, _):
        visitor = site.visit()
        await visitor.send(get())
        head, _, content = (await visitor.until_eof()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert content in (b"", b"hello")
    assert "handler failed" in caplog.text


async def test_an_application_that_waits_for_it_hears_that_the_client_has_gone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Or whoever asks and leaves would hold a connection for as long as he likes."""
    heard: list[str] = []

    async def listen(receive: Receive) -> None:
        heard.append((await receive())["type"])

    async def act(receive: Receive, send: Send) -> None:
        await receive()
        with trio.move_on_after(1):
            await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, receive)
            nursery.start_soon(listen, receive)

    async with hosted(act) as (site, app):
        visitor = site.visit()
        await visitor.send(get())
        await trio.sleep(2)
        assert len(app.scopes) == 1
        await visitor.stream.aclose()
        await wait_all_tasks_blocked()
        assert heard == ["http.disconnect"] * 2
        assert not site.server._state.connections
        assert not app.errors
    assert "handler failed" not in caplog.text


async def test_who_has_ended_his_side_is_answered_nevertheless(autojump_clock: MockClock) -> None:
    async def act(receive: Receive, send: Send) -> None:
        for _ in range(2):
            await receive()
        await send(start())
        await send(body(b"for whom?"))

    async with hosted(act) as (site, _):
        visitor = site.visit()
        await visitor.send(get())
        await visitor.stream.send_eof()
        assert b"for whom?" in await visitor.until_eof()


async def test_a_client_that_leaves_is_no_error_of_the_application(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(receive: Receive, send: Send) -> None:
        await send(start())
        for _ in range(10):
            await trio.sleep(1)
            await send(body(b"x" * 1000, more=True))

    async with hosted(act) as (site, app):
        visitor = site.visit()
        await visitor.send(get())
        await wait_all_tasks_blocked()
        await visitor.stream.aclose()
        await trio.sleep(20)
        assert [type(error) for error in app.errors] == [BrokenPipeError]
    assert "handler failed" not in caplog.text


# Starlette...


async def starlette_page(request: Any) -> JSONResponse:
    form = (await request.body()).decode()
    return JSONResponse({"path": request.url.path, "client": request.client.host, "form": form})


async def starlette_stream(request: Any) -> StreamingResponse:
    async def pieces() -> AsyncGenerator[str, None]:  # noqa: ASYNC900  # so Starlette wants it
        for number in range(3):
            yield str(number)

    return StreamingResponse(pieces())


async def starlette_echo(websocket: Any) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{websocket.state.greeting} {text}")


async def test_starlette_from_startup_to_shutdown() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[dict[str, str], None]:
        told.append("startup")
        yield {"greeting": "hello"}
        told.append("shutdown")

    app = Starlette(
        routes=[
            Route("/page", starlette_page, methods=["GET", "POST"]),
            Route("/stream", starlette_stream),
            WebSocketRoute("/ws", starlette_echo),
        ],
        lifespan=lifespan,
    )
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_asgi, app, 0, host="127.0.0.1"))
        assert told == ["startup"]
        async with open_websocket(f"ws://127.0.0.1:{server.port}/ws") as ws:
            await ws.send("you")
            assert await ws.receive() == "hello you"
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(get("/page", "Content-Length: 1", method="POST") + b"x")
            answer = bytes(await stream.receive_some())
            while not answer.endswith(b"}"):
                answer += bytes(await stream.receive_some())
            assert answer.endswith(b'{"path":"/page","client":"127.0.0.1","form":"x"}')
            await stream.send_all(get("/stream"))
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                answer += bytes(await stream.receive_some())
            assert b"1\r\n0\r\n1\r\n1\r\n1\r\n2\r\n0\r\n\r\n" in answer
        nursery.cancel_scope.cancel()
    assert told == ["startup", "shutdown"]


# Lifespan...


async def run_for_a_moment(app: Any, **arguments: Any) -> None:
    """Serve an application until it is open to clients, then cancel."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_asgi, app, 0, host="127.0.0.1", **arguments))
        nursery.cancel_scope.cancel()


async def test_an_application_without_a_lifespan_is_served() -> None:
    async def returns(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    for app in (returns, raises):
        await run_for_a_moment(app)


def failing(phase: str) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for each in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{each}"
            if each == phase:
                await send({"type": f"lifespan.{each}.failed", "message": "no database"})
                return
            await send({"type": f"lifespan.{each}.complete"})

    return app


async def test_a_startup_that_fails_is_told_in_the_applications_words() -> None:
    said = "the ASGI application says lifespan.startup.failed: no database"
    with pytest.raises(RuntimeError, match=said):
        await serve_asgi(failing("startup"), 0, host="127.0.0.1")


async def test_a_shutdown_that_fails_is_told_who_drains(caplog: pytest.LogCaptureFixture) -> None:
    said = "the ASGI application says lifespan.shutdown.failed: no database"
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match=said)):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_asgi, failing("shutdown"), 0, host="127.0.0.1")
            await (await nursery.start(serve)).drain()
    caplog.clear()
    await run_for_a_moment(failing("shutdown"))  # and who cancels finds it in the log
    assert [record.getMessage() for record in caplog.records] == [said]


async def test_a_server_that_was_drained_ends_in_peace() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_asgi, failing("neither"), 0, host="127.0.0.1")
        await (await nursery.start(serve)).drain()


async def test_a_lifespan_that_fails_in_between_ends_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await wait_all_tasks_blocked()
        raise KeyError("oops")

    with pytest.RaisesGroup(KeyError):
        await serve_asgi(app, 0, host="127.0.0.1")


async def test_a_shutdown_that_takes_too_long_is_cut_short() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    with trio.fail_after(PATIENCE):
        await run_for_a_moment(app, options=Options(close_grace=0.05))


async def test_a_port_that_is_taken_is_an_error_in_no_group() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            kind = (await receive())["type"]
            told.append(kind)
            await send({"type": f"{kind}.complete"})

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        _, port = listener.socket.getsockname()
        with pytest.raises(OSError, match="in use"):
            await serve_asgi(app, port, host="127.0.0.1")
    assert told == ["lifespan.startup", "lifespan.shutdown"]


def test_an_application_has_to_be_one() -> None:
    with pytest.raises(TypeError, match="an ASGI application is an async function, not str"):
        from_asgi("app")  # type: ignore[arg-type]  # that is the point
