"""Code as it was written for trio-websocket, and what it expects of names, errors and ends."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_ws
from trio_ws.compat import trio_websocket
from trio_ws.compat.trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    Endpoint,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
    connect_websocket,
    connect_websocket_url,
    open_websocket,
    open_websocket_url,
    serve_websocket,
    wrap_client_stream,
)
from trio_ws.testing import MemoryNetwork, RawPeer


@pytest.fixture
async def network() -> AsyncGenerator[MemoryNetwork, None]:
    """Where the code under test listens and connects, and notices nothing."""
    network = MemoryNetwork()
    with network.install():
        yield network


async def echo(request: WebSocketRequest) -> None:
    """As everybody writes it."""
    ws = await request.accept()
    while True:
        try:
            await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            break


@asynccontextmanager
async def served(
    handler: Any = echo, ssl_context: ssl.SSLContext | None = None, **arguments: Any
) -> AsyncGenerator[WebSocketServer, None]:
    serve = partial(serve_websocket, handler, "127.0.0.1", 8000, ssl_context, **arguments)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


URL = "ws://127.0.0.1:8000/chat?x=1"


# Clients...


async def test_the_usual_client_and_server(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with served() as server:
        assert server.port == 8000
        async with open_websocket_url(URL) as ws:
            for message in ("text", b"binary"):
                await ws.send_message(message)
                assert await ws.get_message() == message
            await ws.ping()
            await ws.ping(b"payload")
            await ws.pong(b"nobody asked")
            await ws.pong()
            assert ws.closed is None
        assert ws.closed == CloseReason(1000, None)
        assert ws.closed.name == "NORMAL_CLOSURE"
        with pytest.raises(ConnectionClosed):
            await ws.get_message()


async def test_a_connection_in_a_nursery_of_ones_own(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with served():
        for connect in (
            partial(connect_websocket_url, url=URL, max_message_size=2**24),
            partial(
                connect_websocket, host="127.0.0.1", port=8000, resource="/chat?x=1", use_ssl=False
            ),
        ):
            async with trio.open_nursery() as nursery:
                ws = await connect(nursery)
                await ws.send_message("hi")
                assert await ws.get_message() == "hi"
                await ws.aclose(4000, "done")
                await ws.aclose()  # once more does nothing
            # The nursery ends: nothing of the connection is left in it.
            assert ws.closed == CloseReason(4000, "done")
            for attempt in (ws.get_message, ws.ping, ws.pong, partial(ws.send_message, "late")):
                with pytest.raises(ConnectionClosed) as caught:
                    await attempt()
                assert caught.value.reason == CloseReason(4000, "done")


async def test_a_connection_is_a_resource(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with served(), trio.open_nursery() as nursery:
        async with await connect_websocket_url(nursery, URL) as ws:
            assert isinstance(ws, WebSocketConnection)
        assert ws.closed is not None


async def test_cancelling_the_nursery_says_1001(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    codes: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        with pytest.raises(ConnectionClosed):
            await ws.get_message()
        codes.append(ws.closed)

    async with served(handler):
        async with trio.open_nursery() as nursery:
            await connect_websocket_url(nursery, URL)
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
    assert [each.code for each in codes] == [1001]


async def test_what_came_before_the_close_can_be_received_after_it(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        for number in range(5):
            await ws.send_message(str(number))
        await ws.aclose(3000, "that was it")

    async with served(handler):
        async with trio.open_nursery() as nursery:
            ws = await connect_websocket_url(nursery, URL)
            await trio.sleep(1)
        assert trio.current_time() < 2  # the end of it does not wait for a reader
        assert [await ws.get_message() for _ in range(5)] == ["0", "1", "2", "3", "4"]
        with pytest.raises(ConnectionClosed) as caught:
            await ws.get_message()
        assert caught.value.reason == CloseReason(3000, "that was it")


async def test_several_tasks_may_receive(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    got: list[Any] = []

    async def receive(ws: WebSocketConnection) -> None:
        got.append(await ws.get_message())

    async with served(), open_websocket_url(URL) as ws, trio.open_nursery() as nursery:
        nursery.start_soon(receive, ws)
        nursery.start_soon(receive, ws)
        await wait_all_tasks_blocked()
        await ws.send_message("1")
        await ws.send_message("2")
    assert sorted(got) == ["1", "2"]


async def test_a_large_message_is_refused(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with served(), open_websocket_url(URL, max_message_size=10) as ws:
        await ws.send_message("x" * 11)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009


async def test_what_is_no_message_is_refused(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with served(), open_websocket_url(URL) as ws:
        with pytest.raises(ValueError, match="str or bytes, not int"):
            await ws.send_message(5)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(ValueError, match="up to 125"):
            await ws.pong(b"x" * 126)
        with pytest.raises(ValueError, match="up to 125"):
            await ws.ping(b"x" * 126)


async def test_both_sides_know_each_other(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    seen: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(request)
        ws = await request.accept(subprotocol="b", extra_headers=[(b"x-server", b"caf\xe9")])
        seen.append(ws)
        await ws.get_message()

    async with (
        served(handler),
        open_websocket_url(URL, subprotocols=["a", "b"], extra_headers=[(b"X-Me", b"1")]) as ws,
    ):
        await ws.send_message("done")
        await wait_all_tasks_blocked()
        request, theirs = seen
        assert request.path == theirs.path == ws.path == "/chat?x=1"
        assert request.proposed_subprotocols == ("a", "b")
        assert (b"x-me", b"1") in request.headers
        assert (b"x-me", b"1") in theirs.handshake_headers
        assert (b"x-server", b"caf\xe9") in ws.handshake_headers
        assert ws.subprotocol == theirs.subprotocol == "b"
        assert (ws.is_client, ws.is_server) == (True, False)
        assert (theirs.is_client, theirs.is_server) == (False, True)
        assert request.local == theirs.local == ws.remote == Endpoint("127.0.0.1", 8000, False)
        assert request.remote == theirs.remote == ws.local
        assert str(ws).startswith("client-")
        assert str(theirs).startswith("server-")


# What goes wrong...


async def test_errors_of_opening_are_handshake_errors_in_a_block(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    with pytest.raises(HandshakeError) as caught:
        async with open_websocket_url(URL):
            pytest.fail("nobody listens")
    assert isinstance(caught.value.__cause__, OSError)
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="8000"):
            await connect_websocket_url(nursery, URL)


async def test_a_rejection_tells_status_headers_and_body(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, extra_headers=[(b"x-why", b"because")], body=b"go away")

    async with served(handler):
        with pytest.raises(ConnectionRejected) as caught:
            async with open_websocket_url(URL):
                pytest.fail("it is rejected")
        assert (caught.value.status_code, caught.value.body) == (401, b"go away")
        assert (b"x-why", b"because") in caught.value.headers
        assert repr(caught.value) == "ConnectionRejected<status_code=401>"
        async with trio.open_nursery() as nursery:
            with pytest.raises(ConnectionRejected):
                await connect_websocket_url(nursery, URL)


async def test_a_server_that_says_nothing_is_a_timeout(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    listener = network.listen("127.0.0.1", 8000)
    with pytest.raises(ConnectionTimeout):
        async with open_websocket_url(URL, connect_timeout=3):
            pytest.fail("nobody answers")
    assert trio.current_time() == 3
    await listener.aclose()


async def test_a_server_that_makes_no_sense_is_a_handshake_error(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    listener = network.listen("127.0.0.1", 8000)
    async with trio.open_nursery() as nursery:

        async def babble() -> None:
            async with await listener.accept() as stream:
                await stream.send_all(b"SSH-2.0\r\n")
                await trio.sleep(1)

        nursery.start_soon(babble)
        with pytest.raises(HandshakeError, match="does not speak HTTP"):
            await connect_websocket_url(nursery, URL)
    await listener.aclose()


async def test_the_exception_of_a_block_comes_out_as_it_is(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with served():
        with pytest.raises(OSError, match="mine"):  # and is no HandshakeError
            async with open_websocket_url(URL):
                raise OSError("mine")


async def test_a_subclass_of_the_error_may_go_its_own_way(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """Selenium's does."""

    class Mine(ConnectionClosed):
        def __init__(self, reason: Any) -> None:
            self.reason = reason

    error = Mine(CloseReason(1000, "bye"))
    assert isinstance(error, ConnectionClosed)
    assert error.reason.code == 1000  # type: ignore[union-attr]  # it is one
    assert "Mine<CloseReason(code=1000" in repr(error)


@pytest.mark.parametrize("url", ["http://host/", "ws:///path", "host"])
async def test_what_is_no_websocket_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"ws: or wss:|no host"):
        open_websocket_url(url)


async def test_an_ssl_context_needs_a_secure_url(network: MemoryNetwork) -> None:
    with pytest.raises(ValueError, match="wss:"):
        open_websocket_url(URL, network.client_context)
    with pytest.raises(TypeError, match="a bool or an SSLContext, not str"):
        async with open_websocket("127.0.0.1", 8000, "/", use_ssl="yes"):  # type: ignore[arg-type]  # that is the point
            pytest.fail("it cannot")


async def test_tls(network: MemoryNetwork, autojump_clock: MockClock) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    network.ca.issue_cert("127.0.0.1").configure_cert(context)
    secure = []

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        secure.extend([request.local, ws.local, request.remote.is_ssl])  # type: ignore[union-attr]
        await ws.send_message("secret")

    async with served(handler, context) as server:
        assert server.listeners == [Endpoint("127.0.0.1", 8000, True)]
        for url in ("wss://127.0.0.1:8000", "wss://127.0.0.1:8000/"):
            async with open_websocket_url(url, network.client_context) as ws:
                assert await ws.get_message() == "secret"
                assert ws.path == "/"
                assert ws.remote == Endpoint("127.0.0.1", 8000, True)
        async with trio.open_nursery() as nursery:
            tcp = await network.connect("127.0.0.1", 8000)
            stream = trio.SSLStream(tcp, network.client_context, server_hostname="127.0.0.1")
            ws = await wrap_client_stream(nursery, stream, "127.0.0.1", "/")
            assert await ws.get_message() == "secret"
            await ws.aclose()
    assert secure[:3] == [Endpoint("127.0.0.1", 8000, True)] * 2 + [True]


async def test_a_stream_of_ones_own(network: MemoryNetwork, autojump_clock: MockClock) -> None:
    async with served(), trio.open_nursery() as nursery:
        stream = await network.connect("127.0.0.1", 8000)
        ws = await wrap_client_stream(nursery, stream, "example.org", "/")
        await ws.send_message("hi")
        assert await ws.get_message() == "hi"
        await ws.aclose()


# Servers...


async def test_the_connection_is_closed_when_the_handler_returns(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        await ws.send_message("bye")

    async with served(handler), open_websocket_url(URL) as ws:
        assert await ws.get_message() == "bye"
        with pytest.raises(ConnectionClosed) as caught:
            await ws.get_message()
        assert caught.value.reason == CloseReason(1000, None)


async def test_a_handler_may_accept_in_any_scope_of_its_own(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(5):
                ws = await request.accept()
            nursery.start_soon(ws.send_message, "from a task")
        with trio.move_on_after(1):
            await ws.get_message()
        await ws.send_message("still here")

    async with served(handler), open_websocket_url(URL) as ws:
        assert await ws.get_message() == "from a task"
        assert await ws.get_message() == "still here"


async def test_a_client_that_leaves_does_not_end_the_server(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    """There it does, if the handler lets the error out."""

    async def handler(request: WebSocketRequest) -> None:
        ws = await request.accept()
        while True:
            await ws.send_message(await ws.get_message())

    async with served(handler):
        for _ in range(2):
            async with open_websocket_url(URL) as ws:
                await ws.send_message("hi")
                assert await ws.get_message() == "hi"


@pytest.mark.parametrize("accept", [True, False])
async def test_a_handlers_error_ends_the_server_and_tells_the_client(
    network: MemoryNetwork, autojump_clock: MockClock, accept: bool
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        if accept:
            await request.accept()
        raise KeyError("oops")

    async def visit() -> None:
        if accept:
            async with open_websocket_url(URL) as ws:
                with pytest.raises(ConnectionClosed) as caught:
                    await ws.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1011
        else:
            with pytest.raises(ConnectionRejected) as rejected:
                async with open_websocket_url(URL):
                    pytest.fail("it failed before")
            assert rejected.value.status_code == 500

    with pytest.RaisesGroup(KeyError, allow_unwrapped=True, flatten_subgroups=True):
        async with served(handler):
            await visit()
            await trio.sleep(1)


async def test_pages_of_every_origin_are_let_in(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    async with (
        served(),
        open_websocket_url(URL, extra_headers=[(b"x-a", b"b")]),
        RawPeer(await network.connect("127.0.0.1", 8000), client=True) as peer,
    ):
        await peer.request("/", headers={"Host": "127.0.0.1:8000", "Origin": "https://evil.test"})


async def test_listeners_and_their_ports(
    network: MemoryNetwork, autojump_clock: MockClock
) -> None:
    listeners = [network.listen("one.test", 8001), network.listen("two.test", 8002)]

    async def never(request: trio_ws.WebSocketRequest) -> None:
        pytest.fail("nobody comes")

    async with trio.open_nursery() as nursery:
        serve = partial(trio_ws.serve_websocket_listeners, never, listeners)
        server = WebSocketServer(await nursery.start(serve))
        ports = [each.port for each in server.listeners if isinstance(each, Endpoint)]
        assert ports == [8001, 8002]
        with pytest.raises(RuntimeError, match="2 ports"):
            _ = server.port
        nursery.cancel_scope.cancel()


# Values...


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (1000, "NORMAL_CLOSURE"),
        (1001, "GOING_AWAY"),
        (1005, "NO_STATUS_RCVD"),
        (1006, "ABNORMAL_CLOSURE"),
        (1009, "MESSAGE_TOO_BIG"),
        (2000, "RFC_RESERVED"),
        (3000, "IANA_RESERVED"),
        (4999, "PRIVATE_RESERVED"),
        (5000, "INVALID_CODE"),
        (5, "INVALID_CODE"),
    ],
)
def test_codes_have_the_names_that_are_known(code: int, name: str) -> None:
    assert CloseReason(code, None).name == name


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (Endpoint("192.0.2.1", 80, False), "ws://192.0.2.1"),
        (Endpoint("192.0.2.1", 443, False), "ws://192.0.2.1:443"),
        (Endpoint("2001:db8::1", 443, True), "wss://[2001:db8::1]"),
        (Endpoint("2001:db8::1", 80, True), "wss://[2001:db8::1]:80"),
    ],
)
def test_an_endpoint_is_a_url(endpoint: Endpoint, url: str) -> None:
    assert endpoint.url == url


async def test_what_has_no_address_is_told_as_it_is(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def handler(request: trio_ws.WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("hi")

    async with trio.open_nursery() as nursery:
        listener = OneVisitor(theirs)
        nursery.start_soon(trio_ws.serve_websocket_listeners, handler, [listener])
        ws = await wrap_client_stream(nursery, ours, "example.org", "/")
        assert (ws.local, ws.remote) == ("None", "None")
        await ws.aclose()
        nursery.cancel_scope.cancel()


class OneVisitor(trio.abc.Listener[trio.abc.Stream]):
    """A listener to which one client comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        if not self._streams:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self._streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def test_names_are_those_of_the_module() -> None:
    assert ConnectionClosed.__module__ == trio_websocket.__name__
    assert WebSocketConnection.__module__ == trio_websocket.__name__
