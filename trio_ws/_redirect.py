"""Redirects: where an answer sends a client, and whether it may go there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

import attrs

from ._errors import ConnectionRejected, HandshakeError
from ._url import WebSocketURL, parse_url, refuse_odd_characters

MAX_REDIRECTS: Final = 5
"""RFC 2068, section 10.3, asked for no more, and nobody has needed more for a WebSocket."""

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
"""The statuses that name another place (RFC 9110, section 15.4)."""

CREDENTIALS: Final = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
"""Headers that are for one server alone; Host is no secret, but names that server."""


def location_of(rejection: ConnectionRejected) -> str | None:
    """Return where this answer points, `None` if it is no redirect."""
    places = rejection.headers.getall("Location", ())
    return places[0] if rejection.status in REDIRECTS and len(places) == 1 else None


def same_server(here: WebSocketURL, there: WebSocketURL) -> bool:
    """Return whether what is secret here may be told there: scheme, host and port are equal."""
    return _server(here) == _server(there)


def follow(visited: Sequence[WebSocketURL], location: str) -> WebSocketURL:
    """Return where to go from the last of these.

    User info stays on the same server, and is taken from no ``location``.

    Raises:
      HandshakeError: there is no such place, we have been there, it is less safe than
          here, or there were enough of them.
    """
    here = visited[-1]
    there = _resolve(here, location)
    if here.unix_path is not None:
        if not same_server(here, attrs.evolve(there, unix_path=here.unix_path)):
            raise HandshakeError(
                f"{here} redirects to {there}: from a Unix socket no way leads on"
            )
        there = attrs.evolve(there, unix_path=here.unix_path)
    if here.secure and not there.secure:
        raise HandshakeError(
            f"{here} redirects to {there}, where nothing would be encrypted: if you trust"
            " that place, connect to it yourself"
        )
    if same_server(here, there):
        there = attrs.evolve(there, userinfo=here.userinfo)
    way = " -> ".join(map(str, (*visited, there)))
    if _target(there) in map(_target, visited):
        raise HandshakeError(f"the server redirects in a circle: {way}")
    if len(visited) > MAX_REDIRECTS:
        raise HandshakeError(f"more than {MAX_REDIRECTS} redirects: {way}")
    return there


def _server(url: WebSocketURL) -> tuple[object, ...]:
    return url.secure, url.host, url.port, url.unix_path


def _target(url: WebSocketURL) -> WebSocketURL:
    return attrs.evolve(url, userinfo=None)


_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def _resolve(here: WebSocketURL, location: str) -> WebSocketURL:
    # h11's headers are bytes; we read them as Latin-1, those who write beyond ASCII mean UTF-8.
    location = location.encode("latin-1", "replace").decode("utf-8", "replace")
    base = f"{'https' if here.secure else 'http'}://{here.host_header}{here.target}"
    try:
        refuse_odd_characters(location)
        parts = urlsplit(urljoin(base, location))
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"nobody follows a server to {parts.scheme}://")
        host = parts.netloc.rpartition("@")[2]
        return parse_url(urlunsplit((_SCHEMES[parts.scheme], host, parts.path, parts.query, "")))
    except ValueError as error:
        raise HandshakeError(f"{here} redirects to no URL of use: {error}") from error
