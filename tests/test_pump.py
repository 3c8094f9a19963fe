"""The pump: who is told when there is something to read, and who is not any more."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws import _pump
from trio_ws._pump import TURN, Pump, open_pump

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pass shall end because the machine has other things to do."""
    monkeypatch.setattr(_pump, "PASS", math.inf)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Recorder:
    """A source that reads, and notes what it got; ``then`` is done at each read."""

    def __init__(self, ours: socket.socket, then: Callable[[], None] = lambda: None) -> None:
        self.ours = ours
        self.then = then
        self.got: list[bytes] = []
        self.left = 0

    def read_some(self, now: float) -> None:
        self.got.append(self.ours.recv(100))
        self.then()

    def leave_pump(self) -> None:
        self.left += 1


@asynccontextmanager
async def running() -> AsyncIterator[Pump]:
    async with trio.open_nursery() as nursery:
        pump = Pump()
        await nursery.start(pump.work)
        yield pump
        pump.stop()


async def test_a_source_is_told_each_time_there_is_something_to_read(pair: Pair) -> None:
    ours, theirs = pair
    source = Recorder(ours)
    async with running() as pump:
        pump.add(ours.fileno(), source)
        for data in (b"one", b"two"):
            theirs.send(data)
            await wait_all_tasks_blocked(0.01)
        assert source.got == [b"one", b"two"]
        pump.remove(ours.fileno())
        theirs.send(b"three")
        await wait_all_tasks_blocked(0.01)
        assert source.got == [b"one", b"two"]
    assert source.left == 0


async def test_the_end_of_a_stream_is_something_to_read(pair: Pair) -> None:
    ours, theirs = pair
    async with running() as pump:
        source = Recorder(ours, lambda: pump.remove(ours.fileno()))
        pump.add(ours.fileno(), source)
        theirs.close()
        await wait_all_tasks_blocked(0.01)
        assert source.got == [b""]


async def test_a_source_may_remove_another_whose_turn_would_be_next() -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    sources: list[Recorder] = []
    async with running() as pump:

        def remove_all() -> None:
            for each in sources:
                pump.remove(each.ours.fileno())

        for ours, theirs in pairs:
            sources.append(Recorder(ours, remove_all))
            pump.add(ours.fileno(), sources[-1])
            theirs.send(b"x")
        await wait_all_tasks_blocked(0.01)
        assert sorted(source.got for source in sources) == [[], [b"x"]]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_others_get_their_turn_between_many_sources() -> None:
    read = 0
    most = 0

    def count() -> None:
        nonlocal read
        read += 1

    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(5 * TURN)]
        for each in itertools.chain(*pairs):
            stack.enter_context(each)
        async with running() as pump:
            for ours, theirs in pairs:
                pump.add(ours.fileno(), Recorder(ours, count))
                theirs.send(b"x")
            while read < len(pairs):
                before = read
                await trio.lowlevel.checkpoint()
                most = max(most, read - before)
    assert TURN <= most <= 2 * TURN  # behind us in one round, before us in the next


async def test_a_source_that_fails_is_left_to_itself_and_the_others_are_told(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("bug")

    ours, theirs = pair
    bad, good = Recorder(ours, fail), Recorder(theirs)
    async with running() as pump:
        bad.leave_pump = lambda: pump.remove(ours.fileno())  # type: ignore[method-assign]  # as it should
        pump.add(ours.fileno(), bad)
        pump.add(theirs.fileno(), good)
        theirs.send(b"x")
        await wait_all_tasks_blocked(0.01)
        pump.call_soon(fail)
        await wait_all_tasks_blocked()
        ours.send(b"y")
        await wait_all_tasks_blocked(0.01)
        assert (bad.got, good.got) == ([b"x"], [b"y"])
        pump.remove(theirs.fileno())
    assert [record.getMessage() for record in caplog.records] == [
        "a connection failed inside the pump"
    ] * 2


async def test_a_callback_runs_once_and_behind_those_who_are_ready() -> None:
    order: list[str] = []

    async def be_ready() -> None:  # it has its turn, that is all
        order.append("ready")

    def call() -> None:
        order.append("called")

    async with running() as pump, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        nursery.start_soon(be_ready)
        pump.call_soon(call)
        pump.call_soon(call)
        assert order == []
        await wait_all_tasks_blocked()
        assert sorted(order) == ["called", "ready"]


async def test_a_callback_may_ask_for_another() -> None:
    called: list[int] = []
    async with running() as pump:

        def again() -> None:
            called.append(len(called))
            if len(called) < 3:
                pump.call_soon(again)

        pump.call_soon(again)
        await wait_all_tasks_blocked()
        assert called == [0, 1, 2]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_is_there_when_it_ends_is_sent_away(pair: Pair, cancelled: bool) -> None:
    ours, _ = pair
    source = Recorder(ours)
    called: list[str] = []
    pump = Pump()

    def call() -> None:
        called.append("due")
        pump.call_soon(lambda: called.append("asked for in the end"))

    async with trio.open_nursery() as nursery:
        await nursery.start(pump.work)
        await wait_all_tasks_blocked()
        pump.add(ours.fileno(), source)
        pump.call_soon(call)
        if cancelled:
            nursery.cancel_scope.cancel()
        else:
            pump.stop()
    assert pump.closed
    assert source.left == 1
    assert called == ["due", "asked for in the end"]
    pump.remove(ours.fileno())  # by one that was sent away: nothing happens
    pump.call_soon(lambda: called.append("at once"))
    assert called[-1] == "at once"


async def test_one_that_is_cancelled_before_it_runs_closes_nevertheless() -> None:
    pump = Pump()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.work)
        nursery.cancel_scope.cancel()
    assert pump.closed


def test_a_closed_one_watches_nothing_more() -> None:
    pump = Pump()
    pump._close()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="closed"):
        pump.add(ours.fileno(), Recorder(ours))
    assert not pump._sources


def test_there_is_none_where_the_system_has_no_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_pump.select, "epoll", raising=False)
    assert open_pump() is None


def test_there_is_none_where_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(_pump.select, "epoll", fail, raising=False)
    assert open_pump() is None


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
def test_there_is_one_where_the_system_has_an_epoll() -> None:
    pump = open_pump()
    assert pump is not None
    pump._close()


async def test_who_reads_for_long_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many are ready; and each of them gets its own turn before anybody's second."""
    monkeypatch.setattr(_pump, "PASS", 0)
    happened: list[object] = []
    pairs = [socket.socketpair() for _ in range(4)]

    async def count_turns() -> None:
        while True:
            happened.append("others")
            await trio.lowlevel.checkpoint()

    async with running() as pump, trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        while not happened:  # noqa: ASYNC110  # turns are what is counted here
            await trio.lowlevel.checkpoint()
        for number, (ours, theirs) in enumerate(pairs):
            pump.add(ours.fileno(), Recorder(ours, lambda number=number: happened.append(number)))
            theirs.send(bytes(200))  # which takes two reads
        while len([each for each in happened if each != "others"]) < 8:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    numbers = [each for each in happened if each != "others"]
    assert sorted(numbers[:4]) == sorted(numbers[4:]) == list(range(4))
    first, last = (happened.index(each) for each in (numbers[0], numbers[3]))
    assert happened[first:last].count("others") >= 2  # once in each round but the outer ones
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


@pytest.mark.parametrize("stopped_by", range(4))
async def test_callbacks_take_turns_too_and_none_is_lost_when_it_stops(
    monkeypatch: pytest.MonkeyPatch, stopped_by: int
) -> None:
    monkeypatch.setattr(_pump, "PASS", 0)
    called: list[int] = []
    async with running() as pump:

        def call(number: int) -> None:
            called.append(number)
            if number == stopped_by:
                pump.stop()

        for number in range(4):
            pump.call_soon(partial(call, number))
        pump.call_soon(lambda: pump.call_soon(partial(call, 4)))
        await wait_all_tasks_blocked()
    assert called == [0, 1, 2, 3, 4]
