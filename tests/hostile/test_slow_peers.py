# The inner block is the attack, the outer ones are the laboratory.
# ruff: noqa: SIM117

from __future__ import annotations

import itertools
import time

import pytest
import trio
from hostile._lab import FULL, KIB, MIB, good_clients, scaled
from hostile._peer import Peer, connected
from hostile._wire import BINARY, PING, TEXT, close, frame

from trio_ws import open_websocket

# Peers that do not read...


async def test_who_asks_for_echoes_and_never_reads_holds_little_memory(serve, table):
    """And when it reads again, within ``write_timeout``, every byte is there."""
    size, count = 10_000, scaled(6400, 1600)
    async with serve() as server, good_clients(server.port) as good:
        async with connected(server.port, "/echo", small=True) as peer:
            await server.begin()
            sent = 0

            async def ask() -> None:
                nonlocal sent
                for number in range(count):
                    await peer.send(frame(BINARY, number.to_bytes(4, "big") * (size // 4)))
                    sent += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.sleep(2)
                held = await server.measured()
                stuck_at = sent
                for number in range(count):
                    with trio.fail_after(20):
                        echo = await peer.next_frame()
                    assert echo is not None
                    assert echo.payload == number.to_bytes(4, "big") * (size // 4)
            await peer.send(close())
            assert await peer.close_code() == 1000
        await server.settled()
    table.add(
        "echoes asked for and not read",
        held,
        good.felt,
        f"stuck after {stuck_at} messages of {size} bytes",
    )
    assert stuck_at < count  # it was held back
    assert held.memory < 4 * MIB
    assert good.felt.slowest < 1


@pytest.mark.parametrize("target", ["/produce", "/echo"])
async def test_many_that_do_not_read_hold_a_bounded_amount_each(serve, table, target):
    count = scaled(200, 50)
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        async with trio.open_nursery() as nursery:

            async def attack() -> None:
                async with connected(server.port, target, small=True) as peer:
                    with trio.move_on_after(2):
                        while target == "/echo":
                            await peer.send(frame(BINARY, bytes(64 * KIB)))
                        await trio.sleep_forever()

            for _ in range(count):
                nursery.start_soon(attack)
        measured = await server.measured()
        await server.settled()
    table.add(
        f"{count} peers that never read, from {target}",
        measured,
        good.felt,
        f"{measured.memory / count / KIB:.0f} KiB each",
    )
    assert measured.memory / count < MIB
    assert good.felt.slowest < 1


# Peers that do not answer...


QUICK = {"ping_interval": 1.0, "ping_timeout": 1.0, "write_timeout": 2.0, "close_grace": 1.0}
TIMES = {"ping_interval": 20, "ping_timeout": 20, "write_timeout": 30, "close_grace": 5}
"""The defaults; with them it takes minutes: ``nox -s hostile -- full``."""


@pytest.mark.parametrize(
    "kind", ["silent", "goodbye", "deaf", "chatty", "stuck", "stuck at the end"]
)
async def test_a_dead_peer_is_gone_in_its_time(serve, table, kind):
    times = TIMES if FULL else QUICK
    target, behaviour, seconds = {
        "silent": ("/echo", trio.sleep_forever, times["ping_interval"] + times["ping_timeout"]),
        # It closes the WebSocket, but not TCP: the server does.
        "goodbye": ("/echo", say_goodbye, 0),
        # It does not answer our Close.
        "deaf": ("/leave", trio.sleep_forever, times["close_grace"]),
        "chatty": ("/leave", chatter, times["close_grace"]),
        # It takes no byte: the kernel never gives up on it.
        "stuck": ("/produce", trio.sleep_forever, times["write_timeout"]),
        "stuck at the end": ("/fill-and-leave", trio.sleep_forever, times["close_grace"]),
    }[kind]
    async with serve(**times) as server, good_clients(server.port) as good:
        await server.begin()
        async with connected(server.port, target, small=kind.startswith("stuck")) as peer:
            async with trio.open_nursery() as nursery:
                started = trio.current_time()
                if behaviour is trio.sleep_forever:
                    nursery.start_soon(behaviour)
                else:
                    nursery.start_soon(behaviour, peer)
                await server.settled(within=seconds + 5)
                gone = trio.current_time() - started
                nursery.cancel_scope.cancel()
            if kind == "goodbye":
                assert await peer.close_code() == 1000
                assert peer.ended == "eof"
        measured = await server.measured()
    table.add(f"a peer that is {kind}", measured, good.felt, f"gone after {gone:.1f} s")
    assert seconds - 0.2 < gone < seconds + 1.5


@pytest.mark.parametrize("reset", [False, True])
async def test_a_peer_that_has_gone_is_noticed_even_if_nobody_receives(serve, reset):
    """Its last words lie unread before the end of TCP: that shows when pings fail."""
    times = TIMES if FULL else QUICK
    async with serve(**times) as server:
        await server.begin()
        async with trio.open_nursery() as nursery:

            async def attack() -> None:
                async with connected(server.port, "/sleep") as peer:
                    with trio.move_on_after(0.5):
                        await peer.send(frame(BINARY, bytes(1000)) * 5000)
                    if reset:
                        peer.reset()

            for _ in range(20):
                nursery.start_soon(attack)
        await server.settled(within=times["ping_interval"] + 2 * times["ping_timeout"] + 10)


async def say_goodbye(peer: Peer) -> None:
    await peer.send(close())
    await trio.sleep_forever()


async def chatter(peer: Peer) -> None:
    await peer.talk(frame(TEXT, b"and another thing"), 0.02)


async def test_a_peer_that_is_only_busy_is_not_dropped(serve):
    """A message is read each 0.5 s, keepalive is 1 s and 1 s, the peer never stops sending."""
    async with serve(ping_interval=1.0, ping_timeout=1.0) as server:
        async with connected(server.port, "/slow") as peer, trio.open_nursery() as nursery:

            async def send() -> None:
                while True:
                    await peer.send(frame(BINARY, bytes(10_000)))

            async def read() -> None:
                while (event := await peer.next_frame()) is not None:
                    assert event.opcode == PING  # which it may leave unanswered: any byte is life
                raise AssertionError(f"dropped: {peer.ended}")

            nursery.start_soon(send)
            nursery.start_soon(read)
            await trio.sleep(scaled(30, 6))
            assert (await server.ask())["connections"] == 1
            nursery.cancel_scope.cancel()


# Both at once...


async def test_both_sides_push_read_and_ping_without_a_deadlock(serve, table):
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        async with open_websocket(f"ws://127.0.0.1:{server.port}/push") as ws:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(push, ws)
                    for _ in range(128):
                        assert await ws.receive() == bytes(64 * KIB)
        await server.settled()
        measured = await server.measured()
    table.add("8 MiB and 128 pings, both ways at once", measured, good.felt)
    assert measured.memory < 8 * MIB


async def push(ws) -> None:
    for _ in range(128):
        await ws.send(bytes(64 * KIB))
        await ws.ping()


async def test_leaving_with_hundreds_of_unread_messages(serve):
    async with serve() as server:
        await server.begin()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(send_and_wait_for_the_end, server.port)
        await server.settled()


async def send_and_wait_for_the_end(port: int) -> None:
    async with connected(port, "/leave-unread") as peer:
        await peer.send(frame(BINARY, b"unread") * 1000)
        with trio.fail_after(5 + 1):  # close_grace, and a machine that is busy
            assert await peer.close_code() == 1000


# Rooms...


async def test_a_member_that_never_reads_holds_up_nobody(serve, table):
    """The others keep their rate; who is behind is told 1013, or is gone."""
    alone = await broadcast(serve, mute=0)
    beside = await broadcast(serve, mute=5)
    table.add(
        "a broadcast to 20, beside 5 members that never read",
        beside.measured,
        note=f"lag p99 {beside.p99 * 1000:.0f} ms (without them {alone.p99 * 1000:.0f} ms)",
    )
    assert beside.received >= 0.8 * alone.received
    assert beside.p99 < max(0.25, 3 * alone.p99)
    assert beside.measured.memory < 8 * MIB


class Broadcast:
    received = 0
    p99 = 0.0
    measured = None


async def broadcast(serve, *, mute: int) -> Broadcast:
    result = Broadcast()
    lags: list[float] = []
    seconds = 3

    async def listen(port: int) -> None:
        async with connected(port, "/listen") as peer:
            while (event := await peer.next_frame()) is not None:
                if event.opcode == TEXT:
                    lags.append(time.monotonic() - float(event.payload[:30]))

    async def be_mute(port: int) -> None:
        async with connected(port, "/listen", small=True):
            await trio.sleep_forever()

    async with serve() as server:
        await server.begin()
        async with trio.open_nursery() as nursery, connected(server.port, "/publish") as publisher:
            for _ in range(20):
                nursery.start_soon(listen, server.port)
            for _ in range(mute):
                nursery.start_soon(be_mute, server.port)
            await trio.sleep(0.5)
            end = trio.current_time() + seconds
            for number in itertools.count():
                at = f"{time.monotonic():<30}".encode()
                await publisher.send(frame(TEXT, at + bytes(4000)))
                await trio.sleep_until(end - seconds + number * 0.01 + 0.01)
                if trio.current_time() > end:
                    break
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        await server.settled()
        result.measured = await server.measured()
    result.received = len(lags)
    result.p99 = sorted(lags)[len(lags) * 99 // 100]
    return result
