"""Keepalive: who is pinged, who is given up, and who must not be."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Peer
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._errors import ConnectionLost
from trio_ws._messages import CloseInfo
from trio_ws._options import Options
from trio_ws._pump import Pump
from trio_ws.testing import Frame
from trio_ws.testing._frame import PING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_ws._session import Session

    Connect = Callable[..., tuple[Session, Peer]]

WATCHED = Options(ping_interval=10, ping_timeout=4, write_timeout=None, close_grace=1)


@pytest.fixture(params=["a task of its own", "the pump's alarms"])
async def connect_peer(
    connect_peer: Connect, request: pytest.FixtureRequest
) -> AsyncIterator[Connect]:
    if request.param == "a task of its own":
        yield connect_peer
    else:
        async with trio.open_nursery() as nursery:
            pump = Pump()
            await nursery.start(pump.work)
            yield partial(connect_peer, pump=pump)
            pump.stop()


class Watch:
    """The pings that a peer gets, noted in the background."""

    def __init__(self, nursery: trio.Nursery, peer: Peer, *, answer: bool = True) -> None:
        self.times: list[float] = []
        nursery.start_soon(self._run, peer, answer)

    async def _run(self, peer: Peer, answer: bool) -> None:
        while (frame := await peer.receive_frame()) is not None:
            if frame.opcode == PING:
                self.times.append(trio.current_time())
                if answer:
                    await peer.send(Frame.pong(bytes(frame.payload)))


async def test_a_silent_peer_is_pinged_and_stays(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    async with trio.open_nursery() as nursery:
        watch = Watch(nursery, peer)
        async with us as ws:
            assert ws.latency is None
            await trio.sleep(35)
            assert ws.latency == 0
            assert ws.close_info is None
            assert ws.statistics().pings_in_flight == 0
    assert watch.times == [10, 20, 30]


async def test_a_dead_peer_is_given_up_when_its_time_is_over(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    async with us as ws:
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert trio.current_time() == 14
        assert info.value.info == CloseInfo(
            1006, "keepalive: nothing came for 4 s after a ping", "lost", clean=False
        )
        assert await ws.wait_closed() == ws.close_info
        assert trio.current_time() == 14
    (ping,) = await peer.until_end()
    assert ping.opcode == PING  # and no Close: who should read it


async def test_by_default_that_takes_40_seconds(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    async with us as ws:
        await ws.wait_closed()
        assert trio.current_time() == 40


async def test_a_busy_peer_is_never_pinged(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    async with trio.open_nursery() as nursery:
        watch = Watch(nursery, peer)
        async with us as ws:
            for _ in range(10):
                await trio.sleep(9)
                await peer.send(Frame.text("tick"))
                await ws.receive()
    assert watch.times == []


async def test_any_byte_is_life(connect_peer: Connect, autojump_clock: MockClock) -> None:
    """A peer that is slow to send a long message may not get around to the pong."""
    us, peer = connect_peer(WATCHED)
    frame = peer.wire(Frame.binary(b"x" * 30))
    async with us as ws, trio.open_nursery() as nursery:
        watch = Watch(nursery, peer, answer=False)

        @nursery.start_soon
        async def send_slowly() -> None:
            for byte in frame:
                await trio.sleep(12)
                await peer.send(bytes([byte]))

        assert await ws.receive() == b"x" * 30
        assert trio.current_time() == 12 * len(frame)
        assert len(watch.times) == len(frame)
        nursery.cancel_scope.cancel()


async def test_a_message_that_comes_counts_as_well_as_a_pong(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    async with us as ws, trio.open_nursery() as nursery:
        watch = Watch(nursery, peer, answer=False)
        await trio.sleep(13)
        await peer.send(Frame.text("alive"))
        await trio.sleep(15)
        assert ws.close_info is not None
        assert watch.times == [10, 23]
        nursery.cancel_scope.cancel()


async def test_the_time_runs_from_when_the_ping_has_left(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    peer.way.buffer = 0
    async with us as ws, trio.open_nursery() as nursery:
        watch = Watch(nursery, peer)
        await trio.sleep(100)
        assert ws.close_info is None
        peer.way.buffer = None
        await trio.sleep(3)
        assert watch.times == [100]
        assert ws.latency == 0
        await ws.aclose()
        nursery.cancel_scope.cancel()


async def test_a_ping_that_has_left_late_is_waited_for_in_full(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    peer.way.buffer = 0
    async with us as ws:
        await trio.sleep(101)
        peer.way.buffer = None
        await ws.wait_closed()
        assert trio.current_time() == 105


async def test_no_verdict_while_this_side_does_not_read(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED.replace(receive_buffer=1))
    async with us as ws, trio.open_nursery() as nursery:
        Watch(nursery, peer)
        await peer.send(Frame.text("one"))
        await trio.sleep(95)
        assert ws.statistics().reading_paused
        assert ws.close_info is None
        assert await ws.receive() == "one"  # and now the pong can be seen
        await trio.sleep(3)
        assert ws.latency == 5  # of the last ping; others went before it
        await trio.sleep(100)
        assert ws.close_info is None
        await ws.aclose()
        nursery.cancel_scope.cancel()


async def test_pings_go_on_while_this_side_does_not_read(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """A peer that has gone shows in nothing else than a failing write."""
    us, peer = connect_peer(WATCHED.replace(receive_buffer=10))
    async with trio.open_nursery() as nursery:
        watch = Watch(nursery, peer)
        async with us as ws:
            await peer.send(Frame.binary(bytes(10)))
            await trio.sleep(35)
            assert ws.statistics().reading_paused
            assert watch.times == [10, 20, 30]
            peer.break_way(trio.BrokenResourceError("reset by the peer"))
            await trio.sleep(5 + 1 + 1)  # the next ping, close_grace, and a moment
            assert ws.close_info is not None
            assert ws.close_info.code == 1006
            nursery.cancel_scope.cancel()


async def test_a_pause_gives_the_peer_its_whole_time_again(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED.replace(receive_buffer=1))
    async with us as ws:
        await trio.sleep(5)
        await peer.send(Frame.text("the last"))
        await trio.sleep(96)
        await ws.receive()
        await ws.wait_closed()
        assert trio.current_time() == 105


async def test_the_application_may_take_its_time_while_the_peer_never_stops(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(ping_interval=1, ping_timeout=1))
    async with us as ws, trio.open_nursery() as nursery:
        Watch(nursery, peer)

        @nursery.start_soon
        async def flood() -> None:
            while True:
                await peer.send(Frame.binary(bytes(32 * 1024)))
                await trio.sleep(0.1)

        for _ in range(100):
            await trio.sleep(0.5)
            await ws.receive()
        assert ws.close_info is None
        await ws.aclose()
        nursery.cancel_scope.cancel()


async def test_a_process_that_stood_still_first_reads_what_came(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    for _ in range(8):  # in what order tasks run is left to chance
        us, peer = connect_peer(WATCHED)
        async with us as ws:
            await trio.sleep(10)
            await wait_all_tasks_blocked()  # the ping has left
            await peer.send(Frame.pong())
            autojump_clock.jump(1000)
            await trio.sleep(1)
            assert ws.close_info is None


async def test_pings_go_on_while_the_peer_may_take_longer_than_the_interval(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED.replace(ping_timeout=100))
    async with trio.open_nursery() as nursery:
        watch = Watch(nursery, peer)
        async with us:
            await trio.sleep(55)
    assert watch.times == [10, 20, 30, 40, 50]


async def test_without_a_timeout_pings_go_out_all_the_same(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED.replace(ping_timeout=None))
    async with us as ws, trio.open_nursery() as nursery:
        watch = Watch(nursery, peer, answer=False)
        await trio.sleep(55)
        assert watch.times == [10, 20, 30, 40, 50]
        assert ws.close_info is None
        assert ws.statistics().pings_in_flight == 1
        await peer.send(Frame.text("alive"))
        await trio.sleep(11)
        assert watch.times[-1] == 65
        await ws.aclose()
        nursery.cancel_scope.cancel()


async def test_without_an_interval_there_is_no_keepalive(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED.replace(ping_interval=None))
    async with us as ws:
        await trio.sleep(80_000)
        assert ws.close_info is None
    assert not any(frame.opcode == PING for frame in await peer.until_end())


async def test_keepalive_ends_with_the_connection(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    async with us as ws:
        await trio.sleep(12)  # a ping is on its way
        await peer.send(Frame.close(1000))
        await trio.sleep(100)
        assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)
    frames: list[Any] = await peer.until_end()
    assert sum(frame.opcode == PING for frame in frames) == 1


async def test_a_ping_of_keepalive_is_not_in_the_way_of_the_users(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(WATCHED)
    async with us as ws:
        await trio.sleep(10)
        await wait_all_tasks_blocked()
        assert ws.statistics().pings_in_flight == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.ping, b"mine")
            await wait_all_tasks_blocked()
            await peer.send(Frame.pong(b"mine"))  # which answers the one before, too
        assert ws.statistics().pings_in_flight == 0
