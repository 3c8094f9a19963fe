"""Requests in the hands of a handler: looked at, accepted or rejected, once."""

from __future__ import annotations

import ssl
from functools import partial

import attrs
import pytest
import trio
import trio.testing
import trustme
from multidict import CIMultiDictProxy, MultiDictProxy
from trio.testing import MockClock

from trio_ws import (
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    HandshakeError,
    Options,
    Request,
    Response,
    Routes,
    WebSocketRequest,
    open_websocket_over_stream,
    serve_websocket_listeners,
)
from trio_ws.testing import (
    Attempt,
    Connect,
    Frame,
    RawPeer,
    cancel_everywhere,
    cancellations,
    open_server,
)
from trio_ws.testing import MemoryNetwork as Network

BAD_HEADERS = [
    {"X-One": "a\r\nX-Two: b"},
    {"X-One": "a\nb"},
    {"X-One": "a\rb"},
    {"X-One": "a\0b"},
    {"X-One\r\nX-Two": "b"},
    {"X One": "a"},
    {"": "a"},
    {"Content-Length": "5"},
    {"Transfer-Encoding": "chunked"},
    {"Connection": "close"},
]
BAD_HEADERS_OF_ACCEPTANCE = [
    {"Upgrade": "h2c"},
    {"Sec-WebSocket-Accept": "x"},
    {"Sec-WebSocket-Protocol": "chat"},
    {"Sec-WebSocket-Extensions": "permessage-deflate"},
]


async def status_of(connect: Connect, path: str = "/") -> int:
    with pytest.raises(ConnectionRejected) as caught:
        async with connect(path):
            pass
    return caught.value.status


async def exchange(connect: Connect, lines: bytes, host: bytes = b"server.test") -> bytes:
    """Send a request as it is; return all that comes until the server ends the connection."""
    async with await connect.network.connect(host.decode(), 80) as stream:
        await stream.send_all(lines + b"\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        return b"".join([bytes(data) async for data in stream])


async def head_of_acceptance(connect: Connect, headers: dict[str, str]) -> str:
    stream = await connect.network.connect("server.test", 80)
    async with RawPeer(stream, client=True) as peer:
        return await peer.request("/", headers={"Host": "server.test", **headers})


async def end_of(connect: Connect, *, messages: int = 0) -> tuple[int, str] | None:
    """Return how the connection ended: status and body, or code and reason, or no answer.

    Each of so many messages is answered.
    """
    try:
        async with connect() as ws:
            for _ in range(messages):
                await ws.send(await ws.receive())
            await ws.receive()
    except ConnectionRejected as exc:
        return exc.status, exc.body.decode()
    except ConnectionEnded as exc:
        return exc.code, exc.reason
    except HandshakeError:
        return None
    raise AssertionError("one message more than expected")


# Properties...


async def test_a_request_shows_what_was_asked(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        assert repr(request) == "<WebSocketRequest GET /a%20b?x=1&x=2&y=%C3%A4>"
        assert request.method == "GET"
        assert request.target == "/a%20b?x=1&x=2&y=%C3%A4"
        assert request.path == "/a b"
        assert isinstance(request.query, MultiDictProxy)
        assert list(request.query.items()) == [("x", "1"), ("x", "2"), ("y", "ä")]
        assert isinstance(request.headers, CIMultiDictProxy)
        assert request.headers.getall("x-twice") == ["1", "2"]
        assert request.cookies == {"a": "1", "b": "2"}
        assert request.origin == "http://server.test"
        assert request.subprotocols == ("chat", "news")
        assert request.tls is None
        assert not request.secure
        assert request.credentials is None
        assert request.server is not None
        assert not request.server.draining
        assert request.server.statistics().opening == 1
        assert request.local_address[1] == 80
        assert not request.answered
        async with request.accept("news") as ws:
            assert request.answered
            assert ws.id == request.id
            assert ws.subprotocol == "news"
            host, port = request.remote_address
            await ws.send(f"{host} {port} {request.id}")

    async with (
        open_server(handler) as connect,
        connect(
            "/a%20b?x=1&x=2&y=%C3%A4",
            subprotocols=["chat", "news"],
            headers=[("X-Twice", "1"), ("X-Twice", "2"), ("Cookie", "a=1; b=2")],
            origin="http://server.test",
        ) as ws,
    ):
        host, port, name = str(await ws.receive()).split()
        assert (host, int(port)) == ws.local_address
        assert name
        assert ws.subprotocol == "news"


async def test_behind_a_proxy_the_client_is_whom_the_proxy_names(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        assert request.credentials == ("ann", "secret")
        await request.reject(403, body=f"{request.remote_address} {request.secure}")

    options = Options(trusted_proxies=["0.0.0.0/0", "::/0"])
    headers = {
        "Authorization": "Basic YW5uOnNlY3JldA==",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
    }
    async with open_server(handler, options=options) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect("/", headers=headers):
                pass
    assert caught.value.body == b"('203.0.113.7', 0) True"


async def test_what_was_not_sent_is_empty_or_none(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        assert len(request.query) == 0
        assert request.cookies == {}
        assert request.origin is None
        assert request.subprotocols == ()
        async with request.accept() as ws:
            assert ws.subprotocol is None

    async with open_server(handler) as connect, connect() as ws:
        assert ws.subprotocol is None
        await ws.wait_closed()


async def test_a_page_gets_a_request_that_cannot_be_accepted(autojump_clock: MockClock) -> None:
    routes = Routes()

    @routes.get("/page")
    async def page(request: Request) -> Response:
        assert type(request) is Request
        assert not hasattr(request, "accept")
        return Response(f"{request!r} {request.query['q']}")

    async with open_server(routes) as connect:
        answer = await exchange(connect, b"GET /page?q=1 HTTP/1.1")
        assert answer.endswith(b"<Request GET /page?q=1> 1")


async def test_a_page_gets_what_came_behind_the_headers(autojump_clock: MockClock) -> None:
    """As long as it is asked with GET: other methods are for handlers other than `Routes`."""
    routes = Routes()

    @routes.get("/")
    async def page(request: Request) -> Response:
        return Response(request.body[::-1])

    async with open_server(routes) as connect:
        stream = await connect.network.connect("server.test", 80)
        async with stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: server.test\r\nConnection: close\r\n"
                b"Content-Length: 5\r\n\r\nhello"
            )
            answer = b"".join([bytes(data) async for data in stream])
    assert answer.endswith(b"\r\n\r\nolleh")


async def test_a_stream_that_is_no_socket_has_no_addresses() -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    class Door(trio.abc.Listener[trio.abc.Stream]):
        streams = [theirs]  # noqa: RUF012  # made for this test alone

        async def accept(self) -> trio.abc.Stream:
            if not self.streams:
                await trio.sleep_forever()
            return self.streams.pop()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async def handler(request: WebSocketRequest) -> None:
        assert request.remote_address is None
        assert request.local_address is None
        assert request.tls is None
        await request.reject(404)

    options = Options(on_handler_error="raise")
    async with trio.open_nursery() as nursery:
        run = partial(serve_websocket_listeners, handler, [Door()], options=options)
        await nursery.start(run)
        with pytest.raises(ConnectionRejected, match="404"):
            async with open_websocket_over_stream(ours, "ws://example.org/"):
                pass
        nursery.cancel_scope.cancel()


async def test_a_request_over_tls_shows_the_tls_layer_and_the_clients_certificate() -> None:
    network = Network()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    network.ca.issue_cert("tls.test").configure_cert(server_context)
    people = trustme.CA()
    people.configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    people.issue_cert("ada@example.org").configure_cert(network.client_context)

    async def handler(request: WebSocketRequest) -> None:
        assert isinstance(request.tls, trio.SSLStream)
        assert request.secure
        assert request.tls.version() == "TLSv1.3"
        assert request.local_address[1] == 443
        certificate = request.tls.getpeercert()
        assert request.remote_address is not None
        async with request.accept() as ws:
            await ws.send(certificate["subjectAltName"][0][1])

    listener = network.listen("tls.test", 443, ssl_context=server_context)
    options = Options(on_handler_error="raise")
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve_websocket_listeners, handler, [listener], options=options)
        )
        async with network.open_websocket("wss://tls.test/") as ws:
            assert await ws.receive() == "ada@example.org"
        nursery.cancel_scope.cancel()


# Accepting...


async def test_extra_headers_go_into_the_answer(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "ä")]
        async with request.accept(None, headers):
            pass

    async with open_server(handler) as connect:
        head = await head_of_acceptance(connect, {})
        assert head.count("Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: ä\r\n") == 1


async def test_frames_right_behind_the_request_are_received(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send(await ws.receive())

    early = attrs.evolve(Frame.text("early"), mask=b"\1\2\3\4").encode()
    async with open_server(handler) as connect, connect.raw(behind=early) as peer:
        await peer.expect(Frame.text("early"), Frame.close(1000))


@pytest.mark.parametrize(
    ("options", "offer", "agreed"),
    [
        (Options(), "permessage-deflate", True),
        (Options(), "permessage-deflate; no_such_parameter, x-other", False),
        (Options(compression=None), "permessage-deflate", False),
    ],
)
async def test_compression_is_agreed_upon_if_both_sides_want_it(
    options: Options, offer: str, agreed: bool, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept():
            pass

    async with open_server(handler, options=options) as connect:
        head = await head_of_acceptance(connect, {"Sec-WebSocket-Extensions": offer})
        assert ("Sec-WebSocket-Extensions: permessage-deflate" in head) == agreed


async def test_a_subprotocol_that_was_not_offered_may_still_be_rejected(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(ValueError, match="did not offer the subprotocol 'news'"):
            async with request.accept("news"):
                pass
        assert not request.answered
        await request.reject(400, body="no chat")

    async with open_server(handler) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(subprotocols=["chat"]):
                pass
        assert (caught.value.status, caught.value.body) == (400, b"no chat")


async def test_a_subprotocol_of_another_type_is_a_type_error(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(TypeError, match="subprotocol"):
            async with request.accept(b"chat"):  # type: ignore[arg-type]  # that is the point
                pass
        async with request.accept("chat"):
            pass

    async with open_server(handler) as connect, connect(subprotocols=["chat"]) as ws:
        assert ws.subprotocol == "chat"


@pytest.mark.parametrize("headers", [*BAD_HEADERS, *BAD_HEADERS_OF_ACCEPTANCE])
async def test_bad_headers_of_an_acceptance_send_nothing(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # the words are those of check_headers
            async with request.accept(headers=headers):
                pass
        assert not request.answered
        async with request.accept(headers={"X-Good": "1"}):
            pass

    async with open_server(handler) as connect, connect.raw() as peer:
        await peer.expect(Frame.close(1000))  # and nothing between the one answer and this


# Rejecting...


async def test_a_rejection_has_status_body_and_headers(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, body="who are you?", headers={"WWW-Authenticate": "Basic"})
        assert request.answered

    async with open_server(handler) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect():
                pass
        assert caught.value.status == 401
        assert caught.value.body == b"who are you?"
        assert caught.value.headers["www-authenticate"] == "Basic"
        assert caught.value.headers["content-type"] == "text/plain; charset=utf-8"
        assert connect.server.statistics().rejected == {401: 1}


async def test_a_rejection_is_403_if_nothing_else_is_said(autojump_clock: MockClock) -> None:
    async def reject(request: WebSocketRequest) -> None:
        await request.reject()

    async def forget(request: WebSocketRequest) -> None:
        pass

    for handler in (reject, forget):
        async with open_server(handler) as connect:
            assert await status_of(connect) == 403


@pytest.mark.parametrize("status", [0, 100, 101, 199, 200, 204, 299, 600, -1])
async def test_a_status_that_does_not_reject_sends_nothing(
    status: int, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(ValueError, match=str(status)):
            await request.reject(status)
        assert not request.answered
        await request.reject(410)

    async with open_server(handler) as connect:
        assert await status_of(connect) == 410
        assert connect.server.statistics().rejected == {410: 1}


@pytest.mark.parametrize("headers", BAD_HEADERS)
async def test_bad_headers_of_a_rejection_send_nothing(
    headers: dict[str, str], autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # the words are those of check_headers
            await request.reject(404, headers=headers)
        assert not request.answered
        await request.reject(410)

    async with open_server(handler) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect():
                pass
        assert caught.value.status == 410
        assert not {"x-one", "x-two"} & {name.lower() for name in caught.value.headers}


@pytest.mark.parametrize(("status", "body"), [("403", b""), (True, b""), (403, 5)])
async def test_wrong_types_of_a_rejection_send_nothing(
    status: int, body: bytes, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(TypeError):
            await request.reject(status, body=body)
        await request.reject(410)

    async with open_server(handler) as connect:
        assert await status_of(connect) == 410


# Once...


async def test_an_accepted_request_is_not_answered_again(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        acceptance = request.accept()
        async with acceptance as ws:
            for again in (acceptance, request.accept()):
                with pytest.raises(RuntimeError, match="answered before"):
                    await again.__aenter__()
            with pytest.raises(RuntimeError, match="answered before"):
                await request.reject()
            await ws.send("still open")
        with pytest.raises(RuntimeError, match="answered before"):
            await request.reject()

    async with open_server(handler) as connect, connect() as ws:
        assert await ws.receive() == "still open"
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert caught.value.code == 1000
        assert connect.server.statistics().rejected == {}


async def test_a_rejected_request_is_not_answered_again(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(404)
        with pytest.raises(RuntimeError, match="answered before"):
            await request.reject(405)
        with pytest.raises(RuntimeError, match="answered before"):
            await request.accept().__aenter__()

    async with open_server(handler) as connect:
        assert await status_of(connect) == 404
        assert connect.server.statistics().rejected == {404: 1}


async def test_what_the_block_raises_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    failure = RuntimeError("mine")

    async def handler(request: WebSocketRequest) -> None:
        with pytest.raises(RuntimeError) as caught:
            async with request.accept():
                raise failure
        assert caught.value is failure

    async with open_server(handler) as connect, connect() as ws:
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.code == 1011


# The client has gone...


@pytest.mark.parametrize("how", ["accept", "reject"])
async def test_a_client_that_has_gone_is_a_lost_connection(
    how: str, autojump_clock: MockClock
) -> None:
    here, gone, told = trio.Event(), trio.Event(), trio.Event()

    async def handler(request: WebSocketRequest) -> None:
        here.set()
        await gone.wait()
        answer = request.accept().__aenter__ if how == "accept" else request.reject
        with pytest.raises(ConnectionLost, match="left before it was answered") as caught:
            await answer()
        assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
        info = caught.value.info
        assert (info.code, info.clean) == (1006, False)
        assert request.answered
        told.set()

    async with open_server(handler) as connect:
        stream = await connect.network.connect("server.test", 80)
        peer = RawPeer(stream, client=True)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(AssertionError, match="no head came"):
                    await peer.request("/", headers={"Host": "server.test"})

            nursery.start_soon(ask)
            await here.wait()
            connect.network.links[0].reset()
        gone.set()
        await told.wait()
        await peer.aclose()


# Cancellation...


async def test_an_acceptance_that_is_cancelled_says_1001_or_nothing(
    autojump_clock: MockClock,
) -> None:
    outcomes = set()
    async for attempt in cancellations():

        async def handler(request: WebSocketRequest, attempt: Attempt = attempt) -> None:
            with attempt:
                async with request.accept() as ws:
                    await ws.send("hello")
                    await ws.receive()

        async with open_server(handler) as connect:
            outcome = await end_of(connect, messages=1)
        outcomes.add(outcome)
        if attempt.cancelled:
            assert outcome in {None, (1001, "")}
        else:  # it was through, or on its way out and shielded
            assert outcome == (1000, "")
    assert outcomes == {None, (1000, ""), (1001, "")}


async def test_a_rejection_that_is_cancelled_is_whole_or_none(autojump_clock: MockClock) -> None:
    outcomes = set()
    async for attempt in cancellations():

        async def handler(request: WebSocketRequest, attempt: Attempt = attempt) -> None:
            with attempt:
                await request.reject(404, body="not here")
            assert request.answered

        async with open_server(handler) as connect:
            outcomes.add(await end_of(connect))
    assert outcomes == {None, (404, "not here")}


@pytest.mark.parametrize("how", ["accept", "reject"])
async def test_server_and_client_can_be_cancelled_everywhere(
    how: str, autojump_clock: MockClock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        if how == "reject":
            await request.reject()
            return
        async with request.accept() as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"

    ends: set[object] = set()

    async def scenario() -> None:
        async with open_server(handler) as connect:
            ends.add(await end_of(connect, messages=1))

    assert await cancel_everywhere(scenario) > 10
    assert ends == {(1000, "") if how == "accept" else (403, "")}
