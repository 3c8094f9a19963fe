"""Frames as bits, as words, and side by side."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from trio_ws.testing import Frame
from trio_ws.testing._frame import FrameReader, apply_mask, compare, read_frames


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (Frame.text("hé"), b"\x81\x03h\xc3\xa9"),
        (Frame.text(b"\xff", fin=False), b"\x01\x01\xff"),
        (Frame.binary(b""), b"\x82\x00"),
        (Frame.continuation("b"), b"\x80\x01b"),
        (Frame.ping(b"1"), b"\x89\x011"),
        (Frame.pong(), b"\x8a\x00"),
        (Frame.close(), b"\x88\x00"),
        (Frame.close(1000), b"\x88\x02\x03\xe8"),
        (Frame.close(1001, "bye"), b"\x88\x05\x03\xe9bye"),
        (Frame(3, b"?", rsv=7, fin=False), b"\x73\x01?"),
        (Frame(1, b"abc", mask=b"\x01\x02\x03\x04"), b"\x81\x83\x01\x02\x03\x04```"),
        (Frame(2, b"x" * 126), b"\x82\x7e\x00\x7e" + b"x" * 126),
        (Frame(2, b"x" * 65536), b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + b"x" * 65536),
        (Frame(1, b"a", length_size=2), b"\x81\x7e\x00\x01a"),
        (Frame(1, b"a", length_size=8), b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01a"),
        (Frame(1, b"a", length=2), b"\x81\x02a"),
        (Frame(1, length=2**63), b"\x81\x7f\x80\x00\x00\x00\x00\x00\x00\x00"),
    ],
    ids=str,
)
def test_a_frame_is_the_bits_that_the_rfc_draws(frame: Frame, wire: bytes) -> None:
    assert frame.encode() == wire
    assert frame.wire_size == len(wire)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(1, b"x" * 126, length_size=0),
        Frame(1, length=2**64),
        Frame(1, length=2**16, length_size=2),
    ],
    ids=repr,
)
def test_what_does_not_fit_into_the_bits_cannot_be_encoded(frame: Frame) -> None:
    with pytest.raises((ValueError, OverflowError)):
        frame.encode()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Frame.close(4000, "why"), 4000),
        (Frame.close(), None),
        (Frame(8, b"\x03"), None),
        (Frame.ping(b"\x03\xe8"), None),
    ],
    ids=repr,
)
def test_a_close_tells_its_code(frame: Frame, code: int | None) -> None:
    assert frame.code == code


@pytest.mark.parametrize(
    "fields", [{"opcode": 16}, {"rsv": 8}, {"rsv": -1}, {"length_size": 4}], ids=str
)
def test_a_field_has_its_bits_and_no_more(fields: dict[str, int]) -> None:
    (name,) = fields
    with pytest.raises(ValueError, match=name):
        Frame(**{"opcode": 1, **fields})


def test_frames_are_equal_that_mean_the_same() -> None:
    masked = Frame(1, b"a", mask=b"1234", length_size=2)
    assert masked == Frame.text("a")
    assert masked != Frame.text("b")
    assert masked != Frame.text("a", fin=False)
    assert masked != Frame.binary(b"a")


frames = st.builds(
    Frame,
    st.integers(0, 15),
    st.binary(max_size=300),
    fin=st.booleans(),
    rsv=st.integers(0, 7),
    mask=st.none() | st.binary(min_size=4, max_size=4),
    length_size=st.sampled_from([None, 2, 8]),
)


@given(st.lists(frames), st.data())
def test_what_was_encoded_is_read_again_in_any_chunks(
    sent: list[Frame], data: st.DataObject
) -> None:
    wire = b"".join(frame.encode() for frame in sent)
    reader = FrameReader()
    received: list[Frame] = []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        received += reader.feed(wire[:size])
        wire = wire[size:]
    assert received == sent
    assert [frame.mask for frame in received] == [frame.mask for frame in sent]
    assert b"".join(frame.encode() for frame in received) == b"".join(f.encode() for f in sent)
    assert reader.unread == b""


@given(st.binary(max_size=70_000), st.binary(min_size=4, max_size=4))
def test_wsproto_reads_what_is_built_here(payload: bytes, mask: bytes) -> None:
    server = Connection(ConnectionType.SERVER)
    server.receive_data(Frame(2, payload, mask=mask).encode())
    events = list(server.events())
    assert all(isinstance(event, BytesMessage) for event in events)
    assert b"".join(bytes(event.data) for event in events) == payload
    assert apply_mask(apply_mask(payload, mask), mask) == payload


def test_a_beginning_of_a_frame_waits_for_its_end() -> None:
    assert read_frames(b"\x81\x01a\x81\x7e\x00") == ([Frame.text("a")], b"\x81\x7e\x00")
    assert read_frames(b"\x81\x05a") == ([], b"\x81\x05a")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame.text("hello"), "text 'hello'"),
        (Frame.text(""), "text"),
        (Frame.text("a", fin=False), "text (more follows) 'a'"),
        (Frame.text(b"\xff\x00"), "text ff 00"),
        (Frame.text("é" * 30), f"text '{'é' * 20}' (60 bytes)"),
        (Frame.text("x" + "é" * 30), f"text 'x{'é' * 19}' (61 bytes)"),
        (Frame.text(b"\xff" * 99), f"text {'ff ' * 13}.. (99 bytes)"),
        (Frame.text(b"\x80" * 99), f"text {'80 ' * 13}.. (99 bytes)"),
        (Frame.binary(b"\x01\x02"), "binary 01 02"),
        (Frame.binary(bytes(99)), f"binary {'00 ' * 13}.. (99 bytes)"),
        (Frame.close(1000), "close 1000"),
        (Frame.close(1011, "oh"), "close 1011 'oh'"),
        (Frame(8, b"\x03"), "close 03"),
        (Frame.text("a\nb"), "text 61 0a 62"),
        (Frame(1, b"abc", rsv=4), "text (compressed) 3 bytes"),
        (Frame(1, b"a", rsv=1), "text (rsv 001) 'a'"),
        (Frame(5), "opcode 5"),
        (Frame(9, b"a", length_size=8), "ping (length in 8 bytes) 'a'"),
    ],
)
def test_a_transcript_shows_a_frame_in_words(frame: Frame, words: str) -> None:
    assert str(frame) == words


def test_a_repr_shows_what_is_special() -> None:
    assert repr(Frame.text("a")) == "<Frame text b'a'>"
    assert repr(Frame(6, fin=False, rsv=1)) == "<Frame 6 b'', fin=False, rsv=1>"
    assert repr(Frame.ping()) == "<Frame ping b''>"
    masked = attrs.evolve(Frame.binary(b"1"), mask=b"abcd", length=3)
    assert repr(masked) == "<Frame binary b'1', length=3, masked>"


def test_a_comparison_puts_frames_beside_their_like() -> None:
    expected = [Frame.text("a"), Frame.text("b"), Frame.close(1000)]
    received = [Frame.text("a"), Frame.ping(), Frame.text("b"), "end of TCP"]
    assert compare(expected, received).splitlines() == [
        "  expected     received",
        "  text 'a'     text 'a'",
        "! -            ping",
        "  text 'b'     text 'b'",
        "! close 1000   end of TCP",
    ]


def test_a_comparison_says_where_in_a_payload_the_difference_is() -> None:
    expected, received = Frame.text("x" * 100 + "yes!"), Frame.text("x" * 100 + "no!!")
    told = compare([expected], [received])
    assert "! text" in told
    assert "the payloads differ from byte 100 on" in told
    assert r"expected ...b'xxxxxxxxyes!'" in told
    assert r"received ...b'xxxxxxxxno!!'" in told


def test_a_comparison_says_where_one_payload_ends() -> None:
    told = compare([Frame.text("x" * 60)], [Frame.text("x" * 50)])
    assert "! text" in told
    longer = compare([Frame.binary(b"x" * 60)], [Frame(2, b"x" * 60, fin=False)])
    assert "differ from" not in longer
