"""Client: from a URL to an open WebSocket."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TypeAlias

import trio

from ._errors import HandshakeError, HandshakeTimeout
from ._http_client import Accepted, ClientHandshake
from ._http_headers import Headers
from ._options import Options
from ._session import Session
from ._streams import READ_SIZE
from ._url import WebSocketURL, parse_url
from ._websocket import WebSocket

Dial: TypeAlias = Callable[[str, int], Awaitable[trio.SocketStream]]
"""Connects to a host and a port, as `trio.open_tcp_stream` does."""


def open_websocket(
    url: str,
    *,
    subprotocols: Iterable[str] = (),
    headers: Headers = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    options: Options = Options(),
) -> Opening:
    """Connect to a server: ``async with open_websocket("wss://example.org/chat") as ws``.

    ``url`` begins with ``ws://``, ``wss://`` (TLS) or ``ws+unix://`` (as in
    ``ws+unix:///run/chat.sock:/target``); user and password in it become Basic
    authentication. ``subprotocols`` are offered in this order, ``headers`` and ``origin``
    go into the request. ``ssl_context`` is for ``wss://``: `ssl.create_default_context`
    by default, which trusts what the system trusts.

    Leaving the block closes the connection: Close 1000, on an exception 1011, on
    cancellation 1001, within ``options.close_grace``. The block's exception comes out as
    it is.

    Raises:
      TypeError, ValueError: at once: an argument is of no use.
      OSError: on entering the block, like the following: nobody listens there.
      ConnectionRejected: the server answered with something other than a WebSocket.
      HandshakeTimeout: all this took longer than ``options.handshake_timeout``.
      HandshakeError: TLS failed, or the answer made no sense.

    If cancelled: before the connection is open, nothing is left of it.

    Concurrency: each call is a connection of its own.
    """
    return open_websocket_through(
        trio.open_tcp_stream,
        url,
        subprotocols=subprotocols,
        headers=headers,
        origin=origin,
        ssl_context=ssl_context,
        options=options,
    )


def open_websocket_through(
    dial: Dial,
    url: str,
    *,
    subprotocols: Iterable[str] = (),
    headers: Headers = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    options: Options = Options(),
) -> Opening:
    """`open_websocket` over what ``dial`` connects with: TCP, or a network in memory."""
    target = parse_url(url)
    if ssl_context is not None:
        _check_context(ssl_context, target)
    handshake = _handshake(target, subprotocols, headers, origin, options)
    connect = functools.partial(_connect, dial, target, ssl_context)
    return Opening(connect, handshake, options)


def open_websocket_over_stream(
    stream: trio.abc.Stream,
    url: str,
    *,
    subprotocols: Iterable[str] = (),
    headers: Headers = (),
    origin: str | None = None,
    options: Options = Options(),
) -> Opening:
    """Connect over a stream that is open already: a tunnel, a pipe, a test's memory stream.

    The stream is used as it is, and closed in the end; ``url`` tells the host and the
    target to ask for. Otherwise as `open_websocket`.
    """
    handshake = _handshake(parse_url(url), subprotocols, headers, origin, options)

    async def connect(say: Callable[[str], None]) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream

    return Opening(connect, handshake, options, stream)


def _check_context(ssl_context: ssl.SSLContext, url: WebSocketURL) -> None:
    if not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(ssl_context).__name__}")
    if not url.secure:
        raise ValueError("an ssl_context goes with wss://: this URL asks for no TLS")
    try:
        ssl_context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=_tls_name(url))
    except ssl.SSLError as exc:
        raise ValueError(f"this ssl_context is not for a client: {exc.reason or exc}") from exc


def _tls_name(url: WebSocketURL) -> str:
    """The name that certificates are for: no zone, no dot at its end (RFC 6066, section 3)."""
    return url.host.partition("%")[0].removesuffix(".")


def _handshake(
    url: WebSocketURL,
    subprotocols: Iterable[str],
    headers: Headers,
    origin: str | None,
    options: Options,
) -> ClientHandshake:
    return ClientHandshake(
        url,
        subprotocols=subprotocols,
        headers=headers,
        origin=origin,
        compression=options.compression,
        max_header_size=options.max_header_size,
    )


class Opening:
    """The ``async with`` of `open_websocket`."""

    def __init__(
        self,
        connect: Callable[[Callable[[str], None]], Awaitable[trio.abc.Stream]],
        handshake: ClientHandshake,
        options: Options,
        stream: trio.abc.Stream | None = None,
    ) -> None:
        self._connect = connect
        self._handshake = handshake
        self._options = options
        self._stream = stream  # what is to be closed if it fails
        self._phase = "connecting"
        self._entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> WebSocket:
        if self._entered:
            raise RuntimeError("this opens one connection, once: call open_websocket() again")
        self._entered = True
        try:
            accepted = await self._open()
        except BaseException:
            if self._stream is not None:
                await trio.aclose_forcefully(self._stream)
            raise
        assert self._stream is not None
        self._session = Session(
            self._stream,
            self._options,
            client=True,
            leftover=accepted.leftover,
            deflate=accepted.deflate,
            subprotocol=accepted.subprotocol,
        )
        return await self._session.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(etype, exc, traceback)

    async def _open(self) -> Accepted:
        timeout = self._options.handshake_timeout
        with trio.move_on_after(timeout):
            try:
                self._stream = await self._connect(self._say)
                self._say("sending the request")
                await self._send_request(self._stream)
                self._say("waiting for the server's answer")
                return await self._read_answer(self._stream)
            except trio.BrokenResourceError as exc:
                why = exc.__cause__ or str(exc) or "the connection was lost"
                raise self._handshake.rejection or HandshakeError(f"{self._phase}: {why}") from exc
        rejection = self._handshake.rejection  # its body never came to an end
        raise rejection or HandshakeTimeout(f"{self._phase} took longer than {timeout} s in all")

    def _say(self, phase: str) -> None:
        self._phase = phase

    async def _send_request(self, stream: trio.abc.Stream) -> None:
        try:
            await stream.send_all(self._handshake.request())
        except trio.BrokenResourceError:
            # The server may have refused, and gone, before it had read all of the request.
            with contextlib.suppress(trio.BrokenResourceError, HandshakeError):
                await self._read_answer(stream)  # noqa: ASYNC120  # being cancelled counts more
            raise

    async def _read_answer(self, stream: trio.abc.Stream) -> Accepted:
        while True:
            data = await stream.receive_some(READ_SIZE)
            if not data:
                self._handshake.receive_eof()
            accepted = self._handshake.receive_data(bytes(data))
            if accepted is not None:
                return accepted


async def _connect(
    dial: Dial,
    url: WebSocketURL,
    ssl_context: ssl.SSLContext | None,
    say: Callable[[str], None],
) -> trio.abc.Stream:
    try:
        if url.unix_path is not None:
            return await trio.open_unix_socket(url.unix_path)
        stream = await dial(url.host, url.port)
    except OSError as exc:
        exc.add_note(f"while connecting to {url.unix_path or f'{url.host} port {url.port}'}")
        raise
    if not url.secure:
        return stream
    say(f"TLS with {url.host}")
    try:
        tls = trio.SSLStream(
            stream,
            ssl_context or default_context(),
            server_hostname=_tls_name(url),
            https_compatible=True,
        )
        await tls.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


@functools.cache
def default_context() -> ssl.SSLContext:
    """Return the context for those who bring none: making one takes 10 ms and more."""
    return ssl.create_default_context()
