"""Who is asking, behind proxies: believed from the end of the list, and no further than known."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import Any

import pytest
from _cost import assert_cheap
from hypothesis import given
from hypothesis import strategies as st

from trio_ws import Options
from trio_ws._forwarded import Client, find_client, is_trusted
from trio_ws._http_request import RequestHead, parse_request
from trio_ws._http_response import BadRequest

PROXY = ("127.0.0.1", 5000)
OPTIONS = Options(trusted_proxies=["127.0.0.1", "10.0.0.0/8", "::1", "unix"])
STANDARD = OPTIONS.replace(forwarded_header="Forwarded")


def head(*lines: str) -> RequestHead:
    fields = [line.split(": ", 1) for line in ("Host: here:8000", *lines)]
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return parse_request(b"GET", b"/", b"1.1", headers)


def ask(*lines: str, options: Options = OPTIONS, peer: Any = PROXY) -> Client:
    return find_client(head(*lines), peer, options)


# Who is trusted...


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        (("127.0.0.1", 1), True),
        (("10.9.8.7", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:10.9.8.7", 1, 0, 0), True),  # a socket for both families shows IPv4 so
        (("127.0.0.2", 1), False),
        (("11.0.0.1", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        ("", True),  # the client's end of a Unix socket has no name
        (b"/run/other.sock", True),
        ("/run/client.sock", True),
        (None, False),
        (("a name", 1), False),
    ],
)
def test_a_peer_is_trusted_by_its_address(address: Any, *, trusted: bool) -> None:
    assert is_trusted(address, OPTIONS) is trusted
    assert not is_trusted(address, Options())


def test_a_unix_socket_is_not_trusted_by_networks() -> None:
    assert not is_trusted("", Options(trusted_proxies=["0.0.0.0/0", "::/0"]))


# X-Forwarded-...


def test_a_proxy_that_says_nothing_is_the_client() -> None:
    assert ask() == ask(options=STANDARD) == Client(PROXY, None, ("here", 8000))


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["203.0.113.7"], ("203.0.113.7", 0)),
        (["203.0.113.7:4711"], ("203.0.113.7", 4711)),
        (["2001:db8::7"], ("2001:db8::7", 0)),
        (["[2001:db8::7]"], ("2001:db8::7", 0)),
        (["[2001:db8::7]:4711"], ("2001:db8::7", 4711)),
        (["::ffff:203.0.113.7"], ("203.0.113.7", 0)),
        ([" 203.0.113.7 "], ("203.0.113.7", 0)),
        (["1.2.3.4, 203.0.113.7"], ("203.0.113.7", 0)),  # the client has made one up
        (["1.2.3.4", "203.0.113.7"], ("203.0.113.7", 0)),
        (["1.2.3.4, 203.0.113.7, 10.0.0.1, 10.0.0.2"], ("203.0.113.7", 0)),
        (["10.0.0.3, 10.0.0.1"], ("10.0.0.3", 0)),  # all are trusted: the first one asks
        (["203.0.113.7, unknown, 10.0.0.1"], ("10.0.0.1", 0)),
        (["unknown"], PROXY),
        (["_hidden:7"], PROXY),
        (["nonsense"], PROXY),
        (["203.0.113.7:x"], PROXY),
        (["203.0.113.7:123456"], PROXY),
        (["[203.0.113.7"], PROXY),
        (["::1]:7"], PROXY),
        (["[]"], PROXY),
        ([",, ,"], PROXY),
        ([""], PROXY),
    ],
)
def test_the_last_stranger_is_the_client(lines: list[str], address: object) -> None:
    assert ask(*(f"X-Forwarded-For: {line}" for line in lines)).address == address


def test_the_client_of_a_unix_socket_is_whom_the_proxy_names() -> None:
    assert ask("X-Forwarded-For: 203.0.113.7", peer="").address == ("203.0.113.7", 0)
    assert ask(peer="").address == ""


@pytest.mark.parametrize(
    ("proto", "secure"),
    [
        ("https", True),
        ("wss", True),
        ("HTTPS", True),
        ("http", False),
        ("ws", False),
        ("nonsense", False),
        ("", None),
        ("http, https", True),  # the last one is the proxy's own
        ("https, http", False),
    ],
)
def test_the_proxy_tells_whether_the_client_speaks_tls(proto: str, *, secure: bool) -> None:
    assert ask(f"X-Forwarded-Proto: {proto}").secure is secure
    said = ask("X-Forwarded-For: 203.0.113.7", f"X-Forwarded-Proto: {proto}")
    assert said.secure is secure


def test_of_proxies_that_append_the_first_trusted_one_is_asked() -> None:
    client = ask(
        "X-Forwarded-For: 1.2.3.4, 203.0.113.7, 10.0.0.1",
        "X-Forwarded-Proto: http, https, http",
        "X-Forwarded-Host: made.up, example.org, inner:81",
    )
    assert client == Client(("203.0.113.7", 0), True, ("example.org", None))


def test_of_proxies_that_overwrite_the_last_one_is_believed() -> None:
    client = ask(
        "X-Forwarded-For: 203.0.113.7, 10.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: example.org:8443",
    )
    assert client == Client(("203.0.113.7", 0), True, ("example.org", 8443))


@pytest.mark.parametrize("host", ["a b", "[::1", "x:y", "grüß", "a@b"])
def test_a_host_that_is_none_is_400(host: str) -> None:
    for line, options in (
        (f"X-Forwarded-Host: {host}", OPTIONS),
        (f'Forwarded: host="{host}"', STANDARD),
    ):
        with pytest.raises(BadRequest, match="the host is malformed"):
            ask(line, options=options)


def test_what_stands_before_the_last_stranger_is_not_even_read() -> None:
    client = ask(
        "X-Forwarded-For: 1.2.3.4, 203.0.113.7", "X-Forwarded-Host: not a host, example.org"
    )
    assert client.authority == ("example.org", None)


# Forwarded...


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.7"], Client(("203.0.113.7", 0), None, ("here", 8000))),
        (
            ["For=203.0.113.7;PROTO=https;host=example.org"],
            Client(("203.0.113.7", 0), True, ("example.org", None)),
        ),
        (
            ['for="[2001:db8::7]:4711"; by=_x; proto=http'],
            Client(("2001:db8::7", 4711), False, ("here", 8000)),
        ),
        (
            ["for=1.2.3.4;host=made.up, for=203.0.113.7;host=example.org", "for=10.0.0.1"],
            Client(("203.0.113.7", 0), None, ("example.org", None)),
        ),
        (['for="\\203.0.113.7"'], Client(("203.0.113.7", 0), None, ("here", 8000))),
        ([", for=203.0.113.7;;, ,"], Client(("203.0.113.7", 0), None, ("here", 8000))),
        (["proto=https"], Client(PROXY, True, ("here", 8000))),
        (['for="a;b, for=1.2.3.4", for=unknown'], Client(PROXY, None, ("here", 8000))),
        ([""], Client(PROXY, None, ("here", 8000))),
    ],
)
def test_the_standard_header_says_it_all(lines: list[str], client: Client) -> None:
    assert ask(*(f"Forwarded: {line}" for line in lines), options=STANDARD) == client


@pytest.mark.parametrize(
    "text",
    [
        'for="203.0.113.7',
        "for=203.0.113.7 proto=https",
        "for",
        "for=",
        "=x",
        "for=[::1]",  # has to be quoted
        'for=x, for="',
        "for=203.0.113.7\\",
    ],
)
def test_a_standard_header_that_is_malformed_is_400(text: str) -> None:
    with pytest.raises(BadRequest, match="the header Forwarded is malformed"):
        ask(f"Forwarded: {text}", options=STANDARD)


def test_only_the_header_that_was_chosen_is_looked_at() -> None:
    """A proxy that knows one of them passes on the other, as the client wrote it."""
    lines = ("X-Forwarded-For: 203.0.113.7", "Forwarded: for=198.51.100.9")
    assert ask(*lines).address == ("203.0.113.7", 0)
    assert ask(*lines, options=STANDARD).address == ("198.51.100.9", 0)


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60))
def test_no_text_leads_to_anything_else(text: str) -> None:
    for line, options in (
        (f"X-Forwarded-For: {text}", OPTIONS),
        (f"X-Forwarded-Host: {text}", OPTIONS),
        (f"Forwarded: {text}", STANDARD),
        (f"Forwarded: for={text}", STANDARD),
        (f'Forwarded: for="{text}"', STANDARD),
    ):
        try:
            client = ask(line, options=options)
        except BadRequest:  # as text that is none of this may be answered
            pass
        else:
            assert client.address == PROXY or ip_address(client.address[0])


@pytest.mark.parametrize(
    "text",
    [
        *("," * 16_000, '"' * 16_000, '"\\' * 8_000, " " * 16_000, "a=" * 8_000, "1," * 8_000),
        *(f"a=b;{' ' * 16_000}@", f"a=b{' ' * 16_000}@", f"a=b,{' a=b' * 4_000}"),
    ],
)
def test_no_list_takes_long(text: str) -> None:
    def ask_all() -> None:
        for line, options in (
            (f"X-Forwarded-For: {text}", OPTIONS),
            (f"Forwarded: {text}", STANDARD),
            (f'Forwarded: for="{text}', STANDARD),
            (f"Forwarded: {'for=10.0.0.1,' * 1000}", STANDARD),
        ):
            with contextlib.suppress(BadRequest):
                ask(line, options=options)

    assert_cheap(ask_all, 0.5)
