"""The client's side of the handshake: a request out, and any answer in."""

from __future__ import annotations

import base64
from typing import Any

import h11
import pytest
from _cost import assert_cheap
from multidict import CIMultiDict

from trio_ws._deflate import DeflateParameters
from trio_ws._errors import ConnectionRejected, HandshakeError, ProxyRejected
from trio_ws._http_client import (
    MAX_INTERIM_RESPONSES,
    MAX_REJECTION_BODY,
    Accepted,
    ClientHandshake,
    ConnectHandshake,
)
from trio_ws._http_headers import accept_token
from trio_ws._options import Deflate
from trio_ws._proxy import parse_proxy
from trio_ws._url import parse_url


def handshake(url: str = "ws://example.org/chat", /, **how: Any) -> ClientHandshake:
    return ClientHandshake(
        parse_url(url), **({"compression": None, "max_header_size": 16 * 1024} | how)
    )


def headers_of(client: ClientHandshake) -> CIMultiDict[str]:
    server = h11.Connection(h11.SERVER)
    server.receive_data(client.request())
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return CIMultiDict((name.decode(), value.decode("latin-1")) for name, value in request.headers)


def answer_to(client: ClientHandshake, *more: bytes, **changes: bytes | None) -> bytes:
    """The answer that makes a WebSocket of the connection, with changes."""
    token = accept_token(headers_of(client)["Sec-WebSocket-Key"]).encode()
    fields = {
        "Upgrade": b"websocket",
        "Connection": b"Upgrade",
        "Sec-WebSocket-Accept": token,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [b"%s: %s" % (name.encode(), value) for name, value in fields.items() if value]
    return b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *lines, *more, b"", b""])


def accepted(client: ClientHandshake, data: bytes) -> Accepted:
    result = client.receive_data(data)
    assert result is not None
    return result


def feed(client: ClientHandshake, *data: bytes, eof: bool = False) -> None:
    for chunk in data:
        assert client.receive_data(chunk) is None
    if eof:
        client.receive_eof()


def rejection(*data: bytes, eof: bool = False) -> ConnectionRejected:
    with pytest.raises(ConnectionRejected) as caught:
        feed(handshake(), *data, eof=eof)
    return caught.value


# The request...


def test_the_request_is_what_the_rfc_asks_for() -> None:
    client = handshake("ws://example.org:8080/chat?a=b")
    assert client.request().startswith(b"GET /chat?a=b HTTP/1.1\r\nHost: example.org:8080\r\n")
    headers = headers_of(client)
    key = headers.pop("Sec-WebSocket-Key")
    assert len(base64.b64decode(key, validate=True)) == 16
    assert headers == CIMultiDict(
        {
            "Host": "example.org:8080",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "User-Agent": "trio_ws",
        }
    )


def test_every_request_has_a_key_of_its_own() -> None:
    assert len({headers_of(handshake())["Sec-WebSocket-Key"] for _ in range(20)}) == 20


def test_what_is_wanted_goes_into_the_request() -> None:
    headers = headers_of(
        handshake(
            subprotocols=["b", "a"],
            origin="https://page.example",
            compression=Deflate(),
            headers=[("X-A", "1"), ("X-A", "ä"), ("User-Agent", "me")],
        )
    )
    assert headers["Sec-WebSocket-Protocol"] == "b, a"
    assert headers["Origin"] == "https://page.example"
    assert headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    assert headers.getall("X-A") == ["1", "ä"]
    assert headers.getall("User-Agent") == ["me"]


def test_user_info_authenticates_unless_a_header_does() -> None:
    url = "wss://ann:secret@example.org/"
    basic = "Basic " + base64.b64encode(b"ann:secret").decode()
    assert headers_of(handshake(url))["Authorization"] == basic
    bearer = headers_of(handshake(url, headers={"authorization": "Bearer x"}))
    assert bearer.getall("Authorization") == ["Bearer x"]
    assert "Authorization" not in headers_of(handshake())


def test_the_host_can_be_overridden() -> None:
    client = handshake("ws://127.0.0.1:8000/", headers={"host": "example.org"})
    assert headers_of(client).getall("Host") == ["example.org"]


@pytest.mark.parametrize(
    ("how", "advice"),
    [
        ({"subprotocols": ["a", "a"]}, "offered twice"),
        ({"subprotocols": ["a b"]}, "is no subprotocol"),
        ({"subprotocols": ["a,b"]}, "is no subprotocol"),
        ({"subprotocols": [""]}, "is no subprotocol"),
        ({"subprotocols": ["ä"]}, "is no subprotocol"),
        ({"subprotocols": ["a\r\nX: y"]}, "is no subprotocol"),
        ({"headers": {"X": "a\r\nY: b"}}, "control characters"),
        ({"headers": {"X": "€"}}, "beyond Latin-1"),
        ({"headers": {"X Y": "a"}}, "no header name"),
        ({"headers": {"sec-websocket-key": "a"}}, "use the parameter"),
        ({"headers": {"Sec-WebSocket-Protocol": "a"}}, "use the parameter"),
        ({"headers": {"Upgrade": "a"}}, "use the parameter"),
        ({"headers": {"Connection": "a"}}, "use the parameter"),
        ({"headers": {"Content-Length": "1"}}, "use the parameter"),
        ({"headers": {"Origin": "http://a"}}, "use the parameter"),
        ({"headers": {"Host": "a b"}}, "no valid host name"),
        ({"headers": [("Host", "a"), ("host", "b")]}, "Host is given twice"),
        ({"headers": [("Authorization", "a"), ("authorization", "b")]}, "given twice"),
        ({"origin": "http://a\r\n"}, "control characters"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(how: dict[str, object], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        handshake(**how)


@pytest.mark.parametrize(
    "how",
    [
        {"subprotocols": "chat"},
        {"subprotocols": b"chat"},
        {"subprotocols": [b"chat"]},
        {"subprotocols": [1]},
        {"headers": "X: y"},
        {"headers": [("X", 1)]},
        {"origin": 1},
    ],
    ids=str,
)
def test_an_argument_of_another_type_is_refused_at_once(how: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        handshake(**how)


# Accepted...


def test_a_valid_answer_is_accepted() -> None:
    client = handshake()
    result = accepted(client, answer_to(client, b"X-A: \xe4"))
    assert (result.subprotocol, result.deflate, result.leftover) == (None, None, b"")
    assert result.headers["x-a"] == "ä"
    assert client.rejection is None


def test_an_answer_may_come_byte_by_byte() -> None:
    client = handshake()
    data = answer_to(client)
    for index in range(len(data) - 1):
        assert client.receive_data(data[index : index + 1]) is None
    assert accepted(client, data[-1:]).leftover == b""


def test_frames_behind_the_answer_are_left_over() -> None:
    client = handshake()
    assert accepted(client, answer_to(client) + b"\r\n\x81\x00").leftover == b"\r\n\x81\x00"


def test_upgrade_and_connection_are_read_in_any_case_and_as_lists() -> None:
    client = handshake()
    accepted(client, answer_to(client, Upgrade=b"WebSocket", Connection=b"keep-alive, upgrade"))


def test_the_server_may_choose_a_subprotocol() -> None:
    client = handshake(subprotocols=["a", "b"])
    data = answer_to(client, Sec_WebSocket_Protocol=b"b")
    assert accepted(client, data).subprotocol == "b"


def test_the_server_may_choose_no_subprotocol() -> None:
    client = handshake(subprotocols=["a", "b"])
    assert accepted(client, answer_to(client)).subprotocol is None


def test_the_server_may_accept_deflate() -> None:
    client = handshake(compression=Deflate())
    answer = (
        b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        b"; server_max_window_bits=12; client_max_window_bits=12"
    )
    result = accepted(client, answer_to(client, Sec_WebSocket_Extensions=answer))
    assert isinstance(result.deflate, DeflateParameters)


def test_interim_answers_are_skipped() -> None:
    client = handshake()
    assert client.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n") is None
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    accepted(client, hints + answer_to(client))


def test_interim_answers_without_end_are_an_error() -> None:
    client = handshake()
    client.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INTERIM_RESPONSES)
    with pytest.raises(HandshakeError, match="1xx answers without end"):
        client.receive_data(b"HTTP/1.1 100 Continue\r\n\r\n")


# Invalid...


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"Upgrade": None}, "header Upgrade"),
        ({"Upgrade": b"h2c"}, "header Upgrade"),
        ({"Upgrade": b"websocket, h2c"}, "header Upgrade"),
        ({"Upgrade": b'"websocket"'}, "Upgrade is malformed"),
        ({"Upgrade": b"websocket\xff"}, "Upgrade is malformed"),
        ({"Connection": None}, "does not list Upgrade"),
        ({"Connection": b"keep-alive"}, "does not list Upgrade"),
        ({"Connection": b'"upgrade'}, "Connection is malformed"),
        ({"Sec_WebSocket_Accept": None}, "does not answer this request"),
        ({"Sec_WebSocket_Accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "does not answer this"),
        ({"Sec_WebSocket_Accept": b"\xff"}, "does not answer this"),
        ({"Sec_WebSocket_Protocol": b"other"}, "not offered: 'other'"),
        ({"Sec_WebSocket_Protocol": b"A"}, "not offered: 'A'"),
        ({"Sec_WebSocket_Protocol": b"a, b"}, "not offered: 'a, b'"),
        ({"Sec_WebSocket_Protocol": b"\xff" * 999}, r"not offered: 'ÿ{100}'$"),
        ({"Sec_WebSocket_Extensions": b"permessage-deflate"}, "not offered"),
        ({"Sec_WebSocket_Extensions": b'"'}, "."),
    ],
)
def test_an_invalid_answer_is_an_error(changes: dict[str, bytes | None], complaint: str) -> None:
    client = handshake(subprotocols=["a", "b"])
    changes = {name.replace("_", "-"): value for name, value in changes.items()}
    with pytest.raises(HandshakeError, match=complaint) as caught:
        client.receive_data(answer_to(client, **changes))
    assert not isinstance(caught.value, ConnectionRejected)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"Sec-WebSocket-Protocol: b", "more than one subprotocol"),
        (b"Sec-WebSocket-Accept: x", "does not answer this request"),
        (b"Upgrade: websocket", "header Upgrade"),
    ],
)
def test_what_may_come_once_is_an_error_twice(line: bytes, complaint: str) -> None:
    client = handshake(subprotocols=["a", "b"])
    with pytest.raises(HandshakeError, match=complaint):
        client.receive_data(answer_to(client, line, Sec_WebSocket_Protocol=b"a"))


def test_http_1_0_cannot_switch() -> None:
    client = handshake()
    with pytest.raises(HandshakeError, match=r"HTTP/1\.0"):
        client.receive_data(answer_to(client).replace(b"HTTP/1.1", b"HTTP/1.0"))


@pytest.mark.parametrize(
    "data", [b"SSH-2.0-x\r\n", b"\x15\x01\x03", b"220 smtp\r\n", b"\r\n", b"HTTX"]
)
def test_what_is_not_http_is_an_error_at_its_first_byte(data: bytes) -> None:
    with pytest.raises(HandshakeError, match="does not speak HTTP"):
        handshake().receive_data(data)


@pytest.mark.parametrize("data", [b"\x15", b"\x15\x03\x01\0\x02\x02\x46", b"\x16\x03\x03"])
def test_tls_instead_of_http_is_told_as_such(data: bytes) -> None:
    with pytest.raises(HandshakeError, match="the server speaks TLS here, and not plain HTTP"):
        handshake().receive_data(data)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 000 x\r\n\r\n",
        b"HTTP/1.1 101 x\r\nA B: c\r\n\r\n",
        b"HTTP/1.1 200 x\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 x\r\nX: " + b"\0" * 1000 + b"\r\n\r\n",
    ],
)
def test_malformed_http_is_an_error(data: bytes) -> None:
    with pytest.raises(HandshakeError, match="malformed") as caught:
        handshake().receive_data(data)
    assert not isinstance(caught.value, ConnectionRejected)
    assert len(str(caught.value)) <= 200


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["bytes", "one read"])
def test_a_head_over_the_limit_is_an_error(size: int) -> None:
    client = handshake(max_header_size=200)
    data = answer_to(client, b"X: " + b"x" * 200)
    with pytest.raises(HandshakeError, match="longer than max_header_size"):
        feed(client, *(data[start : start + size] for start in range(0, len(data), size)))


def test_an_end_without_an_answer_is_an_error() -> None:
    with pytest.raises(HandshakeError, match="without an answer"):
        handshake().receive_eof()


@pytest.mark.parametrize(
    ("url", "hint"),
    [("ws://a.test/", True), ("wss://a.test/", False), ("ws+unix:///run/s", False)],
)
def test_a_server_that_says_nothing_may_expect_tls(url: str, hint: bool) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake(url).receive_eof()
    assert ("its URL begins with wss://" in str(caught.value)) is hint


def test_an_end_in_the_middle_of_an_answer_is_an_error() -> None:
    client = handshake()
    client.receive_data(b"HTTP/1.1 101 Switching")
    with pytest.raises(HandshakeError, match="in the middle of its answer"):
        client.receive_eof()


# Rejected...


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 403 x\r\nX-A: b\r\nContent-Length: 5\r\n\r\nno wa",
        (
            b"HTTP/1.1 403 x\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nno \r\n2\r\nwa\r\n0\r\nTrailer: x\r\n\r\n"
        ),
    ],
    ids=["length", "chunked"],
)
def test_a_refusal_is_raised_with_its_whole_body(data: bytes) -> None:
    for error in (
        rejection(data),
        rejection(*(data[index : index + 1] for index in range(len(data)))),
        rejection(b"HTTP/1.1 102 x\r\n\r\n" + data + b"more"),
    ):
        assert (error.status, error.headers["x-a"], error.body) == (403, "b", b"no wa")


def test_a_refusal_may_end_with_the_connection() -> None:
    error = rejection(b"HTTP/1.0 500 x\r\n\r\noh", b" no", eof=True)
    assert (error.status, error.body) == (500, b"oh no")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 x\r\n\r\n",
        b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_a_refusal_may_have_no_body(data: bytes) -> None:
    assert rejection(data).body == b""


@pytest.mark.parametrize("status", [200, 301, 401, 426, 503, 999])
def test_every_other_status_is_a_refusal(status: int) -> None:
    error = rejection(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
    assert error.status == status


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"Content-Length: 9\r\n\r\n12345", b"12345"),
        (b"Content-Length: 9\r\n\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n9\r\n12345", b"12345"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", b"12345"),
    ],
)
def test_a_body_that_breaks_off_is_raised_as_far_as_it_came(data: bytes, body: bytes) -> None:
    assert rejection(b"HTTP/1.1 500 x\r\n" + data, eof=True).body == body


def test_a_body_whose_chunks_make_no_sense_is_raised_as_far_as_it_does() -> None:
    head = b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert rejection(head + b"2\r\nab\r\nxyz\r\n").body == b"ab"


def test_a_body_that_stalls_can_be_had_as_far_as_it_came() -> None:
    client = handshake()
    assert client.receive_data(b"HTTP/1.1 500 x\r\nX: y\r\nContent-Length: 9\r\n") is None
    assert client.rejection is None
    assert client.receive_data(b"\r\n12") is None
    assert client.receive_data(b"345") is None
    assert client.rejection is not None
    assert (client.rejection.status, client.rejection.body) == (500, b"12345")
    assert client.rejection.headers["X"] == "y"


@pytest.mark.parametrize(
    "framing",
    [
        b"\r\n",
        b"Content-Length: 999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    ],
)
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_body_is_bounded(framing: bytes, size: int) -> None:
    data = b"HTTP/1.1 500 x\r\n" + framing + b"x" * 200_000
    error = rejection(*(data[start : start + size] for start in range(0, len(data), size)))
    assert error.body == b"x" * MAX_REJECTION_BODY


@pytest.mark.parametrize(
    "data",
    [b"1\r\nx\r\n" * 50_000, b"1;" + b"x" * 200_000, b"0\r\n" + b"a: b\r\n" * 50_000],
    ids=["chunks", "extension", "trailers"],
)
def test_what_surrounds_a_body_is_bounded_too(data: bytes) -> None:
    head = b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n"
    errors: list[ConnectionRejected] = []
    assert_cheap(lambda: errors.append(rejection(head + data)), 3)  # 20,000 chunks of h11's
    (error, *_) = errors
    assert set(error.body) <= {ord("x")}
    assert len(error.body) < MAX_REJECTION_BODY


@pytest.mark.parametrize("status", [301, 302, 308])
def test_nobody_waits_for_what_a_redirect_says(status: int) -> None:
    data = b"HTTP/1.1 %d Moved\r\nLocation: /x\r\nContent-Length: 1000\r\n\r\n" % status
    assert rejection(data).headers["location"] == "/x"


# A way through a proxy...


def connect(proxy: str = "http://proxy.test:3128", url: str = "ws://a.test/x") -> ConnectHandshake:
    return ConnectHandshake(parse_proxy(proxy), parse_url(url), max_header_size=1024)


def test_a_proxy_is_asked_for_host_and_port() -> None:
    assert connect().request() == (
        b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\nUser-Agent: trio_ws\r\n\r\n"
    )


def test_a_proxy_is_told_who_asks_and_not_what_for() -> None:
    request = connect("http://ann:x@proxy.test", "wss://eve:y@[fe80::1%25eth0]/secret").request()
    assert request.startswith(b"CONNECT [fe80::1]:443 HTTP/1.1\r\nHost: [fe80::1]:443\r\n")
    assert b"\r\nProxy-Authorization: Basic YW5uOng=\r\n" in request
    assert b"secret" not in request
    assert b"\r\nAuthorization" not in request


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 204 Nothing\r\nContent-Length: 5\r\n\r\n",  # RFC 9110, 9.3.6: it means nothing
        b"HTTP/1.1 103 Wait\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_proxy_opens_the_way_with_2xx(data: bytes) -> None:
    whole, bytewise = connect(), connect()
    assert whole.receive_data(data) is True
    answers = [bytewise.receive_data(data[i : i + 1]) for i in range(len(data))]
    assert answers == [None] * (len(data) - 1) + [True]


@pytest.mark.parametrize("status", [100, 199])
def test_an_interim_answer_of_a_proxy_opens_nothing(status: int) -> None:
    assert connect().receive_data(b"HTTP/1.1 %d x\r\n\r\n" % status) is None


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "opens the way, and then speaks itself"),
        (b"SOCKS?", "does not speak HTTP"),
        (b"\x15\x03\x01", "speaks TLS here"),
        (b"HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2000, "longer than max_header_size"),
        (b"HTTP/1.1 100 x\r\n\r\n" * 17, "1xx answers without end"),
    ],
)
def test_a_proxy_that_makes_no_sense_is_named(data: bytes, complaint: str) -> None:
    with pytest.raises(HandshakeError, match=complaint) as caught:
        connect("http://ann:secret@proxy.test:3128").receive_data(data)
    assert "the proxy http://ann:***@proxy.test:3128" in str(caught.value)


def test_a_proxy_may_end_before_it_answers() -> None:
    with pytest.raises(
        HandshakeError, match=r"^the proxy http://\S+ closed .* without an answer$"
    ):
        connect().receive_eof()


def test_a_refusal_of_a_proxy_is_not_the_servers() -> None:
    data = b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nwho?"
    with pytest.raises(ProxyRejected) as caught:
        connect().receive_data(data)
    assert (caught.value.proxy, caught.value.status) == ("http://proxy.test:3128", 407)
    assert caught.value.body == b"who?"
