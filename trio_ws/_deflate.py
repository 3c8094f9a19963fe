"""permessage-deflate (RFC 7692): negotiated, bounded on receipt, tuned for sending.

Inbound, `PerMessageDeflate` is an extension of wsproto, in the place of `Limits`.
It inflates each piece of a message as it comes, with the limit as zlib's bound,
so that a bomb costs no more than a message of the largest size::

    RSV1 on the first frame ─→ inflate each piece ─→ at the end: 00 00 ff ff, an
                               (at most the limit     empty last block, and the
                               and one byte)          stream must be complete

Outbound, `Protocol` compresses by itself, before it builds a frame: it is not
wsproto that knows what is worth compressing, or what a room has compressed already.
"""

from __future__ import annotations

import math
import re
import sys
import zlib
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from ._limits import NO_RSV, Limits
from ._options import Deflate

if TYPE_CHECKING:
    # The only names that typeshed has for what zlib.compressobj() and decompressobj() return.
    from zlib import _Compress, _Decompress  # pyright: ignore[reportPrivateUsage]

NAME: Final = "permessage-deflate"

# Negotiating...

MAX_OFFERS: Final = 32
"""Offers, of any extension, that a server looks at. Clients send one to three (an
offer and its fallbacks); a header of thousands is no client's, and not worth its time."""


@attrs.frozen
class DeflateParameters:
    """What was agreed (RFC 7692, section 7.1), in the words of the RFC."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int


def offer(settings: Deflate) -> str:
    """Return what a client asks for, as the value of ``Sec-WebSocket-Extensions``.

    It is one offer, with what matters while a connection is idle. A server that
    cannot do without its context would keep up to 40 KiB busy here for as long as the
    connection lasts: it declines, and messages go as they are. A fallback without
    conditions would give that away.

    The server's window is only asked for when it would stay in memory. Widespread
    servers ignore that parameter, or decline for its sake (RFC 7692, section 7.1.2.1,
    leaves it to them), and then a limit on memory that is freed after each message
    anyway would cost the connection.
    """
    parts = [NAME]
    if settings.client_max_window_bits < 15:
        parts.append(f"client_max_window_bits={settings.client_max_window_bits}")
    else:
        parts.append("client_max_window_bits")
    if _asks_for_server_window(settings):
        parts.append(f"server_max_window_bits={settings.server_max_window_bits}")
    if settings.client_no_context_takeover:
        parts.append("client_no_context_takeover")
    if settings.server_no_context_takeover:
        parts.append("server_no_context_takeover")
    return "; ".join(parts)


def accept_offers(
    settings: Deflate, values: Iterable[str]
) -> tuple[str, DeflateParameters] | None:
    """Return a server's answer to a client's offers, or `None` to decline them all.

    ``values`` are the request's ``Sec-WebSocket-Extensions`` headers. The first offer
    that this side can honour is accepted. An offer with a parameter that is unknown,
    repeated or out of its range is declined (RFC 7692, section 5.1), and a list that
    breaks the grammar of RFC 6455, section 9.1, offers nothing.
    """
    try:
        offers = list(islice(_extensions(values), MAX_OFFERS))
    except ValueError:
        return None
    for name, parameters in offers:
        if name == NAME:
            try:
                asked = _parameters(parameters, valueless=True)
            except ValueError:
                continue
            if asked.get("server_max_window_bits") != 8:  # zlib cannot: see _new_compressor
                return _accept(settings, asked)
    return None


def read_response(settings: Deflate | None, values: Iterable[str]) -> DeflateParameters | None:
    """Return what a server made of `offer`, or `None` if it declined.

    ``settings`` is what the offer was made from, or `None` if there was none;
    ``values`` are the response's ``Sec-WebSocket-Extensions`` headers.

    Raises:
      ValueError: the answer does not fit the offer: the connection must be failed
          (RFC 6455, section 4.1; RFC 7692, section 5.1).
    """
    accepted = list(islice(_extensions(values), 2))
    if not accepted:
        return None
    name, parameters = accepted[0]
    if settings is None or name != NAME:
        raise ValueError(f"the server answers with an extension that was not offered: {name[:64]}")
    if len(accepted) > 1:
        raise ValueError(f"the server answers with a second extension: {accepted[1][0][:64]}")

    agreed = _parameters(parameters, valueless=False)
    if settings.server_no_context_takeover and "server_no_context_takeover" not in agreed:
        raise ValueError("the server accepts the offer without its server_no_context_takeover")
    server_bits = agreed.get("server_max_window_bits")
    if _asks_for_server_window(settings):
        most = settings.server_max_window_bits
        if server_bits is None:
            raise ValueError("the server accepts the offer without its server_max_window_bits")
        if server_bits > most:
            raise ValueError(f"the server's window is {server_bits} bits, {most} were offered")
    # RFC 7692, section 7.1.2.2: the server may answer with more than we said; we keep our word.
    client_bits = min(agreed.get("client_max_window_bits") or 15, settings.client_max_window_bits)
    return DeflateParameters(
        server_no_context_takeover="server_no_context_takeover" in agreed,
        client_no_context_takeover=(
            settings.client_no_context_takeover or "client_no_context_takeover" in agreed
        ),
        server_max_window_bits=server_bits or 15,
        client_max_window_bits=client_bits,
    )


# Receiving and sending...

WIRE_SLACK: Final = 64 * 1024
"""With twice the limit, what a message may take on the wire: see `PerMessageDeflate`."""

EXPANSION: Final = 1032
"""The most that deflate expands by, says zlib."""

INFLATE_STEP: Final = 4 * 1024
"""Compressed bytes that are inflated at a time where the limit of a message does not bound what
they become: a piece takes no more than 4 MiB then."""

MAX_STREAMS: Final = 256
"""Deflate streams in one frame. A sender starts a new one when it cannot flush otherwise
(RFC 7692, section 7.2.3.4), as a rule once a frame; each costs more than its two bytes."""

_ZLIB_STATE: Final = 7 * 1024
"""What zlib takes besides its windows and tables, either way."""

_TAIL: Final = b"\x00\x00\xff\xff"  # RFC 7692, section 7.2.1: taken off, and put back
_LAST_BLOCK: Final = b"\x01\x00\x00\xff\xff"  # RFC 1951, section 3.2.4: last, stored, empty
_EMPTY: Final = b"\x00"  # RFC 7692, section 7.2.3.6: a message of nothing
_RSV1: Final = RsvBits(True, False, False)


class PerMessageDeflate(Limits):
    """One connection's permessage-deflate, with `Limits` that count inflated bytes.

    A compressed message may take ``2 * max_message_size + 64 KiB`` on the wire, so
    that an absurd length is refused from the header alone. No honest compressor
    comes near: fixed Huffman codes cost 9/8 of the data at worst (RFC 1951, section
    3.2.6), stored blocks 5 bytes each, and a flush after each of 4096 fragments
    another 5 bytes.

    Without a ``max_message_size`` there is no bound for what one piece inflates to
    (1032 times its length, at worst): then feed wsproto in slices of 4 KiB.
    """

    name = NAME

    def __init__(
        self,
        parameters: DeflateParameters,
        settings: Deflate,
        *,
        client: bool,
        max_message_size: float,
        max_fragments: float,
        max_frame_size: float = math.inf,
    ) -> None:
        super().__init__(max_message_size, max_fragments, max_frame_size)
        server = (parameters.server_no_context_takeover, parameters.server_max_window_bits)
        theirs = (parameters.client_no_context_takeover, parameters.client_max_window_bits)
        if client:
            server, theirs = theirs, server
        self._fresh, self._window_bits = server
        self._peer_fresh, peer_window_bits = theirs

        # Peers with a zlib older than 1.2.9 say 8 and compress with 9.
        self._inflate_bits = max(peer_window_bits, 9)
        self._max_wire = 2 * max_message_size + WIRE_SLACK
        self._bounded = max_message_size < sys.maxsize
        self._compressed = False  # the current message
        self._wire = 0  # its bytes before inflating
        self._streams = 0  # that ended in the current frame
        self._decompressor: _Decompress | None = None

        self.threshold = settings.threshold
        """Messages with fewer bytes are better sent as they are."""
        self.shared_key: Hashable | None = (
            (self._window_bits, settings.level, settings.memory_level) if self._fresh else None
        )
        """What `compress` depends on besides the payload: where two connections have the
        same, what one compressed the other may send. `None` if messages depend on the
        ones before."""
        self._level = settings.level
        self._memory_level = settings.memory_level
        self._compressor: _Compress | None = None
        self._inflate_memory = (1 << self._inflate_bits) + _ZLIB_STATE
        self._deflate_memory = (1 << (self._window_bits + 2)) + (1 << (self._memory_level + 9))
        self._deflate_memory += _ZLIB_STATE

    @property
    def memory(self) -> int:
        """Bytes that zlib holds between two frames (its own figures, in zconf.h)."""
        inflating = self._decompressor is not None
        deflating = self._compressor is not None
        return inflating * self._inflate_memory + deflating * self._deflate_memory

    # Receiving...

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """Judge a frame by its header; idempotent."""
        first = opcode is Opcode.TEXT or opcode is Opcode.BINARY
        if first:
            self._compressed = rsv.rsv1
            self._wire = 0
        verdict = super().frame_inbound_header(proto, opcode, rsv, payload_length)
        if verdict is not NO_RSV or self._control or not self._compressed:
            return verdict
        # On any other frame than the first wsproto shall complain about the bit.
        return _RSV1 if first else NO_RSV

    def judge_size(self, payload_length: int) -> CloseReason | RsvBits:
        """Judge what a compressed message takes on the wire."""
        if not self._compressed:
            return super().judge_size(payload_length)
        if (wire := self._wire + payload_length) > self._max_wire:
            most = f"{self._max_message_size:.0f} is the most after inflating"
            return self.refuse(
                CloseReason.MESSAGE_TOO_BIG, f"message of {wire} compressed bytes: {most}"
            )
        return NO_RSV

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Inflate a piece of a payload."""
        if self._control or not self._compressed:
            return super().frame_inbound_payload_data(proto, data)
        self._wire += len(data)
        try:
            return self._inflate(data)
        except zlib.error:
            return self._corrupt()

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """Inflate what is left at the end of a message."""
        rest: bytes | CloseReason | None = None
        if self._compressed and not self._control:
            self._streams = 0
            if fin:
                try:
                    rest = self._finish()
                except zlib.error:
                    rest = self._corrupt()
        super().frame_inbound_complete(proto, fin)
        return rest

    def inflate_whole(self, payload: bytes) -> bytes | None:
        """Return what a message of one frame is, if that is plain to see; changes nothing.

        `None`: the hooks above shall say, because messages depend on each other, because it
        may inflate to a lot, or because something is wrong with it.
        """
        most = INFLATE_STEP * EXPANSION
        if len(payload) > INFLATE_STEP and self._max_message_size > most:
            return None
        if not self._peer_fresh or not payload:
            return None
        decompressor = zlib.decompressobj(-self._inflate_bits)
        most = int(min(self._max_message_size, most)) + 1
        try:
            data = decompressor.decompress(payload + _TAIL + _LAST_BLOCK, most)
        except zlib.error:
            return None
        whole = decompressor.eof and not decompressor.unused_data
        return data if whole and len(data) <= self._max_message_size else None

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        pieces = []
        while data:
            if self._decompressor is None:
                self._decompressor = zlib.decompressobj(-self._inflate_bits)
            piece = self._decompressor.decompress(data, self._room())
            self.size += len(piece)
            if self.size > self._max_message_size:
                return self._too_big()
            pieces.append(piece)
            if not self._decompressor.eof:
                break
            # A block with BFINAL: what follows is a stream of its own.
            data = self._decompressor.unused_data
            self._decompressor = None
            self._streams += 1
            if self._streams > MAX_STREAMS:
                return self.refuse(
                    CloseReason.POLICY_VIOLATION,
                    f"frame of more than {MAX_STREAMS} deflate streams",
                )
        return b"".join(pieces)

    def _finish(self) -> bytes | CloseReason | None:
        """Put the tail back (RFC 7692, section 7.2.2), and see that nothing is missing."""
        decompressor = self._decompressor
        # Senders that flush zlib twice send nothing at all for an empty message, where
        # the RFC has a zero byte; and some end with BFINAL and leave that byte out, too.
        if decompressor is None or not self._wire:
            return None
        if self._peer_fresh:
            self._decompressor = None
            rest = decompressor.decompress(_TAIL + _LAST_BLOCK, self._room())
        else:
            rest = decompressor.decompress(_TAIL, self._room())
            decompressor = decompressor.copy()
            decompressor.decompress(_LAST_BLOCK)
        self.size += len(rest)
        if self.size > self._max_message_size:
            return self._too_big()
        if not decompressor.eof or decompressor.unused_data:
            return self._corrupt()
        return rest

    def _room(self) -> int:
        """Return what is left for this message and a byte more, in the words of zlib."""
        return int(self._max_message_size) - self.size + 1 if self._bounded else 0

    def _too_big(self) -> CloseReason:
        why = f"message of more than {self._max_message_size:.0f} bytes after inflating"
        return self.refuse(CloseReason.MESSAGE_TOO_BIG, why)

    def _corrupt(self) -> CloseReason:
        return self.refuse(
            CloseReason.INVALID_FRAME_PAYLOAD_DATA, "compressed data that does not inflate"
        )

    # Sending...

    def compress(self, payload: bytes) -> bytes:
        """Return a whole message as it goes into a frame with RSV1.

        If ``shared_key`` is `None`, the peer needs it to understand what comes later:
        call this only for what will be sent, and in its order.
        """
        return self.compress_part(payload, final=True)

    def compress_part(self, data: bytes, *, final: bool) -> bytes:
        """Return a fragment of a message, complete in itself: the peer can inflate it.

        RSV1 goes on the first one. The caller keeps messages apart.
        """
        part = b""
        if data:
            if self._compressor is None:
                self._compressor = self._new_compressor()
            part = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
            if final:
                part = part[: -len(_TAIL)]
        elif final:
            part = _EMPTY  # and no compressor is made for it
        if final and self._fresh:
            self._compressor = None
        return part

    def _new_compressor(self) -> _Compress:
        if self._window_bits == 8:
            # zlib has no raw deflate with a window of 8 (it would take 9): do without
            # references to what came before, which any window can inflate.
            return zlib.compressobj(
                self._level, zlib.DEFLATED, -9, self._memory_level, zlib.Z_HUFFMAN_ONLY
            )
        return zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._memory_level)


# The words of the headers...

_Parameters: TypeAlias = "list[tuple[str, str | None]]"

# RFC 6455, section 9.1, with the tokens of RFC 9110, section 5.6.2: a quoted value must be
# a token, too. No two repetitions here compete for a character: matching is linear.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_STRAY: Final = re.compile(r"[ \t,]*")
_EXTENSION: Final = re.compile(rf"({_TOKEN}+)[ \t]*")
_PARAMETER: Final = re.compile(
    rf';[ \t]*({_TOKEN}+)[ \t]*(?:=[ \t]*(?:({_TOKEN}+)|"((?:\\?{_TOKEN})+)")[ \t]*)?'
)
_WINDOW_BITS: Final = re.compile("[89]|1[0-5]")


def _extensions(values: Iterable[str]) -> Iterator[tuple[str, _Parameters]]:
    for value in values:
        position = _STRAY.match(value).end()  # type: ignore[union-attr]  # matches anything
        while position < len(value):
            if (name := _EXTENSION.match(value, position)) is None:
                raise ValueError(f"a malformed list of extensions: {value[:100]!r}")
            position = name.end()
            parameters: _Parameters = []
            while parameter := _PARAMETER.match(value, position):
                word, token, quoted = parameter.groups()
                parameters.append((word, quoted.replace("\\", "") if quoted else token))
                position = parameter.end()
            if position < len(value) and value[position] != ",":
                raise ValueError(f"a malformed list of extensions: {value[:100]!r}")
            yield name[1], parameters
            position = _STRAY.match(value, position).end()  # type: ignore[union-attr]  # as above


def _parameters(pairs: _Parameters, *, valueless: bool) -> dict[str, int | None]:
    """Check parameters; ``valueless``: as in an offer, ``client_max_window_bits`` may be bare."""
    found: dict[str, int | None] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{NAME} with a repeated parameter: {name}")
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                raise ValueError(f"{NAME} with a value for {name}")
            found[name] = None
        elif name in ("server_max_window_bits", "client_max_window_bits"):
            if value is None and valueless and name == "client_max_window_bits":
                found[name] = None
            elif value is None or not _WINDOW_BITS.fullmatch(value):
                raise ValueError(f"{NAME} with a bad {name}: {value and value[:64]}")
            else:
                found[name] = int(value)
        else:
            raise ValueError(f"{NAME} with an unknown parameter: {name[:64]}")
    return found


def _accept(settings: Deflate, asked: dict[str, int | None]) -> tuple[str, DeflateParameters]:
    agreed = DeflateParameters(
        server_no_context_takeover=(
            settings.server_no_context_takeover or "server_no_context_takeover" in asked
        ),
        client_no_context_takeover=(
            settings.client_no_context_takeover or "client_no_context_takeover" in asked
        ),
        server_max_window_bits=min(
            asked.get("server_max_window_bits") or 15, settings.server_max_window_bits
        ),
        client_max_window_bits=(
            min(asked["client_max_window_bits"] or 15, settings.client_max_window_bits)
            if "client_max_window_bits" in asked
            else 15
        ),
    )
    parts = [NAME]
    if agreed.server_no_context_takeover:
        parts.append("server_no_context_takeover")
    if agreed.client_no_context_takeover:
        parts.append("client_no_context_takeover")
    # A smaller window than the client is ready for needs no telling: whoever can inflate
    # 15 can inflate less, and a parameter that was not asked for may puzzle a client.
    if "server_max_window_bits" in asked:
        parts.append(f"server_max_window_bits={agreed.server_max_window_bits}")
    if "client_max_window_bits" in asked:
        parts.append(f"client_max_window_bits={agreed.client_max_window_bits}")
    return "; ".join(parts), agreed


def _asks_for_server_window(settings: Deflate) -> bool:
    return settings.server_max_window_bits < 15 and not settings.server_no_context_takeover
