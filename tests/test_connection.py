"""One connection: its two tasks, how it ends in every way, and who is told what."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import CLOSE, DEFLATE, Peer, Role, other
from _helpers import connect_peer as connect_to_peer
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._connection import GOODBYE_TIME, TURN, close_code_for
from trio_ws._errors import ConnectionEnded, ConnectionLost, ProtocolViolation
from trio_ws._messages import CloseCode, CloseInfo, PreparedMessage
from trio_ws._options import KIB, MIB, Options
from trio_ws._outbox import MAX_PONGS
from trio_ws._session import Session
from trio_ws._transport import Transport
from trio_ws.testing import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_ws._websocket import WebSocket

    Connect = Callable[..., tuple[Session, Peer]]

GRACE = Options().close_grace
POLITE = CloseInfo(1000, "", "remote", clean=True)


async def receive_all(ws: WebSocket) -> list[Any]:
    return [message async for message in ws]


async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


# Reading...


async def test_frames_right_behind_the_handshake_are_heard(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    _, peer = connect_peer()  # only to mask the frames
    leftover = peer.wire(Frame.ping(b"1"), Frame.text("one"), Frame.close(1000))
    us, peer = connect_peer(leftover=leftover)
    async with us as ws:
        assert await receive_all(ws) == ["one"]
        await peer.send_end()
        await ws.wait_closed()
    assert await peer.until_end() == [Frame.pong(b"1"), Frame.close(1000)]


async def test_pings_are_answered_while_nobody_receives(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us:
        await peer.send(Frame.text("unread"))
        for payload in (b"", b"payload", bytes(125)):
            await peer.send(Frame.ping(payload))
            await peer.expect(Frame.pong(payload))


async def test_pings_are_answered_while_a_sender_waits(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(write_timeout=None, send_buffer=1))
    peer.way.buffer = 100_000
    async with us as ws, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ws.send, bytes(90_000))
        await wait_all_tasks_blocked()
        await peer.send(Frame.ping(b"now"))
        await wait_all_tasks_blocked()
        peer.way.buffer = None
        for _ in range(2):  # what was being written, and no more
            await peer.expect(Frame.binary(bytes(90_000)))
        await peer.expect(Frame.pong(b"now"))


async def test_of_a_flood_of_pings_the_last_are_answered_in_order(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(write_timeout=None))
    peer.way.buffer = 0
    async with us as ws:
        await wait_all_tasks_blocked()
        await peer.send(*[Frame.ping(b"%d" % number) for number in range(3000)])
        await wait_all_tasks_blocked()
        assert ws.statistics().queued_bytes == 0
        peer.way.buffer = None
        numbers = [-1]
        while numbers[-1] != 2999:
            numbers.append(int((await peer.receive_frame()).payload))
        assert numbers == sorted(numbers)
        assert len(numbers) <= 1 + 2 * MAX_PONGS
        assert numbers[-MAX_PONGS:] == list(range(3000 - MAX_PONGS, 3000))


async def test_others_have_their_turn_while_a_flood_is_handled(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    pings = [Frame.ping()] * 1000
    async with us, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await peer.send(*pings, Frame.ping(b"last"))
        while await peer.receive_frame() != Frame.pong(b"last"):
            pass
        assert turns >= 1000 // TURN
        nursery.cancel_scope.cancel()


async def test_reading_pauses_once_the_buffer_is_full(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(receive_buffer=10 * KIB))
    async with us as ws:
        for _ in range(100):
            await peer.send(Frame.binary(bytes(KIB)))
        await peer.send(Frame.ping(b"behind them"))
        await wait_all_tasks_blocked()
        statistics = ws.statistics()
        assert statistics.reading_paused
        assert statistics.unread_messages == 10
        for _ in range(100):
            assert await ws.receive() == bytes(KIB)
        assert not ws.statistics().reading_paused
        await peer.expect(Frame.pong(b"behind them"))


async def test_a_flood_of_empty_messages_pauses_reading_too(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(*[Frame.binary(b"")] * 5000)
        await wait_all_tasks_blocked()
        assert ws.statistics().reading_paused
        assert ws.statistics().unread_messages < 1100


async def test_a_read_full_of_small_bombs_is_inflated_one_by_one(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(max_message_size=100_000), deflate=DEFLATE)
    bomb = connect_to_peer("client" if peer.client else "server", deflate=DEFLATE)[0]
    frames = bomb._connection.protocol.encode(PreparedMessage(bytes(100_000)))
    assert len(frames[0]) < 200
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)  # even if somebody waits
        await wait_all_tasks_blocked()
        await peer.send(b"".join(frames) * 50)
        await wait_all_tasks_blocked()
        assert ws.statistics().unread_bytes == 100_000


async def test_a_message_longer_than_the_buffer_comes_when_it_is_asked_for(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(receive_buffer=1))
    async with us as ws:
        await peer.send(Frame.binary(bytes(MIB)))
        await wait_all_tasks_blocked()
        assert ws.statistics().reading_paused
        assert await ws.receive() == bytes(MIB)


async def test_a_message_may_come_a_byte_at_a_time(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    text = "aé€😀" * 50
    async with us as ws:
        peer.back.chunk = 1
        await peer.send(Frame.text(text))
        assert await ws.receive() == text


@pytest.mark.parametrize("final", [True, False], ids=["ended", "unended"])
async def test_empty_fragments_have_an_end(
    connect_peer: Connect, autojump_clock: MockClock, final: bool
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("", fin=False))
        await peer.send(*[Frame.continuation(b"", fin=False)] * 4095)
        await peer.send(Frame.continuation(b"", fin=final))
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert (info.value.code, info.value.reason) == (
            1008,
            "message of 4097 frames: 4096 is the most",
        )


async def test_a_pong_answers_the_pings_before_it(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    times: dict[bytes, float] = {}

    async def ping(payload: bytes) -> None:
        times[payload] = await ws.ping(payload)

    async with us as ws, trio.open_nursery() as nursery:
        for payload in (b"1", b"2", b"3"):
            nursery.start_soon(ping, payload)
            await wait_all_tasks_blocked()
            await trio.sleep(1)
        await peer.send(Frame.pong(b"nobody asked"))
        await peer.send(Frame.pong(b"2"))
        await wait_all_tasks_blocked()
        assert times == {b"1": 3, b"2": 2}
        assert ws.latency == 2
        assert ws.statistics().pings_in_flight == 1
        await peer.send(Frame.pong(b"3"))
        await wait_all_tasks_blocked()
        assert times[b"3"] == 1


# Sending...


async def test_a_message_is_queued_without_waiting_if_there_is_room(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=12))
    peer.way.buffer = 0
    message = PreparedMessage("hello")
    async with us as ws:
        connection = ws._connection
        assert connection.send_nowait(message)
        assert connection.send_nowait(message)
        assert not connection.send_nowait(message)
        assert ws.statistics().messages_sent == 2
        peer.way.buffer = None
        assert [await peer.receive_message() for _ in range(2)] == ["hello", "hello"]
        async with ws.open_message(text=True) as part:
            await part.send("first this ")
            assert not connection.send_nowait(message)
        await peer.send(Frame.close(1000))
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            connection.send_nowait(message)


# The peer closes...


@pytest.mark.parametrize("code", [1000, 1001, 1005, 4000])
async def test_the_peers_close_is_answered_with_its_code(
    connect_peer: Connect, autojump_clock: MockClock, code: int
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.close() if code == 1005 else Frame.close(code, "why"))
        await peer.expect(Frame.close(None if code == 1005 else code))
        reason = "" if code == 1005 else "why"
        assert ws.close_info == CloseInfo(code, reason, "remote", clean=True)


async def test_a_server_ends_tcp_at_once() -> None:
    us, peer = connect_to_peer("server")
    async with us as ws:
        await peer.send(Frame.close(1000))
        assert await peer.until_end() == [Frame.close(1000)]
        assert await ws.wait_closed() == POLITE


async def test_a_client_leaves_it_to_the_server_to_end_tcp(autojump_clock: MockClock) -> None:
    us, peer = connect_to_peer("client")
    async with us as ws:
        await peer.send(Frame.close(1000))
        await peer.until_close()
        await trio.sleep(GRACE - 1)
        assert not peer.left
        await peer.send(b"what comes behind the Close is thrown away")
        await peer.send_end()
        assert await ws.wait_closed() == POLITE
        assert trio.current_time() == GRACE - 1


async def test_a_client_does_not_wait_for_ever_for_the_server_to_end_tcp(
    autojump_clock: MockClock,
) -> None:
    us, peer = connect_to_peer("client")
    async with us as ws:
        await peer.send(Frame.close(1000))
        assert await ws.wait_closed() == POLITE
        assert trio.current_time() == GRACE


async def test_what_was_sent_before_the_close_is_answered_before_ours(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        for number in b"0", b"1", b"2":
            await peer.send(Frame.text(number))
        await peer.send(Frame.close(1001))
        await peer.send_end()
        await wait_all_tasks_blocked()
        async for message in ws:
            await trio.sleep(1)  # each answer takes its time
            await ws.send(f"answer to {message}")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost):
            await ws.send("one too many")
    assert await peer.until_end() == [
        *[Frame.text(f"answer to {number}") for number in range(3)],
        Frame.close(1001),
    ]


@pytest.mark.parametrize(
    ("size", "buffer"),
    [((TURN - 1) * KIB, 64 * KIB), (2 * KIB, KIB)],
    ids=["the turn is over", "the inbox is full"],
)
async def test_what_came_with_the_close_is_answered_before_ours_even_if_it_is_in_hand(
    connect_peer: Connect, autojump_clock: MockClock, size: int, buffer: int
) -> None:
    us, peer = connect_peer(Options(receive_buffer=buffer))
    async with us as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            async for received in ws:
                await trio.sleep(1)
                await ws.send(f"{len(received)} bytes")

        await wait_all_tasks_blocked()
        await peer.send(Frame.binary(b"x" * size), Frame.close(1000))
        assert await peer.receive_message() == f"{size} bytes"
        await peer.send_end()
        assert await peer.until_close() == Frame.close(1000)
        assert trio.current_time() == 1


async def test_a_goodbye_takes_little_more_than_the_grace_if_the_consumer_took_all_of_it(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("a question"))
        await peer.send(Frame.close(1000))
        await wait_all_tasks_blocked()
        peer.way.buffer = 0
        await ws.receive()
        await trio.sleep(GRACE - 0.1)
        await ws.send("an answer that nobody takes")
        with pytest.raises(ConnectionEnded):
            await ws.receive()
        await ws.wait_closed()
        assert trio.current_time() == pytest.approx(GRACE - 0.1 + GOODBYE_TIME)


async def test_who_never_receives_does_not_hold_up_the_close_for_ever(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("unread"))
        await peer.send(Frame.close(1000))
        await peer.until_close()
        assert trio.current_time() == GRACE
        assert await receive_all(ws) == ["unread"]


async def test_a_close_in_the_middle_of_a_message_ends_it(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("half a", fin=False))
        await peer.send(Frame.close(1000))
        assert await receive_all(ws) == []
        assert (await peer.until_close()).code == 1000


async def test_a_close_while_a_message_is_half_sent_lets_no_more_of_it_out(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        message = ws.open_message(text=True)
        await message.__aenter__()
        await message.send("half a")
        await peer.send(Frame.close(1000))
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as info:
            await message.__aexit__(None, None, None)
        assert info.value.info == POLITE
    events = await peer.until_end()
    assert events == [Frame.text("half a", fin=False), Frame.close(1000)]


async def test_a_close_is_seen_while_a_sender_waits(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=1))
    peer.way.buffer = 0
    errors: list[CloseInfo] = []

    async def send() -> None:
        try:
            await ws.send("x")
        except ConnectionLost as exc:
            errors.append(exc.info)

    async with us as ws, trio.open_nursery() as nursery:
        await ws.send("taken")
        for _ in range(3):
            nursery.start_soon(send)
        await wait_all_tasks_blocked()
        await peer.send(Frame.close(4000))
        await wait_all_tasks_blocked()
        assert [info.code for info in errors] == [4000] * 3
        peer.way.buffer = None
        await peer.send_end()
        assert await peer.until_end() == [Frame.text("taken"), Frame.close(4000)]


async def test_a_peer_that_does_not_read_our_answer_is_left_after_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    peer.way.buffer = 0
    async with us as ws:
        await peer.send(Frame.close(1000))
        assert await ws.wait_closed() == POLITE
        assert trio.current_time() == GRACE


# Violations...


async def test_a_violator_is_told_and_left(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.continuation(b"x"), Frame.ping(b"not heard"))
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.info == CloseInfo(
            1002, "continuation of no message", "local", clean=False
        )
        cause = info.value.__cause__
        assert isinstance(cause, ProtocolViolation)
        assert (cause.code, cause.reason) == (1002, "continuation of no message")
        assert await peer.until_end() == [Frame.close(1002, "continuation of no message")]
        assert (
            peer.far.socket.did_shutdown_SHUT_WR
        )  # first one side, lest the Close is lost to a reset
        assert not peer.left
        await ws.wait_closed()
        assert trio.current_time() == 1


async def test_a_violator_that_goes_is_not_waited_for(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.continuation(b""))
        await peer.send_end()
        await ws.wait_closed()
        assert trio.current_time() == 0


async def test_what_came_before_a_violation_is_received(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("good"), Frame.text(b"\xff"))
        await ws.wait_closed()
        assert await ws.receive() == "good"
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.code == 1007


async def test_what_came_before_a_violation_is_answered_by_who_is_ready(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def run() -> None:
            with pytest.raises(ConnectionLost):
                await echo(ws)

        await wait_all_tasks_blocked()
        await peer.send(*[Frame.text("good")] * 2, Frame.continuation(b""))
        *echoes, close = await peer.until_end()
    assert echoes == [Frame.text("good")] * 2
    assert close.code == 1002


async def test_a_violation_behind_our_close_is_the_end(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose, 4000)
        await peer.until_close()
        await peer.send(Frame.continuation(b""))
        await peer.send_end()
        assert await ws.wait_closed() == CloseInfo(4000, "", "local", clean=False)
        assert trio.current_time() == 0


# We close...


async def test_our_close_goes_behind_what_was_sent(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        await ws.send("one")
        await ws.send("two")
        nursery.start_soon(ws.aclose, 4000, "bye")
        assert [await peer.receive_frame() for _ in range(3)] == [
            Frame.text("one"),
            Frame.text("two"),
            Frame.close(4000, "bye"),
        ]
        assert not peer.left
        await peer.send(Frame.close(4000))
        await peer.send_end()
    assert ws.close_info == CloseInfo(4000, "bye", "local", clean=True)
    assert trio.current_time() == 0


async def test_behind_our_own_close_everything_is_closed(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("unread"))
        await ws.aclose()
        for method in (ws.receive, ws.ping, lambda: ws.send("x"), lambda: anext(ws)):
            with pytest.raises(trio.ClosedResourceError, match="this side has closed"):
                await method()
        await ws.aclose(4000)  # does nothing
        assert ws.close_info == CloseInfo(1000, "", "local", clean=False)


async def test_a_server_that_closes_ends_tcp_first() -> None:
    us, peer = connect_to_peer("server")
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        await peer.until_close()
        await peer.send(Frame.close(1000))
        assert await peer.receive_frame() is None
        assert await ws.wait_closed() == CloseInfo(1000, "", "local", clean=True)


async def test_a_peer_that_ignores_our_close_is_left_after_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def go_on() -> None:
            while not peer.left:
                await peer.send(Frame.binary(bytes(100_000)), Frame.ping())
                await trio.sleep(0.3)

        await ws.aclose()
        assert trio.current_time() == GRACE
        assert ws.close_info == CloseInfo(1000, "", "local", clean=False)
    assert (await peer.until_end())[-1].opcode == CLOSE  # no Pong behind it


async def test_a_peer_that_does_not_read_is_left_after_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    peer.way.buffer = 10
    async with us as ws:
        await ws.send(bytes(100_000))
        await ws.aclose()
        assert trio.current_time() == GRACE
        assert ws.statistics().bytes_sent == 10
    assert ws.statistics().queued_bytes == 0


async def test_a_peer_that_goes_instead_of_answering(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        await peer.until_close()
        await peer.aclose()
    assert trio.current_time() == 0
    assert ws.close_info == CloseInfo(1000, "", "local", clean=False)


async def test_both_close_at_once(
    connect: Callable[..., tuple[Session, Session]], autojump_clock: MockClock
) -> None:
    us, them = connect()
    async with us as ours, them as theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.aclose, 4001, "ours")
        nursery.start_soon(theirs.aclose, 4002, "theirs")
    assert ours.close_info == CloseInfo(4001, "ours", "local", clean=True)
    assert theirs.close_info == CloseInfo(4002, "theirs", "local", clean=True)
    assert trio.current_time() == 0


async def test_a_ping_that_crosses_our_close_is_no_error(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.aclose)
        await peer.until_close()
        await peer.send(Frame.ping())
        await peer.send(Frame.text("nor is a message"))
        await peer.send(Frame.close(1000))
        await peer.send_end()
    assert ws.close_info is not None
    assert ws.close_info.clean
    assert ws.statistics().unread_messages == 0


async def test_a_close_by_the_server_leaves_what_is_unread(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """As a drain does, or a room that a member is too slow for."""
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("unread"))
        await wait_all_tasks_blocked()
        ws._connection.begin_close(CloseCode.SERVICE_RESTART, "soon back")
        ws._connection.begin_close(CloseCode.GOING_AWAY, "the first one counts")
        expected = CloseInfo(1012, "soon back", "local", clean=False)
        with pytest.raises(ConnectionLost) as info:
            await ws.send("refused")
        assert info.value.info == expected
        assert await ws.receive() == "unread"
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.info == expected
        await peer.expect(Frame.close(1012, "soon back"))


async def test_a_polite_close_by_the_server_is_a_polite_end(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    async with us as ws:
        ws._connection.begin_close(CloseCode.GOING_AWAY, "")
        with pytest.raises(ConnectionEnded):
            await ws.receive()


# A full inbox at the end...


MESSAGES = [str(number) * 100 for number in range(10, 40)]


async def connect_full(connect_peer: Connect) -> tuple[Session, Peer]:
    """Return a side that will soon have to pause reading."""
    us, peer = connect_peer(Options(receive_buffer=1000))
    await peer.send(*map(Frame.text, MESSAGES))
    return us, peer


async def test_a_peer_that_closes_is_heard_when_what_came_before_has_been_received(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = await connect_full(connect_peer)
    await peer.send(Frame.close(1001))
    async with us as ws:
        await trio.sleep(10)
        assert ws.statistics().reading_paused
        assert ws.close_info is None
        assert await receive_all(ws) == MESSAGES
        assert ws.close_info == CloseInfo(1001, "", "remote", clean=True)


async def test_a_peer_that_dies_is_found_dead_when_what_came_before_has_been_received(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = await connect_full(connect_peer)
    await peer.aclose()
    async with us as ws:
        await trio.sleep(10)
        for message in MESSAGES:
            assert await ws.receive() == message
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.reason == "the peer ended TCP without a Close"


async def test_our_close_does_not_wait_for_anybody_to_receive(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = await connect_full(connect_peer)
    async with us as ws, trio.open_nursery() as nursery:
        await trio.sleep(10)
        assert ws.statistics().reading_paused
        nursery.start_soon(peer.answer)
        await ws.aclose()
        assert trio.current_time() == 10
        assert ws.close_info == CloseInfo(1000, "", "local", clean=True)
        with pytest.raises(trio.ClosedResourceError):
            await ws.receive()


async def test_leaving_the_block_does_not_wait_for_anybody_to_receive(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = await connect_full(connect_peer)
    async with trio.open_nursery() as nursery:
        async with us:
            await trio.sleep(10)
            nursery.start_soon(peer.answer)
        assert trio.current_time() == 10


# Losses...


async def test_a_peer_that_goes_without_a_word(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("the last"))
        await peer.aclose()
        assert await ws.receive() == "the last"
        expected = CloseInfo(1006, "the peer ended TCP without a Close", "lost", clean=False)
        for method in (ws.receive, ws.ping, lambda: ws.send("x")):
            with pytest.raises(ConnectionLost) as info:
                await method()
            assert info.value.info == expected
        assert await ws.wait_closed() == expected


async def test_reading_fails(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()
    cause = OSError("connection reset")

    async def fail(max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError("wrapped") from cause

    peer.far.receive_some = fail  # a broken network
    async with us as ws:
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.info == CloseInfo(1006, "connection reset", "lost", clean=False)
        assert isinstance(info.value.__cause__, trio.BrokenResourceError)
        assert info.value.__cause__.__cause__ is cause


async def test_writing_fails_and_the_peers_last_words_are_still_heard(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    failure = trio.BrokenResourceError("reset")
    peer.break_way(failure)
    async with us as ws:
        await ws.send("never arrives")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as info:
            await ws.send("refused")
        assert info.value.info == CloseInfo(1006, "writing failed: reset", "lost", clean=False)
        assert info.value.__cause__ is failure
        await peer.send(Frame.text("the last words"))
        await peer.send(Frame.ping())
        await peer.send(Frame.close(4000))
        assert await ws.receive() == "the last words"
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.info == CloseInfo(4000, "", "remote", clean=True)
        await ws.wait_closed()


async def test_writing_fails_and_nothing_else_happens(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    peer.break_way(trio.BrokenResourceError("reset"))
    async with us as ws:
        await ws.send("never arrives")
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as info:
            await ws.ping()
        assert trio.current_time() == GOODBYE_TIME
        assert info.value.info == ws.close_info
        assert ws.close_info == CloseInfo(1006, "writing failed: reset", "lost", clean=False)


async def test_writing_fails_before_our_close(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    peer.break_way(trio.BrokenResourceError("reset"))
    async with us as ws:
        await ws.send("never arrives")
        await wait_all_tasks_blocked()
        await peer.send(Frame.close(1000))
        await ws.aclose(4000)
        assert ws.close_info is not None
        assert not (ws.close_info.clean and ws.close_info.initiator != "remote")


async def test_a_peer_that_takes_nothing_is_left_after_the_write_timeout(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(ping_interval=None))
    peer.way.buffer = 5
    async with us as ws:
        await ws.send(bytes(1_000_000))
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert trio.current_time() == 30
        assert info.value.info == CloseInfo(
            1006, "no byte was taken for 30 s", "lost", clean=False
        )


async def test_a_peer_that_takes_a_little_now_and_then_is_slow_not_dead(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(ping_interval=None))
    peer.way.buffer = 0
    async with us as ws:
        await ws.send(bytes(10 * 16 * KIB))
        for _ in range(10):
            await trio.sleep(29)
            peer.way.buffer += 16 * KIB
        assert ws.close_info is None
        peer.way.buffer = None
        assert await peer.receive_message() == bytes(10 * 16 * KIB)


async def test_every_waiter_is_woken_at_the_end(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    for end, error in (
        (lambda peer: peer.send(Frame.close(1000)), ConnectionEnded),
        (lambda peer: peer.send(Frame.close(4000)), ConnectionLost),
        (lambda peer: peer.aclose(), ConnectionLost),
        (lambda peer: peer.send(Frame.continuation(b"")), ConnectionLost),
    ):
        us, peer = connect_peer(Options(send_buffer=1))
        peer.way.buffer = 0
        woken: list[str] = []

        async def wait(
            name: str, method: Any, error: type[Exception], woken: list[str] = woken
        ) -> None:
            with pytest.raises(error):
                await method()
            woken.append(name)

        async with us as ws, trio.open_nursery() as nursery:
            await ws.send("taken")
            nursery.start_soon(wait, "receive", ws.receive, error)
            nursery.start_soon(wait, "ping", ws.ping, ConnectionLost)
            nursery.start_soon(wait, "send", lambda ws=ws: ws.send("a"), ConnectionLost)
            nursery.start_soon(wait, "send", lambda ws=ws: ws.send("b"), ConnectionLost)
            nursery.start_soon(ws.wait_closed)
            await wait_all_tasks_blocked()
            await end(peer)
            await wait_all_tasks_blocked()
            assert sorted(woken) == ["ping", "receive", "send", "send"]
        assert ws.statistics().pings_in_flight == 0


async def consume(ws: WebSocket, got: list[Any]) -> None:
    while True:
        got.append(await ws.receive())
        await trio.sleep(1)


@pytest.mark.parametrize("late", [0, 1, 60], ids=["in time", "late", "too late for the answer"])
@pytest.mark.parametrize("goodbye", ["close", "eof"])
async def test_nurseries_are_cancelled_when_what_is_unread_has_been_received(
    connect_peer: Connect, autojump_clock: MockClock, goodbye: str, late: float
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []
    async with us as ws:
        for number in b"0", b"1":
            await peer.send(Frame.text(number))
        if late:
            await (peer.send(Frame.close(1000)) if goodbye == "close" else peer.aclose())
            await trio.sleep(late)
        async with ws.open_nursery() as nursery, ws.open_nursery() as producers:
            nursery.start_soon(consume, ws, got)
            producers.start_soon(trio.sleep_forever)
            if not late:
                await (peer.send(Frame.close(1000)) if goodbye == "close" else peer.aclose())
        assert trio.current_time() == late + 2
    assert got == ["0", "1"]


async def test_a_consumer_that_does_not_come_back_is_cancelled_after_the_grace(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        async with ws.open_nursery():
            await peer.send(Frame.text("one"))
            await ws.receive()
            await peer.aclose()
            await trio.sleep_forever()
        assert trio.current_time() == GRACE


# What must not happen...


async def test_a_failure_inside_is_logged_and_told(
    connect_peer: Connect, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    us, peer = connect_peer()

    def fail(most: int, room: float) -> None:
        raise KeyError("bug")

    async with us as ws:
        ws._connection.protocol.next_messages = fail  # a bug
        await peer.send(Frame.text("x"))
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.reason == "failed inside: KeyError('bug')"
        assert isinstance(info.value.__cause__, KeyError)
    (record,) = caplog.records
    assert record.getMessage() == f"websocket {ws.id}: failed inside"
    assert record.exc_info


async def test_a_failure_in_writing_is_logged_and_told(
    connect_peer: Connect, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    us, peer = connect_peer()
    peer.break_way(KeyError("bug"))
    async with us as ws:
        await ws.send("x")
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.reason == "writing failed: 'bug'"
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        f"websocket {ws.id}: failed inside",
    )


async def test_a_stream_that_cannot_be_closed_is_no_reason_to_hang(
    connect_peer: Connect, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    for failure, logged in ((trio.BrokenResourceError("gone"), 0), (KeyError("bug"), 1)):
        us, peer = connect_peer()

        async def fail(failure: Exception = failure, peer: Peer = peer) -> None:
            peer.far.socket.close()
            raise failure

        peer.far.aclose = fail
        async with us as ws:
            await peer.send(Frame.close(4000))
            await ws.wait_closed()
            assert ws.close_info == CloseInfo(4000, "", "remote", clean=True)
        assert len(caplog.records) == logged


async def test_a_block_that_is_cancelled_while_its_connection_ends(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    with trio.CancelScope() as scope:
        async with us as ws:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await peer.aclose()
                await ws.wait_closed()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_info is not None
    assert ws.close_info.initiator == "lost"


# Sockets...


def connected_sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = map(trio.socket.from_stdlib_socket, socket.socketpair())
    return trio.SocketStream(ours), trio.SocketStream(theirs)


def session_on(stream: trio.SocketStream, role: Role) -> Session:
    return Session(stream, Options(ping_interval=None), client=role == "client", leftover=b"")


@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_socket_takes_what_it_can_at_a_time(role: Role) -> None:
    ours, theirs = connected_sockets()
    async with session_on(ours, role) as ws, session_on(theirs, other(role)) as peer:
        await ws.send(bytes(MIB))
        await wait_all_tasks_blocked()
        sent = ws.statistics().bytes_sent
        assert 0 < sent < MIB
        assert await peer.receive() == bytes(MIB)
        assert MIB < ws.statistics().bytes_sent < MIB + 100
        await ws.aclose()
        assert ws.close_info == CloseInfo(1000, "", "local", clean=True)


@pytest.mark.parametrize("role", ["client", "server"])
async def test_an_interrupt_cannot_tear_what_is_written_at_once(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That happens in the user's own task, and between two counts that must agree."""
    protected: list[bool] = []
    write_now = Transport.write_now

    def watched(self: Transport, data: bytes | memoryview) -> int:
        protected.append(trio.lowlevel.currently_ki_protected())
        return write_now(self, data)

    monkeypatch.setattr(Transport, "write_now", watched)
    ours, theirs = connected_sockets()
    async with session_on(ours, role) as ws:
        assert not trio.lowlevel.currently_ki_protected()
        await ws.send("at once")
        assert protected == [True]
        await theirs.aclose()


@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_feeder_that_fails_stops_nobody_elses_messages(role: Role) -> None:
    ours, theirs = connected_sockets()

    def feed() -> None:
        ws._connection.outbox.feeders.clear()
        raise KeyError("bug")

    async with session_on(ours, role) as ws, session_on(theirs, other(role)) as peer:
        ws._connection.outbox.feeders.append(feed)
        with pytest.raises(KeyError, match="bug"):
            await ws.send("one")
        await ws.send("two")
        assert [await peer.receive() for _ in range(2)] == ["one", "two"]
        await ws.aclose()


async def test_a_socket_that_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = connected_sockets()
    async with session_on(ours, "server") as ws:
        await ws.send("x")
        await wait_all_tasks_blocked()
        await theirs.aclose()  # with data unread: a reset
        with pytest.raises(ConnectionLost) as info:
            await ws.receive()
        assert info.value.info.initiator == "lost"
        assert "Connection reset" in info.value.reason
    assert not caplog.records


# What an exception says to the peer...


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError(), 1011),
        (ConnectionLost(POLITE), 1011),
        (KeyboardInterrupt(), 1001),
        (SystemExit(), 1001),
        (ExceptionGroup("", [ValueError()]), 1011),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 1001),
        (BaseExceptionGroup("", [KeyboardInterrupt(), ExceptionGroup("", [ValueError()])]), 1011),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else repr(value),
)
def test_what_an_exception_says_to_the_peer(error: BaseException, code: int) -> None:
    assert close_code_for(error) == code
