"""A request in the hands of a handler: to be looked at, then accepted or rejected."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import trio
from multidict import CIMultiDictProxy, MultiDictProxy

from ._budget import Budget
from ._deflate import accept_offers
from ._errors import ConnectionLost
from ._flag import Flag
from ._forwarded import Client
from ._http_connection import HTTPConnection
from ._http_headers import Headers
from ._http_request import RequestHead, read_credentials
from ._http_response import Response
from ._messages import CloseCode, CloseInfo
from ._options import Options
from ._pump import Pump
from ._server_statistics import ServerStatistics
from ._session import Session
from ._streams import Addresses, addresses_of, over_tls, tls_of
from ._websocket import WebSocket


class ServerStatus(Protocol):
    """What a request may know of the server that it came to."""

    @property
    def draining(self) -> Flag:
        """Whether it is being drained: true, or awaited with ``draining.wait()``."""
        ...

    def statistics(self) -> ServerStatistics:
        """Return what is open, and what has been."""
        ...


class Request:
    """An HTTP request: what a page handler of `Routes` gets."""

    def __init__(
        self,
        head: RequestHead,
        stream: trio.abc.Stream,
        *,
        client: Client | None = None,
        server: ServerStatus | None = None,
        addresses: Addresses | None = None,
        body: bytes = b"",
    ) -> None:
        self._head = head
        self._stream = stream
        self._body = body
        self._server = server
        # Asked for now: once the client has gone, the socket does not know any more.
        self._addresses = addresses or addresses_of(stream)
        if client is not None:
            self._addresses = self._addresses._replace(remote=client.address)
        self._secure = is_secure(stream, client)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.target}>"

    @property
    def method(self) -> str:
        """``"GET"``, ``"HEAD"``, ..."""
        return self._head.method

    @property
    def target(self) -> str:
        """Path and query as they were sent."""
        return self._head.target

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return self._head.path

    @property
    def query(self) -> MultiDictProxy[str]:
        """The query's parameters, decoded: a multi-dict."""
        return self._head.query

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers: a case-insensitive multi-dict."""
        return self._head.headers

    @property
    def body(self) -> bytes:
        """What came behind the headers: 16 KiB at most, larger requests are refused."""
        return self._body

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name."""
        return self._head.cookies

    @property
    def origin(self) -> str | None:
        """The origin of the web page that asks; `None` if no browser does."""
        return self._head.origin

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, the preferred one first."""
        return self._head.subprotocols

    @property
    def remote_address(self) -> Any:
        """The client's socket address; `None` if the stream is no socket.

        Behind one of ``Options.trusted_proxies`` it is the host and port that the proxy
        tells; the port is 0 if it does not.
        """
        return self._addresses.remote

    @property
    def local_address(self) -> Any:
        """The server's socket address; `None` if the stream is no socket."""
        return self._addresses.local

    @property
    def tls(self) -> trio.SSLStream[Any] | None:
        """The TLS layer (``getpeercert()``, ``version()``); `None` on a plain connection.

        It is that of the connection to this server: where TLS ends at a proxy, there is none.
        """
        return tls_of(self._stream)

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS: to this server, or to a trusted proxy before it."""
        return self._secure

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password of Basic authentication (RFC 7617): what was sent, unchecked.

        `None` if there is none that can be read. See `basic_auth`.
        """
        return read_credentials(self._head)

    @property
    def server(self) -> ServerStatus | None:
        """The server that the request came to; `None` under a server of somebody else."""
        return self._server


def is_secure(stream: trio.abc.Stream, client: Client | None) -> bool:
    """Whether a client speaks TLS, here or to a proxy that tells so."""
    if client is None or client.secure is None:
        return over_tls(stream)
    return client.secure


class WebSocketRequest(Request):
    """A request to open a WebSocket, checked as far as RFC 6455 and the options go.

    A handler answers it once: with `accept` or with `reject`. If it does neither, the
    client gets 403.
    """

    def __init__(
        self,
        head: RequestHead,
        http: HTTPConnection,
        options: Options,
        *,
        name: str,
        draining: Flag,
        budget: Budget | None,
        pump: Pump | None,
        on_accept: Callable[[WebSocket], None],
        on_reject: Callable[[int], None],
        client: Client | None = None,
        server: ServerStatus | None = None,
        addresses: Addresses | None = None,
    ) -> None:
        super().__init__(head, http.stream, client=client, server=server, addresses=addresses)
        self._http = http
        self._options = options
        self._name = name
        self._draining = draining
        self._budget = budget
        self._pump = pump
        self._on_accept = on_accept
        self._on_reject = on_reject
        self._answered = False

    @property
    def id(self) -> str:
        """The connection's name, as it stands in the log; the WebSocket's, once accepted."""
        return self._name

    @property
    def answered(self) -> bool:
        """Whether it has been accepted or rejected."""
        return self._answered

    def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> Acceptance:
        """Accept the request: ``async with request.accept() as ws``.

        The block is the connection's life: its tasks run in it, and leaving it says
        Close 1000, on an exception 1011, on cancellation 1001, within
        ``options.close_grace``. The block's exception comes out as it is.

        ``subprotocol`` is one of `subprotocols`; ``headers`` go into the response.

        Raises, on entering the block:
          ValueError: the client did not offer the subprotocol, or a header is illegal or
              belongs to the handshake. Nothing was sent; the handler may answer again.
          RuntimeError: the request was answered before.
          ConnectionLost: the client has gone.

        If cancelled: the client gets no answer, or Close 1001.
        """
        return Acceptance(self, subprotocol, headers)

    async def reject(
        self, status: int = 403, *, body: str | bytes = b"", headers: Headers = ()
    ) -> None:
        """Answer with an HTTP status instead of a WebSocket.

        Raises:
          ValueError: a status outside of 300 to 599, or an illegal header; nothing was sent.
          RuntimeError: the request was answered before.
          ConnectionLost: the client has gone.

        If cancelled: the connection is dropped.

        Concurrency: one task, and once.
        """
        response = Response(body, status=status, headers=headers)
        if status < 300:
            raise ValueError(f"{status} does not reject anything: use 300 to 599")
        self._check_unanswered()
        self._answered = True
        self._on_reject(status)
        await self._send(self._http.protocol.respond(response))

    async def _send(self, answer: bytes) -> None:
        try:
            await self._http.send(answer)
        except trio.BrokenResourceError as exc:
            reason = "the client left before it was answered"
            info = CloseInfo(CloseCode.ABNORMAL, reason, "lost", clean=False)
            raise ConnectionLost(info) from exc

    def expire(self) -> bool:
        """End the time for an answer, and return whether there was one."""
        answered, self._answered = self._answered, True
        return answered

    def _check_unanswered(self) -> None:
        if self._answered:
            raise RuntimeError(
                "this request was answered before: accept or reject it once, and before the"
                " handler returns"
            )

    async def _open(self, subprotocol: str | None, headers: Headers) -> Session:
        self._check_unanswered()
        compression = self._options.compression
        offers = self._head.headers.getall("Sec-WebSocket-Extensions", ())
        agreed = accept_offers(compression, offers) if compression and offers else None
        extensions, deflate = agreed or (None, None)
        answer = self._http.protocol.accept(
            self._head, subprotocol=subprotocol, headers=headers, extensions=extensions
        )
        self._answered = True
        await self._send(answer)
        return Session(
            self._stream,
            self._options,
            client=False,
            leftover=self._http.take_leftover(),
            deflate=deflate,
            subprotocol=subprotocol,
            request=self._head,
            addresses=self._addresses,
            transport=self._http.transport,
            draining=self._draining,
            name=self._name,
            budget=self._budget,
            pump=self._pump,
        )


class Acceptance:
    """The block of `WebSocketRequest.accept`."""

    def __init__(
        self, request: WebSocketRequest, subprotocol: str | None, headers: Headers
    ) -> None:
        self._request = request
        self._subprotocol = subprotocol
        self._headers = headers

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> WebSocket:
        self._session = await self._request._open(self._subprotocol, self._headers)
        ws = await self._session.__aenter__()
        self._request._on_accept(ws)
        return ws

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(etype, exc, traceback)
