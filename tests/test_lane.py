"""The straight lane: which frames it takes, and what it makes of them."""

from __future__ import annotations

import pytest

from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._lane import PIECEWISE, Lane
from trio_ws._messages import OVERHEAD, Data, MessagePart

LIMIT = 100_000


@pytest.fixture(params=[False, True], ids=["server", "client"])
def client(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def lane(client: bool) -> Lane:
    return Lane(client=client, max_size=LIMIT)


def frame(client: bool, opcode: int, payload: bytes, **bits: bool) -> bytes:
    """Return a frame as the peer of that side sends it."""
    return encode_frame(opcode, payload, masked=not client, **bits)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_plain_frame_is_a_message(lane: Lane, client: bool, opcode: int, size: int) -> None:
    payload = bytes(n % 128 for n in range(size))
    data = b"before" + frame(client, opcode, payload) + b"\x88"
    message: Data = payload.decode() if opcode == TEXT else payload
    assert lane.read(data, 6, 10) == ([(message, size)], len(data) - 1)


def test_frames_are_read_in_a_row_up_to_one_that_is_not_plain(lane: Lane, client: bool) -> None:
    plain = b"".join(frame(client, TEXT, b"%d" % n) for n in range(5))
    data = plain + frame(client, TEXT, b"half a", fin=False) + frame(client, TEXT, b"5")
    assert lane.read(data, 0, 10) == ([(str(n), 1) for n in range(5)], len(plain))


def test_no_more_are_read_than_asked_for(lane: Lane, client: bool) -> None:
    one = frame(client, BINARY, b"12")
    assert lane.read(one * 5, 0, 3) == ([(b"12", 2)] * 3, 3 * len(one))


def test_no_more_are_read_than_fill_the_room(lane: Lane, client: bool) -> None:
    one = frame(client, BINARY, bytes(36))
    assert lane.read(one * 5, 0, 5, 2 * (36 + OVERHEAD))[1] == 2 * len(one)
    assert lane.read(one * 5, 0, 5, 2 * (36 + OVERHEAD) + 1)[1] == 3 * len(one)


@pytest.mark.parametrize(
    "cut", [1, 2, 3, 10], ids=["a byte", "no key", "half a key", "half a payload"]
)
def test_what_is_not_there_in_whole_is_not_read(lane: Lane, client: bool, cut: int) -> None:
    assert lane.read(frame(client, TEXT, bytes(20))[:cut], 0, 10) == ([], 0)


def not_plain(client: bool) -> dict[str, bytes]:
    """Return frames that are none of the lane's business, each as long as one that were."""
    text = bytearray(frame(client, TEXT, bytes(PIECEWISE)))
    mask = text[1] & 0x80
    odd_length = bytes([0x82, mask | 127]) + PIECEWISE.to_bytes(8, "big")
    return {
        "fragment": frame(client, TEXT, bytes(PIECEWISE), fin=False),
        "continuation": frame(client, CONTINUATION, bytes(PIECEWISE)),
        "compressed": frame(client, TEXT, bytes(PIECEWISE), rsv1=True),
        "unknown": frame(client, 0x3, bytes(PIECEWISE)),
        "wrong mask": frame(not client, TEXT, bytes(PIECEWISE)),
        "too long": frame(client, BINARY, bytes(LIMIT + 1)),
        "odd length": odd_length + (b"" if client else b"keys") + bytes(PIECEWISE),
        "length to come": bytes([0x82, mask | 127, 0]),
    }


@pytest.mark.parametrize("name", not_plain(client=True))
def test_what_is_not_plain_is_neither_read_nor_begun(lane: Lane, client: bool, name: str) -> None:
    data = not_plain(client)[name]
    assert lane.read(data, 0, 10) == ([], 0)
    assert lane.begin(data, 0) == 0
    assert lane.left == 0


def test_text_that_is_no_utf_8_is_not_read(lane: Lane, client: bool) -> None:
    assert lane.read(frame(client, TEXT, b"\xff"), 0, 10) == ([], 0)


def test_an_odd_length_of_two_bytes_is_not_read(lane: Lane, client: bool) -> None:
    head = bytes([0x82, (0 if client else 0x80) | 126, 0, 5]) + (b"" if client else b"keys")
    assert lane.read(head + bytes(5), 0, 10) == ([], 0)


# Piece by piece...


def pieces_of(lane: Lane, data: bytes, size: int) -> list[MessagePart | None]:
    at = lane.begin(data, 0)
    assert at > 0
    parts = []
    while lane.left:
        parts.append(lane.take(data[at : at + min(size, lane.left)]))
        at += size
    return parts


@pytest.mark.parametrize("size", [1, 3, 1000, PIECEWISE])
def test_a_large_binary_frame_comes_in_pieces(lane: Lane, client: bool, size: int) -> None:
    payload = bytes(n % 251 for n in range(PIECEWISE))
    parts = pieces_of(lane, frame(client, BINARY, payload), size)
    assert None not in parts
    assert b"".join(part.data for part in parts) == payload  # type: ignore[union-attr, misc]
    assert [part.final for part in parts] == [False] * (len(parts) - 1) + [True]  # type: ignore[union-attr]
    assert sum(part.size for part in parts) == PIECEWISE  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_characters_may_be_cut_anywhere(lane: Lane, client: bool, size: int) -> None:
    text = "aé€😀" * 1000
    parts = pieces_of(lane, frame(client, TEXT, text.encode()), size)
    assert "".join(part.data for part in parts) == text  # type: ignore[union-attr, misc]
    told = [part.size for part in parts if part is not None and part.data]
    assert sum(told) == len(text.encode())  # half a character is told with the other half


def test_text_that_is_no_utf_8_is_handed_back(lane: Lane, client: bool) -> None:
    data = frame(client, TEXT, "é".encode() * PIECEWISE + b"\xe2\x82" + b"x" * PIECEWISE)
    at = lane.begin(data, 0)
    middle = 2 * PIECEWISE + 1
    assert lane.take(data[at : at + middle]) == MessagePart("é" * PIECEWISE, middle, final=False)
    assert lane.take(data[at + middle : at + middle + 10]) is None
    assert lane.rejected == b"\xe2\x82" + b"x" * 9
    assert lane.left == 0


def test_a_character_that_never_ends_is_handed_back(lane: Lane, client: bool) -> None:
    data = frame(client, TEXT, b"x" * PIECEWISE + b"\xe2\x82")
    at = lane.begin(data, 0)
    assert lane.take(data[at:]) is None
    assert lane.rejected == b"x" * PIECEWISE + b"\xe2\x82"


def test_a_small_frame_is_not_begun(lane: Lane, client: bool) -> None:
    assert lane.begin(frame(client, BINARY, bytes(PIECEWISE - 1))[:-1], 0) == 0


def test_a_frame_is_not_begun_before_its_key_is_there() -> None:
    data = frame(False, BINARY, bytes(PIECEWISE))
    lane = Lane(client=False, max_size=LIMIT)
    assert lane.begin(data[:7], 0) == 0
    assert lane.begin(data[:8], 0) == 8


# Compressed...


def test_what_is_compressed_is_read_if_it_can_be_inflated(client: bool) -> None:
    lane = Lane(client=client, max_size=LIMIT, inflate={b"short": b"long " * 100}.get)
    data = frame(client, TEXT, b"short", rsv1=True) + frame(client, BINARY, b"short", rsv1=True)
    bad = frame(client, TEXT, b"no deflate", rsv1=True)
    read, end = lane.read(data + bad, 0, 10)
    assert read == [("long " * 100, 500), (b"long " * 100, 500)]
    assert end == len(data)


def test_what_is_inflated_fills_the_room(client: bool) -> None:
    lane = Lane(client=client, max_size=LIMIT, inflate=lambda _: bytes(1000))
    data = frame(client, BINARY, b"x", rsv1=True) * 5
    assert len(lane.read(data, 0, 10, 1000)[0]) == 1


def test_a_large_compressed_frame_is_not_begun(client: bool) -> None:
    lane = Lane(client=client, max_size=LIMIT, inflate=lambda _: b"")
    assert lane.begin(frame(client, BINARY, bytes(PIECEWISE), rsv1=True)[:-1], 0) == 0
