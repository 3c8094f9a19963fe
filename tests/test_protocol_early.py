"""A frame is refused as soon as it is wrong, in both roles: no byte more is waited for."""

from __future__ import annotations

import pytest

from trio_ws._frames import BINARY, CONTINUATION, encode_frame
from trio_ws._messages import MessagePart, Violated
from trio_ws._options import Options
from trio_ws._protocol import Protocol


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("length", [126, 127])
@pytest.mark.parametrize(
    ("first", "why"),
    [
        *((0x80 | opcode, "opcode") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *((0x80 | opcode, "payload") for opcode in (8, 9, 10)),
        *((opcode, "fragment") for opcode in (8, 9, 10)),
    ],
)
def test_two_bytes_can_be_enough(client: bool, length: int, first: int, why: str) -> None:
    protocol = Protocol(client=client, options=Options())
    protocol.receive_data(bytes((first,)))
    assert protocol.next_event() is None
    protocol.receive_data(bytes((length if client else 0x80 | length,)))
    event = protocol.next_event()
    assert isinstance(event, Violated)
    assert event.code == 1002
    assert why in event.reason.lower()


@pytest.mark.parametrize("client", [False, True])
def test_frames_without_an_event_can_be_taken_some_at_a_time(client: bool) -> None:
    empty = encode_frame(CONTINUATION, b"", fin=False, masked=not client)
    protocol = Protocol(client=client, options=Options())
    protocol.receive_data(encode_frame(BINARY, b"", fin=False, masked=not client) + empty * 99)
    for _ in range(9):
        assert protocol.next_event(10) is None
        assert protocol.unfinished
    protocol.receive_data(encode_frame(CONTINUATION, b"end", fin=True, masked=not client))
    assert protocol.next_event(10) is None
    assert protocol.unfinished
    assert protocol.next_event(10) == MessagePart(b"end", 3, final=True)
    assert protocol.next_event(10) is None
    assert not protocol.unfinished
