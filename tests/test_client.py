"""Connecting: from a URL to an open WebSocket, and what is left when that fails."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from trio_ws import (
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    HandshakeError,
    HandshakeTimeout,
    Options,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    open_websocket_over_stream,
    serve_websocket,
    serve_websocket_unix,
)
from trio_ws._client import open_websocket_through
from trio_ws._http_client import MAX_REJECTION_BODY
from trio_ws._tls import default_context
from trio_ws.testing import Frame, Link, MemoryNetwork, RawPeer, cancellations
from trio_ws.testing._socket import open_sockets

HOST = "example.test"
URL = f"ws://{HOST}/chat"
SECURE_URL = f"wss://{HOST}/chat"

PATIENT = Options(handshake_timeout=3)

Play = Callable[[RawPeer], Awaitable[object]]


@pytest.fixture(autouse=True)
def every_stream_is_closed() -> Iterator[None]:
    """Whatever becomes of a connection: no socket of it is left open."""
    before = open_sockets()
    yield
    assert [sock for sock in open_sockets() if sock not in before] == []


@asynccontextmanager
async def playing(
    play: Play,
    *,
    host: str = HOST,
    port: int = 80,
    ssl_context: ssl.SSLContext | None = None,
    tls: bool = False,
    network: MemoryNetwork | None = None,
) -> AsyncGenerator[MemoryNetwork, None]:
    """Serve one connection as ``play`` says, and wait until the client ends TCP."""
    network = network or MemoryNetwork()
    came: list[RawPeer] = []

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        peer = RawPeer(await listener.accept(), client=False)
        came.append(peer)
        async with peer:
            await play(peer)
            # Reset is an end, too; and a play that has answered a Close has ended TCP.
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while await peer.stream.receive_some(65536):
                    pass

    listener = network.listen(host, port, tls=tls, ssl_context=ssl_context)
    async with listener, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 1000
        await nursery.start(serve)
        yield network
        await trio.testing.wait_all_tasks_blocked()
        if not came:
            nursery.cancel_scope.cancel()
    assert not came or not nursery.cancel_scope.cancelled_caught, "it took too long"


def answer(data: bytes) -> Play:
    """Read the request, and answer it with these bytes."""

    async def play(peer: RawPeer) -> None:
        await peer.receive_head()
        with contextlib.suppress(trio.BrokenResourceError):  # the client may have had enough
            await peer.send(data)

    return play


async def accept(peer: RawPeer, *, behind: bytes = b"") -> None:
    """Be a polite server, even to a client that goes in the middle of a handshake."""
    with contextlib.suppress(AssertionError, trio.BrokenResourceError):
        await peer.accept(behind=behind)
        await peer.answer()


async def say_nothing(peer: RawPeer) -> None:
    await trio.lowlevel.checkpoint()


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


# Arguments...


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://example.test/", "use ws://"),
        ("example.test", "starts with ws://"),
        ("ws://", "no host"),
        ("ws://example.test/#top", "no fragment"),
        ("ws://example.test:70000/", "a port is a number"),
    ],
)
@pytest.mark.parametrize(
    "function", [open_websocket, partial(open_websocket_over_stream, memory_stream_pair()[0])]
)
def test_a_url_of_no_use_is_refused_at_the_call(
    function: Callable[[str], object], url: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        function(url)


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"subprotocols": "chat"}, TypeError, "a list of str"),
        ({"subprotocols": ["a", "a"]}, ValueError, "offered twice"),
        ({"headers": {"Upgrade": "h2c"}}, ValueError, "Upgrade"),
        ({"headers": [("X", "a\r\nb")]}, ValueError, "X"),
        ({"origin": "a\nb"}, ValueError, "Origin"),
    ],
)
@pytest.mark.parametrize(
    "function", [open_websocket, partial(open_websocket_over_stream, memory_stream_pair()[0])]
)
def test_an_argument_of_no_use_is_refused_at_the_call(
    function: Callable[..., object],
    arguments: dict[str, Any],
    error: type[Exception],
    complaint: str,
) -> None:
    with pytest.raises(error, match=complaint):
        function(URL, **arguments)


@pytest.mark.parametrize("options", [{"close_grace": 1}, None])
@pytest.mark.parametrize(
    "function", [open_websocket, partial(open_websocket_over_stream, memory_stream_pair()[0])]
)
def test_options_are_options(function: Callable[..., object], options: object) -> None:
    with pytest.raises(TypeError, match=r"options is an Options\(\.\.\.\), not "):
        function(URL, options=options)


def test_a_stream_is_a_stream() -> None:
    with pytest.raises(TypeError, match=r"stream is a trio\.abc\.Stream, not str"):
        open_websocket_over_stream(URL, URL)  # type: ignore[arg-type]  # that is the point


def test_a_url_is_a_str() -> None:
    with pytest.raises(TypeError, match="a URL is a str, not bytes"):
        open_websocket(b"ws://example.test/")  # type: ignore[arg-type]  # as wrong as can be


@pytest.mark.parametrize("url", [URL, "ws+unix:///run/chat.sock"])
def test_an_ssl_context_without_tls_is_refused_at_the_call(url: str) -> None:
    with pytest.raises(ValueError, match="asks for no TLS"):
        open_websocket(url, ssl_context=ssl.create_default_context())


def test_an_ssl_context_of_a_server_is_refused_at_the_call() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ValueError, match="not for a client"):
        open_websocket(SECURE_URL, ssl_context=context)


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0.1:80"])
def test_a_local_address_is_an_ip_address(address: str) -> None:
    with pytest.raises(ValueError, match="local_address is an IP address of this machine"):
        open_websocket(URL, local_address=address)


async def test_the_local_address_is_the_one_to_connect_from() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, host="127.0.0.1")
        server = await nursery.start(serve, echo, 0)
        url = f"ws://127.0.0.1:{server.port}/"
        with trio.fail_after(10):
            async with open_websocket(url, local_address="127.0.0.3") as ws:
                assert ws.local_address[0] == "127.0.0.3"
        nursery.cancel_scope.cancel()


def test_what_is_no_ssl_context_is_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not bool"):
        open_websocket(SECURE_URL, ssl_context=True)  # type: ignore[arg-type]  # that is the point


# The request...


async def test_the_request_tells_all_that_was_asked_for(autojump_clock) -> None:
    heads: list[str] = []

    async def play(peer: RawPeer) -> None:
        heads.append(await peer.accept(headers={"Sec-WebSocket-Protocol": "b"}))
        await peer.answer()

    async with (
        playing(play, port=8080) as network,
        network.open_websocket(
            f"ws://ann:s%3Acret@{HOST}:8080/a%20b?c=d",
            subprotocols=["a", "b"],
            headers={"X-Token": "42"},
            origin="https://example.test",
        ) as ws,
    ):
        assert ws.subprotocol == "b"
    lines = heads[0].splitlines()
    assert lines[0] == "GET /a%20b?c=d HTTP/1.1"
    assert {
        f"Host: {HOST}:8080",
        "Authorization: Basic YW5uOnM6Y3JldA==",
        "Sec-WebSocket-Protocol: a, b",
        "X-Token: 42",
        "Origin: https://example.test",
    } <= set(lines)


async def test_each_connection_has_a_key_of_its_own(autojump_clock) -> None:
    keys: set[str] = set()
    for _ in range(3):

        async def play(peer: RawPeer) -> None:
            head = await peer.accept()
            keys.update(line for line in head.splitlines() if line.startswith("Sec-WebSocket-Key"))
            await peer.answer()

        async with playing(play) as network, network.open_websocket(URL):
            pass
    assert len(keys) == 3


# Frames right behind the answer...


async def test_frames_right_behind_the_answer_are_received(autojump_clock) -> None:
    behind = Frame.text("one").encode() + Frame.text("two").encode()
    async with (
        playing(partial(accept, behind=behind)) as network,
        network.open_websocket(URL) as ws,
    ):
        assert [await ws.receive(), await ws.receive()] == ["one", "two"]


async def test_half_a_frame_behind_the_answer_is_completed_by_what_follows(autojump_clock) -> None:
    data = Frame.text("hello").encode()

    async def play(peer: RawPeer) -> None:
        await peer.accept(behind=data[:3])
        await trio.sleep(1)
        await peer.send(data[3:])
        await peer.answer()

    async with playing(play) as network, network.open_websocket(URL) as ws:
        assert await ws.receive() == "hello"


async def test_a_close_right_behind_the_answer_ends_the_connection(autojump_clock) -> None:
    behind = Frame.text("bye").encode() + Frame.close(1001, "later").encode()
    frames: list[Frame] = []

    async def play(peer: RawPeer) -> None:
        await peer.accept(behind=behind)
        frames.extend(await peer.answer())

    async with playing(play) as network, network.open_websocket(URL) as ws:
        assert await ws.receive() == "bye"
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.reason) == (1001, "later")
    assert [frame.payload[:2] for frame in frames] == [b"\x03\xe9"]


async def test_garbage_right_behind_the_answer_is_the_connections_failure(autojump_clock) -> None:
    async with (
        playing(partial(accept, behind=b"\xff" * 10)) as network,
        network.open_websocket(URL) as ws,
    ):
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.code == 1002


# Rejections...


async def test_a_rejection_tells_status_headers_and_body(autojump_clock) -> None:
    response = b"HTTP/1.1 403 Forbidden\r\nX-Why: you\r\nContent-Length: 4\r\n\r\nnope"
    async with playing(answer(response)) as network:
        with pytest.raises(ConnectionRejected, match="the server answered 403: 'nope'") as caught:
            async with network.open_websocket(URL):
                raise AssertionError("it was not accepted")
    rejection = caught.value
    assert (rejection.status, rejection.body) == (403, b"nope")
    assert rejection.headers["x-why"] == "you"


async def test_no_more_of_a_rejections_body_is_kept_than_anybody_reads(autojump_clock) -> None:
    async def play(peer: RawPeer) -> None:
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 500 Oops\r\n\r\n")
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(1000):
                await peer.send(b"x" * 65536)
            raise AssertionError("it reads without end")

    async with playing(play) as network:
        with pytest.raises(ConnectionRejected) as caught:
            async with network.open_websocket(URL):
                pass
    assert len(caught.value.body) == MAX_REJECTION_BODY


async def test_a_rejection_whose_body_stalls_is_told_at_the_deadline(autojump_clock) -> None:
    response = b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\ncome back"
    async with playing(answer(response)) as network:
        started = trio.current_time()
        with pytest.raises(ConnectionRejected) as caught:
            async with network.open_websocket(URL, options=PATIENT):
                pass
        assert trio.current_time() - started == 3
    assert (caught.value.status, caught.value.body) == (503, b"come back")


async def test_a_rejection_whose_body_is_cut_off_is_a_rejection(autojump_clock) -> None:
    async def play(peer: RawPeer) -> None:
        await peer.receive_head()
        await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\ncome")
        await peer.send_end()

    async with playing(play) as network:
        with pytest.raises(ConnectionRejected) as caught:
            async with network.open_websocket(URL):
                pass
    assert caught.value.body == b"come"


# Too slow...


async def test_a_connection_that_takes_too_long_is_told_so(autojump_clock) -> None:
    async with playing(say_nothing) as network:
        with pytest.raises(
            HandshakeTimeout, match=f"^connecting to {HOST}:80 took longer than 3 s in all"
        ):
            async with network.open_websocket(URL, options=PATIENT, link=Link(latency=5)):
                pass


async def test_tls_that_takes_too_long_is_told_so(autojump_clock) -> None:
    network = MemoryNetwork()
    async with playing(say_nothing, port=443, network=network):
        with pytest.raises(HandshakeTimeout, match=f"^TLS with {HOST} took longer than 3"):
            async with network.open_websocket(SECURE_URL, options=PATIENT):
                pass


async def test_a_request_that_cannot_be_sent_in_time_is_told_so(autojump_clock) -> None:
    async with playing(say_nothing) as network:
        with pytest.raises(
            HandshakeTimeout, match=r"^sending the request to the server took longer than 3"
        ):
            async with network.open_websocket(URL, options=PATIENT, link=Link(buffer=0)):
                pass


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 101 Switch", b"HTTP/1.1 100 Go on\r\n\r\n"])
async def test_an_answer_that_takes_too_long_is_told_so(part: bytes, autojump_clock) -> None:
    async with playing(answer(part)) as network:
        started = trio.current_time()
        with pytest.raises(
            HandshakeTimeout, match=r"^waiting for the answer of the server took"
        ) as it:
            async with network.open_websocket(URL, options=PATIENT):
                pass
        assert trio.current_time() - started == 3
    assert isinstance(it.value, trio.TooSlowError)


async def test_the_timeout_ends_with_the_handshake(autojump_clock) -> None:
    async with playing(accept) as network, network.open_websocket(URL, options=PATIENT):
        await trio.sleep(15)


# The server ends it...


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (
            b"",
            r"the server closed the connection without an answer \(if it speaks TLS, .*wss://\)",
        ),
        (b"HTTP/1.1 101 Sw", "the server closed the connection in the middle of its answer"),
    ],
)
async def test_the_end_of_tcp_instead_of_an_answer_is_told(
    data: bytes, complaint: str, autojump_clock
) -> None:
    async def play(peer: RawPeer) -> None:
        await peer.receive_head()
        await peer.send(data)
        await peer.send_end()

    async with playing(play) as network:
        with pytest.raises(HandshakeError, match=f"^{complaint}$"):
            async with network.open_websocket(URL):
                pass


async def test_a_reset_instead_of_an_answer_is_told(autojump_clock) -> None:
    async def play(peer: RawPeer) -> None:
        await peer.receive_head()
        network.links[0].reset()

    async with playing(play) as network:
        with pytest.raises(
            HandshakeError, match=r"^waiting for the answer of the server: "
        ) as caught:
            async with network.open_websocket(URL):
                pass
    assert "reset" in str(caught.value)
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_reset_instead_of_taking_the_request_is_told(autojump_clock) -> None:
    async def play(peer: RawPeer) -> None:
        await trio.sleep(1)
        network.links[0].reset()

    async with playing(play) as network:
        with pytest.raises(HandshakeError, match=r"^sending the request to the server: .*reset"):
            async with network.open_websocket(URL, link=Link(buffer=10)):
                pass


async def test_garbage_instead_of_an_answer_is_told(autojump_clock) -> None:
    async with playing(answer(b"SSH-2.0-OpenSSH_9.2\r\n")) as network:
        with pytest.raises(
            HandshakeError, match=r"^the server does not speak HTTP: is it the right port\?$"
        ):
            async with network.open_websocket(URL):
                pass


async def test_an_answer_to_another_request_is_told(autojump_clock) -> None:
    response = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    async with playing(answer(response)) as network:
        with pytest.raises(HandshakeError, match="does not answer this request"):
            async with network.open_websocket(URL):
                pass


async def test_garbage_instead_of_tls_is_told(autojump_clock) -> None:
    async def play(peer: RawPeer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    network = MemoryNetwork()
    async with playing(play, port=443, network=network):
        with pytest.raises(
            HandshakeError, match=rf"^TLS with {HOST}: no TLS is spoken there: ws://"
        ):
            async with network.open_websocket(SECURE_URL):
                pass


async def test_the_end_of_tcp_within_tls_is_told(autojump_clock) -> None:
    network = MemoryNetwork()
    async with playing(RawPeer.send_end, port=443, network=network):
        with pytest.raises(HandshakeError, match=f"^TLS with {HOST}: .+"):
            async with network.open_websocket(SECURE_URL):
                pass


async def test_a_reset_within_tls_is_told(autojump_clock) -> None:
    async def play(peer: RawPeer) -> None:
        await peer.stream.receive_some(1)
        network.links[0].reset()

    network = MemoryNetwork()
    async with playing(play, port=443, network=network):
        with pytest.raises(HandshakeError, match=f"^TLS with {HOST}: .*reset"):
            async with network.open_websocket(SECURE_URL):
                pass


# TLS...


async def test_tls_with_a_trusted_authority_connects(autojump_clock) -> None:
    network = MemoryNetwork()
    async with (
        playing(accept, port=443, tls=True, network=network),
        network.open_websocket(SECURE_URL) as ws,
    ):
        assert ws.close_info is None


async def test_tls_with_an_authority_that_nobody_knows_is_refused(autojump_clock) -> None:
    network = MemoryNetwork()
    async with playing(accept, port=443, tls=True, network=network):
        opening = network.open_websocket(SECURE_URL, ssl_context=ssl.create_default_context())
        with pytest.raises(
            HandshakeError, match=r"^TLS with .*: the certificate is refused: unable to get"
        ) as caught:
            async with opening:
                pass
    broken = caught.value.__cause__
    assert broken is not None
    assert isinstance(broken.__cause__, ssl.SSLCertVerificationError)


async def test_the_certificate_of_another_host_is_refused(autojump_clock) -> None:
    network = MemoryNetwork()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    network.ca.issue_cert("other.test").configure_cert(context)
    async with playing(accept, port=443, ssl_context=context, network=network):
        with pytest.raises(HandshakeError, match="Hostname mismatch"):
            async with network.open_websocket(SECURE_URL):
                pass


@pytest.mark.parametrize(
    ("host", "certified"),
    [("fe80::1%eth0", "fe80::1"), ("127.0.0.1", "127.0.0.1"), (f"{HOST}.", HOST)],
)
async def test_tls_asks_for_the_name_that_certificates_are_for(
    host: str, certified: str, autojump_clock
) -> None:
    network = MemoryNetwork()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    network.ca.issue_cert(certified).configure_cert(context)
    names: list[str | None] = []
    context.sni_callback = lambda tls, name, context: names.append(name)
    written = f"[{host}]" if ":" in host else host
    async with (
        playing(accept, host=host, port=443, ssl_context=context, network=network),
        network.open_websocket(f"wss://{written}/"),
    ):
        pass
    assert names == [certified if certified == HOST else None]  # RFC 6066: no addresses


async def test_the_default_context_trusts_what_the_system_trusts_and_is_made_once(
    autojump_clock, monkeypatch, tmp_path: Path
) -> None:
    network = MemoryNetwork()
    network.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    default_context.cache_clear()
    try:
        for _ in range(3):
            async with (
                playing(accept, port=443, tls=True, network=network),
                open_websocket_through(network.connect, SECURE_URL),
            ):
                pass
        assert default_context.cache_info().misses == 1
    finally:
        default_context.cache_clear()  # nobody else shall trust this authority


# For real...


async def test_a_secure_connection_over_tcp() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket, host="127.0.0.1", ssl_context=server_context)
            server = await nursery.start(serve, echo, 0)
            url = f"wss://127.0.0.1:{server.port}/"
            async with open_websocket(url, ssl_context=client_context) as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
                assert ws.remote_address == ("127.0.0.1", server.port)
            nursery.cancel_scope.cancel()


async def test_a_connection_over_a_unix_socket(tmp_path: Path) -> None:
    seen: list[str] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.extend((request.target, request.headers["Host"], request.headers["Authorization"]))
        await echo(request)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_websocket_unix, handler, tmp_path / "s")
            headers = {"Authorization": "Bearer 42"}
            async with open_websocket(f"ws+unix://{tmp_path}/s:/a?b=c", headers=headers) as ws:
                await ws.send(b"\0")
                assert await ws.receive() == b"\0"
            nursery.cancel_scope.cancel()
    assert seen == ["/a?b=c", "localhost", "Bearer 42"]


async def test_a_port_that_nobody_listens_on_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="Connection refused") as caught:
            async with open_websocket(f"ws://127.0.0.1:{port}/"):
                pass
    assert f"cannot connect to 127.0.0.1:{port}: " in str(caught.value)


async def test_a_unix_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        async with open_websocket(f"ws+unix://{tmp_path}/s"):
            pass
    assert str(caught.value) == (
        f"[Errno 2] cannot connect to {tmp_path}/s: No such file or directory"
    )


async def test_a_host_that_nobody_listens_at_is_named(autojump_clock) -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        async with MemoryNetwork().open_websocket(URL):
            pass
    assert f"cannot connect to {HOST}:80: " in str(caught.value)


# The block...


async def test_leaving_the_block_says_close_1000(autojump_clock) -> None:
    frames: list[Frame] = []

    async def play(peer: RawPeer) -> None:
        await peer.accept()
        frames.extend(await peer.answer())

    async with playing(play) as network:
        async with network.open_websocket(URL) as ws:
            assert isinstance(ws, WebSocket)
        assert ws.close_info is not None
        assert ws.close_info.code == 1000
    assert [(frame.opcode, frame.payload) for frame in frames] == [(8, b"\x03\xe8")]


async def test_the_blocks_exception_comes_out_as_it_is(autojump_clock) -> None:
    frames: list[Frame] = []

    async def play(peer: RawPeer) -> None:
        await peer.accept()
        frames.extend(await peer.answer())

    cause, context = KeyError("cause"), IndexError("context")
    error = ValueError("mine")
    error.__context__ = context
    async with playing(play) as network:
        with pytest.raises(ValueError, match=r"^mine$") as caught:
            async with network.open_websocket(URL):
                raise error from cause
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is context
    assert [frame.payload[:2] for frame in frames] == [b"\x03\xf3"]


async def test_a_cancelled_block_says_close_1001(autojump_clock) -> None:
    frames: list[Frame] = []

    async def play(peer: RawPeer) -> None:
        await peer.accept()
        frames.extend(await peer.answer())

    async with playing(play) as network:
        with trio.move_on_after(5) as scope:
            async with network.open_websocket(URL) as ws:
                await ws.receive()
        assert scope.cancelled_caught
    assert [frame.payload[:2] for frame in frames] == [b"\x03\xe9"]


# Over a stream...


async def test_a_connection_over_a_stream_that_is_open_already(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    heads: list[str] = []

    async def serve() -> None:
        async with RawPeer(theirs, client=False) as peer:
            heads.append(await peer.accept(behind=Frame.text("hello").encode()))
            await peer.answer()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_websocket_over_stream(ours, "wss://tunnel.test/x", origin="null") as ws:
            assert await ws.receive() == "hello"
            assert ws.remote_address is None
    assert heads[0].startswith("GET /x HTTP/1.1\r\nHost: tunnel.test\r\n")
    assert "\r\nOrigin: null\r\n" in heads[0]
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_stream_is_closed_if_the_handshake_over_it_fails(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(ConnectionRejected):
        async with open_websocket_over_stream(ours, URL):
            pass
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")


async def test_a_stream_is_closed_wherever_the_handshake_over_it_is_cancelled(
    autojump_clock,
) -> None:
    async for attempt in cancellations():
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, RawPeer(theirs, client=False))
            with attempt:
                async with open_websocket_over_stream(ours, URL):
                    pass
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")


# Cancellation...


@pytest.mark.parametrize("tls", [False, True])
async def test_wherever_it_is_cancelled_the_server_sees_the_end(tls: bool, autojump_clock) -> None:
    network = MemoryNetwork(lambda number: Link(latency=0.01))
    port = 443 if tls else 80
    fired = 0
    async for attempt in cancellations():
        async with playing(accept, port=port, tls=tls, network=network):
            with attempt:
                async with network.open_websocket(SECURE_URL if tls else URL):
                    pass
        fired += attempt.cancelled
    assert fired > 8


@pytest.mark.parametrize("response", [b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", b"SSH"])
async def test_wherever_a_failing_handshake_is_cancelled_the_server_sees_the_end(
    response: bytes, autojump_clock
) -> None:
    async def play(peer: RawPeer) -> None:
        with contextlib.suppress(AssertionError):
            await answer(response)(peer)

    async for attempt in cancellations():
        async with playing(play) as network:
            with contextlib.suppress(HandshakeError), attempt:
                async with network.open_websocket(URL):
                    pass
