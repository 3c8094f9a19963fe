"""What a peer may send: refused at the frame header, or not at all."""

from __future__ import annotations

import math

import pytest
from frame_receiver import FrameReceiver
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._limits import Limits

CLOSE = 0x8
PING = 0x9


@pytest.fixture(params=[True, False], ids=["client", "server"])
def client(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def receiver(
    client: bool, *, max_message_size: float = math.inf, max_fragments: float = math.inf
) -> FrameReceiver:
    return FrameReceiver(Limits(max_message_size, max_fragments), client=client)


def test_a_message_of_the_largest_size_passes(client: bool) -> None:
    peer = receiver(client, max_message_size=10)
    (event,) = peer.frame(b"0123456789")
    assert isinstance(event, BytesMessage)
    assert event.data == b"0123456789"
    assert peer.limits.size == 10
    assert peer.limits.violation is None


@pytest.mark.parametrize("length", [11, 70_000, 2**31, 2**40, 2**62, 2**63 - 1])
def test_a_longer_message_is_refused_from_its_header_alone(client: bool, length: int) -> None:
    peer = receiver(client, max_message_size=10)
    events = peer.header(BINARY, length)
    peer.assert_refused(
        events, CloseReason.MESSAGE_TOO_BIG, f"message of {length} bytes: 10 is the most"
    )


def test_the_fragments_of_a_message_count_together(client: bool) -> None:
    peer = receiver(client, max_message_size=10)
    assert len(peer.frame(b"012345", opcode=TEXT, fin=False)) == 1
    events = peer.header(CONTINUATION, 5)
    peer.assert_refused(events, CloseReason.MESSAGE_TOO_BIG, "message of 11 bytes: 10 is the most")


def test_each_message_is_counted_from_zero(client: bool) -> None:
    peer = receiver(client, max_message_size=10, max_fragments=2)
    for _ in range(3):
        assert len(peer.frame(b"01234", fin=False)) == 1
        assert len(peer.frame(b"56789", opcode=CONTINUATION)) == 1
    assert peer.limits.size == 10


def test_a_fragment_too_many_is_refused_even_if_all_are_empty(client: bool) -> None:
    peer = receiver(client, max_fragments=3)
    assert len(peer.frame(b"", fin=False)) == 1
    for _ in range(2):
        assert len(peer.frame(b"", opcode=CONTINUATION, fin=False)) == 1
    peer.assert_refused(
        peer.header(CONTINUATION, 0),
        CloseReason.POLICY_VIOLATION,
        "message of 4 frames: 3 is the most",
    )


def test_control_frames_between_fragments_are_not_counted(client: bool) -> None:
    peer = receiver(client, max_message_size=4, max_fragments=2)
    assert len(peer.frame(b"01", fin=False)) == 1
    for _ in range(5):
        (event,) = peer.frame(b"x" * 125, opcode=PING)
        assert isinstance(event, Ping)
        assert peer.limits.size == 2
    (event,) = peer.frame(b"23", opcode=CONTINUATION)
    assert isinstance(event, BytesMessage)
    assert event.message_finished
    assert peer.limits.size == 4


def test_a_header_that_comes_byte_by_byte_counts_once() -> None:
    """wsproto asks about a header again once the masking key is there."""
    peer = receiver(False, max_message_size=4, max_fragments=2)
    wire = (
        encode_frame(BINARY, b"01", fin=False, masked=True)
        + encode_frame(PING, b"", masked=True)
        + encode_frame(CONTINUATION, b"23", masked=True)
    ) * 2
    events = [event for at in range(len(wire)) for event in peer.feed(wire[at : at + 1])]
    assert not any(isinstance(event, CloseConnection) for event in events)
    data = b"".join(event.data for event in events if isinstance(event, BytesMessage))
    assert data == b"01230123"


def test_size_tells_the_bytes_of_each_piece_of_a_text(client: bool) -> None:
    peer = receiver(client)
    wire = encode_frame(TEXT, "äöü".encode(), masked=peer.peer_masks)
    sizes = []
    for at in range(len(wire)):
        for event in peer.feed(wire[at : at + 1]):
            assert isinstance(event, TextMessage)
            sizes.append(peer.limits.size)
    assert sizes == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("length", [0, 5, 2**62])
def test_a_continuation_of_nothing_is_a_protocol_error(client: bool, length: int) -> None:
    peer = receiver(client, max_message_size=10)
    peer.assert_refused(
        peer.header(CONTINUATION, length), CloseReason.PROTOCOL_ERROR, "continuation of no message"
    )


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_inside_another_is_a_protocol_error(client: bool, opcode: int) -> None:
    peer = receiver(client, max_message_size=10)
    assert len(peer.frame(b"", fin=False)) == 1
    peer.assert_refused(
        peer.header(opcode, 2**62), CloseReason.PROTOCOL_ERROR, "new message inside another"
    )


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING])
@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_no_reserved_bit_is_allowed(client: bool, opcode: int, bit: int) -> None:
    (event,) = receiver(client).header(opcode | bit, 0)
    assert isinstance(event, CloseConnection)
    assert event.code is CloseReason.PROTOCOL_ERROR


def test_infinity_is_no_limit(client: bool) -> None:
    peer = receiver(client)
    assert len(peer.frame(b"", fin=False)) == 1
    for _ in range(5000):
        assert len(peer.frame(b"x", opcode=CONTINUATION, fin=False)) == 1
    assert peer.header(CONTINUATION, 2**63 - 1) == []
    assert peer.limits.violation is None


def test_limits_are_always_on_and_never_negotiated() -> None:
    limits = Limits(1, 1)
    assert limits.enabled()
    assert limits.size == 0
    assert limits.offer() is False


def test_a_close_with_1014_looks_like_1013_to_wsproto(client: bool) -> None:
    """IANA knows "bad gateway", wsproto does not."""
    peer = receiver(client)
    assert peer.frame(b"\x03\xf6why", opcode=CLOSE) == [CloseConnection(1013, "why")]
    assert peer.limits.bad_gateway


def test_a_frame_beyond_its_own_limit_is_refused_from_its_header_alone(client: bool) -> None:
    peer = FrameReceiver(Limits(math.inf, math.inf, 10), client=client)
    assert len(peer.frame(b"0123456789", fin=False)) == 1
    events = peer.header(CONTINUATION, 11)
    peer.assert_refused(events, CloseReason.MESSAGE_TOO_BIG, "frame of 11 bytes: 10 is the most")
