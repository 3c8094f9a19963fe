"""Frames as they go over the wire, legal or not: built, read, told, compared.

This is written from RFC 6455, section 5.2, and shares nothing with the library: what the
library reads and writes is judged here.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

import attrs

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

RSV1: Final = 4
"""The bit of `Frame.rsv` that says "compressed" (RFC 7692, section 6)."""

_NAMES: Final = {
    CONTINUATION: "continuation",
    TEXT: "text",
    BINARY: "binary",
    CLOSE: "close",
    PING: "ping",
    PONG: "pong",
}
_SHOWN: Final = 40
"""Characters of a payload that are shown: a line of a transcript fits into a terminal."""


@attrs.frozen(repr=False)
class Frame:
    """A WebSocket frame, as legal or as broken as you like (RFC 6455, section 5.2).

    ``Frame.text("hello")``, ``Frame.close(1000)`` and so on make the usual ones; with
    `attrs.evolve`, or made directly, a frame can be anything that the header has bits for.
    Two frames are equal if they mean the same: mask and form of length do not count.
    """

    opcode: int = attrs.field(validator=attrs.validators.in_(range(16)))
    """0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong; 0 to 15 fit in."""
    payload: bytes = b""
    """As the application means it: not masked."""
    fin: bool = attrs.field(default=True, kw_only=True)
    """Whether it is the last frame of its message."""
    rsv: int = attrs.field(default=0, kw_only=True, validator=attrs.validators.in_(range(8)))
    """The three reserved bits, 0 to 7; 4 is RSV1: "compressed" (RFC 7692)."""
    mask: bytes | None = attrs.field(default=None, kw_only=True, eq=False)
    """The four bytes of the mask; `None`: not masked."""
    length: int | None = attrs.field(default=None, kw_only=True, eq=False)
    """The length that the header tells, if it is to be another one than the true one."""
    length_size: int | None = attrs.field(
        default=None,
        kw_only=True,
        eq=False,
        validator=attrs.validators.optional(attrs.validators.in_((0, 2, 8))),
    )
    """Bytes of the extended length, 0, 2 or 8; by default as few as possible."""

    @classmethod
    def text(cls, text: str | bytes, *, fin: bool = True) -> Frame:
        """Make a text frame; from `bytes` also of what is not UTF-8."""
        return cls(TEXT, _as_bytes(text), fin=fin)

    @classmethod
    def binary(cls, data: bytes, *, fin: bool = True) -> Frame:
        """Make a binary frame."""
        return cls(BINARY, data, fin=fin)

    @classmethod
    def continuation(cls, data: str | bytes, *, fin: bool = True) -> Frame:
        """Make a frame that goes on with the message before it."""
        return cls(CONTINUATION, _as_bytes(data), fin=fin)

    @classmethod
    def ping(cls, payload: bytes = b"") -> Frame:
        """Make a Ping."""
        return cls(PING, payload)

    @classmethod
    def pong(cls, payload: bytes = b"") -> Frame:
        """Make a Pong."""
        return cls(PONG, payload)

    @classmethod
    def close(cls, code: int | None = None, reason: str | bytes = b"") -> Frame:
        """Make a Close, with any code that two bytes hold, or with none."""
        head = b"" if code is None else code.to_bytes(2)
        return cls(CLOSE, head + _as_bytes(reason))

    @property
    def code(self) -> int | None:
        """The code of a Close; `None` if it tells none, or is no Close."""
        if self.opcode != CLOSE or len(self.payload) < 2:
            return None
        return int.from_bytes(self.payload[:2])

    def encode(self) -> bytes:
        """Return the bytes that go over the wire.

        Raises:
          ValueError, OverflowError: a field does not fit into its bits.
        """
        length = len(self.payload) if self.length is None else self.length
        size = self._extension
        if size == 0 and length > 125:
            raise ValueError(f"a length of {length} does not fit into seven bits")
        marker = {0: length, 2: 126, 8: 127}[size]
        first = self.fin << 7 | self.rsv << 4 | self.opcode
        second = (self.mask is not None) << 7 | marker
        head = bytes((first, second)) + (length.to_bytes(size) if size else b"")
        if self.mask is None:
            return head + self.payload
        return head + self.mask + apply_mask(self.payload, self.mask)

    @property
    def wire_size(self) -> int:
        """Bytes that it takes on the wire."""
        return 2 + self._extension + (4 if self.mask else 0) + len(self.payload)

    @property
    def _extension(self) -> int:
        """Bytes of the extended length."""
        if self.length_size is not None:
            return self.length_size
        return _shortest(len(self.payload) if self.length is None else self.length)

    def __str__(self) -> str:
        words = [_NAMES.get(self.opcode, f"opcode {self.opcode}")]
        if not self.fin:
            words.append("(more follows)")
        if self.rsv == RSV1:
            words.append("(compressed)")
        elif self.rsv:
            words.append(f"(rsv {self.rsv:03b})")
        if self.length_size is not None:
            words.append(f"(length in {self.length_size} bytes)")
        if self.payload:
            words.append(self._show_payload())
        return " ".join(words)

    def __repr__(self) -> str:
        special = [
            f", {name}={getattr(self, name)!r}"
            for name, usual in (("fin", True), ("rsv", 0), ("length", None), ("length_size", None))
            if getattr(self, name) != usual
        ]
        mask = "" if self.mask is None else ", masked"
        kind = _NAMES.get(self.opcode, self.opcode)
        return f"<Frame {kind} {self.payload!r}{''.join(special)}{mask}>"

    def _show_payload(self) -> str:
        size = len(self.payload)
        if self.code is not None:
            return f"{self.code} {_as_text(self.payload[2:])}" if size > 2 else f"{self.code}"
        if self.rsv & RSV1:
            return f"{size} bytes"
        text = _as_text(self.payload) if self.opcode != BINARY else _as_hex(self.payload)
        return text if size <= _SHOWN else f"{text} ({size} bytes)"


class FrameReader:
    """Takes bytes in any chunks, gives frames: whatever the bits say, nothing is an error."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._wanted = 2  # bytes that are needed to get on

    @property
    def unread(self) -> bytes:
        """The beginning of a frame that has not come to its end."""
        return bytes(self._unread)

    def feed(self, data: bytes) -> list[Frame]:
        """Take what has come; return the frames that it completes."""
        self._unread += data
        frames: list[Frame] = []
        while len(self._unread) >= self._wanted:
            frame = self._next()
            if frame is not None:
                frames.append(frame)
        return frames

    def _next(self) -> Frame | None:
        """Read a frame; if it is not all there, say how much is wanted."""
        first, second = self._unread[:2]
        size = {126: 2, 127: 8}.get(second & 127, 0)
        masked = bool(second & 128)
        begin = 2 + size + (4 if masked else 0)
        if len(self._unread) < begin:
            self._wanted = begin
            return None
        length = int.from_bytes(self._unread[2 : 2 + size]) if size else second & 127
        if len(self._unread) < begin + length:
            self._wanted = begin + length
            return None
        payload = bytes(self._unread[begin : begin + length])
        mask = bytes(self._unread[begin - 4 : begin]) if masked else None
        del self._unread[: begin + length]
        self._wanted = 2
        frame = Frame(
            first & 15,
            payload if mask is None else apply_mask(payload, mask),
            fin=bool(first & 128),
            rsv=first >> 4 & 7,
            mask=mask,
        )
        return frame if size == _shortest(length) else attrs.evolve(frame, length_size=size)


def read_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the frames in ``data``, and what is left over."""
    reader = FrameReader()
    return reader.feed(data), reader.unread


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload (RFC 6455, section 5.3)."""
    size = len(payload)
    pattern = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(payload) ^ pattern).to_bytes(size)


def compare(expected: Sequence[object], received: Sequence[object]) -> str:
    """Return both sides line by line, frames beside their like, differences marked with !."""
    left, right = [str(item) for item in expected], [str(item) for item in received]
    rows: list[tuple[str, str, str]] = [(" ", "expected", "received")]
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    notes: list[str] = []
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        for step in range(max(i_end - i, j_end - j)):
            ours = left[i + step] if i + step < i_end else "-"
            theirs = right[j + step] if j + step < j_end else "-"
            same = i + step < i_end and j + step < j_end
            if same and expected[i + step] != received[j + step]:
                notes += _explain(expected[i + step], received[j + step])
                same = False
            rows.append((" " if same else "!", ours, theirs))
    width = max(len(ours) for _, ours, _ in rows)
    lines = [f"{mark} {ours:{width}}   {theirs}" for mark, ours, theirs in rows]
    return "\n".join(lines + notes)


def _explain(expected: object, received: object) -> list[str]:
    """Say where two frames differ, if that is deep in the payload."""
    if not (isinstance(expected, Frame) and isinstance(received, Frame)):
        return []
    ours, theirs = expected.payload, received.payload
    if ours == theirs or min(len(ours), len(theirs)) < _SHOWN // 2:
        return []
    at = next(
        (at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    around = slice(max(at - 8, 0), at + 8)
    return [
        f"  {expected}: the payloads differ from byte {at} on:",
        f"    expected ...{ours[around]!r}",
        f"    received ...{theirs[around]!r}",
    ]


def _shortest(length: int) -> int:
    return 0 if length <= 125 else 2 if length <= 0xFFFF else 8


def _as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _as_text(data: bytes) -> str:
    try:
        text = _cut(data).decode()
    except UnicodeDecodeError:
        return _as_hex(data)
    return repr(text) if text.isprintable() else _as_hex(data)


def _cut(data: bytes) -> bytes:
    """Return the beginning of UTF-8, if it is UTF-8: whole characters only."""
    if len(data) <= _SHOWN:
        return data
    end = _SHOWN
    while end > _SHOWN - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end]


def _as_hex(data: bytes) -> str:
    shown = data[: _SHOWN // 3]
    return shown.hex(" ") + (" .." if len(data) > len(shown) else "")
