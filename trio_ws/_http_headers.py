"""The syntax of HTTP/1.1 heads, as far as both roles need it and h11 leaves it open."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

Headers: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"
"""What an application may give as headers: any mapping, a multi-dict, or pairs."""

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2."""

PROTOCOL: Final = re.compile(rf"{TOKEN.pattern}(?:/{TOKEN.pattern})?")
"""An element of Upgrade (RFC 9110, section 7.8)."""

# Each message's framing is written here, so an application must not write it as well.
FRAMING_HEADERS: Final = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding"}
)
HANDSHAKE_HEADERS: Final = FRAMING_HEADERS | {
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
}


class HeadTooLarge(Exception):
    """A head is over the limit; ``first_line`` alone is, if that is so."""

    def __init__(self, *, first_line: bool) -> None:
        super().__init__(first_line)
        self.first_line = first_line


class HeadBuffer:
    """Received bytes, from which whole heads are cut, one at a time.

    h11 bounds only heads that stay incomplete: one that arrives whole in a single
    read passes at any size. So the end of a head is looked for here, and h11 gets
    heads one by one and whole. That also makes every outcome independent of how
    the bytes were cut into reads.
    """

    def __init__(self, limit: float) -> None:
        self.data = bytearray()
        """What has come and is not yet taken."""
        self._limit = int(min(limit, sys.maxsize))
        self._searched = 0

    def cut_head(self) -> bytes | None:
        """Take the next head with its blank line, or `None` if more bytes are needed.

        Raises:
          HeadTooLarge: it is longer than the limit.
        """
        found = _BLANK_LINE.search(self.data, self._searched)
        end = len(self.data) if found is None else found.end()
        if end > self._limit:
            raise HeadTooLarge(first_line=b"\n" not in self.data[: self._limit])
        if found is None:
            self._searched = max(0, end - 2)  # all but the last byte of a blank line
            return None
        return self.take(end)

    def take(self, count: int) -> bytes:
        """Take at most ``count`` bytes."""
        taken = bytes(self.data[:count])
        del self.data[:count]
        self._searched = 0
        return taken

    def put_back(self, data: bytes) -> None:
        """Put back what was taken too much."""
        self.data[:0] = data
        self._searched = 0


# h11 accepts a line feed as the end of a line, as RFC 9112, section 2.2 allows.
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")


def parse_list(values: Iterable[str], element: re.Pattern[str] = TOKEN) -> list[str]:
    """Read a list that may go over several header lines (RFC 9110, section 5.6.1).

    Empty elements are skipped, as a recipient must.

    Raises:
      ValueError: an element does not match ``element``.
    """
    found = [item for value in values for part in value.split(",") if (item := part.strip(" \t"))]
    if not all(map(element.fullmatch, found)):
        raise ValueError("an element of the list is malformed")
    return found


def check_headers(headers: Headers, reserved: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Return an application's headers as pairs, once they are fit to go on the wire.

    Raises:
      TypeError: not a mapping of `str` to `str`, nor pairs of `str`.
      ValueError: a name or value is illegal (CR, LF or NUL would begin a header or a
          response of their own), or the name is one of the ``reserved`` ones.
    """
    if isinstance(headers, (str, bytes)):
        raise TypeError("headers are a mapping, or pairs of name and value")
    items = headers.items() if isinstance(headers, Mapping) else headers
    return tuple(_check_header(item, reserved) for item in items)


# RFC 9110, section 5.5: visible characters, spaces and tabs, and opaque bytes above ASCII.
_ILLEGAL_IN_VALUE: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")


def _check_header(item: object, reserved: frozenset[str]) -> tuple[str, str]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError(f"a header is a pair of name and value, not {item!r}")
    name, value = item
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(
            f"header names and values are str, not {type(name).__name__}"
            f" and {type(value).__name__}"
        )
    if not TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no header name")
    if name.lower() in reserved:
        raise ValueError(
            f"the header {name!r} is written by trio_ws itself: leave it out, or use the"
            " parameter for it"
        )
    if found := _ILLEGAL_IN_VALUE.search(value):  # the value itself may be a secret
        raise ValueError(
            f"the value of the header {name!r} holds {found[0]!r} at position {found.start()}:"
            " control characters, and those beyond Latin-1, cannot be sent"
        )
    return name, value.strip(" \t")


def accept_token(key: str) -> str:
    """Compute Sec-WebSocket-Accept from Sec-WebSocket-Key (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + _ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
