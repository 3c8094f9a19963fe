"""WebSocket URLs: "wss://host/path" as a frozen value."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

import attrs
import idna

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443, "http": 80, "https": 443}
"""RFC 6455, section 3, and RFC 9110, section 4.2."""


def without_password(userinfo: tuple[str, str] | None) -> str:
    """Show user info in a repr."""
    return "None" if userinfo is None else f"({userinfo[0]!r}, '***')"


@attrs.frozen
class WebSocketURL:
    """Where to connect, and what to ask for there."""

    secure: bool
    """Whether TLS is spoken: ``wss://``."""
    host: str
    """The name or address to connect to, in ASCII; IPv6 without brackets, with its zone."""
    port: int
    target: str
    """Path and query as they go on the wire: never empty, ASCII, percent-encoded."""
    unix_path: str | None = None
    """The socket to connect to instead of host and port: ``ws+unix://``."""
    userinfo: tuple[str, str] | None = attrs.field(default=None, repr=without_password)
    """User and password, percent-decoded."""

    @property
    def host_header(self) -> str:
        """The value of the Host header: without the default port, IPv6 in brackets."""
        default = DEFAULT_PORTS["wss" if self.secure else "ws"]
        return join_host_port(self.host, None if self.port == default else self.port)

    @property
    def authority(self) -> str:
        """Host and port, both always, as CONNECT names a server (RFC 9110, section 7.1)."""
        return join_host_port(self.host, self.port)

    @property
    def authorization(self) -> str | None:
        """The value of the Authorization header for the user info, if any."""
        return None if self.userinfo is None else basic_credentials(self.userinfo)

    def __str__(self) -> str:
        """Show it to people: without user info and query, which may hold secrets."""
        path = self.target.partition("?")[0]
        if self.unix_path is not None:
            return f"ws+unix://{self.unix_path}:{path}"
        return f"{'wss' if self.secure else 'ws'}://{self.host_header}{path}"


def parse_url(url: str) -> WebSocketURL:
    """Read ``ws://``, ``wss://`` or ``ws+unix:///socket:/target``.

    Raises:
      TypeError: ``url`` is no `str`.
      ValueError: it is no WebSocket URL; the message says what to change, and never
          repeats a password.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    refuse_odd_characters(url)
    _refuse_fragment(url)
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if colon and scheme == "ws+unix":
        return _parse_unix(rest)
    if colon and scheme in ("http", "https"):
        raise ValueError(f"use ws:// or wss:// instead of {scheme}://")
    if not colon or scheme not in ("ws", "wss"):
        raise ValueError("a WebSocket URL starts with ws://, wss:// or ws+unix://")

    end = found.start() if (found := _AUTHORITY_END.search(rest)) else len(rest)
    user, _, location = rest[:end].rpartition("@")
    if not location or location.startswith(":"):
        raise ValueError("the URL has no host: write it as in ws://example.org/path")
    host, port = split_host_port(location)
    return WebSocketURL(
        secure=scheme == "wss",
        host=host,
        port=DEFAULT_PORTS[scheme] if port is None else port,
        target=_target(rest[end:]),
        userinfo=parse_userinfo(user) if user else None,
    )


def join_host_port(host: str, port: int | None) -> str:
    """Write ``host:port``, or the host alone, as it goes on the wire."""
    # A zone means something on this machine only, and never leaves it (RFC 6874, section 4).
    address = host.partition("%")[0]
    written = f"[{address}]" if ":" in address else address
    return written if port is None else f"{written}:{port}"


def basic_credentials(userinfo: tuple[str, str]) -> str:
    """Write user and password for Basic authentication (RFC 7617)."""
    return "Basic " + base64.b64encode(":".join(userinfo).encode()).decode("ascii")


def parse_userinfo(text: str) -> tuple[str, str]:
    """Read ``user:password``, percent-decoded.

    Raises:
      ValueError: that cannot be sent by Basic authentication.
    """
    if "@" in text:
        raise ValueError("more than one '@' before the path: write those of the password as %40")
    user, _, password = text.partition(":")
    if _STRAY_PERCENT.search(text):
        raise ValueError("'%' in the user info begins a percent-encoded byte: write %25")
    try:
        user, password = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("the user info is not UTF-8 once percent-decoded") from None
    # RFC 7617, section 2: the first colon ends the user, and control characters are banned.
    if ":" in user:
        raise ValueError("a user name with a colon cannot be sent by Basic authentication")
    if _CONTROL.search(user + password):
        raise ValueError("control characters cannot be sent by Basic authentication")
    return user, password


def refuse_odd_characters(text: str) -> None:
    """Refuse what no URL holds, and what is read in more than one way.

    Raises:
      ValueError: the text tells which character, and where.
    """
    if found := _ODD.search(text):
        raise ValueError(
            f"the URL holds {found[0]!r} at position {found.start()}: remove it, or"
            " percent-encode it (a space is %20)"
        )


def split_host_port(text: str) -> tuple[str, int | None]:
    """Read ``host``, ``host:port`` or ``[address]:port``; no port is `None`.

    The host comes back in lower case and ASCII (IDNA 2008), IPv6 in its canonical
    form without brackets.

    Raises:
      ValueError: that is no host, or no port.
    """
    if text.startswith("["):
        literal, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError("an IPv6 address stands in one pair of brackets, as in [::1]:8080")
        return _ipv6(literal), _port(tail[1:])
    name, _, port = text.partition(":")
    if ":" in port:
        raise ValueError(
            "one colon too many: an IPv6 address stands in brackets, as in [::1]:8080"
        )
    return _hostname(name), _port(port)


# The parts of a URL

_AUTHORITY_END: Final = re.compile(r"[/?]")
# A backslash is a slash to browsers and none to RFC 3986: whose host is it in "a\\@b"?
_ODD: Final = re.compile(r"[\\\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# RFC 3986 knows no underscore in names, but the networks of containers do. Lengths: RFC 1035.
_ASCII_NAME: Final = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_ZONE: Final = re.compile(r"[A-Za-z0-9._~-]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# What RFC 3986 allows in path and query, and the brackets that browsers leave alone as well.
_SAFE_IN_TARGET: Final = "/?:@!$&'()*+,;=-._~%[]"


def _refuse_fragment(url: str) -> None:
    if "#" in url:
        raise ValueError(
            "a WebSocket URL has no fragment (RFC 6455, section 3): remove what begins with"
            " '#', or write it as %23"
        )


def _hostname(name: str) -> str:
    if not name.isascii():
        # Bounded first: the mapping of Unicode names takes more than linear time.
        if len(name) > 253:
            raise ValueError("the host is longer than the 253 characters that DNS allows")
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"{name!r} is no valid host name: {error}") from None
    name = name.lower()
    if not _ASCII_NAME.fullmatch(name):
        raise ValueError(f"{name[:300]!r} is no valid host name")
    return name


def _ipv6(literal: str) -> str:
    # RFC 6874 writes the zone behind "%25"; people write what `ip address` shows.
    address, percent, zone = literal.partition("%")
    zone = zone.removeprefix("25")
    try:
        host = str(ipaddress.IPv6Address(address))
    except ValueError:
        raise ValueError(f"{address[:100]!r} is no IPv6 address") from None
    if not percent:
        return host
    if not _ZONE.fullmatch(zone):
        raise ValueError("a zone is the name of an interface, as in [fe80::1%25eth0]")
    return f"{host}%{zone}"


def _port(text: str) -> int | None:
    if not text:  # "host:" is "host" (RFC 3986, section 6.2.3)
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        # Not shown: where a password holds an unencoded slash, this is its beginning.
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


def _target(text: str) -> str:
    if _STRAY_PERCENT.search(text):
        raise ValueError("'%' in a path or query begins a percent-encoded byte: write %25")
    encoded = quote(text, safe=_SAFE_IN_TARGET)
    return encoded if encoded.startswith("/") else "/" + encoded


def _parse_unix(rest: str) -> WebSocketURL:
    if not rest.startswith("/"):
        raise ValueError(
            "write an absolute path with three slashes: ws+unix:///run/chat.sock:/path"
        )
    location, mark, query = rest.partition("?")
    socket, _, path = location.partition(":")
    if path and not path.startswith("/"):
        raise ValueError(
            "behind the socket and a colon comes the path, as in ws+unix:///run/chat.sock:/path"
            " (a colon in the socket's name is %3A)"
        )
    if _STRAY_PERCENT.search(socket):
        raise ValueError("'%' in the socket's path begins a percent-encoded byte: write %25")
    unix_path = os.fsdecode(unquote_to_bytes(socket))
    if "\0" in unix_path:
        raise ValueError("the socket's path holds a NUL")
    return WebSocketURL(
        secure=False,
        host="localhost",
        port=DEFAULT_PORTS["ws"],
        target=_target(path + mark + query),
        unix_path=unix_path,
    )
