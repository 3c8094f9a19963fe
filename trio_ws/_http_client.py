"""HTTP/1.1 as a client speaks it: one request, and what becomes of it.

::

    request() ─→ 1xx ... 1xx ─┬→ what was asked for: 101 from a server, 2xx from a proxy
                              ├→ any other status, then its body: ConnectionRejected
                              └→ anything else: HandshakeError

`ClientHandshake` asks a server for a WebSocket, `ConnectHandshake` a proxy for a way to it.
As in `_http`, heads are cut out by `HeadBuffer`, and h11 gets them whole.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final, Generic, NoReturn, TypeVar, cast

import attrs
import h11
from multidict import CIMultiDict, CIMultiDictProxy

from ._deflate import DeflateParameters, offer, read_response
from ._errors import ConnectionRejected, HandshakeError, ProxyRejected
from ._http_headers import (
    HANDSHAKE_HEADERS,
    PROTOCOL,
    TOKEN,
    HeadBuffer,
    Headers,
    HeadTooLarge,
    accept_token,
    check_headers,
    parse_list,
)
from ._options import Deflate
from ._proxy import Proxy
from ._url import WebSocketURL, split_host_port

MAX_REJECTION_BODY: Final = 64 * 1024
"""Bytes of a rejection's body that are kept: enough for any message to people."""

_MAX_BODY_ON_THE_WIRE: Final = 2 * MAX_REJECTION_BODY  # chunks may be tiny

MAX_INTERIM_RESPONSES: Final = 16
"""Answers before the answer (100, 102, 103): servers that use them send one or two."""


@attrs.frozen(eq=False)
class Accepted:
    """The server has switched to WebSocket."""

    headers: CIMultiDictProxy[str] = attrs.field(repr=False)
    subprotocol: str | None
    """The one that the server chose of those that were offered."""
    deflate: DeflateParameters | None
    leftover: bytes = attrs.field(repr=False)
    """Frames that came in the same read as the answer."""


T = TypeVar("T")


class Exchange(ABC, Generic[T]):
    """One request, and the peer's answer to it: `T`, if that is what was asked for.

    ``peer`` is what error messages call who answers.
    """

    _why_none = ""
    """What to look at if the peer goes without an answer."""

    def __init__(
        self,
        peer: str,
        method: str,
        target: str,
        fields: Iterable[tuple[str, str]],
        max_header_size: float,
    ) -> None:
        self.peer = peer
        self._buffer = HeadBuffer(max_header_size)
        self._interim = 0
        self._rejected: h11.Response | None = None
        self._body = bytearray()
        self._body_fed = 0

        # Heads are bounded by HeadBuffer, a body by _body_is_complete.
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=sys.maxsize)
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
        self._request = self._http.send(
            h11.Request(method=method, target=target, headers=headers)
        ) + self._http.send(h11.EndOfMessage())

    @property
    def rejection(self) -> ConnectionRejected | None:
        """The peer's refusal, with what has come of its body, once its status is known."""
        if self._rejected is None:
            return None
        headers, body = _decode(self._rejected.headers), bytes(self._body[:MAX_REJECTION_BODY])
        return self._reject(self._rejected.status_code, headers, body)

    def receive_data(self, data: bytes) -> T | None:
        """Take bytes from the peer; `None` if the answer is not yet complete.

        Raises:
          ConnectionRejected: the peer refused, and has said all of it.
          HandshakeError: this is no valid answer.
        """
        self._buffer.data += data
        while self._rejected is None:
            head = self._cut_head()
            if head is None:
                return None
            if (accepted := self._read_head(head)) is not None:
                return accepted
        if self._body_is_complete():
            self.receive_eof()
        return None

    def receive_eof(self) -> NoReturn:
        """Take the end of what the peer sends.

        Raises:
          ConnectionRejected: the peer refused, and this is the end of what it says.
          HandshakeError: there is no answer, or only a part of one.
        """
        if rejection := self.rejection:
            raise rejection
        without = f"without an answer{self._why_none}"
        where = "in the middle of its answer" if self._buffer.data else without
        raise HandshakeError(f"{self.peer} closed the connection {where}") from EOFError()

    def request(self) -> bytes:
        """Return what to send to the peer."""
        return self._request

    @abstractmethod
    def _judge(self, answer: h11.Response | h11.InformationalResponse) -> T | None:
        """Return what was asked for, if this is it."""

    @abstractmethod
    def _reject(
        self, status: int, headers: CIMultiDictProxy[str], body: bytes
    ) -> ConnectionRejected:
        """Say that it is not, and never will be."""

    def _cut_head(self) -> bytes | None:
        start = self._buffer.data[:5]
        if not b"HTTP/".startswith(start):
            if _TLS_RECORD.match(start):
                raise HandshakeError(f"{self.peer} speaks TLS here, and not plain HTTP")
            raise HandshakeError(f"{self.peer} does not speak HTTP: is it the right port?")
        try:
            return self._buffer.cut_head()
        except HeadTooLarge:
            raise HandshakeError(
                f"the head of the answer is longer than max_header_size: {self.peer}"
            ) from None

    def _read_head(self, head: bytes) -> T | None:
        self._http.receive_data(head)
        try:
            # Nothing else is a whole head.
            answer = cast("h11.Response | h11.InformationalResponse", self._http.next_event())
        except h11.RemoteProtocolError as error:
            raise HandshakeError(f"malformed answer of {self.peer}: {str(error)[:150]}") from error
        if (accepted := self._judge(answer)) is not None:
            return accepted
        if isinstance(answer, h11.Response):
            self._rejected = answer
        else:
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                raise HandshakeError(f"{self.peer} sends 1xx answers without end")
        return None

    def _body_is_complete(self) -> bool:
        assert self._rejected is not None
        if 300 <= self._rejected.status_code < 400:  # nobody reads what a redirect says
            return True
        while len(self._body) < MAX_REJECTION_BODY:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:  # its chunks make no sense, but the status does
                return True
            if isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return True
            elif self._buffer.data and self._body_fed < _MAX_BODY_ON_THE_WIRE:
                piece = self._buffer.take(_MAX_BODY_ON_THE_WIRE - self._body_fed)
                self._body_fed += len(piece)
                self._http.receive_data(piece)
            else:
                return self._body_fed == _MAX_BODY_ON_THE_WIRE
        return True


class ClientHandshake(Exchange[Accepted]):
    """One request for a WebSocket, and the server's answer.

    Raises:
      TypeError: an argument is of the wrong type.
      ValueError: a subprotocol or header is illegal, given twice, or belongs to the
          handshake.
    """

    def __init__(
        self,
        url: WebSocketURL,
        *,
        subprotocols: Iterable[str] = (),
        headers: Headers = (),
        origin: str | None = None,
        compression: Deflate | None,
        max_header_size: float,
    ) -> None:
        self._subprotocols = check_subprotocols(subprotocols)
        self._compression = compression
        # RFC 6455, section 4.1: 16 random bytes, fresh for each connection.
        self._key = base64.b64encode(os.urandom(16)).decode("ascii")
        fields = self._fields(url, check_request_headers(headers), origin)
        super().__init__("the server", "GET", url.target, fields, max_header_size)
        if not url.secure and url.unix_path is None:
            self._why_none = " (if it speaks TLS, its URL begins with wss://)"

    def _fields(
        self, url: WebSocketURL, given: tuple[tuple[str, str], ...], origin: str | None
    ) -> Iterable[tuple[str, str]]:
        names = {name.lower() for name, _ in given}
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", "13"),
        ]
        if "host" not in names:
            fields.insert(0, ("Host", url.host_header))
        if self._subprotocols:
            fields.append(("Sec-WebSocket-Protocol", ", ".join(self._subprotocols)))
        if self._compression is not None:
            fields.append(("Sec-WebSocket-Extensions", offer(self._compression)))
        if origin is not None:
            fields += check_headers([("Origin", origin)], frozenset())
        if url.authorization is not None and "authorization" not in names:
            fields.append(("Authorization", url.authorization))
        if "user-agent" not in names:
            fields.append(_USER_AGENT)
        return [*fields, *given]

    def _judge(self, answer: h11.Response | h11.InformationalResponse) -> Accepted | None:
        return self._check(answer) if answer.status_code == 101 else None

    def _reject(
        self, status: int, headers: CIMultiDictProxy[str], body: bytes
    ) -> ConnectionRejected:
        return ConnectionRejected(status, headers, body)

    def _check(self, answer: h11.Response | h11.InformationalResponse) -> Accepted:
        """Check what RFC 6455, section 4.1, asks of the server's answer."""
        if answer.http_version == b"1.0":
            raise HandshakeError("the server switches protocols in HTTP/1.0, which cannot do that")
        headers = _decode(answer.headers)
        if _list(headers, "Upgrade") != ["websocket"]:
            raise HandshakeError("the server does not switch to websocket: see its header Upgrade")
        if "upgrade" not in _list(headers, "Connection"):
            raise HandshakeError("the server's header Connection does not list Upgrade")
        if headers.getall("Sec-WebSocket-Accept", ()) != [accept_token(self._key)]:
            raise HandshakeError(
                "the server's header Sec-WebSocket-Accept does not answer this request"
            )
        chosen = headers.getall("Sec-WebSocket-Protocol", ())
        if len(chosen) > 1:
            raise HandshakeError("the server chose more than one subprotocol")
        if chosen and chosen[0] not in self._subprotocols:
            raise HandshakeError(
                f"the server chose a subprotocol that was not offered: {chosen[0][:100]!r}"
            )
        try:
            deflate = read_response(
                self._compression, headers.getall("Sec-WebSocket-Extensions", ())
            )
        except ValueError as error:
            raise HandshakeError(str(error)) from error
        return Accepted(
            headers=headers,
            subprotocol=chosen[0] if chosen else None,
            deflate=deflate,
            leftover=bytes(self._buffer.data),
        )


class ConnectHandshake(Exchange[bool]):
    """One request for a tunnel to a server, and the proxy's answer: `True` is an open one.

    Everything behind the answer is the server's (RFC 9110, section 9.3.6), which does not
    speak before it is asked: neither in TLS nor in HTTP.
    """

    def __init__(self, proxy: Proxy, url: WebSocketURL, *, max_header_size: float) -> None:
        self._proxy = proxy
        fields = [("Host", url.authority), _USER_AGENT]
        if proxy.authorization is not None:
            fields.append(("Proxy-Authorization", proxy.authorization))
        super().__init__(f"the proxy {proxy}", "CONNECT", url.authority, fields, max_header_size)

    def _judge(self, answer: h11.Response | h11.InformationalResponse) -> bool | None:
        if not 200 <= answer.status_code < 300:
            return None
        if self._buffer.data:
            raise HandshakeError(f"{self.peer} opens the way, and then speaks itself")
        return True

    def _reject(
        self, status: int, headers: CIMultiDictProxy[str], body: bytes
    ) -> ConnectionRejected:
        return ProxyRejected(str(self._proxy), status, headers, body)


_USER_AGENT: Final = ("User-Agent", "trio_ws")  # RFC 9110, section 10.1.5

# RFC 8446, section 5.1: an alert or a handshake message, then the version.
_TLS_RECORD: Final = re.compile(rb"[\x15\x16](?:\x03|$)")

# Headers that are written here, and have a parameter if there is anything to choose.
_OWNED: Final = HANDSHAKE_HEADERS | {"expect", "origin"}


def check_subprotocols(subprotocols: Iterable[str]) -> tuple[str, ...]:
    """Return the names of subprotocols, once they are fit to be offered.

    Raises:
      TypeError: they are no `str` in a list.
      ValueError: one is illegal, or given twice.
    """
    if isinstance(subprotocols, (str, bytes)):
        raise TypeError(f"subprotocols is a list of str: write [{subprotocols!r}]")
    names = tuple(subprotocols)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a subprotocol is a str, not {type(name).__name__}")
        if not TOKEN.fullmatch(name):
            raise ValueError(
                f"{name!r} is no subprotocol: letters, digits and !#$%&'*+-.^_`|~ make one"
            )
    if len(set(names)) < len(names):  # RFC 6455, section 4.1
        raise ValueError("a subprotocol is offered twice")
    return names


def check_request_headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return an application's headers as pairs, once they are fit for a handshake.

    Raises:
      TypeError, ValueError: as `check_headers`, or one is given twice.
    """
    fields = check_headers(headers, _OWNED)
    names = [name.lower() for name, _ in fields]
    for once in ("Authorization", "Host"):
        if names.count(once.lower()) > 1:
            raise ValueError(f"the header {once} is given twice")
    if "host" in names:
        split_host_port(fields[names.index("host")][1])  # a ValueError if it is none
    return fields


def _decode(headers: Iterable[tuple[bytes, bytes]]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(
        CIMultiDict((name.decode("ascii"), value.decode("latin-1")) for name, value in headers)
    )


def _list(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    try:
        return [item.lower() for item in parse_list(headers.getall(name, ()), PROTOCOL)]
    except ValueError:
        raise HandshakeError(f"the server's header {name} is malformed") from None
