"""Whether a request may become a WebSocket: RFC 6455, section 4.2, and where it comes from."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from ._http_request import RequestHead, list_header
from ._http_response import BadRequest, upgrade_required
from ._options import AllowedOrigins, OriginPolicy
from ._url import DEFAULT_PORTS, split_host_port

_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64


def check_upgrade(request: RequestHead) -> None:
    """Check what RFC 6455, section 4.2.1 asks of an opening handshake.

    HTTP/1.0 is told 426, as is a request for a page: its Upgrade has to be ignored
    (RFC 9110, section 7.8), which leaves a request that needs to be upgraded. 505 would
    be untrue, since pages are served over HTTP/1.0.

    Raises:
      BadRequest: it is none, or not one of this version of the protocol.
    """
    if not request.upgrade:
        raise upgrade_required()
    if request.method != "GET":
        raise BadRequest(405, "a WebSocket is opened with GET", [("Allow", "GET")])
    headers = request.headers
    if "upgrade" not in map(str.lower, list_header(headers, "Connection")):
        raise BadRequest(
            400, "the header Connection does not list Upgrade: does a proxy in between drop it?"
        )
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise BadRequest(400, "a WebSocket handshake has no body")
    versions = headers.getall("sec-websocket-version", ())
    if len(versions) > 1:  # RFC 6455, section 11.3.5
        raise BadRequest(400, "more than one header Sec-WebSocket-Version")
    if not versions or versions[0] != "13":
        raise upgrade_required("version 13 of the WebSocket protocol is needed")
    keys = headers.getall("sec-websocket-key", ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise BadRequest(400, "one header Sec-WebSocket-Key is needed: 16 bytes in base64")


def origin_allowed(request: RequestHead, allowed: AllowedOrigins, secure: bool) -> bool:
    """Whether the page that asks, if one does, may open a WebSocket here.

    Browsers let any page connect anywhere, and leave it to the server to judge the
    Origin (RFC 6455, section 10.2). ``secure`` is whether the request came over TLS
    as far as this server knows: TLS may also end at a proxy in front of it.
    """
    if request.origin is None or allowed is OriginPolicy.ANY_ORIGIN:
        return True
    asking = _split_origin(request.origin) if request.origin.isascii() else None
    if asking is None:  # two of them, for one
        return False
    if isinstance(allowed, OriginPolicy):
        return _is_same(asking, request.authority, secure=secure)
    return any(
        origin.fullmatch(request.origin) is not None
        if isinstance(origin, re.Pattern)
        else asking == _split_origin(origin)
        for origin in allowed
    )


_Origin: TypeAlias = "tuple[str, str, int | None]"  # scheme, host, port
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s,]*)", re.IGNORECASE)


def _split_origin(text: str) -> _Origin | None:
    if text.lower() == "null":  # a sandboxed page or a local file (RFC 6454, section 7.3)
        return ("null", "", None)
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, location = found[1].lower(), found[2].lower()
    if scheme not in ("http", "https"):  # an extension or an app: its host may be anything
        return scheme, location, None
    try:
        host, port = split_host_port(location)
    except ValueError:
        return None
    return scheme, host, DEFAULT_PORTS[scheme] if port is None else port


def _is_same(asking: _Origin, here: tuple[str, int | None] | None, *, secure: bool) -> bool:
    scheme, host, port = asking
    if here is None or scheme not in ("http", "https"):
        return False
    # A page that came in the clear may have been changed on its way.
    if secure and scheme == "http":
        return False
    # Behind a proxy that ends TLS, only the page knows which port is the default one.
    return here == (host, port) or (here == (host, None) and port == DEFAULT_PORTS[scheme])
