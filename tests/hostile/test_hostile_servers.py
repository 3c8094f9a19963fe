from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import pytest
import trio
from hostile._attacks import violations
from hostile._lab import FULL, HERE, MIB, Program, check_log, peak, scaled, start_peak
from hostile._peer import Peer
from hostile._wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close,
    frame,
    header,
)

from trio_ws import ConnectionLost, HandshakeError, HandshakeTimeout, Options, open_websocket

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def read_request(peer: Peer) -> bytes:
    head = await peer.read_head()
    assert head.startswith(b"GET "), head
    return head


def key_of(head: bytes) -> bytes:
    (line,) = (each for each in head.split(b"\r\n") if each.startswith(b"Sec-WebSocket-Key: "))
    return line.partition(b": ")[2]


def answer(
    head: bytes, *more: bytes, version: bytes = b"1.1", accept: bytes | None = None
) -> bytes:
    """Return a 101 that is in order, unless told otherwise."""
    if accept is None:
        accept = base64.b64encode(
            hashlib.sha1(key_of(head) + GUID, usedforsecurity=False).digest()
        )
    lines = [
        b"HTTP/" + version + b" 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
        *more,
        b"",
        b"",
    ]
    return b"\r\n".join(lines)


DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"
unmasked = partial(frame, masked=False)

Behaviour = Callable[[Peer], Awaitable[None]]


@attrs.frozen
class Kind:
    """A kind of hostile server, and what our client has to make of it."""

    behave: Behaviour
    errors: set[str]
    code: int | None = None
    """The close code that our client says, or hears."""


KINDS: dict[str, Kind] = {}


def kind(name: str, *errors: str, code: int | None = None) -> Callable[[Behaviour], Behaviour]:
    def register(behave: Behaviour) -> Behaviour:
        KINDS[name] = Kind(behave, set(errors), code)
        return behave

    return register


async def flood(peer: Peer, data: bytes) -> None:
    """Send the same for ever."""
    while await peer.try_to_send(data):
        pass


def says(data: bytes | Callable[[bytes], bytes], *, wait: bool = True) -> Behaviour:
    """Answer the request with bytes, then wait for the end or end it."""

    async def behave(peer: Peer) -> None:
        head = await read_request(peer)
        await peer.try_to_send(data(head) if callable(data) else data)
        while wait and await peer.read():
            pass

    return behave


def opens(data: bytes, *headers: bytes, wait: bool = True) -> Behaviour:
    """Switch to WebSocket, with bytes right behind it."""
    return says(lambda head: answer(head, *headers) + data, wait=wait)


def says_at_once(data: bytes) -> Behaviour:
    """Send bytes without having been asked, then wait for the end."""

    async def behave(peer: Peer) -> None:
        await peer.try_to_send(data)
        while await peer.read():
            pass

    return behave


async def hang_up(peer: Peer) -> None:
    """Read a little, and end TCP."""
    await peer.read()


# Before the handshake is over...

kind("silence", "HandshakeTimeout")(says(b""))
kind("half an answer", "HandshakeTimeout")(says(b"HTTP/1.1 101 Swi"))
kind("EOF", "HandshakeError")(says(b"", wait=False))
kind("EOF in the answer", "HandshakeError")(says(b"HTTP/1.1 101 Swi", wait=False))
kind("no HTTP", "HandshakeError")(says(os.urandom(5000)))
kind("TLS", "HandshakeError")(says(b"\x15\x03\x01\x00\x02\x02\x28"))
kind("a header of 64 KiB", "HandshakeError")(says(b"HTTP/1.1 101 OK\r\nX: " + b"x" * 65536))
kind("a bad header", "HandshakeError")(says(b"HTTP/1.1 101 OK\r\nX\0: x\r\n\r\n"))
kind("no status", "HandshakeError")(says(b"HTTP/1.1 OK\r\n\r\n"))
kind("the wrong accept", "HandshakeError")(says(lambda head: answer(head, accept=b"x")))
kind("HTTP/1.0", "HandshakeError")(says(lambda head: answer(head, version=b"1.0")))
kind("a subprotocol of its own", "HandshakeError")(opens(b"", b"Sec-WebSocket-Protocol: x"))
kind("an extension of its own", "HandshakeError")(opens(b"", b"Sec-WebSocket-Extensions: x"))
kind("deflate and nonsense", "HandshakeError")(
    opens(b"", b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99")
)
kind("two extensions", "HandshakeError")(opens(b"", DEFLATE, DEFLATE))
kind("not found", "ConnectionRejected")(
    says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry")
)
kind("a body that does not end", "ConnectionRejected")(
    says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99999999999\r\n\r\nsorry")
)
kind("nonsense for a body", "ConnectionRejected")(
    says(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
)
kind("a redirect to nonsense", "ConnectionRejected", "HandshakeError", "ValueError")(
    says(b"HTTP/1.1 302 Found\r\nLocation: nonsense://[\r\nContent-Length: 0\r\n\r\n")
)


kind("a redirect to itself", "ConnectionRejected", "HandshakeError")(
    says(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
)


@kind("a reset", "HandshakeError", "OSError")  # it may come before the connection is made
async def reset_at_once(peer: Peer) -> None:
    peer.reset()
    await trio.lowlevel.checkpoint()


@kind("a byte a second", "HandshakeTimeout")
async def drip(peer: Peer) -> None:
    head = await read_request(peer)
    for byte in answer(head):
        if not await peer.try_to_send(bytes([byte])):
            break
        await trio.sleep(1 if FULL else 0.1)


@kind("headers without end", "HandshakeError")
async def endless_headers(peer: Peer) -> None:
    await read_request(peer)
    await peer.try_to_send(b"HTTP/1.1 101 OK\r\n")
    await flood(peer, b"X: y\r\n" * 1000)


@kind("interim answers without end", "HandshakeError")
async def endless_interim(peer: Peer) -> None:
    await read_request(peer)
    await flood(peer, b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


@kind("a body without end", "ConnectionRejected")
async def endless_body(peer: Peer) -> None:
    await read_request(peer)
    await peer.try_to_send(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
    await flood(peer, b"1000\r\n" + bytes(4096) + b"\r\n")


# Behind it...


def bomb() -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [compressor.compress(bytes(MIB)) for _ in range(256)]
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


kind("a bomb", "ConnectionLost", code=1009)(opens(unmasked(BINARY, bomb(), rsv=4), DEFLATE))
kind("a mask", "ConnectionLost", code=1002)(opens(frame(TEXT, b"x")))
kind("a length", "ConnectionLost", code=1009)(opens(header(BINARY, 2**62, masked=False)))
kind("a longer length", "ConnectionLost", code=1002)(opens(header(BINARY, 2**63, masked=False)))
kind("no UTF-8", "ConnectionLost", code=1007)(opens(unmasked(TEXT, b"\xff")))
kind("no deflate", "ConnectionLost", code=1002)(opens(unmasked(TEXT, b"x", rsv=4)))
kind("nothing to inflate", "ConnectionLost", code=1007)(
    opens(unmasked(TEXT, b"\xff\xff\xff", rsv=4), DEFLATE)
)
kind("an opcode", "ConnectionLost", code=1002)(opens(unmasked(11, b"x")))
kind("a long ping", "ConnectionLost", code=1002)(opens(header(PING, 126, masked=False)))
kind("a bad close code", "ConnectionLost", code=1002)(opens(close(1006, masked=False)))
kind("fragments without end", "ConnectionLost", code=1008)(
    opens(unmasked(TEXT, b"x", fin=False) + unmasked(CONTINUATION, b"", fin=False) * 5000)
)
kind("EOF in a frame", "ConnectionLost", code=1006)(
    opens(header(BINARY, 99, masked=False), wait=False)
)
kind("a close and a message behind it")(
    opens(unmasked(TEXT, b"1") + close(masked=False) + unmasked(TEXT, b"2"))
)
kind("a close and no more")(opens(close(masked=False)))
kind("nothing more", "ConnectionLost", code=1006)(opens(b""))
kind("closed at once, and ignored")(opens(b""))


@kind("a reset in a frame", "ConnectionLost", code=1006)
async def reset_in_a_frame(peer: Peer) -> None:
    head = await read_request(peer)
    await peer.send(answer(head) + header(BINARY, 1000, masked=False) + bytes(500))
    await trio.sleep(0.2)
    peer.reset()


@kind("pings without end", "ConnectionEnded", "ConnectionLost")
async def endless_pings(peer: Peer) -> None:
    head = await read_request(peer)
    await peer.send(answer(head))
    with trio.move_on_after(1):
        await flood(peer, unmasked(PING, b"") * 1000)


@kind("messages without end", "ConnectionEnded", "ConnectionLost")
async def endless_messages(peer: Peer) -> None:
    head = await read_request(peer)
    await peer.send(answer(head))
    with trio.move_on_after(1):
        await flood(peer, unmasked(BINARY, bytes(60_000)) * 10)


@kind("closed at once, and talked at")
async def talk_on(peer: Peer) -> None:
    head = await read_request(peer)
    await peer.send(answer(head))
    await peer.talk(unmasked(TEXT, b"and another thing"), 0.01)


@kind("sends to one who never reads", "ConnectionLost", code=1006)
async def never_read(peer: Peer) -> None:
    head = await read_request(peer)
    await peer.send(answer(head))
    with trio.move_on_after(35 if FULL else 4):
        await peer.talk(unmasked(TEXT, b"still here"), 0.3)


QUICK = {
    "handshake_timeout": 1.5,
    "ping_interval": 1.0,
    "ping_timeout": 1.0,
    "write_timeout": 2.0,
    "close_grace": 1.0,
}


async def test_our_client_survives_every_kind_of_hostile_server(table, tmp_path):
    results: dict[str, dict] = {}
    log_file = tmp_path / "log"
    with log_file.open("wb") as log:
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, str(HERE / "_client.py")),
                json.dumps({"options": {} if FULL else QUICK}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    client = Program(process)
    async with trio.open_nursery() as nursery:
        orders = []
        for name, each in KINDS.items():
            listeners = await nursery.start(
                partial(trio.serve_tcp, partial(serve_hostile, each.behave), 0, host="127.0.0.1")
            )
            port = listeners[0].socket.getsockname()[1]
            orders.append({"name": name, "url": f"ws://127.0.0.1:{port}/"})
        try:
            assert await client.line() == b"ready"
            start_peak(client.pid)
            before = peak(client.pid)
            await process.stdin.send_all("".join(json.dumps(o) + "\n" for o in orders).encode())
            with trio.fail_after(75 if FULL else 15):
                while len(results) < len(KINDS):
                    result = json.loads(await client.line())
                    results[result["name"]] = result
            memory = peak(client.pid) - before
            await process.stdin.aclose()
            with trio.fail_after(10):
                await process.wait()
        finally:
            process.kill()
        nursery.cancel_scope.cancel()

    wrong = {name: results[name] for name, each in KINDS.items() if not fits(each, results[name])}
    assert wrong == {}
    slowest = max(results.values(), key=lambda result: result["seconds"])
    table.add(
        f"{len(KINDS)} kinds of hostile server, against our client",
        note=f"{memory / MIB:.1f} MiB in all; slowest end {slowest['seconds']:.1f} s:"
        f" {slowest['name']}",
    )
    assert memory < 24 * MIB
    check_log(log_file.read_text())


async def serve_hostile(behave: Behaviour, stream: trio.SocketStream) -> None:
    await behave(Peer(stream))


def fits(each: Kind, result: dict) -> bool:
    error = result.get("error")
    fine = error in each.errors if each.errors else error is None
    if "ConnectionEnded" in each.errors:
        fine = fine or error is None
    return fine and (each.code is None or result.get("code") == each.code)


async def with_server(behave: Behaviour, use: Callable[[int], Awaitable[None]]) -> None:
    """Serve hostile for as long as our client is in use."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(serve_hostile, behave), 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        await use(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


# Violations...


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "with deflate"])
async def test_our_client_tells_each_violation_by_its_code(compressed):
    wrong: dict[str, object] = {}
    mark = "this must never come"

    async def attack(name: str, data: bytes, code: int) -> None:
        if compressed and name.startswith("reserved bits 4 on ") and name[-1] in "12":
            return  # a bit that was agreed on
        said: list[Frame] = []

        async def behave(peer: Peer) -> None:
            head = await read_request(peer)
            opening = answer(head, DEFLATE) if compressed else answer(head)
            await peer.send(opening + data + unmasked(TEXT, mark.encode()))
            said.extend(await peer.frames())

        async def use(port: int) -> None:
            lost, received = await receive_until_lost(port)
            if lost != code or mark in received:
                wrong[name] = lost, received

        await with_server(behave, use)
        if not said or said[-1].opcode != CLOSE or said[-1].code != code:
            wrong.setdefault(name, said)

    async with trio.open_nursery() as nursery:
        for name, data, code in violations(client=False):
            nursery.start_soon(attack, name, data, code)
    assert wrong == {}


async def receive_until_lost(port: int) -> tuple[int | None, list[str | bytes]]:
    received: list[str | bytes] = []
    try:
        with trio.fail_after(20):
            async with open_websocket(f"ws://127.0.0.1:{port}") as ws:
                async for message in ws:
                    received.append(message)  # noqa: PERF401  # up to the error
    except ConnectionLost as error:
        return error.code, received
    return None, received


async def test_frames_right_behind_the_101_are_all_received_and_answered():
    behind = (
        unmasked(TEXT, b"one")
        + unmasked(PING, b"two")
        + unmasked(TEXT, b"thr", fin=False)
        + unmasked(PING, b"four")
        + unmasked(CONTINUATION, b"ee")
        + close(1000, b"five", masked=False)
    )
    said: list[Frame] = []

    async def behave(peer: Peer) -> None:
        await peer.send(answer(await read_request(peer)) + behind)
        while (each := await peer.next_frame()) is not None and each.opcode != CLOSE:
            said.append(each)
        assert each is not None
        assert each.code == 1000

    async def use(port: int) -> None:
        async with open_websocket(f"ws://127.0.0.1:{port}") as ws:
            assert [message async for message in ws] == ["one", "three"]
            assert ws.close_info is not None
            assert (ws.close_info.reason, ws.close_info.clean) == ("five", True)

    for _ in range(scaled(100, 20)):
        said.clear()
        await with_server(behave, use)
        assert [(each.opcode, each.payload) for each in said] == [(PONG, b"two"), (PONG, b"four")]


# TLS...


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (hang_up, HandshakeError),
        (says_at_once(b""), HandshakeTimeout),
        (says_at_once(os.urandom(1000)), HandshakeError),
        (says_at_once(b"HTTP/1.1 400 Bad Request\r\n\r\n"), HandshakeError),
        (says_at_once(b"\x15\x03\x03\x00\x02\x02\x28"), HandshakeError),
        (says_at_once(b"\x16\x03\x03\x40\x00" + bytes(100)), HandshakeTimeout),
    ],
    ids=["EOF", "silence", "random bytes", "HTTP", "an alert", "half a record"],
)
async def test_our_client_meets_broken_tls(behaviour, error):
    async def use(port: int) -> None:
        options = Options(handshake_timeout=1)
        with pytest.raises(error):
            async with open_websocket(f"wss://127.0.0.1:{port}", options=options):
                pass

    with trio.fail_after(5):
        await with_server(behaviour, use)


async def test_our_client_trusts_no_stranger(serve, certificate):
    async with serve(certificate=certificate) as server:
        with pytest.raises(HandshakeError, match="certificate"):
            async with open_websocket(f"wss://127.0.0.1:{server.port}"):
                pass


# Masks...


async def test_each_frame_of_our_client_has_a_fresh_mask_from_the_system(monkeypatch):
    drawn: list[bytes] = []
    urandom = os.urandom

    def noted(size: int) -> bytes:
        drawn.append(urandom(size))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", noted)
    frames: list[Frame] = []

    async def collect(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.send(answer(await read_request(peer), DEFLATE))
        await peer.send(unmasked(PING, b"ping") * 5)
        while (each := await peer.next_frame()) is not None:
            frames.append(each)
            if each.opcode == PING:
                await peer.send(unmasked(PONG, each.payload))
            elif each.opcode == CLOSE:
                await peer.send(close(masked=False))
                break

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, collect, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with open_websocket(f"ws://127.0.0.1:{port}") as ws:
            for size in (0, 1, 125, 126, 5000, 70_000, 600_000):
                for _ in range(30):
                    await ws.send(bytes(size))
                    await ws.send("x" * size)
                await ws.ping()
            async with ws.open_message(text=False) as part:
                for _ in range(10):
                    await part.send(b"part")
        nursery.cancel_scope.cancel()

    keys = [each.key for each in frames]
    assert {each.opcode for each in frames} == {TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE}
    assert len(keys) > 400
    assert None not in keys
    assert len(set(keys)) > len(keys) - 2  # two of so many are the same once in 40,000 times
    assert set(keys) <= set(drawn)
