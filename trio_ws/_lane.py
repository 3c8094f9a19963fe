"""The straight lane: plain data frames to messages, past wsproto.

A *plain* frame is a whole message: final, of text or binary, within the limits, and not
inside another message. All that came whole are read in a row, at a tenth of wsproto's
cost; compressed ones, too, if each stands for itself. A large one that is not compressed
and still coming is read piece by piece.

The lane never judges. Whatever is not plain to see (a wrong mask, an odd length, bad
UTF-8) is left to wsproto, which then gets to see exactly these bytes.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable
from typing import Final

from . import _frames
from ._masking import apply_mask
from ._messages import OVERHEAD, Data, MessagePart
from ._options import KIB

PIECEWISE: Final = 4 * KIB
"""Bytes from which on a frame is read as it comes. Below that, waiting for the rest in wsproto
costs less than a piece of our own does; and text is judged byte by byte there."""

_RSV1: Final = 0x40
_UNCOMPRESSED: Final = frozenset({0x80 | _frames.TEXT, 0x80 | _frames.BINARY})
_COMPRESSED: Final = frozenset(first | _RSV1 for first in _UNCOMPRESSED)

_decoder: Final = codecs.getincrementaldecoder("utf-8")


class Lane:
    """What one side reads past wsproto; ``client`` tells which side that is."""

    def __init__(
        self,
        *,
        client: bool,
        max_size: float,
        inflate: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self._client = client
        self._max_size = max_size
        self._inflate = inflate
        self._plain = _UNCOMPRESSED if inflate is None else _UNCOMPRESSED | _COMPRESSED
        self.left: int = 0
        """Bytes that are yet to come of a frame that is read piece by piece."""
        self.rejected: bytes = b""
        """What is no UTF-8, once `take` has met it."""
        self._key = b""
        self._text: codecs.IncrementalDecoder | None = None
        self._half = 0  # bytes of a character that is yet to come whole

    def read(  # noqa: C901, PLR0912  # one function and no more: see below
        self, data: bytes, at: int, most: int, room: float = math.inf
    ) -> tuple[list[tuple[Data, int]], int]:
        """Read up to ``most`` plain frames that begin at ``at``, or until ``room`` is filled.

        Returns their messages, each with its size in bytes, and where the next frame begins.
        """
        # One function and no more, for this runs once a message: each call in it is 1 % of that.
        found: list[tuple[Data, int]] = []
        have, client, plain, max_size = len(data), self._client, self._plain, self._max_size
        while most and at + 1 < have:
            first, second = data[at], data[at + 1]
            if first not in plain or (second > 127) is client:
                break
            size = second & 0x7F
            start = at + (2 if client else 6)
            end = start + size
            if size > 125:
                extent = self._long(data, at)
                if extent is None:
                    break
                start, end = extent
                size = end - start
            if end > have or size > max_size:
                break
            if client:
                payload = data[start:end]
            else:
                piece = data[start:end] if size < PIECEWISE else memoryview(data)[start:end]
                payload = apply_mask(piece, data[start - 4 : start])
            if first & _RSV1:
                assert self._inflate is not None
                inflated = self._inflate(payload)
                if inflated is None:
                    break
                payload, size = inflated, len(inflated)
            if first & 0x0F == _frames.BINARY:
                found.append((payload, size))
            else:
                try:
                    found.append((payload.decode(), size))
                except UnicodeDecodeError:
                    break
            at = end
            most -= 1
            room -= size + OVERHEAD
            if room <= 0:
                break
        return found, at

    def _long(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Return the extent of a frame with a long length, if that is as short as can be."""
        extent = _frames.frame_extent(data, at)
        if extent is None:
            return None
        size = extent[1] - extent[0]
        return None if size <= (125 if data[at + 1] & 0x7F == 126 else 0xFFFF) else extent

    # Piece by piece...

    def begin(self, data: bytes, at: int) -> int:
        """Begin a large plain frame, if there is one at ``at``; return where to go on."""
        extent = _frames.frame_extent(data, at)
        if extent is None or extent[0] > len(data):
            return at
        start, end = extent
        first, second = data[at], data[at + 1]
        if (
            first not in _UNCOMPRESSED
            or (second > 127) is self._client
            or not PIECEWISE <= end - start <= self._max_size
            or self._long(data, at) is None
        ):
            return at
        self.left = end - start
        self._key = b"" if self._client else data[start - 4 : start]
        self._text = _decoder() if first & 0x0F == _frames.TEXT else None
        self._half = 0
        return start

    def take(self, masked: bytes | memoryview) -> MessagePart | None:
        """Return what a piece of the frame means; `None` if it is no UTF-8: see `rejected`."""
        size = len(masked)
        self.left -= size
        final = not self.left
        if self._key:
            piece = apply_mask(masked, self._key)
            turn = size % 4
            self._key = self._key[turn:] + self._key[:turn]
        else:
            piece = bytes(masked)
        if self._text is None:
            return MessagePart(piece, size, final)
        held, _ = self._text.getstate()
        try:
            text = self._text.decode(piece, final)
        except UnicodeDecodeError:
            self.left = 0
            self.rejected = held + piece
            return None
        size += self._half  # without a character there is no part that could tell
        self._half = 0 if text else size
        return MessagePart(text, size, final)
