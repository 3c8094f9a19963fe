"""Every fault of a link, in both directions, at the moment at which it is due."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws.testing import Direction, Link, MemoryNetwork
from trio_ws.testing._link import BUFFER, PACKET

WAYS = ["to_server", "to_client"]


class Way:
    """A link seen along one direction: ``sender`` and ``receiver`` are its ends."""

    def __init__(self, link: Link, way: str, client: trio.SocketStream, server: trio.SocketStream):
        self.link = link
        self.direction: Direction = getattr(link, way)
        self.sender, self.receiver = (client, server) if way == "to_server" else (server, client)

    async def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await self.receiver.receive_some()
            assert part, f"the end came after {data!r}"
            data += part
        return data


@asynccontextmanager
async def connected(way: str = "to_server", **settings: Any) -> AsyncIterator[Way]:
    link = Link(**settings)
    network = MemoryNetwork()
    async with network.listen() as listener:
        client = await network.connect("localhost", 80, link=link)
        server = await listener.accept()
        async with client, server:
            yield Way(link, way, client, server)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_a_plain_link_takes_no_time(way: str, mock_clock) -> None:
    async with connected(way) as it:
        await it.sender.send_all(b"hello")
        assert await it.receive(5) == b"hello"
        assert (it.direction.sent, it.direction.received) == (5, 5)


async def test_latency_delays_each_byte_one_way(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        it.direction.latency = 0.5
        begin = trio.current_time()
        await it.sender.send_all(b"a")
        await trio.sleep(0.1)
        await it.sender.send_all(b"b")
        assert await it.receiver.receive_some() == b"a"
        assert trio.current_time() - begin == 0.5
        assert await it.receiver.receive_some() == b"b"
        assert trio.current_time() - begin == pytest.approx(0.6)
        await it.receiver.send_all(b"c")
        assert await it.sender.receive_some() == b"c"
        assert trio.current_time() - begin == pytest.approx(0.6)


async def test_connecting_takes_a_round_trip(autojump_clock) -> None:
    begin = trio.current_time()
    async with connected(latency=0.25):
        assert trio.current_time() - begin == 0.5


async def test_the_end_takes_its_time_as_well(way: str, autojump_clock) -> None:
    async with connected(way, latency=0.5) as it:
        begin = trio.current_time()
        await it.sender.send_all(b"a")
        await it.sender.aclose()
        assert await it.receive(1) == b"a"
        assert await it.receiver.receive_some() == b""
        assert trio.current_time() - begin == 0.5


async def test_a_smaller_latency_lets_nothing_overtake(way: str, autojump_clock) -> None:
    async with connected(way, latency=1) as it:
        await it.sender.send_all(b"first")
        it.direction.latency = 0
        await it.sender.send_all(b"second")
        assert await it.receive(11) == b"firstsecond"


async def arrivals(seed: object) -> list[float]:
    """Send at once, and return when it arrived."""
    async with connected(latency=1, jitter=1, seed=seed) as it:
        begin = trio.current_time()
        times: list[float] = []
        for _ in range(20):
            await it.sender.send_all(b"x")
        while sum(count for count in times if count) < 0 or it.direction.received < 20:
            await it.receiver.receive_some(1)
            times.append(round(trio.current_time() - begin, 6))
        return times


async def test_jitter_is_chance_that_the_seed_decides(autojump_clock) -> None:
    first = await arrivals(1)
    assert first == await arrivals(1)
    assert first != await arrivals(2)
    assert first == sorted(first)
    assert all(1 <= each < 2 for each in first)
    assert len(set(first)) > 2


async def test_bandwidth_lets_one_packet_leave_after_the_other(way: str, autojump_clock) -> None:
    async with connected(way, bandwidth=PACKET) as it:
        begin = trio.current_time()
        await it.sender.send_all(b"x" * (3 * PACKET + PACKET // 2))
        times: list[tuple[int, float]] = []
        for _ in range(4):
            size = len(await it.receiver.receive_some())
            times.append((size, trio.current_time() - begin))
        assert times == [(PACKET, 1), (PACKET, 2), (PACKET, 3), (PACKET // 2, 3.5)]


async def test_a_link_that_was_idle_has_no_bandwidth_saved_up(way: str, autojump_clock) -> None:
    async with connected(way, bandwidth=10) as it:
        await trio.sleep(100)
        begin = trio.current_time()
        await it.sender.send_all(b"x" * 10)
        await it.sender.send_all(b"x" * 10)
        await it.receive(20)
        assert trio.current_time() - begin == 2


async def test_more_bandwidth_counts_from_now_on(way: str, autojump_clock) -> None:
    async with connected(way, bandwidth=1) as it:
        await it.sender.send_all(b"x" * PACKET)
        await trio.sleep(10)
        begin = trio.current_time()
        it.direction.bandwidth = PACKET
        await it.receive(PACKET)
        assert trio.current_time() - begin == 1
        it.direction.bandwidth = None
        await it.sender.send_all(b"x" * PACKET)
        await it.receive(PACKET)
        assert trio.current_time() - begin == 1


async def test_chunks_are_at_most_so_large(way: str, autojump_clock) -> None:
    async with connected(way, chunk=1) as it:
        await it.sender.send_all(b"abc")
        assert [await it.receiver.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]
        it.direction.chunk = None
        await it.sender.send_all(b"abc")
        assert await it.receiver.receive_some() == b"abc"


async def chunks(seed: object) -> list[int]:
    async with connected(chunk=(2, 5), seed=seed) as it:
        await it.sender.send_all(b"x" * 100)
        sizes: list[int] = []
        while sum(sizes) < 100:
            sizes.append(len(await it.receiver.receive_some()))
        return sizes


async def test_chunks_by_chance_are_the_same_for_a_seed(autojump_clock) -> None:
    first = await chunks("a")
    assert first == await chunks("a")
    assert first != await chunks("b")
    assert set(first[:-1]) == {2, 3, 4, 5}


async def test_what_was_sent_in_pieces_is_read_in_one(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        for piece in (b"a", b"b", b"c"):
            await it.sender.send_all(piece)
        assert await it.receiver.receive_some(2) == b"ab"
        assert await it.receiver.receive_some(2) == b"c"


async def test_who_does_not_read_holds_up_who_sends(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        with trio.move_on_after(1) as scope:
            await it.sender.send_all(b"x" * (BUFFER + 1))
        assert scope.cancelled_caught
        assert it.direction.sent == BUFFER
        assert len(await it.receive(BUFFER)) == BUFFER


async def test_a_full_write_buffer_takes_nothing_until_it_has_room(
    way: str, autojump_clock
) -> None:
    async with connected(way) as it:
        it.direction.buffer = 0
        with trio.move_on_after(1) as scope:
            await it.sender.send_all(b"abc")
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.sender.send_all, b"abc")
            await trio.sleep(1)
            it.direction.buffer = 2
            assert await it.receive(2) == b"ab"
            assert await it.receive(1) == b"c"
        it.direction.buffer = None
        await it.sender.send_all(b"x" * 2 * BUFFER)


async def test_a_sender_that_has_had_to_wait_is_woken_when_a_third_of_the_buffer_is_free(
    way: str, autojump_clock
) -> None:
    """Or what is large would leave in crumbs, as a reader makes room for them."""
    async with connected(way, buffer=9) as it, trio.open_nursery() as nursery:
        await it.sender.send_all(b"123456789")
        nursery.start_soon(it.sender.send_all, b"abcdef")
        await trio.testing.wait_all_tasks_blocked()
        for taken, sent in ((2, 9), (1, 12), (2, 12), (1, 15)):
            assert len(await it.receiver.receive_some(taken)) == taken
            await trio.testing.wait_all_tasks_blocked()
            assert it.direction.sent == sent


async def test_a_stalled_link_keeps_everything(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        it.direction.stall()
        it.direction.stall()
        await it.sender.send_all(b"kept")
        await it.sender.send_eof()
        with trio.move_on_after(3600) as scope:
            await it.receiver.receive_some()
        assert scope.cancelled_caught
        it.direction.resume()
        it.direction.resume()
        assert await it.receive(4) == b"kept"
        assert await it.receiver.receive_some() == b""


async def test_a_stall_holds_up_who_waits_already(way: str, autojump_clock) -> None:
    async with connected(way, latency=1) as it:
        await it.sender.send_all(b"a")
        it.link.stall()
        with trio.move_on_after(5) as scope:
            await it.receiver.receive_some()
        assert scope.cancelled_caught
        it.link.resume()
        assert await it.receive(1) == b"a"


async def test_nobody_connects_through_a_stalled_link(autojump_clock) -> None:
    link = Link()
    link.to_client.stall()
    network = MemoryNetwork()
    async with network.listen():
        with trio.move_on_after(10) as scope:
            await network.connect("localhost", 80, link=link)
        assert scope.cancelled_caught
        later = Link()
        later.to_client.stall()
        async with trio.open_nursery() as nursery:

            async def resume() -> None:
                await trio.sleep(2)
                later.to_client.resume()

            nursery.start_soon(resume)
            begin = trio.current_time()
            async with await network.connect("localhost", 80, link=later):
                assert trio.current_time() - begin == 2


async def test_a_half_open_link_tells_nobody(autojump_clock) -> None:
    async with connected(bandwidth=10, latency=1) as it:
        await it.sender.send_all(b"x" * 10)
        await trio.sleep(2)
        await it.sender.send_all(b"travels")
        await it.sender.send_all(b"waits to leave")
        await trio.sleep(1)
        it.link.half_open()
        await it.sender.send_all(b"vanishes")
        await it.sender.aclose()
        assert await it.receiver.receive_some() == b"x" * 10
        with trio.move_on_after(3600) as scope:
            await it.receiver.receive_some()
        assert scope.cancelled_caught


async def test_a_stalled_link_that_is_cut_loses_everything(autojump_clock) -> None:
    async with connected() as it:
        it.link.stall()
        await it.sender.send_all(b"held back")
        it.link.half_open()
        it.link.resume()
        with trio.move_on_after(3600) as scope:
            await it.receiver.receive_some()
        assert scope.cancelled_caught


async def test_a_cut_direction_fills_up(way: str, autojump_clock) -> None:
    async with connected(way, buffer=4) as it:
        it.direction.cut()
        await it.sender.send_all(b"1234")
        with trio.move_on_after(60) as scope:
            await it.sender.send_all(b"5")
        assert scope.cancelled_caught
        await it.receiver.send_all(b"back")
        assert await it.sender.receive_some() == b"back"


async def test_a_cut_at_a_byte_lets_what_is_before_arrive_and_nothing_else(
    way: str, autojump_clock
) -> None:
    async with connected(way) as it:
        it.direction.cut_after(3)
        await it.sender.send_all(b"12")
        assert await it.receiver.receive_some() == b"12"
        await it.sender.send_all(b"3456")
        assert await it.receiver.receive_some() == b"3"
        await it.sender.aclose()
        with trio.move_on_after(3600) as scope:
            await it.receiver.receive_some()
        assert scope.cancelled_caught


async def test_a_cut_after_nothing_is_one_now(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        await it.sender.send_all(b"has arrived")
        it.direction.cut_after(0)
        with trio.move_on_after(3600) as scope:
            await it.receiver.receive_some()
        assert scope.cancelled_caught


async def test_a_reset_breaks_both_sides_at_once(way: str, autojump_clock) -> None:
    async with connected(way, buffer=3, latency=1) as it:
        await it.sender.send_all(b"abc")

        async def fail(operation: Any, *args: Any) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await operation(*args)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, it.sender.send_all, b"more")
            nursery.start_soon(fail, it.sender.receive_some)
            nursery.start_soon(fail, it.receiver.receive_some)
            await trio.sleep(0.5)
            it.link.reset()
            it.link.reset()
        assert it.link.broken
        await fail(it.receiver.send_all, b"x")


async def test_a_reset_at_a_byte_lets_what_is_before_arrive(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        await it.sender.send_all(b"before")
        await it.receive(6)
        it.direction.reset_after(3)
        await it.sender.send_all(b"12")
        assert await it.receiver.receive_some() == b"12"
        assert not it.link.broken
        await it.sender.send_all(b"3456")
        assert await it.receiver.receive_some() == b"3"
        assert it.link.broken
        with pytest.raises(trio.BrokenResourceError):
            await it.receiver.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await it.sender.send_all(b"7")


async def test_a_reset_after_nothing_is_one_now(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        it.direction.reset_after(0)
        assert it.link.broken


async def test_an_end_at_a_byte_is_the_end_for_the_reader_alone(way: str, autojump_clock) -> None:
    async with connected(way) as it:
        it.direction.end_after(3)
        await it.sender.send_all(b"12345")
        assert await it.receiver.receive_some() == b"123"
        assert await it.receiver.receive_some() == b""
        await it.sender.send_all(b"x" * 2 * BUFFER)
        assert await it.receiver.receive_some() == b""
        await it.receiver.send_all(b"still there")
        assert await it.sender.receive_some() == b"still there"


async def test_an_end_after_nothing_wakes_who_waits(way: str, autojump_clock) -> None:
    async with connected(way) as it, trio.open_nursery() as nursery:

        async def read() -> None:
            assert await it.receiver.receive_some() == b""

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        it.direction.end_after(0)


async def test_a_reset_does_not_pass_a_stalled_or_cut_direction(autojump_clock) -> None:
    async with connected() as it:
        await it.sender.send_all(b"unread")
        it.link.to_client.stall()
        await it.receiver.aclose()
        assert not it.link.broken
        it.link.to_client.resume()
        assert it.link.broken
    async with connected() as it:
        await it.sender.send_all(b"unread")
        it.link.to_client.cut()
        await it.receiver.aclose()
        assert not it.link.broken


async def test_who_has_gone_is_known_if_the_server_can_know_it() -> None:
    async with connected() as it:
        assert not it.link._client_has_gone
        it.link.to_server.stall()
        await it.sender.aclose()
        assert not it.link._client_has_gone
        it.link.to_server.resume()
        assert it.link._client_has_gone
    async with connected() as it:
        it.link.reset()
        assert it.link._client_has_gone


async def test_a_link_carries_one_connection() -> None:
    async with connected() as it:
        network = MemoryNetwork()
        async with network.listen():
            with pytest.raises(RuntimeError, match="one connection"):
                await network.connect("localhost", 80, link=it.link)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("latency", -1),
        ("latency", math.nan),
        ("jitter", -1),
        ("bandwidth", 0),
        ("chunk", 0),
        ("chunk", (3, 2)),
        ("chunk", (0, 2)),
        ("buffer", -1),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=setting):
        Link(**{setting: value})
    link = Link()
    with pytest.raises(ValueError, match=setting):
        setattr(link.to_client, setting, value)


async def test_a_repr_tells_the_state() -> None:
    assert repr(Link()) == "<Link new: 0 bytes to the server, 0 back>"
    async with connected() as it:
        await it.sender.send_all(b"abc")
        assert repr(it.link) == "<Link in use: 3 bytes to the server, 0 back>"
        assert repr(it.direction) == "<Direction from the client: 3 sent, 0 received>"
        it.link.reset()
        assert repr(it.link) == "<Link reset: 3 bytes to the server, 0 back>"
