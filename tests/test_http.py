"""The server's side of HTTP/1.1: bytes in, requests and answers out."""

from __future__ import annotations

import contextlib
import email.utils
import math
import time
from typing import Any

import h11
import pytest
from _cost import assert_cheap
from multidict import CIMultiDict

from trio_ws._http import MAX_REQUEST_BODY, ServerHTTP
from trio_ws._http_request import RequestHead
from trio_ws._http_response import BadRequest, Response
from trio_ws._upgrade import check_upgrade

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: example.org\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)


def fed(*data: bytes, limit: float = 16 * 1024) -> ServerHTTP:
    http = ServerHTTP(limit)
    for chunk in data:
        http.receive_data(chunk)
    return http


def next_of(http: ServerHTTP) -> RequestHead:
    request = http.next_request()
    assert request is not None
    return request


def refusal(*data: bytes, limit: float = 16 * 1024) -> BadRequest:
    """What the bytes are refused with; it can be answered, and is the last answer."""
    http = fed(*data, limit=limit)
    with pytest.raises(BadRequest) as caught:
        http.next_request()
    assert http.closing
    method = b"HEAD" if data[0].startswith(b"HEAD") else b"GET"
    status, headers, _ = read(http.respond(caught.value.response), method)
    assert status == caught.value.status
    assert headers["Connection"] == "close"
    assert http.next_request() is None
    return caught.value


def read(answer: bytes, method: bytes = b"GET") -> tuple[int, CIMultiDict[str], bytes]:
    """Read a response as any client would."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    headers = [(name.decode(), value.decode()) for name, value in head.headers]
    return head.status_code, CIMultiDict(headers), body


# Requests...


def test_a_request_is_handed_out_once_it_is_whole() -> None:
    http = fed()
    for index in range(len(GET)):
        assert http.next_request() is None
        http.receive_data(GET[index : index + 1])
    request = next_of(http)
    assert (request.method, request.path) == ("GET", "/")
    assert not http.closing
    assert not http.closed


def test_the_next_request_is_handed_out_once_this_one_is_answered() -> None:
    http = fed(GET, b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert next_of(http).path == "/"
    assert http.next_request() is None
    http.respond(Response())
    assert next_of(http).path == "/2"


def test_empty_lines_before_a_request_are_ignored() -> None:
    http = fed(b"\r\n\n", b"\r", b"\n", GET, b"\r\n", GET)
    next_of(http)
    http.respond(Response())
    next_of(http)


def test_line_feeds_alone_are_enough() -> None:
    assert next_of(fed(b"GET /a HTTP/1.1\nHost: h\n\n")).path == "/a"


def test_a_header_line_may_be_folded() -> None:
    request = next_of(fed(b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\t b\r\n\r\n"))
    assert request.headers["x"] == "a b"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),  # HTTP/0.9
        (b"hello\r\n\r\n", 400),
        (b"{}\r\n", 400),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),  # HTTP/2 without being asked
        (b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\x16", 400),
        (b"\x05\x01\x00", 400),  # SOCKS
        (b"\xff" * 100, 400),
        (b"\0" * 100_000, 400),
    ],
)
def test_every_refusal_has_its_status(data: bytes, status: int) -> None:
    assert refusal(data).status == status


def test_no_refusal_repeats_what_the_peer_sent() -> None:
    marker = b"\x1b[31mMARK"
    for data in (
        marker + b"\r\n\r\n",
        b"M" + marker + b" / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n" + marker + b": x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + marker + b"\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + marker + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + marker + b"\r\n",
    ):
        error = refusal(data)
        assert "MARK" not in error.reason
        assert b"MARK" not in error.response.body


# Limits...


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20], ids=["bytes", "sevens", "one read"])
def test_a_head_of_the_largest_size_passes_and_one_byte_more_is_answered_431(chunk: int) -> None:
    padding = 1000 - len(b"GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n")
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * padding + b"\r\n\r\n"
    assert len(head) == 1000

    def chunks() -> list[bytes]:
        return [head[start : start + chunk] for start in range(0, len(head), chunk)]

    assert next_of(fed(*chunks(), limit=1000)).headers["x"] == "x" * padding
    assert refusal(*chunks(), limit=999).status == 431


def test_a_head_that_is_never_finished_is_answered_431_at_the_limit() -> None:
    http = fed(b"GET / HTTP/1.1\r\nHost: h\r\n", b"X: y\r\n" * 100, limit=1000)
    assert http.next_request() is None
    assert refusal(b"GET / HTTP/1.1\r\nHost: h\r\n", b"X: y\r\n" * 200, limit=1000).status == 431


@pytest.mark.parametrize("end", [b"", b" HTTP/1.1\r\nHost: h\r\n\r\n"], ids=["part", "whole"])
def test_a_request_line_over_the_limit_is_answered_414(end: bytes) -> None:
    assert refusal(b"GET /" + b"a" * 1000 + end, limit=1000).status == 414


def test_no_limit_is_no_limit() -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n"
    assert len(next_of(fed(head, limit=math.inf)).headers["x"]) == 1_000_000


@pytest.mark.parametrize(
    "headers",
    [
        b"a:\n" * 5000,
        b"Connection:" + b"," * 15_000 + b"\r\n",
        b"Upgrade:" + b'"' * 15_000 + b"\r\n",
        b"X: a\r\n" + b" b\r\n" * 3000,
        b"X:" + b" \t" * 7000 + b"\r\n",
        b"X:" + b"a " * 7000 + b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000 + b"0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 15_000,
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 4000,
    ],
    ids=[
        "names",
        "commas",
        "quotes",
        "folds",
        "blanks",
        "words",
        "chunks",
        "extension",
        "trailers",
    ],
)
def test_no_request_of_64_kib_costs_more_than_a_moment(headers: bytes) -> None:
    data = b"GET / HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n"

    def ask() -> None:
        http = fed(data, b"x" * (64 * 1024 - len(data)))
        with contextlib.suppress(BadRequest):
            http.next_request()

    assert_cheap(ask, 1)


# Bodies...


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"Content-Length: 5\r\n\r\n12345", b"12345"),
        (b"Content-Length: 0\r\n\r\n", b""),
        (
            b"Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n2;x=y\r\n45\r\n0\r\nT: x\r\n\r\n",
            b"12345",
        ),
        (
            b"Content-Length: %d\r\n\r\n" % MAX_REQUEST_BODY + b"x" * MAX_REQUEST_BODY,
            b"x" * MAX_REQUEST_BODY,
        ),
    ],
    ids=["length", "empty", "chunked", "largest"],
)
def test_a_body_belongs_to_its_request(body: bytes, content: bytes) -> None:
    data = b"POST /1 HTTP/1.1\r\nHost: h\r\n" + body
    http = fed(data[:-1])
    assert http.next_request() is None
    http.receive_data(data[-1:] + b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert next_of(http).path == "/1"
    assert http.request_body == content
    assert http.leftover.startswith(b"GET /2")
    http.respond(Response(status=405, headers={"Allow": "GET"}))
    assert not http.closing
    assert next_of(http).path == "/2"
    assert http.request_body == b""


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: %d\r\n\r\n" % (MAX_REQUEST_BODY + 1),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % 2**60 + b"x" * MAX_REQUEST_BODY,
        b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * MAX_REQUEST_BODY,
    ],
    ids=["length", "chunk", "extension"],
)
def test_a_longer_body_is_answered_413(body: bytes) -> None:
    assert refusal(b"POST / HTTP/1.1\r\nHost: h\r\n" + body).status == 413


def test_a_malformed_body_is_answered_400() -> None:
    data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
    assert refusal(data).status == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_with_two_lengths_is_answered_400_and_nothing_behind_it_is_read(
    method: str,
) -> None:
    both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    http = fed(method.encode() + b" / HTTP/1.1\r\nHost: h\r\n" + both + GET)
    with pytest.raises(BadRequest, match="400: both Content-Length and Transfer-Encoding"):
        http.next_request()
    assert http.closing
    assert http.next_request() is None


def test_who_waits_for_100_continue_is_answered_at_once_and_for_the_last_time() -> None:
    http = fed(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert next_of(http).method == "POST"
    status, headers, _ = read(http.respond(Response(status=405, headers={"Allow": "GET"})))
    assert (status, headers["Connection"]) == (405, "close")
    assert http.closing
    http.receive_data(b"12345" + GET)
    assert http.next_request() is None


def test_an_expectation_without_a_body_changes_nothing() -> None:
    http = fed(b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n")
    next_of(http)
    http.respond(Response())
    assert not http.closing


# The end of what the client sends...


def test_an_end_between_requests_is_clean() -> None:
    http = fed()
    assert not http.closed
    http.receive_eof()
    assert http.closed
    assert http.next_request() is None


def test_an_end_behind_empty_lines_is_clean() -> None:
    http = fed(b"\r\n")
    http.receive_eof()
    assert http.next_request() is None
    assert http.closed


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        GET[:-1],
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n1234",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n",
    ],
)
def test_an_end_in_the_middle_of_a_request_is_answered_400(data: bytes) -> None:
    http = fed(data)
    http.receive_eof()
    with pytest.raises(BadRequest, match="400: the connection ended in the middle"):
        http.next_request()
    assert http.closing


def test_requests_before_the_end_are_answered_and_the_last_answer_says_so() -> None:
    http = fed(GET, GET)
    http.receive_eof()
    next_of(http)
    assert not http.closed
    assert b"close" not in http.respond(Response())
    next_of(http)
    assert b"Connection: close" in http.respond(Response())
    assert http.closing


# Answers...


def test_an_answer_has_a_length_and_a_date() -> None:
    http = fed(GET)
    next_of(http)
    answer = http.respond(Response("grüß", headers=[("X-A", "1"), ("X-A", "ä")]))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-A: 1\r\nX-A: \xe4\r\n" in answer
    client = h11.Connection(h11.CLIENT)
    client.receive_data(answer)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    headers = dict(head.headers)
    assert headers[b"content-length"] == b"6"
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert b"connection" not in headers
    sent = email.utils.parsedate_to_datetime(headers[b"date"].decode()).timestamp()
    assert abs(sent - time.time()) < 60


def test_a_date_that_is_given_is_kept() -> None:
    http = fed(GET)
    next_of(http)
    answer = http.respond(Response(headers={"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}))
    assert read(answer)[1].getall("Date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]


def test_an_answer_to_head_has_the_headers_of_get_and_no_body() -> None:
    http = fed(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", GET)
    next_of(http)
    status, headers, body = read(http.respond(Response("hello")), method=b"HEAD")
    assert (status, headers["Content-Length"], body) == (200, "5", b"")
    next_of(http)
    assert read(http.respond(Response("hello")))[2] == b"hello"


def test_a_body_may_come_in_pieces() -> None:
    http = fed(GET, GET)
    next_of(http)
    answer = http.begin(Response(headers={"A": "b"}), 5)
    assert http.wants_body
    answer += http.body(b"he") + http.body(b"") + http.body(b"llo") + http.end()
    status, headers, body = read(answer)
    assert (status, headers["A"], headers["Content-Length"], body) == (200, "b", "5", b"hello")
    next_of(http)


def test_of_pieces_nothing_is_left_for_head() -> None:
    http = fed(GET.replace(b"GET", b"HEAD"), GET)
    next_of(http)
    answer = http.begin(Response(), 5)
    assert not http.wants_body
    assert http.body(b"hello") == b""
    assert read(answer + http.end(), method=b"HEAD")[1]["Content-Length"] == "5"
    next_of(http)


def test_a_body_of_unknown_length_goes_in_chunks() -> None:
    http = fed(GET, GET)
    next_of(http)
    answer = http.begin(Response(), None) + http.body(b"he") + http.body(b"llo") + http.end()
    _, headers, body = read(answer)
    assert headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in headers
    assert body == b"hello"
    next_of(http)


def test_to_http_1_0_a_body_of_unknown_length_ends_with_the_connection() -> None:
    http = fed(GET.replace(b"1.1", b"1.0"))
    next_of(http)
    answer = http.begin(Response(), None) + http.body(b"hello") + http.end()
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"Connection: close" in answer
    assert http.closing


def test_the_refusal_of_head_has_no_body_either() -> None:
    http = fed(b"HEAD /%ff HTTP/1.1\r\nHost: h\r\n\r\n")
    with pytest.raises(BadRequest) as caught:
        http.next_request()
    assert read(http.respond(caught.value.response), method=b"HEAD")[2] == b""


@pytest.mark.parametrize(("status", "length"), [(204, None), (304, None), (205, "0"), (200, "0")])
def test_what_has_no_body_has_no_length_but_where_zero_is_one(
    status: int, length: str | None
) -> None:
    http = fed(GET)
    next_of(http)
    _, headers, body = read(http.respond(Response(status=status)))
    assert (headers.get("Content-Length"), body) == (length, b"")
    assert "Transfer-Encoding" not in headers
    assert not http.closing


def test_a_status_without_a_name_is_sent_without_one() -> None:
    http = fed(GET)
    next_of(http)
    assert http.respond(Response(status=599)).startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_a_client_that_wants_no_further_request_gets_none(head: bytes) -> None:
    http = fed(head, GET)
    next_of(http)
    assert read(http.respond(Response("x")))[1]["Connection"] == "close"
    assert http.closing
    assert http.next_request() is None


def test_the_server_can_close_as_well() -> None:
    http = fed(GET, GET)
    next_of(http)
    assert read(http.respond(Response("x"), close=True))[1]["Connection"] == "close"
    assert http.closing
    assert http.next_request() is None


def test_an_answer_may_come_before_there_is_a_request() -> None:
    http = fed(b"GET / HT")
    assert http.next_request() is None
    status, headers, _ = read(http.respond(Response(status=408)))
    assert (status, headers["Connection"]) == (408, "close")
    assert http.closing


def test_an_answer_with_upgrade_says_so_in_connection() -> None:
    http = fed(GET)
    with pytest.raises(BadRequest) as caught:
        check_upgrade(next_of(http))
    answer = http.respond(caught.value.response)
    status, headers, _ = read(answer)
    assert (status, headers["Upgrade"], headers["Connection"]) == (426, "websocket", "upgrade")
    assert headers["Sec-WebSocket-Version"] == "13"
    assert not http.closing


def test_an_upgrade_that_is_refused_leaves_the_connection_open() -> None:
    http = fed(HANDSHAKE, GET)
    assert next_of(http).upgrade
    assert read(http.respond(Response(status=403)))[0] == 403
    assert not http.closing
    assert next_of(http).path == "/"


# The upgrade...


def accepted(http: ServerHTTP, **how: Any) -> tuple[h11.InformationalResponse, CIMultiDict[str]]:
    request = next_of(http)
    check_upgrade(request)
    answer = http.accept(request, **({"subprotocol": None} | how))
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "h"), ("Upgrade", "x")]))
    client.receive_data(answer)
    head = client.next_event()
    assert isinstance(head, h11.InformationalResponse)
    assert client.trailing_data == (b"", False)
    return head, CIMultiDict((name.decode(), value.decode()) for name, value in head.headers)


def test_the_handshake_of_the_rfc_gets_the_answer_of_the_rfc() -> None:
    head, headers = accepted(fed(HANDSHAKE), subprotocol="chat")
    assert (head.status_code, head.reason) == (101, b"Switching Protocols")
    assert headers == CIMultiDict(
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "Sec-WebSocket-Protocol": "chat",
        }
    )


def test_extensions_and_headers_go_into_the_answer() -> None:
    _, headers = accepted(
        fed(HANDSHAKE), headers={"Set-Cookie": "a=b"}, extensions="permessage-deflate"
    )
    assert headers["Set-Cookie"] == "a=b"
    assert headers["Sec-WebSocket-Extensions"] == "permessage-deflate"
    assert "Sec-WebSocket-Protocol" not in headers


def test_frames_behind_the_request_are_left_over() -> None:
    http = fed(HANDSHAKE + b"\x81\x80", b"\r\n")
    accepted(http)
    http.receive_data(b"\r\n")
    assert http.leftover == b"\x81\x80\r\n\r\n"
    assert http.closing
    assert http.next_request() is None


def test_a_client_that_says_close_can_be_upgraded_still() -> None:
    assert accepted(fed(HANDSHAKE.replace(b"keep-alive", b"close")))[0].status_code == 101


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"subprotocol": "other"}, ValueError),
        ({"subprotocol": "CHAT"}, ValueError),
        ({"subprotocol": ""}, ValueError),
        ({"subprotocol": "chat\r\nX: y"}, ValueError),
        ({"subprotocol": b"chat"}, TypeError),
        ({"subprotocol": 1}, TypeError),
        ({"headers": {"X": "a\r\nb"}}, ValueError),
        ({"headers": {"X": "a\0"}}, ValueError),
        ({"headers": {"X\n": "a"}}, ValueError),
        ({"headers": {"Content-Length": "1"}}, ValueError),
        ({"headers": {"Connection": "close"}}, ValueError),
        ({"headers": {"sec-websocket-protocol": "chat"}}, ValueError),
        ({"headers": {"Sec-WebSocket-Accept": "x"}}, ValueError),
        ({"headers": "X: y"}, TypeError),
    ],
)
def test_wrong_use_of_accept_sends_and_changes_nothing(
    how: dict[str, Any], error: type[Exception]
) -> None:
    http = fed(HANDSHAKE)
    request = next_of(http)
    with pytest.raises(error):
        http.accept(request, **({"subprotocol": None} | how))
    assert http.accept(request, subprotocol="superchat").startswith(b"HTTP/1.1 101 ")


def test_the_offers_are_named_when_another_is_accepted() -> None:
    http = fed(HANDSHAKE)
    with pytest.raises(ValueError, match="'x': it offered 'chat', 'superchat'"):
        http.accept(next_of(http), subprotocol="x")
    plain = fed(HANDSHAKE.replace(b"Sec-WebSocket-Protocol: chat, superchat\r\n", b""))
    with pytest.raises(ValueError, match="it offered none"):
        plain.accept(next_of(plain), subprotocol="x")
