"""URLs in, frozen values or precise errors out."""

from __future__ import annotations

import base64
import pickle

import attrs
import pytest

from trio_ws._url import WebSocketURL, parse_url, split_host_port


def test_a_plain_url_is_port_80_without_tls() -> None:
    url = parse_url("ws://example.org/chat?room=1")
    assert url == WebSocketURL(secure=False, host="example.org", port=80, target="/chat?room=1")
    assert url.host_header == "example.org"
    assert url.authorization is None
    assert url.unix_path is None


def test_a_secure_url_is_port_443_with_tls() -> None:
    url = parse_url("WSS://Example.ORG")
    assert (url.secure, url.host, url.port, url.target) == (True, "example.org", 443, "/")
    assert url.host_header == "example.org"


@pytest.mark.parametrize(
    ("text", "port", "host_header"),
    [
        ("ws://h:80/", 80, "h"),
        ("ws://h:/", 80, "h"),
        ("wss://h:443/", 443, "h"),
        ("wss://h:80/", 80, "h:80"),
        ("ws://h:443/", 443, "h:443"),
        ("ws://h:65535", 65535, "h:65535"),
        ("ws://h:1", 1, "h:1"),
    ],
)
def test_only_the_default_port_is_left_out_of_the_host_header(
    text: str, port: int, host_header: str
) -> None:
    url = parse_url(text)
    assert (url.port, url.host_header) == (port, host_header)


@pytest.mark.parametrize(
    ("text", "host", "host_header"),
    [
        ("ws://[::1]:8000/", "::1", "[::1]:8000"),
        ("ws://[2001:DB8:0:0::1]/", "2001:db8::1", "[2001:db8::1]"),
        ("ws://[fe80::1%25eth0]:90/", "fe80::1%eth0", "[fe80::1]:90"),
        ("ws://[fe80::1%eth0]/", "fe80::1%eth0", "[fe80::1]"),
        ("ws://127.0.0.1/", "127.0.0.1", "127.0.0.1"),
        ("ws://chat_server.local./", "chat_server.local.", "chat_server.local."),
    ],
)
def test_addresses_are_canonical_and_zones_stay_at_home(
    text: str, host: str, host_header: str
) -> None:
    url = parse_url(text)
    assert (url.host, url.host_header) == (host, host_header)


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),  # IDNA 2008, not 2003
        ("\uff45xample\u3002org", "example.org"),
    ],
)
def test_names_that_are_not_ascii_are_encoded(name: str, ascii_name: str) -> None:
    assert parse_url(f"ws://{name}/").host == ascii_name


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", "/"),
        ("/", "/"),
        ("?", "/?"),
        ("?a=b", "/?a=b"),
        ("/a?b?c", "/a?b?c"),
        ("//double", "//double"),
        ("/ä?ö=ü", "/%C3%A4?%C3%B6=%C3%BC"),
        ("/%41%2f?%20", "/%41%2f?%20"),
        ('/"<>^`{|}', "/%22%3C%3E%5E%60%7B%7C%7D"),
        ("/~a-b_c.d!$&'()*+,;=:@?x[]=/", "/~a-b_c.d!$&'()*+,;=:@?x[]=/"),
    ],
)
def test_the_target_is_never_empty_and_always_ascii(rest: str, target: str) -> None:
    assert parse_url(f"ws://h{rest}").target == target


def test_user_info_becomes_basic_authentication() -> None:
    url = parse_url("wss://m%C3%BCller:p%40ss%3Aw%2Frd@example.org/")
    assert url.userinfo == ("müller", "p@ss:w/rd")
    assert url.authorization is not None
    scheme, _, encoded = url.authorization.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == "müller:p@ss:w/rd"
    assert url.host_header == "example.org"


def test_a_user_needs_no_password() -> None:
    url = parse_url("ws://token@h/")
    assert url.userinfo == ("token", "")
    assert url.authorization == "Basic " + base64.b64encode(b"token:").decode()


def test_empty_user_info_is_none() -> None:
    assert parse_url("ws://@h/").userinfo is None


def test_no_representation_shows_the_password() -> None:
    url = parse_url("ws://ann:secret@h/")
    assert "secret" not in repr(url)
    assert "'ann'" in repr(url)
    assert "userinfo=None" in repr(parse_url("ws://h/"))


def test_a_url_is_a_frozen_value() -> None:
    url = parse_url("ws://ann:secret@h/")
    assert pickle.loads(pickle.dumps(url)) == url  # noqa: S301  # our own bytes
    assert hash(url) == hash(parse_url("ws://ann:secret@h/"))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        url.port = 1  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize(
    ("text", "unix_path", "target"),
    [
        ("ws+unix:///run/chat.sock", "/run/chat.sock", "/"),
        ("ws+unix:///run/chat.sock:/room?a=b:c", "/run/chat.sock", "/room?a=b:c"),
        ("WS+UNIX:///run/chat.sock:", "/run/chat.sock", "/"),
        ("ws+unix:///run/chat.sock?a=b", "/run/chat.sock", "/?a=b"),
        ("ws+unix:///run/a%20b%3Ac/ä:/ö", "/run/a b:c/ä", "/%C3%B6"),
    ],
)
def test_a_unix_socket_is_named_before_the_colon(text: str, unix_path: str, target: str) -> None:
    url = parse_url(text)
    assert (url.unix_path, url.target) == (unix_path, target)
    assert (url.secure, url.host_header, url.userinfo) == (False, "localhost", None)


@pytest.mark.parametrize("url", [None, b"ws://h", 80])
def test_a_url_is_a_str(url: object) -> None:
    with pytest.raises(TypeError, match="a URL is a str, not"):
        parse_url(url)  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("http://h/", "use ws:// or wss:// instead of http://"),
        ("HTTPS://h/", "use ws:// or wss:// instead of https://"),
        ("", "starts with ws://"),
        ("example.org/chat", "starts with ws://"),
        ("ws:h", "starts with ws://"),
        ("ftp://h/", "starts with ws://"),
        ("wss+unix:///s", "starts with ws://"),
        ("ws://", "has no host"),
        ("ws:///path", "has no host"),
        ("ws://?a", "has no host"),
        ("ws://:80/", "has no host"),
        ("ws://user@/", "has no host"),
        ("ws://user@:80/", "has no host"),
        ("ws://h/#top", "no fragment"),
        ("ws://h#", "no fragment"),
        ("ws://h/a b", r"holds ' ' at position 8"),
        (" ws://h/", "holds ' ' at position 0"),
        ("ws://h/\r\nX: y", r"holds '\\r'"),
        ("ws://h/\0", r"holds '\\x00'"),
        ("ws://h/\x7f", r"holds '\\x7f'"),
        ("ws://h/\u2028", r"holds '\\u2028'"),
        ("ws://h/\ud800", r"holds '\\ud800'"),
        ("ws://good\\@evil/", "holds .* at position 9"),
        ("ws://h:0/", "port is a number from 1"),
        ("ws://h:65536/", "port is a number from 1"),
        ("ws://h:-1/", "port is a number from 1"),
        ("ws://h:8o/", "port is a number from 1"),
        ("ws://h:\u0661/", "port is a number from 1"),
        ("ws://h:" + "1" * 5000, "port is a number from 1"),
        ("ws://h:1:2/", "one colon too many"),
        ("ws://::1/", "one colon too many|has no host"),
        ("ws://2001:db8::1/", "one colon too many"),
        ("ws://[::1/", "one pair of brackets"),
        ("ws://[::1]x/", "one pair of brackets"),
        ("ws://[::g]/", "no IPv6 address"),
        ("ws://[127.0.0.1]/", "no IPv6 address"),
        ("ws://[fe80::1%25]/", "a zone is the name of an interface"),
        ("ws://[fe80::1%25a%20b]/", "a zone is the name of an interface"),
        ("ws://a..b/", "no valid host name"),
        ("ws://.a/", "no valid host name"),
        ("ws://a%41/", "no valid host name"),
        ("ws://a,b/", "no valid host name"),
        ("ws://" + "a" * 64 + "/", "no valid host name"),
        ("ws://" + "a." * 130 + "/", "no valid host name"),
        ("ws://\u2100.example/", "no valid host name"),  # it reads "a/c" once mapped
        ("ws://ä_b/", "no valid host name"),
        ("ws://" + "ä" * 254 + "/", "longer than the 253"),
        ("ws://h/100%", "write %25"),
        ("ws://h/?%zz", "write %25"),
        ("ws://u:100%@h/", "write %25"),
        ("ws://u:%ff@h/", "not UTF-8"),
        ("ws://a:b@c@h/", "as %40"),
        ("ws://a%3Ab:c@h/", "user name with a colon"),
        ("ws://a:%0d%0a@h/", "control characters"),
        ("ws+unix://host/run/x", "three slashes"),
        ("ws+unix://", "three slashes"),
        ("ws+unix:///run/x:y", "is %3A"),
        ("ws+unix:///run/%", "write %25"),
        ("ws+unix:///run/x:/%", "write %25"),
        ("ws+unix:///run/%00", "holds a NUL"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        parse_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://u:s3cret@h/",
        "ws://u:s3cret@h:x/",
        "ws://u:s3cret@h/#",
        "ws://u:s3/cret@h/",
        "ws://u:s3cret@@h/",
        "ws://u:s3cret%@h/",
        "ws://u:s3cret@ /",
        "ws://u:s3cret@-,/",
        "u:s3cret@h",
    ],
)
def test_no_error_repeats_the_password(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_url(text)
    assert "s3" not in str(caught.value)


def test_a_host_and_port_can_be_read_alone() -> None:
    assert split_host_port("Example.org") == ("example.org", None)
    assert split_host_port("example.org:8080") == ("example.org", 8080)
    assert split_host_port("[::1]") == ("::1", None)
    assert split_host_port("[::1]:1") == ("::1", 1)


@pytest.mark.parametrize(
    ("text", "authority", "shown"),
    [
        ("ws://a.test", "a.test:80", "ws://a.test/"),
        ("wss://ann:secret@a.test/x?token=secret", "a.test:443", "wss://a.test/x"),
        ("wss://[fe80::1%25eth0]:444/", "[fe80::1]:444", "wss://[fe80::1]:444/"),
        ("ws+unix:///run/s:/x?secret", "localhost:80", "ws+unix:///run/s:/x"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(text: str, authority: str, shown: str) -> None:
    url = parse_url(text)
    assert (url.authority, str(url)) == (authority, shown)
