"""Client: from a URL to an open WebSocket."""

from __future__ import annotations

import functools
import ipaddress
import ssl
from collections.abc import Iterable
from types import TracebackType

import attrs
import trio
from multidict import CIMultiDictProxy

from ._dial import Route, make_route
from ._errors import ConnectionRejected, HandshakeError, HandshakeTimeout, ProxyRejected
from ._exchange import Progress, ask
from ._http_client import Accepted, ClientHandshake, check_request_headers, check_subprotocols
from ._http_headers import Headers
from ._options import Options, check_options
from ._redirect import CREDENTIALS, follow, location_of, same_server
from ._session import Session
from ._tcp import Dial
from ._tls import explain
from ._url import WebSocketURL, parse_url
from ._websocket import WebSocket


def open_websocket(
    url: str,
    *,
    subprotocols: Iterable[str] = (),
    headers: Headers = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    proxy: str | None = "environment",
    proxy_ssl_context: ssl.SSLContext | None = None,
    local_address: str | None = None,
    options: Options = Options(),
) -> Opening:
    """Connect to a server: ``async with open_websocket("wss://example.org/chat") as ws``.

    ``url`` begins with ``ws://``, ``wss://`` (TLS) or ``ws+unix://`` (as in
    ``ws+unix:///run/chat.sock:/target``); user and password in it become Basic
    authentication. ``subprotocols`` are offered in this order, ``headers`` and ``origin``
    go into the request.

    ``ssl_context`` is for ``wss://``: `ssl.create_default_context` by default, which trusts
    what the system trusts. ``server_hostname`` is the name to ask for (SNI), and to look for
    in the certificate, where that is not the URL's host.

    ``proxy`` is ``"environment"`` (``https_proxy`` and so on, as curl reads them), `None` or the
    URL of a proxy: ``http://``, ``https://``, ``socks5://`` (``socks5h://``: the proxy looks
    the host up), ``socks4://`` or ``socks4a://``, with user and password if need be.
    ``proxy_ssl_context`` is for a proxy at ``https://``.

    All addresses of the host are tried, as `trio.open_tcp_stream` does it;
    ``local_address`` is the IP address to connect from.

    Up to 5 redirects are followed, never from ``wss://`` to ``ws://``. On another scheme, host
    or port user, password, ``server_hostname`` and the headers Authorization, Cookie and Host
    are left out; other headers and ``ssl_context`` go along.

    Leaving the block closes the connection: Close 1000, on an exception 1011, on
    cancellation 1001, within ``options.close_grace``. The block's exception comes out as
    it is.

    Raises:
      TypeError, ValueError: at once: an argument is of no use.
      ImportError: at once: a SOCKS proxy, and the extra ``socks`` is not installed.
      OSError: on entering the block, like the following: nobody listens there.
      ConnectionRejected: the server answered with something other than a WebSocket.
      ProxyRejected: the proxy answered, and opened no way to the server.
      HandshakeTimeout: all this took longer than ``options.handshake_timeout``; the message
          names the phase in which it ran out.
      HandshakeError: TLS failed, an answer made no sense, or a redirect must not be followed.

    If cancelled: before the connection is open, nothing is left of it.

    Concurrency: each call is a connection of its own.
    """
    if local_address is not None:
        try:
            ipaddress.ip_address(local_address)
        except ValueError:
            raise ValueError("local_address is an IP address of this machine") from None
    return open_websocket_through(
        functools.partial(trio.open_tcp_stream, local_address=local_address),
        url,
        subprotocols=subprotocols,
        headers=headers,
        origin=origin,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        proxy=proxy,
        proxy_ssl_context=proxy_ssl_context,
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
    server_hostname: str | None = None,
    proxy: str | None = "environment",
    proxy_ssl_context: ssl.SSLContext | None = None,
    options: Options = Options(),
) -> Opening:
    """`open_websocket` over what ``dial`` connects with: TCP, or a network in memory."""
    check_options(options)
    target = parse_url(url)
    route = make_route(
        dial,
        target,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        proxy=proxy,
        proxy_ssl_context=proxy_ssl_context,
        max_header_size=options.max_header_size,
    )
    return Opening(_request(target, subprotocols, headers, origin, options), route)


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
    target to ask for. Otherwise as `open_websocket`, but a redirect is a
    `ConnectionRejected`: to follow it would take another stream.

    Raises, if cancelled, concurrency: as `open_websocket`.
    """
    check_options(options)
    if not isinstance(stream, trio.abc.Stream):
        raise TypeError(f"stream is a trio.abc.Stream, not {type(stream).__name__}")
    return Opening(_request(parse_url(url), subprotocols, headers, origin, options), stream)


@attrs.frozen
class _Request:
    """What is asked of a server, and of the next one after a redirect."""

    url: WebSocketURL
    subprotocols: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    origin: str | None
    options: Options

    def handshake(self) -> ClientHandshake:
        return ClientHandshake(
            self.url,
            subprotocols=self.subprotocols,
            headers=self.headers,
            origin=self.origin,
            compression=self.options.compression,
            max_header_size=self.options.max_header_size,
        )

    def moved(self, url: WebSocketURL) -> _Request:
        """Return what to ask of the place that a redirect points to."""
        headers = self.headers
        if not same_server(self.url, url):
            headers = tuple(pair for pair in headers if pair[0].lower() not in CREDENTIALS)
        return attrs.evolve(self, url=url, headers=headers)


def _request(
    url: WebSocketURL,
    subprotocols: Iterable[str],
    headers: Headers,
    origin: str | None,
    options: Options,
) -> _Request:
    return _Request(
        url, check_subprotocols(subprotocols), check_request_headers(headers), origin, options
    )


class Opening:
    """The ``async with`` of `open_websocket`."""

    response_headers: CIMultiDictProxy[str]
    """Of the answer that opened the connection."""
    secure: bool
    """Whether the connection is over TLS."""

    def __init__(self, request: _Request, way: Route | trio.abc.Stream) -> None:
        self._request = request
        self._handshake = request.handshake()  # here, to complain at the call
        self._route = way if isinstance(way, Route) else None
        self._stream = None if isinstance(way, Route) else way  # what is to be closed if it fails
        self._progress = Progress()
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
        self.response_headers = accepted.headers
        self.secure = isinstance(self._stream, trio.SSLStream)
        self._session = Session(
            self._stream,
            self._request.options,
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
        timeout = self._request.options.handshake_timeout
        progress = self._progress
        with trio.move_on_after(timeout):
            try:
                if self._route is None:
                    assert self._stream is not None
                    return await ask(self._stream, self._handshake, progress)
                return await self._follow_redirects(self._route)
            except trio.BrokenResourceError as exc:
                why = f"{progress.phase}: {explain(exc)}"
                raise progress.rejection or HandshakeError(why) from exc
        # A rejection whose body never came to an end is one.
        late = f"{progress.phase} took longer than {timeout} s in all (Options.handshake_timeout)"
        raise progress.rejection or HandshakeTimeout(late)

    async def _follow_redirects(self, route: Route) -> Accepted:
        visited: list[WebSocketURL] = []
        while True:
            visited.append(self._request.url)
            answer = await self._ask(route)
            if isinstance(answer, Accepted):
                return answer
            there = follow(visited, answer)
            if not same_server(self._request.url, there):
                route = attrs.evolve(route, server_hostname=None)
            self._request = self._request.moved(there)
            self._handshake = self._request.handshake()

    async def _ask(self, route: Route) -> Accepted | str:
        """Ask one server; a `str` is where it redirects to, and the stream is closed."""
        try:
            self._stream = await route.connect(self._request.url, self._progress)
            return await ask(self._stream, self._handshake, self._progress)
        except ProxyRejected:
            raise
        except ConnectionRejected as rejection:
            location = location_of(rejection)
            if location is None:
                raise
        stream, self._stream = self._stream, None
        assert stream is not None
        await trio.aclose_forcefully(stream)
        return location
