"""What the user sees: receiving, sending, pinging, closing, and being cancelled at any step."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from _helpers import DEFLATE, PING, STATEFUL_DEFLATE, Peer, Role
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from trio_ws._errors import ConnectionEnded, ConnectionLost
from trio_ws._messages import CloseInfo, PreparedMessage
from trio_ws._options import Options
from trio_ws._session import Session
from trio_ws._streams import RelayedStream
from trio_ws._websocket import WebSocket, WebSocketStatistics
from trio_ws.testing import Frame, cancellations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_ws._deflate import DeflateParameters

    Connect = Callable[..., tuple[Session, Peer]]

GRACE = Options().close_grace

compressions = pytest.mark.parametrize(
    "deflate", [None, DEFLATE, STATEFUL_DEFLATE], ids=["plain", "deflate", "stateful"]
)


async def receive_all(ws: WebSocket) -> list[str | bytes]:
    return [message async for message in ws]


# What one may ask...


async def test_it_is_a_channel_with_a_name(
    connect_peer: Connect, autojump_clock: MockClock, role: Role
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        assert isinstance(ws, trio.abc.Channel)
        assert repr(ws) == f"<WebSocket {role} {ws.id} open>"
        await peer.send(Frame.close(1001, "lunch"))
        await wait_all_tasks_blocked()
        assert repr(ws) == f"<WebSocket {role} {ws.id} closed by the peer (1001 'lunch')>"
        assert (ws.subprotocol, ws.request, ws.draining.is_set()) == (None, None, False)
        assert (ws.local_address, ws.remote_address) == (
            peer.far.socket.getsockname(),
            peer.stream.socket.getsockname(),
        )


async def test_the_statistics_of_a_connection(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=10, receive_buffer=100, ping_interval=None))
    nothing = WebSocketStatistics(
        messages_received=0,
        messages_sent=0,
        bytes_received=0,
        bytes_sent=0,
        unread_messages=0,
        unread_bytes=0,
        reading_paused=False,
        queued_bytes=0,
        waiting_senders=0,
        pings_in_flight=0,
    )
    async with us as ws, trio.open_nursery() as nursery:
        assert ws.statistics() == nothing
        frame = Frame.text("x" * 60)
        await peer.send(frame, frame, Frame.text("not read yet"))
        await ws.receive()
        await wait_all_tasks_blocked()
        assert ws.statistics() == attrs.evolve(
            nothing,
            messages_received=1,
            bytes_received=2 * 62 + 14 + 3 * 4 * peer.client,
            unread_messages=1,
            unread_bytes=60,
            reading_paused=True,
        )
        peer.way.buffer = 0
        for _ in range(3):
            nursery.start_soon(ws.send, "0123456789")
        nursery.start_soon(ws.ping)
        await wait_all_tasks_blocked()
        statistics = ws.statistics()
        assert statistics.messages_sent == 1
        assert statistics.queued_bytes == 12 + 4 * (not peer.client)
        assert statistics.waiting_senders == 2
        assert statistics.pings_in_flight == 1
        nursery.cancel_scope.cancel()


# Receiving...


async def test_messages_come_in_order_and_as_what_they_were_sent(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("café"))
        await peer.send(Frame.binary(b"\x00\xff"))
        await peer.send(Frame.text(""))
        for expected in ("café", b"\x00\xff", ""):
            message = await ws.receive()
            assert (type(message), message) == (type(expected), expected)


async def test_every_call_can_be_cancelled_even_if_it_has_nothing_to_wait_for(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("there"))
        await wait_all_tasks_blocked()
        for _ in range(3):  # the price of a schedule point is paid now and then only
            for call in (ws.receive, lambda: ws.send("x"), ws.ping, lambda: anext(ws)):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await call()
                assert scope.cancelled_caught
        assert await ws.receive() == "there"
        await ws.send("the first")
        await peer.receive_message()
    assert ws.statistics().messages_sent == 1


async def test_iterating_ends_at_a_polite_end(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    for code in (1000, 1001, 1005):
        us, peer = connect_peer()
        async with us as ws:
            await peer.send(Frame.text("one"))
            await peer.send(Frame.close(None if code == 1005 else code))
            assert await receive_all(ws) == ["one"]
            with assert_checkpoints(), pytest.raises(ConnectionEnded) as info:
                await ws.receive()
            assert info.value.code == code


@pytest.mark.parametrize("code", [1002, 1006, 1011, 1012, 4000])
async def test_iterating_raises_at_any_other_end(
    connect_peer: Connect, autojump_clock: MockClock, code: int
) -> None:
    us, peer = connect_peer()
    got: list[Any] = []

    async def iterate() -> None:
        async for message in ws:
            got.append(message)  # noqa: PERF401  # to see what came before the error

    async with us as ws:
        await peer.send(Frame.text("one"))
        await (peer.aclose() if code == 1006 else peer.send(Frame.close(code, "why")))
        with pytest.raises(ConnectionLost) as info:
            await iterate()
        assert info.value.code == code
    assert got == ["one"]


async def test_a_second_receiver_is_refused(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ws.receive()
        with pytest.raises(trio.BusyResourceError):
            await ws.receive_message().__aenter__()
        await peer.send(Frame.text("for the first one"))
    assert ws.statistics().messages_received == 1


async def test_a_message_can_be_received_chunk_by_chunk(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            await peer.send(Frame.text(b"caf\xc3", fin=False))
            await wait_all_tasks_blocked()
            await peer.send(Frame.continuation(b"\xa9", fin=False))
            await wait_all_tasks_blocked()
            await peer.send(Frame.continuation(b""))
            await peer.send(Frame.binary(b"next"))

        async with ws.receive_message() as parts:
            assert parts.text
            assert [chunk async for chunk in parts] == ["caf", "é"]
        assert await ws.receive() == b"next"
    assert ws.statistics().messages_received == 2


async def test_a_message_can_be_left_halfway(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(receive_buffer=1000))
    async with us as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            await peer.send(Frame.binary(bytes(100_000), fin=False))
            await wait_all_tasks_blocked()
            await peer.send(Frame.continuation(bytes(100_000)))
            await peer.send(Frame.text("next"))

        async with ws.receive_message() as parts:
            async for _ in parts:
                break
        assert await ws.receive() == "next"


async def test_a_chunk_wise_reader_is_told_about_the_end(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("half a", fin=False))
        async with ws.receive_message() as parts:
            assert await anext(parts) == "half a"
            await peer.send(Frame.close(1000))
            with pytest.raises(ConnectionEnded):
                await anext(parts)


# Sending...


async def test_what_is_sent_arrives(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()
    async with us as ws:
        for data in ("café", b"\x00\xff", bytearray(b"bytes"), memoryview(b"bytes"), "", b""):
            await ws.send(data)
        await ws.send(PreparedMessage("prepared"))
        for expected in ("café", b"\x00\xff", b"bytes", b"bytes", "", b"", "prepared"):
            assert await peer.receive_message() == expected
        assert ws.statistics().messages_sent == 7


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (None, TypeError, "not NoneType: encode it first"),
        (5, TypeError, "not int"),
        (["a"], TypeError, "not list"),
        ({"a": 1}, TypeError, "not dict"),
        ("\ud800", ValueError, "surrogates"),
    ],
)
async def test_what_cannot_be_sent(
    connect_peer: Connect,
    autojump_clock: MockClock,
    data: object,
    error: type[Exception],
    match: str,
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        with pytest.raises(error, match=match):
            await ws.send(data)
        await ws.send("and nothing was sent")
        await peer.expect(Frame.text("and nothing was sent"))
        assert ws.statistics().messages_sent == 1


async def test_what_is_long_is_compressed_unless_told_otherwise(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(deflate=DEFLATE)
    async with us as ws:
        sizes = []
        for data, compress in (
            ("x" * 1000, None),
            ("x" * 1000, True),
            ("x" * 2000, None),
            ("x" * 2000, False),
        ):
            before = ws.statistics().bytes_sent
            await ws.send(data, compress=compress)
            assert await peer.receive_message() == data
            await wait_all_tasks_blocked()
            sizes.append(ws.statistics().bytes_sent - before > 1000)
        assert sizes == [True, False, False, True]


async def test_a_sender_waits_while_the_buffer_is_full(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=100))
    peer.way.buffer = 0
    async with us as ws:
        await ws.send(bytes(1000))
        with trio.move_on_after(1) as scope:
            await ws.send("not sent")
        assert scope.cancelled_caught
        peer.way.buffer = None
        await ws.send("sent")
        assert [await peer.receive_message() for _ in range(2)] == [bytes(1000), "sent"]


async def test_messages_of_many_tasks_keep_the_order_of_the_calls(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=1))
    peer.way.buffer = 0
    async with us as ws, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ws.send, str(number) * 1000)
            await wait_all_tasks_blocked()
        peer.way.buffer = None
        messages = [await peer.receive_message() for _ in range(20)]
    assert messages == [str(number) * 1000 for number in range(20)]


async def test_a_message_can_be_sent_in_fragments(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        async with ws.open_message() as part:
            await part.send("one ")
            nursery.start_soon(ws.send, "the next message")
            await wait_all_tasks_blocked()
            await peer.send(Frame.ping(b"in between"))
            await wait_all_tasks_blocked()
            await part.send("message")
        await peer.expect(
            Frame.text("one ", fin=False),
            Frame.pong(b"in between"),
            Frame.continuation("message", fin=False),
            Frame.continuation(""),
            Frame.text("the next message"),
        )
    assert ws.statistics().messages_sent == 2


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError, 1011), (KeyboardInterrupt, 1001)], ids=["error", "interrupt"]
)
async def test_a_message_that_is_given_up_ends_the_connection(
    connect_peer: Connect, autojump_clock: MockClock, error: type[BaseException], code: int
) -> None:
    us, peer = connect_peer()

    async def give_up() -> None:
        async with ws.open_message(text=True) as part:
            await part.send("half a")
            raise error

    async with us as ws:
        with pytest.raises(error):
            await give_up()
        with pytest.raises(ConnectionLost) as info:
            await ws.send("too late")
        assert info.value.info == CloseInfo(code, "message given up halfway", "local", clean=False)
        assert ws.statistics().messages_sent == 0
    events = await peer.until_end()
    assert events == [
        Frame.text("half a", fin=False),
        Frame.close(code, "message given up halfway"),
    ]


async def test_giving_up_a_message_after_the_end_changes_nothing(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()

    async def send_until_refused() -> None:
        async with ws.open_message(text=False) as part:
            await part.send(b"half a")
            await peer.send(Frame.close(4000))
            while True:
                await part.send(b"more")

    async with us as ws:
        with pytest.raises(ConnectionLost):
            await send_until_refused()
        assert ws.close_info == CloseInfo(4000, "", "remote", clean=True)


async def test_a_task_cannot_send_a_message_inside_of_another(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        async with ws.open_message(text=True) as part:
            with pytest.raises(RuntimeError, match="would wait for itself"):
                await ws.send("inner")
            await part.send("outer")
        assert await peer.receive_message() == "outer"


# Pinging...


async def test_a_ping_tells_the_round_trip(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer() -> None:
            for _ in range(2):
                ping = await peer.receive_frame()
                assert ping.opcode == PING
                await trio.sleep(2)
                await peer.send(Frame.pong(bytes(ping.payload)))

        for payload in (None, b"mine"):
            with assert_checkpoints():
                assert await ws.ping(payload) == 2
        assert ws.latency == 2


async def test_the_time_of_a_ping_begins_when_it_has_left(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    peer.way.buffer = 0
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)

        @nursery.start_soon
        async def open_window() -> None:
            await trio.sleep(5)
            peer.way.buffer = None

        assert await ws.ping() == 0
        assert trio.current_time() == 5
        await ws.aclose()


@pytest.mark.parametrize(
    ("payload", "error", "match"),
    [
        ("text", TypeError, "a ping's payload is bytes-like, not str"),
        (5, TypeError, "not int"),
        (bytes(126), ValueError, "up to 125 bytes"),
    ],
    ids=["str", "int", "long"],
)
async def test_what_is_no_payload(
    connect_peer: Connect,
    autojump_clock: MockClock,
    payload: Any,
    error: type[Exception],
    match: str,
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        with pytest.raises(error, match=match):
            await ws.ping(payload)
    assert not any(event.opcode == PING for event in await peer.until_end())


async def test_two_pings_cannot_have_the_same_payload_at_a_time(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.ping, bytearray(b"same"))
        await wait_all_tasks_blocked()
        with pytest.raises(ValueError, match=r"b'same' is on its way"):
            await ws.ping(b"same")
        await peer.send(Frame.pong(b"same"))
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.ping, b"same")
        await wait_all_tasks_blocked()
        await peer.send(Frame.pong(b"same"))


async def test_a_ping_does_not_forget_the_one_that_followed(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """The second begins when the first is answered, but before its task has run."""
    for _ in range(8):  # in what order tasks run is left to chance
        us, peer = connect_peer()
        answered: list[float] = []

        async def ping(us: Session = us, answered: list[float] = answered) -> None:
            answered.append(await us.ws.ping(b"same"))

        async def ping_after(us: Session = us, answered: list[float] = answered) -> None:
            while us.ws.statistics().pings_in_flight:  # noqa: ASYNC110  # the very next step
                await trio.lowlevel.checkpoint()
            answered.append(await us.ws.ping(b"same"))

        async with us as ws, trio.open_nursery() as nursery:
            nursery.start_soon(ping)
            await trio.sleep(1)
            nursery.start_soon(ping_after)
            await peer.send(Frame.pong(b"same"))
            await trio.sleep(1)
            assert ws.statistics().pings_in_flight == 1
            await peer.send(Frame.pong(b"same"))
        assert answered == [1, 1]


async def test_the_pong_of_a_ping_that_was_cancelled_is_ignored(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        with trio.move_on_after(1):
            await ws.ping(b"cancelled")
        assert ws.statistics().pings_in_flight == 0
        await peer.send(Frame.pong(b"cancelled"))
        await wait_all_tasks_blocked()
        assert ws.latency is None
        assert ws.close_info is None


# Closing...


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1005, "", ValueError),
        (2000, "", ValueError),
        (1000, "x" * 124, ValueError),
        ("1000", "", TypeError),
        (1000, b"bytes", TypeError),
    ],
    ids=["reserved", "unknown", "long", "str", "bytes"],
)
async def test_a_goodbye_that_must_not_be_sent(
    connect_peer: Connect,
    autojump_clock: MockClock,
    code: Any,
    reason: Any,
    error: type[Exception],
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        with pytest.raises(error):
            await ws.aclose(code, reason)
        assert ws.close_info is None
        await ws.send("still open")
        assert await peer.receive_message() == "still open"


async def test_closing_says_goodbye_and_waits_for_the_peer(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        with assert_checkpoints():
            await ws.aclose(4000, "bye")
        assert ws.close_info == CloseInfo(4000, "bye", "local", clean=True)
        assert peer.left
        with assert_checkpoints():
            await ws.aclose()
    assert peer.close == Frame.close(4000, "bye")


async def test_closing_drops_what_is_unread_and_wakes_who_waits(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=1))
    peer.way.buffer = 0
    closed: list[str] = []

    async def wait(name: str, method: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await method()
        closed.append(name)

    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(wait, "receive", ws.receive)
        await ws.send("taken")
        nursery.start_soon(wait, "send", lambda: ws.send("not taken"))
        nursery.start_soon(wait, "ping", ws.ping)
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.aclose)
        await wait_all_tasks_blocked()
        assert sorted(closed) == ["ping", "receive", "send"]
        peer.way.buffer = None
        nursery.start_soon(peer.answer)
    assert peer.messages == ["taken"]


async def test_many_tasks_may_close_and_the_first_ones_code_is_sent(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        for code in (4001, 4002, 4003):
            nursery.start_soon(ws.aclose, code)
            await wait_all_tasks_blocked()
        nursery.start_soon(peer.answer)
    assert peer.close == Frame.close(4001)
    assert ws.close_info == CloseInfo(4001, "", "local", clean=True)


async def test_cancelling_the_goodbye_ends_tcp_at_once(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        with trio.move_on_after(1) as scope:
            await ws.aclose()
        assert scope.cancelled_caught
        assert peer.left
        assert trio.current_time() == 1
        assert ws.close_info == CloseInfo(1000, "", "local", clean=False)
    assert await peer.until_end() == [Frame.close(1000)]


async def test_a_task_of_the_connections_nursery_can_say_goodbye(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with trio.open_nursery() as outside:
        outside.start_soon(peer.answer)
        async with us as ws:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(ws.aclose, 4000, "bye")
                await trio.sleep_forever()
            assert ws.close_info == CloseInfo(4000, "bye", "local", clean=True)


async def test_tcp_can_be_ended_at_once(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()
    peer.way.buffer = 0
    async with us as ws:
        await ws.send("never arrives")
        await trio.aclose_forcefully(ws)
        assert peer.left
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("x")
    assert trio.current_time() == 0
    assert await peer.until_end() == []


async def test_waiting_for_the_end_tells_how_it_came(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    infos: list[CloseInfo] = []

    async def wait() -> None:
        infos.append(await ws.wait_closed())

    async with us as ws, trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await ws.wait_closed()
        assert scope.cancelled_caught
        assert ws.close_info is None
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await peer.aclose()
    assert infos == [ws.close_info] * 2
    with assert_checkpoints():
        assert await ws.wait_closed() == ws.close_info


async def test_a_nursery_hangs_on_the_connection(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await peer.send(Frame.close(1000))
        assert ws.close_info == CloseInfo(1000, "", "remote", clean=True)


# Cancellation at every step. The network takes a few bytes at a time, and the peer parses
# every frame...


async def answer(peer: Peer) -> None:
    """Be polite, and not surprised if TCP ends within a frame."""
    with contextlib.suppress(AssertionError):
        await peer.answer()


def slow_down(peer: Peer, bandwidth: float, buffer: float | None) -> None:
    peer.way.bandwidth, peer.way.buffer = bandwidth, buffer


async def send_text(ws: WebSocket) -> None:
    await ws.send("a" * 100)
    await ws.send("b" * 100)


async def send_fragments(ws: WebSocket) -> None:
    async with ws.open_message(text=True, compress=True) as part:
        for _ in range(3):
            await part.send("c" * 50)


async def wait_for_pong(ws: WebSocket) -> None:
    await ws.ping()


async def wait_for_turn(ws: WebSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ws.send, "d" * 60)
        nursery.start_soon(ws.send, "d" * 60)


OPERATIONS = [send_text, send_fragments, wait_for_pong, wait_for_turn]


@compressions
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelling_a_sender_tears_nothing(
    connect_peer: Connect,
    autojump_clock: MockClock,
    operation: Callable[[WebSocket], Awaitable[None]],
    deflate: DeflateParameters | None,
) -> None:
    options = Options(send_buffer=20)
    async for attempt in cancellations():
        us, peer = connect_peer(options, deflate=deflate)
        slow_down(peer, 2500, 25)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer)
            async with us as ws:
                await ws.send("first", compress=True)
                with attempt:
                    await operation(ws)
                given_up = ws.close_info is not None
                if not given_up:
                    await ws.send("last", compress=True)
        assert peer.close is not None, attempt
        if given_up:  # half a message cannot be taken back
            assert operation is send_fragments
            assert attempt.cancelled
            assert peer.close == Frame.close(1001, "message given up halfway")
            assert peer.messages == ["first"]
            continue
        assert peer.close.code == 1000
        first, *middle, last = peer.messages
        assert (first, last) == ("first", "last")
        complete = {
            send_text: ["a" * 100, "b" * 100],
            send_fragments: ["c" * 150],
            wait_for_pong: [],
            wait_for_turn: ["d" * 60] * 2,
        }[operation]
        assert middle == (complete[: len(middle)] if attempt.cancelled else complete)


@compressions
async def test_cancelling_a_receiver_loses_nothing(
    connect_peer: Connect, autojump_clock: MockClock, deflate: DeflateParameters | None
) -> None:
    expected: list[str | bytes] = ["one", b"two" * 30, "three" * 30]
    async for attempt in cancellations():
        us, peer = connect_peer(Options(receive_buffer=50), deflate=deflate)
        got: list[str | bytes] = []

        async def send(peer: Peer = peer) -> None:
            await peer.send(Frame.text("one"))
            await peer.send(Frame.binary(b"two" * 10, fin=False))
            await wait_all_tasks_blocked()
            await peer.send(Frame.continuation(b"two" * 20))
            await peer.send(Frame.text(b"three" * 30))
            await peer.send(Frame.close(1000))

        async with peer, us as ws, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with attempt:
                async for message in ws:
                    got.append(message)  # noqa: PERF401  # to see what came before the cancel
            got += await receive_all(ws)
        assert got == expected


async def test_cancelling_a_chunk_wise_reader_leaves_the_next_message_whole(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    async for attempt in cancellations():
        us, peer = connect_peer(Options(receive_buffer=50))
        chunks: list[bytes] = []

        async def send(peer: Peer = peer) -> None:
            await peer.send(Frame.binary(b"one" * 10, fin=False))
            await wait_all_tasks_blocked()
            await peer.send(Frame.continuation(b"one" * 20))
            await peer.send(Frame.text("next"))
            await peer.send(Frame.close(1000))

        async with peer, us as ws, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with attempt:
                async with ws.receive_message() as parts:
                    async for chunk in parts:
                        chunks.append(chunk)  # noqa: PERF401  # to see what came
            rest = await receive_all(ws)
        assert (b"one" * 30).startswith(b"".join(chunks))
        whole = [b"one" * 30] if not chunks and len(rest) == 2 else []
        assert rest == [*whole, "next"]
        if not attempt.cancelled:
            assert b"".join(chunks) == b"one" * 30


@compressions
@pytest.mark.parametrize("polite", [True, False], ids=["polite", "mute"])
async def test_cancelling_the_goodbye_at_any_step_leaves_nothing(
    connect_peer: Connect,
    autojump_clock: MockClock,
    deflate: DeflateParameters | None,
    polite: bool,
) -> None:
    async for attempt in cancellations():
        us, peer = connect_peer(deflate=deflate)
        slow_down(peer, 2500, 25 if polite else None)
        async with trio.open_nursery() as nursery:
            if polite:
                nursery.start_soon(answer, peer)
            async with us as ws:
                await ws.send("said before", compress=True)
                with attempt:
                    await ws.aclose(4000)
                if attempt.fired and attempt.cancelled and ws.close_info:
                    assert peer.left
            if not polite:
                await answer(peer)
        assert peer.left
        if attempt.cancelled and ws.close_info == CloseInfo(1000, "", "local", clean=polite):
            continue  # cancelled before it had begun: it was the block that said goodbye
        assert ws.close_info is not None
        assert ws.close_info.code == 4000
        assert attempt.cancelled or ws.close_info.clean is polite
        if not attempt.cancelled:
            assert peer.messages == ["said before"]
            assert peer.close == Frame.close(4000)


async def test_a_thousand_sends_cancelled_at_random_tear_nothing(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=1000), deflate=STATEFUL_DEFLATE)
    slow_down(peer, 6000, 300)
    sent: list[str] = []

    async def send(number: int) -> None:
        with trio.move_on_after(number * 0.37 % 1):
            await ws.send(text := f"{number} " * 100)
            sent.append(text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        async with us as ws:
            for block in range(0, 1000, 20):
                async with trio.open_nursery() as senders:
                    for number in range(block, block + 20):
                        senders.start_soon(send, number)
    assert sorted(map(str, peer.messages)) == sorted(sent)
    assert 100 < len(sent) < 900
    assert peer.close == Frame.close(1000)


@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_connection_that_is_over_is_no_garbage_that_stays(role: Role) -> None:
    """Nothing but the caller's own reference keeps it."""
    ours, theirs = (
        trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair()
    )
    us = Session(ours, Options(), client=role == "client", leftover=b"")
    async with us as ws:
        await ws.send("x")
        await theirs.aclose()
        await ws.wait_closed()
    reference = weakref.ref(ws)
    del us, ws
    gc.collect()
    assert reference() is None


async def test_pings_that_were_given_up_do_not_pile_up(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(write_timeout=None, ping_interval=None))
    async with us as ws:
        peer.way.buffer = 0
        await ws.send("stuck")
        for _ in range(100):
            with trio.move_on_after(1):
                await ws.ping()
        peer.way.buffer = None
        await peer.send(Frame.close(1000))
        assert (await peer.until_close()).code == 1000
        assert ws.statistics().bytes_sent < 50  # a text and a Close


class Relayed(RelayedStream):
    """The connection of a server that speaks ASGI, and hears nothing."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_nobody_pings_through_a_server_of_somebody_else(autojump_clock: MockClock) -> None:
    async with Session(Relayed(), Options(), client=False, leftover=b"") as ws:
        with pytest.raises(NotImplementedError, match="ASGI has no pings"):
            await ws.ping()


# Views...


async def test_its_views_are_channels_of_the_same_connection(
    connect: Callable[..., tuple[Session, Session]], autojump_clock: MockClock
) -> None:
    """What each of them does: see test_views.py and test_byte_stream.py."""
    ours, theirs = connect()
    async with ours as us, theirs as them:
        await us.text.send("text")
        await us.binary.send(b"binary")
        await us.json().send([1])
        await us.typed(str, int).send(1)
        await us.as_stream().send_all(b"stream")
        received = [await them.receive() for _ in range(5)]
        assert received == ["text", b"binary", "[1]", "1", b"stream"]
