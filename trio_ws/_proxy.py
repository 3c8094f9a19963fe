"""Proxies: which one leads to a server, by its URL or by the environment, as curl does it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs

from ._url import (
    WebSocketURL,
    basic_credentials,
    join_host_port,
    parse_userinfo,
    refuse_odd_characters,
    split_host_port,
    without_password,
)

DEFAULT_PORTS: Final = {
    "http": 1080,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""curl's (its manual, ``--proxy``): who means 80 or 3128 writes it."""

_Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"


@attrs.frozen
class Proxy:
    """Where a proxy listens, and what it is to be told."""

    scheme: str
    """One of `DEFAULT_PORTS`."""
    host: str
    port: int
    userinfo: tuple[str, str] | None = attrs.field(default=None, repr=without_password)
    """User and password, percent-decoded."""

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken with the proxy itself."""
        return self.scheme == "https"

    @property
    def socks(self) -> bool:
        """Whether it speaks SOCKS, and not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def resolves(self) -> bool:
        """Whether the proxy looks up the server's name, or we do (SOCKS, as curl names it)."""
        return self.scheme not in {"socks4", "socks5"}

    @property
    def authorization(self) -> str | None:
        """The value of the Proxy-Authorization header for the user info, if any."""
        return None if self.userinfo is None else basic_credentials(self.userinfo)

    def __str__(self) -> str:
        user = "" if self.userinfo is None else f"{self.userinfo[0]}:***@"
        return f"{self.scheme}://{user}{join_host_port(self.host, self.port)}"


def parse_proxy(text: str) -> Proxy:
    """Read ``http://user:password@host:port``, or another of the schemes.

    Raises:
      TypeError: it is no `str`.
      ValueError: it is no URL of a proxy; the message never repeats a password.
    """
    if not isinstance(text, str):
        raise TypeError(f"proxy is a URL, 'environment' or None, not {type(text).__name__}")
    refuse_odd_characters(text)
    scheme, colon, rest = text.partition("://")
    scheme = scheme.lower()
    if not colon or scheme not in DEFAULT_PORTS:
        *others, last = (f"{each}://" for each in DEFAULT_PORTS)
        raise ValueError(f"the URL of a proxy starts with {', '.join(others)} or {last}")
    user, _, location = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if not location or location.startswith(":"):
        raise ValueError("the URL of the proxy has no host: write it as in http://proxy:3128")
    host, port = split_host_port(location)
    proxy = Proxy(
        scheme,
        host,
        DEFAULT_PORTS[scheme] if port is None else port,
        parse_userinfo(user) if user else None,
    )
    if proxy.socks and proxy.userinfo is not None:
        _check_for_socks(scheme, *proxy.userinfo)
    return proxy


def _check_for_socks(scheme: str, user: str, password: str) -> None:
    if scheme.startswith("socks4"):
        if password:
            raise ValueError("SOCKS4 knows a user, but no password: use socks5://")
    # RFC 1929, section 2: one byte each for the lengths, and neither is 0.
    elif not (1 <= len(user) <= 255 and 1 <= len(password) <= 255):
        raise ValueError("SOCKS5 wants user and password, each of 1 to 255 characters")
    if not (user + password).isascii():
        raise ValueError("user and password of a SOCKS proxy are ASCII")


def proxy_from_environment(url: WebSocketURL, environ: Mapping[str, str]) -> Proxy | None:
    """Choose as curl does since 8.5 (its issue 12031): ``None`` is the direct way.

    ``ws_proxy`` before ``http_proxy``, ``wss_proxy`` before ``https_proxy``, then ``all_proxy``;
    in capitals, too, but for HTTP_PROXY: to a CGI script that is the visitor's header Proxy.
    What is empty counts as not set. `urllib.request.getproxies_environment` knows neither
    networks in ``no_proxy`` nor the names for WebSockets.

    Raises:
      ValueError: the variable says nothing of use; the message names it.
    """
    if url.unix_path is not None or _is_excepted(url.host, _first(environ, _EXCEPT)[1]):
        return None
    name, value = _first(environ, _FOR_WSS if url.secure else _FOR_WS)
    if not value:
        return None
    try:
        return parse_proxy(value if "://" in value else f"http://{value}")
    except ValueError as error:
        raise ValueError(f"the environment variable {name} is of no use: {error}") from None


_EXCEPT: Final = ("no_proxy", "NO_PROXY")
_FOR_ALL: Final = ("all_proxy", "ALL_PROXY")
_FOR_WS: Final = ("ws_proxy", "WS_PROXY", "http_proxy", *_FOR_ALL)
_FOR_WSS: Final = ("wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY", *_FOR_ALL)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    return next(((name, value) for name in names if (value := environ.get(name))), ("", ""))


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Match a host with ``no_proxy``: ``*``, names with all below them, addresses, networks."""
    if no_proxy.strip() == "*":
        return True
    name = host.partition("%")[0].removesuffix(".")
    address = _address(name)
    entries = [entry.lower() for entry in re.split(r"[,\s]+", no_proxy) if entry]
    if address is not None:
        return any(_holds(entry, address) for entry in entries)
    suffixes = [entry.removeprefix(".").removesuffix(".") for entry in entries]
    return any(suffix and f".{name}".endswith(f".{suffix}") for suffix in suffixes)


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _holds(entry: str, address: _Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
