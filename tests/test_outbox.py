"""Where frames wait to be written: their order, their bounds, and who waits for room."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws._budget import Budget
from trio_ws._outbox import BATCH, MAX_PONGS, Outbox
from trio_ws.testing import cancellations


def raise_over() -> Exception:
    return ValueError("over")


def drain(outbox: Outbox) -> bytes:
    """Play the writing task until nothing is left."""
    written = b""
    while not outbox.empty:
        written += outbox.next_batch()
        outbox.written()
    return written


async def send(outbox: Outbox, *frames: bytes) -> None:
    await outbox.take_turn()
    outbox.put(frames)
    outbox.end_turn()


# The order...


async def test_control_frames_overtake_data_and_the_close_does_not() -> None:
    outbox = Outbox(math.inf)
    left: list[str] = []
    outbox.put([b"data1", b"data2"])
    outbox.put_ping(b"ping", lambda: left.append("ping"))
    outbox.put_pong(lambda: b"pong")
    outbox.put([b"data3"])
    outbox.put_close(b"close")
    assert outbox.closing
    assert outbox.next_batch() == b"pongpingdata1data2data3close"
    assert left == []
    outbox.written()
    assert left == ["ping"]
    assert outbox.empty


async def test_no_pong_follows_the_close() -> None:
    outbox = Outbox(math.inf)
    outbox.put_close(b"close")
    outbox.put_pong(lambda: pytest.fail("wsproto would refuse to make it"))
    assert drain(outbox) == b"close"


async def test_a_control_frame_gets_in_between_the_frames_of_a_message() -> None:
    outbox = Outbox(math.inf)
    frame = b"x" * BATCH
    outbox.put([frame, frame])
    assert outbox.next_batch() is frame  # one alone is not copied
    outbox.put_pong(lambda: b"pong")
    outbox.written()
    assert outbox.next_batch() == b"pong" + frame


async def test_a_batch_has_about_64_kib() -> None:
    outbox = Outbox(math.inf)
    outbox.put([b"x" * 1000] * 100)
    assert len(outbox.next_batch()) == 66_000
    outbox.written()
    assert outbox.size == 34_000
    assert len(outbox.next_batch()) == 34_000
    assert not outbox.empty
    outbox.written()
    assert outbox.empty


async def test_of_many_pongs_the_last_ones_leave_in_order() -> None:
    outbox = Outbox(math.inf)
    for number in range(1000):
        outbox.put_pong(lambda number=number: b"%03d" % number)
    assert drain(outbox) == b"".join(b"%03d" % number for number in range(1000 - MAX_PONGS, 1000))


async def test_the_writing_task_sleeps_until_there_is_something_to_write() -> None:
    outbox = Outbox(math.inf)
    for put, frame in (
        (lambda: outbox.put([b"data"]), b"data"),
        (lambda: outbox.put_ping(b"ping", lambda: None), b"ping"),
        (lambda: (outbox.put_pong(lambda: b"pong"), outbox.send_pongs()), b"pong"),
        (lambda: outbox.put_close(b"close"), b"close"),
    ):
        with trio.move_on_after(0) as scope:
            await outbox.wait_work()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.wait_work)
            await wait_all_tasks_blocked()
            put()
        assert drain(outbox) == frame


# Turns and room...


async def test_waiting_senders_keep_their_order() -> None:
    outbox = Outbox(limit=1)
    outbox.put([b"0"])
    async with trio.open_nursery() as nursery:
        for number in range(1, 9):
            nursery.start_soon(send, outbox, b"%d" % number)
            await wait_all_tasks_blocked()
        assert outbox.waiting_senders == 8
        written = b""
        while outbox.waiting_senders:
            written += outbox.next_batch()
            outbox.written()
            await wait_all_tasks_blocked()
    assert written + drain(outbox) == b"012345678"


async def test_nobody_gets_between_the_parts_of_a_message() -> None:
    outbox = Outbox(math.inf)
    await outbox.take_turn()
    outbox.put([b"part1"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, outbox, b"other")
        await wait_all_tasks_blocked()
        assert not outbox.has_room()
        outbox.put([b"part2"])
        outbox.end_turn()
    assert outbox.has_room()
    assert drain(outbox) == b"part1part2other"


async def test_there_is_room_below_the_limit_not_at_it() -> None:
    outbox = Outbox(limit=10)
    outbox.put([b"x" * 9])
    assert outbox.has_room()
    outbox.put([b"x"])
    assert not outbox.has_room()
    outbox.next_batch()
    assert not outbox.has_room()  # being written is not written
    outbox.written()
    assert outbox.has_room()


async def test_a_message_of_any_length_goes_in_whole_once_there_is_room() -> None:
    outbox = Outbox(limit=10)
    await send(outbox, b"x" * 100, b"y" * 100)
    assert outbox.size == 200
    with trio.move_on_after(0) as scope:
        await send(outbox, b"z")
    assert scope.cancelled_caught
    assert drain(outbox) == b"x" * 100 + b"y" * 100


async def test_cancelling_a_sender_at_any_step_queues_all_or_nothing() -> None:
    async for attempt in cancellations():
        outbox = Outbox(limit=1)
        outbox.put([b"-"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, outbox, b"a", b"b")
            await wait_all_tasks_blocked()

            async def write(outbox: Outbox = outbox) -> bytes:
                written = b""
                while outbox.waiting_senders or not outbox.empty:
                    written += outbox.next_batch()
                    outbox.written()
                    await wait_all_tasks_blocked()
                return written

            finished: list[bytes] = []

            async def run(finished: list[bytes] = finished) -> None:
                finished.append(await write())

            nursery.start_soon(run)
            with attempt:
                await send(outbox, b"c", b"d")
            await send(outbox, b"e")
        middle = b"" if attempt.cancelled else b"cd"
        assert finished[0] + drain(outbox) == b"-ab" + middle + b"e"


async def test_a_task_that_has_the_turn_is_told_not_to_wait_for_itself() -> None:
    outbox = Outbox(math.inf)
    await outbox.take_turn()
    with pytest.raises(RuntimeError, match="would wait for itself"):
        await outbox.take_turn()
    outbox.end_turn()
    await send(outbox, b"fine")


async def test_feeders_are_called_when_there_may_be_room() -> None:
    outbox = Outbox(limit=10)
    fed: list[int] = []

    def feed() -> None:
        fed.append(outbox.size)
        outbox.feeders.remove(feed)  # as rooms do when nobody is behind any more

    outbox.feeders.append(feed)
    await send(outbox, b"x" * 10, b"x" * BATCH)
    assert fed == [BATCH + 10]
    outbox.feeders.append(feed)
    outbox.next_batch()
    outbox.written()
    assert fed == [BATCH + 10, 0]


async def test_feeders_are_not_called_while_it_is_full() -> None:
    outbox = Outbox(limit=10)
    outbox.put([b"x" * BATCH, b"y" * 10])
    outbox.feeders.append(lambda: pytest.fail("there is no room"))
    outbox.next_batch()
    outbox.written()
    assert outbox.size == 10


# The end...


async def test_every_sender_is_told_about_the_end() -> None:
    outbox = Outbox(limit=1)
    outbox.put([b"x"])
    told: list[str] = []

    async def try_to_send() -> None:
        with pytest.raises(ValueError, match="over"):
            await send(outbox, b"y")
        told.append("told")

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(try_to_send)
        await wait_all_tasks_blocked()
        outbox.refuse(raise_over)
        await wait_all_tasks_blocked()
        assert told == ["told"] * 3
        nursery.start_soon(try_to_send)
    assert len(told) == 4
    for method in (outbox.check, outbox.has_room):
        with pytest.raises(ValueError, match="over"):
            method()
    assert drain(outbox) == b"x"


async def test_the_end_is_told_even_if_somebody_keeps_the_turn() -> None:
    outbox = Outbox(math.inf)
    await outbox.take_turn()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def try_to_send() -> None:
            with pytest.raises(ValueError, match="over"):
                await outbox.take_turn()

        await wait_all_tasks_blocked()
        outbox.refuse(raise_over)
    outbox.end_turn()


async def test_two_who_wait_for_room_in_one_turn_are_both_told() -> None:
    outbox = Outbox(limit=1)
    await send(outbox, b"x")
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ValueError, match="over"):
                await outbox.wait_room()

        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert outbox.waiting_senders == 2
        outbox.refuse(raise_over)


async def test_who_is_cancelled_by_the_end_hears_of_that_first() -> None:
    outbox = Outbox(limit=1)
    outbox.put([b"x"])
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def end() -> None:
                await wait_all_tasks_blocked()
                outbox.refuse(raise_over)
                scope.cancel()

            await send(outbox, b"y")
    assert scope.cancelled_caught


async def test_what_has_not_begun_to_leave_can_be_dropped() -> None:
    outbox = Outbox(math.inf)
    outbox.put([b"x" * BATCH, b"y"])
    outbox.put_ping(b"ping", lambda: None)
    assert outbox.next_batch() == b"ping" + b"x" * BATCH
    outbox.put_pong(lambda: b"pong")
    outbox.put_ping(b"ping", lambda: pytest.fail("it has not left"))
    outbox.discard()
    assert outbox.size == BATCH
    outbox.put_close(b"close")
    outbox.written()
    assert drain(outbox) == b"close"


async def test_what_was_being_written_when_it_ended_is_forgotten() -> None:
    outbox = Outbox(math.inf)
    outbox.put([b"x", b"y" * BATCH, b"z"])
    outbox.put_ping(b"ping", lambda: pytest.fail("nobody knows whether it has left"))
    outbox.next_batch()
    outbox.stop()
    assert outbox.empty
    assert outbox.size == 0
    outbox.written()


async def test_feeders_are_told_about_the_end() -> None:
    outbox = Outbox(math.inf)
    told: list[str] = []
    outbox.feeders.append(lambda: told.append("told"))
    outbox.refuse(raise_over)
    assert told == ["told"]


# A budget (see test_budget.py)...


def test_what_is_queued_for_one_alone_is_told_to_the_budget() -> None:
    budget = Budget(1000)
    outbox = Outbox(math.inf, lambda: None, budget.open_account(lambda: None))
    outbox.put([b"own"])
    outbox.put([b"everybody's"], shared=True)
    outbox.put([b"own", b" too"])
    assert budget.used == 10
    outbox.next_batch()
    assert budget.used == 10  # until it has left
    outbox.written()
    assert budget.used == 0


def test_what_remains_is_never_more_than_there_is() -> None:
    """Which frames are shared is not remembered: the others are taken to leave last."""
    budget = Budget(1000)
    outbox = Outbox(math.inf, lambda: None, budget.open_account(lambda: None))
    outbox.put([b"x" * 10])
    outbox.put([b"x" * (BATCH - 10), b"x" * 7], shared=True)
    outbox.next_batch()
    outbox.written()
    assert (outbox.size, budget.used) == (7, 7)
    outbox.discard()
    assert budget.used == 0


async def test_a_ping_that_nobody_waits_for_need_not_leave() -> None:
    outbox = Outbox(math.inf)
    first = outbox.put_ping(b"one", lambda: pytest.fail("it has been withdrawn"))
    second = outbox.put_ping(b"two", lambda: None)
    outbox.withdraw_ping(first)
    assert drain(outbox) == b"two"
    outbox.withdraw_ping(second)  # too late
    assert outbox.empty


# Past the queue...


def test_a_frame_that_nothing_is_before_may_leave_at_once() -> None:
    left: list[bytes] = []

    def write_through(frame: bytes) -> bool:
        left.append(frame)
        return frame != b"not at once"

    outbox = Outbox(math.inf, lambda: None, write_through=write_through)
    outbox.put([b"at once"])
    assert outbox.empty
    outbox.put([b"not at once"])
    outbox.put([b"behind it"])
    assert left == [b"at once", b"not at once"]
    assert drain(outbox) == b"not at oncebehind it"
    outbox.put([b"two", b"frames"])
    assert outbox.waiting
    assert left == [b"at once", b"not at once"]


def test_none_leaves_at_once_before_those_who_wait_for_room() -> None:
    outbox = Outbox(math.inf, lambda: None, write_through=lambda _: pytest.fail("too early"))
    outbox.feeders.append(lambda: None)
    outbox.put([b"in the queue"])
    assert outbox.waiting


@pytest.mark.parametrize(("shared", "own"), [(False, 10), (True, 0)])
def test_a_frame_that_has_begun_to_leave_is_neither_waiting_nor_gone(
    shared: bool, own: int
) -> None:
    budget = Budget(1000)

    def write_through(frame: bytes) -> bool:
        outbox.begin(len(frame))
        return True

    account = budget.open_account(lambda: None)
    outbox = Outbox(math.inf, lambda: None, account, write_through)
    outbox.put([b"0123456789"], shared=shared)
    assert (outbox.size, outbox.waiting, outbox.empty) == (10, False, False)
    assert budget.used == own
    outbox.discard()
    assert (outbox.size, budget.used) == (10, own)
    outbox.written()
    assert (outbox.size, outbox.empty, budget.used) == (0, True, 0)
