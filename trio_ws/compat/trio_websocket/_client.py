"""Clients as trio-websocket opens them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any
from urllib.parse import urlsplit

import trio

from ... import _client, _errors
from ..._client import Opening, open_websocket_over_stream
from ..._options import Options
from ..._websocket import WebSocket
from ._connection import WebSocketConnection
from ._words import (
    CONN_TIMEOUT,
    MAX_MESSAGE_SIZE,
    MESSAGE_QUEUE_SIZE,
    RECEIVE_BYTES,
    ByteHeaders,
    ConnectionRejected,
    ConnectionTimeout,
    HandshakeError,
    decode,
    encode,
    make_options,
)


@asynccontextmanager
async def open_websocket(
    host: str,
    port: int,
    resource: str,
    *,
    use_ssl: bool | ssl.SSLContext,
    subprotocols: Iterable[str] | None = None,
    extra_headers: ByteHeaders = None,
    message_queue_size: int = MESSAGE_QUEUE_SIZE,
    max_message_size: int = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = RECEIVE_BYTES,
    connect_timeout: float = CONN_TIMEOUT,
    disconnect_timeout: float = CONN_TIMEOUT,
) -> AsyncGenerator[WebSocketConnection, None]:
    """Connect for the length of a block, which may raise what it likes: it comes out as it is.

    Raises:
      HandshakeError: on entering: nobody listens there, or does not want.

    If cancelled: the attempt ends; a connection that is open is closed, with Close 1001.

    Concurrency: each call is a connection of its own.
    """
    options = make_options(max_message_size, connect_timeout, disconnect_timeout)
    url = _url(host, port, resource, use_ssl)
    opening = _open(url, use_ssl, subprotocols, extra_headers, options)
    async with AsyncExitStack() as stack:
        with _as_handshake_errors():
            ws = await stack.enter_async_context(opening)
        yield _client_end(ws, opening, resource)


def open_websocket_url(
    url: str,
    ssl_context: ssl.SSLContext | None = None,
    **arguments: Any,
) -> AbstractAsyncContextManager[WebSocketConnection]:
    """`open_websocket` with a URL.

    Raises:
      ValueError: at once: the URL is none.
      HandshakeError: on entering: nobody listens there, or does not want.

    If cancelled, concurrency: as `open_websocket`.
    """
    host, port, resource, use_ssl = _split_url(url, ssl_context)
    return open_websocket(host, port, resource, use_ssl=use_ssl, **arguments)


async def connect_websocket(
    nursery: trio.Nursery,
    host: str,
    port: int,
    resource: str,
    *,
    use_ssl: bool | ssl.SSLContext,
    subprotocols: Iterable[str] | None = None,
    extra_headers: ByteHeaders = None,
    message_queue_size: int = MESSAGE_QUEUE_SIZE,
    max_message_size: int = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = RECEIVE_BYTES,
) -> WebSocketConnection:
    """Connect, with the connection's tasks in a nursery; the caller closes it.

    Raises:
      OSError: nobody listens there.
      HandshakeError: it is no WebSocket server, or does not want.

    If cancelled: there is no connection.

    Concurrency: each call is a connection of its own.
    """
    url = _url(host, port, resource, use_ssl)
    options = make_options(max_message_size)
    opening = _open(url, use_ssl, subprotocols, extra_headers, options)
    return await _connect(nursery, opening, resource)


async def connect_websocket_url(
    nursery: trio.Nursery,
    url: str,
    ssl_context: ssl.SSLContext | None = None,
    **arguments: Any,
) -> WebSocketConnection:
    """`connect_websocket` with a URL.

    Raises:
      ValueError: the URL is none.
      OSError: nobody listens there.
      HandshakeError: it is no WebSocket server, or does not want.

    If cancelled, concurrency: as `connect_websocket`.
    """
    host, port, resource, use_ssl = _split_url(url, ssl_context)
    return await connect_websocket(nursery, host, port, resource, use_ssl=use_ssl, **arguments)


async def wrap_client_stream(
    nursery: trio.Nursery,
    stream: trio.abc.Stream,
    host: str,
    resource: str,
    *,
    subprotocols: Iterable[str] | None = None,
    extra_headers: ByteHeaders = None,
    message_queue_size: int = MESSAGE_QUEUE_SIZE,
    max_message_size: int = MAX_MESSAGE_SIZE,
    receive_buffer_size: int | None = RECEIVE_BYTES,
) -> WebSocketConnection:
    """Connect over a stream that is open already.

    Raises:
      HandshakeError: it is no WebSocket server, or does not want.

    If cancelled: there is no connection, and the stream is closed.

    Concurrency: each stream is one connection.
    """
    scheme = "wss" if isinstance(stream, trio.SSLStream) else "ws"
    opening = open_websocket_over_stream(
        stream,
        f"{scheme}://{host}{resource}",
        subprotocols=subprotocols or (),
        headers=decode(extra_headers),
        options=make_options(max_message_size),
    )
    return await _connect(nursery, opening, resource)


async def _connect(nursery: trio.Nursery, opening: Opening, resource: str) -> WebSocketConnection:
    async def stay(*, task_status: trio.TaskStatus[WebSocketConnection]) -> None:
        async with opening as ws:
            connection = _client_end(ws, opening, resource)
            task_status.started(connection)
            await connection._stay()

    with _as_handshake_errors(network=False):
        connection: WebSocketConnection = await nursery.start(stay)
        return connection


def _client_end(ws: WebSocket, opening: Opening, resource: str) -> WebSocketConnection:
    headers = encode(opening.response_headers.items())
    return WebSocketConnection(ws, resource, headers, is_ssl=opening.secure)


def _split_url(
    url: str, ssl_context: ssl.SSLContext | None
) -> tuple[str, int, str, bool | ssl.SSLContext]:
    parts = urlsplit(str(url))
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"a WebSocket URL begins with ws: or wss:, not {parts.scheme!r}")
    if parts.hostname is None:
        raise ValueError("the URL has no host")
    secure = parts.scheme == "wss"
    if ssl_context is not None and not secure:
        raise ValueError("an SSL context is for wss: URLs")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = parts.port or (443 if secure else 80)
    return parts.hostname, port, resource, ssl_context or secure


def _open(
    url: str,
    use_ssl: bool | ssl.SSLContext,
    subprotocols: Iterable[str] | None,
    extra_headers: ByteHeaders,
    options: Options,
) -> Opening:
    return _client.open_websocket(
        url,
        subprotocols=subprotocols or (),
        headers=decode(extra_headers),
        ssl_context=_context(use_ssl),
        proxy=None,
        options=options,
    )


def _url(host: str, port: int, resource: str, use_ssl: bool | ssl.SSLContext) -> str:
    if not isinstance(use_ssl, (bool, ssl.SSLContext)):
        raise TypeError(f"use_ssl is a bool or an SSLContext, not {type(use_ssl).__name__}")
    name = f"[{host}]" if ":" in host else host
    return f"{'wss' if use_ssl else 'ws'}://{name}:{port}{resource}"


def _context(use_ssl: bool | ssl.SSLContext) -> ssl.SSLContext | None:
    return use_ssl if isinstance(use_ssl, ssl.SSLContext) else None


@contextmanager
def _as_handshake_errors(*, network: bool = True) -> Generator[None, None, None]:
    """Translate our errors; with ``network`` also those of connecting."""
    try:
        yield
    except _errors.ConnectionRejected as exc:
        headers = encode(exc.headers.items())
        raise ConnectionRejected(exc.status, headers, exc.body) from None
    except trio.TooSlowError as exc:  # a HandshakeTimeout is one
        raise ConnectionTimeout(str(exc)) from exc
    except _errors.HandshakeError as exc:
        raise HandshakeError(str(exc)) from exc
    except OSError as exc:
        if not network:
            raise
        raise HandshakeError(str(exc)) from exc
