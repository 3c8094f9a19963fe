"""Where an answer sends a client, and where it does not go."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from trio_ws._errors import ConnectionRejected, HandshakeError
from trio_ws._redirect import MAX_REDIRECTS, follow, location_of, same_server
from trio_ws._url import WebSocketURL, parse_url


def after(*urls: str, location: str) -> WebSocketURL:
    return follow([parse_url(url) for url in urls], location)


# Is it one...


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_statuses_point_elsewhere(status: int) -> None:
    assert location_of(ConnectionRejected(status, {"Location": "/there"})) == "/there"


@pytest.mark.parametrize("status", [200, 201, 300, 304, 305, 306, 401, 503])
def test_no_other_status_does(status: int) -> None:
    assert location_of(ConnectionRejected(status, {"Location": "/there"})) is None


@pytest.mark.parametrize("places", [[], ["/here", "/there"]])
def test_one_place_is_needed(places: list[str]) -> None:
    headers = CIMultiDict(("Location", place) for place in places)
    assert location_of(ConnectionRejected(302, headers)) is None


# Where to...


@pytest.mark.parametrize(
    ("here", "location", "there"),
    [
        ("ws://a.test/x/y?q=1", "/z", "ws://a.test/z"),
        ("ws://a.test/x/y", "z?q=2", "ws://a.test/x/z?q=2"),
        ("ws://a.test/x/y", "?q=2", "ws://a.test/x/y?q=2"),
        ("ws://a.test:8000/", "/z", "ws://a.test:8000/z"),
        ("ws://[::1]:8000/", "/z", "ws://[::1]:8000/z"),
        ("ws://a.test/", "//b.test/z", "ws://b.test/z"),
        ("wss://a.test/", "//b.test/z", "wss://b.test/z"),
        ("ws://a.test/", "http://b.test/z", "ws://b.test/z"),
        ("ws://a.test/", "https://b.test/z", "wss://b.test/z"),
        ("ws://a.test/", "WSS://b.test:444/z", "wss://b.test:444/z"),
        ("ws://a.test/", "ws://b.test", "ws://b.test/"),
        ("ws://a.test/", "/z#part", "ws://a.test/z"),
        ("ws://a.test/", "/caf\xc3\xa9", "ws://a.test/caf%C3%A9"),
        ("ws://a.test/", "/caf\xe9", "ws://a.test/caf%EF%BF%BD"),
        ("ws+unix:///run/s:/a", "/b", "ws+unix:///run/s:/b"),
        ("ws+unix:///run/s:/a", "http://localhost/b", "ws+unix:///run/s:/b"),
    ],
)
def test_a_location_is_resolved_as_browsers_do(here: str, location: str, there: str) -> None:
    assert after(here, location=location) == parse_url(there)


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("ftp://b.test/", "nobody follows a server to ftp://"),
        ("ws+unix:///run/docker.sock:/", r"nobody follows a server to ws\+unix://"),
        ("file:///etc/passwd", "nobody follows a server to file://"),
        ("https://", "has no host"),
        ("http://b.test:port/", "a port is a number"),
        ("http://[b.test/", "no URL of use"),
        ("/a b", "the URL holds ' '"),
        ("http://b.test\\@c.test/", r"the URL holds '\\\\'"),
        ("/%zz", "write %25"),
    ],
)
def test_a_location_of_no_use_is_told(location: str, complaint: str) -> None:
    with pytest.raises(HandshakeError, match=rf"^ws://a\.test/ redirects to .*{complaint}"):
        after("ws://a.test/", location=location)


def test_nobody_is_led_out_of_tls() -> None:
    with pytest.raises(HandshakeError, match=r"wss://a\.test/ redirects to ws://a\.test/x, where"):
        after("wss://a.test/", location="http://a.test/x")


@pytest.mark.parametrize("location", ["http://b.test/", "https://localhost/", "//localhost:81/"])
def test_nobody_is_led_away_from_a_unix_socket(location: str) -> None:
    with pytest.raises(HandshakeError, match=r"from a Unix socket no way leads on"):
        after("ws+unix:///run/s:/a", location=location)


def test_a_circle_is_shown() -> None:
    way = r"in a circle: ws://a\.test/ -> ws://b\.test/ -> ws://a\.test/$"
    with pytest.raises(HandshakeError, match=way):
        after("ws://ann:secret@a.test/", "ws://b.test/", location="ws://a.test/")


def test_a_circle_may_be_small() -> None:
    with pytest.raises(HandshakeError, match="in a circle"):
        after("ws://a.test/", location="")


def test_five_are_followed_and_no_sixth() -> None:
    way = [f"ws://a.test/{number}" for number in range(MAX_REDIRECTS + 1)]
    assert after(*way[:-1], location="/more").target == "/more"
    with pytest.raises(HandshakeError, match=r"more than 5 redirects: .*/4 -> .*/5 -> .*/more$"):
        after(*way, location="/more")


# What is secret...


def test_user_info_stays_on_the_same_server() -> None:
    there = after("ws://ann:secret@a.test/", location="/b")
    assert there.userinfo == ("ann", "secret")


@pytest.mark.parametrize("location", ["//b.test/", "//a.test:81/", "https://a.test:80/"])
def test_user_info_goes_to_no_other(location: str) -> None:
    assert after("ws://ann:secret@a.test/", location=location).userinfo is None


def test_a_location_brings_no_user_info() -> None:
    assert after("ws://a.test/", location="http://eve:x@b.test/").userinfo is None
    assert after("ws://ann:x@a.test/", location="http://eve:x@a.test/b").userinfo == ("ann", "x")


def test_what_is_shown_holds_no_secret() -> None:
    with pytest.raises(HandshakeError) as caught:
        after("wss://ann:secret@a.test/?token=secret", location="http://b.test/?token=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ws://a.test/x", "ws://a.test:80/y?z", True),
        ("ws://a.test/", "wss://a.test:80/", False),
        ("ws://a.test/", "ws://a.test:81/", False),
        ("ws://a.test/", "ws://b.test/", False),
        ("ws://localhost/", "ws+unix:///run/s", False),
        ("ws+unix:///run/s:/a", "ws+unix:///run/s:/b", True),
    ],
)
def test_a_server_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert same_server(parse_url(one), parse_url(other)) is same
