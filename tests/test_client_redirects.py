"""Redirects, followed: what goes along, what stays behind, and what is left of each server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from _proxies import listening
from trio.testing import MockClock

from trio_ws import (
    ConnectionRejected,
    HandshakeError,
    HandshakeTimeout,
    Options,
    ProxyRejected,
    WebSocketRequest,
    open_websocket,
    open_websocket_over_stream,
    serve_websocket_listeners,
    serve_websocket_unix,
)
from trio_ws.testing import Link, MemoryNetwork, RawPeer, cancellations
from trio_ws.testing._socket import open_sockets


@pytest.fixture(autouse=True)
def every_socket_is_closed() -> Iterator[None]:
    before = open_sockets()
    yield
    assert [sock for sock in open_sockets() if sock not in before] == []


class Place:
    """A server that points elsewhere, or accepts; it notes what it was asked."""

    def __init__(self, location: str | None = None, status: int = 302) -> None:
        self.location = location
        self.status = status
        self.requests: list[WebSocketRequest] = []

    async def __call__(self, request: WebSocketRequest) -> None:
        self.requests.append(request)
        if self.location is not None:
            await request.reject(self.status, headers={"Location": self.location})
            return
        async with request.accept() as ws:
            await ws.send(request.target)
            await ws.wait_closed()


@asynccontextmanager
async def world(network: MemoryNetwork, **places: Callable[..., object]) -> AsyncIterator[None]:
    """Serve each place at its host: on port 80, and with TLS on port 443."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for name, place in places.items():
            listeners = [
                network.listen(f"{name}.test", port, tls=port == 443) for port in (80, 443)
            ]
            await nursery.start(partial(serve_websocket_listeners, place, listeners))
        yield
        nursery.cancel_scope.cancel()


async def test_a_redirect_leads_to_another_path(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await (old if request.path == "/old" else new)(request)

    old, new, network = Place("../new?q=1"), Place(), MemoryNetwork()
    async with world(network, a=handler):
        headers = {"Authorization": "Bearer 1", "Cookie": "c=1", "X": "y"}
        async with network.open_websocket(
            "ws://a.test/old", headers=headers, subprotocols=["chat"], origin="http://a.test"
        ) as ws:
            assert await ws.receive() == "/new?q=1"
    one, other = old.requests[0].headers, new.requests[0].headers
    assert one["Sec-WebSocket-Key"] != other["Sec-WebSocket-Key"]
    for name in ("Authorization", "Cookie", "X", "Host", "Origin", "Sec-WebSocket-Protocol"):
        assert one[name] == other[name]


@pytest.mark.parametrize(
    "there", ["http://b.test/", "https://a.test/", "https://a.test:80/x", "http://a.test:81/"]
)
async def test_secrets_stay_where_they_belong(there: str, autojump_clock: MockClock) -> None:
    """Another host, another port, another scheme: each is another server."""
    network, here, new = MemoryNetwork(), Place(there), Place()

    async def handler(request: WebSocketRequest) -> None:
        await (new if request.tls or request.local_address[1] == 81 else here)(request)

    async with world(network, a=handler, b=new), trio.open_nursery() as nursery:
        listener = network.listen("a.test", 81)
        await nursery.start(partial(serve_websocket_listeners, handler, [listener]))
        headers = {
            "Cookie": "c=1",
            "Proxy-Authorization": "Basic eA==",
            "Host": "a.test",
            "X": "y",
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trio_ws._dial.default_context", lambda: network.client_context)
            opening = network.open_websocket("ws://ann:secret@a.test/", headers=headers)
            if there == "https://a.test:80/x":  # no TLS is spoken there
                with pytest.raises(HandshakeError, match="no TLS is spoken there"):
                    await opening.__aenter__()
            else:
                async with opening as ws:
                    await ws.receive()
                kept = new.requests[0].headers
                assert kept["X"] == "y"
                assert kept["Host"] == there.split("/")[2]
                assert not {"Authorization", "Cookie", "Proxy-Authorization"} & {*kept}
        nursery.cancel_scope.cancel()
    assert here.requests[0].headers["Authorization"] == "Basic YW5uOnNlY3JldA=="


async def test_a_secret_that_was_left_behind_does_not_come_back(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await (home if request.path == "/home" else away)(request)

    home, away, network = Place(), Place("http://b.test/"), MemoryNetwork()
    async with (
        world(network, a=handler, b=Place("http://a.test/home")),
        network.open_websocket("ws://ann:secret@a.test/", headers={"Cookie": "c=1"}),
    ):
        pass
    assert not {"Authorization", "Cookie"} & {*home.requests[0].headers}


async def test_nobody_is_led_out_of_tls(autojump_clock: MockClock) -> None:
    network, plain = MemoryNetwork(), Place()
    async with world(network, a=Place("http://b.test/"), b=plain):
        with pytest.raises(HandshakeError, match="where nothing would be encrypted"):
            async with network.open_websocket("wss://a.test/"):
                pass
    assert plain.requests == []


async def test_a_circle_is_told(autojump_clock: MockClock) -> None:
    network, there = MemoryNetwork(), Place("http://a.test/")
    async with world(network, a=Place("http://b.test/"), b=there):
        with pytest.raises(
            HandshakeError, match=r"in a circle: ws://a\.test/ -> ws://b\.test/ -> "
        ):
            async with network.open_websocket("ws://a.test/"):
                pass
    assert len(there.requests) == 1


async def test_the_sixth_redirect_is_not_followed(autojump_clock: MockClock) -> None:
    seen: list[int] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(int(request.path[1:]))
        await request.reject(307, headers={"Location": f"/{seen[-1] + 1}"})

    network = MemoryNetwork()
    async with world(network, a=handler):
        with pytest.raises(HandshakeError, match="more than 5 redirects"):
            async with network.open_websocket("ws://a.test/0"):
                pass
    assert seen == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("status", "location"), [(300, "/b"), (304, "/b"), (403, "/b")])
async def test_what_is_no_redirect_is_a_rejection(
    status: int, location: str, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with world(network, a=Place(location, status)):
        with pytest.raises(ConnectionRejected) as caught:
            async with network.open_websocket("ws://a.test/"):
                pass
    assert caught.value.status == status


async def test_a_proxy_redirects_nobody(autojump_clock: MockClock) -> None:
    """What it answers is no word of the server's, so it is not for it to say."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: http://b.test/\r\n\r\n")

    network, there = MemoryNetwork(), Place()
    async with world(network, b=there), listening(network, talk):
        with pytest.raises(ProxyRejected) as caught:
            async with network.open_websocket("ws://a.test/", proxy="http://proxy.test:3128"):
                pass
    assert caught.value.status == 302
    assert there.requests == []


async def test_all_redirects_share_one_deadline(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(lambda number: Link(latency=0.5))  # two round trips are 2 s
    options = Options(handshake_timeout=3)
    async with world(network, a=Place("http://b.test/"), b=Place("http://c.test/"), c=Place()):
        with pytest.raises(HandshakeTimeout, match="took longer than 3 s in all"):
            async with network.open_websocket("ws://a.test/", options=options):
                pass
        assert trio.current_time() == 3


async def test_a_unix_socket_redirects_to_itself(tmp_path: Path) -> None:
    async def handler(request: WebSocketRequest) -> None:
        location = "http://example.org/" if request.path == "/away" else "/new"
        await (Place() if request.path == "/new" else Place(location))(request)

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_websocket_unix, handler, tmp_path / "s"))
        with trio.fail_after(10):
            async with open_websocket(f"ws+unix://{tmp_path}/s:/old") as ws:
                assert await ws.receive() == "/new"
            with pytest.raises(HandshakeError, match="from a Unix socket no way leads on"):
                async with open_websocket(f"ws+unix://{tmp_path}/s:/away"):
                    pass
        nursery.cancel_scope.cancel()


async def test_a_stream_leads_to_one_server_only(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 302 Found\r\nLocation: http://b.test/\r\n\r\n")
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket_over_stream(ours, "ws://a.test/"):
            pass
    assert caught.value.headers["Location"] == "http://b.test/"


async def test_wherever_it_is_cancelled_every_server_sees_the_end(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(lambda number: Link(latency=0.01))
    ends: list[str] = []

    async def serve(listener: trio.SocketListener) -> None:
        with contextlib.suppress(AssertionError, trio.BrokenResourceError):
            async with RawPeer(await listener.accept(), client=False) as peer:
                if listener is first:
                    await peer.receive_head()
                    moved = (
                        b"HTTP/1.1 302 x\r\nLocation: http://b.test/\r\nContent-Length: 9\r\n\r\n"
                    )
                    await peer.send(moved)
                    while await peer.stream.receive_some(100):
                        raise AssertionError
                    ends.append("the first")
                else:
                    await peer.accept()
                    await peer.answer()

    fired = 0
    async for attempt in cancellations():
        async with (
            network.listen("a.test") as first,
            network.listen("b.test") as second,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(serve, first)
            nursery.start_soon(serve, second)
            with attempt:
                async with network.open_websocket("ws://a.test/"):
                    pass
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        fired += attempt.cancelled
    assert fired > 8
    assert ends
