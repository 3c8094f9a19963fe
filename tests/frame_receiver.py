"""wsproto with one of our extensions, and a peer that writes its frames by hand."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event

from trio_ws._frames import BINARY, encode_frame

if TYPE_CHECKING:
    from wsproto.frame_protocol import CloseReason

    from trio_ws._limits import Limits


class FrameReceiver:
    """The receiving side; ``client`` tells its role."""

    def __init__(self, limits: Limits, *, client: bool) -> None:
        self.limits = limits
        self.peer_masks = not client
        role = ConnectionType.CLIENT if client else ConnectionType.SERVER
        self._connection = Connection(role, [limits])

    def feed(self, data: bytes) -> list[Event]:
        self._connection.receive_data(data)
        return list(self._connection.events())

    def frame(
        self, payload: bytes, *, opcode: int = BINARY, fin: bool = True, rsv1: bool = False
    ) -> list[Event]:
        return self.feed(encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=self.peer_masks))

    def header(self, opcode: int, length: int) -> list[Event]:
        """Receive a header that ends before the masking key, and nothing of the payload."""
        mask = 0x80 if self.peer_masks else 0
        if length < 126:
            return self.feed(bytes((0x80 | opcode, mask | length)))
        return self.feed(struct.pack("!BBQ", 0x80 | opcode, mask | 127, length))

    def assert_refused(self, events: list[Event], code: CloseReason, why: str) -> None:
        """Check that the last of ``events`` is this refusal, and the only one."""
        assert [event.code for event in events if isinstance(event, CloseConnection)] == [code]
        assert isinstance(events[-1], CloseConnection)
        assert self.limits.violation == why


def data_of(events: list[Event]) -> bytes:
    """Return the one binary message that ``events`` are the pieces of."""
    pieces = []
    for event in events:
        assert isinstance(event, BytesMessage)
        pieces.append(event)
    assert [piece.message_finished for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return b"".join(piece.data for piece in pieces)
