"""One data frame to bytes: as wsproto reads it, and as RFC 6455 draws it."""

from __future__ import annotations

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Message, TextMessage

from trio_ws import _frames
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame

SIZES = [0, 1, 2, 3, 4, 5, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537, 300_000]


def payload_of(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def read(data: bytes, *, masked: bool) -> list[Message]:
    reader = Connection(ConnectionType.SERVER if masked else ConnectionType.CLIENT)
    reader.receive_data(data)
    events = list(reader.events())
    assert all(isinstance(event, Message) for event in events), events
    return events


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_wsproto_reads_a_frame_of_any_size(size: int, masked: bool) -> None:
    data = encode_frame(BINARY, payload_of(size), masked=masked)
    (event,) = read(data, masked=masked)
    assert isinstance(event, BytesMessage)
    assert bytes(event.data) == payload_of(size)
    assert event.message_finished


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_has_the_shortest_form(size: int, header: bytes) -> None:
    assert encode_frame(BINARY, bytes(size), masked=False) == header + bytes(size)


def test_the_bits_of_the_first_byte() -> None:
    assert encode_frame(TEXT, b"", masked=False) == b"\x81\x00"
    assert encode_frame(TEXT, b"", fin=False, masked=False) == b"\x01\x00"
    assert encode_frame(TEXT, b"", rsv1=True, masked=False) == b"\xc1\x00"
    assert encode_frame(CONTINUATION, b"", masked=False) == b"\x80\x00"


def test_fragments_make_a_message() -> None:
    data = encode_frame(TEXT, b"caf", fin=False, masked=True)
    data += encode_frame(CONTINUATION, "é".encode(), masked=True)
    events = read(data, masked=True)
    assert [type(event) for event in events] == [TextMessage, TextMessage]
    assert "".join(event.data for event in events) == "café"
    assert [event.message_finished for event in events] == [False, True]


def test_each_frame_has_a_fresh_key_from_the_operating_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = iter([b"\x01\x02\x03\x04", b"\xff\x00\xff\x00"])
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return next(keys)

    monkeypatch.setattr(_frames.os, "urandom", urandom)
    first, second = (encode_frame(BINARY, b"\x00" * 5, masked=True) for _ in range(2))
    assert first == b"\x82\x85\x01\x02\x03\x04\x01\x02\x03\x04\x01"
    assert second == b"\x82\x85\xff\x00\xff\x00\xff\x00\xff\x00\xff"
    assert asked == [4, 4]


def test_a_thousand_frames_have_a_thousand_keys() -> None:
    frames = {encode_frame(BINARY, b"", masked=True) for _ in range(1000)}
    assert len(frames) > 990  # 32 bits: two of a thousand are the same once in 8600 runs
