"""trio-websocket's errors and values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import attrs

from ..._messages import CloseCode
from ..._options import ANY_ORIGIN, Options

CONN_TIMEOUT: Final = 60
MAX_MESSAGE_SIZE: Final = 2**20
MESSAGE_QUEUE_SIZE: Final = 1
RECEIVE_BYTES: Final = 4 * 2**10

ByteHeaders: TypeAlias = "Iterable[tuple[bytes, bytes]] | None"


class HandshakeError(Exception):
    """A connection could not be opened."""


class ConnectionTimeout(HandshakeError):
    """It took too long."""


class DisconnectionTimeout(HandshakeError):
    """Never raised: closing takes no longer than it may, and is no error then."""


class ConnectionRejected(HandshakeError):
    """The server answered with an HTTP status instead."""

    def __init__(
        self, status_code: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes | None
    ) -> None:
        super().__init__(status_code, headers, body)
        self.status_code = status_code
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"{type(self).__name__}<status_code={self.status_code}>"


class ConnectionClosed(Exception):
    """The connection is over; ``reason`` tells how. Subclasses may call no ``__init__``."""

    reason: CloseReason | None

    def __init__(self, reason: CloseReason | None) -> None:
        super().__init__(reason)
        self.reason = reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.reason}>"


_NAMES: Final = {
    CloseCode.NORMAL: "NORMAL_CLOSURE",
    CloseCode.NO_STATUS: "NO_STATUS_RCVD",
    CloseCode.ABNORMAL: "ABNORMAL_CLOSURE",
    CloseCode.INVALID_DATA: "INVALID_FRAME_PAYLOAD_DATA",
    CloseCode.MANDATORY_EXTENSION: "MANDATORY_EXT",
    CloseCode.TLS_HANDSHAKE: "TLS_HANDSHAKE_FAILED",
}
"""Names of wsproto's that are not ours: people compare them."""


@attrs.frozen
class CloseReason:
    """How a connection ended: a code, its name, and words."""

    code: int
    reason: str | None

    @property
    def name(self) -> str:
        """What the code is called."""
        with suppress(ValueError):
            return _NAMES.get(CloseCode(self.code), CloseCode(self.code).name)
        ranges = ((3000, "RFC_RESERVED"), (4000, "IANA_RESERVED"), (5000, "PRIVATE_RESERVED"))
        below = (name for end, name in ranges if 1000 <= self.code < end)
        return next(below, "INVALID_CODE")


@attrs.frozen
class Endpoint:
    """One end of a TCP connection, or a listener."""

    address: str
    port: int
    is_ssl: bool

    @property
    def url(self) -> str:
        """As in a URL, without a port that goes without saying."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        port = "" if self.port == (443 if self.is_ssl else 80) else f":{self.port}"
        return f"{'wss' if self.is_ssl else 'ws'}://{host}{port}"


def endpoint(address: Any, *, is_ssl: bool) -> Endpoint | str:
    if isinstance(address, tuple):
        return Endpoint(address[0], address[1], is_ssl)
    return str(address)


def make_options(
    max_message_size: int,
    connect_timeout: float = CONN_TIMEOUT,
    disconnect_timeout: float = Options().close_grace,
) -> Options:
    return Options(
        max_message_size=max_message_size,
        handshake_timeout=connect_timeout,
        close_grace=disconnect_timeout,
        ping_interval=math.inf,
        compression=None,
        allowed_origins=ANY_ORIGIN,
        on_handler_error="raise",
    )


def decode(headers: ByteHeaders) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers or ()]


def encode(headers: Iterable[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
    )
