"""The way to a server: straight, or through proxies, honest and hostile ones."""

from __future__ import annotations

import contextlib
import importlib.util
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from _proxies import HTTPProxy, SOCKSProxy, Talk, listening
from trio.testing import MockClock

from trio_ws import (
    HandshakeError,
    HandshakeTimeout,
    Options,
    ProxyRejected,
    WebSocketRequest,
    open_websocket,
    serve_websocket_listeners,
    serve_websocket_unix,
)
from trio_ws.testing import Link, MemoryNetwork, cancellations
from trio_ws.testing._socket import open_sockets

SERVER = "example.test"
PATIENT = Options(handshake_timeout=3)


@pytest.fixture(autouse=True)
def every_socket_is_closed() -> Iterator[None]:
    before = open_sockets()
    yield
    assert [sock for sock in open_sockets() if sock not in before] == []


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


@asynccontextmanager
async def serving(network: MemoryNetwork, *ports: int, host: str = SERVER) -> AsyncIterator[None]:
    """Serve an echo in a network: on port 443 with TLS."""
    listeners = [network.listen(host, port, tls=port == 443) for port in ports or (80, 443)]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_websocket_listeners, echo, listeners)
        yield
        nursery.cancel_scope.cancel()


async def hear_echo(network: MemoryNetwork, url: str, **arguments: Any) -> None:
    async with network.open_websocket(url, **arguments) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


# Straight...


async def test_no_proxy_stands_before_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_websocket_unix, echo, tmp_path / "s"))
        with trio.fail_after(10):
            async with open_websocket(f"ws+unix://{tmp_path}/s") as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
        nursery.cancel_scope.cancel()


# CONNECT...


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("to_proxy", ["http", "https"])
async def test_an_http_proxy_leads_to_the_server(
    scheme: str, to_proxy: str, autojump_clock: MockClock
) -> None:
    """TLS to the proxy and TLS to the server are each a matter of its own: one in the other."""
    network = MemoryNetwork()
    proxy = HTTPProxy(network)
    async with (
        serving(network),
        listening(network, proxy, tls=to_proxy == "https"),
    ):
        url = f"{scheme}://{SERVER}/chat?secret"
        await hear_echo(network, url, proxy=f"{to_proxy}://proxy.test:3128")
    port = {"ws": 80, "wss": 443}[scheme]
    assert [head.splitlines()[0] for head in proxy.heads] == [f"CONNECT {SERVER}:{port} HTTP/1.1"]
    assert "secret" not in proxy.heads[0]


async def test_the_proxy_is_told_the_user_of_its_url(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with (
        serving(network),
        listening(network, HTTPProxy(network, password="YW5uOnNlY3JldA==")),  # noqa: S106  # test
    ):
        await hear_echo(network, f"wss://{SERVER}/", proxy="http://ann:secret@proxy.test:3128")
        for url in ("http://proxy.test:3128", "http://ann:wrong@proxy.test:3128"):
            with pytest.raises(ProxyRejected) as caught:
                await hear_echo(network, f"wss://{SERVER}/", proxy=url)
            assert caught.value.status == 407


async def test_a_proxy_that_finds_no_server_says_so(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with listening(network, HTTPProxy(network)):
        with pytest.raises(ProxyRejected, match=r"proxy\.test:3128 answered 502$"):
            await hear_echo(network, f"ws://{SERVER}/", proxy="http://proxy.test:3128")


async def test_a_proxy_that_is_not_there_is_named(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    for scheme in ("http", "https", "socks5h"):
        url = f"{scheme}://ann:secret@proxy.test:3128"
        with pytest.raises(
            ConnectionRefusedError, match=r"cannot connect to the proxy proxy\.test:3128: "
        ):
            await hear_echo(network, f"ws://{SERVER}/", proxy=url)


async def test_a_proxy_whose_certificate_nobody_knows_is_told_nothing(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    proxy = HTTPProxy(network)
    async with listening(network, proxy, tls=True):
        with pytest.raises(
            HandshakeError, match=r"^TLS with the proxy https://proxy\.test:3128: "
        ):
            await hear_echo(
                network,
                f"ws://{SERVER}/",
                proxy="https://proxy.test:3128",
                proxy_ssl_context=ssl.create_default_context(),
            )
    assert proxy.heads == []


async def test_a_redirect_goes_through_the_proxy_again(autojump_clock: MockClock) -> None:
    async def move(request: WebSocketRequest) -> None:
        await request.reject(307, headers={"Location": f"https://{SERVER}/there"})

    network = MemoryNetwork()
    proxy = HTTPProxy(network)
    async with (
        serving(network, 443),
        listening(network, proxy),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(serve_websocket_listeners, move, [network.listen("old.test")])
        # For TLS behind a redirect the context of the system counts: ours is trusted here.
        context = network.client_context
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trio_ws._dial.default_context", lambda: context)
            await hear_echo(network, "ws://old.test/", proxy="http://proxy.test:3128")
        nursery.cancel_scope.cancel()
    assert [head.split()[1] for head in proxy.heads] == ["old.test:80", f"{SERVER}:443"]


# SOCKS...


@pytest.mark.parametrize(("url", "port"), [(f"ws://{SERVER}/", 80), (f"wss://{SERVER}/", 443)])
@pytest.mark.parametrize(
    ("proxy_url", "asked"),
    [
        ("socks5h://proxy.test:3128", (5, "", SERVER)),
        ("socks5h://ann:secret@proxy.test:3128", (5, "ann:secret", SERVER)),
        ("socks4a://proxy.test:3128", (4, "", SERVER)),
        ("socks4a://ann@proxy.test:3128", (4, "ann", SERVER)),
    ],
)
async def test_a_socks_proxy_leads_to_the_server(
    url: str, port: int, proxy_url: str, asked: tuple[Any, ...], autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    proxy = SOCKSProxy(network, user="ann:secret" if "secret" in proxy_url else "")
    async with serving(network), listening(network, proxy):
        await hear_echo(network, url, proxy=proxy_url)
    assert proxy.asked == [(*asked, port)]


@pytest.mark.parametrize(("scheme", "version"), [("socks5", 5), ("socks4", 4)])
async def test_without_h_or_a_it_is_us_who_look_the_name_up(
    scheme: str, version: int, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    proxy = SOCKSProxy(network)
    with network.install():
        async with serving(network), listening(network, proxy):
            await hear_echo(network, f"ws://{SERVER}/", proxy=f"{scheme}://proxy.test:3128")
            address = (await trio.socket.getaddrinfo(SERVER, 80))[0][4]
    assert proxy.asked == [(version, "", *address)]
    assert proxy.asked[0][2] != SERVER


async def test_a_socks_proxy_is_found_in_the_environment(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = MemoryNetwork()
    proxy = SOCKSProxy(network)
    monkeypatch.setenv("all_proxy", "socks5h://proxy.test:3128")
    with network.install():
        async with serving(network), listening(network, proxy):
            async with open_websocket(f"ws://{SERVER}/") as ws:
                await ws.send("hello")
                assert await ws.receive() == "hello"
            assert len(proxy.asked) == 1
            async with open_websocket(f"ws://{SERVER}/", proxy=None):
                assert len(proxy.asked) == 1
            monkeypatch.setenv("no_proxy", SERVER)
            async with open_websocket(f"ws://{SERVER}/"):
                assert len(proxy.asked) == 1


async def test_an_environment_of_no_use_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "gopher://proxy.test")
    with pytest.raises(HandshakeError, match="environment variable http_proxy is of no use"):
        await hear_echo(MemoryNetwork(), f"ws://{SERVER}/", proxy="environment")


@pytest.fixture
def no_python_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "python_socks" else find_spec(name, *rest),
    )
    for name in ("trio_ws._socks", "python_socks"):
        monkeypatch.setitem(sys.modules, name, None)


ADVICE = r"SOCKS proxies need python-socks: pip install 'trio-ws\[socks\]'"


@pytest.mark.usefixtures("no_python_socks")
def test_a_socks_proxy_without_the_extra_is_refused_at_the_call() -> None:
    with pytest.raises(ImportError, match=ADVICE):
        open_websocket(f"ws://{SERVER}/", proxy="socks5://proxy.test")


@pytest.mark.usefixtures("no_python_socks")
async def test_a_socks_proxy_of_the_environment_without_the_extra_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://proxy.test")
    with pytest.raises(HandshakeError, match=ADVICE):
        await hear_echo(MemoryNetwork(), f"ws://{SERVER}/", proxy="environment")


# Arguments...


@pytest.mark.parametrize(
    ("url", "arguments", "error", "complaint"),
    [
        ("ws://a.test/", {"proxy": "proxy.test"}, ValueError, "starts with http://"),
        ("ws://a.test/", {"proxy": True}, TypeError, "not bool"),
        ("ws+unix:///run/s", {"proxy": "http://p:1"}, ValueError, "leads to a Unix socket"),
        ("ws://a.test/", {"server_hostname": "b.test"}, ValueError, "server_hostname goes with"),
        ("wss://a.test/", {"server_hostname": 1}, TypeError, "a str, not int"),
        ("wss://a.test/", {"server_hostname": ""}, ValueError, "no valid host name"),
        ("wss://a.test/", {"server_hostname": "b.test:443"}, ValueError, "without a port"),
    ],
)
def test_an_argument_of_no_use_is_refused_at_the_call(
    url: str, arguments: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        open_websocket(url, **arguments)


@pytest.mark.parametrize("proxy", [None, "http://proxy.test", "socks5://proxy.test"])
def test_a_context_for_a_proxy_without_tls_is_refused_at_the_call(proxy: str | None) -> None:
    with pytest.raises(ValueError, match="goes with a proxy at https://"):
        open_websocket("ws://a.test/", proxy=proxy, proxy_ssl_context=ssl.create_default_context())


def test_a_context_for_a_proxy_is_one_of_a_client() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for proxy in ("environment", "https://proxy.test"):
        with pytest.raises(ValueError, match="this proxy_ssl_context is not for a client"):
            open_websocket("ws://a.test/", proxy=proxy, proxy_ssl_context=context)


# Hostile proxies...


def say(data: bytes, *, then: str = "wait") -> Talk:
    """Hear something, say this, and then wait for ever, or go."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(data)
        if then == "wait":
            while await stream.receive_some(65536):
                pass

    return talk


async def drip(stream: trio.abc.Stream) -> None:
    """Say a byte a second, and never come to an end."""
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(1)


OK = b"HTTP/1.1 200 OK\r\n"

NOTHING_TO = r"^waiting for the answer of the proxy http://proxy\.test:3128 took longer"

HOSTILE = {
    "says nothing": ("http", say(b""), HandshakeTimeout, NOTHING_TO),
    "a byte a second": ("http", drip, HandshakeTimeout, NOTHING_TO),
    "half a head": ("http", say(OK), HandshakeTimeout, NOTHING_TO),
    "too much of a head": (
        *("http", say(OK + b"X: " + b"x" * 20_000), HandshakeError),
        "longer than max_header_size",
    ),
    "garbage": (
        "http",
        say(b"\x05\0"),
        HandshakeError,
        r"^the proxy .* does not speak HTTP: is it the right port\?$",
    ),
    "goes": ("http", say(b"", then="go"), HandshakeError, "^the proxy .* closed .* without an"),
    "goes mid-way": ("http", say(OK, then="go"), HandshakeError, "in the middle of its answer$"),
    "200 with a body": (
        *("http", say(OK + b"\r\n<p>"), HandshakeError),
        "opens the way, and then speaks itself$",
    ),
    "a way to nowhere": (
        *("http", say(OK + b"\r\n"), HandshakeTimeout),
        "^waiting for the answer of the server took",
    ),
    "a way that ends": (
        *("http", say(OK + b"\r\n", then="go"), HandshakeError),
        "^(the server closed the connection|sending the request|waiting for)",
    ),
    "a refusal without an end": (
        *("http", say(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nlater"), ProxyRejected),
        "answered 503: 'later'$",
    ),
    "a redirect": (
        *("http", say(b"HTTP/1.1 302 Go\r\nLocation: http://evil.test/\r\n\r\n"), ProxyRejected),
        "answered 302$",
    ),
    "no TLS": ("https", say(b""), HandshakeTimeout, "^TLS with the proxy https://proxy"),
    "HTTP for TLS": (
        *("https", say(b"HTTP/1.1 400 x\r\n\r\n"), HandshakeError),
        "^TLS with the proxy .*: no TLS is spoken there",
    ),
    "goes in TLS": ("https", say(b"", then="go"), HandshakeError, "^TLS with the proxy https://"),
    "no SOCKS": ("socks5h", say(b""), HandshakeTimeout, "^asking the proxy socks5h://proxy.* for"),
    "half of SOCKS": ("socks5h", say(b"\x05"), HandshakeTimeout, "^asking the proxy"),
    "goes in SOCKS": (
        *("socks5h", say(b"", then="go"), HandshakeError),
        "^the proxy .* closed the connection without an answer$",
    ),
    "HTTP for SOCKS": ("socks5h", say(OK), HandshakeError, "^the proxy socks5h://.* opens no way"),
    "an odd address": (
        *("socks5h", say(b"\x05\0\x05\0\0\x03\x01\xff\0\0"), HandshakeError),
        "^the proxy .*: its answer makes no sense$",
    ),
    "SOCKS4 says no": (
        *("socks4a", say(b"\0\x5b\0\0\0\0\0\0"), HandshakeError),
        "opens no way to .*rejected or failed",
    ),
}


@pytest.mark.parametrize(("scheme", "talk", "error", "complaint"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_proxy_costs_no_more_than_the_deadline(
    scheme: str, talk: Talk, error: type[Exception], complaint: str, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with listening(network, talk):
        started = trio.current_time()
        with pytest.raises(error, match=complaint):
            await hear_echo(
                network,
                f"ws://{SERVER}/",
                proxy=f"{scheme}://proxy.test:3128",
                options=PATIENT,
            )
        assert trio.current_time() - started <= 3


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
async def test_a_proxy_that_resets_is_named(scheme: str, autojump_clock: MockClock) -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        await stream.receive_some(1)
        network.links[0].reset()

    network = MemoryNetwork()
    async with listening(network, reset):
        with pytest.raises((HandshakeError, OSError), match=r"the proxy .*reset"):
            await hear_echo(network, f"ws://{SERVER}/", proxy=f"{scheme}://proxy.test:3128")


# Cancellation...


@pytest.mark.parametrize(
    ("scheme", "url"),
    [
        ("http", f"ws://{SERVER}/"),
        ("https", f"wss://{SERVER}/"),
        ("socks5h", f"wss://{SERVER}/"),
        ("socks5", f"ws://{SERVER}/"),
    ],
)
async def test_wherever_it_is_cancelled_no_socket_is_left(
    scheme: str, url: str, autojump_clock: MockClock
) -> None:
    """On either side: the servers and proxies see the end, and close theirs."""
    network = MemoryNetwork(lambda number: Link(latency=0.01))
    proxy = SOCKSProxy(network) if scheme.startswith("socks") else HTTPProxy(network)
    fired = 0
    with network.install():
        async with serving(network), listening(network, proxy, tls=scheme == "https"):
            async for attempt in cancellations():
                with contextlib.suppress(HandshakeError), attempt:
                    async with network.open_websocket(url, proxy=f"{scheme}://proxy.test:3128"):
                        pass
                await trio.sleep(10)  # the ends travel
                fired += attempt.cancelled
    assert fired > 10
