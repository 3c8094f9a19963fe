"""Which requests may become a WebSocket: every refusal has its status."""

from __future__ import annotations

import re

import pytest

from trio_ws._http_request import RequestHead, parse_request
from trio_ws._http_response import BadRequest
from trio_ws._options import ANY_ORIGIN, SAME_ORIGIN, AllowedOrigins
from trio_ws._upgrade import check_upgrade, origin_allowed

HANDSHAKE = {
    b"host": b"example.org",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-version": b"13",
    b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
}


def handshake(
    *more: tuple[bytes, bytes],
    without: bytes = b"",
    method: bytes = b"GET",
    version: bytes = b"1.1",
    **changes: bytes,
) -> RequestHead:
    fields = HANDSHAKE | {
        name.replace("_", "-").encode(): value for name, value in changes.items()
    }
    fields.pop(without, None)
    return parse_request(method, b"/", version, [*fields.items(), *more])


def refused(request: RequestHead) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        check_upgrade(request)
    return caught.value


def test_the_handshake_of_the_rfc_passes() -> None:
    check_upgrade(handshake())


@pytest.mark.parametrize(
    "connection",
    [b"upgrade", b"UPGRADE", b"keep-alive, Upgrade", b"keep-alive,,Upgrade,", b",\tUpgrade ,"],
)
def test_connection_is_a_list_in_any_case(connection: bytes) -> None:
    check_upgrade(handshake(connection=connection))


def test_lists_may_be_spread_over_lines() -> None:
    check_upgrade(handshake((b"connection", b"upgrade"), connection=b"keep-alive"))
    check_upgrade(handshake((b"upgrade", b"websocket"), upgrade=b"h2c"))


def test_an_empty_body_is_none() -> None:
    check_upgrade(handshake((b"content-length", b"0")))


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS", b"get", b"DELETE"])
def test_another_method_is_answered_405(method: bytes) -> None:
    error = refused(handshake(method=method))
    assert error.status == 405
    assert ("Allow", "GET") in error.response.headers


@pytest.mark.parametrize(
    "request_head",
    [
        handshake(without=b"upgrade"),
        handshake(upgrade=b"h2c"),
        handshake(version=b"1.0"),
        handshake(without=b"sec-websocket-version"),
        handshake(sec_websocket_version=b"8"),
        handshake(sec_websocket_version=b"013"),
        handshake(sec_websocket_version=b"13, 8"),
        handshake(sec_websocket_version=b""),
    ],
    ids=["no Upgrade", "h2c", "HTTP/1.0", "no version", "8", "013", "13, 8", "empty version"],
)
def test_what_is_no_upgrade_to_version_13_is_answered_426(request_head: RequestHead) -> None:
    error = refused(request_head)
    assert error.status == 426
    assert ("Sec-WebSocket-Version", "13") in error.response.headers
    assert ("Upgrade", "websocket") in error.response.headers


@pytest.mark.parametrize(
    "request_head",
    [
        handshake(without=b"connection"),
        handshake(connection=b"keep-alive"),
        handshake(connection=b'"Upgrade'),
        handshake((b"sec-websocket-version", b"13")),
        handshake((b"content-length", b"5")),
        handshake((b"transfer-encoding", b"chunked")),
        handshake(without=b"sec-websocket-key"),
        handshake((b"sec-websocket-key", HANDSHAKE[b"sec-websocket-key"])),
        handshake(sec_websocket_key=b""),
        handshake(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZQ"),
        handshake(sec_websocket_key=b"dGhlIHNhbXBsZSBub25jZQ=="[4:]),
        handshake(sec_websocket_key=b"dGhl" + b"dGhlIHNhbXBsZSBub25jZQ=="),
        handshake(sec_websocket_key=b"dGhlIHNhbXBs-SBub25jZQ=="),
        handshake(sec_websocket_key=b"dGhlIHNhbXBs ZSBub25jZQ=="),
    ],
    ids=[
        "no Connection",
        "keep-alive",
        "unclosed quote",
        "two versions",
        "body",
        "chunked",
        "no key",
        "two keys",
        "empty key",
        "no padding",
        "13 bytes",
        "19 bytes",
        "url-safe base64",
        "blank in the key",
    ],
)
def test_a_handshake_that_breaks_the_rfc_is_answered_400(request_head: RequestHead) -> None:
    assert refused(request_head).status == 400


# Origins...


def allowed(
    origin: str | None,
    policy: AllowedOrigins = SAME_ORIGIN,
    *,
    host: str = "example.org",
    secure: bool = False,
) -> bool:
    more = () if origin is None else ((b"origin", origin.encode("latin-1")),)
    return origin_allowed(handshake(*more, host=host.encode()), policy, secure)


def test_who_is_no_browser_passes() -> None:
    assert allowed(None)
    assert allowed(None, ())
    assert allowed(None, ("https://other.example",))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.org", "example.org"),
        ("https://example.org", "example.org"),  # TLS ends at a proxy
        ("https://example.org", "EXAMPLE.org:443"),
        ("HTTPS://EXAMPLE.ORG:443", "example.org"),
        ("http://example.org:80", "example.org"),
        ("http://example.org:8000", "example.org:8000"),
        ("http://[::1]:8000", "[0:0::1]:8000"),
    ],
)
def test_the_same_origin_passes(origin: str, host: str) -> None:
    assert allowed(origin, host=host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "example.org"),
        ("http://example.org.evil.example", "example.org"),
        ("http://sub.example.org", "example.org"),
        ("http://example.org:8000", "example.org"),
        ("http://example.org", "example.org:8000"),
        ("https://example.org", "example.org:80"),
        ("null", "example.org"),
        ("", "example.org"),
        ("example.org", "example.org"),
        ("http://", "example.org"),
        ("http://example.org/", "example.org"),
        ("http://example.org#", "example.org"),
        ("http://u@example.org", "example.org"),
        ("http://example.org http://example.org", "example.org"),
        ("chrome-extension://example.org", "example.org"),
        ("file://", "example.org"),
        ("http://b\xfccher.example", "xn--bcher-kva.example"),
    ],
)
def test_another_origin_does_not(origin: str, host: str) -> None:
    assert not allowed(origin, host=host)


def test_over_tls_a_page_that_came_in_the_clear_is_another_origin() -> None:
    assert allowed("https://example.org", secure=True)
    assert not allowed("http://example.org", secure=True)
    assert not allowed("http://example.org:443", secure=True, host="example.org:443")


def test_without_a_host_no_origin_is_the_same() -> None:
    request = parse_request(b"GET", b"/", b"1.0", [(b"origin", b"http://example.org")])
    assert not origin_allowed(request, SAME_ORIGIN, secure=False)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "\xff", "file://"])
def test_any_origin_is_any(origin: str) -> None:
    assert allowed(origin, ANY_ORIGIN)


def test_listed_origins_pass_whatever_their_case_or_default_port() -> None:
    listed = ("https://Example.com", "http://a.example:8000", "null", "app://local")
    assert allowed("https://example.com", listed)
    assert allowed("HTTPS://example.com:443", listed)
    assert allowed("http://a.example:8000", listed)
    assert allowed("null", listed)
    assert allowed("app://local", listed)
    assert allowed("https://xn--bcher-kva.example", ("https://bücher.example",))

    assert not allowed("http://example.com", listed)
    assert not allowed("https://example.com:8443", listed)
    assert not allowed("http://a.example", listed)
    assert not allowed("http://example.org", listed)  # a list replaces the default policy
    assert not allowed("null", listed[:2])
    assert not allowed("http://h", ("http://no host",))


def test_a_pattern_matches_the_whole_origin() -> None:
    patterns = (re.compile(r"https://[a-z]+\.example\.org"), "http://a.example")
    assert allowed("https://sub.example.org", patterns)
    assert allowed("http://a.example", patterns)
    assert not allowed("https://sub.example.org.evil.example", patterns)
    assert not allowed("xhttps://sub.example.org", patterns)


@pytest.mark.parametrize("policy", [SAME_ORIGIN, (re.compile(".*"),), ("http://example.org",)])
def test_two_origins_are_refused_even_if_both_are_allowed(policy: AllowedOrigins) -> None:
    both = ((b"origin", b"http://example.org"), (b"origin", b"http://example.org"))
    assert not origin_allowed(handshake(*both), policy, secure=False)
    assert origin_allowed(handshake(*both), ANY_ORIGIN, secure=False)
