# The inner block is the attack, the outer ones are the laboratory.
# ruff: noqa: SIM117

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time

import pytest
import trio
from hostile._attacks import MANNERS, talk_nonsense
from hostile._lab import KIB, MIB, check_log, good_clients, scaled, until
from hostile._peer import Peer, connected, many
from hostile._wire import BINARY, CLOSE, CONTINUATION, TEXT, close, frame, request

# Many that end...


async def test_hundreds_killed_at_once_leave_nothing(serve, table):
    rounds, count = 9, 200
    held: list[int] = []
    times: list[float] = []
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        for _ in range(rounds):
            async with many(server.port, count, "/echo") as peers:
                for peer in peers[::2]:  # in the middle of a message
                    await peer.send(frame(BINARY, bytes(1000))[:500])
                await server.holds(count)
                killed_at = trio.current_time()
                for peer in peers:
                    peer.reset()
                await server.settled(within=4)
                times.append(trio.current_time() - killed_at)
            held.append((await server.measured()).held)
        measured = await server.measured()
    table.add(
        f"{rounds} x {count} peers killed at once",
        measured,
        good.felt,
        f"descriptors back within {max(times):.1f} s; left in memory: {flatness(held)}",
    )
    assert sorted(times)[rounds // 2] < 2
    assert is_flat(held)
    assert good.felt.slowest < 1


def flatness(held: list[int]) -> str:
    return " ".join(f"{each / KIB:.0f}" for each in held) + " KiB"


def is_flat(held: list[int]) -> bool:
    """Whether memory stops growing: the second half of the rounds adds less than a leak would.

    An allocator's pages come and go; a KiB a connection would be more.
    """
    return held[-1] - held[len(held) // 2] < MIB


async def test_thousands_of_connections_in_five_manners_of_ending(serve, table):
    rounds, count = 4, scaled(2000, 500)
    held: list[int] = []
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        started = await server.ask()
        for _ in range(rounds):
            async with trio.open_nursery() as nursery:
                limit = trio.CapacityLimiter(100)

                async def attack(number: int, limit: trio.CapacityLimiter = limit) -> None:
                    async with limit:
                        await MANNERS[number % len(MANNERS)](server.port)

                for number in range(count):
                    nursery.start_soon(attack, number)
            await server.settled()
            held.append((await server.measured()).held)
        measured = await server.measured()
        ended = await server.ask()
    table.add(
        f"{rounds} x {count} connections, five manners of ending",
        measured,
        good.felt,
        f"left in memory: {flatness(held)}; objects: {ended['objects'] - started['objects']}",
    )
    assert is_flat(held)
    assert ended["objects"] - started["objects"] < 2000
    assert good.felt.slowest < 1


# Many that talk nonsense...


async def test_nonsense_leaves_no_traceback_no_task_and_no_descriptor(serve, table):
    count = scaled(10_000, 1500)
    seed = 20_000
    async with serve() as server, good_clients(server.port) as good:
        await server.begin()
        async with trio.open_nursery() as nursery:
            limit = trio.CapacityLimiter(50)

            async def attack(number: int) -> None:
                async with limit:
                    await talk_nonsense(server.port, number)

            for number in range(count):
                nursery.start_soon(attack, seed + number)
        await server.settled(within=15)  # a request that stays incomplete has 10 s
        measured = await server.measured()
    table.add(f"{count:,} connections of nonsense", measured, good.felt)
    assert measured.memory < 32 * MIB
    assert measured.longest_pass < 0.1
    assert good.felt.slowest < 1


# Too many...


async def test_serving_goes_on_without_descriptors(serve, table):
    async with serve(files=64, errors=True) as server, good_clients(server.port) as good:
        await server.begin()
        async with trio.open_nursery() as nursery:
            sockets = [trio.socket.socket() for _ in range(200)]
            for sock in sockets:  # most wait in the backlog
                nursery.start_soon(sock.connect, ("127.0.0.1", server.port))
            await until(lambda: server.descriptors >= 60)
            before, at = (await server.ask("cpu"))["cpu"], time.monotonic()
            await trio.sleep(3)
            share = ((await server.ask("cpu"))["cpu"] - before) / (time.monotonic() - at)
            for sock in sockets:
                sock.close()
            nursery.cancel_scope.cancel()
        with trio.fail_after(1.5 + 2):  # and what a busy machine adds
            async with connected(server.port, "/echo") as peer:
                await peer.send(close())
                assert await peer.close_code() == 1000
        await server.settled(within=15)
        measured = await server.measured()
        log = server.log
    table.add("no descriptors left", measured, good.felt, f"{share:.0%} CPU meanwhile")
    assert share < 0.2
    assert good.felt.slowest < 1
    assert log.count("no connection can be accepted at the moment") == 1
    assert "Traceback" not in log


async def status_of_a_request(port: int) -> tuple[int, bytes]:
    async with connected(port) as peer:
        await peer.send(request("/echo"))
        head = await peer.read_head()
        return int(head[9:12]), head


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"max_connections": 21}, "/echo"),
        ({"max_connections_per_address": 21}, "/echo"),
        ({"max_handshakes": 20}, None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_who_comes_beyond_a_limit_is_told_503_and_nobody_else_minds(serve, options, target):
    async with serve(**options) as server, good_clients(server.port) as good:
        await server.begin()
        async with many(server.port, 20, target):
            await until(lambda: server.descriptors >= 20)
            for _ in range(50):
                status, head = await status_of_a_request(server.port)
                assert status == 503
                assert b"\r\nRetry-After: " in head
        await server.settled()
        assert (await status_of_a_request(server.port))[0] == 101
        await server.settled()
    assert good.felt.slowest < 1


async def test_refused_newcomers_do_not_take_the_places_of_others(serve):
    """A crowd that is told 503 is still there for a moment; it must not count."""
    async with serve(max_connections=10) as server, connected(server.port, "/echo") as first:
        async with many(server.port, 9, "/echo") as others, many(server.port, 50, None) as crowd:
            for peer in crowd:
                assert (await peer.read_head()).startswith(b"HTTP/1.1 503 ")
            await others[0].send(close())
            assert await others[0].close_code() == 1000
            while (await status_of_a_request(server.port))[0] != 101:
                assert server.descriptors > 50, "only once the crowd had gone"
            await first.send(frame(TEXT, b"still here"))
            assert await first.next_frame() is not None


@pytest.mark.parametrize("manner", ["unfinished", "text", "unread", "echoes not read"])
async def test_a_crowd_holds_no_more_than_the_memory_budget(serve, table, manner):
    """Whoever hoards is told 1013, newcomers 503; the others do not notice."""
    budget, count = 3 * MIB, scaled(200, 80)
    target = "/sleep" if manner == "unread" else "/echo"

    async def hoard() -> None:
        with contextlib.suppress(OSError, AssertionError):  # it may not even get in
            async with connected(server.port, target, small=True) as peer:
                if manner in ("unfinished", "text"):
                    await trickle(peer, TEXT if manner == "text" else BINARY)
                else:
                    await peer.talk(frame(BINARY, bytes(30_000)), 0.01)

    quick = {"ping_interval": 1.0, "ping_timeout": 1.0, "close_grace": 1.0}
    async with serve(memory_budget=budget, **quick) as server:
        async with good_clients(server.port) as good, trio.open_nursery() as nursery:
            await server.begin()
            for _ in range(count):
                nursery.start_soon(hoard)
            await trio.sleep(scaled(6, 3))
            report = await server.ask()
            measured = await server.measured()
            nursery.cancel_scope.cancel()
        await server.settled(within=10)
        after = await server.ask()
        assert (await status_of_a_request(server.port))[0] == 101
    used, closed = report["memory"], after["close_codes"].get("1013", 0)
    table.add(
        f"{count} who hoard, with a budget of 3 MiB: {manner}",
        measured,
        good.felt,
        f"{used / MIB:.1f} MiB in use, {closed} closed with 1013",
    )
    assert used <= budget + MIB  # what is leaving already, and a read
    assert closed
    assert after["memory"] == 0
    assert measured.memory < 2 * budget + count * 80 * KIB  # a message in the handler's hands
    assert good.felt.slowest < 1


async def trickle(peer: Peer, opcode: int) -> None:
    """Send most of a message that is within the limits."""
    piece = "é".encode() * 25_000
    for number in range(20):
        await peer.try_to_send(frame(CONTINUATION if number else opcode, piece, fin=False))
        await trio.sleep(0.05)
    await trio.sleep_forever()


# The end of the server...


async def hear_the_end(peer: Peer, codes: list[int]) -> None:
    frames = await peer.frames()
    codes.append(frames[-1].code if frames and frames[-1].opcode == CLOSE else 1006)


async def stop_with_clients(port: int, stop, *, mute: int = 20) -> tuple[list[int], float]:
    """Stop a server with 200 clients of all kinds; return what they heard, and the time."""
    codes: list[int] = []
    async with many(port, 100, "/echo") as idle, many(port, 80, "/echo") as busy:
        async with many(port, mute, "/sleep") as mutes, many(port, 20, None) as halves:
            for half in halves:
                await half.send(request()[:50])
            async with trio.open_nursery() as nursery:
                for peer in busy:
                    nursery.start_soon(peer.talk, frame(TEXT, b"and so on"), 0.05)
                await trio.sleep(0.3)
                for peer in idle + busy:
                    nursery.start_soon(answer_close, peer, codes)
                for peer in mutes:  # they hear, but do not answer
                    nursery.start_soon(hear_the_end, peer, codes)
                started = trio.current_time()
                await stop()
                seconds = trio.current_time() - started
    return codes, seconds


async def answer_close(peer: Peer, codes: list[int]) -> None:
    code = 1006
    while (event := await peer.next_frame()) is not None:
        if event.opcode == CLOSE:
            code = event.code
            await peer.try_to_send(close(code))
    codes.append(code)


@pytest.mark.parametrize(("how", "expected"), [("cancel", 1001), ("drain", 1012)])
async def test_two_hundred_clients_are_told_that_the_server_stops(serve, table, how, expected):
    async with serve() as server:
        await server.begin()

        async def stop() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.ask, how)
                await trio.sleep(0.3)
                await refuses(server.port)

        codes, seconds = await stop_with_clients(server.port, stop)
        measured = await server.measured()
    table.add(f"{how} with 200 clients, 20 half-open", measured, note=f"took {seconds:.1f} s")
    assert codes == [expected] * 200
    assert seconds < 5 + 2  # close_grace: mute peers do not answer


async def refuses(port: int) -> None:
    """Check that nobody gets in any more."""
    try:
        status, head = await status_of_a_request(port)
    except OSError:
        return
    assert status == 503
    assert b"\r\nRetry-After: " in head


async def test_sigterm_to_the_command_line_server(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    with (tmp_path / "log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_ws", "serve", "app:handler", "--port", "0"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        line = await process.stdout.receive_some(1000)
        port = int(line.rpartition(b":")[2])

        async def stop() -> None:
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(15):
                await process.wait()

        codes, _ = await stop_with_clients(port, stop)
    finally:
        process.kill()
        await process.wait()
    assert process.returncode == 0
    assert set(codes) <= {1001, 1012}
    assert len(codes) == 200
    check_log((tmp_path / "log").read_text())


APP = """
import trio

async def handler(request):
    async with request.accept() as ws:
        if request.path == "/sleep":  # until it hears that the connection ends
            async with ws.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
        async for message in ws:
            await ws.send(message)
"""
