"""A nursery that lives no longer than its connection, in every order of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Peer
from _helpers import connect_peer as connect_to_peer
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_ws._errors import ConnectionClosed, ConnectionEnded, ConnectionLost
from trio_ws._messages import CloseInfo
from trio_ws._options import Options
from trio_ws.testing import Frame, cancellations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_ws._session import Session
    from trio_ws._websocket import WebSocket

    Connect = Callable[..., tuple[Session, Peer]]

GRACE = Options().close_grace


async def until_cancelled(reasons: list[str | None]) -> None:
    """Produce nothing for ever, and note why that ended."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled as exc:
        reasons.append(exc.reason)
        raise


async def busy_with(ws: WebSocket, seconds: float, got: list[Any]) -> None:
    """Receive, and work on each message for a while."""
    while True:
        got.append(await ws.receive())
        await trio.sleep(seconds)


# The end of the connection...


async def test_producers_are_told_that_the_peer_closes(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(until_cancelled, reasons)
            nursery.start_soon(until_cancelled, reasons)
            await wait_all_tasks_blocked()
            await peer.send(Frame.close(1001, "lunch"))
        assert trio.current_time() == 0
    assert reasons == ["the WebSocket was closed by the peer (1001 'lunch')"] * 2


async def test_producers_are_told_that_the_peer_is_gone(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(until_cancelled, reasons)
            await wait_all_tasks_blocked()
            await peer.aclose()
        assert ws.close_info is not None
    assert reasons == [f"the WebSocket was {ws.close_info}"]
    assert "lost (1006" in str(reasons)


async def test_the_body_of_the_block_is_cancelled_too(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        async with ws.open_nursery():
            await peer.send(Frame.close(1000))
            await trio.sleep_forever()
        assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)


async def test_a_block_that_ends_before_the_connection_is_a_plain_nursery(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, _ = connect_peer()
    done: list[int] = []

    async def work() -> None:
        await trio.sleep(7)
        done.append(1)

    async with us as ws:
        with assert_checkpoints():
            manager = ws.open_nursery()
            nursery = await manager.__aenter__()
        nursery.start_soon(work)
        await manager.__aexit__(None, None, None)
        assert done == [1]
        assert ws.close_info is None
        assert not nursery.cancel_scope.cancel_called


async def test_a_consumer_that_waits_is_cancelled_at_once(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 0, got)
            await peer.send(Frame.text("one"))
            await wait_all_tasks_blocked()
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 0
    assert got == ["one"]


async def test_a_busy_consumer_gets_all_that_was_received(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 1, got)
            nursery.start_soon(until_cancelled, reasons)
            for number in b"0", b"1", b"2":
                await peer.send(Frame.text(number))
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 3
    assert got == ["0", "1", "2"]
    assert len(reasons) == 1


async def test_a_consumer_that_does_not_come_back_gets_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 1000, got)
            await peer.send(Frame.text("one"))
            await trio.sleep(10)
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 10 + GRACE
    assert got == ["one"]


async def test_a_consumer_that_starts_in_this_instant_gets_what_is_unread(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        await peer.send(Frame.text("one"))
        await peer.send(Frame.close(1000))
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 0, got)
        assert trio.current_time() == 0
    assert got == ["one"]


async def test_nobody_waits_for_producers_because_of_unread_messages(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(until_cancelled, reasons)
            await peer.send(Frame.text("one"))
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 0
        assert ws.statistics().unread_messages == 1
    assert len(reasons) == 1


# Who consumes...


async def test_who_receives_elsewhere_keeps_no_producers_alive(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    reasons: list[str | None] = []
    async with us as ws, trio.open_nursery() as outer:
        async with ws.open_nursery() as nursery:
            outer.start_soon(busy_with, ws, 1, got)
            nursery.start_soon(until_cancelled, reasons)
            await peer.send(Frame.text("one"))
            await wait_all_tasks_blocked()
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 0
        assert got == ["one"]
        outer.cancel_scope.cancel()
    assert len(reasons) == 1


async def test_who_has_received_before_the_block_is_no_consumer_of_it(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("one"))
        await ws.receive()
        async with ws.open_nursery():
            await peer.send(Frame.close(1000))
            await trio.sleep_forever()
        assert trio.current_time() == 0


async def test_the_body_can_be_the_consumer(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        async with ws.open_nursery():
            await peer.send(Frame.text("one"))
            await ws.receive()
            await peer.send(Frame.close(1000))
            await trio.sleep_forever()
        assert trio.current_time() == GRACE


@pytest.mark.parametrize("leaving", [0, 2])
async def test_the_body_is_no_consumer_once_it_has_ended(
    connect_peer: Connect, autojump_clock: MockClock, leaving: float
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(until_cancelled, reasons)
            await peer.send(Frame.text("one"))
            await ws.receive()
            await peer.send(Frame.close(1000))
            await trio.sleep(leaving)
        assert trio.current_time() == leaving
    assert len(reasons) == 1


async def test_a_task_that_has_returned_is_no_consumer(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(ws.receive)
            nursery.start_soon(until_cancelled, reasons)
            await peer.send(Frame.text("one"))
            await wait_all_tasks_blocked()
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 0
    assert len(reasons) == 1


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_consumer_may_be_further_down(
    connect_peer: Connect, autojump_clock: MockClock, depth: int
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []

    async def nest(depth: int) -> None:
        async with trio.open_nursery() as inner:
            if depth:
                inner.start_soon(nest, depth - 1)
            else:
                inner.start_soon(busy_with, ws, 1, got)

    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(nest, depth)
            for number in b"0", b"1", b"2":
                await peer.send(Frame.text(number))
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 3
    assert got == ["0", "1", "2"]


async def test_a_consumer_may_be_in_a_nursery_within_the_block(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        async with ws.open_nursery(), trio.open_nursery() as inner:
            inner.start_soon(busy_with, ws, 1, got)
            for number in b"0", b"1", b"2":
                await peer.send(Frame.text(number))
            await peer.send(Frame.close(1000))
        assert trio.current_time() == 3
    assert got == ["0", "1", "2"]


async def test_nurseries_may_be_nested(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()
    outer_reasons: list[str | None] = []
    inner_reasons: list[str | None] = []
    async with us as ws:
        async with ws.open_nursery() as outer:
            outer.start_soon(until_cancelled, outer_reasons)
            async with ws.open_nursery() as inner:
                inner.start_soon(until_cancelled, inner_reasons)
                await wait_all_tasks_blocked()
                await peer.send(Frame.close(1000))
                await trio.sleep_forever()
            assert inner_reasons
            await trio.sleep_forever()
        assert outer_reasons == inner_reasons


async def test_a_nursery_without_a_consumer_does_not_wait_for_one_beside_it(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    reasons: list[str | None] = []
    ended: list[float] = []

    async def produce() -> None:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(until_cancelled, reasons)
        ended.append(trio.current_time())

    async def consume() -> None:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 1, got)
        ended.append(trio.current_time())

    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(consume)
        await peer.send(Frame.text("one"))
        await wait_all_tasks_blocked()
        await peer.send(Frame.close(1000))
    assert ended == [0, 1]


async def test_a_nursery_contains_its_block_and_what_is_below_until_it_is_closed(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    here = trio.lowlevel.current_task()
    async with us as ws, trio.open_nursery() as outer:
        manager = ws.open_nursery()
        async with manager as nursery:
            nursery.start_soon(trio.sleep, 1)
            outer.start_soon(trio.sleep, 1)
            (inside,), (beside,) = nursery.child_tasks, outer.child_tasks
            assert manager.contains(here)
            assert manager.contains(inside)
            assert not manager.contains(beside)
        assert not manager.contains(here)
        assert not manager.contains(inside)
        assert not manager.consuming


# Our own goodbye...


async def test_a_local_close_cancels_at_once_whoever_is_busy(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws, trio.open_nursery() as outside:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 1000, got)
            await peer.send(Frame.text("one"))
            await peer.send(Frame.text("two"))
            await wait_all_tasks_blocked()
            outside.start_soon(ws.aclose)
            outside.start_soon(peer.answer)
        assert trio.current_time() == 0
    assert got == ["one"]


async def close_in_the_body(ws: WebSocket) -> None:
    async with ws.open_nursery():
        await ws.aclose(4000, "bye")
        await trio.sleep_forever()


async def close_in_a_task(ws: WebSocket) -> None:
    async with ws.open_nursery() as nursery:
        nursery.start_soon(ws.aclose, 4000, "bye")
        await trio.sleep_forever()


async def close_in_a_nested_nursery(ws: WebSocket) -> None:
    async with ws.open_nursery(), ws.open_nursery() as inner:
        inner.start_soon(ws.aclose, 4000, "bye")
        await trio.sleep_forever()


closers = pytest.mark.parametrize(
    "close", [close_in_the_body, close_in_a_task, close_in_a_nested_nursery]
)


@closers
async def test_a_task_of_the_nursery_can_say_goodbye_in_full(
    connect_peer: Connect, autojump_clock: MockClock, close: Callable[[WebSocket], Awaitable[None]]
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as outside:
        outside.start_soon(peer.answer)
        await close(ws)
        assert ws.close_info == CloseInfo(4000, "bye", "local", clean=True)
        assert trio.current_time() == 0


@closers
async def test_a_goodbye_from_within_ends_with_its_callers_time(
    connect_peer: Connect, autojump_clock: MockClock, close: Callable[[WebSocket], Awaitable[None]]
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        with trio.move_on_after(1):
            await close(ws)
        assert trio.current_time() == 1
        assert (await peer.until_close()).code == 4000
        assert await peer.receive_frame() is None


@closers
async def test_a_goodbye_from_within_is_bounded_by_the_grace(
    connect_peer: Connect, autojump_clock: MockClock, close: Callable[[WebSocket], Awaitable[None]]
) -> None:
    us, _ = connect_peer()
    async with us as ws:
        await close(ws)
        assert trio.current_time() == GRACE


async def test_tcp_can_be_ended_at_once_from_within(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.aclose_forcefully, ws)
            await trio.sleep_forever()
        assert trio.current_time() == 0


# What comes out of the block...


async def receive(ws: WebSocket) -> None:
    await ws.receive()


async def fail() -> None:
    raise KeyError("mine")


@pytest.mark.parametrize("code", [1000, 4000], ids=["politely", "rudely"])
async def test_being_told_by_an_error_is_being_cancelled(
    connect_peer: Connect, autojump_clock: MockClock, code: int
) -> None:
    us, peer = connect_peer()
    seen: list[BaseException] = []

    async def note() -> None:
        with trio.CancelScope(shield=True):
            try:
                await ws.receive()
            except ConnectionClosed as exc:
                seen.append(exc)
                raise

    async with us as ws, ws.open_nursery() as nursery:
        nursery.start_soon(note)
        await wait_all_tasks_blocked()
        await peer.send(Frame.close(code))
    assert [type(exc) for exc in seen] == [ConnectionEnded if code == 1000 else ConnectionLost]


async def test_the_body_may_be_told_by_an_error(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("one"))
        await peer.send(Frame.close(1000))
        async with ws.open_nursery():
            async for _ in ws:
                pass
            await ws.send("too late")
        assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)


async def test_errors_that_are_no_end_come_out_in_a_group(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()

    async def fail_in_a_group() -> None:
        with trio.CancelScope(shield=True):
            await ws.wait_closed()
        raise ExceptionGroup("mixed", [ValueError("mine"), ConnectionLost(ws.close_info)])

    async with us as ws:
        with pytest.RaisesGroup(
            pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="mine"))
        ) as info:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(fail_in_a_group)
                await wait_all_tasks_blocked()
                await peer.send(Frame.close(4000))
    assert info.value.__context__ is None


async def test_an_error_while_the_connection_is_fine_comes_out_as_it_is(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, _ = connect_peer()
    async with us as ws:
        with pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="mine")):
            async with ws.open_nursery() as nursery:
                nursery.start_soon(fail)
                await trio.sleep_forever()
        await ws.send("still open")


async def test_an_error_of_the_body_comes_out_with_its_cause(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    cause = ValueError("cause")
    async with us as ws:
        with pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="mine")) as info:
            async with ws.open_nursery():
                raise KeyError("mine") from cause
    assert info.value.exceptions[0].__cause__ is cause


async def test_an_interrupt_comes_out(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()

    async def interrupt() -> None:
        raise KeyboardInterrupt

    async with us as ws:
        with pytest.RaisesGroup(KeyboardInterrupt):
            async with ws.open_nursery() as nursery:
                nursery.start_soon(receive, ws)
                nursery.start_soon(interrupt)
                await peer.send(Frame.close(1000))


async def test_the_end_of_another_connection_is_an_error(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """Even if it ended in the same way."""
    us, peer = connect_peer()
    other, other_peer = connect_peer()
    async with us as ws, other as other_ws:
        await peer.send(Frame.close(4000))
        await other_peer.send(Frame.close(4000))
        await ws.wait_closed()
        await other_ws.wait_closed()
        assert ws.close_info == other_ws.close_info
        with pytest.RaisesGroup(ConnectionLost):
            async with ws.open_nursery():
                with trio.CancelScope(shield=True):
                    await other_ws.receive()


async def test_an_error_from_before_the_peers_answer_is_known(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """What is known about the end changes when the peer answers our Close."""
    us, peer = connect_peer()

    async def send() -> None:
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            try:
                await ws.send("too late")
            finally:
                await peer.send(Frame.close(1012))
                await ws.wait_closed()

    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(send)
            ws._connection.begin_close(1012, "")  # as a server does that drains
        assert ws.close_info == CloseInfo(1012, "", "local", clean=True)


async def test_an_error_from_before_the_loss_is_known_is_known(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """Writing fails at once, while the reading side has yet to find out."""
    us, peer = connect_peer()
    peer.break_way(trio.BrokenResourceError("reset"))

    async def send() -> None:
        while True:
            await ws.send("lost")

    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(send)
        assert ws.close_info is None
        await peer.send(Frame.close(1000))
        await ws.wait_closed()


async def test_cancelling_from_outside_works_as_with_any_nursery(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        with trio.CancelScope() as scope:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(until_cancelled, reasons)
                await wait_all_tasks_blocked()
                scope.cancel(reason="enough")
        assert scope.cancelled_caught
        assert reasons == ["enough"]
        assert ws.close_info is None
        await ws.send("still open")
        assert await peer.receive_message() == "still open"


async def test_being_cancelled_from_outside_at_the_end_is_being_cancelled(
    connect_peer: Connect,
    autojump_clock: MockClock,
) -> None:
    us, peer = connect_peer()

    async def receive_shielded() -> None:
        with trio.CancelScope(shield=True):
            await ws.receive()

    async with us as ws:
        with trio.CancelScope() as scope:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(receive_shielded)
                await wait_all_tasks_blocked()
                scope.cancel()
                await peer.send(Frame.close(1000))
                await trio.sleep_forever()
        assert scope.cancelled_caught


def test_without_strict_groups_it_ends_quietly_too() -> None:
    async def main() -> None:
        us, peer = connect_to_peer("server")
        async with us as ws, ws.open_nursery() as nursery:
            nursery.start_soon(receive, ws)
            await peer.send(Frame.close(1000))

    with pytest.warns(trio.TrioDeprecationWarning, match="strict_exception_groups"):
        trio.run(main, clock=MockClock(autojump_threshold=0), strict_exception_groups=False)


# Opened when it is over...


async def test_a_nursery_that_is_opened_behind_the_end_is_cancelled(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        await peer.send(Frame.close(1001))
        await ws.wait_closed()
        ended_at = trio.current_time()
        for _ in range(2):
            async with ws.open_nursery() as nursery:
                nursery.start_soon(until_cancelled, reasons)
    async with ws.open_nursery() as nursery:
        nursery.start_soon(until_cancelled, reasons)
    assert reasons == ["the WebSocket was closed by the peer (1001)"] * 3
    assert trio.current_time() == ended_at


@pytest.mark.parametrize("late", [0.1, 60], ids=["in the grace", "behind it"])
@pytest.mark.parametrize("goodbye", ["close", "eof"])
async def test_a_late_nursery_receives_what_is_unread(
    connect_peer: Connect, autojump_clock: MockClock, late: float, goodbye: str
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        for number in b"0", b"1", b"2":
            await peer.send(Frame.text(number))
        await (peer.send(Frame.close(1000)) if goodbye == "close" else peer.aclose())
        await trio.sleep(late)
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 1, got)
        assert trio.current_time() == late + 3
    assert got == ["0", "1", "2"]


@pytest.mark.parametrize("late", [0.1, 60], ids=["in the grace", "behind it"])
async def test_a_late_nursery_in_which_nobody_receives_is_cancelled_at_once(
    connect_peer: Connect, autojump_clock: MockClock, late: float
) -> None:
    us, peer = connect_peer()
    reasons: list[str | None] = []
    async with us as ws:
        await peer.send(Frame.text("one"))
        await peer.send(Frame.close(4000))
        await trio.sleep(late)
        async with ws.open_nursery() as nursery:
            nursery.start_soon(until_cancelled, reasons)
        assert trio.current_time() == late
    assert reasons == ["the WebSocket was closed by the peer (4000)"]


async def test_a_late_nursery_gets_no_more_than_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        await peer.send(Frame.text("one"))
        await peer.send(Frame.close(1000))
        await trio.sleep(60)
        async with ws.open_nursery() as nursery:
            nursery.start_soon(busy_with, ws, 1000, got)
        assert trio.current_time() == 60 + GRACE
    assert got == ["one"]


# Cancellation...


async def test_cancelling_it_at_any_step_leaves_nothing_behind(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    async for attempt in cancellations():
        us, peer = connect_peer()
        got: list[Any] = []
        reasons: list[str | None] = []
        async with us as ws:
            await peer.send(Frame.text("one"))
            with attempt:
                async with ws.open_nursery() as nursery:
                    nursery.start_soon(until_cancelled, reasons)
                    nursery.start_soon(busy_with, ws, 1, got)
                    await wait_all_tasks_blocked()
                    await peer.send(Frame.close(1000))
            assert ws._connection.nurseries == []
        assert await peer.answer(), attempt
