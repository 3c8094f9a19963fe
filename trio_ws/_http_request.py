"""What a request asks for: its path, query, cookies, origin and offers, decoded."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote

import attrs
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy

from ._http_headers import PROTOCOL, TOKEN, parse_list
from ._http_response import BadRequest
from ._url import split_host_port

MAX_COOKIES: Final = 1024
"""Cookies that are looked at. Browsers keep fewer than 200 for a site."""


@attrs.frozen(eq=False)
class RequestHead:
    """What a request asks for; its body is another matter."""

    method: str
    target: str
    """As it was sent: ASCII."""
    http_version: str
    """``"1.1"`` or ``"1.0"``."""
    headers: CIMultiDictProxy[str] = attrs.field(repr=False)  # they may hold secrets
    """Values are decoded as Latin-1, which neither refuses nor changes a byte."""
    path: str
    """Percent-decoded, without the query."""
    query: MultiDictProxy[str] = attrs.field(repr=False)
    cookies: dict[str, str] = attrs.field(repr=False)
    """The first of a name counts: browsers send the most specific one first."""
    authority: tuple[str, int | None] | None
    """The host and port that the client wants, if it said so; no port is the default."""
    origin: str | None
    """The web page that asks; `None` if no browser does."""
    subprotocols: tuple[str, ...]
    """As offered: in order of preference."""
    upgrade: bool
    """Whether it asks for a WebSocket, rightly or not: see `check_upgrade`."""


def parse_request(
    method: bytes, target: bytes, http_version: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> RequestHead:
    """Make a `RequestHead` of a request line and headers (with names in lower case).

    That method, target and header names are what HTTP allows is taken as checked.

    Raises:
      BadRequest: what they say makes no sense.
    """
    if not http_version.startswith(b"1."):
        raise BadRequest(505, "this server speaks HTTP/1.1")
    # A higher minor version is served as the highest known one (RFC 9110, section 2.5).
    version = "1.0" if http_version == b"1.0" else "1.1"
    if method == b"CONNECT":
        raise BadRequest(405, "this server is no proxy", [("Allow", "GET, HEAD")])

    fields: CIMultiDict[str] = CIMultiDict()
    for name, value in headers:
        if not value.isascii() and name.startswith((b"connection", b"sec-websocket-")):
            raise BadRequest(400, f"the header {name.decode('ascii')} is not ASCII")
        fields.add(_NAMES.get(name) or name.decode("ascii"), value.decode("latin-1"))
    authority, path, query = _split_target(target.decode("ascii"))
    origins = fields.getall("origin", None)
    return RequestHead(
        method=method.decode("ascii"),
        target=target.decode("ascii"),
        http_version=version,
        headers=CIMultiDictProxy(fields),
        path=_decode_path(path),
        query=_decode_query(query),
        cookies=_parse_cookies(fields.getall("cookie", ())),
        authority=_authority(fields, authority, version),
        origin=None if origins is None else ", ".join(origins),
        # They have to be unique, but there is no harm in one that is not.
        subprotocols=tuple(dict.fromkeys(list_header(fields, "Sec-WebSocket-Protocol"))),
        # RFC 9110, section 7.8: Upgrade in HTTP/1.0 is ignored.
        upgrade=version == "1.1" and _lists_websocket(fields),
    )


# Those that browsers send: one string for all connections, where each would keep its own.
_NAMES: Final = {
    name.encode("ascii"): name
    for name in (
        *("accept", "accept-encoding", "accept-language", "authorization", "cache-control"),
        *("connection", "cookie", "host", "origin", "pragma", "sec-fetch-dest", "sec-fetch-mode"),
        *("sec-fetch-site", "sec-websocket-extensions", "sec-websocket-key"),
        *("sec-websocket-protocol", "sec-websocket-version", "upgrade", "user-agent"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
    )
}


def list_header(
    headers: CIMultiDict[str] | CIMultiDictProxy[str], name: str, element: re.Pattern[str] = TOKEN
) -> list[str]:
    """Return the elements of a header that is a list; none if there is no such header.

    Raises:
      BadRequest: an element does not match ``element``.
    """
    try:
        return parse_list(headers.getall(name, ()), element)
    except ValueError:
        raise BadRequest(400, f"the header {name} is malformed") from None


def read_credentials(head: RequestHead) -> tuple[str, str] | None:
    """Return user and password of Basic authentication (RFC 7617), if they can be read."""
    values = head.headers.getall("authorization", ())
    scheme, _, token = values[0].strip().partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(token.strip(" "), validate=True).decode()
    except ValueError:  # no base64, or no UTF-8
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


def split_host(text: str) -> tuple[str, int | None]:
    """Split a host from its port, as in the header Host.

    Raises:
      BadRequest: it is malformed.
    """
    # Zones mean something on the client's machine only, and names come here encoded.
    if not text.isascii() or "%" in text:
        raise BadRequest(400, "the host is malformed")
    try:
        return split_host_port(text)
    except ValueError:
        raise BadRequest(400, "the host is malformed") from None


# The parts of a request


def _lists_websocket(fields: CIMultiDict[str]) -> bool:
    return any(
        protocol.lower() == "websocket" for protocol in list_header(fields, "Upgrade", PROTOCOL)
    )


_ABSOLUTE: Final = re.compile(r"(?:http|ws)s?://([^/?]*)(.*)", re.IGNORECASE)


def _split_target(target: str) -> tuple[str | None, str, str]:
    """Return host and port if they are in the target, the path, and the query."""
    authority = None
    if "#" in target:
        raise BadRequest(400, "the target has a fragment")
    if found := _ABSOLUTE.fullmatch(target):  # servers must take it (RFC 9112, section 3.2.2)
        authority, target = found[1], found[2]
        if not target.startswith("/"):
            target = "/" + target
    elif not target.startswith("/") and target != "*":
        raise BadRequest(400, "the target is no path")
    path, _, query = target.partition("?")
    return authority, path, query


def _decode_path(path: str) -> str:
    if "%" not in path:
        return path
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest(400, "the path is not UTF-8 once percent-decoded") from None
    if "\0" in decoded:
        raise BadRequest(400, "the path holds a NUL")
    return decoded


def _decode_query(query: str) -> MultiDictProxy[str]:
    if not query:
        return _NO_QUERY
    try:
        return MultiDictProxy(MultiDict(parse_qsl(query, keep_blank_values=True, errors="strict")))
    except UnicodeDecodeError:
        raise BadRequest(400, "the query is not UTF-8 once percent-decoded") from None


_NO_QUERY: Final[MultiDictProxy[str]] = MultiDictProxy(MultiDict())


def _parse_cookies(lines: Iterable[str]) -> dict[str, str]:
    # As browsers and proxies send them, not as RFC 6265, section 4.2.1 would have them:
    # one strange cookie of another application on the host must not hide the others.
    cookies: dict[str, str] = {}
    for line in lines:
        for pair in line.split(";", MAX_COOKIES)[:MAX_COOKIES]:
            name, equals, value = pair.partition("=")
            name, value = name.strip(" \t"), value.strip(" \t")
            if equals and name and len(cookies) < MAX_COOKIES:
                if len(value) > 1 and value[0] == value[-1] == '"':
                    value = value[1:-1]
                cookies.setdefault(name, value)
    return cookies


def _authority(
    fields: CIMultiDict[str], from_target: str | None, version: str
) -> tuple[str, int | None] | None:
    hosts = fields.getall("host", ())
    if len(hosts) > 1:
        raise BadRequest(400, "more than one header Host")
    if not hosts and version == "1.1":  # RFC 9112, section 3.2
        raise BadRequest(400, "the header Host is missing")
    # A host in the target overrides the header, which has to be right nevertheless.
    found = [split_host(text) for text in (*hosts, from_target) if text is not None]
    return found[-1] if found else None
