"""What a peer may send, judged at the frame header.

wsproto counts nothing: it buffers whatever length a header announces and takes
empty fragments without end. But it asks its extensions about each header before
it takes a byte of the payload, so the limits are one more extension, which is
never negotiated. How wsproto calls it, for each frame::

    frame_inbound_header         once or more: again when the masking key comes late
    frame_inbound_payload_data   for each piece of the payload, unmasked
    frame_inbound_complete       once

So the header hook only judges, and what it counts by is moved in the other two.
Control frames may come between the fragments of a message, and only the header
tells the opcode.
"""

from __future__ import annotations

import math
from typing import Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

NO_RSV: Final = RsvBits(False, False, False)

_BAD_GATEWAY: Final = b"\x03\xf6"  # 1014
_TRY_AGAIN_LATER: Final = b"\x03\xf5"  # 1013


class Limits(Extension):
    """The limits of one connection.

    A message that would be longer than ``max_message_size`` bytes is refused with
    1009, as is a frame of more than ``max_frame_size``; a frame beyond ``max_fragments``
    of one message with 1008, and one that is out of order (RFC 6455, section 5.4) with
    1002: all before a byte of its payload is taken. Control frames pass uncounted.
    """

    name = "x-trio-ws-limits"

    def __init__(
        self, max_message_size: float, max_fragments: float, max_frame_size: float = math.inf
    ) -> None:
        self.size = 0
        """Bytes so far of the current message, or of the last one, after inflating."""
        self.violation: str | None = None
        """Why a frame was refused: wsproto says no more than "error in extension"."""
        self.bad_gateway = False
        """Whether the peer's Close says 1014. It is registered with IANA, but wsproto does
        not know it, and would take it for a violation: it gets to see 1013 instead."""
        self._max_message_size = max_message_size
        self._max_fragments = max_fragments
        self._max_frame_size = max_frame_size
        self._fragments = 0  # complete frames of an unfinished message
        self._control = False  # whether the current frame is a control frame
        self._close = False  # whether it is a Close

    def enabled(self) -> bool:
        """Say that wsproto shall call the hooks."""
        return True

    def offer(self) -> bool:
        """Offer nothing: negotiation is not wsproto's here."""
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Judge a frame by its header; idempotent."""
        self._control = opcode.iscontrol()
        if self._control:
            self._close = opcode is Opcode.CLOSE
            return NO_RSV

        if opcode is Opcode.CONTINUATION:
            if not self._fragments:
                return self.refuse(CloseReason.PROTOCOL_ERROR, "continuation of no message")
        elif self._fragments:
            return self.refuse(CloseReason.PROTOCOL_ERROR, "new message inside another")
        else:
            self.size = 0

        if self._fragments >= self._max_fragments:
            most = f"{self._max_fragments:.0f} is the most"
            return self.refuse(
                CloseReason.POLICY_VIOLATION, f"message of {self._fragments + 1} frames: {most}"
            )
        if payload_length > self._max_frame_size:
            most = f"{self._max_frame_size:.0f} is the most"
            return self.refuse(
                CloseReason.MESSAGE_TOO_BIG, f"frame of {payload_length} bytes: {most}"
            )
        return self.judge_size(payload_length)

    def judge_size(self, payload_length: int) -> CloseReason | RsvBits:
        """Judge the message as it would be with one more frame."""
        if (size := self.size + payload_length) > self._max_message_size:
            most = f"{self._max_message_size:.0f} is the most"
            return self.refuse(CloseReason.MESSAGE_TOO_BIG, f"message of {size} bytes: {most}")
        return NO_RSV

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Count a piece of a payload; that of a control frame comes in one."""
        if not self._control:
            self.size += len(data)
        elif self._close and data.startswith(_BAD_GATEWAY):
            self.bad_gateway = True
            return _TRY_AGAIN_LATER + data[2:]
        return data

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """Count a frame."""
        if not self._control:
            self._fragments = 0 if fin else self._fragments + 1
        return None

    def refuse(self, code: CloseReason, why: str) -> CloseReason:
        """Note why, and return the answer to wsproto."""
        self.violation = why
        return code
