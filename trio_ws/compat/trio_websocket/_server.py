"""Servers as trio-websocket runs them."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import trio

from ... import _request
from ..._request import Acceptance
from ..._server import Server
from ..._server import serve_websocket as _serve_websocket
from ._connection import WebSocketConnection, begin_close
from ._words import (
    CONN_TIMEOUT,
    MAX_MESSAGE_SIZE,
    MESSAGE_QUEUE_SIZE,
    RECEIVE_BYTES,
    ByteHeaders,
    ConnectionClosed,
    Endpoint,
    decode,
    encode,
    endpoint,
    make_options,
)

Handler: TypeAlias = "Callable[[WebSocketRequest], Awaitable[object]]"


class WebSocketRequest:
    """A request for a WebSocket: `accept` or `reject` it."""

    def __init__(self, request: _request.WebSocketRequest, nursery: trio.Nursery) -> None:
        self._request = request
        self._nursery = nursery
        self._connection: WebSocketConnection | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers, with names in lower case."""
        return list(encode(self._request.headers.items()))

    @property
    def path(self) -> str:
        """Path and query."""
        return self._request.target

    @property
    def proposed_subprotocols(self) -> tuple[str, ...]:
        """What the client offers."""
        return self._request.subprotocols

    @property
    def local(self) -> Endpoint | str:
        """This side's address."""
        return endpoint(self._request.local_address, is_ssl=self._request.tls is not None)

    @property
    def remote(self) -> Endpoint | str:
        """The client's address."""
        return endpoint(self._request.remote_address, is_ssl=self._request.tls is not None)

    async def accept(
        self, *, subprotocol: str | None = None, extra_headers: ByteHeaders = None
    ) -> WebSocketConnection:
        """Accept; the connection is closed when the handler returns, at the latest.

        Raises:
          ValueError: the client did not offer the subprotocol, or a header is illegal.
          RuntimeError: the request was answered before.

        If cancelled: the client gets no answer, or Close 1001.

        Concurrency: one task, and once.
        """
        acceptance = self._request.accept(subprotocol, headers=decode(extra_headers))
        connection: WebSocketConnection = await self._nursery.start(self.stay, acceptance)
        self._connection = connection
        return connection

    async def reject(
        self,
        status_code: int,
        *,
        extra_headers: ByteHeaders = None,
        body: bytes | None = None,
    ) -> None:
        """Answer with an HTTP status instead.

        Raises:
          ValueError: a status outside of 300 to 599, or an illegal header.
          RuntimeError: the request was answered before.

        If cancelled: the connection is dropped.

        Concurrency: one task, and once.
        """
        headers = decode(extra_headers)
        await self._request.reject(status_code, body=body or b"", headers=headers)

    async def stay(
        self, acceptance: Acceptance, *, task_status: trio.TaskStatus[WebSocketConnection]
    ) -> None:
        """Hold the connection open for others, to its end: the task behind `accept`.

        Raises: as `accept`.

        If cancelled: the client gets Close 1001.

        Concurrency: one task.
        """
        async with acceptance as ws:
            headers = tuple(self.headers)
            secure = self._request.tls is not None
            connection = WebSocketConnection(ws, self.path, headers, is_ssl=secure)
            task_status.started(connection)
            await connection._stay()

    async def _run(self, handler: Handler) -> None:
        await trio.lowlevel.checkpoint()
        try:
            await handler(self)
        except ConnectionClosed:
            pass  # that the peer has gone is no error of the handler, and not the server's end
        except BaseException as exc:
            if self._connection is not None:
                begin_close(self._connection, exc)
            raise
        if self._connection is not None:
            await self._connection.aclose()


class WebSocketServer:
    """A running server: what ``nursery.start(serve_websocket, ...)`` returns."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        """The port of the only TCP listener.

        Raises:
          RuntimeError: there are none, or several with different ports.
        """
        ports = {each.port for each in self.listeners if isinstance(each, Endpoint)}
        if len(ports) != 1:
            raise RuntimeError(f"the listeners have {len(ports)} ports: see listeners")
        return ports.pop()

    @property
    def listeners(self) -> list[Endpoint | str]:
        """Where the server listens."""
        return [_listener_endpoint(each) for each in self._server.listeners]


def _listener_endpoint(listener: Any) -> Endpoint | str:
    is_ssl = isinstance(listener, trio.SSLListener)
    below: Any = listener.transport_listener if is_ssl else listener
    return endpoint(below.socket.getsockname(), is_ssl=is_ssl)


@attrs.frozen
class _Started:
    """Hands on a server in the words of those who wait for it."""

    task_status: trio.TaskStatus[WebSocketServer]

    def started(self, value: Any = None) -> None:
        self.task_status.started(WebSocketServer(value))


async def serve_websocket(
    handler: Handler,
    host: str | bytes | None,
    port: int,
    ssl_context: ssl.SSLContext | None,
    *,
    handler_nursery: trio.Nursery | None = None,
    message_queue_size: int = MESSAGE_QUEUE_SIZE,
    max_message_size: int = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = RECEIVE_BYTES,
    connect_timeout: float = CONN_TIMEOUT,
    disconnect_timeout: float = CONN_TIMEOUT,
    task_status: trio.TaskStatus[WebSocketServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSockets over TCP, for ever.

    Raises:
      OSError: the port cannot be listened on.
      Whatever a handler raises, in a group; but not `ConnectionClosed`, which does not end
          the server.

    If cancelled: every connection gets Close 1001, within ``disconnect_timeout``.

    Concurrency: any number of servers.
    """

    async def run(request: _request.WebSocketRequest) -> None:
        async with trio.open_nursery() as nursery:
            await WebSocketRequest(request, nursery)._run(handler)

    await _serve_websocket(
        run,
        port,
        host=host,
        ssl_context=ssl_context,
        options=make_options(max_message_size, connect_timeout, disconnect_timeout),
        handler_nursery=handler_nursery,
        task_status=_Started(task_status),
    )
