# The inner block is the attack, the outer ones are the laboratory.
# ruff: noqa: SIM117

from __future__ import annotations

import pytest
import trio
from hostile._attacks import LENGTHS, VIOLATIONS, deflate, in_fragments
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
    frame,
)

PASS = 0.1
"""Seconds of CPU in one go, during which others wait; for the wall clock see `NOTICED`."""

NOTICED = 1.0
"""Seconds for an echo that a machine which is busy with other things may take as well."""


# Compression...


@pytest.fixture(scope="module")
def gigabyte() -> bytes:
    return deflate(1024 * MIB)


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
    count = scaled(100_000, 30_000)  # on a busy machine more take longer than write_timeout
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


@pytest.mark.parametrize("kind", ["pings", "bombs", "fragments", "messages", "compressed"])
async def test_a_crowd_that_floods_together_lets_others_have_their_turn(serve, table, kind):
    count = 64
    data = {
        "pings": frame(PING, b"x" * 10) * 2000,
        "bombs": frame(BINARY, deflate(MIB), rsv=4) * 10,
        "fragments": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"a", fin=False) * 1000,
        "messages": frame(TEXT, b"hello") * 6000,
        "compressed": frame(TEXT, deflate(1000), rsv=4) * 1000,
    }[kind]
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        async with trio.open_nursery() as nursery:

            async def attack() -> None:
                async with connected(server.port, "/echo", extensions=DEFLATE) as peer:
                    await together.wait()
                    with trio.move_on_after(3):
                        nursery.start_soon(peer.try_to_send, data)
                        while await peer.read():
                            peer.parser.buffer.clear()

            together = trio.Event()
            for _ in range(count):
                nursery.start_soon(attack)
            await server.holds(count, within=30)
            together.set()
        measured = await server.measured()
        await server.settled(within=20)
    pass_ = f"longest pass of the event loop {measured.longest_pass * 1000:.0f} ms of CPU"
    table.add(f"{count} who flood together: {kind}", measured, good.felt, pass_)
    assert measured.memory < 3 * count * MIB  # the message in hand, the next, and what it came in
    assert measured.longest_pass < PASS


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
                assert await whole_message(peer) == bytes(size)
                measured = await server.measured()
                seconds[size] = measured.cpu
                table.add(f"a message of {size // KIB} KiB a byte at a time", measured)
                assert measured.memory < 4 * MIB
    (small, less), (large, more) = sorted(seconds.items())
    assert more / large < 2 * less / small


async def whole_message(peer: Peer) -> bytes:
    pieces: list[bytes] = []
    while True:
        each = await peer.next_frame()
        assert each is not None
        pieces.append(each.payload)
        if each.fin:
            return b"".join(pieces)


# Lengths...


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
