"""Options: every limit and every timeout, explained once."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final, Literal, TypeAlias

import attrs

KIB: Final = 1024
MIB: Final = 1024 * KIB


class OriginPolicy(enum.Enum):
    """Who may open a WebSocket from a web page, besides a list of origins."""

    SAME_ORIGIN = "same-origin"
    """Pages that came from the host and port that the request is sent to."""
    ANY_ORIGIN = "any-origin"
    """Every page there is. Only for services without cookies or a private network."""


SAME_ORIGIN: Final = OriginPolicy.SAME_ORIGIN
ANY_ORIGIN: Final = OriginPolicy.ANY_ORIGIN

AllowedOrigins: TypeAlias = "OriginPolicy | tuple[str | re.Pattern[str], ...]"


def _limit(value: float | None) -> float:
    """`None` is the other way to say "no limit"."""
    return math.inf if value is None else value


def _positive(_: object, field: attrs.Attribute[Any], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{field.name} is a number or None, not {type(value).__name__}")
    if not value > 0:  # also refuses NaN
        raise ValueError(f"{field.name} must be greater than 0, not {value!r}")


def _in_range(low: int, high: float) -> Callable[[object, attrs.Attribute[Any], int], None]:
    def check(_: object, field: attrs.Attribute[Any], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{field.name} is an int, not {type(value).__name__}")
        if not low <= value <= high:
            raise ValueError(f"{field.name} must be from {low} to {high}, not {value}")

    return check


def _boolean(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{field.name} is True or False, not {value!r}")


@attrs.frozen(kw_only=True)
class Deflate:
    """How to compress messages: permessage-deflate (RFC 7692).

    The default profile takes no context over from one message to the next. That
    costs ratio on small messages of a kind (JSON of 1 KiB: 40 % of its size instead
    of 27 %), and buys that an idle connection holds no compression memory (48 KiB
    otherwise, 280 KiB with zlib's own defaults), and that a room compresses a message
    once for all of its members.

    The figures here are for JSON records, a fresh compressor per message, zlib 1.2.13.
    """

    level: int = attrs.field(default=6, validator=_in_range(0, 9))
    """Effort, 0 (none) to 9 (most), as in `zlib.compressobj`. 16 KiB take 110 µs at
    level 1 (29 % of the size remain), 200 µs at 6 (26 %), 250 µs at 9 (25 %)."""
    memory_level: int = attrs.field(default=5, validator=_in_range(1, 9))
    """Memory for compressing, 1 to 9: ``2 ** (level + 9)`` bytes. 5 is 16 KiB: as fast
    as the levels above it and within 1 % of their size; below it, up to twice as slow."""
    threshold: int = attrs.field(default=1024, validator=_in_range(0, math.inf))
    """Messages with fewer bytes are sent as they are: they fit into one packet either
    way, and compressing 256 bytes takes 9 µs, as long as sending them."""
    server_no_context_takeover: bool = attrs.field(default=True, validator=_boolean)
    """Whether the server starts afresh for each message (RFC 7692, section 7.1.1.1)."""
    client_no_context_takeover: bool = attrs.field(default=True, validator=_boolean)
    """Whether the client starts afresh for each message (RFC 7692, section 7.1.1.2)."""
    server_max_window_bits: int = attrs.field(default=12, validator=_in_range(9, 15))
    """The server's window, 9 to 15: ``2 ** (bits + 2)`` bytes to compress, ``2 ** bits`` to
    inflate (RFC 7692, section 7.1.2.1). 12 is 4 KiB, and leaves 16 KiB at 25.7 % where
    15 leaves 25.0 %. 8 is refused: zlib cannot compress with it. A client asks for it
    only if the server keeps its context, and so the window."""
    client_max_window_bits: int = attrs.field(default=12, validator=_in_range(9, 15))
    """The client's window, 9 to 15 (RFC 7692, section 7.1.2.2). Kept by our own client,
    asked of others, who may not be able to."""


def _one_of(*choices: str) -> Callable[[object, attrs.Attribute[Any], str], None]:
    def check(_: object, field: attrs.Attribute[Any], value: str) -> None:
        if value not in choices:
            raise ValueError(f"{field.name} is {' or '.join(map(repr, choices))}, not {value!r}")

    return check


def _deflate_or_none(_: object, __: object, value: object) -> None:
    if not (value is None or isinstance(value, Deflate)):
        raise TypeError(f"compression is Deflate(...) or None, not {value!r}")


def _as_origins(value: OriginPolicy | Iterable[str | re.Pattern[str]]) -> AllowedOrigins:
    if isinstance(value, OriginPolicy):
        return value
    if isinstance(value, (str, re.Pattern)):
        raise TypeError("allowed_origins is SAME_ORIGIN, ANY_ORIGIN or a list: put it in [ ]")
    if not isinstance(value, Iterable):
        raise TypeError(f"allowed_origins is SAME_ORIGIN, ANY_ORIGIN or a list, not {value!r}")
    origins = tuple(value)
    for origin in origins:
        if isinstance(origin, re.Pattern):
            continue
        if not isinstance(origin, str):
            raise TypeError(f"an origin is a str or a pattern, not {type(origin).__name__}")
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin: write scheme and host, as in 'https://example.org'"
            )
    return origins


_ORIGIN: Final = re.compile(r"null|[a-z][a-z0-9+.-]*://[^/?#\s]+", re.IGNORECASE)


TrustedProxies: TypeAlias = "tuple[IPv4Network | IPv6Network | Literal['unix'], ...]"


def _as_networks(value: Iterable[str | IPv4Network | IPv6Network]) -> TrustedProxies:
    if isinstance(value, (str, IPv4Network, IPv6Network)):
        raise TypeError("trusted_proxies is a list of networks: put it in [ ]")
    if not isinstance(value, Iterable):
        raise TypeError(f"trusted_proxies is a list of networks, not {value!r}")
    networks: TrustedProxies = tuple([_as_network(each) for each in value])
    return networks


def _as_network(
    value: str | IPv4Network | IPv6Network,
) -> IPv4Network | IPv6Network | Literal["unix"]:
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    if not isinstance(value, str):
        raise TypeError(f"a proxy is a str, not {type(value).__name__}")
    if value == "unix":
        return "unix"
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(
            f"{value!r} is no address or network, as '127.0.0.1' and '10.0.0.0/8' are,"
            f" nor 'unix': {error}"
        ) from None


@attrs.frozen(kw_only=True)
class Options:
    """Every limit and timeout of a server, a client and their connections.

    Times are in seconds, sizes in bytes. `math.inf` or `None` switches a limit off.
    The object is frozen: `replace` makes a changed copy.

    Raises:
      TypeError: a value is of the wrong type, or there is no such field.
      ValueError: a value is out of its range.
    """

    handshake_timeout: float = attrs.field(default=10, converter=_limit, validator=_positive)
    """Server: TLS and upgrade, from accept to 101, and each further request on the
    connection. Client: everything up to the 101. Ten seconds are 20 round trips over
    the worst mobile link, and few enough to shed a client that sends a byte a second."""
    close_grace: float = attrs.field(default=5, converter=_limit, validator=_positive)
    """One deadline for flushing, our Close, the peer's Close and TCP. Twice the time
    that TCP takes to send a lost segment for the third time (RFC 6298: 1 + 2 s)."""
    ping_interval: float = attrs.field(default=20, converter=_limit, validator=_positive)
    """Silence after which a ping goes out. Proxies and mobile networks forget a silent
    connection after 30 to 60 s (nginx: ``proxy_read_timeout``, 60 s)."""
    ping_timeout: float = attrs.field(default=20, converter=_limit, validator=_positive)
    """How long the peer may stay silent once the ping has left. Any byte is life; time
    in which this side has paused reading does not count."""
    write_timeout: float = attrs.field(default=30, converter=_limit, validator=_positive)
    """A write that the network takes no byte of for so long ends the connection: the
    kernel never gives up on a peer that announces a closed window (RFC 9293, 3.8.6.1)."""
    max_message_size: float = attrs.field(default=MIB, converter=_limit, validator=_positive)
    """Bytes of one message, after inflating. Judged from the frame header."""
    max_frame_size: float = attrs.field(default=None, converter=_limit, validator=_positive)
    """Bytes of one frame, as its header says; before inflating therefore. None by
    default: a browser sends each message in one frame, and ``max_message_size`` bounds it."""
    max_fragments: float = attrs.field(default=4096, converter=_limit, validator=_positive)
    """Frames of one message: an empty one costs as much work as a full one."""
    receive_buffer: float = attrs.field(default=64 * KIB, converter=_limit, validator=_positive)
    """Bytes of unread messages before reading pauses: one read's worth."""
    send_buffer: float = attrs.field(default=64 * KIB, converter=_limit, validator=_positive)
    """Bytes queued before `WebSocket.send` waits: one write's worth."""
    max_header_size: float = attrs.field(default=16 * KIB, converter=_limit, validator=_positive)
    """Bytes of a request or response head: what browsers send with 4 KiB of cookies
    fits twice over, and common servers take 8 KiB (nginx, Apache) to 16 KiB (node)."""
    compression: Deflate | None = attrs.field(default=Deflate(), validator=_deflate_or_none)
    """permessage-deflate, if the peer wants it, or `None`."""
    allowed_origins: AllowedOrigins = attrs.field(default=SAME_ORIGIN, converter=_as_origins)
    """Server: which web pages may connect: `SAME_ORIGIN`, `ANY_ORIGIN`, or a list of
    origins (``"https://example.org"``) and patterns, which must match the whole origin.
    A request without an Origin comes from no browser, and passes (RFC 6455, section 10.2)."""
    max_connections: float = attrs.field(default=10_000, converter=_limit, validator=_positive)
    """Server: connections at a time; the next is answered with 503. At about 20 KiB
    each, so many idle ones take 200 MB."""
    max_connections_per_address: float = attrs.field(
        default=None, converter=_limit, validator=_positive
    )
    """Server: connections at a time from one IP address; of IPv6 from one network of 64
    bits, since whoever has an address has all of these (RFC 6177). None by default: behind
    a proxy all come from one."""
    max_handshakes: float = attrs.field(default=1000, converter=_limit, validator=_positive)
    """Server: connections at a time that are not yet accepted or rejected."""
    memory_budget: float = attrs.field(default=None, converter=_limit, validator=_positive)
    """Server: bytes that all connections together may hold: what came and is unread,
    messages that are not complete, the state of compression, what is queued for
    sending, and in rooms for members who are behind. Beyond three quarters of it requests
    are answered with 503; beyond all of it the connection that holds most is closed with
    1013, and what it holds is dropped. What is in flight to them may come to a quarter
    more. Text is counted as UTF-8. None by default: it depends on the machine, and the
    limits above bound what each connection holds."""
    trusted_proxies: TrustedProxies = attrs.field(default=(), converter=_as_networks)
    """Server: the proxies that are believed what they say of a client: addresses, networks
    (``"10.0.0.0/8"``), or ``"unix"`` for whoever connects to a Unix socket. None by
    default: the headers of everybody else are the client's own words. What they say is the
    request's ``remote_address`` and ``secure``, the host for `SAME_ORIGIN`, and who
    ``max_connections_per_address`` counts."""
    forwarded_header: Literal["X-Forwarded-For", "Forwarded"] = attrs.field(
        default="X-Forwarded-For",
        validator=_one_of("X-Forwarded-For", "Forwarded"),
    )
    """Server: what the trusted proxies write: ``X-Forwarded-For`` with ``-Proto`` and ``-Host``,
    or ``Forwarded`` (RFC 7239). The other one is not looked at, since a proxy passes on
    what it does not know; what it does know it has to overwrite or append to."""
    on_handler_error: Literal["log", "raise"] = attrs.field(
        default="log", validator=_one_of("log", "raise")
    )
    """Server: whether an `Exception` of a handler is logged, or leaves the server."""

    def replace(self, **changes: object) -> Options:
        """Return a copy with ``changes``.

        Raises:
          TypeError: there is no such field, or a value is of the wrong type.
          ValueError: a value is out of its range.
        """
        return attrs.evolve(self, **changes)  # type: ignore[arg-type]  # checked by the fields


def check_options(options: object) -> None:
    """Refuse what is no `Options`, before it is asked for a limit somewhere inside.

    Raises:
      TypeError: it is something else.
    """
    if not isinstance(options, Options):
        raise TypeError(f"options is an Options(...), not {type(options).__name__}")
