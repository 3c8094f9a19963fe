"""Frames to events and messages to frames, as plain functions, in both roles."""

from __future__ import annotations

import math
import struct
import zlib

import pytest
from _helpers import CLOSE, DEFLATE, PING, PONG, STATEFUL_DEFLATE, Role
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage

from trio_ws._deflate import DeflateParameters
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._messages import (
    CloseReceived,
    Event,
    MessagePart,
    PingReceived,
    PongReceived,
    PreparedMessage,
    Violated,
)
from trio_ws._options import KIB, MIB, Deflate, Options
from trio_ws._protocol import MAX_FRAME, Protocol


class Side:
    """A `Protocol`, and the bytes that its peer would send."""

    def __init__(
        self, role: Role, options: Options, deflate: DeflateParameters | None = None
    ) -> None:
        self.client = role == "client"
        self.protocol = Protocol(client=self.client, options=options, deflate=deflate)

    def frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False
    ) -> bytes:
        return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=not self.client)

    def feed(self, data: bytes) -> list[Event]:
        self.protocol.receive_data(data)
        return self.events()

    def events(self) -> list[Event]:
        return list(iter(self.protocol.next_event, None))

    def read_back(self, frames: tuple[bytes, ...] | bytes) -> list[object]:
        """What plain wsproto makes of frames of this side."""
        kind = ConnectionType.SERVER if self.client else ConnectionType.CLIENT
        reader = Connection(kind)
        reader.receive_data(frames if isinstance(frames, bytes) else b"".join(frames))
        return list(reader.events())


@pytest.fixture
def side(role: Role) -> Side:
    return Side(role, Options())


def inflated(frames: tuple[bytes, ...], *, masked: bool) -> bytes:
    """The payload of a compressed message in one frame."""
    (frame,) = frames
    assert frame[0] & 0x40
    size = frame[1] & 0x7F
    start = 2 if size < 126 else 4
    assert size < 127
    payload = frame[start:]
    if masked:
        key, payload = payload[:4], payload[4:]
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


# Receiving...


def test_a_message_in_one_frame_is_one_part(side: Side) -> None:
    events = side.feed(side.frame(TEXT, "café".encode()) + side.frame(BINARY, b"\x00\xff"))
    assert events == [MessagePart("café", 5, final=True), MessagePart(b"\x00\xff", 2, final=True)]
    assert type(events[1].data) is bytes


def test_an_empty_message_is_a_part(side: Side) -> None:
    assert side.feed(side.frame(TEXT) + side.frame(BINARY)) == [
        MessagePart("", 0, final=True),
        MessagePart(b"", 0, final=True),
    ]


def test_fragments_are_parts_and_the_empty_ones_are_not_told(side: Side) -> None:
    events = side.feed(
        side.frame(BINARY, b"", fin=False)
        + side.frame(CONTINUATION, b"ab", fin=False)
        + side.frame(CONTINUATION, b"", fin=False)
        + side.frame(CONTINUATION, b"c", fin=False)
        + side.frame(CONTINUATION, b"")
    )
    assert events == [
        MessagePart(b"ab", 2, final=False),
        MessagePart(b"c", 1, final=False),
        MessagePart(b"", 0, final=True),
    ]


def test_the_sizes_of_the_parts_add_up_where_characters_are_cut(side: Side) -> None:
    text = "aé€😀".encode()
    frames = [
        side.frame(CONTINUATION if index else TEXT, bytes([byte]), fin=index == len(text) - 1)
        for index, byte in enumerate(text)
    ]
    parts = [part for frame in frames for part in side.feed(frame)]
    assert parts == [
        MessagePart("a", 1, final=False),
        MessagePart("é", 2, final=False),
        MessagePart("€", 3, final=False),
        MessagePart("😀", 4, final=True),
    ]


def test_a_frame_that_comes_in_pieces_is_told_in_pieces(side: Side) -> None:
    frame = side.frame(BINARY, b"0123456789")
    assert side.feed(frame[:-7]) == [MessagePart(b"012", 3, final=False)]
    assert side.feed(frame[-7:-7]) == []
    assert side.feed(frame[-7:]) == [MessagePart(b"3456789", 7, final=True)]


def test_control_frames_come_between_fragments(side: Side) -> None:
    events = side.feed(
        side.frame(TEXT, b"a", fin=False)
        + side.frame(PING, b"payload")
        + side.frame(PONG)
        + side.frame(CONTINUATION, b"b")
    )
    assert events == [
        MessagePart("a", 1, final=False),
        PingReceived(b"payload"),
        PongReceived(b""),
        MessagePart("b", 1, final=True),
    ]
    assert type(events[1].payload) is bytes


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999])
def test_the_close_of_the_peer_has_its_code_and_reason(side: Side, code: int) -> None:
    payload = struct.pack("!H", code) + "tschüß".encode()
    (event,) = side.feed(side.frame(CLOSE, payload))
    assert event == CloseReceived(code, "tschüß")
    assert type(event.code) is int


def test_a_close_without_a_code_is_1005(side: Side) -> None:
    assert side.feed(side.frame(CLOSE)) == [CloseReceived(1005, "")]


def test_the_close_of_the_peer_is_known_behind_our_own(side: Side) -> None:
    side.protocol.close(1000, "")
    assert side.feed(side.frame(CLOSE, b"\x03\xe8")) == [CloseReceived(1000, "")]


def test_only_a_close_is_mended_when_it_says_1014(side: Side) -> None:
    assert side.feed(side.frame(PING, b"\x03\xf6")) == [PingReceived(b"\x03\xf6")]
    assert side.feed(side.frame(CLOSE, b"\x03\xf5")) == [CloseReceived(1013, "")]


def close(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


@pytest.mark.parametrize(
    ("opcode", "payload", "bits", "code"),
    [
        (0x3, b"", {}, 1002),  # a data frame that is not defined
        (0xB, b"", {}, 1002),  # a control frame that is not defined
        (TEXT, b"", {"rsv1": True}, 1002),
        (PING, b"", {"rsv1": True}, 1002),
        (CONTINUATION, b"a", {}, 1002),
        (PING, b"", {"fin": False}, 1002),
        (PING, bytes(126), {}, 1002),
        (CLOSE, b"\x03", {}, 1002),
        (CLOSE, close(0), {}, 1002),
        (CLOSE, close(999), {}, 1002),
        (CLOSE, close(1004), {}, 1002),
        (CLOSE, close(1005), {}, 1002),
        (CLOSE, close(1006), {}, 1002),
        (CLOSE, close(1015), {}, 1002),
        (CLOSE, close(1016), {}, 1002),
        (CLOSE, close(2999), {}, 1002),
        (CLOSE, close(5000), {}, 1002),
        (CLOSE, close(1000, b"\xff"), {}, 1007),
        (CLOSE, close(1014, b"\xff"), {}, 1007),
        (TEXT, b"\xff", {}, 1007),
        (TEXT, b"\xc0\x80", {}, 1007),  # overlong
        (TEXT, b"\xed\xa0\x80", {}, 1007),  # a surrogate
        (TEXT, b"caf\xc3", {}, 1007),  # cut short
        (TEXT, b"\xff", {"fin": False}, 1007),  # at once, not at the end
        (BINARY, bytes(MIB + 1), {}, 1009),
    ],
)
def test_a_violation_is_no_close(
    side: Side, opcode: int, payload: bytes, bits: dict[str, bool], code: int
) -> None:
    events = side.feed(side.frame(opcode, payload, **bits) + side.frame(PING))
    (event,) = events
    assert isinstance(event, Violated)
    assert event.code == code
    assert type(event.code) is int
    assert event.reason


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"\x82\x7f" + struct.pack("!Q", MIB + 1), 1009),
        (b"\x82\x7f" + struct.pack("!Q", 2**40), 1009),
        (b"\x82\x7f" + struct.pack("!Q", 2**63), 1002),
        (b"\x82\x7f" + struct.pack("!Q", 125), 1002),
        (b"\x82\x7e" + struct.pack("!H", 125), 1002),
        (b"\x80\x01", 1002),
        (b"\x83\x01", 1002),
        (b"\x89\x7e\x00\x7e", 1002),
    ],
    ids=["size", "huge", "sign", "wasteful 8", "wasteful 2", "continuation", "opcode", "control"],
)
def test_a_frame_is_refused_before_its_masking_key_comes(
    side: Side, header: bytes, code: int
) -> None:
    mask = b"" if side.client else bytes((header[1] | 0x80,))
    header = header[:1] + (mask or header[1:2]) + header[2:]
    assert side.feed(header[:1]) == []
    (event,) = side.feed(header[1:])
    assert isinstance(event, Violated)
    assert event.code == code


def test_a_peer_that_masks_as_this_side_does_violates(side: Side) -> None:
    data = encode_frame(TEXT, b"hello", masked=side.client)
    (event,) = side.feed(data)
    assert isinstance(event, Violated)
    assert event.code == 1002
    assert "masked" in event.reason


def test_a_message_inside_another_is_a_violation(side: Side) -> None:
    events = side.feed(side.frame(TEXT, b"a", fin=False) + side.frame(TEXT, b"b"))
    assert events == [
        MessagePart("a", 1, final=False),
        Violated(1002, "new message inside another"),
    ]


def test_a_limit_says_which_one(role: Role) -> None:
    side = Side(role, Options(max_fragments=2))
    frames = [side.frame(TEXT, fin=False), *[side.frame(CONTINUATION, fin=False)] * 2]
    assert side.feed(b"".join(frames)) == [Violated(1008, "message of 3 frames: 2 is the most")]


@pytest.mark.parametrize("last", [b"\x03\xe8", b"\x03"], ids=["close", "violation"])
def test_nothing_behind_the_end_is_heard(side: Side, last: bytes) -> None:
    assert len(side.feed(side.frame(CLOSE, last) + side.frame(TEXT, b"more"))) == 1
    assert side.feed(side.frame(TEXT, b"and more")) == []


def test_an_event_is_made_when_it_is_asked_for(side: Side) -> None:
    """A violation at the end of a read does not undo the messages before it."""
    side.protocol.receive_data(side.frame(TEXT, b"good") + side.frame(CLOSE, b"\x03"))
    assert side.protocol.next_event() == MessagePart("good", 4, final=True)
    side.protocol.receive_data(side.frame(PING))  # there may be more meanwhile
    assert isinstance(side.protocol.next_event(), Violated)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_plain_frames_and_others_come_in_their_order(side: Side, step: int) -> None:
    data = b"".join(
        [
            side.frame(TEXT, b"plain"),
            side.frame(PING, b"1"),
            side.frame(BINARY, bytes(200)),
            side.frame(TEXT, b"frag", fin=False),
            side.frame(PING, b"2"),
            side.frame(CONTINUATION, b"ments"),
            side.frame(TEXT, "é".encode()),
            side.frame(TEXT),
            side.frame(PONG, b"3"),
            side.frame(BINARY, b"last"),
        ]
    )
    told: list[object] = []
    pieces: list[str] | list[bytes] = []
    for at in range(0, len(data), step):
        for event in side.feed(data[at : at + step]):
            if not isinstance(event, MessagePart):
                told.append(event)
                continue
            pieces.append(event.data)
            if event.final:
                told.append(type(event.data)().join(pieces))
                pieces = []
    assert told == [
        "plain",
        PingReceived(b"1"),
        bytes(200),
        PingReceived(b"2"),
        "fragments",
        "é",
        "",
        PongReceived(b"3"),
        b"last",
    ]


# Receiving compressed...


def bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_a_bomb_goes_off_within_the_limit(role: Role) -> None:
    side = Side(role, Options(max_message_size=100_000), DEFLATE)
    (event,) = side.feed(side.frame(BINARY, bomb(100_001), rsv1=True))
    assert event == Violated(1009, "message of more than 100000 bytes after inflating")


def test_parts_of_a_compressed_message_have_their_inflated_size(role: Role) -> None:
    side = Side(role, Options(), DEFLATE)
    frame = side.frame(BINARY, bomb(300_000), rsv1=True)
    parts = side.feed(frame[:100]) + side.feed(frame[100:])
    assert sum(part.size for part in parts) == 300_000
    assert all(part.size == len(part.data) for part in parts)
    assert [part.final for part in parts] == [False, True]


def test_without_a_limit_a_read_is_inflated_in_steps(role: Role) -> None:
    side = Side(role, Options(max_message_size=None), DEFLATE)
    parts = side.feed(side.frame(BINARY, bomb(20 * MIB), rsv1=True))
    assert sum(part.size for part in parts) == 20 * MIB
    assert max(part.size for part in parts) <= 1032 * 4 * KIB + 1032
    assert len(parts) > 4


def test_without_a_limit_and_deflate_a_read_is_handed_over_whole(role: Role) -> None:
    side = Side(role, Options(max_message_size=None))
    assert side.feed(side.frame(BINARY, bytes(20_000))) == [
        MessagePart(bytes(20_000), 20_000, final=True)
    ]


# Sending...


def test_messages_of_either_kind(side: Side) -> None:
    (text,) = side.read_back(side.protocol.encode(PreparedMessage("café")))
    assert isinstance(text, TextMessage)
    assert text.data == "café"
    (binary,) = side.read_back(side.protocol.encode(PreparedMessage(b"\x00\xff")))
    assert isinstance(binary, BytesMessage)
    assert binary.data == b"\x00\xff"


@pytest.mark.parametrize("size", [0, MAX_FRAME, MAX_FRAME + 1, 3 * MAX_FRAME])
def test_a_large_message_leaves_in_frames_that_let_others_in(side: Side, size: int) -> None:
    frames = side.protocol.encode(PreparedMessage(bytes(size)))
    assert len(frames) == max(1, math.ceil(size / MAX_FRAME))
    assert all(len(frame) <= MAX_FRAME + 14 for frame in frames)
    events = side.read_back(frames)
    assert all(isinstance(event, Message) for event in events)
    assert b"".join(event.data for event in events) == bytes(size)
    assert [event.message_finished for event in events] == [False] * (len(frames) - 1) + [True]


def test_only_the_first_frame_of_a_compressed_message_says_so(role: Role) -> None:
    deflate = Deflate(level=0)
    side = Side(role, Options(compression=deflate), DEFLATE)
    frames = side.protocol.encode(PreparedMessage(bytes(2 * MAX_FRAME)))
    assert [frame[0] for frame in frames] == [0x42, 0x00, 0x80]


def test_a_server_encodes_a_prepared_message_once() -> None:
    message = PreparedMessage("x" * 2000)
    options = Options()
    plain = [Side("server", options).protocol.encode(message) for _ in range(2)]
    assert plain[0] is plain[1]
    packed = [Side("server", options, DEFLATE).protocol.encode(message) for _ in range(2)]
    assert packed[0] is packed[1]
    assert inflated(packed[0], masked=False) == message.payload
    assert len(message.encoded) == 2
    other = Options(compression=Deflate(level=1))
    assert Side("server", other, DEFLATE).protocol.encode(message) is not packed[0]


def test_what_depends_on_the_connection_is_not_kept() -> None:
    message = PreparedMessage("x" * 2000)
    masked = [Side("client", Options()).protocol.encode(message) for _ in range(2)]
    assert masked[0] != masked[1]
    server = Side("server", Options(), STATEFUL_DEFLATE).protocol
    first, second = server.encode(message), server.encode(message)
    assert len(first[0]) > len(second[0])  # refers to the first one
    assert not message.encoded


def test_small_messages_are_compressed_only_if_asked(role: Role) -> None:
    side = Side(role, Options(), DEFLATE)
    small, large = PreparedMessage("x" * 1023), PreparedMessage("x" * 1024)
    assert side.read_back(side.protocol.encode(small)) == [TextMessage(small.data)]
    assert inflated(side.protocol.encode(small, compress=True), masked=side.client)
    assert inflated(side.protocol.encode(large), masked=side.client) == large.payload
    assert side.read_back(side.protocol.encode(large, compress=False)) == [TextMessage(large.data)]


def test_nothing_is_compressed_that_was_not_agreed_on(side: Side) -> None:
    message = PreparedMessage("x" * 5000)
    assert side.read_back(side.protocol.encode(message, compress=True)) == [
        TextMessage(message.data)
    ]
    assert not side.protocol.compresses_parts(True)


def test_parts_are_compressed_unless_forbidden(role: Role) -> None:
    """How long the message will be nobody knows; hence as a long one."""
    side = Side(role, Options(), DEFLATE)
    assert side.protocol.compresses_parts(None)
    assert side.protocol.compresses_parts(True)
    assert not side.protocol.compresses_parts(False)


def test_a_message_in_parts(side: Side) -> None:
    frames = side.protocol.encode_part("caf", first=True, final=False, compressed=False)
    frames += side.protocol.encode_part("é", first=False, final=False, compressed=False)
    frames += side.protocol.encode_part("", first=False, final=True, compressed=False)
    assert [frame[0] for frame in frames] == [0x01, 0x00, 0x80]
    events = side.read_back(frames)
    assert "".join(event.data for event in events) == "café"
    assert events[-1].message_finished


@pytest.mark.parametrize("deflate", [DEFLATE, STATEFUL_DEFLATE])
def test_a_compressed_message_in_parts(role: Role, deflate: DeflateParameters) -> None:
    side = Side(role, Options(), deflate)
    peer = Side("server" if side.client else "client", Options(), deflate)
    for _ in range(2):
        parts = []
        for index, data in enumerate((b"a" * 50, b"", b"b" * 50)):
            (frame,) = side.protocol.encode_part(
                data, first=index == 0, final=False, compressed=True
            )
            assert frame[0] == (0x42 if index == 0 else 0)
            parts += peer.feed(frame)
        (frame,) = side.protocol.encode_part(b"", first=False, final=True, compressed=True)
        parts += peer.feed(frame)
        assert b"".join(part.data for part in parts) == b"a" * 50 + b"b" * 50
        assert [part.final for part in parts] == [False, False, True]


def test_pings_and_pongs(side: Side) -> None:
    assert side.read_back(side.protocol.ping(b"1") + side.protocol.pong(b"2")) == [
        Ping(b"1"),
        Pong(b"2"),
    ]


@pytest.mark.parametrize("code", [1000, 1008, 1014, 3333])
def test_a_close_has_a_code(side: Side, code: int) -> None:
    data = side.protocol.close(code, "why")
    peer = Side("server" if side.client else "client", Options())
    assert peer.feed(data) == [CloseReceived(code, "why")]


def test_a_close_that_answers_one_without_a_code_has_none(side: Side) -> None:
    assert side.read_back(side.protocol.close(1005, "")) == [CloseConnection(1005, "")]


def test_a_long_reason_is_cut_between_characters(side: Side) -> None:
    (event,) = side.read_back(side.protocol.close(1002, "x" + "€" * 50))
    assert event.reason == "x" + "€" * 40  # 121 bytes of the 123


@pytest.mark.parametrize("deflate", [None, DEFLATE, STATEFUL_DEFLATE])
def test_what_one_side_sends_the_other_receives(
    role: Role, deflate: DeflateParameters | None
) -> None:
    us = Side(role, Options(), deflate)
    peer = Side("server" if us.client else "client", Options(), deflate)
    for data in ("", b"", "é" * 3000, bytes(range(256)) * 1000, "short", b"\x00" * MIB):
        parts = peer.feed(b"".join(us.protocol.encode(PreparedMessage(data))))
        assert type(data)().join(part.data for part in parts) == data
        assert parts[-1].final


# Memory...


def test_what_is_not_parsed_yet_is_held(side: Side) -> None:
    frame = side.frame(BINARY, b"x" * 100)
    side.protocol.receive_data(frame * 3)
    assert side.protocol.held == 3 * len(frame)
    side.protocol.next_event()
    assert side.protocol.held == 3 * len(frame)  # the one object that was read
    side.events()
    assert side.protocol.held == 0


def test_so_is_what_compression_needs_for_the_rest_of_a_message(role: Role) -> None:
    side = Side(role, Options(), DEFLATE)
    payload = zlib.compress(b"x" * 100, wbits=-12)
    side.feed(side.frame(BINARY, payload[:-2], fin=False, rsv1=True))
    assert side.protocol.held == 11 * KIB
    side.feed(side.frame(CONTINUATION, payload[-2:]))
    assert side.protocol.held == 0


@pytest.mark.parametrize("fin", [True, False], ids=["plain", "fragment"])
def test_a_frame_beyond_its_limit_is_refused(role: Role, fin: bool) -> None:
    side = Side(role, Options(max_frame_size=100))
    assert len(side.feed(side.frame(BINARY, b"x" * 100))) == 1
    (event,) = side.feed(side.frame(BINARY, b"x" * 101, fin=fin))
    assert event == Violated(1009, "frame of 101 bytes: 100 is the most")


# Past wsproto...


def test_whole_plain_messages_come_in_a_row(side: Side) -> None:
    data = b"".join(side.frame(TEXT, b"%d" % n) for n in range(5)) + side.frame(PING, b"x")
    side.protocol.receive_data(data)
    assert side.protocol.next_messages(3) == [("0", 1), ("1", 1), ("2", 1)]
    assert side.protocol.next_messages(10, room=1) == [("3", 1)]
    assert side.protocol.next_messages(10) == [("4", 1)]
    assert not side.protocol.exhausted
    assert side.protocol.next_messages(10) == []
    assert side.events() == [PingReceived(b"x")]
    assert side.protocol.exhausted


def test_between_fragments_no_message_is_plain(side: Side) -> None:
    assert side.feed(side.frame(TEXT, b"one ", fin=False)) == [MessagePart("one ", 4, final=False)]
    side.protocol.receive_data(side.frame(TEXT, b"inside"))
    assert side.protocol.next_messages(10) == []
    (violation,) = side.events()
    assert violation == Violated(1002, "new message inside another")


@pytest.mark.parametrize("cut", [3, 20, 5000, 9999])
def test_a_large_frame_comes_as_it_arrives(side: Side, cut: int) -> None:
    text = "größer als 4 KiB " * 500
    data = side.frame(TEXT, text.encode()) + side.frame(TEXT, b"next")
    parts = side.feed(data[:cut]) + side.feed(data[cut:])
    *of_text, last = parts
    assert last == MessagePart("next", 4, final=True)
    assert "".join(part.data for part in of_text) == text  # type: ignore[union-attr, misc]
    assert sum(part.size for part in of_text) == len(text.encode())  # type: ignore[union-attr]
    assert [part.final for part in of_text][-1]  # type: ignore[union-attr]


def test_the_first_wrong_byte_of_a_large_frame_is_refused(side: Side) -> None:
    data = side.frame(TEXT, b"x" * 10_000 + b"\xff" + b"x" * 10_000)
    assert side.feed(data[:5000])
    assert side.feed(data[5000:9000])
    (violation,) = side.feed(data[9000:15_000])
    assert isinstance(violation, Violated)
    assert violation.code == 1007
    assert side.feed(data[15_000:]) == []


def test_half_a_character_is_nothing_yet(side: Side) -> None:
    data = side.frame(TEXT, "é".encode() * 3000)
    start = len(data) - 6000
    assert side.feed(data[: start + 1]) == []
    assert side.feed(data[start + 1 : start + 2]) == [MessagePart("é", 2, final=False)]


@pytest.mark.parametrize("data", ["text ö", b"binary", "", "x" * 70_000])
def test_what_is_not_prepared_is_sent_alike(side: Side, data: str | bytes) -> None:
    (event,) = side.read_back(side.protocol.encode(data))
    assert isinstance(event, Message)
    assert event.data == data
    assert event.message_finished
