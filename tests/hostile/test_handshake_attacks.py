from __future__ import annotations

import os
import time
from urllib.parse import quote

import pytest
import trio
from hostile._lab import KIB, MIB, good_clients, scaled, until
from hostile._peer import connected, many
from hostile._wire import DEFLATE, PING, PONG, TEXT, close, frame, request

# Slowness...


async def test_half_open_handshakes_are_dropped_at_the_deadline(serve, table):
    count = 500
    head = request()
    async with serve() as server, good_clients(server.port) as good:
        async with many(server.port, 4, "/"):  # what a connection takes once is no matter here
            pass
        await server.begin()
        started = trio.current_time()
        async with many(server.port, count, None) as peers, trio.open_nursery() as nursery:
            over: list[float] = []

            async def drip(peer) -> None:
                for byte in head:
                    if not await peer.try_to_send(bytes([byte])):
                        break
                    with trio.move_on_after(1):
                        await peer.read()
                        break  # nothing but the end can come
                over.append(trio.current_time() - started)

            for peer in peers:
                nursery.start_soon(drip, peer)
            await until(lambda: server.descriptors >= count)
            waits = [await time_of_a_handshake(server.port) for _ in range(20)]
            measured = await server.measured()
            await until(lambda: len(over) == count, within=20)
        await server.settled()
    table.add(
        f"{count} half-open handshakes, a byte a second",
        measured,
        good.felt,
        f"{measured.held / count / KIB:.1f} KiB each; all gone after {max(over):.1f} s;"
        f" others get in within {max(waits) * 1000:.0f} ms",
    )
    assert min(over) > 9.5
    assert max(over) < 13
    assert measured.memory < count * 40 * KIB
    assert sorted(waits)[10] < 0.5
    assert good.felt.slowest < 1


async def time_of_a_handshake(port: int) -> float:
    started = time.monotonic()
    async with connected(port, "/echo") as peer:
        await peer.send(close())
        assert await peer.close_code() == 1000
    return time.monotonic() - started


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


@pytest.mark.parametrize("whole", [True, False], ids=["at once", "in pieces"])
async def test_an_odd_request_gets_a_precise_status_for_little_cpu(serve, table, whole):
    wrong: dict[str, object] = {}
    dear: dict[str, float] = {}
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        for name, (data, status) in ODD.items():
            before = (await server.ask("cpu"))["cpu"]
            async with connected(server.port) as peer:
                pieces = [data] if whole else [data[i : i + 997] for i in range(0, len(data), 997)]
                for piece in pieces:
                    await peer.try_to_send(piece)
                with trio.move_on_after(5):
                    head = await peer.read_head()
                    found = int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else None
                    told = found != 426 or b"\r\nSec-WebSocket-Version: 13\r\n" in head
                    if found != status or not told:
                        wrong[name] = head
            dear[name] = (await server.ask("cpu"))["cpu"] - before
        await server.settled(within=12)
        measured = await server.measured()
    dearest = max(dear, key=lambda name: dear[name])
    table.add(
        f"{len(ODD)} odd requests {'at once' if whole else 'in pieces'}",
        measured,
        good.felt,
        f"most CPU: {dear[dearest] * 1000:.0f} ms for {dearest}",
    )
    assert wrong == {}
    assert dear[dearest] < 0.1
    assert measured.longest_pass < 0.1


async def test_a_refused_client_that_goes_on_sending_is_dropped(serve):
    async with serve() as server:
        await server.begin()
        async with connected(server.port) as peer:
            await peer.send(b"BREW / HTTP/1.1\r\n\r\n")
            assert (await peer.read_head()).startswith(b"HTTP/1.1 400 ")
            with trio.fail_after(3):
                await peer.talk(bytes(1000), 0.01)
        await server.settled(within=2)


# Origins...


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("http://localhost", 101),
        ("http://localhost:80", 101),
        ("http://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost@evil.example", 403),
        ("http://localhost:8080", 403),
        ("null", 403),
        ("", 403),
        ("http://localhost, http://evil.example", 403),
        ("http://localhost\r\nOrigin: http://evil.example", 403),
        ("http://l\xf6calhost", 403),
        ("file://", 403),
    ],
)
async def test_a_page_of_another_site_gets_no_socket(serve, origin, status):
    async with serve() as server, connected(server.port) as peer:
        headers = [] if origin is None else [f"Origin: {origin}"]
        await peer.send(request(headers=headers))
        assert int((await peer.read_head())[9:12]) == status


async def test_allowed_origins_get_theirs_and_no_others(serve):
    async with serve(allowed_origins=["https://app.example"]) as server:
        for origin, status in {
            "https://app.example": 101,
            "http://app.example": 403,
            "https://app.example.evil.example": 403,
            "http://localhost": 403,
        }.items():
            async with connected(server.port) as peer:
                await peer.send(request(headers=[f"Origin: {origin}"]))
                assert int((await peer.read_head())[9:12]) == status


# Response splitting...


@pytest.mark.parametrize("handler", ["accept", "name", "subprotocol", "reject"])
@pytest.mark.parametrize(
    "value", ["x\r\nSet-Cookie: a=b", "x\nSet-Cookie: a=b", "x\r\n\r\nHTTP/1.1 200 OK", "x\0", "€"]
)
async def test_an_answer_cannot_be_split_by_what_a_handler_passes_on(serve, handler, value):
    async with serve(errors=True) as server, connected(server.port) as peer:
        await peer.send(request(f"/split-{handler}?value={quote(value)}"))
        head = await peer.read_head()
        assert head.startswith(b"HTTP/1.1 500 ")
        for header in (b"Set-Cookie", b"X-Value", b"200 OK"):
            assert header not in head
        await peer.stream.send_eof()
        while await peer.read():
            pass
        assert b"HTTP/1.1" not in peer.parser.buffer
        assert "ValueError" in server.log


# Frames in the same segment...


@pytest.mark.parametrize("extensions", [None, DEFLATE])
async def test_frames_right_behind_the_request_are_all_answered(serve, extensions):
    behind = (
        frame(TEXT, b"one")
        + frame(PING, b"two")
        + frame(TEXT, b"three", fin=False)
        + frame(0, b"four")
        + frame(TEXT, b"x" * 70_000)
        + close(1000, b"five")
    )
    async with serve() as server:
        for _ in range(scaled(100, 20)):
            async with connected(server.port) as peer:
                await peer.upgrade("/echo", extensions=extensions, behind=behind)
                with trio.fail_after(10):
                    frames = await peer.frames()
                assert [each.payload for each in frames if each.opcode == PONG] == [b"two"]
                texts = [each.payload for each in frames if each.opcode == TEXT]
                assert texts[:2] == [b"one", b"threefour"]
                assert extensions or texts[2:] == [b"x" * 70_000]
                assert frames[-1].code == 1000
                assert peer.ended == "eof"
