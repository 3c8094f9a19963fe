"""A client's connection as bytes again, made of the events of an ASGI server.

Our server speaks bytes. Here they are made of events, and events of what it answers, so that
a handler meets the very same `WebSocketRequest`, `WebSocket` and rules as everywhere:

::

    ASGI server ─ receive() ─→ HTTP request, frames ─→ receive_some() ─→ our server
                ←─ send() ─── head, messages, Close ←─ send_all() ─────── and handler

No task is needed for that: our reading task waits in the server's ``receive()``, our writing
task in its ``send()``. So each side's backpressure is the other's.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import trio

from .._messages import CloseCode, CloseReceived, Data, MessagePart, PreparedMessage
from .._options import Options
from .._protocol import Protocol
from .._streams import RelayedStream
from ._types import Event, Receive, Scope, Send

MAX_BODY: Final = 16 * 1024 + 1
"""Bytes of a page request's body that are relayed: our server refuses the last one."""

_UNLIMITED: Final = Options(max_message_size=None, max_fragments=None, compression=None)
"""What our own side sends has been judged already."""

_KEY: Final = "dHJpb193cyBieSBBU0dJLg=="
"""16 bytes in base64, for a handshake that nobody sees."""

_HANDSHAKE: Final = re.compile(
    rb"connection|upgrade|expect|content-length|transfer-encoding|keep-alive|"
    rb"sec-websocket-(key|version|extensions|protocol)",
    re.IGNORECASE,
)
"""Request headers that concern the connection to the other server (RFC 9110, section 7.6.1)."""

_OURS: Final = frozenset({"connection", "date", "sec-websocket-accept", "sec-websocket-protocol"})
"""Response headers that the other server writes itself."""


class Relay(RelayedStream):
    """One connection of an ASGI server, as a stream."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.remote_address = _address(scope.get("client"))
        self.local_address = _address(scope.get("server"))
        self.secure = scope.get("scheme") in ("https", "wss")
        self._scope = scope
        self._receive = receive
        self._asgi_send = send
        self._unread = memoryview(b"")
        self._head: bytearray | None = bytearray()  # of our answer, until it is complete

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return bytes that the client would have sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._unread:
            self._unread = memoryview(await self._next_bytes())
        given = bytes(self._unread[:max_bytes])
        self._unread = self._unread[len(given) :]
        await trio.lowlevel.cancel_shielded_checkpoint()
        return given

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Tell the client what our server says."""
        await trio.lowlevel.checkpoint()
        if self._head is None:
            await self._relay(bytes(data))
            return
        self._head += data
        head, end, rest = bytes(self._head).partition(b"\r\n\r\n")
        if end:
            self._head = None
            status, headers = _parse_head(head)
            await self._answer(status, headers)
            await self._relay(rest)

    async def wait_send_all_might_not_block(self) -> None:
        """Nobody knows that."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """End the connection: the ASGI server does, once the application returns."""
        await trio.lowlevel.checkpoint()

    async def _send(self, **event: Any) -> None:
        try:
            await self._asgi_send(event)
        except OSError as exc:  # "the connection has been closed", as of version 2.4
            raise trio.BrokenResourceError("the client has gone, says the ASGI server") from exc

    @abstractmethod
    async def finish(self) -> None:
        """Say that there is nothing more to come."""

    @abstractmethod
    async def _next_bytes(self) -> bytes:
        """Wait for the server's next event; no bytes are the end."""

    @abstractmethod
    async def _answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Tell the client our answer."""

    @abstractmethod
    async def _relay(self, data: bytes) -> None:
        """Tell the client what comes behind the answer."""


class PageRelay(Relay):
    """A request for a page, and its answer."""

    _asked = False
    _answered = False

    async def _next_bytes(self) -> bytes:
        if self._asked:  # HTTP/1.0: one request is all
            await trio.lowlevel.checkpoint()
            return b""
        body = bytearray()
        more = True
        while more and len(body) < MAX_BODY:
            event = await self._receive()
            if event["type"] != "http.request":
                return b""
            body += event.get("body", b"")
            more = event.get("more_body", False)
        self._asked = True
        method = self._scope["method"]
        # So that the body of our answer is neither in chunks nor followed by another one.
        return (
            request_head(self._scope, method, "1.0", [("Content-Length", f"{len(body)}")]) + body
        )

    async def _answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._answered = True
        await self._send(
            type="http.response.start", status=status, headers=_encode(headers, self._scope)
        )

    async def _relay(self, data: bytes) -> None:
        if data:
            await self._send(type="http.response.body", body=data, more_body=True)

    async def finish(self) -> None:
        """End the answer."""
        await trio.lowlevel.checkpoint()
        if self._answered:
            await self._send(type="http.response.body", body=b"", more_body=False)


class WebSocketRelay(Relay):
    """A request for a WebSocket, and its messages if it becomes one."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        # The client's end of what we say: frames to messages, and back.
        self._client = Protocol(client=True, options=_UNLIMITED, deflate=None)
        self._pieces: list[Any] = []
        self._connected = False
        self._accepted = False
        self._refused = False
        self._denial_body = "websocket.http.response" in (scope.get("extensions") or {})
        self._our_close: CloseReceived | None = None
        self._over = False  # the client is known to have gone

    # From the client...

    async def _next_bytes(self) -> bytes:
        if self._over or self._refused:
            await trio.lowlevel.checkpoint()
            return b""
        event = await self._receive()
        kind = event["type"]
        if kind == "websocket.disconnect":
            self._over = True
            return self._goodbye(event)
        if not self._connected:
            self._connected = True
            return self._request()
        text = event.get("text")
        message = PreparedMessage(event["bytes"] if text is None else text)
        return b"".join(self._client.encode(message))

    def _request(self) -> bytes:
        fields = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", _KEY),
        ]
        if subprotocols := self._scope.get("subprotocols"):
            fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
        return request_head(self._scope, "GET", "1.1", fields)

    def _goodbye(self, event: Event) -> bytes:
        """Return the client's Close, if that is how it ended as far as the server tells."""
        if self._our_close is not None:
            # Whatever it is called: it came because of ours.
            return self._client.close(self._our_close.code, "")
        code = event.get("code", CloseCode.NO_STATUS)
        if code == CloseCode.ABNORMAL:
            raise trio.BrokenResourceError("the ASGI server knows no close code")
        return self._client.close(code, event.get("reason") or "")

    # To the client...

    async def _answer(self, status: int, headers: list[tuple[str, str]]) -> None:
        if status == 101:
            self._accepted = True
            chosen = [value for name, value in headers if name == "sec-websocket-protocol"]
            await self._send(
                type="websocket.accept",
                subprotocol=chosen[0] if chosen else None,
                headers=_encode(headers, self._scope, without={"upgrade"}),
            )
            return
        self._refused = True
        if self._denial_body:
            encoded = _encode(headers, self._scope)
            await self._send(type="websocket.http.response.start", status=status, headers=encoded)
        else:  # to which it will say 403
            await self._send(type="websocket.close", code=int(CloseCode.POLICY_VIOLATION))

    async def _relay(self, data: bytes) -> None:
        if self._refused:
            if self._denial_body and data:
                await self._send(type="websocket.http.response.body", body=data, more_body=True)
            return
        self._client.receive_data(data)
        while (event := self._client.next_event()) is not None:
            if isinstance(event, MessagePart):
                await self._relay_part(event)
            else:
                assert isinstance(event, CloseReceived)  # nobody pings
                await self._relay_close(event)

    async def _relay_part(self, part: MessagePart) -> None:
        self._pieces.append(part.data)
        if part.final:
            message: Data = type(part.data)().join(self._pieces)
            self._pieces.clear()
            if self._over:
                raise trio.BrokenResourceError("the client has gone")
            kind = "text" if isinstance(message, str) else "bytes"
            await self._send(type="websocket.send", **{kind: message})

    async def _relay_close(self, event: CloseReceived) -> None:
        self._our_close = event
        if not self._over:
            await self._send(type="websocket.close", code=event.code, reason=event.reason)

    async def finish(self) -> None:
        """End the refusal, if it was one; a WebSocket has had its Close."""
        await trio.lowlevel.checkpoint()
        if self._refused and self._denial_body:
            await self._send(type="websocket.http.response.body", body=b"", more_body=False)


# HTTP/1 for our own side...


def request_head(
    scope: Scope, method: str, version: str, fields: Iterable[tuple[str, str]]
) -> bytes:
    """Write the head of a request as a client would."""
    given = [pair for pair in scope["headers"] if not _HANDSHAKE.fullmatch(pair[0])]
    if not any(name.lower() == b"host" for name, _ in given):
        given.append((b"host", _host(scope.get("server"))))
    target = quote(_path(scope), safe="/:@!$&'()*+,;=-._~").encode()
    if query := scope.get("query_string"):
        target += b"?" + query
    lines = [method.encode() + b" " + target + b" HTTP/" + version.encode()]
    lines += [f"{name}: {value}".encode() for name, value in fields]
    # A server that lets line ends through must not make headers for us.
    lines += [_LINE_ENDS.sub(b" ", name + b": " + value) for name, value in given]
    return b"\r\n".join(lines) + b"\r\n\r\n"


_LINE_ENDS: Final = re.compile(rb"[\r\n\0]")


def _path(scope: Scope) -> str:
    """Return the path below the place where this application is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path or "/"


def _host(server: Any) -> bytes:
    if not server:
        return b"localhost"
    host, port = server
    host = f"[{host}]" if ":" in host else host
    return (host if port is None else f"{host}:{port}").encode()


def _parse_head(head: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Read the head of an answer: one of ours, so it is well-formed."""
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(first.split(" ")[1]), [(name.lower(), value) for name, _, value in pairs]


def _encode(
    headers: list[tuple[str, str]], scope: Scope, without: Iterable[str] = ()
) -> list[tuple[bytes, bytes]]:
    # Not in HTTP/2 (RFC 9113, section 8.2.2), where nothing is upgraded.
    unwanted = {*_OURS, *without} | ({"upgrade"} if scope["http_version"] >= "2" else set())
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers
        if name not in unwanted
    ]


def _address(given: Any) -> tuple[Any, ...] | None:
    return None if given is None else tuple(given)
