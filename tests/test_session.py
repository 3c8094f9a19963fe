"""The block around a WebSocket: what it says at the end, what comes out, and what is left."""

from __future__ import annotations

import socket
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import DEFLATE, STATEFUL_DEFLATE, Peer, Role
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._errors import ConnectionLost, JoinRefused
from trio_ws._flag import Flag
from trio_ws._messages import CloseInfo
from trio_ws._options import Options
from trio_ws._pump import Pump
from trio_ws._session import Session
from trio_ws.testing import Frame, cancellations

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_ws._deflate import DeflateParameters

    Connect = Callable[..., tuple[Session, Peer]]

GRACE = Options().close_grace

compressions = pytest.mark.parametrize(
    "deflate", [None, DEFLATE, STATEFUL_DEFLATE], ids=["plain", "deflate", "stateful"]
)


class Interrupt(BaseException):
    """Something that is no `Exception`."""


# What the end of the block says...


async def test_leaving_the_block_says_1000(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        async with us as ws:
            assert ws is us.ws
    assert peer.close == Frame.close(1000)
    assert ws.close_info == CloseInfo(1000, "", "local", clean=True)
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("make_error", "code"),
    [
        pytest.param(lambda: ValueError("why"), 1011, id="exception"),
        pytest.param(lambda: ExceptionGroup("why", [ValueError()]), 1011, id="group"),
        pytest.param(lambda: trio.EndOfChannel("of another one"), 1011, id="end of channel"),
        pytest.param(lambda: Interrupt("why"), 1001, id="base exception"),
        pytest.param(KeyboardInterrupt, 1001, id="keyboard interrupt"),
        pytest.param(SystemExit, 1001, id="system exit"),
        pytest.param(lambda: BaseExceptionGroup("why", [Interrupt()]), 1001, id="base group"),
    ],
)
async def test_an_exception_says_so_and_comes_out_as_it_is(
    connect_peer: Connect,
    autojump_clock: MockClock,
    make_error: Callable[[], BaseException],
    code: int,
) -> None:
    us, peer = connect_peer()
    error = make_error()
    cause, context = LookupError("cause"), KeyError("context")
    error.add_note("a note")

    async def body() -> None:
        try:
            raise context
        except KeyError:
            raise error from cause

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        try:
            async with us as ws:
                await body()
        except BaseException as exc:  # noqa: ASYNC103, BLE001  # it must be the same
            came_out = exc
    assert came_out is error
    assert error.__cause__ is cause
    assert error.__context__ is context
    assert error.__suppress_context__
    assert error.__notes__ == ["a note"]
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names == [test_an_exception_says_so_and_comes_out_as_it_is.__name__, "body"]
    assert peer.close == Frame.close(code)
    assert ws.close_info == CloseInfo(code, "", "local", clean=True)


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_refusal_is_told_in_its_own_words(
    connect_peer: Connect, autojump_clock: MockClock, *, grouped: bool
) -> None:
    us, peer = connect_peer()
    error: Exception = JoinRefused("lobby", "it is full", 1013)
    if grouped:
        error = ExceptionGroup("", [error])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        try:
            async with us as ws:
                raise error
        except (JoinRefused, ExceptionGroup) as exc:
            assert exc is error  # noqa: PT017  # itself, in no other group
    assert peer.close == Frame.close(1013, "it is full")
    assert ws.close_info == CloseInfo(1013, "it is full", "local", clean=True)


async def test_the_context_of_an_exception_is_what_was_handled_around_the_block(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    outer = LookupError("outer")

    async def handle() -> None:
        try:
            raise outer
        except LookupError:
            async with us:  # noqa: ASYNC120  # nobody cancels it
                raise ValueError("inner")  # noqa: B904  # the context is the point

    with pytest.raises(ValueError, match="inner") as info:
        await handle()
    assert info.value.__context__ is outer
    assert info.value.__cause__ is None


async def test_a_group_of_a_nursery_in_the_block_comes_out_as_it_is(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()

    async def fail() -> None:
        raise ValueError("mine")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="mine")):
        async with us, trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)


async def test_cancelling_the_block_says_1001(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        with trio.move_on_after(3) as scope:
            async with us as ws:
                await ws.send("said before")
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert peer.messages == ["said before"]
    assert peer.close == Frame.close(1001)
    assert ws.close_info == CloseInfo(1001, "", "local", clean=True)
    assert trio.current_time() == 3


async def test_a_block_that_is_cancelled_waits_for_a_mute_peer_within_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(close_grace=2))
    with trio.move_on_after(3) as scope:
        async with us:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == 3 + 2
    assert await peer.until_end() == [Frame.close(1001)]


async def test_leaving_never_takes_longer_than_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(close_grace=2, write_timeout=None))
    peer.way.buffer = 5
    async with us as ws:
        for _ in range(500):
            await peer.send(Frame.text("unread"))
        await ws.send(bytes(1_000_000))
        await trio.sleep(10)
    assert trio.current_time() == 12


async def test_leaving_after_the_end_takes_no_time(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("unread"))
        await peer.aclose()
        await trio.sleep(1)
        await ws.wait_closed()
    assert trio.current_time() == 1
    assert ws.close_info is not None
    assert ws.close_info.initiator == "lost"


async def test_leaving_while_the_peers_close_waits_for_an_answer_answers_it(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us:
        await peer.send(Frame.text("unread"))
        await peer.send(Frame.close(4000))
        await peer.send_end()
        await wait_all_tasks_blocked()
    assert trio.current_time() == 0
    assert await peer.until_end() == [Frame.close(4000)]


async def test_behind_the_block_everything_is_closed(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("unread"))
        await wait_all_tasks_blocked()
    for method in (ws.receive, ws.ping, lambda: ws.send("x")):
        with pytest.raises(trio.ClosedResourceError):
            await method()
    await ws.aclose()
    assert await ws.wait_closed() == ws.close_info


async def test_the_end_of_the_peer_is_no_exception_of_the_block(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.close(4000))
        with pytest.raises(ConnectionLost):
            await ws.receive()
    assert ws.close_info == CloseInfo(4000, "", "remote", clean=True)


# Tasks...


def tasks_of(ws_id: str) -> list[str]:
    """The names of a connection's tasks, wherever they are."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, todo = [], [root]
    while todo:
        task = todo.pop()
        if task.name.endswith(ws_id):
            found.append(task.name)
        todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sorted(found)


@pytest.mark.parametrize("interval", [20, None])
async def test_the_tasks_of_a_connection_live_in_its_block(
    connect_peer: Connect, autojump_clock: MockClock, interval: float | None
) -> None:
    us, peer = connect_peer(Options(ping_interval=interval))
    async with us as ws:
        keepalive = [] if interval is None else [f"keepalive of {ws.id}"]
        assert tasks_of(ws.id) == [*keepalive, f"reader of {ws.id}", f"writer of {ws.id}"]
        await peer.send(Frame.close(1000))
        await ws.wait_closed()
    assert tasks_of(ws.id) == []


async def test_keepalive_is_no_task_of_the_block_where_a_pump_sees_to_it(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    pump = Pump()
    us, peer = connect_peer(Options(ping_interval=20), pump=pump)
    async with us as ws:
        assert tasks_of(ws.id) == [f"reader of {ws.id}", f"writer of {ws.id}"]
        assert len(pump.alarms) == 1
        await peer.send(Frame.close(1000))
        await ws.wait_closed()
    pump._close()


async def test_a_task_that_fails_against_all_promises_is_seen(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()

    async def fail(scope: trio.CancelScope) -> None:
        raise KeyError("bug")

    us._connection._writer.run = fail  # a bug
    with pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="bug")):
        async with us:
            await trio.sleep_forever()


@compressions
async def test_cancelling_the_block_at_any_step_leaves_nothing_and_says_goodbye(
    connect_peer: Connect, autojump_clock: MockClock, deflate: DeflateParameters | None
) -> None:
    async for attempt in cancellations():
        us, peer = connect_peer(deflate=deflate)
        received: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer)
            await peer.send(Frame.text("hello"))
            with attempt:
                async with us as ws:
                    await ws.send("x" * 3000)
                    received.append(await ws.receive())
                    async with ws.open_message(text=False) as part:
                        await part.send(b"y" * 3000)
                    await ws.ping()
        assert peer.close is not None, attempt
        assert peer.close.code in {1000, 1001}
        expected: list[str | bytes] = ["x" * 3000, b"y" * 3000]
        assert peer.messages == expected[: len(peer.messages)]
        if not attempt.cancelled:
            assert peer.close.code == 1000
            assert received == ["hello"]
            assert peer.messages == expected
        assert tasks_of(us.ws.id) == []


# What a session knows...


async def test_what_a_session_hands_on(role: Role, autojump_clock: MockClock) -> None:
    (ours, theirs) = (
        trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair()
    )
    draining = Flag()
    us = Session(
        ours,
        Options(),
        client=role == "client",
        leftover=b"",
        subprotocol="chat.v2",
        draining=draining,
        name="0123456789abcdef",
    )
    async with us as ws:
        assert ws.subprotocol == "chat.v2"
        assert ws.draining is draining
        assert ws.id == "0123456789abcdef"
        assert ws.local_address == ours.socket.getsockname()
        assert ws.remote_address == ours.socket.getpeername()
        assert ws.request is None
        await theirs.aclose()


async def test_what_a_session_makes_up(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()
    other, other_peer = connect_peer()
    async with us as ws, other as other_ws:
        assert len(ws.id) == 16
        assert ws.id != other_ws.id
        assert not ws.draining
        assert ws.subprotocol is None
        await peer.aclose()
        await other_peer.aclose()
