"""Where a frame begins and ends, told from its header."""

from __future__ import annotations

import pytest

from trio_ws._frames import BINARY, encode_frame, frame_extent
from trio_ws._masking import apply_mask


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_the_extent_of_a_frame_is_that_of_its_payload(size: int, *, masked: bool) -> None:
    payload = bytes(size)
    frame = encode_frame(BINARY, payload, masked=masked)
    extent = frame_extent(b"before" + frame + b"behind", 6)
    assert extent is not None
    start, end = extent
    assert end == 6 + len(frame)
    found = (b"before" + frame)[start:end]
    if masked:
        found = bytes(apply_mask(found, frame[start - 10 : start - 6]))
    assert found == payload


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0, 126, 65536])
def test_a_header_tells_as_soon_as_the_length_is_there(size: int, *, masked: bool) -> None:
    frame = encode_frame(BINARY, bytes(size), masked=masked)
    start = len(frame) - size
    length = start - 4 if masked else start
    assert all(frame_extent(frame[:have], 0) is None for have in range(length))
    assert frame_extent(frame[:length], 0) == (start, len(frame))
