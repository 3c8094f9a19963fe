"""What is fuzzed: each target takes bytes, and fails if they break a promise.

The promises are those of ``tests/properties``; the difference is who chooses the bytes.
There it is a strategy, here it is what the code itself does with them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from _helpers import DEFLATE, STATEFUL_DEFLATE
from properties import test_http_properties as http
from properties import test_protocol_properties as protocol

from trio_ws._deflate import accept_offers, offer, read_response
from trio_ws._http import ServerHTTP
from trio_ws._http_request import parse_request
from trio_ws._http_response import BadRequest
from trio_ws._messages import CloseReceived, Violated
from trio_ws._options import Deflate
from trio_ws._url import parse_url

Target = Callable[[bytes], None]


def fuzz_server_http(data: bytes) -> None:
    """Requests: a precise answer, whatever the chunks, that a client understands."""
    size, data = (data[0] + 1, data[1:]) if data else (1, b"")
    whole = http.serve([data], eof=True)
    parts = http.serve([data[i : i + size] for i in range(0, len(data), size)], eof=True)
    assert (parts.requests, parts.refusals) == (whole.requests, whole.refusals)
    assert parts.leftover == whole.leftover
    for method, answer in whole.answers:
        methods = [b"GET", b"HEAD"] if method is None else [method]
        assert any(http.is_understood(answer, each) for each in methods)


def fuzz_client_http(data: bytes) -> None:
    """Answers: accepted or refused, whatever the chunks."""
    size, data = (data[0] + 1, data[1:]) if data else (1, b"")
    whole = http.connect([data])
    assert http.connect([data[i : i + size] for i in range(0, len(data), size)]) == whole


def fuzz_request_head(data: bytes) -> None:
    """The parts of a request that h11 has let through."""
    target, _, value = data.partition(b"\n")
    name = (b"cookie", b"origin", b"host", b"sec-websocket-protocol", b"upgrade")[len(target) % 5]
    visible = bytes(byte for byte in target if 0x20 < byte < 0x7F) or b"/"
    headers = [(b"host", b"h"), (name, value.replace(b"\r", b"").replace(b"\0", b""))]
    try:
        parse_request(b"GET", visible, b"1.1", headers)
    except BadRequest as error:
        refusal = error
    else:
        return
    assert 400 <= refusal.status < 600
    assert ServerHTTP(100).respond(refusal.response)


def fuzz_frames(data: bytes) -> None:
    """Frames: events that do not depend on the chunks, and one end at most."""
    if len(data) < 2:
        return
    kind, size, data = data[0], data[1] + 1, data[2:]
    client = bool(kind & 1)
    deflate = (None, DEFLATE, STATEFUL_DEFLATE, None)[kind >> 1 & 3]
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    whole = protocol.fed([data], protocol.LIMITS, client=client, deflate=deflate)
    parts = protocol.fed(chunks, protocol.LIMITS, client=client, deflate=deflate)
    assert not any(isinstance(event, (CloseReceived, Violated)) for event in whole[:-1])
    if deflate is None:
        assert protocol.told(parts) == protocol.told(whole)
        _compare_with_wsproto(data, client=client)
    else:
        # What is wrong with compressed data may show a frame earlier in larger pieces.
        assert protocol.told(parts)[:-1] == protocol.told(whole)[: len(protocol.told(parts)) - 1]


def _compare_with_wsproto(data: bytes, *, client: bool) -> None:
    ours = protocol.told(protocol.fed([data], protocol.NO_LIMITS, client=client))
    theirs = protocol.plain(data, client=client)
    if ours and ours[-1][:2] == ("close", 1014):
        assert theirs.pop() == ("violated", 1002)
        ours.pop()
    if len(ours) > len(theirs):
        assert ours.pop() == ("violated", 1002)
    assert ours == theirs


def fuzz_inflate(data: bytes) -> None:
    """Compressed messages: no more than the limit, and no other data than zlib finds there."""
    if len(data) < 2:
        return
    deflate = STATEFUL_DEFLATE if data[0] & 1 else DEFLATE
    size, data = data[1] + 1, data[2:]
    options = protocol.LIMITS.replace(max_message_size=1000, max_fragments=1000)
    pieces = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    frames = b"".join(
        protocol.encode_frame(
            protocol.CONTINUATION if index else protocol.BINARY,
            piece,
            fin=index == len(pieces) - 1,
            rsv1=index == 0,
            masked=True,
        )
        for index, piece in enumerate(pieces)
    )
    events = protocol.told(protocol.fed([frames], options, client=False, deflate=deflate))
    assert len(events) == 1
    if events[0][0] == "message":
        _, message, told_size = events[0]
        assert len(message) == told_size <= 1000
        if data and not _has_last_block(data):
            assert message == zlib.decompressobj(-12).decompress(data + b"\x00\x00\xff\xff")
    else:
        assert events[0] in [("violated", code) for code in (1007, 1008, 1009)]


def _has_last_block(data: bytes) -> bool:
    decompressor = zlib.decompressobj(-15)
    decompressor.decompress(data + b"\x00\x00\xff\xff")
    return decompressor.eof


def fuzz_offers(data: bytes) -> None:
    """The extension header, in both directions."""
    text = data.decode("latin-1")
    settings = Deflate(server_no_context_takeover=False, client_no_context_takeover=False)
    accepted = accept_offers(settings, [text])
    if accepted is not None:
        answer, agreed = accepted
        assert 9 <= agreed.server_max_window_bits <= 15
        assert accept_offers(settings, [answer]) is not None or "client_max" in answer
    complaint = ""
    try:
        read_response(settings, [text])
    except ValueError as error:
        complaint = str(error)
    assert len(complaint) < 500  # 100 characters, as Python escapes them, and words
    assert offer(settings)


def fuzz_url(data: bytes) -> None:
    """URLs: fit for the wire, or a `ValueError`."""
    try:
        url = parse_url(data.decode("utf-8", "surrogateescape"))
    except ValueError:
        return
    for part in (url.target, url.host_header, url.authorization or ""):
        assert part.isascii()
        assert not set(part) & set("\r\n\0")


TARGETS: Final[dict[str, Target]] = {
    name.removeprefix("fuzz_").replace("_", "-"): target
    for name, target in list(globals().items())
    if name.startswith("fuzz_")
}


def seeds(name: str) -> list[bytes]:
    """Return inputs to begin with."""
    frames = [
        protocol.encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=masked)
        for masked in (True, False)
        for opcode, payload, fin, rsv1 in (
            (1, b"text", True, False),
            (1, "grüße".encode()[:3], False, False),
            (0, b"\xbce", True, False),
            (2, b"\xf2H\xcd\xc9\xc9\x07\x00", True, True),
            (8, b"\x03\xe8bye", True, False),
            (9, b"ping", True, False),
            (10, b"", True, False),
            (2, bytes(126), True, False),
        )
    ]
    return {
        "server-http": [b"\x10" + each for each in http.REQUESTS],
        "client-http": [b"\x10" + each for each in http.ANSWERS],
        "request-head": [b"/a%C3%A4?b=c&d", b'/\na=b; c="d"', b"http://h:80/\nhttp://h"],
        "frames": [bytes((kind, 3)) + b"".join(frames) for kind in range(8)]
        + [bytes((kind, 200)) + each for kind in range(8) for each in frames],
        "inflate": [
            bytes((kind, size)) + zlib.compress(data, wbits=-12)
            for kind in (0, 1)
            for size in (0, 50)
            for data in (b"", b"Hello", bytes(2000))
        ],
        "offers": [
            b"permessage-deflate; client_max_window_bits",
            b'permessage-deflate; server_max_window_bits="10"; client_no_context_takeover',
            b"x-other; a=b, permessage-deflate; server_no_context_takeover",
        ],
        "url": [
            b"ws://user:pass@example.org:80/a?b",
            b"wss://[::1]/",
            b"ws+unix:///run/s:/t",
            "ws://bücher.example/ü".encode(),
        ],
    }[name]
