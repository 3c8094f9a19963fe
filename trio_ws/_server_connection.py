"""One TCP connection of a server: TLS, requests, and the handler of the last one."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

import attrs
import trio

from ._budget import Budget
from ._connection import new_id
from ._errors import ConnectionClosed, JoinRefused, find_refusal
from ._files import NOT_FOUND, OpenFile, open_file
from ._flag import Flag
from ._forwarded import Client, find_client, is_trusted
from ._http_connection import HTTPConnection
from ._http_request import RequestHead
from ._http_response import BadRequest, Response
from ._messages import CloseCode
from ._options import Options
from ._pump import Pump
from ._request import Request, WebSocketRequest, is_secure
from ._server_statistics import ServerStatistics, Traffic
from ._streams import (
    LINGER_TIME,
    READ_SIZE,
    RelayedStream,
    addresses_of,
    linger,
    network_of,
)
from ._upgrade import check_upgrade, origin_allowed
from ._websocket import WebSocket

logger: Final = logging.getLogger("trio_ws")

T = TypeVar("T")

Handler: TypeAlias = Callable[[WebSocketRequest], Awaitable[object]]
"""What a server calls, in a task of its own, for each request to open a WebSocket."""

BeginPage: TypeAlias = Callable[[Response, "int | None"], Awaitable[None]]
"""Begins an answer: status and headers, and the length of the body if it is known."""
WritePage: TypeAlias = Callable[[bytes], Awaitable[None]]
WaitGone: TypeAlias = Callable[[], Awaitable[None]]
"""Returns once the client has gone; raises nothing. One task at a time."""

RETRY_AFTER: Final = 5
"""Seconds after which a client that met an overloaded or draining server may come back."""

REFUSALS: Final = 100
"""So many are refused at a time with an answer, however few handshakes there may be: each is
still listened to for a moment (`linger`)."""

_FAILED: Final = Response("internal error\n", status=500)
_COME_BACK: Final = (("Retry-After", str(RETRY_AFTER)),)


@runtime_checkable
class PageHandler(Protocol):
    """A handler that answers requests for pages as well: `Routes` is one."""

    async def respond(self, request: Request) -> Response | LivePage:
        """Answer a request that is not for a WebSocket."""
        ...


@runtime_checkable
class LivePage(Protocol):
    """An answer that is made while it is sent."""

    async def answer(self, begin: BeginPage, write: WritePage, wait_gone: WaitGone) -> None:
        """Call ``begin`` once, then ``write`` for each piece of the body."""
        ...


@attrs.define(eq=False)
class ServerState:
    """What the connections of a server share."""

    handler: Handler
    options: Options
    pages_handler: PageHandler | None = attrs.field(
        init=False,  # found out once, for to ask a protocol takes 4 µs
        default=attrs.Factory(lambda self: _as_page_handler(self.handler), takes_self=True),
    )
    pump: Pump | None = None
    """Who reads for connections that are sockets."""
    draining: Flag = attrs.field(factory=Flag)
    goodbye: tuple[int, str] = (CloseCode.SERVICE_RESTART, "")
    """What is said to those who are accepted nevertheless."""
    over: bool = False
    """Whether nobody is served any more: who was accepted this very moment is too late."""
    connections: set[ServerConnection] = attrs.field(factory=set)
    admitted: set[ServerConnection] = attrs.field(factory=set)
    """Those that have a place. Who was refused is still there for a moment (`linger`)."""
    opening: set[ServerConnection] = attrs.field(factory=set)
    """Those of them whose first request is yet to be answered."""
    networks: Counter[str | None] = attrs.field(factory=Counter)
    """How many places each address has, or network of IPv6 (`network_of`)."""
    accepted: int = 0
    handler_errors: int = 0
    accept_failures: int = 0
    rejected: Counter[int] = attrs.field(factory=Counter)
    pages: Counter[int] = attrs.field(factory=Counter)
    traffic: Traffic = attrs.field(factory=Traffic)
    """Of the WebSockets that have ended."""
    close_codes: Counter[int] = attrs.field(factory=Counter)
    budget: Budget | None = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: _make_budget(self.options), takes_self=True),
    )
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def admit(self, newcomer: ServerConnection) -> str | None:
        """Give a newcomer a place; return why there is none."""
        options = self.options
        if len(self.admitted) >= options.max_connections:
            return "too many connections"
        if len(self.opening) >= options.max_handshakes:
            return "too many handshakes at a time"
        most = options.max_connections_per_address
        if newcomer.network is not None and self.networks[newcomer.network] >= most:
            return "too many connections from this address"
        self.admitted.add(newcomer)
        self.opening.add(newcomer)
        self.networks[newcomer.network] += 1
        return None

    @property
    def crowded(self) -> bool:
        """Whether so many are being refused that one more is not worth an answer."""
        refused = len(self.connections) - len(self.admitted)
        return refused > max(self.options.max_handshakes, REFUSALS)

    def leave(self, connection: ServerConnection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self.opening.discard(connection)
        if connection in self.admitted:
            self.admitted.discard(connection)
            self._count_network(connection.network, -1)
        self.wake()

    def stop(self, code: int, reason: str) -> None:
        """Let nobody in any more, but to hear this goodbye; the first one counts."""
        if not self.draining:
            self.goodbye = code, reason
            self.draining.set()

    def move(self, connection: ServerConnection, host: str | None) -> bool:
        """Count a connection for another address: a proxy tells for whom it speaks now.

        Return whether that address may have one more.
        """
        network = None if host is None else network_of(host)
        if network != connection.network:
            most = self.options.max_connections_per_address
            if network is not None and self.networks[network] >= most:
                return False
            self._count_network(connection.network, -1)
            self._count_network(network, +1)
        connection.host, connection.network = host, network
        return True

    def _count_network(self, network: str | None, change: int) -> None:
        self.networks[network] += change
        if not self.networks[network]:
            del self.networks[network]

    def end(self, ws: WebSocket) -> None:
        """Count what has become of a WebSocket."""
        code = ws.close_info.code if ws.close_info else CloseCode.ABNORMAL
        self.close_codes[code] += 1
        _add_traffic(self.traffic, ws)

    def statistics(self) -> ServerStatistics:
        """Return what is open, and what has been."""
        traffic = attrs.evolve(self.traffic)
        live = [each.websocket for each in self.connections if each.websocket and each.busy]
        for ws in live:
            _add_traffic(traffic, ws)
        return ServerStatistics(
            connections=sum(ws.close_info is None for ws in live),
            opening=len(self.opening),
            accepted=self.accepted,
            rejected=dict(self.rejected),
            close_codes=dict(self.close_codes),
            handler_errors=self.handler_errors,
            accept_failures=self.accept_failures,
            memory=0 if self.budget is None else self.budget.used,
            pages=dict(self.pages),
            **attrs.asdict(traffic),
            unread_bytes=sum(ws._inbox.size for ws in live),
            queued_bytes=sum(ws._outbox.size for ws in live),
        )

    def wake(self) -> None:
        """Let `wait_until` look again."""
        if self._waiting:
            self._waiting.unpark_all()

    async def wait_until(self, fulfilled: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is looked at when a connection or handler ends."""
        while not fulfilled():
            await self._waiting.park()


def _add_traffic(traffic: Traffic, ws: WebSocket) -> None:
    connection = ws._connection
    traffic.messages_received += connection.inbox.received
    traffic.messages_sent += connection.messages_sent
    traffic.bytes_received += connection.bytes_received
    traffic.bytes_sent += connection.bytes_sent


class ServerConnection:
    """A client's TCP connection, from accept to the end."""

    def __init__(self, stream: trio.abc.Stream, state: ServerState) -> None:
        self.id = new_id()
        self.busy = False
        """Whether a handler is at work."""
        self.websocket: WebSocket | None = None
        self.scope = trio.CancelScope()
        self._addresses = addresses_of(stream)
        self._peer = peer = self._addresses.remote
        self._proxied = is_trusted(peer, state.options)
        self.host: str | None = None
        """The address that it is counted for: a proxy's clients are not counted as one."""
        if isinstance(peer, tuple) and not self._proxied:
            self.host = peer[0]
        self.network = None if self.host is None else network_of(self.host)
        self._stream = stream
        self._state = state
        self._options = state.options
        self._http = HTTPConnection(stream, state.options.max_header_size)
        self._unanswered = False  # a request is in hand
        self._escaping: Exception | None = None  # a handler's error that ends the server

    async def run(self) -> None:
        """Serve it to the end, and close its stream.

        Raises: a handler's error, if the options say so; nothing that a peer can bring about.
        """
        try:
            if self._state.over:
                await trio.lowlevel.checkpoint()
                return
            self._state.connections.add(self)
            with self.scope:
                await self._serve()
            if self.scope.cancelled_caught:
                await self._end_early()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            early = self in self._state.opening  # TLS that failed, as a rule
            self._log(logging.INFO if early else logging.DEBUG, "lost: %s", exc.__cause__ or exc)
        except Exception as exc:
            if exc is self._escaping:
                raise
            self._log(logging.ERROR, "failed inside", exc_info=exc)
        finally:
            self._state.leave(self)
            if isinstance(self._stream, trio.SocketStream):
                self._stream.socket.close()  # as `trio.aclose_forcefully`, at 30 µs less
            elif not isinstance(self._stream, RelayedStream):  # whoever accepted that closes it
                await trio.aclose_forcefully(self._stream)

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
            await self._refuse(BadRequest(503, overload, _COME_BACK))
            await linger(self._stream)
            return
        while not self._http.finished:
            self._renew_deadline()
            try:
                head = await self._http.next_request()
                if head is not None:
                    self._unanswered = True
                    self._renew_deadline()
                    await self._answer(head)
            except BadRequest as refusal:
                await self._refuse(refusal)
        if self.websocket is None:
            await linger(self._stream)

    def _answer(self, head: RequestHead) -> Awaitable[None]:
        """Return what answers a request; no coroutine of its own, for a WebSocket stays in it."""
        pages = self._state.pages_handler
        client = self._find_client(head) if self._proxied else None
        if client is not None:
            head = attrs.evolve(head, authority=client.authority)
        if pages is not None and not head.upgrade:
            request = Request(
                head,
                self._stream,
                client=client,
                server=self._state,
                addresses=self._addresses,
                body=self._http.protocol.request_body,
            )
            return self._serve_page(pages, request)
        check_upgrade(head)
        secure = is_secure(self._stream, client)
        if not origin_allowed(head, self._options.allowed_origins, secure):
            raise BadRequest(403, "this origin is not allowed")
        if self._state.draining:
            raise BadRequest(503, "draining", _COME_BACK)
        if self._state.budget is not None and self._state.budget.crowded:
            raise BadRequest(503, "out of memory", _COME_BACK)
        return self._run_handler(head, client)

    def _find_client(self, head: RequestHead) -> Client:
        client = find_client(head, self._peer, self._options)
        host = None if client.address is self._peer else client.address[0]
        if not self._state.move(self, host):
            raise BadRequest(503, "too many connections from this address", _COME_BACK)
        return client

    async def _serve_page(self, handler: PageHandler, request: Request) -> None:
        self._allow(math.inf)
        self._state.opening.discard(self)  # the application may take as long as it likes
        self.busy = True
        try:
            try:
                response = await handler.respond(request)
            except Exception as exc:  # noqa: BLE001  # the application's, told as one wishes
                self._on_handler_error(exc)
                response = _FAILED
            if isinstance(response, LivePage):
                await self._send_live(response, request._head)
            else:
                await self._send(response, request._head)
        finally:
            self._set_idle()
            self._let_escape()

    async def _run_handler(self, head: RequestHead, client: Client | None) -> None:
        request = WebSocketRequest(
            head,
            self._http,
            self._options,
            name=self.id,
            draining=self._state.draining,
            budget=self._state.budget,
            pump=self._state.pump,
            on_accept=self._on_accept,
            on_reject=self._count_rejection,
            client=client,
            server=self._state,
            addresses=self._addresses,
        )
        self.busy = True
        refusal = None
        try:
            await check_awaitable(self._state.handler, self._state.handler(request))
        except Exception as exc:  # noqa: BLE001  # the application's, told as one wishes
            if (error := _without_goodbyes(exc)) is None:
                refusal = BadRequest(500, "internal error")
            elif (refused := find_refusal(error)) is None:
                self._on_handler_error(error)
                refusal = BadRequest(500, "internal error")
            else:
                refusal = self._on_refusal(refused)
        finally:
            self._set_idle()
            self._unanswered = not request.expire()
            if self.websocket is not None:
                self._state.end(self.websocket)
        try:
            if self._unanswered:
                await self._refuse(refusal or BadRequest(403, "forbidden"))
        finally:
            self._let_escape()

    def _set_idle(self) -> None:
        self.busy = False
        self._state.wake()

    def _on_accept(self, ws: WebSocket) -> None:
        self._allow(math.inf)
        self._state.opening.discard(self)
        self.websocket = ws
        self._state.accepted += 1
        if self._state.draining:
            self.begin_close(*self._state.goodbye)

    def _on_handler_error(self, error: Exception) -> None:
        self._state.handler_errors += 1
        if self._options.on_handler_error == "raise":
            self._escaping = error
        else:
            self._log(logging.ERROR, "handler failed", exc_info=error)

    def _on_refusal(self, refused: JoinRefused) -> BadRequest:
        """A room may not be entered: that the handler lets its peer be told so is no error."""
        if self.websocket is not None:
            self._log(logging.INFO, "may not enter a room: %d %s", refused.code, refused.reason)
        if refused.code == CloseCode.TRY_AGAIN_LATER:
            return BadRequest(503, refused.reason, _COME_BACK)
        return BadRequest(403, refused.reason)

    def _let_escape(self) -> None:
        """Once the client was answered, or has not waited for it."""
        if self._escaping is not None:
            raise self._escaping

    # Answers...

    async def _refuse(self, refusal: BadRequest, *, last: bool = False) -> None:
        self._log(logging.INFO, "refused: %s", refusal)
        self._count_rejection(refusal.status)
        await self._send(refusal.response, last=last)

    async def _end_early(self) -> None:
        """Its time is up, or ours is; the handler, if there was one, has been cancelled."""
        if self._unanswered:
            self.scope = trio.CancelScope()
            with trio.move_on_after(LINGER_TIME), self.scope:
                await self._refuse(BadRequest(503, "no answer in time", _COME_BACK), last=True)
                await linger(self._stream)
        elif self in self._state.opening:
            self._log(logging.INFO, "dropped before a request had come")

    async def _send(
        self, response: Response, request: RequestHead | None = None, *, last: bool = False
    ) -> None:
        close = last or bool(self._state.draining)
        if response.path is not None and request is not None:
            file = await open_file(response.path, response, request)
            if file is not None:
                await self._send_file(file, close=close)
                return
            response = NOT_FOUND
        if request is not None:
            self._state.pages[response.status] += 1
        await self._write(self._http.protocol.respond(response, close=close))

    async def _send_file(self, file: OpenFile, *, close: bool) -> None:
        http = self._http.protocol
        self._state.pages[file.head.status] += 1
        with file:
            await self._write(http.begin(file.head, file.length, close=close))
            self._allow(math.inf)  # a slow disk is not the client's fault
            while http.wants_body and (piece := await file.read()):
                await self._write(http.body(piece))
                self._allow(math.inf)
            await self._write(http.end())

    async def _send_live(self, page: LivePage, request: RequestHead) -> None:
        http = self._http.protocol
        begun = False

        async def begin(head: Response, length: int | None) -> None:
            nonlocal begun
            start = http.begin(head, length, close=bool(self._state.draining))
            begun = True
            self._state.pages[head.status] += 1
            await self._write(start)
            self._allow(math.inf)  # the application takes its time

        async def write(piece: bytes) -> None:
            await self._write(http.body(piece))
            self._allow(math.inf)

        try:
            await page.answer(begin, write, self._http.wait_gone)
            await self._write(http.end())
        except trio.BrokenResourceError:
            raise
        except Exception as exc:
            self._on_handler_error(exc)
            if begun:  # only the end of TCP can tell now that this is not all
                raise trio.BrokenResourceError("a page failed while it was sent") from exc
            await self._send(_FAILED, request)

    async def _write(self, data: bytes) -> None:
        """Send an answer or a part of any size: what bounds it is the lack of progress."""
        self._unanswered = False
        self._state.opening.discard(self)
        rest = memoryview(data)
        while rest:
            self._allow(self._options.write_timeout)
            await self._http.send(bytes(rest[:READ_SIZE]))
            rest = rest[READ_SIZE:]

    def _count_rejection(self, status: int) -> None:
        self._state.opening.discard(self)
        self._state.rejected[status] += 1

    def _allow(self, seconds: float) -> None:
        self.scope.deadline = trio.current_time() + seconds

    def _renew_deadline(self) -> None:
        """Give a further request its time; from accept to the first answer it runs through."""
        if self not in self._state.opening:
            self._allow(self._options.handshake_timeout)

    def _log(self, level: int, event: str, *details: object, exc_info: Any = None) -> None:
        """Write a line; nothing in it is in the peer's words."""
        message = f"connection %s from %s: {event}"
        host = self.host or (self._peer[0] if isinstance(self._peer, tuple) else None)
        logger.log(level, message, self.id, host, *details, exc_info=exc_info)


def _as_page_handler(handler: Handler) -> PageHandler | None:
    return handler if isinstance(handler, PageHandler) else None


def _make_budget(options: Options) -> Budget | None:
    return None if options.memory_budget == math.inf else Budget(options.memory_budget)


def _without_goodbyes(error: Exception) -> Exception | None:
    """That the peer has gone is no error of a handler; return what else there is."""
    if isinstance(error, ExceptionGroup):
        return error.split(ConnectionClosed)[1]
    return None if isinstance(error, ConnectionClosed) else error


def check_awaitable(function: object, answer: T) -> T:
    """Return what an async function has returned; a function that is not async is told so.

    Raises:
      TypeError: it cannot be awaited.
    """
    if not isinstance(answer, Awaitable):
        raise TypeError(f"{function!r} is not async: write `async def`")
    return answer
