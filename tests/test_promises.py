"""What trio_ws exists for: the rows of the design's table that need no server."""

from __future__ import annotations

import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import DEFLATE, STATEFUL_DEFLATE, Peer
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._errors import ConnectionLost
from trio_ws._options import MIB, Options
from trio_ws.rooms import Overflow, Rooms
from trio_ws.testing import Frame
from trio_ws.testing._frame import BINARY, RSV1

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_ws._deflate import DeflateParameters
    from trio_ws._session import Session
    from trio_ws._websocket import WebSocket

    Connect = Callable[..., tuple[Session, Peer]]
    ConnectPair = Callable[..., tuple[Session, Session]]

compressions = pytest.mark.parametrize(
    "deflate", [None, DEFLATE, STATEFUL_DEFLATE], ids=["plain", "deflate", "stateful"]
)


@compressions
async def test_a_large_send_that_is_cancelled_leaves_the_connection_usable(
    connect_peer: Connect, autojump_clock: MockClock, deflate: DeflateParameters | None
) -> None:
    """At whatever byte the network stops: the message goes out whole, or not at all."""
    large = b"large" * 100_000
    for window in (0, 1, 5, 13, 14, 1000, 100_000):
        us, peer = connect_peer(deflate=deflate)
        peer.way.buffer = window
        async with trio.open_nursery() as nursery, us as ws:
            outcomes = []
            for _ in range(3):
                with trio.move_on_after(1) as scope:
                    await ws.send(large, compress=False)
                outcomes.append(not scope.cancelled_caught)
            assert False in outcomes  # there was no room for all of them
            peer.way.buffer = None
            nursery.start_soon(peer.answer)
            await ws.send("and again", compress=True)
        assert peer.messages == [large] * sum(outcomes) + ["and again"]
        assert peer.close == Frame.close(1000)


async def test_a_handler_that_is_busy_answers_pings_and_keeps_a_healthy_peer(
    connect: ConnectPair, autojump_clock: MockClock
) -> None:
    options = Options(ping_interval=1, ping_timeout=1)
    us, them = connect(options, options)

    async def handle() -> None:
        async with us as ws:
            async for message in ws:
                await trio.sleep(6)
                await ws.send(f"done with {message}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle)
        async with them as peer:
            for number in range(3):
                await peer.send(str(number))
                assert await peer.ping() == 0
                assert await peer.receive() == f"done with {number}"
    assert trio.current_time() == 18


async def test_a_busy_handler_behind_a_full_buffer_keeps_a_healthy_peer(
    connect: ConnectPair, autojump_clock: MockClock
) -> None:
    """It has stopped reading, and so cannot see the pongs: no verdict."""
    us, them = connect(
        Options(ping_interval=1, ping_timeout=1, receive_buffer=10), Options(ping_interval=None)
    )

    async def handle() -> None:
        async with us as ws:
            async for _ in ws:
                await trio.sleep(6)
        assert ws.close_info is not None
        assert ws.close_info.code == 1000

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle)
        async with them as peer:
            for _ in range(5):
                await peer.send("x" * 10)
            await trio.sleep(60)


@pytest.mark.parametrize("goodbye", ["none", "close"])
async def test_a_ping_in_flight_is_told_when_tcp_closes(
    connect_peer: Connect, autojump_clock: MockClock, goodbye: str
) -> None:
    us, peer = connect_peer(Options(ping_interval=None))
    async with us as ws:

        async def end() -> None:
            await wait_all_tasks_blocked()
            await (peer.aclose() if goodbye == "none" else peer.send(Frame.close(1000)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            with pytest.raises(ConnectionLost) as info:
                await ws.ping()
        assert info.value.info == ws.close_info
        assert trio.current_time() == 0


@pytest.mark.parametrize("goodbye", ["none", "close"])
async def test_a_handler_that_only_produces_is_told_that_the_peer_has_gone(
    connect_peer: Connect, autojump_clock: MockClock, goodbye: str
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []

    async def produce(seconds: float) -> None:
        try:
            while True:
                await ws.send("tick")
                await trio.sleep(seconds)
        except trio.Cancelled as exc:
            reasons.append(exc.reason)
            raise

    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(produce, 3)
            nursery.start_soon(produce, 1000)
            await trio.sleep(10)
            await (peer.aclose() if goodbye == "none" else peer.send(Frame.close(1001, "lunch")))
        assert trio.current_time() == 10
    assert reasons == [f"the WebSocket was {ws.close_info}"] * 2
    assert ("1001 'lunch'" if goodbye == "close" else "1006") in str(reasons)


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    pieces = [packer.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*pieces, packer.flush(zlib.Z_SYNC_FLUSH)])[:-4]


@pytest.mark.parametrize("frames", [1, 1000])
async def test_a_deflate_bomb_takes_no_more_memory_than_a_message_may(
    connect_peer: Connect, autojump_clock: MockClock, frames: int
) -> None:
    us, peer = connect_peer(deflate=DEFLATE)
    data = bomb(64 * MIB)
    size = len(data) // frames + 1
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    first = Frame(BINARY, pieces[0], rsv=RSV1, fin=frames == 1)
    middle = [Frame.continuation(piece, fin=False) for piece in pieces[1:-1]]
    last = [Frame.continuation(piece) for piece in pieces[1:][-1:]]
    sent = peer.wire(first, *middle, *last)
    assert 60_000 < len(sent) < 80_000  # a read or two
    async with us as ws:
        tracemalloc.start()
        await peer.send(sent)
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert info.value.code == 1009
        assert peak < 4 * MIB
        assert (await peer.until_close()).code == 1009


async def test_a_room_member_that_does_not_read_holds_up_nobody(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    rooms = Rooms()
    slow, slow_peer = connect_peer(Options(send_buffer=1000))
    fast, fast_peer = connect_peer(Options(send_buffer=1000))
    slow_peer.way.buffer = 0
    async with (
        trio.open_nursery() as nursery,
        slow as slow_ws,
        fast as fast_ws,
        rooms.join(slow_ws, "lobby", buffer=4, overflow=Overflow.DISCONNECT),
        rooms.join(fast_ws, "lobby", buffer=4, overflow=Overflow.DISCONNECT),
    ):
        for number in range(100):
            await rooms.publish("lobby", str(number) * 500)
            assert await fast_peer.receive_message() == str(number) * 500
        assert trio.current_time() == 0
        assert slow_ws.close_info is not None
        assert slow_ws.close_info.code == 1013
        assert fast_ws.close_info is None
        slow_peer.way.buffer = None  # and what it was sent before is no torn stream
        nursery.start_soon(slow_peer.answer)
        await slow_ws.wait_closed()
        nursery.start_soon(fast_peer.answer)
    assert slow_peer.messages == [str(n) * 500 for n in range(len(slow_peer.messages))]
    assert slow_peer.close is not None
    assert slow_peer.close.code == 1013


# And some more of what is thrown at it...


@compressions
async def test_both_sides_push_and_read_and_ping_and_nobody_waits_for_the_other(
    connect: ConnectPair, autojump_clock: MockClock, deflate: DeflateParameters | None
) -> None:
    us, them = connect(deflate=deflate)
    message = bytes(range(256)) * 1024

    async def push(ws: WebSocket) -> None:
        for _ in range(8):
            await ws.send(message)

    async def pull(ws: WebSocket) -> None:
        for _ in range(8):
            assert await ws.receive() == message

    async def ping(ws: WebSocket) -> None:
        for _ in range(8):
            await ws.ping()

    async with us as ours, them as theirs, trio.open_nursery() as nursery:
        for ws in (ours, theirs):
            for work in (push, pull, ping):
                nursery.start_soon(work, ws)
    assert ours.statistics().messages_received == theirs.statistics().messages_received == 8


async def test_a_slow_reader_that_asks_for_echoes_takes_no_more_than_the_buffers(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    peer.way.buffer = 0

    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    sent: list[str] = []
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(echo, ws)
        held: list[tuple[int, int]] = []
        for number in range(100):
            sent.append(str(number) * 3000)
            await peer.send(Frame.text(sent[-1]))
            await wait_all_tasks_blocked()
            statistics = ws.statistics()
            held.append((statistics.unread_bytes, statistics.queued_bytes))
        assert max(unread for unread, _ in held) < 64 * 1024 + 64 * 1024
        assert max(queued for _, queued in held) < 64 * 1024 + 10_000
        assert ws.statistics().reading_paused
        peer.way.buffer = None
        echoes: list[Any] = [await peer.receive_message() for _ in sent]
        assert echoes == sent
        await peer.send(Frame.close(1000))
        await peer.send_end()


async def test_a_cancelled_block_says_so_within_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    for mute in (False, True):
        us, peer = connect_peer(Options(close_grace=2))
        async with trio.open_nursery() as nursery:
            if not mute:
                nursery.start_soon(peer.answer)
            start = trio.current_time()
            with trio.move_on_after(1):
                async with us:
                    await trio.sleep_forever()
            assert trio.current_time() == start + 1 + 2 * mute
            if mute:
                await peer.answer()
        assert peer.close == Frame.close(1001)


async def test_what_a_peer_asks_for_is_forgotten_with_it(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """Unread, queued, half received and half sent: nothing stays when it is gone."""
    us, peer = connect_peer()
    peer.way.buffer = 0
    async with us as ws:
        await peer.send(*[Frame.text("x" * 1000)] * 30)
        await peer.send(Frame.text("half a message", fin=False))
        for _ in range(3):
            await ws.send(bytes(30_000))
        with trio.move_on_after(1):
            await ws.ping()
    statistics = ws.statistics()
    assert statistics.unread_messages == statistics.unread_bytes == 0
    assert statistics.queued_bytes == statistics.waiting_senders == 0
    assert statistics.pings_in_flight == 0
