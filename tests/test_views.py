"""A connection's messages as values of one type, and what becomes of those of another."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from _helpers import Peer
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws._errors import ConnectionEnded, ConnectionLost, ProtocolViolation
from trio_ws._frames import BINARY, TEXT
from trio_ws._messages import CloseInfo, PreparedMessage
from trio_ws._options import Options
from trio_ws._session import Session
from trio_ws.testing import Frame, cancellations

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_ws._websocket import WebSocket

    Connect = Callable[..., tuple[Session, Peer]]


def views(ws: WebSocket) -> dict[str, trio.abc.Channel[Any]]:
    return {
        "text": ws.text,
        "binary": ws.binary,
        "json": ws.json(),
        "typed": ws.typed(str, int),
        "typed text": ws.typed(str, int, text=True),
        "typed binary": ws.typed(lambda number: b"%d" % number, int, text=False),
    }


every_view = pytest.mark.parametrize(
    "case",
    [
        ("text", TEXT, b"caf\xc3\xa9", "café"),
        ("binary", BINARY, b"\x00\xff", b"\x00\xff"),
        ("json", TEXT, b'{"a":[1,null,2.5]}', {"a": [1, None, 2.5]}),
        ("typed", TEXT, b"42", 42),
        ("typed text", TEXT, b"42", 42),
        ("typed binary", BINARY, b"42", 42),
    ],
)


# What fits...


@every_view
async def test_a_view_receives_and_sends_values(
    connect_peer: Connect,
    autojump_clock: MockClock,
    case: tuple[str, int, bytes, object],
) -> None:
    name, opcode, payload, value = case
    us, peer = connect_peer()
    async with us as ws:
        view = views(ws)[name]
        assert isinstance(view, trio.abc.Channel)
        await peer.send(Frame(opcode, payload))
        assert await view.receive() == value
        await view.send(value)
        expected = payload.decode() if opcode == TEXT else payload
        assert await peer.receive_message() == expected


@every_view
async def test_iterating_ends_with_the_polite_end_of_the_connection(
    connect_peer: Connect,
    autojump_clock: MockClock,
    case: tuple[str, int, bytes, object],
) -> None:
    name, opcode, payload, value = case
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(*[Frame(opcode, payload)] * 3)
        await peer.send(Frame.close(1000))
        assert [each async for each in views(ws)[name]] == [value] * 3
        with pytest.raises(ConnectionEnded):
            await views(ws)[name].receive()


@every_view
async def test_cancelling_a_receive_at_any_step_loses_nothing(
    connect_peer: Connect,
    autojump_clock: MockClock,
    case: tuple[str, int, bytes, object],
) -> None:
    name, opcode, payload, value = case
    us, peer = connect_peer(Options(ping_interval=None))
    sent = received = 0
    async with us as ws:
        view = views(ws)[name]
        async for attempt in cancellations():
            await peer.send(Frame(opcode, payload))
            sent += 1
            with attempt:
                assert await view.receive() == value
                received += 1
        while received < sent:
            assert await view.receive() == value
            received += 1
        assert ws.statistics().unread_messages == 0


async def test_closing_a_view_closes_the_connection(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer)
        async with ws.text:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await ws.text.receive()
        with pytest.raises(trio.ClosedResourceError):
            await ws.text.send("late")
    assert ws.close_info == CloseInfo(1000, "", "local", clean=True)


async def test_views_share_the_one_place_to_receive(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.text.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await ws.json().receive()
        nursery.cancel_scope.cancel()


# What does not fit...


@pytest.mark.parametrize(
    "case",
    [
        ("text", BINARY, b"text", 1003, "a text message was expected"),
        ("binary", TEXT, b"data", 1003, "a binary message was expected"),
        ("json", BINARY, b"{}", 1003, "a text message was expected"),
        ("typed text", BINARY, b"1", 1003, "a text message was expected"),
        ("typed binary", TEXT, b"1", 1003, "a binary message was expected"),
        ("json", TEXT, b"{", 1007, "the message could not be decoded"),
        ("typed", TEXT, b"no number", 1007, "the message could not be decoded"),
        ("typed binary", BINARY, b"no number", 1007, "the message could not be decoded"),
    ],
)
async def test_a_message_that_does_not_fit_ends_the_connection(
    connect_peer: Connect,
    autojump_clock: MockClock,
    case: tuple[str, int, bytes, int, str],
) -> None:
    name, opcode, payload, code, reason = case
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame(opcode, payload), Frame.text("1"))
        with pytest.raises(ConnectionLost) as caught:
            await views(ws)[name].receive()
        assert trio.current_time() == 0  # nobody waits for the peer here
        assert caught.value.info == ws.close_info == CloseInfo(code, reason, "local", clean=False)
        violation = caught.value.__cause__
        assert isinstance(violation, ProtocolViolation)
        assert (violation.code, violation.reason) == (code, reason)
        assert (violation.__cause__ is None) is (code == 1003)

        assert await peer.until_close() == Frame.close(code, reason)
        with pytest.raises(ConnectionLost):  # what came behind it has been dropped
            await ws.receive()
        with pytest.raises(ConnectionLost):
            await ws.send("too late")
        await peer.send(Frame.close(code))
    assert ws.close_info == CloseInfo(code, reason, "local", clean=True)


async def test_the_error_of_the_codec_is_kept_and_its_type_logged(
    connect_peer: Connect, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    us, peer = connect_peer(Options(close_grace=0.1))
    caplog.set_level(logging.INFO, "trio_ws")
    async with us as ws:
        await peer.send(Frame.text(b"\x1b[31mred"))
        with pytest.raises(ConnectionLost) as caught:
            await ws.json().receive()
    violation = caught.value.__cause__
    assert violation is not None
    assert isinstance(violation.__cause__, json.JSONDecodeError)
    said = f"websocket {ws.id}: the message could not be decoded: JSONDecodeError"
    assert [record.getMessage() for record in caplog.records] == [said]


async def test_iterating_raises_if_a_message_does_not_fit(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(close_grace=0.1))
    got = []

    async def count(ws: WebSocket) -> None:
        async for number in ws.typed(str, int):
            got.append(number)  # noqa: PERF401  # what came before the error counts

    async with us as ws:
        await peer.send(Frame.text("1"), Frame.text("x"), Frame.text("3"))
        with pytest.raises(ConnectionLost, match="1007"):
            await count(ws)
    assert got == [1]


async def test_a_nursery_of_the_connection_is_cancelled_and_ends_quietly(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(close_grace=0.1))

    async def consume() -> None:
        async for _ in ws.binary:
            pytest.fail("nothing fits")

    async with us as ws:
        async with ws.open_nursery() as nursery:
            nursery.start_soon(consume)
            nursery.start_soon(trio.sleep_forever)
            await peer.send(Frame.text("no bytes"))
        assert ws.close_info is not None
        assert ws.close_info.code == 1003


async def test_behind_the_peers_goodbye_the_reader_still_hears_what_was_wrong(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    """The end was polite, but must not pass for a whole conversation."""
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("{"))
        await peer.send(Frame.close(1000))
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as caught:
            await ws.json().receive()
        assert caught.value.info == ws.close_info == CloseInfo(1000, "", "remote", clean=True)
        assert isinstance(caught.value.__cause__, ProtocolViolation)
        assert caught.value.__cause__.code == 1007
        assert (await peer.until_close()).code == 1000


async def test_a_message_that_does_not_fit_wakes_a_reader_that_was_held_back(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(receive_buffer=10))
    async with us as ws:
        await peer.send(Frame.text(b"x" * 20), Frame.text(b"y" * 20))
        await wait_all_tasks_blocked()
        assert ws.statistics().reading_paused
        with pytest.raises(ConnectionLost):
            await ws.binary.receive()
        assert (await peer.until_close()).code == 1003
        await peer.send(Frame.close(1003))
        await peer.aclose()
        assert (await ws.wait_closed()).clean
    assert trio.current_time() == 0


# Wrong use...


@pytest.mark.parametrize(
    "case",
    [
        ("text", b"bytes", TypeError, "ws.text sends str, not bytes"),
        ("text", PreparedMessage("text"), TypeError, "not PreparedMessage"),
        ("binary", "text", TypeError, "ws.binary sends bytes-like objects, not str"),
        ("binary", PreparedMessage(b"data"), TypeError, "not PreparedMessage"),
        ("binary", 5, TypeError, "encode it first"),
        ("json", object(), TypeError, "not JSON serializable"),
        ("json", math.nan, ValueError, "not JSON compliant"),
        ("json", [math.inf], ValueError, "not JSON compliant"),
        ("typed binary", "text", TypeError, "%d format"),
    ],
)
async def test_what_cannot_be_encoded_is_the_callers_error_and_nothing_is_sent(
    connect_peer: Connect,
    autojump_clock: MockClock,
    case: tuple[str, object, type[Exception], str],
) -> None:
    name, value, error, words = case
    us, peer = connect_peer()
    async with us as ws:
        with pytest.raises(error, match=words):
            await views(ws)[name].send(value)
        assert ws.close_info is None
        await ws.send("next")
        assert await peer.receive_message() == "next"


async def test_a_codec_has_to_be_two_functions(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, _ = connect_peer(Options(close_grace=0.1))
    async with us as ws:
        with pytest.raises(TypeError, match="two functions, not NoneType"):
            ws.typed(str, None)  # type: ignore[call-overload]  # that is the point
        with pytest.raises(TypeError, match="two functions, not str"):
            ws.typed("utf-8", str)  # type: ignore[call-overload]  # likewise


async def test_binary_takes_anything_bytes_like(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        for data in (b"12", bytearray(b"12"), memoryview(b"12")):
            await ws.binary.send(data)
            assert await peer.receive_message() == b"12"


# JSON...


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "nul", "'a'", "[1,]", '{"a":1,}', "1 2", '"\n"'),
        *("NaN", "Infinity", "-Infinity", "[NaN]"),
        *("1e999", "-1e999", "9" * 5000),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
async def test_what_is_not_json_or_cannot_be_held_closes_with_1007(
    connect_peer: Connect, autojump_clock: MockClock, text: str
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text(text))
        with pytest.raises(ConnectionLost, match="1007"):
            await ws.json().receive()
        assert (await peer.until_close()).code == 1007
        await peer.send(Frame.close(1007))


@pytest.mark.parametrize(
    "text",
    ['"\\ud800"', '{"\\udfff":1}', "0.1", "-0.0", "1e308", '"\\u0000"', "12345678901234567890"],
)
async def test_whatever_json_is_received_can_be_sent_again(
    connect_peer: Connect, autojump_clock: MockClock, text: str
) -> None:
    """A peer must not be able to make an echo fail."""
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text(text))
        value = await ws.json().receive()
        await ws.json().send(value)
        echoed = await peer.receive_message()
        assert isinstance(echoed, str)
        assert json.loads(echoed) == json.loads(text)


async def test_json_is_compact_and_not_more_ascii_than_it_must(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await ws.json().send({"é": [1, 2], "b": None})
        assert await peer.receive_message() == '{"é":[1,2],"b":null}'
