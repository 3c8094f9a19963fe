"""One TCP connection of a server: TLS, requests, and the handler of the last one."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias, runtime_checkable

import attrs
import trio

from ._connection import new_id
from ._errors import ConnectionClosed
from ._flag import Flag
from ._http_connection import HTTPConnection
from ._http_request import RequestHead
from ._http_response import BadRequest, Response
from ._messages import CloseCode
from ._options import Options
from ._request import Request, WebSocketRequest
from ._streams import LINGER_TIME, READ_SIZE, linger, stream_address
from ._upgrade import check_upgrade, origin_allowed
from ._websocket import WebSocket

logger: Final = logging.getLogger("trio_ws")

Handler: TypeAlias = Callable[[WebSocketRequest], Awaitable[object]]
"""What a server calls, in a task of its own, for each request to open a WebSocket."""

RETRY_AFTER: Final = 5
"""Seconds after which a client that met an overloaded or draining server may come back."""


@runtime_checkable
class PageHandler(Protocol):
    """A handler that answers requests for pages as well: `Routes` is one."""

    async def respond(self, request: Request) -> Response:
        """Answer a request that is not for a WebSocket."""
        ...


@attrs.define(eq=False)
class ServerState:
    """What the connections of a server share."""

    handler: Handler
    options: Options
    draining: Flag = attrs.field(factory=Flag)
    connections: set[ServerConnection] = attrs.field(factory=set)
    admitted: set[ServerConnection] = attrs.field(factory=set)
    """Those that have a place. Who was refused is still there for a moment (`linger`)."""
    opening: set[ServerConnection] = attrs.field(factory=set)
    """Those of them whose first request is yet to be answered."""
    hosts: Counter[str | None] = attrs.field(factory=Counter)
    """How many places each address has."""
    accepted: int = 0
    handler_errors: int = 0
    accept_failures: int = 0
    rejected: Counter[int] = attrs.field(factory=Counter)
    close_codes: Counter[int] = attrs.field(factory=Counter)
    _departure: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def admit(self, newcomer: ServerConnection) -> str | None:
        """Give a newcomer a place; return why there is none."""
        options = self.options
        if len(self.admitted) >= options.max_connections:
            return "too many connections"
        if len(self.opening) >= options.max_handshakes:
            return "too many handshakes at a time"
        most = options.max_connections_per_address
        if newcomer.host is not None and self.hosts[newcomer.host] >= most:
            return "too many connections from this address"
        self.admitted.add(newcomer)
        self.opening.add(newcomer)
        self.hosts[newcomer.host] += 1
        return None

    @property
    def crowded(self) -> bool:
        """Whether so many are being refused that one more is not worth an answer."""
        return len(self.connections) - len(self.admitted) > self.options.max_handshakes

    def leave(self, connection: ServerConnection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self.opening.discard(connection)
        if connection in self.admitted:
            self.admitted.discard(connection)
            self.hosts[connection.host] -= 1
            if not self.hosts[connection.host]:
                del self.hosts[connection.host]
        self._departure.unpark_all()

    async def wait_until(self, fulfilled: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at whenever a connection leaves."""
        while not fulfilled():
            await self._departure.park()


class ServerConnection:
    """A client's TCP connection, from accept to the end."""

    def __init__(self, stream: trio.abc.Stream, state: ServerState) -> None:
        self.id = new_id()
        self.busy = False
        """Whether a handler is at work."""
        self.websocket: WebSocket | None = None
        self.scope = trio.CancelScope()
        address = stream_address(stream, "getpeername")
        self.host: str | None = address[0] if isinstance(address, tuple) else None
        self._stream = stream
        self._state = state
        self._options = state.options
        self._http = HTTPConnection(stream, state.options.max_header_size)
        self._unanswered = False  # a request is in hand

    async def run(self) -> None:
        """Serve it to the end; the caller closes the stream."""
        self._state.connections.add(self)
        try:
            with self.scope:
                await self._serve()
            if self.scope.cancelled_caught and self._unanswered:
                await self._apologise()
            elif self.scope.cancelled_caught and self in self._state.opening:
                self._log(logging.INFO, "dropped before a request had come")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            early = self in self._state.opening  # TLS that failed, as a rule
            self._log(logging.INFO if early else logging.DEBUG, f"lost: {exc.__cause__ or exc}")
        finally:
            self._state.leave(self)

    def begin_close(self, code: int, reason: str) -> None:
        """Start to say Close, if it is a WebSocket by now."""
        if self.websocket is not None:
            self.websocket._connection.begin_close(code, reason)

    async def _serve(self) -> None:
        self._allow(self._options.handshake_timeout)
        overload = self._state.admit(self)
        if overload is not None and self._state.crowded:
            return
        if isinstance(self._stream, trio.SSLStream):
            await self._stream.do_handshake()
        if overload is not None:
            await self._refuse(BadRequest(503, overload, [("Retry-After", str(RETRY_AFTER))]))
            await linger(self._stream)
            return
        while not self._http.finished:
            self._allow(self._options.handshake_timeout)
            try:
                head = await self._http.next_request()
                if head is not None:
                    self._unanswered = True
                    await self._answer(head)
            except BadRequest as refusal:
                await self._refuse(refusal)
        if self.websocket is None:
            await linger(self._stream)

    async def _answer(self, head: RequestHead) -> None:
        handler = self._state.handler
        if isinstance(handler, PageHandler) and not head.upgrade:
            await self._serve_page(handler, Request(head, self._stream))
            return
        check_upgrade(head)
        secure = isinstance(self._stream, trio.SSLStream)
        if not origin_allowed(head, self._options.allowed_origins, secure):
            raise BadRequest(403, "this origin is not allowed")
        if self._state.draining:
            raise BadRequest(503, "draining", [("Retry-After", str(RETRY_AFTER))])
        await self._run_handler(head)

    async def _serve_page(self, handler: PageHandler, request: Request) -> None:
        self._allow(math.inf)
        self.busy = True
        try:
            response = await handler.respond(request)
        except Exception as exc:  # noqa: BLE001  # the application's, told as one wishes
            response = Response("internal error\n", status=500)
            await self._send(response)
            self._on_handler_error(exc)
        else:
            await self._send(response)
        finally:
            self.busy = False

    async def _run_handler(self, head: RequestHead) -> None:
        request = WebSocketRequest(
            head,
            self._http,
            self._options,
            name=self.id,
            draining=self._state.draining,
            on_accept=self._on_accept,
            on_reject=self._count_rejection,
        )
        self.busy = True
        status = 403
        error: Exception | None = None
        try:
            await self._state.handler(request)
        except Exception as exc:  # noqa: BLE001  # likewise
            error = _without_goodbyes(exc)
            status = 500
        finally:
            self.busy = False
            self._unanswered = not request.answered
            if self.websocket is not None and self.websocket.close_info is not None:
                self._state.close_codes[self.websocket.close_info.code] += 1
        if not request.answered:
            await self._refuse(
                BadRequest(status, "forbidden" if status == 403 else "internal error")
            )
        if error is not None:
            self._on_handler_error(error)

    def _on_accept(self, ws: WebSocket) -> None:
        self._allow(math.inf)
        self._state.opening.discard(self)
        self.websocket = ws
        self._state.accepted += 1
        if self._state.draining:
            self.begin_close(CloseCode.SERVICE_RESTART, "")

    def _on_handler_error(self, error: Exception) -> None:
        self._state.handler_errors += 1
        if self._options.on_handler_error == "raise":
            raise error
        logger.error("connection %s from %s: handler failed", self.id, self.host, exc_info=error)

    # Answers...

    async def _refuse(self, refusal: BadRequest) -> None:
        self._log(logging.INFO, f"refused: {refusal}")
        self._count_rejection(refusal.status)
        await self._send(refusal.response)

    async def _apologise(self) -> None:
        """The handler was cancelled before it had answered: its time was up, or ours is."""
        self.scope = trio.CancelScope(deadline=trio.current_time() + LINGER_TIME)
        with self.scope:
            await self._refuse(
                BadRequest(503, "no answer in time", [("Retry-After", str(RETRY_AFTER))])
            )

    async def _send(self, response: Response) -> None:
        """Send a response of any size: what bounds it is the lack of progress."""
        close = bool(self._state.draining)
        answer = memoryview(self._http.protocol.respond(response, close=close))
        self._unanswered = False
        self._state.opening.discard(self)
        while answer:
            self._allow(self._options.write_timeout)
            await self._http.send(bytes(answer[:READ_SIZE]))
            answer = answer[READ_SIZE:]

    def _count_rejection(self, status: int) -> None:
        self._state.opening.discard(self)
        self._state.rejected[status] += 1

    def _log(self, level: int, what: str) -> None:
        """Write a line; nothing in it is in the peer's words."""
        logger.log(level, "connection %s from %s: %s", self.id, self.host, what)

    def _allow(self, seconds: float) -> None:
        self.scope.deadline = trio.current_time() + seconds


def _without_goodbyes(error: Exception) -> Exception | None:
    """That the peer has gone is no error of a handler; return what else there is."""
    if isinstance(error, ExceptionGroup):
        return error.split(ConnectionClosed)[1]
    return None if isinstance(error, ConnectionClosed) else error
