"""Which proxy leads to a server: by its URL, or by the environment as curl reads it."""

from __future__ import annotations

import pytest

from trio_ws._proxy import Proxy, parse_proxy, proxy_from_environment
from trio_ws._url import parse_url

# By its URL...


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.test:3128", Proxy("http", "proxy.test", 3128)),
        ("HTTP://PROXY.test:3128/", Proxy("http", "proxy.test", 3128)),
        ("http://proxy.test", Proxy("http", "proxy.test", 1080)),
        ("https://proxy.test", Proxy("https", "proxy.test", 443)),
        ("socks5://[::1]:9050", Proxy("socks5", "::1", 9050)),
        ("socks5h://127.0.0.1", Proxy("socks5h", "127.0.0.1", 1080)),
        ("socks4a://ann@proxy.test", Proxy("socks4a", "proxy.test", 1080, ("ann", ""))),
        ("http://ann:s%3Acret@proxy.test:1", Proxy("http", "proxy.test", 1, ("ann", "s:cret"))),
        ("socks5://a:b@proxy.test?x#y", Proxy("socks5", "proxy.test", 1080, ("a", "b"))),
    ],
)
def test_a_proxy_is_named_by_a_url(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("proxy.test:3128", r"starts with http://, https://, socks4://, .* or socks5h://"),
        ("ftp://proxy.test", "starts with http://"),
        ("http://", "has no host"),
        ("http://:3128", "has no host"),
        ("http://proxy.test:port", "a port is a number"),
        ("http://proxy.test:0", "a port is a number"),
        ("http://a b:1", "the URL holds ' ' at position 8"),
        ("http://proxy.test\r\nHost: x", "the URL holds"),
        ("http://a:b@c:d@proxy.test", "more than one '@'"),
        ("socks4://ann:secret@proxy.test", "SOCKS4 knows a user, but no password"),
        ("socks5://ann@proxy.test", "user and password, each of 1 to 255"),
        (f"socks5://ann:{256 * 'x'}@proxy.test", "user and password, each of 1 to 255"),
        ("socks5://ann:s%C3%A9cret@proxy.test", "are ASCII"),
        ("socks4a://%C3%A9@proxy.test", "are ASCII"),
    ],
)
def test_what_names_no_proxy_is_told_without_its_password(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_proxy(text)
    assert "cret" not in str(caught.value)


def test_a_proxy_is_a_str() -> None:
    with pytest.raises(TypeError, match="'environment' or None, not bytes"):
        parse_proxy(b"http://proxy.test")  # type: ignore[arg-type]  # as wrong as can be


def test_neither_repr_nor_str_show_the_password() -> None:
    proxy = parse_proxy("https://ann:secret@[2001:db8::1]:3128")
    assert str(proxy) == "https://ann:***@[2001:db8::1]:3128"
    assert "secret" not in repr(proxy)
    assert proxy.authorization == "Basic YW5uOnNlY3JldA=="
    assert parse_proxy("http://proxy.test").authorization is None


@pytest.mark.parametrize(
    ("scheme", "secure", "socks", "resolves"),
    [
        ("http", False, False, True),
        ("https", True, False, True),
        ("socks4", False, True, False),
        ("socks4a", False, True, True),
        ("socks5", False, True, False),
        ("socks5h", False, True, True),
    ],
)
def test_the_scheme_tells_how_to_speak_and_who_looks_names_up(
    scheme: str, secure: bool, socks: bool, resolves: bool
) -> None:
    proxy = parse_proxy(f"{scheme}://proxy.test")
    assert (proxy.secure, proxy.socks, proxy.resolves) == (secure, socks, resolves)


# By the environment...

WS, WSS = "ws://example.test/", "wss://example.test/"


def chosen(url: str, **environ: str) -> str | None:
    proxy = proxy_from_environment(parse_url(url), environ)
    return None if proxy is None else str(proxy)


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        (WS, {}, None),
        (WS, {"http_proxy": "http://a:1"}, "http://a:1"),
        (WS, {"HTTP_PROXY": "http://a:1"}, None),  # a CGI script would believe its visitor
        (WS, {"https_proxy": "http://a:1"}, None),
        (WS, {"ws_proxy": "http://a:1", "http_proxy": "http://b:1"}, "http://a:1"),
        (WS, {"WS_PROXY": "http://a:1", "http_proxy": "http://b:1"}, "http://a:1"),
        (WS, {"http_proxy": "http://a:1", "all_proxy": "http://b:1"}, "http://a:1"),
        (WS, {"all_proxy": "http://a:1", "ALL_PROXY": "http://b:1"}, "http://a:1"),
        (WS, {"ALL_PROXY": "socks5h://a:1"}, "socks5h://a:1"),
        (WSS, {"http_proxy": "http://a:1"}, None),
        (WSS, {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "http://a:1"),
        (WSS, {"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        (WSS, {"wss_proxy": "http://a:1", "https_proxy": "http://b:1"}, "http://a:1"),
        (WSS, {"WSS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, "http://a:1"),
        (WSS, {"https_proxy": "", "all_proxy": "http://a:1"}, "http://a:1"),
        (WS, {"http_proxy": "proxy.test:3128"}, "http://proxy.test:3128"),
        (WS, {"http_proxy": "ann:secret@proxy.test"}, "http://ann:***@proxy.test:1080"),
        ("ws+unix:///run/s", {"all_proxy": "http://a:1"}, None),
    ],
)
def test_the_environment_is_read_as_curl_reads_it(
    url: str, environ: dict[str, str], proxy: str | None
) -> None:
    assert chosen(url, **environ) == proxy


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("example.test", "*"),
        ("example.test", " * "),
        ("example.test", "example.test"),
        ("example.test", "other.test, EXAMPLE.test"),
        ("example.test", "other.test example.test"),
        ("example.test.", "example.test"),
        ("example.test", "example.test."),
        ("www.example.test", "example.test"),
        ("www.example.test", ".example.test"),
        ("example.test", ".example.test"),
        ("localhost", "localhost,127.0.0.1"),
        ("127.0.0.1", "localhost,127.0.0.1"),
        ("192.168.7.7", "192.168.0.0/16"),
        ("192.168.7.7", "192.168.7.99/24"),
        ("[2001:db8::1]", "2001:db8::/32"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[fe80::1%25eth0]", "fe80::/10"),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(host: str, no_proxy: str) -> None:
    assert chosen(f"ws://{host}/", http_proxy="http://a:1", no_proxy=no_proxy) is None
    assert chosen(f"ws://{host}/", http_proxy="http://a:1", NO_PROXY=no_proxy) is None


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("example.test", ""),
        ("example.test", " , "),
        ("example.test", "."),
        ("nonexample.test", "example.test"),
        ("example.test", "www.example.test"),
        ("example.test", "other.test,*"),  # only alone is it every host
        ("example.test", "192.168.0.0/16"),
        ("192.168.7.7", "192.168.8.0/24"),
        ("192.168.7.7", "2001:db8::/32"),
        ("192.168.7.7", "168.7.7"),
        ("192.168.7.7", "192.168.7.7/99"),
        ("[2001:db8::1]", "10.0.0.0/8"),
    ],
)
def test_no_proxy_names_no_more_than_it_says(host: str, no_proxy: str) -> None:
    assert chosen(f"ws://{host}/", http_proxy="http://a:1", no_proxy=no_proxy) == "http://a:1"


def test_no_proxy_in_small_letters_comes_first() -> None:
    assert chosen(WS, http_proxy="http://a:1", no_proxy="x", NO_PROXY="*") == "http://a:1"


def test_a_variable_of_no_use_is_named() -> None:
    complaint = r"the environment variable HTTPS_PROXY is of no use: the URL of a proxy starts"
    with pytest.raises(ValueError, match=complaint):
        chosen(WSS, HTTPS_PROXY="gopher://proxy.test")
