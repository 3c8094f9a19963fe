from __future__ import annotations

import time
from urllib.parse import quote

import pytest
import trio
from hostile._attacks import ODD
from hostile._lab import KIB, good_clients, scaled, until
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
