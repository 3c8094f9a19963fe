"""Any bytes, in any chunks: the same events, or one violation, and never an exception."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, TypeAlias

from _helpers import CLOSE, DEFLATE, PING, PONG, STATEFUL_DEFLATE
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Message, Ping, Pong

from trio_ws._deflate import DeflateParameters
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._lane import PIECEWISE
from trio_ws._messages import (
    CloseReceived,
    Event,
    MessagePart,
    PingReceived,
    PongReceived,
    PreparedMessage,
    Violated,
)
from trio_ws._options import Deflate, Options
from trio_ws._protocol import Protocol

Told: TypeAlias = "list[tuple[Any, ...]]"

LIMITS = Options(max_message_size=40, max_fragments=4, compression=Deflate(threshold=0))
NO_LIMITS = Options(max_message_size=None, max_fragments=None)

opcodes = st.one_of(
    st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG]),
    st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG, CLOSE]),
    st.integers(0, 15),
)
payloads = st.one_of(
    st.text(max_size=12).map(str.encode),
    st.binary(max_size=30),
    st.sampled_from([b"\x03\xe8", b"\x03\xf6bye", b"\x03\xee", b"\x03", b"x" * 126]),
)


@st.composite
def frames(draw: st.DrawFn, *, masked: bool) -> bytes:
    frame = bytearray(
        encode_frame(draw(opcodes), draw(payloads), fin=draw(st.booleans()), masked=masked)
    )
    if draw(st.integers(0, 15)) == 0:  # now and then, a bit is wrong
        frame[draw(st.integers(0, len(frame) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(frame)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bool, bytes]:
    """A role, and what a peer might send to it."""
    client = draw(st.booleans())
    return client, b"".join(draw(st.lists(frames(masked=not client), max_size=12)))


@st.composite
def large_payloads(draw: st.DrawFn) -> bytes:
    """What is read piece by piece: 4 to 20 KiB, of characters of any width, at times spoilt."""
    unit = draw(st.text(min_size=1, max_size=8)).encode()
    size = draw(st.one_of(st.integers(PIECEWISE - 9, PIECEWISE + 9), st.integers(4096, 20_480)))
    payload = bytearray((unit * (size // len(unit) + 1))[:size])
    for at in draw(st.lists(st.integers(0, size - 1), max_size=2)):
        payload[at] = draw(st.sampled_from([0x00, 0x80, 0xBF, 0xC3, 0xED, 0xF4, 0xFF]))
    if draw(st.booleans()):  # so that the end of it does not tear a character
        payload = bytearray(payload.decode(errors="ignore").encode())
    return bytes(payload)


@st.composite
def large_streams(draw: st.DrawFn) -> tuple[bool, bytes]:
    """Large frames, most of them whole messages, among others; at times a bit is wrong."""
    client = draw(st.booleans())
    large = st.builds(
        encode_frame,
        st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION]),
        large_payloads(),
        fin=st.sampled_from([True, True, True, False]),
        masked=st.just(not client),
    )
    data = bytearray(
        b"".join(draw(st.lists(st.one_of(large, frames(masked=not client)), max_size=5)))
    )
    if data and draw(st.integers(0, 7)) == 0:
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return client, bytes(data)


large_cuts = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 9000)), min_size=1, max_size=8)
LARGE_LIMITS = Options(max_message_size=12_000, max_fragments=4, max_frame_size=11_000)

chunk_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def cut(data: bytes, sizes: list[int]) -> Iterable[bytes]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(data):
            break
        yield data[start : start + size]
        start += size


def fed(
    chunks: Iterable[bytes],
    options: Options,
    *,
    client: bool,
    deflate: DeflateParameters | None = None,
) -> list[Event]:
    protocol = Protocol(client=client, options=options, deflate=deflate)
    events: list[Event] = []
    for chunk in chunks:
        protocol.receive_data(chunk)
        events += iter(protocol.next_event, None)
    return events


def told(events: list[Event]) -> Told:
    """What the events say, however the messages were cut; not, how far one was that is torn."""
    result: Told = []
    data: str | bytes | None = None
    size = 0
    for event in events:
        if isinstance(event, MessagePart):
            data = event.data if data is None else data + event.data
            size += event.size
            assert data or event.final
            if event.final:
                result.append(("message", data, size))
                data, size = None, 0
        elif isinstance(event, Violated):
            result.append(("violated", event.code))
        elif isinstance(event, CloseReceived):
            result.append(("close", event.code, event.reason))
        else:
            result.append((type(event), event.payload))
    return result


@given(streams(), chunk_sizes)
def test_any_chunking_of_the_same_bytes_gives_the_same_events(
    stream: tuple[bool, bytes], sizes: list[int]
) -> None:
    client, data = stream
    whole = told(fed([data], LIMITS, client=client))
    assert told(fed(cut(data, sizes), LIMITS, client=client)) == whole


@given(streams(), chunk_sizes, st.sampled_from([None, DEFLATE, STATEFUL_DEFLATE]))
def test_a_close_or_one_violation_comes_last(
    stream: tuple[bool, bytes], sizes: list[int], deflate: DeflateParameters | None
) -> None:
    client, data = stream
    events = fed(cut(data, sizes), LIMITS, client=client, deflate=deflate)
    assert not any(isinstance(event, (CloseReceived, Violated)) for event in events[:-1])
    for message in told(events):
        if message[0] == "message":
            assert message[2] <= 40
            payload = message[1].encode() if isinstance(message[1], str) else message[1]
            assert len(payload) == message[2]


@given(
    st.booleans(),
    st.binary(max_size=300),
    chunk_sizes,
    st.sampled_from([None, DEFLATE, STATEFUL_DEFLATE]),
)
def test_random_bytes_give_events_or_one_violation(
    client: bool, data: bytes, sizes: list[int], deflate: DeflateParameters | None
) -> None:
    events = fed(cut(data, sizes), LIMITS, client=client, deflate=deflate)
    assert not any(isinstance(event, (CloseReceived, Violated)) for event in events[:-1])


def plain(data: bytes, *, client: bool) -> Told:
    """What wsproto says without us."""
    connection = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
    connection.receive_data(data)
    result: Told = []
    pieces: list[Any] = []
    for event in connection.events():
        if isinstance(event, Message):
            pieces.append(event.data)
            if event.message_finished:
                joined = type(pieces[0])().join(pieces)
                size = len(joined.encode() if isinstance(joined, str) else joined)
                result.append(("message", joined, size))
                pieces.clear()
        elif isinstance(event, CloseConnection):
            if connection.state is ConnectionState.REMOTE_CLOSING:
                result.append(("close", event.code, event.reason or ""))
            else:
                result.append(("violated", event.code))
        else:
            assert isinstance(event, (Ping, Pong))
            kind = PingReceived if isinstance(event, Ping) else PongReceived
            result.append((kind, bytes(event.payload)))
    return result


def lenient(told_by_wsproto: Told, ours: Told) -> Told:
    """What wsproto says, but for the two things in which we know more."""
    if ours and ours[-1][:2] == ("close", 1014):
        assert told_by_wsproto.pop() == ("violated", 1002)
        return [*told_by_wsproto, ours[-1]]
    if len(ours) > len(told_by_wsproto):  # a message inside another, refused in time
        assert ours[-1] == ("violated", 1002)
        return [*told_by_wsproto, ours[-1]]
    return told_by_wsproto


@given(streams())
def test_without_limits_it_says_what_wsproto_says(stream: tuple[bool, bytes]) -> None:
    client, data = stream
    ours = told(fed([data], NO_LIMITS, client=client))
    assert ours == lenient(plain(data, client=client), ours)


@given(large_streams(), large_cuts)
def test_of_large_frames_cut_anywhere_it_says_what_wsproto_says(
    stream: tuple[bool, bytes], sizes: list[int]
) -> None:
    client, data = stream
    ours = told(fed(cut(data, sizes), NO_LIMITS, client=client))
    assert ours == lenient(plain(data, client=client), ours)


@given(large_streams(), large_cuts)
def test_limits_hold_for_large_frames_however_they_are_cut(
    stream: tuple[bool, bytes], sizes: list[int]
) -> None:
    client, data = stream
    whole = told(fed([data], LARGE_LIMITS, client=client))
    assert told(fed(cut(data, sizes), LARGE_LIMITS, client=client)) == whole
    assert all(event[2] <= 12_000 for event in whole if event[0] == "message")


messages = st.one_of(st.text(max_size=60), st.binary(max_size=60)).map(PreparedMessage)


@given(
    st.booleans(),
    st.lists(st.tuples(messages, st.sampled_from([None, True, False])), max_size=8),
    chunk_sizes,
    st.sampled_from([None, DEFLATE, STATEFUL_DEFLATE]),
)
def test_what_is_sent_is_received(
    client: bool,
    sent: list[tuple[PreparedMessage, bool | None]],
    sizes: list[int],
    deflate: DeflateParameters | None,
) -> None:
    options = LIMITS.replace(max_message_size=1000)
    sender = Protocol(client=client, options=options, deflate=deflate)
    data = b"".join(
        frame for message, compress in sent for frame in sender.encode(message, compress=compress)
    )
    events = fed(cut(data, sizes), options, client=not client, deflate=deflate)
    assert told(events) == [("message", message.data, len(message.payload)) for message, _ in sent]


@given(
    st.booleans(),
    st.lists(st.text(max_size=20), max_size=6),
    chunk_sizes,
    st.sampled_from([None, DEFLATE, STATEFUL_DEFLATE]),
)
def test_what_is_sent_in_parts_is_received(
    client: bool, parts: list[str], sizes: list[int], deflate: DeflateParameters | None
) -> None:
    options = LIMITS.replace(max_message_size=1000, max_fragments=10)
    sender = Protocol(client=client, options=options, deflate=deflate)
    data = b""
    for _ in range(2):  # what is kept of the first message is good for the second
        for index, part in enumerate([*parts, ""]):
            data += b"".join(
                sender.encode_part(
                    part,
                    first=index == 0,
                    final=index == len(parts),
                    compressed=deflate is not None,
                )
            )
    text = "".join(parts)
    message = ("message", text, len(text.encode()))
    events = fed(cut(data, sizes), options, client=not client, deflate=deflate)
    assert told(events) == [message, message]
