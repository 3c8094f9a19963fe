"""WebSocket frames, both roles, without I/O: bytes to events, messages to bytes.

wsproto is the authority on what arrives: headers, masks, fragments, UTF-8, control
frames, close codes. What it leaves to its user is done here:

* limits are judged from the frame header (`Limits`, a wsproto extension),
* a violation is told from the peer's Close (wsproto reports both as a
  ``CloseConnection``; only after a real one does its state change),
* parsing is lazy: an event is made when it is asked for, so that a read full of
  messages, or of compressed zeros, takes no more memory than its reader grants,
* nothing is parsed behind a violation or behind the peer's Close.

Plain frames (whole, unfragmented, uncompressed data within the limits, between two
messages) take a straight lane past wsproto, at a tenth of its cost. wsproto gets all
others, each up to its end, and whatever makes no sense to us. That both ways come to the
same events is proven over any bytes in any chunks.

::

                                     ┌─ a plain frame ──────────────┐
    bytes ─ receive_data() ─→ unread ┤                              ├─ next_event() ─→
                                     └─ any other ─→ wsproto ───────┘  MessagePart, Ping...
    str, bytes, PreparedMessage ─ encode() ─→ frames, ready to be written
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.events import Event as WsprotoEvent
from wsproto.frame_protocol import CloseReason

from . import _frames
from ._deflate import DeflateParameters, PerMessageDeflate
from ._limits import Limits
from ._messages import (
    CloseCode,
    CloseReceived,
    Data,
    Event,
    MessagePart,
    PingReceived,
    PongReceived,
    PreparedMessage,
    Violated,
)
from ._options import KIB, Options

MAX_FRAME: Final = 256 * KIB
"""Payload of the frames we send. Between two of them a ping or a Close gets in: at
10 Mbit/s it waits for 0.2 s, and a message of 1 MiB costs three more headers."""

_PLAIN_TEXT: Final = 0x80 | _frames.TEXT
_PLAIN: Final = frozenset({_PLAIN_TEXT, 0x80 | _frames.BINARY})
"""First bytes of data frames that are whole messages and need no inflating."""

_EXPANSION: Final = 1032
"""The most that deflate expands by, says zlib."""

_INFLATE_STEP: Final = 4 * KIB
"""Compressed bytes handed over at a time where the limit of a message does not bound what
they inflate to: a piece takes no more than 4 MiB then."""


class Protocol:
    """The state of one connection between the two handshakes.

    ``client`` tells which side this is; ``deflate`` what the handshake agreed on.
    Mutable, and without locks: one task at a time.
    """

    def __init__(
        self, *, client: bool, options: Options, deflate: DeflateParameters | None = None
    ) -> None:
        self._client = client
        self._limits, self._deflate = _make_extension(client, options, deflate)
        role = ConnectionType.CLIENT if client else ConnectionType.SERVER
        self._wsproto = Connection(role, extensions=[self._limits])
        self._parsed: Iterator[WsprotoEvent] = iter(())
        self._max_plain = min(options.max_message_size, options.max_frame_size)
        bounded = options.max_message_size <= _INFLATE_STEP * _EXPANSION
        self._step = None if bounded or not self._limits.inflates else _INFLATE_STEP
        self._counted = 0  # bytes of the current message that parts have told so far
        self._deaf = False
        self._unread = b""
        self._at = 0  # how much of that is done with
        self._owed = 0  # bytes of a frame that wsproto has begun to read
        self._in_message = False  # fragments have come, and more have to
        self.unfinished: bool = False
        """Whether the last `next_event` has stopped before it had to."""

    @property
    def held(self) -> int:
        """Bytes of what is not parsed to its end, and what compression holds."""
        unread = len(self._unread)
        return unread if self._deflate is None else unread + self._deflate.memory

    # Receiving...

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `next_event` tells what they mean."""
        if not self._deaf:
            self._unread = self._unread[self._at :] + data if self._unread else data
            self._at = 0

    def next_event(self, most_frames: float = math.inf) -> Event | None:
        """Return the next event, or `None` if more bytes are needed first.

        `None` comes also after ``most_frames`` frames that made no event, empty fragments
        above all; then `unfinished` is true, and the next call goes on.
        """
        self.unfinished = False
        while not self._deaf:
            for parsed in self._parsed:
                event = self._translate(parsed)
                if event is not None:
                    return event
            if not self._unread:
                break
            if most_frames <= 0:
                self.unfinished = True
                break
            if not self._owed:
                plain = self._next_frame()
                if plain is not None:
                    return plain
                if not self._owed:
                    break  # not even a header yet
            self._feed_wsproto()
            most_frames -= 1
        return None

    def _next_frame(self) -> MessagePart | None:
        """Return the message in a plain frame; of any other note how much is wsproto's."""
        at = self._at
        extent = _frames.frame_extent(self._unread, at)
        if extent is None:
            if len(self._unread) >= at + 2 and self._unread[at] & 0x0F > _frames.BINARY:
                self._owed = 2  # a long control frame, or no opcode at all: wrong as it stands
            return None
        start, end = extent
        message = self._read_plain(at, start, end)
        if message is not None:
            self._advance(end)
            return MessagePart(message, end - start, final=True)
        self._owed = end - at
        first = self._unread[at]
        if first & 0x0F < 8:  # of fragments, too, we must know what may follow
            self._in_message = not first & 0x80
        return None

    def _advance(self, to: int) -> None:
        """Be done with what has been read up to there; with all of it, keep none."""
        if to == len(self._unread):
            self._unread, self._at = b"", 0
        else:
            self._at = to

    def _read_plain(self, at: int, start: int, end: int) -> Data | None:
        """Return the message in a frame, or `None` if that is not plain to see."""
        data = self._unread
        first, second = data[at], data[at + 1]
        if (
            first not in _PLAIN
            or self._in_message
            or end > len(data)
            or (second > 127) is self._client
            or end - start > self._max_plain
            or _wasteful(second & 0x7F, end - start)
        ):
            return None
        payload: bytes | bytearray = data[start:end]
        if not self._client:
            payload = _frames.apply_mask(data[start:end], data[start - 4 : start])
        if first != _PLAIN_TEXT:
            return bytes(payload)
        try:
            return str(payload, "utf-8")
        except UnicodeDecodeError:
            return None  # wsproto shall say so

    def _feed_wsproto(self) -> None:
        """Hand over what there is of the frame that it is to read."""
        most = self._owed if self._step is None else min(self._owed, self._step)
        piece = self._unread[self._at : self._at + most]
        self._advance(self._at + len(piece))
        self._owed -= len(piece)
        self._wsproto.receive_data(piece)
        self._parsed = self._wsproto.events()

    def _translate(self, event: WsprotoEvent) -> Event | None:
        if isinstance(event, (TextMessage, BytesMessage)):
            data = event.data if isinstance(event.data, str) else bytes(event.data)
            return self._part(data, final=event.message_finished)
        if isinstance(event, Ping):
            return PingReceived(bytes(event.payload))
        if isinstance(event, Pong):
            return PongReceived(bytes(event.payload))
        assert isinstance(event, CloseConnection)
        self._deaf = True
        self._unread = b""
        if self._wsproto.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            code = CloseCode.BAD_GATEWAY if self._limits.bad_gateway else event.code
            return CloseReceived(int(code), event.reason or "")
        return Violated(int(event.code), self._limits.violation or event.reason or "")

    def _part(self, data: Data, *, final: bool) -> MessagePart | None:
        if not (data or final):
            return None  # an empty fragment, or half a character
        size = self._limits.size - self._counted
        self._counted = 0 if final else self._limits.size
        return MessagePart(data, size, final)

    # Sending...

    def encode(
        self, message: PreparedMessage, *, compress: bool | None = None
    ) -> tuple[bytes, ...]:
        """Return the frames of a whole message.

        ``compress``: `True` and `False` overrule `Deflate.threshold`; without
        permessage-deflate nothing is ever compressed. A server keeps what it encoded
        in ``message`` for the next connection with the same parameters.
        """
        deflate = self._deflate if self._compresses(len(message.payload), compress) else None
        if self._client or (deflate is not None and deflate.shared_key is None):
            return self._encode(message, deflate)
        key = None if deflate is None else deflate.shared_key
        frames = message.encoded.get(key)
        if frames is None:
            frames = message.encoded[key] = self._encode(message, deflate)
        return frames

    def encode_part(
        self, data: Data, *, first: bool, final: bool, compressed: bool
    ) -> tuple[bytes, ...]:
        """Return the frames of a part of a message; an empty final part ends the message."""
        payload = data.encode() if isinstance(data, str) else data
        if compressed:
            assert self._deflate is not None
            payload = self._deflate.compress_part(payload, final=final)
        opcode = _opcode(data) if first else _frames.CONTINUATION
        return self._split(opcode, payload, rsv1=compressed and first, fin=final)

    def compresses_parts(self, compress: bool | None) -> bool:
        """Whether a message sent in parts, of unknown size, is to be compressed."""
        return self._compresses(math.inf, compress)

    def ping(self, payload: bytes) -> bytes:
        """Return a Ping frame."""
        return self._wsproto.send(Ping(payload))

    def pong(self, payload: bytes) -> bytes:
        """Return a Pong frame."""
        return self._wsproto.send(Pong(payload))

    def close(self, code: int, reason: str) -> bytes:
        """Return the Close frame, once; its reason is cut to what fits (123 bytes)."""
        wire_code = CloseReason.NO_STATUS_RCVD if code == CloseCode.NO_STATUS else code
        return self._wsproto.send(CloseConnection(wire_code, reason))

    def _compresses(self, size: float, compress: bool | None) -> bool:
        if self._deflate is None:
            return False
        return size >= self._deflate.threshold if compress is None else compress

    def _encode(
        self, message: PreparedMessage, deflate: PerMessageDeflate | None
    ) -> tuple[bytes, ...]:
        payload = message.payload if deflate is None else deflate.compress(message.payload)
        return self._split(_opcode(message.data), payload, rsv1=deflate is not None, fin=True)

    def _split(self, opcode: int, payload: bytes, *, rsv1: bool, fin: bool) -> tuple[bytes, ...]:
        masked = self._client
        if len(payload) <= MAX_FRAME:
            return (_frames.encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masked=masked),)
        last = (len(payload) - 1) // MAX_FRAME
        return tuple(
            _frames.encode_frame(
                _frames.CONTINUATION if index else opcode,
                payload[index * MAX_FRAME : (index + 1) * MAX_FRAME],
                fin=fin and index == last,
                rsv1=rsv1 and index == 0,
                masked=masked,
            )
            for index in range(last + 1)
        )


def _wasteful(short: int, size: int) -> bool:
    """Whether a length was sent in a longer form than needed (RFC 6455, section 5.2)."""
    return short > 125 and size <= (125 if short == 126 else 0xFFFF)


def _opcode(data: Data) -> int:
    return _frames.TEXT if isinstance(data, str) else _frames.BINARY


def _make_extension(
    client: bool, options: Options, parameters: DeflateParameters | None
) -> tuple[Limits, PerMessageDeflate | None]:
    if parameters is None:
        limits = (options.max_message_size, options.max_fragments, options.max_frame_size)
        return Limits(*limits), None
    assert options.compression is not None, "agreed on without having been wanted"
    deflate = PerMessageDeflate(
        parameters,
        options.compression,
        client=client,
        max_message_size=options.max_message_size,
        max_fragments=options.max_fragments,
        max_frame_size=options.max_frame_size,
    )
    return deflate, deflate
