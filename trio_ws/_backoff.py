"""Coming back: which failures are worth another attempt, and after how long."""

from __future__ import annotations

import math
import random
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import attrs
import trio

from ._errors import ConnectionClosed, ConnectionRejected, HandshakeError, HandshakeTimeout
from ._messages import POLITE_CODES, CloseCode
from ._options import _limit, _positive

_PASSING_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""RFC 9110, section 15, and RFC 6585, section 4: the same request may succeed later."""

_PASSING_CODES: Final = POLITE_CODES | {
    CloseCode.ABNORMAL,
    CloseCode.INTERNAL_ERROR,
    CloseCode.SERVICE_RESTART,
    CloseCode.TRY_AGAIN_LATER,
    CloseCode.BAD_GATEWAY,
}
"""The others say that something is wrong with what one side sends, or wants; those from 3000
on are an application's, and only it knows."""

_COME_BACK_LATER: Final = frozenset({CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER})

# Raised by TLS when the connection breaks, not when somebody is not to be trusted.
_TLS_BROKEN: Final = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)


def is_transient(error: Exception) -> bool:
    """Whether a failure may pass by itself: what `open_reconnecting` goes by.

    It is worth another attempt if nobody listens there, a name is not known (networks that
    come up, and those of containers, say so for a while), the network fails or is too slow,
    the server answers 408, 429, 500, 502, 503 or 504, or an open connection was lost or
    ended by the peer with 1000, 1001, no code, 1011, 1012, 1013 or 1014.

    It is not if the server refuses in another way (401, 403, 404, ...), TLS does not trust
    it, one side breaks the protocol, a file or port is forbidden, or the connection was
    ended with any other code: those from 3000 on mean what the application says.

    Concurrency: a plain function, which keeps nothing.
    """
    if isinstance(error, ConnectionRejected):
        return error.status in _PASSING_STATUSES
    if isinstance(error, ConnectionClosed):
        return error.code in _PASSING_CODES
    if isinstance(error, HandshakeTimeout):
        return True
    if isinstance(error, HandshakeError):
        return _is_broken(error.__cause__)
    return _is_broken(error)


def _is_broken(error: BaseException | None) -> bool:
    """Whether the network failed: in the end, whatever stands in between."""
    if isinstance(error, trio.BrokenResourceError):
        return error.__cause__ is None or _is_broken(error.__cause__)
    if isinstance(error, ssl.SSLError):
        return isinstance(error, _TLS_BROKEN)
    return isinstance(error, (OSError, EOFError)) and not isinstance(error, PermissionError)


def _check_range(_: object, field: attrs.Attribute[Any], value: tuple[float, float]) -> None:
    if not (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(each, (int, float)) for each in value)
    ):
        raise TypeError(f"{field.name} is two numbers, the least and the most, not {value!r}")
    if not 0 <= value[0] <= value[1] < math.inf:
        raise ValueError(f"{field.name} is two numbers, the least and the most, not {value!r}")


def _check_factor(_: object, field: attrs.Attribute[Any], value: float) -> None:
    if not 1 <= value < math.inf:
        raise ValueError(f"{field.name} must be 1 or more, not {value!r}")


@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait before each attempt to connect: random, and longer each time.

    The wait is anything from 0 to ``initial * factor ** failures`` seconds, where failures
    are counted in a row: so clients that a server has lost all at once come back spread
    out, and the load that they make stays the same however many they are ("full jitter").
    Times are in seconds; `None` or `math.inf` switches a limit off.

    Raises:
      TypeError, ValueError: a value is of the wrong type, or out of its range.
    """

    initial: float = attrs.field(default=1, validator=_positive)
    """The longest wait after the loss of a session that lasted."""
    factor: float = attrs.field(default=2, validator=[_positive, _check_factor])
    """By how much it grows with each failure."""
    maximum: float = attrs.field(default=60, validator=_positive)
    """How far it grows: a minute is what people still wait for."""
    stable_after: float = attrs.field(default=10, validator=_positive)
    """A session that lasted so long is a success, and waits begin anew; one that did not
    is a failure. 10 seconds: as long as a handshake may take."""
    restart: tuple[float, float] = attrs.field(default=(5, 30), validator=_check_range)
    """The least and the most to wait after Close 1012 (service restart) and 1013 (try again
    later), if that is more. 5 to 30 seconds, by chance, is what 1012 was registered with."""
    max_retry_after: float = attrs.field(default=3600, converter=_limit, validator=_positive)
    """How much of a ``Retry-After`` is believed: it is waited for in addition. An hour: a
    clock that is wrong must not silence a client for ever."""
    max_attempts: float = attrs.field(default=None, converter=_limit, validator=_positive)
    """Give up after so many failures in a row."""
    max_outage: float = attrs.field(default=None, converter=_limit, validator=_positive)
    """Give up when the next attempt would come later than this after the end of the last
    session that lasted, or after the beginning."""
    uniform: Callable[[float, float], float] = attrs.field(default=random.uniform, repr=False)
    """Where chance comes from: ``random.Random(1).uniform`` does the same each time."""

    def delay(self, failures: int, error: Exception | None = None) -> float:
        """Return how long to wait, in seconds, after so many failures in a row.

        ``error`` is the last of them: it may have said when to come back.

        Raises:
          ValueError: the number of failures is negative.
        """
        if failures < 0:
            raise ValueError(f"there are 0 or more failures, not {failures}")
        longest = self.maximum
        with suppress(OverflowError):  # after a thousand failures or so
            longest = min(longest, self.initial * float(self.factor) ** failures)
        delay = self.uniform(0, longest)
        if isinstance(error, ConnectionRejected):
            return delay + min(retry_after(error.headers), self.max_retry_after)
        if isinstance(error, ConnectionClosed) and error.code in _COME_BACK_LATER:
            return max(delay, self.uniform(*self.restart))
        return delay


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that ``Retry-After`` asks for (RFC 9110, section 10.2.3), or 0.

    A date is understood by the server's own clock, if it tells what that says.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:18])
    when = _parse_date(text)
    if when is None:
        return 0
    now = _parse_date(headers.get("Date", "")) or datetime.now(UTC)
    return max((when - now).total_seconds(), 0)


def _parse_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
