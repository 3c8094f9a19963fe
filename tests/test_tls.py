"""TLS as a client: whom it trusts, under which name, and what it says when it does not."""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme
from _proxies import listening, with_alerts
from trio.testing import MockClock

from trio_ws import HandshakeError, WebSocketRequest, serve_websocket_listeners
from trio_ws._tls import certified_name, check_client_context, default_context, explain, speak_tls
from trio_ws.testing import MemoryNetwork

HOST = "example.test"
URL = f"wss://{HOST}/"


@asynccontextmanager
async def serving(
    network: MemoryNetwork, context: ssl.SSLContext, host: str = HOST
) -> AsyncIterator[list[WebSocketRequest]]:
    requests: list[WebSocketRequest] = []

    async def handler(request: WebSocketRequest) -> None:
        requests.append(request)
        async with request.accept() as ws:
            await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = network.listen(host, 443, ssl_context=context)
        await nursery.start(serve_websocket_listeners, handler, [listener])
        yield requests
        nursery.cancel_scope.cancel()


def server_context(network: MemoryNetwork, name: str = HOST, **certificate: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    network.ca.issue_cert(name, **certificate).configure_cert(context)
    return context


async def refusal(network: MemoryNetwork, url: str = URL, **arguments: Any) -> str:
    """Return what the error says."""
    with pytest.raises(HandshakeError) as caught:
        async with network.open_websocket(url, **arguments):
            await trio.sleep(1)
    return str(caught.value)


# Names...


@pytest.mark.parametrize(
    ("host", "name"),
    [("a.test", "a.test"), ("a.test.", "a.test"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1")],
)
def test_certificates_know_neither_zones_nor_last_dots(host: str, name: str) -> None:
    assert certified_name(host) == name


async def test_the_name_to_ask_for_can_be_another(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    context = server_context(network, "inside.test")
    names: list[str | None] = []
    context.sni_callback = lambda tls, name, context: names.append(name)
    async with serving(network, context) as requests:
        async with network.open_websocket(URL, server_hostname="INSIDE.test."):
            pass
        assert "is not valid for 'example.test'" in await refusal(network)
    assert names == ["inside.test", HOST]
    assert requests[0].headers["Host"] == HOST


async def test_the_name_is_for_one_server_alone(autojump_clock: MockClock) -> None:
    """Behind a redirect to another host it is that host's own."""

    async def move(request: WebSocketRequest) -> None:
        await request.reject(302, headers={"Location": "https://other.test/"})

    network = MemoryNetwork()
    async with (
        serving(network, server_context(network, "other.test"), "other.test") as requests,
        trio.open_nursery() as nursery,
    ):
        listener = network.listen(HOST, 443, ssl_context=server_context(network, "inside.test"))
        await nursery.start(serve_websocket_listeners, move, [listener])
        async with network.open_websocket(URL, server_hostname="inside.test"):
            assert requests[0].headers["Host"] == "other.test"
        nursery.cancel_scope.cancel()


# Contexts...


def test_the_default_context_is_made_once_and_verifies() -> None:
    context = default_context()
    assert default_context() is context
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


async def test_the_default_context_asks_for_http_1_1(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    context = server_context(network)
    context.set_alpn_protocols(["h2", "http/1.1"])
    default_context.cache_clear()
    try:
        network.ca.configure_trust(default_context())
        async with (
            serving(network, context) as requests,
            network.open_websocket(URL, ssl_context=default_context()),
        ):
            assert requests[0].tls is not None
            assert requests[0].tls.selected_alpn_protocol() == "http/1.1"
    finally:
        default_context.cache_clear()  # nobody else shall trust this authority


@pytest.mark.parametrize("context", [True, None, "default", ssl.SSLObject])
def test_a_context_is_a_context(context: object) -> None:
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not "):
        check_client_context("ssl_context", context)


def test_a_context_of_a_server_is_none_of_a_client() -> None:
    with pytest.raises(ValueError, match="this x is not for a client: "):
        check_client_context("x", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    check_client_context("x", ssl.create_default_context())


# Client certificates...


def wants_certificates(network: MemoryNetwork, authority: trustme.CA) -> ssl.SSLContext:
    context = server_context(network)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    return context


def with_certificate(network: MemoryNetwork, authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    network.ca.configure_trust(context)
    authority.issue_cert("ann@example.test").configure_cert(context)
    return context


async def test_a_client_shows_its_certificate(autojump_clock: MockClock) -> None:
    network, authority = MemoryNetwork(), trustme.CA()
    async with serving(network, wants_certificates(network, authority)) as requests:
        context = with_certificate(network, authority)
        async with network.open_websocket(URL, ssl_context=context):
            assert requests[0].tls is not None
            certificate = requests[0].tls.getpeercert()
    assert certificate is not None
    assert certificate["subjectAltName"] == (("email", "ann@example.test"),)


async def alert(network: MemoryNetwork, context: ssl.SSLContext, **arguments: Any) -> str:
    async with listening(network, with_alerts(context), HOST, 443):
        return await refusal(network, **arguments)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_without_a_certificate_is_told_what_is_wanted(
    version: ssl.TLSVersion, autojump_clock: MockClock
) -> None:
    """With TLS 1.3 that comes behind the handshake, where the answer is awaited."""
    network = MemoryNetwork()
    context = wants_certificates(network, trustme.CA())
    context.maximum_version = context.minimum_version = version
    assert "the server wants a certificate of yours" in await alert(network, context)


async def test_a_certificate_that_the_server_does_not_trust_is_told(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    context = wants_certificates(network, trustme.CA())
    ours = with_certificate(network, trustme.CA())
    assert "the server refuses our certificate" in await alert(network, context, ssl_context=ours)


# The server's certificate...

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)


async def test_an_expired_certificate_is_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with serving(network, server_context(network, not_after=NOW - DAY)):
        said = await refusal(network)
    assert said.startswith(f"TLS with {HOST}: the certificate is refused: certificate has expired")
    assert "(the server needs a new one, unless the clock of this machine is wrong)" in said


async def test_a_certificate_of_nobody_known_is_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with serving(network, server_context(network)):
        said = await refusal(network, ssl_context=ssl.create_default_context())
    assert "ssl_context=ssl.create_default_context(cafile=...)" in said


@pytest.mark.parametrize("host", ["other.test", "127.0.0.1"])
async def test_a_certificate_for_another_name_is_told(
    host: str, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with serving(network, server_context(network), host):
        said = await refusal(network, f"wss://{host}/")
    assert f"certificate is not valid for '{host}'" in said
    assert "connect by a name that it is made for, or give that as server_hostname" in said


async def test_no_version_in_common_is_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    context = server_context(network)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ours = ssl.create_default_context()
    ours.minimum_version = ssl.TLSVersion.TLSv1_3
    said = await alert(network, context, ssl_context=ours)
    assert "the other side speaks no version of TLS or no cipher that this side speaks" in said


# What broke, in words...


def broken(cause: BaseException | None, text: str = "") -> trio.BrokenResourceError:
    error = trio.BrokenResourceError(text)
    error.__cause__ = cause
    return error


def tls_error(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL] odd")
    error.reason = reason  # type: ignore[misc,assignment]  # Python declares it read-only
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (broken(None), "the connection was lost"),
        (broken(None, "reset"), "reset"),
        (broken(ConnectionResetError(104, "reset by peer")), "[Errno 104] reset by peer"),
        (broken(tls_error(None)), "[SSL] odd"),
        (broken(tls_error("ODDITY")), "[SSL] odd"),
        (broken(tls_error("WRONG_VERSION_NUMBER")), "no TLS is spoken there: ws://"),
        (broken(tls_error("wrong version number")), "no TLS is spoken there: ws://"),
        (broken(tls_error("TLSV1_UNRECOGNIZED_NAME")), "see server_hostname"),
    ],
)
def test_the_reason_is_told_with_what_to_do(error: trio.BrokenResourceError, said: str) -> None:
    assert said in explain(error)


def test_a_certificate_that_is_refused_for_another_reason_is_told() -> None:
    error = ssl.SSLCertVerificationError(1, "x")
    error.verify_code, error.verify_message = 23, "certificate revoked"
    assert explain(broken(error)) == "the certificate is refused: certificate revoked"


# The stream below...


@pytest.mark.parametrize("end", ["cancelled", "garbage"])
async def test_what_fails_closes_the_stream_below(end: str, autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    if end == "garbage":
        await theirs.send_all(b"garbage instead of TLS")
    with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(1):
        await speak_tls(ours, default_context(), HOST)
        raise AssertionError
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"x")
