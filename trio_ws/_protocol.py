"""WebSocket frames, both roles, without I/O: bytes to events, messages to bytes.

wsproto is the authority on what arrives: headers, masks, fragments, UTF-8, control
frames, close codes. What it leaves to its user is done here:

* limits are judged from the frame header (`Limits`, a wsproto extension),
* a violation is told from the peer's Close (wsproto reports both as a
  ``CloseConnection``; only after a real one does its state change),
* parsing is lazy: an event is made when it is asked for, so that a read full of
  messages, or of compressed zeros, takes no more memory than its reader grants,
* nothing is parsed behind a violation or behind the peer's Close.

Plain frames (whole messages within the limits, between two others) take the straight lane
past wsproto (`Lane`). wsproto gets all others, each up to
its end, and whatever makes no sense to us. That both ways come to the same events is
proven over any bytes in any chunks.

::

                                     ┌─ plain frames ─→ Lane ─┐  next_messages()
    bytes ─ receive_data() ─→ unread ┤                        ├─────────────────→ messages
                                     └─ all others ─→ wsproto ┘  next_event() ─→ MessagePart,
                                                                                 Ping, Close...
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
from ._deflate import EXPANSION, INFLATE_STEP, DeflateParameters, PerMessageDeflate
from ._lane import Lane
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


class Protocol:
    """The state of one connection between the two handshakes.

    ``client`` tells which side this is; ``deflate`` what the handshake agreed on.
    Mutable, and without locks: one task at a time.
    """

    def __init__(
        self, *, client: bool, options: Options, deflate: DeflateParameters | None = None
    ) -> None:
        self._client = client
        self._options = options
        self._deflate = None if deflate is None else _make_deflate(client, options, deflate)
        self._engine: tuple[Connection, Limits] | None = None
        self._parsed: Iterator[WsprotoEvent] | None = None  # what wsproto has yet to tell
        most = min(options.max_message_size, options.max_frame_size)
        inflate = None if self._deflate is None else self._deflate.inflate_whole
        self._lane = Lane(client=client, max_size=most, inflate=inflate)
        bounded = options.max_message_size <= INFLATE_STEP * EXPANSION
        self._step = None if bounded or self._deflate is None else INFLATE_STEP
        self._counted = 0  # bytes of the current message that parts have told so far
        self._deaf = False
        self._unread = b""
        self._at = 0  # how much of that is done with
        self._owed = 0  # bytes of a frame that wsproto has begun to read
        self._in_message = False  # fragments have come, and more have to
        self.unfinished: bool = False
        """Whether the last `next_event` has stopped before it had to."""

    @property
    def _wsproto(self) -> Connection:
        return self._make_engine()[0]

    @property
    def _limits(self) -> Limits:
        return self._make_engine()[1]

    def _make_engine(self) -> tuple[Connection, Limits]:
        """Make wsproto's part at the first frame that needs it: it takes 1.5 KiB and 30 µs."""
        if self._engine is None:
            options = self._options
            limits = self._deflate or Limits(
                options.max_message_size, options.max_fragments, options.max_frame_size
            )
            role = ConnectionType.CLIENT if self._client else ConnectionType.SERVER
            self._engine = Connection(role, extensions=[limits]), limits
        return self._engine

    @property
    def held(self) -> int:
        """Bytes of what is not parsed to its end, and what compression holds."""
        unread = len(self._unread)
        return unread if self._deflate is None else unread + self._deflate.memory

    # Receiving...

    @property
    def missing(self) -> int:
        """Bytes that are sure to come: the rest of a large frame that is read as it comes."""
        return self._lane.left

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the peer; `next_event` tells what they mean."""
        if not self._deaf:
            self._unread = self._unread[self._at :] + data if self._unread else data
            self._at = 0

    def next_messages(self, most: int, room: float = math.inf) -> list[tuple[Data, int]]:
        """Return the next messages that came whole in plain frames, each with its size in bytes.

        No more than ``most``, and no more than fill ``room`` bytes. If there are none
        `next_event` knows what comes next.
        """
        if self._parsed is not None or self._owed or self._in_message or self._lane.left:
            return []
        messages, end = self._lane.read(self._unread, self._at, most, room)
        if end == len(self._unread):
            self._unread, self._at = b"", 0
        else:
            self._at = end
        return messages

    @property
    def exhausted(self) -> bool:
        """Whether nothing more comes of the bytes so far."""
        return not self._unread and self._parsed is None

    def next_event(self, most_frames: float = math.inf) -> Event | None:
        """Return the next event, or `None` if more bytes are needed first.

        `None` comes also after ``most_frames`` frames that made no event, empty fragments
        above all; then `unfinished` is true, and the next call goes on.
        """
        self.unfinished = False
        while not self._deaf:
            for parsed in self._parsed or ():
                event = self._translate(parsed)
                if event is not None:
                    return event
            self._parsed = None
            if not self._unread:
                break
            if most_frames <= 0:
                self.unfinished = True
                break
            part = self._next_plain()
            if part is not None:
                return part
            if self._parsed is None and not self._lane.left:
                if not (self._owed or self._find_owed()):
                    break  # not even a header yet
                self._feed_wsproto()
            most_frames -= 1
        return None

    def _next_plain(self) -> MessagePart | None:
        """Return what the straight lane makes of the next bytes, if it is open to them."""
        lane = self._lane
        if self._owed or self._in_message:
            return None
        if not lane.left:
            for message, size in self.next_messages(1):
                return MessagePart(message, size, final=True)
            self._advance(lane.begin(self._unread, self._at))
        piece = memoryview(self._unread)[self._at : self._at + lane.left]
        self._advance(self._at + len(piece))
        part = lane.take(piece) if piece else None
        if lane.rejected:  # wsproto shall say why
            data = _frames.encode_frame(_frames.TEXT, lane.rejected, masked=not self._client)
            self._wsproto.receive_data(data)
            self._parsed = self._wsproto.events()
        return part if part is not None and (part.data or part.final) else None

    def _find_owed(self) -> bool:
        """Note how much of what comes is wsproto's; return whether that is known yet."""
        at = self._at
        extent = _frames.frame_extent(self._unread, at)
        if extent is None:
            if len(self._unread) >= at + 2 and self._unread[at] & 0x0F > _frames.BINARY:
                self._owed = 2  # a long control frame, or no opcode at all: wrong as it stands
            return self._owed > 0
        self._owed = extent[1] - at
        first = self._unread[at]
        if first & 0x0F < 8:  # of fragments, too, we must know what may follow
            self._in_message = not first & 0x80
        return True

    def _advance(self, to: int) -> None:
        """Be done with what has been read up to there; with all of it, keep none."""
        if to == len(self._unread):
            self._unread, self._at = b"", 0
        else:
            self._at = to

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
        self._unread, self._at, self._parsed = b"", 0, None
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
        self, message: PreparedMessage | Data, *, compress: bool | None = None
    ) -> tuple[bytes, ...]:
        """Return the frames of a whole message.

        ``compress``: `True` and `False` overrule `Deflate.threshold`; without
        permessage-deflate nothing is ever compressed.
        """
        if isinstance(message, str):
            opcode, payload = _frames.TEXT, message.encode()
        elif isinstance(message, bytes):
            opcode, payload = _frames.BINARY, message
        else:
            return self.encode_prepared(message, compress=compress)
        deflate = self._deflate and self._deflate_for(len(payload), compress)
        return self._encode(opcode, payload, deflate)

    def encode_prepared(
        self, message: PreparedMessage, *, compress: bool | None = None
    ) -> tuple[bytes, ...]:
        """Do the same for a message that others may get as well.

        A server keeps what it encoded in it, for the next connection with the same parameters.
        """
        deflate = self._deflate and self._deflate_for(len(message.payload), compress)
        key = deflate and deflate.shared_key
        shared = not self._client and (deflate is None or key is not None)
        frames = message.encoded.get(key) if shared else None
        if frames is None:
            frames = self._encode(_opcode(message.data), message.payload, deflate)
            if shared:
                message.encoded[key] = frames
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
        return self._deflate_for(math.inf, compress) is not None

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

    def _deflate_for(self, size: float, compress: bool | None) -> PerMessageDeflate | None:
        """Return what compresses a message of some size, `None` if it stays as it is."""
        deflate = self._deflate
        if deflate is None:
            return None
        wanted = size >= deflate.threshold if compress is None else compress
        return deflate if wanted else None

    def _encode(
        self, opcode: int, payload: bytes, deflate: PerMessageDeflate | None
    ) -> tuple[bytes, ...]:
        if deflate is not None:
            payload = deflate.compress(payload)
        rsv1 = deflate is not None
        if len(payload) <= MAX_FRAME:
            return (_frames.encode_frame(opcode, payload, rsv1=rsv1, masked=self._client),)
        return self._split(opcode, payload, rsv1=rsv1, fin=True)

    def _split(self, opcode: int, payload: bytes, *, rsv1: bool, fin: bool) -> tuple[bytes, ...]:
        masked = self._client
        whole = memoryview(payload)
        last = max(len(payload) - 1, 0) // MAX_FRAME
        return tuple(
            _frames.encode_frame(
                _frames.CONTINUATION if index else opcode,
                whole[index * MAX_FRAME : (index + 1) * MAX_FRAME],
                fin=fin and index == last,
                rsv1=rsv1 and index == 0,
                masked=masked,
            )
            for index in range(last + 1)
        )


def _opcode(data: Data) -> int:
    return _frames.TEXT if isinstance(data, str) else _frames.BINARY


def _make_deflate(
    client: bool, options: Options, parameters: DeflateParameters
) -> PerMessageDeflate:
    assert options.compression is not None, "agreed on without having been wanted"
    return PerMessageDeflate(
        parameters,
        options.compression,
        client=client,
        max_message_size=options.max_message_size,
        max_fragments=options.max_fragments,
        max_frame_size=options.max_frame_size,
    )
