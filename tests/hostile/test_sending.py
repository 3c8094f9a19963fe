# The inner block is the attack, the outer ones are the laboratory.
# ruff: noqa: SIM117

from __future__ import annotations

import random
import re
import struct
import zlib
from functools import partial

import pytest
import trio
from hostile._lab import good_clients, scaled
from hostile._peer import Peer, connected
from hostile._wire import BINARY, CLOSE, CONTINUATION, PING, TEXT, close, frame, request
from hostile.test_hostile_servers import answer, read_request

from trio_ws import (
    ConnectionEnded,
    ConnectionLost,
    Deflate,
    Options,
    WebSocket,
    open_websocket,
)

# Sends that are cancelled...


@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflate with context"])
async def test_cancelled_sends_tear_no_frame(deflated):
    """A message whose send was cancelled is not there; all others are, whole and in order."""
    chance = random.Random(4)
    attempts = scaled(1000, 300)
    received: list[int] = []
    settings = Deflate(
        client_no_context_takeover=False, server_no_context_takeover=False, threshold=0
    )
    accepted = b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12"

    async def read_slowly(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.send(answer(await read_request(peer), *([accepted] if deflated else [])))
        inflater = zlib.decompressobj(-15)
        parts: list[bytes] = []
        while (each := await peer.next_frame()) is not None:
            if each.opcode == CLOSE:
                await peer.send(close(each.code, masked=False))
                return
            assert each.opcode in (BINARY, CONTINUATION)
            parts.append(each.payload)
            if each.fin:
                message = b"".join(parts)
                if deflated:
                    message = inflater.decompress(message + b"\x00\x00\xff\xff")
                number, size = struct.unpack_from("!II", message)
                assert message[8:] == bytes([number % 256]) * size
                received.append(number)
                parts.clear()
            await trio.sleep(0.001)

    sent: list[int] = []
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, read_slowly, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        options = Options(compression=settings if deflated else None, close_grace=30)
        async with open_websocket(f"ws://127.0.0.1:{port}", options=options) as ws:
            for number in range(attempts):
                size = chance.choice((0, 10, 1000, 60_000, 300_000))
                message = struct.pack("!II", number, size) + bytes([number % 256]) * size
                with trio.move_on_after(chance.choice((0, 0.0001, 0.001, 0.003, 0.01))):
                    await ws.send(message)
                    sent.append(number)
            await ws.send(struct.pack("!II", attempts, 0))
            sent.append(attempts)
        nursery.cancel_scope.cancel()
    assert received == sent
    assert 10 < len(sent) < attempts - 10


# Waiters...


@pytest.mark.parametrize("end", ["close", "eof", "reset"])
@pytest.mark.parametrize("waits", ["ping", "wait_closed", "receive", "send"])
async def test_who_waits_when_the_connection_ends_is_woken(end, waits):
    async def end_it(stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.send(answer(await read_request(peer)))
        await trio.sleep(0.1)
        if end == "close":
            await peer.send(close(1001, b"bye", masked=False))
            while await peer.read():
                pass
        elif end == "reset":
            peer.reset()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, end_it, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(10):
            options = Options(close_grace=0.5)  # this server does not end TCP
            async with open_websocket(f"ws://127.0.0.1:{port}", options=options) as ws:
                code = 1001 if end == "close" else 1006
                if waits == "wait_closed":
                    info = await ws.wait_closed()
                    assert info.code == code
                    assert info.clean == (end == "close")
                elif waits == "receive" and end == "close":
                    with pytest.raises(ConnectionEnded):
                        await ws.receive()
                else:
                    wait = {"ping": ws.ping, "receive": ws.receive, "send": partial(send_on, ws)}
                    with pytest.raises(ConnectionLost) as raised:
                        await wait[waits]()
                    assert raised.value.code == code
        nursery.cancel_scope.cancel()


async def send_on(ws: WebSocket) -> None:
    while True:
        await ws.send(bytes(100_000))


# Clocks...


async def test_nothing_happens_when_the_wall_clock_jumps(serve):
    async with serve(jump=True, ping_interval=0.5, ping_timeout=0.5) as server:
        async with good_clients(server.port), connected(server.port, "/echo") as peer:
            for number in range(scaled(20, 6)):
                async with connected(server.port, "/echo") as newcomer:
                    await newcomer.send(frame(TEXT, b"x") + close())
                    assert await newcomer.close_code() == 1000
                ping = await peer.next_frame()
                assert ping is not None
                assert ping.opcode == PING, number
                await peer.send(frame(10, ping.payload))


# The log...

HOSTILE_TEXT = "\r\nERROR forged \x1b[31mred\x1b[0m \x00\x7f\u2028\u202e"


async def test_what_peers_say_cannot_get_into_the_log(serve):
    raw = HOSTILE_TEXT.encode()
    bare = raw.replace(b"\r\n", b"")
    long = b"x" * 8000
    async with serve(level="DEBUG") as server:
        for data in (
            b"GET /" + bare + b" HTTP/1.1\r\n\r\n",
            b"GET /%0d%0aforged%1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
            bare + b" / HTTP/1.1\r\n\r\n",
            b"FORGED" + long + b" / HTTP/1.1\r\n\r\n",
            request(headers=["X: \x1b[31mforged"]),
            request(headers=["Origin: http://forged\x1b"]),
            request(headers=["Origin: http://forged." + long.decode()]),
            request(host="forged\x1b[31m"),
            request(host="forged." + long.decode()),
            request(headers=["Sec-WebSocket-Protocol: forged\x1b"]),
            request(extensions='forged"\x1b[31m'),
            request(extensions="forged" + long.decode()),
            request("/") + close(1000, raw),
            request("/") + close(4000, b"forged" + b"x" * 117),
            request("/") + frame(TEXT, b"forged" + bare)[:9],
            request("/?forged=%0a"),
            request("/forged\xe9"),
        ):
            async with connected(server.port) as peer:
                await peer.send(data)
                await peer.stream.send_eof()
                while await peer.read():
                    pass
        log = server.log
    assert "forged" not in log.lower()
    assert len(log.splitlines()) > 8
    for line in log.splitlines():
        assert re.fullmatch(
            r"(DEBUG|INFO) trio_ws connection [0-9a-f]{16} from 127\.0\.0\.1: .+", line
        )
