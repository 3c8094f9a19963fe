"""The tree of exceptions: what each one also is, says and carries."""

from __future__ import annotations

import pickle

import pytest
import trio
from multidict import CIMultiDict, CIMultiDictProxy

from trio_ws._errors import (
    BrokerDown,
    BrokerOverflow,
    ConnectionClosed,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    HandshakeError,
    HandshakeTimeout,
    JoinRefused,
    ProtocolViolation,
    ProxyRejected,
    WebSocketError,
    find_refusal,
)
from trio_ws._messages import CloseInfo

INFO = CloseInfo(4000, "why", "remote", clean=True)


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (WebSocketError, [Exception]),
        (HandshakeError, [WebSocketError]),
        (ConnectionRejected, [HandshakeError]),
        (ProxyRejected, [ConnectionRejected]),
        (HandshakeTimeout, [HandshakeError, trio.TooSlowError]),
        (ConnectionClosed, [WebSocketError]),
        (ConnectionEnded, [ConnectionClosed, trio.EndOfChannel]),
        (ConnectionLost, [ConnectionClosed, trio.BrokenResourceError]),
        (ProtocolViolation, [WebSocketError]),
        (JoinRefused, [WebSocketError]),
    ],
)
def test_the_tree(kind: type[Exception], bases: list[type[Exception]]) -> None:
    assert list(kind.__bases__) == bases


@pytest.mark.parametrize("kind", [ConnectionEnded, ConnectionLost])
def test_a_closed_connection_tells_how(kind: type[ConnectionClosed]) -> None:
    error = kind(INFO)
    assert (error.info, error.code, error.reason) == (INFO, 4000, "why")
    assert str(error) == "closed by the peer (4000 'why')"


def test_a_rejection_tells_status_and_the_beginning_of_the_body() -> None:
    headers = CIMultiDictProxy(CIMultiDict({"Retry-After": "5"}))
    error = ConnectionRejected(503, headers, b"too\xffmany\n" + b"x" * 500)
    assert (error.status, error.headers["retry-after"]) == (503, "5")
    assert len(error.body) == 509
    assert str(error) == "the server answered 503: 'too\ufffdmany\\n" + "x" * 191 + "'"


def test_a_rejection_without_a_body() -> None:
    error = ConnectionRejected(403, CIMultiDictProxy(CIMultiDict()))
    assert error.body == b""
    assert str(error) == "the server answered 403"


def test_a_rejection_survives_pickling() -> None:
    headers = CIMultiDict([("Set-Cookie", "a"), ("set-cookie", "b")])
    error = ConnectionRejected(503, CIMultiDictProxy(headers), b"busy")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert (again.status, again.body) == (503, b"busy")
    assert isinstance(again.headers, CIMultiDictProxy)
    assert again.headers.getall("SET-COOKIE") == ["a", "b"]
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (200, "a page like any other"),
        (401, "wss://user:password@host, or a header Authorization"),
        (404, "there is nothing at this path"),
    ],
)
def test_the_most_common_rejections_tell_what_to_do(status: int, hint: str) -> None:
    said = str(ConnectionRejected(status, {}))
    assert said.startswith(f"the server answered {status} (")
    assert hint in said


def test_what_the_server_says_itself_counts_more() -> None:
    assert str(ConnectionRejected(401, {}, b"which key?")) == (
        "the server answered 401: 'which key?'"
    )
    assert "is the path that of a WebSocket?" in str(ConnectionRejected(200, {}, b"<html>"))


PROXY = "http://proxy.test:3128"


def test_a_proxy_that_rejects_is_named() -> None:
    error = ProxyRejected(PROXY, 502, {"Via": "x"}, b"no way")
    assert (error.proxy, error.status, error.headers["via"], error.body) == (
        *(PROXY, 502, "x"),
        b"no way",
    )
    assert str(error) == f"the proxy {PROXY} answered 502: 'no way'"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(again) is ProxyRejected
    assert (again.proxy, again.status, again.body) == (PROXY, 502, b"no way")
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("proxy", "offers", "hint"),
    [
        (PROXY, [], "it wants to know who you are: http://user:password@proxy:port"),
        (PROXY, ['Basic realm="x"'], "it wants to know who you are"),
        (PROXY, ["", "NTLM", "basic realm=x"], "it wants to know who you are"),
        (PROXY, ["Negotiate", "NTLM x"], "it wants Negotiate or NTLM; only Basic is spoken here"),
        ("http://ann:***@proxy.test:1", ["Basic realm=x"], "does not accept this user and pass"),
    ],
)
def test_407_tells_what_the_proxy_wants(proxy: str, offers: list[str], hint: str) -> None:
    headers = CIMultiDict(("Proxy-Authenticate", offer) for offer in offers)
    assert hint in str(ProxyRejected(proxy, 407, headers))
    assert hint in str(ProxyRejected(proxy, 401, headers))  # tinyproxy, to a wrong password


def test_403_of_a_proxy_is_no_403_of_the_server() -> None:
    said = str(ProxyRejected(PROXY, 403, {}))
    assert said.startswith(f"the proxy {PROXY} answered 403 (it does not let you through")


def test_a_violation_tells_what_and_the_code() -> None:
    error = ProtocolViolation(1002, "continuation of no message")
    assert (error.code, error.reason) == (1002, "continuation of no message")
    assert str(error) == "continuation of no message (1002)"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionEnded(INFO),
        ConnectionLost(INFO),
        ProtocolViolation(1002, "why"),
        JoinRefused("lobby", "it is full", 1013),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_a_refusal_tells_which_room_and_why_and_the_code() -> None:
    error = JoinRefused("lobby", "staff only")
    assert (error.room, error.reason, error.code) == ("lobby", "staff only", 1008)
    assert str(error) == "room 'lobby': staff only"
    assert JoinRefused("lobby", "", 4403).code == 4403


@pytest.mark.parametrize(("reason", "code"), [("", 1006), ("", 999), ("x" * 124, 1008)])
def test_a_refusal_can_be_told_to_the_peer(reason: str, code: int) -> None:
    with pytest.raises(ValueError, match="close"):
        JoinRefused("lobby", reason, code)


REFUSED = JoinRefused("lobby", "why")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (None, None),
        (ValueError(), None),
        (REFUSED, REFUSED),
        (ExceptionGroup("", [ExceptionGroup("", [REFUSED]), JoinRefused("x", "")]), REFUSED),
        (ExceptionGroup("", [REFUSED, ConnectionLost(INFO)]), REFUSED),
        (ExceptionGroup("", [ConnectionLost(INFO)]), None),
        (ExceptionGroup("", [REFUSED, ValueError()]), None),
        (ExceptionGroup("", [ValueError()]), None),
        (BaseExceptionGroup("", [REFUSED, KeyboardInterrupt()]), None),
    ],
)
def test_a_group_is_a_refusal_if_there_is_nothing_else_in_it(
    error: BaseException | None, found: JoinRefused | None
) -> None:
    assert find_refusal(error) is found


@pytest.mark.parametrize("kind", [BrokerDown, BrokerOverflow])
def test_who_publishes_in_vain_learns_whether_to_try_again(kind: type[BrokerDown]) -> None:
    assert not kind("away").uncertain
    copy = pickle.loads(pickle.dumps(kind("away", uncertain=True)))  # noqa: S301  # our own bytes
    assert type(copy) is kind
    assert (copy.reason, str(copy), copy.uncertain) == ("away", "away", True)
