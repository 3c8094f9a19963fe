"""What is thrown at a server, for the tests here and for ``benchmarks/soak.py``."""

from __future__ import annotations

import contextlib
import os
import random
import ssl
import zlib
from collections.abc import Iterator
from functools import partial

import trio
from hostile import _wire as wire
from hostile._lab import MIB
from hostile._peer import connected
from hostile._wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    close,
    frame,
    header,
    request,
)

# Odd requests...


def edited(old: str | None = None, new: str = "") -> bytes:
    """Return a request with a line, found by its beginning, replaced; or with one more."""
    lines = request().decode().split("\r\n")
    if old is None:
        lines.insert(1, new)
    else:
        (index,) = (i for i, line in enumerate(lines) if line.startswith(old))
        lines[index : index + 1] = [new] if new else []
    return "\r\n".join(lines).encode("latin-1")


def offers(value: str) -> bytes:
    return request(extensions=value)


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + os.urandom(32) + bytes(150)

# What is sent, and the first line of the answer up to the status; none: dropped without one.
ODD: dict[str, tuple[bytes, int | None]] = {
    "two Hosts": (edited(None, "Host: example.org"), 400),
    "the same Host twice": (edited(None, "Host: localhost"), 400),
    "no Host": (edited("Host"), 400),
    "an empty Host": (edited("Host", "Host:"), 400),
    "a Host that is not ASCII": (edited("Host", "Host: \xff"), 400),
    "a Host in UTF-8": (edited("Host", "Host: b\xc3\xbccher.example"), 400),
    "a Host with a bad port": (edited("Host", "Host: localhost:eighty"), 400),
    "a Host with a great port": (edited("Host", "Host: localhost:65536"), 400),
    "a Host with a space": (edited("Host", "Host: local host"), 400),
    "a Host with a path": (edited("Host", "Host: localhost/x"), 400),
    "a Host with user info": (edited("Host", "Host: me@localhost"), 400),
    "a Host with an open bracket": (edited("Host", "Host: [::1"), 400),
    "POST": (edited("GET", "POST / HTTP/1.1"), 405),
    "HEAD": (edited("GET", "HEAD / HTTP/1.1"), 405),
    "a method of its own": (edited("GET", "BREW / HTTP/1.1"), 405),
    "CONNECT": (edited("GET", "CONNECT example.org:443 HTTP/1.1"), 405),
    "HTTP/1.0": (edited("GET", "GET / HTTP/1.0"), 426),
    "HTTP/2.0": (edited("GET", "GET / HTTP/2.0"), 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no version at all": (edited("GET", "GET /"), 400),
    "three words more": (edited("GET", "GET / x y HTTP/1.1"), 400),
    "a target with a control character": (edited("GET", "GET /\x01 HTTP/1.1"), 400),
    "a target that is not ASCII": (edited("GET", "GET /\xe9 HTTP/1.1"), 400),
    "a target with a bad escape": (edited("GET", "GET /%ff HTTP/1.1"), 400),
    "a target with a NUL": (edited("GET", "GET /%00 HTTP/1.1"), 400),
    "a target without a slash": (edited("GET", "GET x HTTP/1.1"), 400),
    "a target with a fragment": (edited("GET", "GET /#x HTTP/1.1"), 400),
    "a target of 64 KiB": (edited("GET", f"GET /{'x' * 65536} HTTP/1.1"), 414),
    "version 8": (edited("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), 426),
    "version thirteen": (edited("Sec-WebSocket-Version", "Sec-WebSocket-Version: xiii"), 426),
    "no version": (edited("Sec-WebSocket-Version"), 426),
    "two versions": (edited(None, "Sec-WebSocket-Version: 13"), 400),
    "no Upgrade": (edited("Upgrade"), 426),
    "another Upgrade": (edited("Upgrade", "Upgrade: h2c"), 426),
    "no Connection": (edited("Connection"), 400),
    "another Connection": (edited("Connection", "Connection: keep-alive"), 400),
    "a Connection that is not ASCII": (edited("Connection", "Connection: Upgrade, \xff"), 400),
    "no key": (edited("Sec-WebSocket-Key"), 400),
    "an empty key": (edited("Sec-WebSocket-Key", "Sec-WebSocket-Key:"), 400),
    "a short key": (edited("Sec-WebSocket-Key", "Sec-WebSocket-Key: QUJD"), 400),
    "a key of 17 bytes": (edited("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {'A' * 23}="), 400),
    "a key that is no base64": (
        edited("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {'!' * 22}=="),
        400,
    ),
    "a key that is not ASCII": (
        edited("Sec-WebSocket-Key", f"Sec-WebSocket-Key: {'é' * 22}=="),
        400,
    ),
    "two keys": (edited(None, f"Sec-WebSocket-Key: {'A' * 22}=="), 400),
    "64 KiB of headers": (
        edited(None, "\r\n".join([f"X-{i}: {'x' * 100}" for i in range(600)])),
        431,
    ),
    "one header of 64 KiB": (edited(None, "X: " + "x" * 65536), 431),
    "1 MiB of headers": (edited(None, "X: " + "x" * MIB), 431),
    "10,000 tiny headers": (edited(None, "\r\n".join(["a:"] * 10_000)), 431),
    "3,000 tiny headers": (edited(None, "\r\n".join(["a:"] * 3000)), 101),
    "a header without a colon": (edited(None, "nonsense"), 400),
    "a header name with a space": (edited(None, "X : y"), 400),
    "a header that is folded": (edited(None, "X: y\r\n z"), 101),
    "a bare CR": (edited(None, "X: y\rZ: w"), 400),
    "a NUL in a header": (edited(None, "X: \0"), 400),
    "a body": (edited(None, "Content-Length: 5") + b"12345", 400),
    "a body without end": (edited(None, f"Content-Length: {2**63}"), 413),
    "a length that is none": (edited(None, "Content-Length: x"), 400),
    "two lengths": (edited(None, "Content-Length: 1\r\nContent-Length: 2"), 400),
    "chunks": (edited(None, "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "length and chunks": (
        edited(None, "Content-Length: 5\r\nTransfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "TLS on a plain port": (TLS_HELLO, 400),
    "zeros": (bytes(1000), 400),
    "a million line ends": (b"\r\n" * 500_000 + request(), 101),
    "subprotocols of commas": (edited(None, f"Sec-WebSocket-Protocol: {',' * 8000}"), 101),
    "subprotocols that are none": (edited(None, "Sec-WebSocket-Protocol: a b"), 400),
    "subprotocols that are not ASCII": (edited(None, "Sec-WebSocket-Protocol: \xff"), 400),
    "8,000 subprotocols": (edited(None, f"Sec-WebSocket-Protocol: {'a,' * 8000}"), 101),
    "stray commas": (offers(", ,, permessage-deflate ,, ,"), 101),
    "an unclosed quote": (offers('permessage-deflate; x="'), 101),
    "a quote of backslashes": (offers('permessage-deflate; x="' + "\\" * 8000), 101),
    "5,000 offers": (offers(", ".join(["x"] * 5000)), 101),
    "700 offers of deflate": (offers(", ".join(["permessage-deflate"] * 700)), 101),
    "5,000 parameters": (offers("permessage-deflate" + ";x" * 5000), 101),
    "5,000 semicolons": (offers("permessage-deflate" + ";" * 5000), 101),
    "8,000 open quotes": (offers('a;b="' * 2500), 101),
    "an offer twice": (offers("permessage-deflate; server_max_window_bits=8" * 2), 101),
    "a window of 16": (offers("permessage-deflate; server_max_window_bits=16"), 101),
    "5,000 cookies": (edited(None, "Cookie: " + "a=b;" * 3500), 101),
    "a query of 8,000 values": (edited("GET", f"GET /?{'a&' * 8000} HTTP/1.1"), 101),
}


# What is no TLS...


def client_hello() -> bytes:
    """Return what a client says first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = client_hello()

NO_TLS = {
    "plain text": request(),
    "half a request": b"GET / HTTP/1.1\r\n",
    "a random record": b"\x16\x03\x01\x00\x40" + os.urandom(64),
    "random bytes": b"\x00" + os.urandom(2000),
    "a record of no version": b"\x16\xff\xff\x00\x05hello",
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "data before the handshake": b"\x17\x03\x03\x00\x05hello",
    "a hello with a changed byte": HELLO[:40] + b"\xff" * 4 + HELLO[44:],
    "a hello twice": HELLO + HELLO,
}
HALF_TLS = {
    "nothing": b"",
    "half a ClientHello": HELLO[: len(HELLO) // 2],
    "a ClientHello and no more": HELLO,
    "a great record that does not come": b"\x16\x03\x01\x40\x00",
}


# Compression...


def deflate(size: int) -> bytes:
    """Return zeros, compressed as for a message."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [compressor.compress(bytes(min(MIB, size))) for _ in range(max(1, size // MIB))]
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


def in_fragments(payload: bytes, count: int, *, rsv: int = 0) -> bytes:
    """Return a message of so many frames."""
    size = -(-len(payload) // count)
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if i else BINARY, piece, fin=i == last, rsv=0 if i else rsv)
        for i, piece in enumerate(pieces)
    )


# Lengths...

LENGTHS = {
    "the limit and a byte": (header(BINARY, MIB + 1), 1009),
    "2^31": (header(BINARY, 2**31), 1009),
    "2^40": (header(BINARY, 2**40), 1009),
    "2^63-1": (header(BINARY, 2**63 - 1), 1009),
    "2^63": (header(BINARY, 2**63), 1002),
    "2^64-1": (header(BINARY, 2**64 - 1), 1002),
    "text of 2^40": (header(TEXT, 2**40), 1009),
    "5 in 16 bits": (header(BINARY, 5, form=16), 1002),
    "5 in 64 bits": (header(BINARY, 5, form=64), 1002),
    "125 in 16 bits": (header(BINARY, 125, form=16), 1002),
    "126 in 64 bits": (header(BINARY, 126, form=64), 1002),
    "65535 in 64 bits": (header(BINARY, 65535, form=64), 1002),
    "a ping of 126": (header(PING, 126), 1002),
    "a ping of 2^40": (header(PING, 2**40), 1002),
    "a pong of 126": (header(PONG, 126), 1002),
    "a Close of 126": (header(CLOSE, 126), 1002),
    "a fragment beyond the limit": (
        frame(BINARY, bytes(MIB), fin=False) + header(CONTINUATION, 1),
        1009,
    ),
    "compressed, beyond all expansion": (header(BINARY, 2**40, rsv=4), 1009),
}


# Violations...


BAD_UTF8 = [
    b"\xff",
    b"\x80",
    b"abc\xc0\xaf",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xf8\x88\x80\x80\x80",
    b"\xe0\x80\x80",
]


def violations(*, client: bool) -> Iterator[tuple[str, bytes, int]]:
    """Yield what RFC 6455 forbids a client, or a server, and the code of the answer."""
    frame = partial(wire.frame, masked=client)
    close = partial(wire.close, masked=client)
    for rsv in (1, 2, 3, 4, 5, 6, 7):
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
            payload = b"\x03\xe8" if opcode == CLOSE else b"x"
            yield f"reserved bits {rsv} on {opcode}", frame(opcode, payload, rsv=rsv), 1002
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", frame(opcode, b"x"), 1002
        yield f"opcode {opcode} as a fragment", frame(opcode, b"x", fin=False), 1002
    for opcode in (TEXT, BINARY, PING, PONG):
        kind = "unmasked" if client else "masked"
        yield f"{kind} {opcode}", wire.frame(opcode, b"x", masked=not client), 1002
    for opcode in (PING, PONG, CLOSE):
        yield f"fragmented {opcode}", frame(opcode, b"\x03\xe8", fin=False), 1002
    yield "a continuation of nothing", frame(CONTINUATION, b"x"), 1002
    yield "an unfinished continuation of nothing", frame(CONTINUATION, b"x", fin=False), 1002
    begun = frame(TEXT, b"x", fin=False)
    yield "a message in a message", begun + frame(TEXT, b"x"), 1002
    yield "another kind in a message", begun + frame(BINARY, b"x"), 1002
    yield "a fragment in a message", begun + frame(TEXT, b"x", fin=False), 1002
    yield "continued after its end", frame(TEXT, b"x") + frame(CONTINUATION, b"x"), 1002
    yield "reserved bit on a continuation", begun + frame(CONTINUATION, b"x", rsv=4), 1002
    yield "a Close of one byte", frame(CLOSE, b"\x03"), 1002
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield f"close code {code}", close(code), 1002
    for text in BAD_UTF8:
        yield f"text {text!r}", frame(TEXT, text), 1007
        yield f"close reason {text!r}", close(1000, text), 1007
        # Fails fast: the message is not complete, and never will be.
        yield f"fragment {text!r}", frame(TEXT, text, fin=False), 1007
        yield f"second fragment {text!r}", begun + frame(CONTINUATION, text, fin=False), 1007
    yield "text cut inside a character", frame(TEXT, "€".encode()[:2]), 1007
    yield "half a character at the end", begun + frame(CONTINUATION, b"\xe2\x82"), 1007


VIOLATIONS = list(violations(client=True))
# Manners of ending...


async def end_politely(port: int) -> None:
    async with connected(port, "/echo") as peer:
        await peer.send(frame(TEXT, b"x") + close())
        assert await peer.close_code() == 1000


async def end_by_the_server(port: int) -> None:
    async with connected(port, "/leave") as peer:
        await peer.send(close())
        assert await peer.close_code() == 1000


async def end_with_eof(port: int) -> None:
    async with connected(port, "/echo") as peer:
        await peer.send(frame(TEXT, b"x"))
        await peer.stream.send_eof()
        await peer.frames()


async def end_with_a_reset(port: int) -> None:
    async with connected(port, "/echo") as peer:
        await peer.send(frame(TEXT, b"x"))
        peer.reset()


async def end_with_a_violation(port: int) -> None:
    async with connected(port, "/echo") as peer:
        await peer.send(frame(TEXT, b"\xff"))
        assert await peer.close_code() == 1007


MANNERS = (
    *(end_politely, end_by_the_server, end_with_eof, end_with_a_reset, end_with_a_violation),
)


# Nonsense...


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with some of them changed, lost, repeated or put in."""
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(mutant) + 1)
        kind = chance.randrange(4)
        if kind == 0 and mutant:
            mutant[at % len(mutant)] = chance.randrange(256)
        elif kind == 1:
            del mutant[at : at + chance.randint(1, 20)]
        elif kind == 2:
            mutant[at:at] = mutant[at : at + chance.randint(1, 20)]
        else:
            mutant[at:at] = chance.randbytes(chance.randint(1, 20))
    return bytes(mutant)


def random_frames(chance: random.Random) -> bytes:
    return b"".join(
        frame(
            chance.choice((0, 1, 2, 8, 9, 10, chance.randrange(16))),
            chance.randbytes(chance.choice((0, 1, 2, 5, 125, 126, 300))),
            fin=chance.random() < 0.8,
            rsv=chance.choice((0, 0, 0, 4, chance.randrange(8))),
            masked=chance.random() < 0.95,
        )
        for _ in range(chance.randint(1, 10))
    )


GOOD_FRAMES = (
    frame(TEXT, "grüße".encode())
    + frame(BINARY, bytes(300), fin=False)
    + frame(PING, b"ping")
    + frame(0, bytes(70_000))
    + close(1000, b"done")
)


async def talk_nonsense(port: int, seed: int) -> None:
    """Connect, send something that makes no sense, end somehow."""
    chance = random.Random(seed)
    kind = seed % 4
    async with connected(port) as peer:
        if kind == 0:
            data = chance.randbytes(chance.choice((1, 10, 100, 20_000)))
        elif kind == 1:
            data = mutated(request("/echo", extensions=DEFLATE), chance) + GOOD_FRAMES
        else:
            await peer.upgrade("/echo", extensions=DEFLATE if chance.random() < 0.5 else None)
            data = random_frames(chance) if kind == 2 else mutated(GOOD_FRAMES, chance)
        for _ in range(2):  # in two pieces
            cut = chance.randrange(len(data) + 1)
            await peer.try_to_send(data[:cut])
            data = data[cut:]
        await peer.try_to_send(data)
        if chance.random() < 0.5:
            try:
                await peer.stream.send_eof()
            except trio.BrokenResourceError:
                return
            with trio.move_on_after(2):
                while await peer.read():
                    pass
        elif chance.random() < 0.5:
            peer.reset()
