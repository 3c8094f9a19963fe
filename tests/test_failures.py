"""What a user reads when a client cannot connect: the table of docs/reference/failures.rst.

The table is made of what is raised here. ``TRIO_WS_WRITE_DOCS=1 pytest tests/test_failures.py``
writes it anew; to read what has changed is the test.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trustme
from _proxies import HTTPProxy, SOCKSProxy, Talk, listening, with_alerts
from trio.testing import MockClock

from trio_ws import Options, is_transient, open_websocket
from trio_ws._client import open_websocket_through
from trio_ws.testing import Link, MemoryNetwork

TABLE: Final = Path(__file__).parent.parent / "docs" / "reference" / "failures.inc"
HOST, PROXY = "example.test", "http://proxy.test:3128"
WS, WSS = f"ws://{HOST}/chat", f"wss://{HOST}/chat"

Case = Callable[[], Awaitable[object]]
CASES: dict[str, dict[str, Case]] = {}


def case(heading: str, name: str) -> Callable[[Case], Case]:
    def add(function: Case) -> Case:
        CASES.setdefault(heading, {})[name] = function
        return function

    return add


# Nobody there...


async def dial_failing(error: OSError, *_: object) -> trio.SocketStream:
    await trio.lowlevel.checkpoint()
    # As trio does it, for one address or for several.
    raise OSError("all attempts to connect failed") from error


async def dial(error: OSError, url: str = WS, proxy: str | None = None) -> None:
    async with open_websocket_through(partial(dial_failing, error), url, proxy=proxy):
        pass


REFUSED = ConnectionRefusedError(111, "Error connecting to ('192.0.2.1', 80): Connection refused")
NO_ROUTE = OSError(113, "Error connecting to ('192.0.2.1', 80): No route to host")

case("Getting there", "The port is closed: is the server running?")(partial(dial, REFUSED))
case("Getting there", "No way leads to the host")(partial(dial, NO_ROUTE))


class NameService(trio.abc.HostnameResolver):
    def __init__(self, *, silent: bool) -> None:
        self.silent = silent

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def look_up(*, silent: bool) -> None:
    old = trio.socket.set_custom_hostname_resolver(NameService(silent=silent))
    try:
        async with open_websocket(WS):
            pass
    finally:
        trio.socket.set_custom_hostname_resolver(old)


case("Getting there", "The host's name is not known: is it spelt right?")(
    partial(look_up, silent=False)
)
case("Getting there", "The name service does not answer")(partial(look_up, silent=True))


@case("Getting there", "A firewall swallows what is sent (a black hole)")
async def black_hole() -> None:
    network = MemoryNetwork(lambda number: Link(latency=1000))
    async with network.listen(HOST), network.open_websocket(WS):
        pass


@case("Getting there", "There is no such Unix socket")
async def no_socket() -> None:
    async with open_websocket("ws+unix:///run/no-such-thing.sock:/chat"):
        pass


# TLS...


async def meet(talk: Talk, url: str = WS, port: int = 80, **arguments: Any) -> None:
    """Connect to a server that talks like this."""
    network = arguments.pop("network", None) or MemoryNetwork()
    tls = {"ssl_context": arguments.pop("server")} if "server" in arguments else {}
    async with (
        listening(network, talk, HOST, port, **tls),
        network.open_websocket(url, **arguments),
    ):
        pass


def say(data: bytes, *, then: str = "wait") -> Talk:
    """Hear something, say this, and then wait for ever, or go."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(data)
        if then == "wait":
            await trio.sleep_forever()

    return talk


def certified(network: MemoryNetwork, name: str = HOST, **how: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    network.ca.issue_cert(name, **how).configure_cert(context)
    return context


async def tls(name: str = HOST, *, trusted: bool = True, days: int = 1) -> None:
    network = MemoryNetwork()
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    context = None if trusted else ssl.create_default_context()
    server = certified(network, name, not_after=until)
    await meet(say(b""), WSS, 443, network=network, server=server, ssl_context=context)


case("TLS", "``wss://`` to a port where no TLS is spoken")(
    partial(meet, say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), WSS, 443)
)
case("TLS", "An authority that nobody here knows has signed the certificate")(
    partial(tls, trusted=False)
)
case("TLS", "The certificate has expired")(partial(tls, days=-1))
case("TLS", "The certificate is for another name")(partial(tls, "www.example.test"))


@case("TLS", "``ws://`` to a port where TLS is spoken")
async def plain_to_tls() -> None:
    await meet(with_alerts(certified(MemoryNetwork())))


async def client_certificate(*, shown: bool) -> None:
    network, authority = MemoryNetwork(), trustme.CA()
    server = certified(network)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)
    ours = ssl.create_default_context()
    network.ca.configure_trust(ours)
    if shown:
        trustme.CA().issue_cert("ann@example.test").configure_cert(ours)
    await meet(with_alerts(server), WSS, 443, network=network, ssl_context=ours)


case("TLS", "The server wants a certificate of the client")(
    partial(client_certificate, shown=False)
)
case("TLS", "The server does not trust the client's certificate")(
    partial(client_certificate, shown=True)
)
case("TLS", "The server ends the connection within TLS")(
    partial(meet, say(b"", then="go"), WSS, 443)
)


# The server's answer...


def respond(status: str, *headers: str, body: str = "") -> Talk:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", body]
    return say("\r\n".join(lines).encode())


case("The answer", "A page instead of a WebSocket: is it the right path?")(
    partial(meet, respond("200 OK", body="<html>"))
)
case("The answer", "The server wants to know who you are")(
    partial(meet, respond("401 Unauthorized", "WWW-Authenticate: Basic"))
)
case("The answer", "The server does not want you, or not from this origin")(
    partial(meet, respond("403 Forbidden", body="this origin is not allowed"))
)
case("The answer", "There is nothing at this path")(partial(meet, respond("404 Not Found")))
case("The answer", "The server is busy, or restarts")(
    partial(meet, respond("503 Service Unavailable", "Retry-After: 5"))
)
case("The answer", "Another protocol: is it the right port?")(
    partial(meet, say(b"SSH-2.0-OpenSSH_9.2\r\n"))
)
case("The answer", "The server closes the connection")(partial(meet, say(b"", then="go")))
case("The answer", "The server says nothing")(partial(meet, say(b"")))


@case("The answer", "The connection breaks")
async def reset() -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65536)
        network.links[0].reset()

    network = MemoryNetwork()
    await meet(talk, network=network)


@case("The answer", "A cache in between answers with what it has heard before")
async def cached() -> None:
    headers = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: old")
    await meet(respond("101 Switching Protocols", *headers))


# Redirects...


async def move(location: str, *, secure: bool = False) -> None:
    network = MemoryNetwork()
    talk = respond("302 Found", f"Location: {location}")
    if not secure:
        await meet(talk, network=network)
    else:
        await meet(talk, WSS, 443, network=network, server=certified(network))


case("Redirects", "In a circle")(partial(move, "/chat"))
case("Redirects", "Out of TLS")(partial(move, "http://example.test/chat", secure=True))
case("Redirects", "To something that is no WebSocket's")(partial(move, "ftp://example.test/"))


@case("Redirects", "Too many")
async def too_many() -> None:
    count = 0

    async def talk(stream: trio.abc.Stream) -> None:
        nonlocal count
        count += 1
        await respond("302 Found", f"Location: /{count}")(stream)

    await meet(talk)


# Proxies...


async def ask(talk: Talk, proxy: str = PROXY, *, tls: bool = False, **arguments: Any) -> None:
    """Connect through a proxy that talks like this."""
    network = arguments.pop("network", None) or MemoryNetwork()
    async with (
        listening(network, talk, tls=tls),
        network.open_websocket(WS, proxy=proxy, **arguments),
    ):
        pass


WHO: Final = "407 Proxy Authentication Required"

case("Proxies", "The proxy is not there")(partial(dial, REFUSED, proxy=PROXY))
case("Proxies", "The proxy wants to know who you are")(
    partial(ask, respond(WHO, "Proxy-Authenticate: Basic"))
)
case("Proxies", "The proxy does not accept who you are")(
    partial(ask, respond(WHO, "Proxy-Authenticate: Basic"), "http://ann:x@proxy.test:3128")
)
case("Proxies", "The proxy wants another kind of authentication")(
    partial(ask, respond(WHO, "Proxy-Authenticate: Negotiate", "Proxy-Authenticate: NTLM"))
)
case("Proxies", "The proxy lets nobody through to this port")(
    partial(ask, respond("403 Forbidden"))
)
case("Proxies", "The proxy does not reach the server")(partial(ask, respond("502 Bad Gateway")))
case("Proxies", "The proxy says nothing")(partial(ask, say(b"")))
case("Proxies", "It is no HTTP proxy: is it one for SOCKS?")(partial(ask, say(b"\x05\xff")))
case("Proxies", "The proxy speaks TLS: its URL begins with ``https://``")(
    partial(ask, say(b"\x15\x03\x01\x00\x02\x02\x46"))
)
case("Proxies", "The proxy ends the connection")(partial(ask, say(b"", then="go")))


@case("Proxies", "An authority that nobody here knows has signed the proxy's certificate")
async def unknown_proxy() -> None:
    network = MemoryNetwork()
    url, context = "https://proxy.test:3128", ssl.create_default_context()
    await ask(HTTPProxy(network), url, tls=True, network=network, proxy_ssl_context=context)


async def ask_socks(proxy: str = "socks5h://proxy.test:3128", **how: Any) -> None:
    network = MemoryNetwork()
    await ask(SOCKSProxy(network, **how), proxy, network=network)


case("Proxies", "The SOCKS proxy finds the server's port closed")(partial(ask_socks, reply=5))
case("Proxies", "The SOCKS proxy lets nobody through to it")(partial(ask_socks, reply=2))
case("Proxies", "The SOCKS proxy wants to know who you are")(partial(ask_socks, user="ann:secret"))
case("Proxies", "The SOCKS proxy does not accept who you are")(
    partial(ask_socks, "socks5h://ann:x@proxy.test:3128", user="ann:secret")
)
case("Proxies", "It is no SOCKS proxy")(partial(ask, say(b"HTTP"), "socks5h://proxy.test:3128"))


@case("Proxies", "The environment names no proxy of use")
async def environment() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("https_proxy", "quic://proxy.test")
        async with open_websocket(WSS):
            pass


# The table...


async def row(name: str, function: Case) -> list[str]:
    """Return what is wrong, what is raised, what that says, and whether to try again."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is what the table shows
        await function()
    error = caught.value
    assert not isinstance(error, (AssertionError, ExceptionGroup, TypeError, ValueError)), error
    said = str(error)
    assert said
    assert "\n" not in said
    again = "yes" if is_transient(error) else "no"
    kind = type(error)
    public = kind.__name__ if kind.__module__ != "socket" else "socket.gaierror"
    return [name, f"`{public}`", f"``{said}``", again]


async def table() -> str:
    lines: list[str] = []
    for heading, cases in CASES.items():
        lines += [heading, "-" * len(heading), ""]
        lines += [".. list-table::", "   :header-rows: 1", "   :widths: 25 15 50 10", ""]
        rows = [["What is wrong", "Raises", "It says", "Again?"]]
        rows += [await row(name, function) for name, function in cases.items()]
        for first, *rest in rows:
            lines += [f"   * - {first}", *(f"     - {each}" for each in rest)]
        lines.append("")
    return "\n".join(lines)


def without_openssls_words(text: str) -> str:
    """Leave out the names of its errors: they change from version to version."""
    return re.sub(r"\([A-Z0-9_]{5,}\)", "()", text)


async def test_the_docs_show_what_a_user_reads(autojump_clock: MockClock) -> None:
    made = await table()
    if os.environ.get("TRIO_WS_WRITE_DOCS"):
        TABLE.write_text(made)
    assert without_openssls_words(TABLE.read_text()) == without_openssls_words(made)


async def test_no_failure_takes_longer_than_a_handshake_may(autojump_clock: MockClock) -> None:
    for cases in CASES.values():
        for name, function in cases.items():
            started = trio.current_time()
            with pytest.raises(Exception):  # noqa: B017, PT011  # any: the table shows which
                await function()
            assert trio.current_time() - started <= Options().handshake_timeout, name
