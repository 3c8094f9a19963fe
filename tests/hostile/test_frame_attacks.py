# The inner block is the attack, the outer ones are the laboratory.
# ruff: noqa: SIM117

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
import trio
from hostile._lab import KIB, MIB, good_clients, scaled
from hostile._peer import Peer, connected, many
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
)

PASS = 0.1
"""Seconds of CPU in one go, during which others wait; for the wall clock see `NOTICED`."""

NOTICED = 1.0
"""Seconds for an echo that a machine which is busy with other things may take as well."""


# Compression...


def deflate(size: int) -> bytes:
    """Return zeros, compressed as for a message."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [compressor.compress(bytes(min(MIB, size))) for _ in range(max(1, size // MIB))]
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


@pytest.fixture(scope="module")
def gigabyte() -> bytes:
    return deflate(1024 * MIB)


def in_fragments(payload: bytes, count: int, *, rsv: int = 0) -> bytes:
    """Return a message of so many frames."""
    size = -(-len(payload) // count)
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if i else BINARY, piece, fin=i == last, rsv=0 if i else rsv)
        for i, piece in enumerate(pieces)
    )


@pytest.mark.parametrize("fragments", [1, 1000])
async def test_a_deflate_bomb_is_refused_with_1009(serve, table, gigabyte, fragments):
    frames = in_fragments(gigabyte, fragments, rsv=4)
    rounds = scaled(100, 10)
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        for _ in range(rounds):
            async with connected(server.port, "/", extensions=DEFLATE) as peer:
                await peer.try_to_send(frames)
                assert await peer.close_code() == 1009
        await server.settled()
        measured = await server.measured()
    table.add(f"{rounds} x 1 GiB deflated, in {fragments} frames", measured, good.felt)
    assert measured.memory < 8 * MIB
    assert measured.longest_pass < PASS
    assert good.felt.slowest < NOTICED


async def test_many_bombs_that_are_each_within_the_limit(serve, table):
    bomb = frame(BINARY, deflate(MIB), rsv=4)
    count = scaled(2000, 300)
    async with serve() as server, good_clients(server.port) as good:
        async with connected(server.port, "/slow", extensions=DEFLATE) as peer:
            await server.begin()
            with trio.move_on_after(3):  # it will not read on
                await peer.send(bomb * count)
            measured = await server.measured()
    table.add(f"{count} x 1 MiB deflated to 1 KiB, never received", measured, good.felt)
    assert measured.memory < 8 * MIB
    assert measured.longest_pass < PASS
    assert good.felt.slowest < NOTICED


@pytest.mark.parametrize("per_frame", [1, 200])
async def test_deflate_streams_without_end_and_without_content(serve, table, per_frame):
    empty_stream = b"\x03\x00"  # a last block with nothing in it: the next one starts afresh
    frames = frame(BINARY, empty_stream * per_frame, fin=False, rsv=4)
    frames += frame(CONTINUATION, empty_stream * per_frame, fin=False) * 4095
    rounds = scaled(50, 5)
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        for _ in range(rounds):
            async with connected(server.port, "/", extensions=DEFLATE) as peer:
                await peer.send(frames)
                await peer.send(frame(CONTINUATION))
                assert await peer.close_code() == 1008
        await server.settled()
        measured = await server.measured()
    table.add(f"{rounds} x 4096 frames of {per_frame} empty streams", measured, good.felt)
    assert measured.memory < 8 * MIB
    assert measured.longest_pass < PASS
    assert good.felt.slowest < NOTICED


# Floods...


@pytest.mark.parametrize("payload", [b"", b"0123456789" * 12])
async def test_pings_whose_pongs_are_never_read(serve, table, payload):
    count = 100_000
    burst = frame(PING, payload) * 1000
    async with serve() as server, good_clients(server.port) as good:
        async with connected(server.port, "/echo", small=True) as peer:
            await server.begin()
            with trio.fail_after(60):
                for _ in range(count // 1000):
                    await peer.send(burst)
            await trio.sleep(0.2)
            measured = await server.measured()
    table.add(f"{count:,} pings of {len(payload)} bytes, pongs unread", measured, good.felt)
    assert measured.memory < 2 * MIB
    assert measured.longest_pass < PASS
    assert good.felt.slowest < NOTICED


async def test_the_last_ping_of_a_burst_is_answered_and_in_order(serve):
    async with serve() as server, connected(server.port, "/echo") as peer:
        await peer.send(b"".join(frame(PING, b"%d" % i) for i in range(5000)))
        answered: list[int] = []
        with trio.fail_after(20):
            while not answered or answered[-1] < 4999:
                pong = await peer.next_frame()
                assert pong is not None
                assert pong.opcode == PONG
                answered.append(int(pong.payload))
        assert answered == sorted(set(answered))


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_empty_messages_that_nobody_receives(serve, table, opcode):
    count = 500_000
    async with serve() as server, good_clients(server.port) as good:
        async with connected(server.port, "/sleep") as peer:
            await server.begin()
            with trio.move_on_after(2):  # it will not read on
                await peer.send(frame(opcode) * count)
            measured = await server.measured()
    table.add(f"{count:,} empty messages, never received", measured, good.felt)
    assert measured.memory < 2 * MIB
    assert measured.longest_pass < PASS
    assert good.felt.slowest < NOTICED


@pytest.mark.parametrize("payload", [b"", b"ab"])
async def test_continuations_without_end_are_refused(serve, table, payload):
    count = 500_000
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        async with connected(server.port, "/echo") as peer:
            await peer.send(frame(BINARY, b"", fin=False))
            await peer.try_to_send(frame(CONTINUATION, payload, fin=False) * count)
            assert await peer.close_code() == 1008
        await server.settled()
        measured = await server.measured()
    table.add(f"{count:,} continuations of {len(payload)} bytes", measured, good.felt)
    assert measured.memory < 8 * MIB
    assert measured.longest_pass < PASS
    assert good.felt.slowest < NOTICED


async def test_unfinished_messages_on_one_connection_are_refused(serve, table):
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        for _ in range(scaled(32, 8)):
            async with connected(server.port, "/echo") as peer:
                for _ in range(32):
                    await peer.try_to_send(frame(BINARY, bytes(1_000_000), fin=False))
                assert await peer.close_code() == 1002
        await server.settled()
        measured = await server.measured()
    table.add("32 unfinished 1 MB messages on one connection", measured, good.felt)
    assert measured.memory < 8 * MIB
    assert good.felt.slowest < NOTICED


async def test_unfinished_messages_of_many_connections_take_their_bytes_and_no_more(serve, table):
    count, size = 32, 1_000_000
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        async with many(server.port, count, "/echo") as peers:
            for peer in peers:
                await peer.send(frame(BINARY, bytes(size), fin=False))
            await trio.sleep(0.3)
            held = await server.measured()
        await server.settled()
    table.add(f"unfinished 1 MB messages on {count} connections", held, good.felt)
    assert held.memory < 1.5 * count * size
    assert good.felt.slowest < NOTICED


# A byte at a time...


async def test_a_message_a_byte_at_a_time_takes_cpu_linear_in_its_bytes(serve, table):
    seconds: dict[int, float] = {}
    async with serve() as server:
        for size in (64 * KIB, scaled(MIB, 256 * KIB)):
            async with connected(server.port, "/echo") as peer:
                assert isinstance(peer.stream, trio.SocketStream)
                peer.stream.setsockopt(6, 1, True)  # TCP_NODELAY
                message = frame(BINARY, bytes(size))
                await server.begin()
                for i in range(len(message)):
                    await peer.send(message[i : i + 1])
                echo = await peer.next_frame()
                assert echo is not None
                assert echo.payload == bytes(size)
                measured = await server.measured()
                seconds[size] = measured.cpu
                table.add(f"a message of {size // KIB} KiB a byte at a time", measured)
                assert measured.memory < 4 * MIB
    (small, less), (large, more) = sorted(seconds.items())
    assert more / large < 2 * less / small


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


@pytest.mark.parametrize("mute", [False, True], ids=["reading", "still sending"])
async def test_a_bad_length_is_refused_from_the_header_alone(serve, mute):
    wrong: dict[str, object] = {}

    async def attack(name: str, head: bytes, code: int) -> None:
        async with connected(server.port, "/echo", extensions=DEFLATE) as peer:
            await peer.send(head + bytes(4))  # with a mask, lest that is what it waits for
            found = await answer_to(peer, mute=mute)
            if found != code:
                wrong[name] = found

    async with serve() as server:
        await server.begin()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for name, (head, code) in LENGTHS.items():
                    nursery.start_soon(attack, name, head, code)
        await server.settled(within=2)
        measured = await server.measured()
    assert wrong == {}
    assert measured.memory < 16 * MIB


async def answer_to(peer: Peer, *, mute: bool) -> object:
    """Return the close code; ``mute``: while sending what must be thrown away."""
    with trio.move_on_after(4 if mute else 2):
        async with trio.open_nursery() as nursery:
            if mute:
                nursery.start_soon(peer.talk, frame(TEXT, b"never processed") * 10, 0.01)
            frames = await peer.frames()
            nursery.cancel_scope.cancel()
        return frames[-1].code if frames and frames[-1].opcode == CLOSE else frames
    return "TCP was not ended in time"


# Violations...


def control(opcode: int, payload: bytes = b"", **more: object) -> bytes:
    return frame(opcode, payload, **more)  # type: ignore[arg-type]


BAD_UTF8 = [
    b"\xff",
    b"\x80",
    b"abc\xc0\xaf",
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xf8\x88\x80\x80\x80",
    b"\xe0\x80\x80",
]


def violations() -> Iterator[tuple[str, bytes, int]]:
    """Yield what RFC 6455 forbids a client, and the code of the answer."""
    for rsv in (1, 2, 3, 4, 5, 6, 7):
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
            payload = b"\x03\xe8" if opcode == CLOSE else b"x"
            yield f"reserved bits {rsv} on {opcode}", frame(opcode, payload, rsv=rsv), 1002
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", frame(opcode, b"x"), 1002
        yield f"opcode {opcode} as a fragment", frame(opcode, b"x", fin=False), 1002
    for opcode in (TEXT, BINARY, PING, PONG):
        yield f"unmasked {opcode}", frame(opcode, b"x", masked=False), 1002
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


VIOLATIONS = list(violations())
MARK = b"this must never come back"


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "with deflate"])
async def test_each_violation_is_told_by_its_code_and_nothing_behind_it_counts(serve, compressed):
    wrong: dict[str, object] = {}

    async def attack(name: str, data: bytes, code: int) -> None:
        if compressed and name.startswith("reserved bits 4 on ") and name[-1] in "12":
            return  # a bit that was agreed on
        extensions = DEFLATE if compressed else None
        async with connected(server.port, "/echo", extensions=extensions) as peer:
            await peer.send(data + frame(TEXT, MARK))
            with trio.move_on_after(5) as scope:
                frames = await peer.frames()
            if scope.cancelled_caught:
                wrong[name] = "TCP was not ended"
            elif not frames or frames[-1].opcode != CLOSE or frames[-1].code != code:
                wrong[name] = frames
            elif any(MARK in each.payload for each in frames) or peer.ended != "eof":
                wrong[name] = (frames, peer.ended)

    async with serve() as server:
        await server.begin()
        async with trio.open_nursery() as nursery:
            for name, data, code in VIOLATIONS:
                nursery.start_soon(attack, name, data, code)
        await server.settled(within=2)
    assert wrong == {}
