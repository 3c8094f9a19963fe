"""Views: a connection's messages as values of one type.

``ws.text``, ``ws.binary``, ``ws.json()`` and ``ws.typed(encode, decode)`` are channels over the
same connection: whoever receives on one of them receives from the connection. A view
holds nothing, so cancelling it loses nothing, and any number of them may be made.

What a peer sends against the view's type is its violation: the connection is told Close
1003 or 1007, what is behind the message is dropped, as behind any violation, and the
receiver gets a `ConnectionLost` whose cause tells what was wrong.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

import trio

from ._connection import Connection
from ._errors import ConnectionLost, ProtocolViolation
from ._messages import CloseCode, Data, PreparedMessage

logger: Final = logging.getLogger("trio_ws")

T = TypeVar("T")


class Messages(Protocol):
    """What a view stands in front of: a `WebSocket`."""

    async def receive(self) -> Data:
        """Receive the next message."""
        ...

    async def send(self, data: Any, *, compress: bool | None = None) -> None:
        """Send a message."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


class View(trio.abc.Channel[T], Generic[T]):
    """A channel of values over a connection's messages."""

    def __init__(
        self,
        messages: Messages,
        connection: Connection,
        encode: Callable[[T], object],
        decode: Callable[[Any], T],
        *,
        text: bool | None,
    ) -> None:
        for function in (encode, decode):
            if not callable(function):  # on receipt it would be taken for the peer's fault
                raise TypeError(f"a codec is two functions, not {type(function).__name__}")
        self._messages = messages
        self._connection = connection
        self._encode = encode
        self._decode = decode
        self._text = text

    async def receive(self) -> T:
        """Receive a message, and return what it stands for."""
        message = await self._messages.receive()
        if self._text is not None and isinstance(message, str) is not self._text:
            expected = "text" if self._text else "binary"
            self._refuse(CloseCode.UNSUPPORTED_DATA, f"a {expected} message was expected", None)
        try:
            return self._decode(message)
        except Exception as exc:  # noqa: BLE001  # each codec has errors of its own
            self._refuse(CloseCode.INVALID_DATA, "the message could not be decoded", exc)

    async def send(self, value: T) -> None:
        """Send a value as a message."""
        await self._messages.send(self._encode(value))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._messages.aclose()

    def _refuse(self, code: CloseCode, reason: str, error: Exception | None) -> NoReturn:
        connection = self._connection
        # The error's type alone: its words may be the peer's.
        detail = "" if error is None else f": {type(error).__name__}"
        logger.info("websocket %s: %s%s", connection.id, reason, detail)
        connection.inbox.discard()
        connection.begin_close(code, reason)
        violation = ProtocolViolation(code, reason)
        violation.__cause__ = error
        assert connection.info is not None
        raise ConnectionLost(connection.info) from violation


def encode_text(value: str) -> str:
    """Return a text as it is.

    Raises:
      TypeError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"ws.text sends str, not {type(value).__name__}")
    return value


def encode_binary(value: object) -> object:
    """Return what is to be sent as binary; `WebSocket.send` checks that it is bytes-like.

    Raises:
      TypeError: it is text.
    """
    if isinstance(value, (str, PreparedMessage)):
        raise TypeError(f"ws.binary sends bytes-like objects, not {type(value).__name__}")
    return value


def as_it_is(message: Data) -> Any:
    """Decode nothing."""
    return message


# RFC 8259, which Python's json takes wider...


def encode_json(value: object) -> PreparedMessage:
    """Write JSON; NaN and infinities are none (RFC 8259, section 6).

    Raises:
      TypeError, ValueError: there is no JSON for the value.
    """
    text = json.dumps(value, ensure_ascii=False, separators=_COMPACT, allow_nan=False)
    try:
        return PreparedMessage(text)
    except UnicodeEncodeError:  # a lone surrogate: JSON can name it, UTF-8 cannot hold it
        return PreparedMessage(json.dumps(value, separators=_COMPACT, allow_nan=False))


def decode_json(text: str) -> Any:
    """Read JSON. Whatever it makes can be written by `encode_json` again.

    Raises:
      ValueError, RecursionError: it is none, or goes beyond what Python can hold.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)


_COMPACT: Final = (",", ":")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _parse_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # 1e999 is JSON; RFC 8259, section 6, allows limits
        raise ValueError("a number beyond the range of a double")
    return number
