"""Bytes as an attacker writes them: no library in between that would mend them."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable
from typing import Final

import attrs

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

DEFLATE: Final = "permessage-deflate; client_max_window_bits"


def request(
    target: str = "/",
    *,
    extensions: str | None = None,
    headers: Iterable[str] = (),
    host: str = "localhost",
) -> bytes:
    """Return an opening handshake that is in order."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    if extensions is not None:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
) -> bytes:
    """Return a frame; ``rsv`` are the three reserved bits as a number."""
    head = header(opcode, len(payload), fin=fin, rsv=rsv, masked=masked)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + mask(payload, key)


def header(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    form: int | None = None,
) -> bytes:
    """Return a frame's header up to the length, in whatever ``form``: 7, 16 or 64 bits."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    if form is None:
        form = 7 if length <= 125 else 16 if length <= 0xFFFF else 64
    if form == 7:
        return bytes((first, bit | length))
    if form == 16:
        return struct.pack("!BBH", first, bit | 126, length)
    return struct.pack("!BBQ", first, bit | 127, length)


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask."""
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    together = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return together.to_bytes(len(payload), "big")


def close(code: int = 1000, reason: bytes = b"", *, masked: bool = True) -> bytes:
    """Return a Close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason, masked=masked)


@attrs.frozen
class Frame:
    """What was read; ``key`` is its mask, or `None`."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    key: bytes | None

    @property
    def code(self) -> int:
        """The close code of a Close; 1005 if it has none."""
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else 1005


class Parser:
    """Cuts frames out of bytes; believes nothing else about them."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def next_frame(self) -> Frame | None:
        """Return the next frame, or `None` if more bytes are needed."""
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        if length > 125:
            form, start = ("!H", 4) if length == 126 else ("!Q", 10)
            if len(buffer) < start:
                return None
            (length,) = struct.unpack_from(form, buffer, 2)
        key = None
        if buffer[1] & 0x80:
            if len(buffer) < start + 4:
                return None
            key, start = bytes(buffer[start : start + 4]), start + 4
        if len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        first = buffer[0]
        del buffer[: start + length]
        if key is not None:
            payload = mask(payload, key)
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, key)
