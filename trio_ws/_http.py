"""HTTP/1.1 as a server speaks it, until the upgrade to a WebSocket.

::

    bytes ─receive_data→ HeadBuffer ─one whole head→ h11 ─→ RequestHead ─→ the application
                              │                                                  │
                              └─ behind the head: a body, of bounded size;       │
                                 the next request; or frames (leftover)          │
    bytes ←──────────────────────── respond(Response), or accept(RequestHead) ←──┘

One h11 connection serves one exchange, and is fed the bytes of that exchange only.
What is wrong with a request is a `BadRequest`, which carries the answer; no bytes
whatever lead to another exception.
"""

from __future__ import annotations

import sys
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast

import attrs
import h11

from ._http_headers import (
    HANDSHAKE_HEADERS,
    TOKEN,
    HeadBuffer,
    Headers,
    HeadTooLarge,
    accept_token,
    check_headers,
)
from ._http_request import RequestHead, parse_request
from ._http_response import BadRequest, Response

MAX_REQUEST_BODY: Final = 16 * 1024
"""Bytes of a request's body on the wire. Pages of `Routes` have no use for one; it is enough
for a form, and 16 KiB in chunks of a byte each cost 20 ms to parse."""


class ServerHTTP:
    """The server's end of an HTTP/1.1 connection, until it is upgraded."""

    closing: bool
    """Whether the connection takes no further request: the last answer says so, or a
    request was refused that leaves open where the next one begins."""

    def __init__(self, max_header_size: float) -> None:
        self.closing = False
        self._buffer = HeadBuffer(max_header_size)
        self._eof = False
        self._exchange = _Exchange()

    @property
    def closed(self) -> bool:
        """Whether the client has ended its side, and nothing that it sent is left."""
        return self._eof and not self._buffer.data and self._exchange.request is None

    @property
    def leftover(self) -> bytes:
        """What has come behind the request: frames, once it is accepted."""
        return bytes(self._buffer.data)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the client; the caller bounds them between two requests."""
        self._buffer.data += data

    def receive_eof(self) -> None:
        """Take the end of what the client sends."""
        self._eof = True

    def next_request(self) -> RequestHead | None:
        """Return the next request, with its body read (`request_body`).

        `None` means that more bytes are needed, that the last request is not yet
        answered, or that there will be none (`closed`, `closing`).

        Raises:
          BadRequest: what came is no request that can be served. It is answered
              with ``respond(error.response)``.
        """
        exchange = self._exchange
        if self.closing or exchange.in_hand:
            return None
        try:
            if exchange.request is None:
                self._read_head(exchange)
            if exchange.request is not None:
                exchange.in_hand = self._skip_body(exchange)
            if not exchange.in_hand and self._eof and not self.closed:
                raise BadRequest(400, "the connection ended in the middle of a request")
        except BadRequest:
            self.closing = True
            raise
        return exchange.request if exchange.in_hand else None

    def respond(self, response: Response, *, close: bool = False) -> bytes:
        """Answer the request, and tell the client if that was the last one."""
        answer = self.begin(response, len(response.body), close=close)
        return answer + self.body(response.body) + self.end()

    def begin(self, response: Response, length: int | None, *, close: bool = False) -> bytes:
        """Begin an answer whose body, of ``length`` bytes, follows in pieces.

        Without a length it goes in chunks, or, to HTTP/1.0, until the connection ends.
        """
        exchange = self._exchange
        headers = [_encode(*pair) for pair in response.headers]
        if not response.has("date"):  # RFC 9110, section 6.6.1
            headers.append((b"Date", formatdate(usegmt=True).encode("ascii")))
        if length is not None and response.status not in _WITHOUT_LENGTH:
            headers.append((b"Content-Length", b"%d" % length))
        if response.has("upgrade"):  # RFC 9110, section 7.8
            headers.append((b"Connection", b"upgrade"))
        if close or self.closing or not exchange.read or (self._eof and not self._buffer.data):
            headers.append((b"Connection", b"close"))
        return exchange.http.send(
            h11.Response(
                status_code=response.status,
                headers=headers,
                reason=_PHRASES.get(response.status, b""),
            )
        )

    @property
    def request_body(self) -> bytes:
        """The body of the request that is in hand."""
        return self._exchange.body

    @property
    def wants_body(self) -> bool:
        """Whether the client gets the body: with HEAD it does not."""
        return not self._exchange.head_only

    def body(self, piece: bytes) -> bytes:
        """Make a piece of the body, of which nothing is left if the client does not get it."""
        return self._exchange.http.send(h11.Data(data=piece)) if piece and self.wants_body else b""

    def end(self) -> bytes:
        """End the answer, whose length has to be the one that was announced."""
        http = self._exchange.http
        answer = http.send(h11.EndOfMessage())
        # h11 knows about HTTP/1.0 and "Connection: close" on either side.
        self.closing = not (http.our_state is h11.DONE and http.their_state is h11.DONE)
        if not self.closing:
            self._exchange = _Exchange()
        return answer

    def accept(
        self,
        request: RequestHead,
        *,
        subprotocol: str | None,
        headers: Headers = (),
        extensions: str | None = None,
    ) -> bytes:
        """Answer a request that `check_upgrade` has passed: from here on, frames.

        Raises:
          TypeError: a header or the subprotocol is of the wrong type.
          ValueError: the client did not offer the subprotocol, or a header is illegal
              or one that belongs to the handshake. Nothing has changed then.
        """
        pairs = check_headers(headers, HANDSHAKE_HEADERS)
        fields = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            _encode("Sec-WebSocket-Accept", accept_token(request.headers["Sec-WebSocket-Key"])),
        ]
        if subprotocol is not None:
            _check_offered(subprotocol, request.subprotocols)
            fields.append(_encode("Sec-WebSocket-Protocol", subprotocol))
        if extensions is not None:
            fields.append(_encode("Sec-WebSocket-Extensions", extensions))
        fields += [_encode(*pair) for pair in pairs]
        self.closing = True
        self._exchange = _NO_EXCHANGE  # or h11's state would stay for as long as the WebSocket
        lines = [b"%b: %b\r\n" % field for field in fields]  # checked, all of them
        return b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % b"".join(lines)

    def _read_head(self, exchange: _Exchange) -> None:
        buffer = self._buffer
        if buffer.data.startswith((b"\r", b"\n")):  # RFC 9112, section 2.2
            buffer.data = buffer.data.lstrip(b"\r\n")
        if buffer.data and not TOKEN.match(chr(buffer.data[0])):
            # TLS on the plain port, for one, which may never send a line end.
            raise BadRequest(400, _MALFORMED)
        try:
            head = buffer.cut_head()
        except HeadTooLarge as error:
            if error.first_line:
                raise BadRequest(414, "the request line is too long") from None
            raise BadRequest(431, "the headers are too long") from None
        if head is None:
            return
        exchange.http.receive_data(head)
        event = cast("h11.Request", exchange.next_event())  # nothing else is a whole head
        exchange.head_only = event.method == b"HEAD"
        request = parse_request(event.method, event.target, event.http_version, event.headers)
        if "transfer-encoding" in request.headers and "content-length" in request.headers:
            # A proxy in front may go by the other one, and see other requests than we do
            # (RFC 9112, section 6.1).
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if int(request.headers.get("content-length", "0")) > MAX_REQUEST_BODY:
            raise BadRequest(413, _BODY_TOO_LONG)
        exchange.request = request

    def _skip_body(self, exchange: _Exchange) -> bool:
        """Return whether the request can be answered: all has come, or is waited for."""
        while True:
            event = exchange.next_event()
            if isinstance(event, h11.Data):
                exchange.body += event.data
            if isinstance(event, h11.EndOfMessage):
                exchange.read = True
                self._buffer.put_back(exchange.http.trailing_data[0])
                return True
            if event is not h11.NEED_DATA:
                continue
            if exchange.http.they_are_waiting_for_100_continue:
                # Our answer can do without the body, which then must not follow.
                return True
            if not self._buffer.data:
                return False
            if exchange.body_fed == MAX_REQUEST_BODY:
                raise BadRequest(413, _BODY_TOO_LONG)
            piece = self._buffer.take(MAX_REQUEST_BODY - exchange.body_fed)
            exchange.body_fed += len(piece)
            exchange.http.receive_data(piece)


@attrs.define(eq=False)
class _Exchange:
    """One request and its answer."""

    http: h11.Connection = attrs.field(
        init=False,
        # Heads are bounded by HeadBuffer, bodies by ServerHTTP.
        factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=sys.maxsize),
    )
    request: RequestHead | None = None
    head_only: bool = False
    body: bytes = b""
    body_fed: int = 0
    read: bool = False
    """Whether the request was read to its end."""
    in_hand: bool = False
    """Whether the application has the request."""

    def next_event(self) -> object:
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as error:
            # The words up to the colon are h11's own; behind it may be the peer's.
            words, _, _ = str(error).partition(": byte")
            reason = _MALFORMED if words == "illegal request line" else words
            raise BadRequest(error.error_status_hint, reason) from None


_NO_EXCHANGE: Final = _Exchange()
"""What is left of an exchange when the connection has become a WebSocket."""

_MALFORMED: Final = "the request line is malformed"
_BODY_TOO_LONG: Final = "the body of the request is too long"
_WITHOUT_LENGTH: Final = frozenset({204, 304})  # RFC 9110, section 8.6
_PHRASES: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def _encode(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode("ascii"), value.encode("latin-1")


def _check_offered(subprotocol: str, offered: tuple[str, ...]) -> None:
    if not isinstance(subprotocol, str):
        raise TypeError(f"a subprotocol is a str or None, not {type(subprotocol).__name__}")
    if subprotocol not in offered:
        names = ", ".join(map(repr, offered)) or "none"
        raise ValueError(
            f"the client did not offer the subprotocol {subprotocol!r}: it offered {names}"
        )
