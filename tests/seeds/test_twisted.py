"""What Twisted's websocket howto shows, row by row."""

from __future__ import annotations

import functools
import ssl
from typing import Any

import pytest
import trio
import trustme
from _browser import launch_browser, open_browser
from _seeds import echo, load_example
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_ws
from trio_ws import (
    ConnectionRejected,
    HandshakeError,
    Options,
    Request,
    Response,
    Rooms,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
)
from trio_ws.testing import Link, MemoryNetwork, open_server


async def test_t4_a_heartbeat_goes_out_while_the_client_is_answered(
    autojump_clock: MockClock,
) -> None:
    async def beat(ws: WebSocket) -> None:
        while True:
            await ws.send("heartbeat")
            await trio.sleep(1)

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, ws.open_nursery() as nursery:
            nursery.start_soon(beat, ws)
            async for message in ws:
                await ws.send(f"reply to {message}")

    async with open_server(handler) as connect, connect() as ws:
        assert await ws.receive() == "heartbeat"
        await ws.send("hello")
        assert await ws.receive() == "reply to hello"
        assert [await ws.receive() for _ in range(3)] == ["heartbeat"] * 3
        assert trio.current_time() == 3


async def test_t5_the_type_of_a_message_tells_text_from_bytes(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                await ws.send("text" if isinstance(message, str) else "bytes")

    async with open_server(handler) as connect, connect() as ws:
        for message, kind in (("x", "text"), (b"x", "bytes")):
            await ws.send(message)
            assert await ws.receive() == kind


async def test_t6_a_ping_tells_the_latency(autojump_clock: MockClock) -> None:
    async with open_server(echo) as connect, connect(link=Link(latency=0.25)) as ws:
        assert await ws.ping() == pytest.approx(0.5)
        assert await ws.ping(b"payload") == pytest.approx(0.5)
        assert ws.latency == pytest.approx(0.5)


async def test_t7_the_loss_of_the_connection_stops_the_loop_with_a_reason(
    autojump_clock: MockClock,
) -> None:
    reasons: list[Any] = []

    async def loop() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            reasons.append(exc.reason)
            raise

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(loop)
            reasons.append(ws.close_info)

    async with open_server(handler) as connect:
        async with connect.raw() as peer:
            await wait_all_tasks_blocked()
            await peer.reset()
        await wait_all_tasks_blocked()
    told, info = reasons
    assert str(info) in told
    assert (info.code, info.initiator) == (1006, "lost")


async def test_t8_a_client_connects_to_any_server_in_the_clear_or_by_tls() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    for scheme, context in (("ws", None), ("wss", server_context)):
        async with trio.open_nursery() as nursery:
            serve = functools.partial(serve_websocket, host="127.0.0.1", ssl_context=context)
            server = await nursery.start(serve, echo, 0)
            trusted = client_context if context else None
            url = f"{scheme}://127.0.0.1:{server.port}/"
            async with open_websocket(url, ssl_context=trusted) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            nursery.cancel_scope.cancel()


async def test_t9_a_rejection_carries_the_whole_response(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(418, body="x" * 100_000, headers={"X-Why": "teapot"})

    async with open_server(handler) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect():
                pytest.fail("it is rejected")
    assert (caught.value.status, caught.value.headers["x-why"]) == (418, "teapot")
    assert caught.value.body == b"x" * 64 * 1024  # bounded


async def test_t10_tls_time_and_local_address_are_the_callers_choice() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    strict = ssl.create_default_context()  # which does not know this authority
    seen: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(request.remote_address[0])
        async with request.accept():
            pass

    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_websocket, host="127.0.0.1")
        secure = functools.partial(serve, ssl_context=server_context)
        server = await nursery.start(secure, handler, 0)
        with pytest.raises(HandshakeError):
            async with open_websocket(f"wss://127.0.0.1:{server.port}/", ssl_context=strict):
                pytest.fail("nobody signed that")
        plain = await nursery.start(serve, handler, 0)
        url = f"ws://127.0.0.1:{plain.port}/"
        async with open_websocket(url, local_address="127.0.0.2"):
            pass
        assert seen == ["127.0.0.2"]
        nursery.cancel_scope.cancel()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")  # which says nothing
    async with listener:
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
        with trio.move_on_after(0.05) as scope:
            async with open_websocket(url):
                pytest.fail("nobody answers")
        assert scope.cancelled_caught


async def test_t11_sending_waits_while_the_peer_does_not_take_it(
    autojump_clock: MockClock,
) -> None:
    sent = 0

    async def handler(request: WebSocketRequest) -> None:
        nonlocal sent
        async with request.accept() as ws:
            while True:
                await ws.send(b"x" * 10_000)
                sent += 1

    link = Link(buffer=20_000)
    async with (
        open_server(handler, options=Options(write_timeout=None)) as connect,
        connect.raw(link=link) as peer,
    ):
        link.to_client.stall()
        await trio.sleep(60)
        waiting = sent
        await trio.sleep(60)
        assert 0 < sent == waiting < 20
        link.to_client.resume()
        for _ in range(50):
            assert await peer.receive_message() == b"x" * 10_000
        assert sent > waiting


async def test_t13_a_page_shows_open_message_error_and_close() -> None:
    time_server = load_example("time_server")
    async with trio.open_nursery() as nursery:
        stop = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[trio_ws.Server]) -> None:
            with stop:
                routes = time_server.make_routes(Rooms())
                await serve_websocket(routes, 0, host="127.0.0.1", task_status=task_status)

        server = await nursery.start(serve)
        with launch_browser() as devtools:
            async with open_browser(devtools) as browser:
                page = await browser.open_page(f"http://127.0.0.1:{server.port}/")
                await page.wait_for("!send.disabled")
                await page.type("#text", "hello")
                await page.wait_for_text("you said 'hello'", "#events")
                stop.cancel()
                await page.wait_for_text("code 1001, clean", "#events")
                await page.click("#toggle")
                await page.wait_for_text("code 1006, not clean", "#events")
                kinds = {"open", "message", "error", "close"}
                assert set(await page.texts("#events .kind")) == kinds


async def test_t15_what_others_may_write_is_a_protocol(autojump_clock: MockClock) -> None:
    """A class of one's own fits by what it does, not by whom it inherits from."""

    class Handler:
        async def __call__(self, request: WebSocketRequest) -> None:
            await echo(request)

        async def respond(self, request: Request) -> Response:
            return Response(f"page {request.path}")

    class Listener(trio.abc.Listener[trio.SocketStream]):
        def __init__(self, network: MemoryNetwork) -> None:
            self._inner = network.listen("own.test", 80)

        async def accept(self) -> trio.SocketStream:
            stream: trio.SocketStream = await self._inner.accept()
            return stream

        async def aclose(self) -> None:
            await self._inner.aclose()

    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:
        listeners = [Listener(network)]
        nursery.start_soon(trio_ws.serve_websocket_listeners, Handler(), listeners)
        async with network.open_websocket("ws://own.test/") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        async with await network.connect("own.test", 80) as stream:
            await stream.send_all(b"GET /x HTTP/1.0\r\n\r\n")
            answer = b"".join([bytes(chunk) async for chunk in stream])
            assert answer.endswith(b"\r\n\r\npage /x")
        nursery.cancel_scope.cancel()
