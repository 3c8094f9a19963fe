"""What a request line and headers say, decoded."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import attrs
import pytest
from _cost import assert_cheap

from trio_ws._http_request import (
    MAX_COOKIES,
    RequestHead,
    list_header,
    parse_request,
    read_credentials,
)
from trio_ws._http_response import BadRequest


def request(
    *headers: tuple[bytes, bytes],
    target: bytes = b"/",
    method: bytes = b"GET",
    version: bytes = b"1.1",
    host: bytes | None = b"example.org",
) -> RequestHead:
    first = [] if host is None else [(b"host", host)]
    return parse_request(method, target, version, [*first, *headers])


def refusal(*headers: tuple[bytes, bytes], **how: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        request(*headers, **how)
    return caught.value


def test_a_plain_request_is_decoded() -> None:
    head = request((b"x-a", b"1"), (b"x-a", b"2"), target=b"/a%20b/%C3%A4?x=1&x=2&y=%C3%B6+z&e=")
    assert (head.method, head.http_version) == ("GET", "1.1")
    assert head.target == "/a%20b/%C3%A4?x=1&x=2&y=%C3%B6+z&e="
    assert head.path == "/a b/ä"
    assert list(head.query.items()) == [("x", "1"), ("x", "2"), ("y", "ö z"), ("e", "")]
    assert head.headers.getall("X-A") == ["1", "2"]
    assert head.authority == ("example.org", None)
    assert (head.origin, head.subprotocols, head.cookies, head.upgrade) == (None, (), {}, False)


def test_a_request_is_frozen_and_shows_no_secrets() -> None:
    head = request((b"cookie", b"a=secret"), (b"authorization", b"secret"), target=b"/")
    assert "secret" not in repr(head)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        head.path = "/"  # type: ignore[misc]  # that is the test


def test_header_values_keep_every_byte() -> None:
    value = bytes(range(0x80, 0x100))
    assert request((b"x-a", value)).headers["x-a"].encode("latin-1") == value


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"*", "*"),
        (b"//a", "//a"),
        (b"/%2e%2e/%2F", "/..//"),
        (b"/100%", "/100%"),
        (b"/%zz", "/%zz"),
        (b"http://h", "/"),
        (b"HTTPS://h/a?b", "/a"),
        (b"ws://h?b", "/"),
    ],
)
def test_every_form_of_target_has_a_path(target: bytes, path: str) -> None:
    assert request(target=target).path == path


@pytest.mark.parametrize(
    "target", [b"a", b"example.org:80", b"/a#b", b"ftp://h/", b"http:/a", b"http://"]
)
def test_a_target_that_is_no_path_is_answered_400(target: bytes) -> None:
    assert refusal(target=target).status == 400


@pytest.mark.parametrize("target", [b"/%ff", b"/%C3", b"/?%ff", b"/?a=%C3", b"/%00", b"/a%00b"])
def test_escapes_that_decode_to_nothing_are_answered_400(target: bytes) -> None:
    assert refusal(target=target).status == 400


# Where it is for...


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        (b"Example.org:8080", ("example.org", 8080)),
        (b"[::1]:80", ("::1", 80)),
        (b"127.0.0.1", ("127.0.0.1", None)),
        (b"my_service:1", ("my_service", 1)),
    ],
)
def test_the_host_is_read(host: bytes, authority: tuple[str, int | None]) -> None:
    assert request(host=host).authority == authority


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"\xff",
        b"b\xc3\xbccher.de",
        b"a b",
        b"a,b",
        b"a:b",
        b"a:1:2",
        b"[::1",
        b"a:99999",
        b"u@h",
        b"a/b",
        b"a%41",
        b"[fe80::1%25eth0]",
        b"a..b",
        b"http://a",
    ],
)
def test_a_host_that_makes_no_sense_is_answered_400(host: bytes) -> None:
    error = refusal(host=host)
    assert (error.status, error.reason) == (400, "the host is malformed")


def test_a_second_host_is_answered_400() -> None:
    assert refusal((b"host", b"example.org")).status == 400
    assert refusal((b"host", b"example.org"), version=b"1.0").status == 400


def test_a_missing_host_is_answered_400_unless_it_is_http_1_0() -> None:
    assert refusal(host=None).status == 400
    assert refusal(host=None, version=b"1.2").status == 400
    assert refusal(host=None, target=b"http://h/").status == 400
    assert request(host=None, version=b"1.0").authority is None


def test_a_host_in_the_target_overrides_the_header() -> None:
    assert request(target=b"http://other:1/").authority == ("other", 1)
    assert request(target=b"http://other:1/", host=None, version=b"1.0").authority == ("other", 1)
    assert refusal(target=b"http://u@h/").status == 400
    assert refusal(target=b"http://h/", host=b"a b").status == 400


# Which HTTP it is...


@pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.1"])
def test_another_major_version_is_answered_505(version: bytes) -> None:
    assert refusal(version=version).status == 505
    assert refusal(version=version, host=None).status == 505


def test_a_later_minor_version_is_taken_as_1_1() -> None:
    assert request(version=b"1.2").http_version == "1.1"
    assert request(version=b"1.0").http_version == "1.0"


def test_connect_is_answered_405_as_this_is_no_proxy() -> None:
    error = refusal(method=b"CONNECT", target=b"example.org:443")
    assert error.status == 405
    assert error.response.has("allow")


# What it offers...


@pytest.mark.parametrize("value", [b"websocket", b"WebSocket", b"h2c, websocket", b",websocket,,"])
def test_a_websocket_is_asked_for_by_upgrade(value: bytes) -> None:
    assert request((b"upgrade", value)).upgrade
    assert request((b"upgrade", b"h2c"), (b"upgrade", value)).upgrade


@pytest.mark.parametrize("value", [b"", b"h2c", b"websocket/13", b"web-socket"])
def test_other_upgrades_are_ignored(value: bytes) -> None:
    assert not request((b"upgrade", value)).upgrade


def test_upgrade_in_http_1_0_is_ignored() -> None:
    assert not request((b"upgrade", b"websocket"), version=b"1.0").upgrade


def test_subprotocols_keep_their_order_and_case() -> None:
    name = b"sec-websocket-protocol"
    head = request((name, b"b, A ,,"), (name, b"c,b"))
    assert head.subprotocols == ("b", "A", "c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"upgrade", b'"websocket'),
        (b"upgrade", b"websocket \xff"),
        (b"upgrade", b"a b"),
        (b"sec-websocket-protocol", b'"a'),
        (b"sec-websocket-protocol", b"a/b"),
        (b"sec-websocket-protocol", b"a\xff"),
        (b"connection", b"keep-alive\xff"),
        (b"sec-websocket-key", b"\xff"),
        (b"sec-websocket-version", b"13\xff"),
        (b"sec-websocket-extensions", b"permessage-deflate\x80"),
        (b"sec-websocket-anything", b"\xff"),
    ],
)
def test_a_malformed_offer_is_answered_400(name: bytes, value: bytes) -> None:
    error = refusal((name, value))
    assert error.status == 400
    assert "\xff" not in error.reason


def test_a_list_header_is_read_on_demand() -> None:
    head = request((b"connection", b"keep-alive"), (b"connection", b"Upgrade"))
    assert list_header(head.headers, "Connection") == ["keep-alive", "Upgrade"]
    assert list_header(head.headers, "TE") == []
    odd = request((b"connection", b'"keep-alive'))
    with pytest.raises(BadRequest, match="400: the header Connection is malformed"):
        list_header(odd.headers, "Connection")


def test_two_origins_are_told_from_one() -> None:
    assert request((b"origin", b"http://a")).origin == "http://a"
    assert request((b"origin", b"http://a"), (b"origin", b"http://b")).origin == (
        "http://a, http://b"
    )


# Cookies...


@pytest.mark.parametrize(
    ("value", "cookies"),
    [
        (b"a=1; b=2", {"a": "1", "b": "2"}),
        (b"a=1;b=2;", {"a": "1", "b": "2"}),
        (b'a="x y"; b="', {"a": "x y", "b": '"'}),
        (b'a=""', {"a": ""}),
        (b"a=b=c", {"a": "b=c"}),
        (b"a=1; a=2", {"a": "1"}),
        (b" a = 1 ", {"a": "1"}),
        (b"a; =b; ; c=3", {"c": "3"}),
        (b"a=\xff\x01,x", {"a": "\xff\x01,x"}),
        (b"", {}),
    ],
)
def test_a_strange_cookie_does_not_hide_the_others(value: bytes, cookies: dict[str, str]) -> None:
    assert request((b"cookie", value)).cookies == cookies


def test_cookies_may_come_in_several_lines() -> None:
    assert request((b"cookie", b"a=1"), (b"cookie", b"b=2; a=3")).cookies == {"a": "1", "b": "2"}


def test_cookies_are_bounded() -> None:
    many = b"; ".join(b"c%d=1" % index for index in range(MAX_COOKIES + 10))
    cookies = request((b"cookie", many), (b"cookie", b"z=1")).cookies
    assert len(cookies) == MAX_COOKIES
    assert f"c{MAX_COOKIES}" not in cookies
    assert "z" not in cookies


@pytest.mark.parametrize(
    "header",
    [
        (b"sec-websocket-protocol", b"," * 60_000 + b"a"),
        (b"sec-websocket-protocol", b",".join(b"p%d" % index for index in range(10_000))),
        (b"upgrade", b"a," * 30_000),
        (b"upgrade", b'"' * 60_000),
        (b"upgrade", b"a/" * 30_000),
        (b"cookie", b";" * 60_000),
        (b"cookie", b"a=1;" * 15_000),
        (b"host", b"a." * 30_000),
        (b"host", b"a" * 60_000),
        (b"host", b"[" + b":" * 60_000 + b"]"),
        (b"host", b"a:" + b"1" * 60_000),
    ],
    ids=lambda header: f"{header[0].decode()}: {header[1][:4].decode()}",
)
def test_no_header_costs_more_than_a_moment(header: tuple[bytes, bytes]) -> None:
    def ask() -> None:
        with contextlib.suppress(BadRequest):
            request(header, host=None if header[0] == b"host" else b"h")

    assert_cheap(ask, 1)


@pytest.mark.parametrize(
    "target", [b"/?" + b"&" * 60_000, b"/?" + b"a=1&" * 15_000, b"/" * 60_000]
)
def test_no_target_costs_more_than_a_moment(target: bytes) -> None:
    assert_cheap(lambda: request(target=target), 1)


# Credentials...


def credentials(*values: bytes) -> tuple[str, str] | None:
    headers = [(b"host", b"h"), *((b"authorization", value) for value in values)]
    return read_credentials(parse_request(b"GET", b"/", b"1.1", headers))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user:password", ("user", "password")),
        ("user:pass:word", ("user", "pass:word")),
        ("user:", ("user", "")),
        (":", ("", "")),
        ("grüß:ß", ("grüß", "ß")),
    ],
)
def test_user_and_password_can_be_read(text: str, found: tuple[str, str]) -> None:
    token = base64.b64encode(text.encode())
    for scheme in (b"Basic ", b"BASIC ", b"basic   "):
        assert credentials(scheme + token) == found


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Bearer dTpw",
        b"dTpw",
        b"Basic dTpw dTpw",
        b"Basic dTp",
        b"Basic d-pw",
        b"Basic \xff\xff",
        b"Basic " + base64.b64encode(b"no colon"),
        b"Basic " + base64.b64encode(b"\xff:\xff"),
    ],
)
def test_what_are_no_credentials_are_none(value: bytes) -> None:
    assert credentials(value) is None


def test_credentials_come_once() -> None:
    assert credentials() is None
    assert credentials(b"Basic dTpw") == ("u", "p")
    assert credentials(b"Basic dTpw", b"Basic dTpw") is None
