"""HTTP over any bytes in any chunks: the same outcome, and never another exception."""

from __future__ import annotations

from itertools import pairwise

import attrs
import h11
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDictProxy

from trio_ws._errors import ConnectionRejected, HandshakeError
from trio_ws._http import ServerHTTP
from trio_ws._http_client import ClientHandshake
from trio_ws._http_headers import accept_token
from trio_ws._http_response import BadRequest, Response
from trio_ws._options import ANY_ORIGIN, SAME_ORIGIN, Deflate
from trio_ws._upgrade import check_upgrade, origin_allowed
from trio_ws._url import parse_url

LIMIT = 300  # small, so that it is met

HANDSHAKE = (
    b"GET /chat?a=b HTTP/1.1\r\n"
    b"Host: example.org:80\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Cookie: a=b\r\n"
    b"Origin: http://example.org\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
REQUESTS = [
    HANDSHAKE,
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD /%C3%A4 HTTP/1.1\r\nHost: h\r\nConnection: x\r\n\r\n",
    b"GET /%ff HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12345",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n",
    b"\x81\x80abcd",
]

# The token that answers the request stands for this, whatever its key is.
TOKEN = b"{the token of the right size}"[:28]
ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + TOKEN + b"\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)
ANSWERS = [
    ACCEPT,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n12345",
    b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.0 500 x\r\n\r\nabc",
    b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n",
    b"HTTP/1.1 500 " + b"a" * LIMIT + b"\r\n\r\n",
    b"\x81\x80abcd",
]

ODD_BYTES = b'\r\n \t:;,"=/%#[]@\0\x16\x7f\x80\xff01Aa'


@st.composite
def mutated(draw: st.DrawFn, pieces: list[bytes]) -> bytes:
    """Some of the pieces, with a few bytes removed, repeated or replaced."""
    data = b"".join(draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 20, len(data))))
        new = draw(
            st.one_of(
                st.lists(st.sampled_from(ODD_BYTES), max_size=3).map(bytes),
                st.binary(max_size=5),
                st.just(data[start:end] * 2),
            )
        )
        data = data[:start] + new + data[end:]
    return data


def chunks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=30)
STREAMS = st.one_of(mutated(REQUESTS), st.binary(max_size=400))
ANSWER_STREAMS = st.one_of(mutated(ANSWERS), st.binary(max_size=400))


# The server's side...


@attrs.define
class Served:
    """What a server made of a stream of bytes."""

    requests: list[tuple[object, ...]] = attrs.field(factory=list)
    refusals: list[tuple[int, str]] = attrs.field(factory=list)
    answers: list[tuple[bytes | None, bytes]] = attrs.field(factory=list)
    leftover: bytes | None = None
    closing: bool = False
    closed: bool = False


def serve(chunks: list[bytes], *, eof: bool) -> Served:
    """Answer what comes, as a server with one WebSocket at /chat does."""
    http = ServerHTTP(LIMIT)
    served = Served()
    for chunk in chunks:
        http.receive_data(chunk)
        while served.leftover is None and _serve_one(http, served):
            pass
    if eof:
        http.receive_eof()
        while served.leftover is None and _serve_one(http, served):
            pass
    if served.leftover is not None:
        served.leftover = http.leftover
    served.closing, served.closed = http.closing, http.closed
    return served


def _serve_one(http: ServerHTTP, served: Served) -> bool:
    method = None
    try:
        request = http.next_request()
        if request is None:
            return False
        method = request.method.encode()
        described = attrs.asdict(request, recurse=False)
        headers, query = described.pop("headers"), described.pop("query")
        served.requests.append((*described.items(), tuple(headers.items()), tuple(query.items())))
        assert isinstance(origin_allowed(request, SAME_ORIGIN, secure=False), bool)
        assert origin_allowed(request, ANY_ORIGIN, secure=False)
        check_upgrade(request)
        served.answers.append((method, http.accept(request, subprotocol=None)))
        served.leftover = b""
    except BadRequest as error:
        served.refusals.append((error.status, error.reason))
        served.answers.append((method, http.respond(error.response)))
    return True


@given(STREAMS, CUTS, st.booleans())
@example(HANDSHAKE + b"\x81\x80abcd", list(range(400)), False)
@example(b"".join(REQUESTS[1:8]), list(range(600)), True)
@example(b"\r\n" * 50 + REQUESTS[1] * 2, list(range(200)), True)
@example(REQUESTS[5] + b"\r\n" + REQUESTS[1], [0], True)
def test_any_chunking_of_the_same_bytes_is_served_alike(
    data: bytes, cuts: list[int], eof: bool
) -> None:
    whole = serve([data], eof=eof)
    for chunks in (chunks_of(data, cuts), chunks_of(data, list(range(len(data))))):
        parts = serve(chunks, eof=eof)
        assert parts.requests == whole.requests
        assert parts.refusals == whole.refusals
        assert parts.leftover == whole.leftover
        assert (parts.closing, parts.closed) == (whole.closing, whole.closed)


def is_understood(answer: bytes, method: bytes) -> bool:
    """Whether a client that has sent the method sees one whole answer."""
    client = h11.Connection(h11.CLIENT)
    headers = [("Host", "h"), ("Upgrade", "websocket")]
    client.send(h11.Request(method=method, target="/", headers=headers))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    head = client.next_event()
    if isinstance(head, h11.Response):
        event = client.next_event()
        while isinstance(event, h11.Data):
            event = client.next_event()
        whole = isinstance(event, h11.EndOfMessage)
    else:
        whole = isinstance(head, h11.InformationalResponse) and head.status_code == 101
    return whole and client.trailing_data == (b"", False)


@given(STREAMS)
@example(b"".join(REQUESTS))
@example(b"HEAD /%ff HTTP/1.1\r\nHost: h\r\n\r\n")
def test_any_bytes_lead_to_answers_that_a_client_understands(data: bytes) -> None:
    for method, answer in serve([data], eof=True).answers:
        # Of a request that was refused, the method is not known here.
        methods = [b"GET", b"HEAD"] if method is None else [method]
        assert any(is_understood(answer, method) for method in methods)


@given(st.text(max_size=30), st.text(max_size=30), st.integers(-10, 1000))
@example("X", "a\r\nb", 200)
@example("X", "\xff", 204)
def test_any_header_is_sent_as_it_is_or_refused(name: str, value: str, status: int) -> None:
    try:
        response = Response(status=status, headers=[(name, value)])
    except ValueError:
        return
    http = ServerHTTP(LIMIT)
    http.receive_data(REQUESTS[1])
    http.next_request()
    client = h11.Connection(h11.CLIENT)
    client.receive_data(http.respond(response))
    head = client.next_event()
    assert isinstance(head, h11.Response)
    sent = (name.lower().encode("ascii"), value.strip(" \t").encode("latin-1"))
    assert sent in list(head.headers)
    assert len(head.headers) <= 4  # besides it: Date, Content-Length, Connection


# The client's side...


def connect(chunks: list[bytes]) -> tuple[object, ...]:
    """What a client makes of a stream of bytes and its end."""
    client = ClientHandshake(
        parse_url("ws://example.org/chat"),
        subprotocols=["chat"],
        compression=Deflate(),
        max_header_size=LIMIT,
    )
    key = client.request().partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    token = accept_token(key.decode()).encode()
    assert len(token) == len(TOKEN)
    data = b"".join(chunks).replace(TOKEN, token)
    start = 0
    leftover = b""
    try:
        accepted = None
        for chunk in chunks:
            end = start + len(chunk)
            if accepted is None:
                accepted = client.receive_data(data[start:end])
            else:
                leftover += data[start:end]
            start = end
        if accepted is None:
            client.receive_eof()
    except ConnectionRejected as error:
        outcome: tuple[object, ...] = ("rejected", error.status, error.headers, error.body)
    except HandshakeError:
        outcome = ("invalid",)
    else:
        behind = accepted.leftover + leftover
        outcome = ("accepted", accepted.headers, accepted.subprotocol, accepted.deflate, behind)
    return tuple(_without_token(part, token) for part in outcome)


def _without_token(part: object, token: bytes) -> object:
    if isinstance(part, bytes):
        return part.replace(token, TOKEN)
    if isinstance(part, CIMultiDictProxy):
        return [
            (name, value.replace(token.decode(), TOKEN.decode())) for name, value in part.items()
        ]
    return part


@given(ANSWER_STREAMS, CUTS)
@example(ACCEPT + b"\x81\x80abcd", [])
@example(ANSWERS[1] + ACCEPT + b"HTTP/1.1 403 x\r\n\r\n", [3, 30])
@example(ANSWERS[2], [])
@example(ANSWERS[3] + b"more", [])
@example(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n\r\n", [])
@example(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXYZ", [])
def test_any_chunking_of_the_same_answer_ends_alike(data: bytes, cuts: list[int]) -> None:
    whole = connect([data])
    assert connect(chunks_of(data, cuts)) == whole
    assert connect(chunks_of(data, list(range(len(data))))) == whole


def test_the_handshakes_of_these_tests_are_accepted() -> None:
    served = serve([HANDSHAKE + b"\x81"], eof=False)
    assert (served.leftover, served.refusals) == (b"\x81", [])
    assert connect([ACCEPT + b"\x81"])[0] == "accepted"
