"""The vocabulary: close codes, how a connection ended, and what a message is made of."""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias

import attrs

Data: TypeAlias = "str | bytes"
"""What a message carries: `str` is sent and received as text, `bytes` as binary."""

MAX_CONTROL_PAYLOAD: Final = 125  # RFC 6455, section 5.5
MAX_CLOSE_REASON: Final = MAX_CONTROL_PAYLOAD - 2  # two bytes hold the code


class CloseCode(enum.IntEnum):
    """The close codes of RFC 6455, section 7.4.1, and of the IANA registry.

    Codes from 3000 to 3999 are for libraries and frameworks (register them with
    IANA), those from 4000 to 4999 for applications; both are plain integers.
    """

    NORMAL = 1000
    """The purpose of the connection is fulfilled."""
    GOING_AWAY = 1001
    """A server stops, a browser leaves the page, a task was cancelled."""
    PROTOCOL_ERROR = 1002
    """The peer broke RFC 6455."""
    UNSUPPORTED_DATA = 1003
    """Text where binary was expected, or the other way round."""
    NO_STATUS = 1005
    """Never sent: the peer's Close carried no code."""
    ABNORMAL = 1006
    """Never sent: the connection ended without a Close."""
    INVALID_DATA = 1007
    """A message that is not what it says: text that is not UTF-8, broken JSON."""
    POLICY_VIOLATION = 1008
    """A refusal that no other code describes."""
    MESSAGE_TOO_BIG = 1009
    """A message over the receiver's limit."""
    MANDATORY_EXTENSION = 1010
    """A client misses an extension that it cannot do without."""
    INTERNAL_ERROR = 1011
    """The handler failed."""
    SERVICE_RESTART = 1012
    """The server restarts: come back after a while."""
    TRY_AGAIN_LATER = 1013
    """The server is overloaded, or this peer was too slow."""
    BAD_GATEWAY = 1014
    """A gateway got an invalid answer from the server behind it."""
    TLS_HANDSHAKE = 1015
    """Never sent: TLS failed."""


POLITE_CODES: Final = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS})
"""The codes after which `WebSocket.receive` raises `ConnectionEnded`."""

_NEVER_SENT: Final = frozenset({CloseCode.NO_STATUS, CloseCode.ABNORMAL, CloseCode.TLS_HANDSHAKE})
_KNOWN_CODES: Final = frozenset(CloseCode)


def check_close(code: int, reason: str) -> None:
    """Refuse a close code or reason that may not go on the wire.

    Raises:
      TypeError: ``code`` is no integer or ``reason`` no string.
      ValueError: the code is reserved (RFC 6455, section 7.4) or the reason is
          longer than 123 bytes of UTF-8 (section 5.5).
    """
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"a close code is an int, not {type(code).__name__}")
    if not isinstance(reason, str):
        raise TypeError(f"a close reason is a str, not {type(reason).__name__}")
    if code in _NEVER_SENT or not (code in _KNOWN_CODES or 3000 <= code <= 4999):
        raise ValueError(
            f"close code {code} may not be sent: use 1000-1003, 1007-1014 or 3000-4999"
        )
    if (size := len(reason.encode())) > MAX_CLOSE_REASON:
        raise ValueError(f"close reason of {size} bytes: {MAX_CLOSE_REASON} is the most")


@attrs.frozen
class CloseInfo:
    """How a connection ended."""

    code: int
    """The close code: the peer's, ours if we closed, 1006 if nobody did."""
    reason: str
    """The text that came with the code; empty if none did."""
    initiator: Literal["local", "remote", "lost"]
    """Who ended it: this side, the peer, or nobody (the network, or a silent peer)."""
    clean: bool
    """Whether both sides sent a Close frame (RFC 6455, section 7.1.4)."""

    @property
    def polite(self) -> bool:
        """Whether somebody ended it, with 1000, 1001 or no code at all."""
        return self.code in POLITE_CODES

    def __str__(self) -> str:
        who = {"local": "closed by this side", "remote": "closed by the peer", "lost": "lost"}
        said = f"{self.code} {self.reason!r}" if self.reason else f"{self.code}"
        return f"{who[self.initiator]} ({said})"


OVERHEAD: Final = 64
"""What an unread message counts for besides its bytes: a tuple of 56, and a place in a list."""


def as_data(data: object) -> Data:
    """Return a message as `str` or `bytes`; a copy of anything else bytes-like.

    Raises:
      TypeError: ``data`` is neither `str` nor bytes-like.
    """
    if isinstance(data, (str, bytes)):
        return data
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # that is the question asked here
    except TypeError:
        raise TypeError(
            f"a message is str or bytes-like, not {type(data).__name__}: encode it first"
        ) from None
    return view.tobytes()


def _payload(data: Data) -> bytes:
    return data.encode() if isinstance(data, str) else data


@attrs.define(eq=False)
class PreparedMessage:
    """A message that is encoded once, however many connections it is sent to.

    ``data`` is `str` (text) or bytes-like (binary; a copy is taken). The encoded
    forms are kept inside, one per distinct set of compression parameters, for as
    long as the object lives. `Rooms.publish` makes one per call.

    Raises:
      TypeError: ``data`` is neither `str` nor bytes-like.
      UnicodeEncodeError: the text holds lone surrogates (a `ValueError`).
    """

    data: Data = attrs.field(converter=as_data)
    payload: bytes = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda self: _payload(self.data), takes_self=True),
    )
    encoded: dict[object, tuple[bytes, ...]] = attrs.field(init=False, repr=False, factory=dict)


# What a peer sends, as `Protocol` tells it.


@attrs.frozen
class MessagePart:
    """A piece of a message, in order; small messages come as a single one."""

    data: Data
    size: int
    """Bytes on receipt: after inflating, before decoding."""
    final: bool


@attrs.frozen
class PingReceived:
    """The peer asks for a Pong with this payload (RFC 6455, section 5.5.2)."""

    payload: bytes


@attrs.frozen
class PongReceived:
    """The peer answers a Ping, or says that it is alive (RFC 6455, section 5.5.3)."""

    payload: bytes


@attrs.frozen
class CloseReceived:
    """The peer's Close frame (RFC 6455, section 5.5.1)."""

    code: int
    reason: str


@attrs.frozen
class Violated:
    """What the peer sent breaks the rules or a limit: the last event there is."""

    code: int
    reason: str


Event: TypeAlias = "MessagePart | PingReceived | PongReceived | CloseReceived | Violated"
