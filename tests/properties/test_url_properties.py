"""URLs of any text: a value that is fit for the wire, or a ValueError."""

from __future__ import annotations

import contextlib
import re

from hypothesis import example, given
from hypothesis import strategies as st

from trio_ws._url import WebSocketURL, parse_url, split_host_port

PIECES = ["ws://", "wss://", "ws+unix://", "u:p@", "h", "ä.de", "[::1]", "%25", "%e4", ":80"]
PIECES += ["/", "?", "#", ":", "@", "%", "[", "]", "\\", " ", "\r\n", "\ud800", "\u3002", ".", "-"]
URLS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(max_size=30).map("ws://h/".__add__),
    st.text(max_size=30).map("ws://".__add__),
    st.text(max_size=30),
)


def is_fit_for_the_wire(url: WebSocketURL) -> bool:
    return bool(
        re.fullmatch(r"/[!-~]*", url.target)
        and re.fullmatch(r"[0-9A-Za-z._:\[\]-]+", url.host_header)
        and (
            url.authorization is None or re.fullmatch(r"Basic [A-Za-z0-9+/=]+", url.authorization)
        )
        and 1 <= url.port <= 65535
        and url.host.isascii()
        and (url.unix_path is None or "\0" not in url.unix_path)
    )


@given(URLS)
@example("ws://u:p@[fe80::1%25eth0]:80/ä?ö")
@example("ws+unix:///run/ä:/ö")
def test_any_text_is_a_url_fit_for_the_wire_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert is_fit_for_the_wire(parse_url(text))


@given(URLS)
@example("ws://[fe80::1%25eth0]:8000/")
@example("wss://BÜCHER.example:444")
def test_the_host_header_names_the_same_host_and_port(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    host, port = split_host_port(url.host_header)
    assert host == url.host.partition("%")[0]
    assert port in (None, url.port)
