"""Pings on their way: which Pong answers which, and what is forgotten."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from trio_ws._options import Options
from trio_ws._outbox import Outbox
from trio_ws._pings import Pings
from trio_ws._protocol import Protocol


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(math.inf, lambda: None)


@pytest.fixture
def pings(outbox: Outbox) -> Pings:
    return Pings(outbox, Protocol(client=False, options=Options()))


def let_out(outbox: Outbox) -> bytes:
    data = outbox.next_batch()
    outbox.written()
    return data


async def test_a_pong_answers_its_ping_and_all_before_it(
    pings: Pings, outbox: Outbox, autojump_clock: MockClock
) -> None:
    first, second, third = (pings.start(payload) for payload in (b"1", b"2", b"3"))
    assert not first.left
    assert let_out(outbox) == b"\x89\x011\x89\x012\x89\x013"
    assert first.left
    await trio.sleep(2)
    pings.match(b"2")
    assert (first.round_trip, second.round_trip, third.round_trip) == (2, 2, None)
    assert first.over.is_set()
    assert second.over.is_set()
    assert not third.over.is_set()
    assert pings.latency == 2
    assert (b"2" in pings, b"3" in pings, len(pings)) == (False, True, 1)


async def test_the_time_begins_when_the_ping_has_left(
    pings: Pings, outbox: Outbox, autojump_clock: MockClock
) -> None:
    ping = pings.start(b"1")
    await trio.sleep(5)
    let_out(outbox)
    await trio.sleep(1)
    pings.match(b"1")
    assert ping.round_trip == 1


async def test_a_pong_that_nobody_asked_for_changes_nothing(pings: Pings) -> None:
    pings.start(b"1")
    pings.match(b"2")
    assert len(pings) == 1
    assert pings.latency is None


async def test_a_ping_that_is_forgotten_need_not_leave(pings: Pings, outbox: Outbox) -> None:
    pings.forget(b"1", pings.start(b"1"))
    assert outbox.empty
    assert len(pings) == 0


async def test_forgetting_one_that_has_left_forgets_no_other(pings: Pings, outbox: Outbox) -> None:
    first = pings.start(b"1")
    let_out(outbox)
    pings.match(b"1")
    second = pings.start(b"1")
    pings.forget(b"1", first)
    assert len(pings) == 1
    pings.forget(b"1", second)
    assert len(pings) == 0


async def test_in_the_end_all_are_woken(pings: Pings) -> None:
    waiting = [pings.start(payload) for payload in (b"1", b"2")]
    pings.wake_all()
    assert all(ping.over.is_set() and ping.round_trip is None for ping in waiting)
