"""One TCP connection of a server: deadlines, requests one behind the other, failing handlers."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme
from _components import until
from _helpers import CLOSE, PING, Relayed, break_sending, connected_streams
from _site import (
    Visitor,
    after_steps,
    echo,
    get,
    open_one,
    serve,
    sleep,
    upgrade,
    websocket_of,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import (
    CloseInfo,
    ConnectionEnded,
    ConnectionLost,
    JoinRefused,
    Options,
    Request,
    Response,
    Routes,
    WebSocketRequest,
    serve_websocket,
)
from trio_ws._frames import TEXT
from trio_ws._options import KIB
from trio_ws._server_connection import ServerConnection, ServerState
from trio_ws._streams import LINGER_TIME
from trio_ws.testing import Frame, cancellations

TIMEOUT = Options().handshake_timeout
GRACE = Options().close_grace

pages = Routes()
pages.websocket("/echo")(echo)


@pages.get("/")
async def front(request: Request) -> Response:
    return Response("welcome")


@pages.get("/slow")
async def slow(request: Request) -> Response:
    await trio.sleep(100)
    return Response("at last")


@pages.get("/big")
async def big(request: Request) -> Response:
    return Response(b"x" * 1024 * KIB)


@pages.get("/broken")
async def broken(request: Request) -> Response:
    raise ValueError("no page today")


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="trio_ws")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, without the names of connections."""
    return [record.getMessage().split(": ", 1)[1] for record in log.records]


# Failing handlers...


async def test_a_handler_that_does_not_answer_has_refused(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await trio.lowlevel.checkpoint()

    async with serve(handler) as site:
        visitor = site.visit()
        for _ in range(2):  # on one connection
            answer = await visitor.ask(upgrade())
            assert (answer.status, answer.body) == (403, b"forbidden\n")
        assert site.server.statistics().rejected == {403: 2}


async def test_a_handler_that_is_not_async_is_told_so(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    def handler(request: WebSocketRequest) -> None: ...

    async with serve(handler) as site:  # type: ignore[arg-type]  # that is the point
        answer = await site.visit().ask(upgrade())
        assert answer.status == 500
    assert "handler at 0x" in log.text
    assert "is not async: write `async def`" in log.text


async def test_a_handler_that_fails_before_it_has_answered_has_the_client_told_500(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        seen.append(request.id)
        raise ValueError("oops")

    seen: list[str] = []
    async with serve(handler) as site:
        visitor = site.visit()
        for _ in range(2):
            answer = await visitor.ask(upgrade())
            assert (answer.status, answer.body) == (500, b"internal error\n")
        assert site.server.statistics().handler_errors == 2
    assert lines(log) == ["handler failed", "refused: 500: internal error"] * 2
    assert seen[0] in log.messages[0]
    assert seen[0] in log.messages[1]
    assert isinstance(log.records[0].exc_info[1], ValueError)


async def test_a_handler_that_fails_later_has_the_peer_told_1011(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept():
            raise ValueError("oops")

    async with serve(handler) as site:
        for _ in range(2):
            peer = await open_one(site)
            assert await peer.until_close() == Frame.close(1011)
            await peer.send(Frame.close(1011))
            await peer.until_end()
        await wait_all_tasks_blocked()
        assert site.server.statistics().close_codes == {1011: 2}
        assert site.server.statistics().handler_errors == 2
    assert lines(log) == ["handler failed"] * 2


GONE = CloseInfo(1006, "gone", "lost", clean=False)
ENDED = CloseInfo(1000, "", "remote", clean=True)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost(GONE),
        ConnectionEnded(ENDED),
        ExceptionGroup("", [ConnectionLost(GONE), ExceptionGroup("", [ConnectionEnded(ENDED)])]),
    ],
)
@pytest.mark.parametrize("accepted", [True, False])
async def test_that_somebody_has_gone_is_no_error_of_a_handler(
    error: Exception,
    autojump_clock: MockClock,
    log: pytest.LogCaptureFixture,
    *,
    accepted: bool,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() if accepted else contextlib.AsyncExitStack():
            raise error

    async with serve(handler, Options(on_handler_error="raise")) as site:
        visitor = site.visit()
        assert (await visitor.ask(upgrade())).status == (101 if accepted else 500)
        assert site.server.statistics().handler_errors == 0
    assert "handler failed" not in log.text


REFUSED = JoinRefused("lobby", "it is full", 1013)


@pytest.mark.parametrize("error", [REFUSED, ExceptionGroup("", [REFUSED, ConnectionLost(GONE)])])
async def test_that_a_room_may_not_be_entered_is_no_error_of_a_handler(
    error: Exception, autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept():
            raise error

    async with serve(handler, Options(on_handler_error="raise")) as site:
        peer = await open_one(site)
        assert await peer.until_close() == Frame.close(1013, "it is full")
        await peer.send(Frame.close(1013))
        await peer.until_end()
        await wait_all_tasks_blocked()
        assert site.server.statistics().handler_errors == 0
        assert site.server.statistics().close_codes == {1013: 1}
    assert lines(log) == ["may not enter a room: 1013 it is full"]


@pytest.mark.parametrize(("code", "status"), [(1013, 503), (1008, 403), (4001, 403)])
async def test_a_room_that_may_not_be_entered_before_the_answer_is_the_answer(
    code: int, status: int, autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        raise JoinRefused("lobby", "not today", code)

    async with serve(handler) as site:
        answer = await site.visit().ask(upgrade())
        assert (answer.status, answer.body) == (status, b"not today\n")
        assert ("retry-after" in answer.headers) == (status == 503)
        assert site.server.statistics().handler_errors == 0
        assert site.server.statistics().rejected == {status: 1}
    assert lines(log) == [f"refused: {status}: not today"]


@pytest.mark.parametrize("accepted", [True, False])
async def test_of_a_group_only_what_is_an_error_is_told(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture, *, accepted: bool
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() if accepted else contextlib.AsyncExitStack():
            raise ExceptionGroup("several", [ConnectionLost(GONE), ValueError("oops")])

    async with serve(handler) as site:
        visitor = site.visit()
        assert (await visitor.ask(upgrade())).status == (101 if accepted else 500)
        await visitor.stream.send_eof()
        await visitor.until_eof()
        await wait_all_tasks_blocked()
        assert site.server.statistics().handler_errors == 1
    (error,) = [record.exc_info[1] for record in log.records if record.exc_info]
    assert pytest.RaisesGroup(ValueError).matches(error)


async def test_a_handlers_error_leaves_the_server_if_the_options_say_so(
    autojump_clock: MockClock,
) -> None:
    """Whoever failed hears 1011, all others 1001."""

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.receive()
            raise ValueError("oops")

    with pytest.RaisesGroup(pytest.RaisesGroup(ValueError)):
        async with serve(handler, Options(on_handler_error="raise")) as site:
            bystander, culprit = await open_one(site), await open_one(site)
            await culprit.send(Frame(TEXT, b"go"))
            with trio.CancelScope(shield=True):
                assert await culprit.until_close() == Frame.close(1011)
                await culprit.send(Frame.close(1011))
                assert await bystander.until_close() == Frame.close(1001)
                await bystander.send(Frame.close(1001))
                await bystander.until_end()
    site.assert_nothing_left()


@pytest.mark.parametrize("path", ["/broken", "/missing"])
async def test_who_caused_the_end_of_the_server_is_answered_first(
    path: str, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        raise ValueError("oops")

    site_handler = pages if path == "/broken" else handler
    request = get(path) if path == "/broken" else upgrade()
    with pytest.RaisesGroup(pytest.RaisesGroup(ValueError)):
        async with serve(site_handler, Options(on_handler_error="raise")) as site:
            with trio.CancelScope(shield=True):
                answer = await site.visit().ask(request)
                assert answer.status == 500
            await trio.sleep_forever()


@pytest.mark.parametrize("path", ["/", "/broken"])
async def test_an_error_is_told_even_if_the_client_has_not_waited_for_its_500(
    path: str, autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        break_sending(visitor.far, trio.BrokenResourceError("gone"))
        raise ValueError("oops")

    class Handler:
        __call__ = staticmethod(handler)

        async def respond(self, request: Request) -> Response:
            await handler(request)  # type: ignore[arg-type]  # looks at nothing
            raise AssertionError

    async with serve(Handler()) as site:
        visitor = site.visit()
        await visitor.send(upgrade() if path == "/" else get())
        assert await visitor.until_eof() == b""
        assert site.server.statistics().handler_errors == 1
    assert "handler failed" in lines(log)


async def test_a_keyboard_interrupt_in_a_handler_ends_the_server_and_all_are_told(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.receive()
            raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt):
        async with serve(handler) as site:
            peers = [await open_one(site) for _ in range(3)]
            await peers[0].send(Frame(TEXT, b"go"))
            with trio.CancelScope(shield=True):
                for peer in peers:
                    assert await peer.until_close() == Frame.close(1001)
                    await peer.send(Frame.close(1001))
                    await peer.until_end()
    site.assert_nothing_left()


async def test_a_handler_cannot_answer_any_more_once_it_has_returned(
    autojump_clock: MockClock,
) -> None:
    """Or a task that has kept the request would write into the next answer."""
    kept: list[WebSocketRequest] = []

    async def handler(request: WebSocketRequest) -> None:
        kept.append(request)

    async with serve(handler) as site:
        visitor = site.visit()
        assert (await visitor.ask(upgrade())).status == 403
        with pytest.raises(RuntimeError, match="before the handler returns"):
            await kept[0].reject()
        with pytest.raises(RuntimeError, match="before the handler returns"):
            async with kept[0].accept():
                raise AssertionError
        assert (await visitor.ask(upgrade())).status == 403


# Deadlines...


async def test_a_request_that_comes_a_byte_a_second_is_cut_off_in_time(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async with serve(echo) as site:
        visitors = [site.visit() for _ in range(20)]
        began = trio.current_time()

        async def drip(visitor: Visitor) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                for byte in upgrade():
                    await visitor.send(bytes([byte]))
                    await trio.sleep(1)
            ended.append(trio.current_time() - began)

        ended: list[float] = []
        async with trio.open_nursery() as nursery:
            for visitor in visitors:
                nursery.start_soon(drip, visitor)
            await trio.sleep(5)
            assert site.server.statistics().opening == 20
            async with site.open() as ws:  # meanwhile
                await ws.send("hello")
                assert await ws.receive() == "hello"
        assert ended == [pytest.approx(TIMEOUT, abs=1.01)] * 20
        assert site.server.statistics().opening == 0
    assert lines(log) == ["dropped before a request had come"] * 20


async def test_a_handler_that_takes_too_long_to_accept_is_cancelled_and_the_client_told_503(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time() - began)

    ended: list[float] = []
    async with serve(handler) as site:
        began = trio.current_time()
        visitor = site.visit()
        answer = await visitor.ask(upgrade())
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers["Connection"] == "close"
        assert ended == [TIMEOUT]
        await visitor.stream.send_eof()
        assert await visitor.until_eof() == b""
    assert lines(log) == ["refused: 503: no answer in time"]


async def test_who_does_not_read_the_apology_is_not_waited_for(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await trio.sleep_forever()

    async with serve(handler) as site:
        began = trio.current_time()
        visitor = site.visit()
        visitor.way.buffer = 0
        await visitor.send(upgrade())
        assert await visitor.until_eof() == b""
        assert trio.current_time() - began == TIMEOUT + LINGER_TIME


async def test_an_accepted_connection_has_all_the_time_in_the_world(
    autojump_clock: MockClock,
) -> None:
    options = Options(ping_interval=None)
    async with serve(echo, options) as site, site.open(options=options) as ws:
        await trio.sleep(80_000)
        await ws.send("still there?")
        assert await ws.receive() == "still there?"


async def test_a_page_may_take_longer_than_a_handshake(autojump_clock: MockClock) -> None:
    async with serve(pages) as site:
        assert (await site.visit().ask(get("/slow"))).body == b"at last"


async def test_an_idle_connection_is_ended_in_silence(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async with serve(pages) as site:
        visitor = site.visit()
        await visitor.ask(get())
        began = trio.current_time()
        assert await visitor.until_eof() == b""
        assert trio.current_time() - began == TIMEOUT
    assert lines(log) == []


async def test_a_further_request_has_the_time_of_the_first(autojump_clock: MockClock) -> None:
    """However long the client has waited before it: a page is open, then comes a click."""

    async def handler(request: WebSocketRequest) -> None:
        await trio.sleep(TIMEOUT - 1)

    async with serve(handler) as site:
        visitor = site.visit()
        assert (await visitor.ask(upgrade())).status == 403
        await trio.sleep(TIMEOUT - 1)
        assert (await visitor.ask(upgrade())).status == 403


async def test_the_time_for_a_first_request_runs_from_the_accept(
    autojump_clock: MockClock,
) -> None:
    """Neither its head nor a handshake of TLS begins it anew."""

    async def handler(request: WebSocketRequest) -> None:
        await trio.sleep(2)

    async with serve(handler) as site:
        visitor = site.visit()
        await trio.sleep(TIMEOUT - 1)
        assert (await visitor.ask(upgrade())).status == 503


async def test_a_page_goes_out_as_long_as_the_client_takes_some_of_it(
    autojump_clock: MockClock,
) -> None:
    async with serve(pages, Options(write_timeout=5)) as site:
        visitor = site.visit()
        visitor.way.buffer = 0
        await visitor.send(get("/big"))
        for _ in range(17):
            await trio.sleep(4)
            visitor.way.buffer += 64 * KIB
        assert len((await visitor.answer()).body) == 1024 * KIB


async def test_a_client_that_stops_reading_a_page_is_dropped(autojump_clock: MockClock) -> None:
    async with serve(pages, Options(write_timeout=5)) as site:
        visitor = site.visit()
        visitor.way.buffer = 100 * KIB
        await visitor.send(get("/big"))
        await trio.sleep(4.9)
        assert not visitor.left
        await trio.sleep(0.2)
        assert visitor.left
        assert len(await visitor.until_eof()) == 100 * KIB


# One request behind the other...


async def test_requests_right_behind_each_other_are_answered_in_order_up_to_the_upgrade(
    autojump_clock: MockClock,
) -> None:
    async with serve(pages) as site:
        visitor = site.visit()
        peer = visitor.frames()  # only to make the frames
        await visitor.send(
            get()
            + get("/", method="HEAD")
            + get("/missing")
            + upgrade("/nowhere")
            + get("/broken")
            + get()
            + upgrade("/echo")
            + peer.wire(Frame(PING, b"p"))
            + peer.wire(Frame(TEXT, b"hello"))
            + peer.wire(Frame(CLOSE, b"\x03\xe8"))
        )
        assert (await visitor.answer()).body == b"welcome"
        head = await visitor.answer(body=False)
        assert (head.status, head.headers["Content-Length"]) == (200, "7")
        assert (await visitor.answer()).status == 404
        assert (await visitor.answer()).status == 404
        assert (await visitor.answer()).status == 500
        assert (await visitor.answer()).body == b"welcome"
        assert (await visitor.answer()).status == 101
        frames = await visitor.frames().until_end()
        assert frames == [Frame.pong(b"p"), Frame.text("hello"), Frame.close(1000)]


@pytest.mark.parametrize("cut", range(0, len(upgrade()) + 6, 7))
async def test_a_close_right_behind_the_request_is_answered(
    cut: int, autojump_clock: MockClock
) -> None:
    async with serve(echo) as site:
        visitor = site.visit()
        data = upgrade() + visitor.frames().wire(Frame(CLOSE, b"\x03\xe8"))
        await visitor.send(data[:cut])
        await wait_all_tasks_blocked()
        await visitor.send(data[cut:])
        assert (await visitor.answer()).status == 101
        assert await visitor.frames().until_end() == [Frame.close(1000)]


async def test_after_an_upgrade_no_copy_of_the_first_frames_is_kept(
    autojump_clock: MockClock,
) -> None:
    async with serve(sleep) as site:
        visitor = site.visit()
        await visitor.send(upgrade() + visitor.frames().wire(Frame(TEXT, b"x" * 60 * KIB)))
        await visitor.answer()
        await wait_all_tasks_blocked()
        (connection,) = site.server._state.connections
        assert connection._http.protocol.leftover == b""
        assert websocket_of(site).statistics().unread_bytes == 60 * KIB


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on the plain port
        (b"nonsense\r\n\r\n", 400),
        (get("/", version="2.7"), 505),
        (get("/" + "x" * 20_000), 414),
        (get("/", "Cookie: " + "x" * 20_000), 431),
        (upgrade("/", method="POST"), 405),
        (upgrade("/", "Sec-WebSocket-Version: 13"), 400),
        (upgrade("/").replace(b"Version: 13", b"Version: 8"), 426),
        (upgrade("/", "Origin: http://elsewhere"), 403),
        (get("/"), 426),
        (get("/", "Content-Length: 100000"), 413),
    ],
)
async def test_a_request_that_cannot_be_served_is_refused_and_counted(
    request_: bytes, status: int, autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async with serve(echo) as site:
        assert (await site.visit().ask(request_)).status == status
        assert site.server.statistics().rejected == {status: 1}
        assert site.server.statistics().opening == 0
        async with site.open() as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
    (line,) = lines(log)
    assert line.startswith(f"refused: {status}: ")


async def test_log_lines_hold_nothing_that_a_peer_has_written(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    evil = "evil\x1b[31m\\n"
    async with serve(echo) as site:
        for request in (
            get(f"/{evil}"),
            upgrade(f"/{evil}"),
            upgrade("/evil", f"Origin: {evil}"),
            upgrade("/evil", f"Sec-WebSocket-Protocol: {evil}"),
            upgrade("/%0Aevil", "Origin: http://evil.example"),
            get("/evil", method="EVIL"),
            b"evil\r\n\r\n",
            b"\x1b[31mevil",
        ):
            visitor = site.visit()
            await visitor.send(request)
            assert (await visitor.answer()).status >= 400
    assert len(log.records) == 8
    assert "evil" not in log.text
    assert all(len(line) < 200 and line.isprintable() for line in log.messages)


async def test_a_client_that_leaves_without_a_request_is_no_event(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async with serve(echo) as site:
        await site.visit().stream.aclose()
        await wait_all_tasks_blocked()
    assert lines(log) == []


async def test_a_client_that_is_lost_is_a_line_for_debugging(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    log.set_level(logging.DEBUG, logger="trio_ws")
    async with serve(pages) as site:
        visitor = site.visit()
        break_sending(visitor.far, trio.BrokenResourceError("reset"))
        await visitor.send(get())
        assert await visitor.until_eof() == b""
    assert lines(log) == ["lost: reset"]


async def test_a_failure_of_our_own_ends_one_connection_and_not_the_server(
    autojump_clock: MockClock, log: pytest.LogCaptureFixture
) -> None:
    async with serve(echo) as site:
        visitor = site.visit()
        break_sending(visitor.far, RuntimeError("a stream that was not thought through"))
        await visitor.send(get())
        assert await visitor.until_eof() == b""
        async with site.open() as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
    assert lines(log) == [
        "refused: 426: a WebSocket is served here, over HTTP/1.1",
        "failed inside",
    ]
    assert log.records[1].exc_info


async def test_who_is_refused_and_goes_on_sending_is_listened_to_for_a_moment(
    autojump_clock: MockClock,
) -> None:
    async with serve(echo) as site:
        visitor = site.visit()
        await visitor.send(b"nonsense\r\n\r\n" + b"x" * 300 * KIB)
        assert (await visitor.answer()).status == 400
        await wait_all_tasks_blocked()
        assert visitor.far.socket.did_shutdown_SHUT_WR
        await visitor.send(b"x" * 300 * KIB)
        assert await visitor.until_eof() == b""
        await wait_all_tasks_blocked()
        assert not visitor.left
        await trio.sleep(LINGER_TIME - 0.01)
        assert not visitor.left
        await trio.sleep(0.02)
        assert visitor.left


# A server that is being drained...


async def test_while_draining_pages_are_served_and_websockets_are_not(
    autojump_clock: MockClock,
) -> None:
    async with serve(pages) as site:
        patient = site.visit()
        await patient.send(get("/slow"))  # keeps the server from ending
        known = site.visit()
        await known.ask(get())
        site.nursery.start_soon(site.server.drain)
        await wait_all_tasks_blocked()
        for visitor in (known, site.visit()):
            answer = await visitor.ask(get())
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert await visitor.until_eof() == b""
        answer = await site.visit().ask(upgrade("/echo"))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers["Connection"] == "close"


async def test_who_is_accepted_while_draining_hears_the_goodbye_at_once(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await trio.sleep(1)
        async with request.accept() as ws:
            assert ws.draining
            with pytest.raises(ConnectionLost):
                await ws.receive()

    async with serve(handler) as site:
        visitor = site.visit()
        await visitor.send(upgrade())
        await wait_all_tasks_blocked()
        site.nursery.start_soon(site.server.drain, 3001, "moving house")
        await visitor.answer()
        assert await visitor.frames().until_close() == Frame.close(3001, "moving house")
        assert trio.current_time() == 1


async def test_a_page_that_is_finished_before_the_drain_holds_up_nothing(
    autojump_clock: MockClock,
) -> None:
    """Its connection is kept for a further request, and no handler is at work."""
    async with serve(pages) as site:
        visitor = site.visit()
        visitor.way.buffer = 0
        await visitor.send(get())  # "Connection: close" has not been said
        await wait_all_tasks_blocked()
        site.nursery.start_soon(site.server.drain)
        await trio.sleep(1)
        began = trio.current_time()
        visitor.way.buffer = None
        await site.over.wait()
        assert trio.current_time() == began


# Limits...


async def test_a_crowd_from_one_address_is_bounded_and_told_503() -> None:
    """Over real sockets, for addresses are the point; the request is not even read."""

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.wait_closed()

    options = Options(max_connections_per_address=2)
    async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:

        async def _serve(task_status: trio.TaskStatus[Any]) -> None:
            await serve_websocket(
                handler, 0, host="127.0.0.1", options=options, task_status=task_status
            )

        async def connect() -> trio.SocketStream:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            return await stack.enter_async_context(stream)

        server = await nursery.start(_serve)
        streams = [await connect() for _ in range(3)]
        for stream, status in zip(streams, (b"101", b"101", b"503"), strict=True):
            await stream.send_all(upgrade() + b"x" * 200 * KIB if status == b"503" else upgrade())
            head = bytes(await stream.receive_some())
            assert head[9:12] == status
        assert b"\r\nRetry-After: 5\r\n" in head
        await streams[0].aclose()
        await until(lambda: len(server._state.admitted) == 1)
        assert dict(server._state.networks) == {"127.0.0.1": 1}
        stream = await connect()
        await stream.send_all(upgrade())
        assert bytes(await stream.receive_some())[9:12] == b"101"
        await stack.aclose()
        nursery.cancel_scope.cancel()


async def test_who_is_accepted_when_all_is_over_is_dropped_at_once(
    autojump_clock: MockClock,
) -> None:
    state = ServerState(echo, Options(), over=True)
    _, streams = connected_streams()
    await ServerConnection(streams["server"], state).run()
    assert not state.connections
    assert trio.current_time() == 0


async def test_a_stream_that_another_server_has_accepted_is_not_closed() -> None:
    await ServerConnection(Relayed(), ServerState(echo, Options(), over=True)).run()


# TLS...


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@asynccontextmanager
async def serve_over_tls(context: ssl.SSLContext, options: Options) -> AsyncIterator[Any]:
    state = ServerState(echo, options)
    ours, theirs = trio.testing.memory_stream_pair()
    tls = trio.SSLStream(theirs, context, server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await ServerConnection(tls, state).run()
            await trio.aclose_forcefully(tls)

        nursery.start_soon(run)
        yield ours


async def test_tls_is_spoken_before_the_first_request(
    contexts: Any, autojump_clock: MockClock
) -> None:
    async with serve_over_tls(contexts[0], Options()) as plain:
        client = trio.SSLStream(plain, contexts[1], server_hostname="test")
        await client.send_all(upgrade("/", "Origin: http://test"))
        assert (await client.receive_some())[9:12] == b"403"  # that page came in the clear
        await client.send_all(upgrade("/", "Origin: https://test"))
        assert (await client.receive_some())[9:12] == b"101"
        await client.transport_stream.aclose()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (get(), "HTTP_REQUEST"),
        (b"\x16\x03\x01\x00\x05hello", "SSL"),
        (b"", "EOF"),
        (b"\x16\x03\x01\x02\x00", "EOF"),
    ],
)
async def test_what_is_no_tls_is_dropped_and_told_in_a_line(
    contexts: Any,
    data: bytes,
    reason: str,
    autojump_clock: MockClock,
    log: pytest.LogCaptureFixture,
) -> None:
    async with serve_over_tls(contexts[0], Options()) as plain:
        if data:
            await plain.send_all(data)
        await plain.send_eof()
        while await plain.receive_some():
            pass
    (line,) = lines(log)
    assert line.startswith("lost: ")
    assert reason in line
    assert len(line) < 200
    assert line.isprintable()


async def test_a_slow_tls_handshake_takes_from_the_time_of_the_request(
    contexts: Any, autojump_clock: MockClock
) -> None:
    async with serve_over_tls(contexts[0], Options()) as plain:
        await trio.sleep(TIMEOUT - 1)
        client = trio.SSLStream(plain, contexts[1], server_hostname="test")
        await client.do_handshake()
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # without close_notify
            await client.receive_some()
        assert trio.current_time() - began == 1


# Cancellation...


@pytest.fixture
def no_interval() -> Options:
    return Options(ping_interval=None)


def assert_told(data: bytes) -> None:
    """Check that a peer was refused, or heard a whole Close; or nothing at all."""
    if not data:
        return
    head, _, rest = data.partition(b"\r\n\r\n")
    status = int(head[9:12])
    if status != 101:
        assert status in (403, 503), data
    elif rest:
        assert rest[-4:-1] == b"\x88\x02\x03", data  # 1000 or 1001


async def test_a_cancellation_at_any_step_of_accepting_leaves_nothing(
    autojump_clock: MockClock, no_interval: Options
) -> None:
    async for attempt in cancellations():

        async def handler(request: WebSocketRequest) -> None:
            with attempt:  # noqa: B023 - used up within its round
                async with request.accept() as ws:
                    await ws.send("hello")
                    await ws.receive()

        async with serve(handler, no_interval) as site:
            visitor = site.visit()
            peer = visitor.frames()
            await visitor.send(
                upgrade() + peer.wire(Frame(TEXT, b"x")) + peer.wire(Frame(CLOSE, b"\x03\xe8"))
            )
            await visitor.stream.send_eof()
            data = await visitor.until_eof()
            await visitor.stream.aclose()
        assert attempt.over
        assert_told(data)


@pytest.mark.parametrize("path", ["/echo", "/"])
async def test_the_server_may_be_cancelled_at_any_step_of_a_connection(
    path: str, autojump_clock: MockClock, no_interval: Options
) -> None:
    for step in range(1, 500):
        async with serve(pages, no_interval) as site:
            with after_steps(step, site.scope.cancel) as cancellation:
                visitor = site.visit()
                with contextlib.suppress(trio.BrokenResourceError):
                    await visitor.send(upgrade(path) if path == "/echo" else get(path))
                with trio.move_on_after(TIMEOUT - 1):
                    data = await visitor.until_eof()
                if cancellation.fired:
                    await site.over.wait()
                else:
                    site.scope.cancel()
                    await visitor.until_eof()
        if not cancellation.fired:
            break
        if path == "/echo":
            assert_told(data)
    else:
        raise AssertionError("there is no end to it")
