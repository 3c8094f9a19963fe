"""Every exception that trio_ws raises on its own account.

::

    WebSocketError
    ├── HandshakeError
    │   ├── ConnectionRejected(status, headers, body)   the server said no
    │   │   └── ProxyRejected(proxy, ...)               the proxy did
    │   └── HandshakeTimeout                            also trio.TooSlowError
    ├── ConnectionClosed(info)
    │   ├── ConnectionEnded                             also trio.EndOfChannel
    │   └── ConnectionLost                              also trio.BrokenResourceError
    ├── ProtocolViolation(code)                         the cause of a ConnectionLost
    ├── JoinRefused(room, reason, code)                 a limit of Rooms, or your hook
    └── BrokerDown(reason, uncertain)               rooms that span processes, without Redis
        └── BrokerOverflow                          too much waits for it already

Wrong use by the caller is a `TypeError` or a `ValueError`; a second task in
``receive()`` a `trio.BusyResourceError`; use after one's own ``aclose()`` a
`trio.ClosedResourceError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import trio
from multidict import CIMultiDict, CIMultiDictProxy

from ._messages import CloseCode, CloseInfo, check_close


class WebSocketError(Exception):
    """The root of the tree: what goes wrong between this side and a peer."""


class HandshakeError(WebSocketError):
    """The connection could not be opened: not a WebSocket server, or no valid answer.

    Where the network failed, and not the server, its cause is a `trio.BrokenResourceError`,
    an `OSError` or an `EOFError`: `is_transient` goes by that.
    """


class ConnectionRejected(HandshakeError):
    """The server answered the handshake with something other than 101.

    ``status`` is the HTTP status, ``headers`` the response's headers (a
    case-insensitive multi-dict), ``body`` the first 64 KiB of its body.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.status = status
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict(headers))
        self.body = body
        super().__init__(status, self.headers, body)

    def __reduce__(self) -> tuple[Any, ...]:
        # A multi-dict's proxy cannot be pickled.
        return type(self), (self.status, CIMultiDict(self.headers), self.body)

    def __str__(self) -> str:
        hint = _WHAT_TO_DO.get(self.status, "")
        # A server that says something knows better; but a page is not meant as an answer to us.
        return self._answer_of("the server", hint if self.status == 200 or not self.body else "")

    def _answer_of(self, peer: str, hint: str) -> str:
        said = self.body[:200].decode("utf-8", "replace").strip()
        return (
            f"{peer} answered {self.status}"
            + (f": {said!r}" if said else "")
            + (f" ({hint})" if hint else "")
        )


_WHAT_TO_DO: Final = {
    200: "a page like any other: is the path that of a WebSocket?",
    401: "it wants to know who you are: wss://user:password@host, or a header Authorization",
    404: "there is nothing at this path",
}


class ProxyRejected(ConnectionRejected):
    """The proxy answered the request for a way to the server with something other than 2xx.

    ``proxy`` is its URL, without a password; the rest is the proxy's answer. From the server
    nothing was heard.
    """

    def __init__(
        self, proxy: str, status: int, headers: Mapping[str, str], body: bytes = b""
    ) -> None:
        super().__init__(status, headers, body)
        self.proxy = proxy
        self.args: tuple[Any, ...] = (proxy, status, self.headers, body)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.proxy, self.status, CIMultiDict(self.headers), self.body)

    def __str__(self) -> str:
        return self._answer_of(f"the proxy {self.proxy}", self._what_to_do())

    def _what_to_do(self) -> str:
        if self.status == 403:
            return "it does not let you through to this host and port: ask who runs it"
        if self.status not in {401, 407}:  # tinyproxy says 401 to a wrong password
            return ""
        schemes = [
            offer.split(maxsplit=1)[0]
            for offer in self.headers.getall("Proxy-Authenticate", ())
            if offer.strip()
        ]
        if schemes and not any(scheme.lower() == "basic" for scheme in schemes):
            return f"it wants {' or '.join(schemes)}; only Basic is spoken here"
        if "@" in self.proxy:
            return "it does not accept this user and password"
        return "it wants to know who you are: http://user:password@proxy:port"


class HandshakeTimeout(HandshakeError, trio.TooSlowError):
    """The handshake took longer than ``Options.handshake_timeout``."""


class ConnectionClosed(WebSocketError):
    """The connection is over; ``info`` tells who ended it, and how."""

    def __init__(self, info: CloseInfo) -> None:
        super().__init__(info)
        self.info = info

    @property
    def code(self) -> int:
        """The close code (RFC 6455, section 7.4)."""
        return self.info.code

    @property
    def reason(self) -> str:
        """The close reason; empty if none was given."""
        return self.info.reason

    def __str__(self) -> str:
        return str(self.info)


class ConnectionEnded(ConnectionClosed, trio.EndOfChannel):
    """The peer ended the connection politely: 1000, 1001, or no code."""


class ConnectionLost(ConnectionClosed, trio.BrokenResourceError):
    """The connection ended in any other way, or before this message could be sent."""


class ProtocolViolation(WebSocketError):
    """The peer broke RFC 6455 or a limit; ``code`` is the close code it was told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"


class JoinRefused(WebSocketError):
    """A connection may not enter ``room``: by a limit of `RoomLimits`, or your hook's word.

    Catch it and tell the peer what you like. If it leaves the handler instead, that is no
    error of the handler: the connection is closed with ``code`` and ``reason``, or, if it was
    not accepted yet, the request is answered with 503 for 1013, and else with 403.

    Raises:
      ValueError: ``code`` or ``reason`` may not be sent (`WebSocket.aclose`).
    """

    def __init__(self, room: str, reason: str, code: int = CloseCode.POLICY_VIOLATION) -> None:
        check_close(code, reason)
        super().__init__(room, reason, code)
        self.room = room
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return f"room {self.room!r}: {self.reason}"


class BrokerDown(WebSocketError):
    """What connects rooms across processes cannot be reached, or refuses to work.

    ``uncertain``: whether the message may have been published all the same. If not, it
    can be published again without doubling it.
    """

    def __init__(self, reason: str, *, uncertain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.uncertain = uncertain

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (type(self), self.reason, self.uncertain)


class BrokerOverflow(BrokerDown):
    """So many publications wait for the broker that this one was not taken."""


def _remake(kind: type[BrokerDown], reason: str, uncertain: bool) -> BrokerDown:
    return kind(reason, uncertain=uncertain)


def find_refusal(error: BaseException | None) -> JoinRefused | None:
    """Return the `JoinRefused` that an exception is, or a group is made of, but for goodbyes."""
    if isinstance(error, BaseExceptionGroup):
        refused, others = error.split(JoinRefused)
        if refused is None or (others and others.split(ConnectionClosed)[1]):
            return None
        return find_refusal(refused.exceptions[0])
    return error if isinstance(error, JoinRefused) else None
