"""A server's connection whose socket is read by the pump, until there is more to do."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from _helpers import Peer
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._budget import Budget
from trio_ws._connection import TURN
from trio_ws._errors import ConnectionEnded, ConnectionLost
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._messages import OVERHEAD, CloseInfo
from trio_ws._options import KIB, Options
from trio_ws._pump import TURN as PUMP_TURN
from trio_ws._pump import Pump
from trio_ws._session import Session
from trio_ws._transport import READ
from trio_ws._websocket import WebSocket

PING, PONG = 0x9, 0xA
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
ANSWER = b"\x88\x02\x03\xe8"
OPTIONS = Options(compression=None, ping_interval=None)


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return encode_frame(opcode, payload, fin=fin, masked=True)


@pytest.fixture
def sockets() -> Iterator[tuple[trio.SocketStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield trio.SocketStream(trio.socket.from_stdlib_socket(ours)), theirs


Sockets = tuple[trio.SocketStream, socket.socket]


@asynccontextmanager
async def pumped(
    stream: trio.SocketStream, options: Options = OPTIONS, leftover: bytes = b""
) -> AsyncIterator[tuple[WebSocket, Pump]]:
    async with trio.open_nursery() as nursery:
        pump = Pump()
        await nursery.start(pump.work)
        us = Session(stream, options, client=False, leftover=leftover, pump=pump)
        async with us as ws:
            yield ws, pump
        assert not us._nursery.child_tasks
        assert not pump._sources
        assert stream.socket.fileno() == -1
        pump.stop()


async def settle() -> None:
    for _ in range(3):
        await wait_all_tasks_blocked()


def tasks_of(ws: WebSocket) -> set[str]:
    return {task.name for task in ws._connection.tasks.child_tasks}


@pytest.mark.parametrize("interval", [20, None])
async def test_an_open_connection_has_no_task_of_its_own(
    sockets: Sockets, autojump_clock: MockClock, interval: float | None
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(ping_interval=interval)) as (ws, _):
        peer.send(frame(TEXT, b"hello"))
        assert await ws.receive() == "hello"
        assert tasks_of(ws) == set()
        peer.send(CLOSE)
        with pytest.raises(ConnectionEnded):
            await ws.receive()
        assert tasks_of(ws) == set()  # what there was to do is done
        assert peer.recv(100) == ANSWER
        assert peer.recv(100) == b""
        assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)


async def test_frames_right_behind_the_handshake_are_heard(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    leftover = frame(PING, b"1") + frame(TEXT, b"one") + CLOSE
    async with pumped(stream, leftover=leftover) as (ws, _):
        assert [message async for message in ws] == ["one"]
        await ws.wait_closed()
    assert peer.recv(100) == b"\x8a\x011" + ANSWER


async def test_pings_are_answered_while_nobody_receives(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream):
        peer.send(frame(TEXT, b"unread") + frame(PING, b"1"))
        await settle()
        assert peer.recv(100) == b"\x8a\x011"
        peer.send(CLOSE)


async def test_reading_pauses_while_much_is_unread(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    options = OPTIONS.replace(receive_buffer=1000)
    async with pumped(stream, options) as (ws, pump):
        peer.send(frame(BINARY, bytes(1000)) + frame(BINARY, b"behind it") + frame(PING, b"1"))
        peer.send(frame(TEXT, b"not read yet"))
        await settle()
        assert ws.statistics().unread_messages == 1
        assert ws.statistics().reading_paused
        assert ws._connection.reading_since is None
        assert not pump._sources
        assert await ws.receive() == bytes(1000)
        await settle()
        assert peer.recv(100) == b"\x8a\x011"
        assert ws._connection.reading_since is not None
        assert [await ws.receive(), await ws.receive()] == [b"behind it", "not read yet"]
        peer.send(CLOSE)


async def test_a_consumer_of_a_long_message_lets_it_in_whole(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    text = b"long " * 10_000
    options = OPTIONS.replace(receive_buffer=1000)
    async with pumped(stream, options) as (ws, _):
        peer.send(frame(TEXT, text[:20_000], fin=False))
        await settle()
        assert ws.statistics().reading_paused
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                assert await ws.receive() == text.decode()

            nursery.start_soon(receive)
            await settle()
            peer.send(frame(CONTINUATION, text[20_000:]))
        peer.send(CLOSE)


async def test_others_get_their_turn_while_a_flood_is_read(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(receive_buffer=None)) as (ws, _):
        peer.send(frame(TEXT, b"x") * (9 * TURN))
        seen = 0
        while seen < 9 * TURN:
            await trio.lowlevel.checkpoint()
            now = ws.statistics().unread_messages
            assert now - seen <= 2 * TURN  # behind us in one round, before us in the next
            seen = now
        peer.send(CLOSE)


async def test_the_end_of_tcp_without_a_close_is_a_loss(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream) as (ws, _):
        peer.close()
        with pytest.raises(ConnectionLost, match="ended TCP without a Close"):
            await ws.receive()


async def test_a_reset_is_a_loss_with_its_reason(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    async with pumped(stream) as (ws, _):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionLost, match="reset by peer") as caught:
            await ws.receive()
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)


async def test_a_violation_is_told_and_lingered_for(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream) as (ws, _):
        peer.send(b"\xff\xff")
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert caught.value.code == 1002
        await settle()
        assert peer.recv(100)[:4] == b"\x88" + bytes([peer_length(caught.value)]) + b"\x03\xea"
        assert tasks_of(ws) == {f"reader of {ws.id}"}
        assert peer.recv(100) == b""


def peer_length(error: ConnectionLost) -> int:
    return 2 + len(error.reason.encode())


async def test_our_close_waits_for_that_of_the_peer(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream) as (ws, _), trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        await settle()
        assert peer.recv(100) == ANSWER
        peer.send(frame(TEXT, b"too late") + CLOSE)
    assert ws.close_info == CloseInfo(1000, "", "local", clean=True)


async def test_a_mute_peer_is_left_after_the_grace(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, _ = sockets
    began = trio.current_time()
    async with pumped(stream) as (ws, _):
        pass
    assert trio.current_time() - began == OPTIONS.close_grace
    assert ws.close_info == CloseInfo(1000, "", "local", clean=False)


async def test_tcp_can_be_ended_at_once(sockets: Sockets, autojump_clock: MockClock) -> None:
    stream, peer = sockets
    began = trio.current_time()
    async with pumped(stream) as (ws, _):
        await trio.aclose_forcefully(ws)
    assert trio.current_time() == began
    assert peer.recv(100) == ANSWER


async def test_an_answer_that_does_not_leave_is_waited_for(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream) as (ws, _):
        await ws.send(bytes(2_000_000))
        peer.send(CLOSE)
        await settle()
        assert tasks_of(ws) == {f"reader of {ws.id}", f"writer of {ws.id}"}
        got = 0
        while got < 2_000_000 + 8 * 10 + 4:
            got += len(peer.recv(1_000_000))
            await settle()
    assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)


async def test_nurseries_are_cancelled_when_the_peer_closes(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream) as (ws, _):
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            peer.send(CLOSE)
        assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)


async def test_a_failure_inside_is_logged_once_and_told(
    sockets: Sockets, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    stream, peer = sockets

    def fail(most: int, room: float) -> None:
        raise KeyError("bug")

    async with pumped(stream) as (ws, _):
        ws._connection.protocol.next_messages = fail  # type: ignore[method-assign, assignment]  # a bug
        peer.send(frame(TEXT, b"x"))
        with pytest.raises(ConnectionLost, match="failed inside"):
            await ws.receive()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR


@pytest.mark.parametrize("paused", [False, True])
async def test_without_the_pump_it_reads_on_its_own(
    sockets: Sockets, autojump_clock: MockClock, paused: bool
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(receive_buffer=100)) as (ws, pump):
        if paused:
            peer.send(frame(TEXT, b"1" * 100) + frame(TEXT, b"2"))
        await settle()
        pump.stop()
        await settle()
        if paused:
            assert [await ws.receive(), await ws.receive()] == ["1" * 100, "2"]
        peer.send(frame(TEXT, b"3"))
        assert await ws.receive() == "3"
        assert tasks_of(ws) == {f"reader of {ws.id}"}
        peer.send(CLOSE)


async def test_a_pump_that_has_ended_is_not_asked(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    pump = Pump()
    pump._close()
    async with Session(stream, OPTIONS, client=False, leftover=b"", pump=pump) as ws:
        peer.send(frame(TEXT, b"hello"))
        assert await ws.receive() == "hello"
        peer.send(CLOSE)


async def test_one_that_is_paused_when_the_pump_ends_goes_on_for_its_consumer(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    pump = Pump()
    options = OPTIONS.replace(receive_buffer=1)
    async with Session(stream, options, client=False, leftover=b"", pump=pump) as ws:
        peer.send(frame(TEXT, b"begin, ", fin=False) + frame(CONTINUATION, b"end"))
        ws._connection._pumped.read_pending()
        assert ws.statistics().reading_paused
        pump._close()
        with trio.fail_after(1):
            assert await ws.receive() == "begin, end"
        peer.send(CLOSE)


async def test_a_message_that_nobody_waits_for_is_read_in_small_steps(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    large = frame(BINARY, bytes(200_000))
    async with pumped(stream) as (ws, _):
        peer.send(large[:60_000])
        await settle()
        peer.send(large[60_000:])
        await settle()
        assert ws.statistics().reading_paused
        assert ws.statistics().unread_bytes < 60_000 + READ
        assert await ws.receive() == bytes(200_000)
        peer.send(CLOSE)


async def test_what_a_paused_connection_holds_can_be_closed(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(receive_buffer=1)) as (ws, _):
        peer.send(frame(TEXT, bytes(64 * KIB)))
        await settle()
        assert ws.statistics().reading_paused
        peer.send(CLOSE)
    assert ws.close_info == CloseInfo(1000, "", "local", clean=True)


async def test_what_is_yet_to_be_handled_is_handled_when_the_pump_has_ended(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    """There is more than is handled in a row, and nobody who would go on later."""
    stream, peer = sockets
    async with pumped(stream) as (ws, pump):
        await settle()
        pings = b"".join(frame(PING, b"%03d" % number) for number in range(4 * TURN))
        peer.send(pings + frame(TEXT, b"end"))
        ws._connection.read_pending()
        pump._close()
        assert await ws.receive() == "end"
        peer.send(CLOSE)


async def test_who_was_heard_but_not_read_yet_lives(mock_clock: MockClock) -> None:
    """After a standstill there is more to read than the pump reads in a row."""
    count = 4 * PUMP_TURN
    options = OPTIONS.replace(ping_interval=10, ping_timeout=5, close_grace=1)
    async with AsyncExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(count)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        pump = Pump()
        await nursery.start(pump.work)
        connections: list[WebSocket] = []
        for ours, theirs in pairs:
            stack.callback(theirs.close)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            us = Session(stream, options, client=False, leftover=b"", pump=pump)
            connections.append(await stack.enter_async_context(us))
        await settle()
        mock_clock.jump(11)
        await settle()
        for _, theirs in pairs:
            theirs.send(frame(PONG, theirs.recv(100)[2:]))
        mock_clock.jump(9)
        await settle()
        found = [ws.close_info for ws in connections]
        for ws in connections:
            ws._connection.give_up("that was it")  # no clock bounds a goodbye here
        nursery.cancel_scope.cancel()
    assert found == [None] * count


async def test_who_was_not_heard_is_given_up(sockets: Sockets, autojump_clock: MockClock) -> None:
    stream, _ = sockets
    async with pumped(stream, OPTIONS.replace(ping_interval=10, ping_timeout=5)) as (ws, _):
        info = await ws.wait_closed()
    assert trio.current_time() == 15
    assert info.reason == "keepalive: nothing came for 5 s after a ping"


async def test_keepalive_keeps_nothing_of_a_connection_whose_block_has_ended(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(ping_interval=10)) as (ws, pump):
        assert [entry[2].look is None for entry in pump.alarms._heap] == [False]
        peer.send(CLOSE)
        await ws.wait_closed()
    assert [entry[2].look is None for entry in pump.alarms._heap] == [True]


async def test_where_the_pump_has_ended_keepalive_is_a_task(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, _ = sockets
    pump = Pump()
    pump._close()
    options = OPTIONS.replace(ping_interval=10, ping_timeout=5)
    async with Session(stream, options, client=False, leftover=b"", pump=pump) as ws:
        assert tasks_of(ws) == {f"reader of {ws.id}", f"keepalive of {ws.id}"}
        await ws.wait_closed()
    assert trio.current_time() == 15


async def test_who_was_not_heard_is_given_up_without_a_pump_as_well(
    connect_peer: Callable[..., tuple[Session, Peer]], autojump_clock: MockClock
) -> None:
    us, _ = connect_peer(OPTIONS.replace(ping_interval=10, ping_timeout=5))
    async with us as ws:
        info = await ws.wait_closed()
    assert trio.current_time() == 15
    assert info.reason == "keepalive: nothing came for 5 s after a ping"


async def test_one_that_the_system_does_not_watch_is_read_by_a_task(
    sockets: Sockets, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, peer = sockets

    def fail(fd: int, source: object) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    async with trio.open_nursery() as nursery:
        pump = Pump()
        await nursery.start(pump.work)
        monkeypatch.setattr(pump, "add", fail)
        async with Session(stream, OPTIONS, client=False, leftover=b"", pump=pump) as ws:
            assert tasks_of(ws) == {f"reader of {ws.id}"}
            peer.send(frame(TEXT, b"hello") + CLOSE)
            assert [message async for message in ws] == ["hello"]
        pump.stop()


async def test_who_is_not_read_from_is_not_asked_for_what_is_pending(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(receive_buffer=1)) as (ws, _):
        peer.send(frame(TEXT, b"1"))
        await settle()
        peer.send(frame(TEXT, b"2"))
        ws._connection.read_pending()
        assert ws.statistics().bytes_received == len(frame(TEXT, b"1"))
        assert [await ws.receive(), await ws.receive()] == ["1", "2"]
        peer.send(CLOSE)


async def test_one_that_has_left_the_pump_meanwhile_does_not_go_on(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream, OPTIONS.replace(receive_buffer=100)) as (ws, _):
        peer.send(frame(TEXT, b"1" * 100) + frame(TEXT, b"2"))
        await settle()
        await ws.receive()  # there is room, soon
        ws._connection.give_up("that was it")
        with pytest.raises(ConnectionLost, match="that was it"):
            await ws.receive()


async def test_a_wake_up_for_nothing_changes_nothing(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    async with pumped(stream) as (ws, pump):
        ws._connection._pumped.read_some(trio.current_time())
        assert len(pump._sources) == 1
        peer.send(frame(TEXT, b"hello"))
        assert await ws.receive() == "hello"
        peer.send(CLOSE)


async def test_what_it_has_not_parsed_is_told_to_the_budget(
    sockets: Sockets, autojump_clock: MockClock
) -> None:
    stream, peer = sockets
    budget = Budget(100_000)
    async with trio.open_nursery() as nursery:
        pump = Pump()
        await nursery.start(pump.work)
        options = OPTIONS.replace(receive_buffer=100)
        us = Session(stream, options, client=False, leftover=b"", pump=pump, budget=budget)
        async with us as ws:
            message = frame(BINARY, bytes(100))
            peer.send(2 * message)
            await settle()
            assert budget.used == 100 + OVERHEAD + 2 * len(message)  # the whole read is kept
            assert await ws.receive() == await ws.receive()
            await settle()
            assert budget.used == 0
            peer.send(CLOSE)
        pump.stop()
