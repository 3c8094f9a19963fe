"""From a URL to a stream that leads there: TCP or a Unix socket, proxies, TLS.

::

    name ─→ TCP ─┬──────────────────────────────────────────────┬─→ TLS? ─→ the request
                 └→ a proxy: TLS? ─→ CONNECT, or SOCKS ─────────┘

What fails closes all that is open so far, and says which of these steps it was.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from typing import Final, Literal

import attrs
import trio

from ._errors import HandshakeError
from ._exchange import Progress, ask
from ._http_client import ConnectHandshake
from ._proxy import Proxy, parse_proxy, proxy_from_environment
from ._tcp import Dial, open_tcp, open_unix
from ._tls import certified_name, check_client_context, default_context, speak_tls
from ._url import WebSocketURL, split_host_port


@attrs.frozen(kw_only=True)
class Route:
    """How to get to a server, as the caller wants it."""

    dial: Dial
    proxy: Proxy | Literal["environment"] | None
    ssl_context: ssl.SSLContext | None
    proxy_ssl_context: ssl.SSLContext | None
    server_hostname: str | None
    max_header_size: float

    async def connect(self, url: WebSocketURL, progress: Progress) -> trio.abc.Stream:
        """Return a stream that leads to the server.

        Raises:
          OSError: nobody listens there, or there is no way.
          HandshakeError: a proxy refused, or what the environment says makes no sense.
          trio.BrokenResourceError: a connection broke on the way.
        """
        if url.unix_path is not None:
            return await open_unix(url.unix_path, progress)
        proxy = _proxy_from_environment(url) if self.proxy == "environment" else self.proxy
        stream: trio.abc.Stream
        if proxy is None:
            stream = await open_tcp(self.dial, url.host, url.port, progress)
        elif proxy.socks:
            stream = await self._pass_socks(proxy, url, progress)
        else:
            stream = await self._pass_http(proxy, url, progress)
        if not url.secure:
            return stream
        progress.enter(f"TLS with {url.host}")
        name = self.server_hostname or certified_name(url.host)
        return await speak_tls(stream, self.ssl_context or default_context(), name)

    async def _pass_socks(
        self, proxy: Proxy, url: WebSocketURL, progress: Progress
    ) -> trio.abc.Stream:
        try:
            from ._socks import open_tunnel  # noqa: PLC0415  # only who has such a proxy needs it
        except ImportError as exc:
            raise HandshakeError(_NO_SOCKS) from exc
        stream = await open_tcp(self.dial, proxy.host, proxy.port, progress, purpose=_PROXY)
        progress.enter(f"asking the proxy {proxy} for {url.authority}")
        try:
            await open_tunnel(stream, proxy, url)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _pass_http(
        self, proxy: Proxy, url: WebSocketURL, progress: Progress
    ) -> trio.abc.Stream:
        stream: trio.abc.Stream = await open_tcp(
            self.dial, proxy.host, proxy.port, progress, purpose=_PROXY
        )
        if proxy.secure:
            progress.enter(f"TLS with the proxy {proxy}")
            context = self.proxy_ssl_context or default_context()
            stream = await speak_tls(stream, context, certified_name(proxy.host))
        try:
            request = ConnectHandshake(proxy, url, max_header_size=self.max_header_size)
            await ask(stream, request, progress)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


def make_route(
    dial: Dial,
    url: WebSocketURL,
    *,
    ssl_context: ssl.SSLContext | None,
    server_hostname: str | None,
    proxy: str | None,
    proxy_ssl_context: ssl.SSLContext | None,
    max_header_size: float,
) -> Route:
    """Return the way to ``url``.

    Raises:
      TypeError: an argument is of the wrong type.
      ValueError: an argument is of no use, for this URL or at all.
      ImportError: a SOCKS proxy, and python-socks is not installed.
    """
    route = Route(
        dial=dial,
        proxy=_which(proxy),
        ssl_context=ssl_context,
        proxy_ssl_context=proxy_ssl_context,
        server_hostname=None if server_hostname is None else _check_hostname(server_hostname),
        max_header_size=max_header_size,
    )
    for name, context in (("ssl_context", ssl_context), ("proxy_ssl_context", proxy_ssl_context)):
        if context is not None:
            check_client_context(name, context)
    _check_proxy(route, url)
    for name, value in (("ssl_context", ssl_context), ("server_hostname", server_hostname)):
        if value is not None and not url.secure:
            raise ValueError(f"{name} goes with wss://: this URL asks for no TLS")
    return route


_PROXY: Final = "the proxy "
_NO_SOCKS: Final = "SOCKS proxies need python-socks: pip install 'trio-ws[socks]'"


def _which(proxy: str | None) -> Proxy | Literal["environment"] | None:
    if proxy is None:
        return None
    return "environment" if proxy == "environment" else parse_proxy(proxy)


def _check_proxy(route: Route, url: WebSocketURL) -> None:
    proxy = route.proxy
    if isinstance(proxy, Proxy):
        if url.unix_path is not None:
            raise ValueError("no proxy leads to a Unix socket")
        if proxy.socks and importlib.util.find_spec("python_socks") is None:
            raise ImportError(_NO_SOCKS)
    without_tls = proxy is None or (isinstance(proxy, Proxy) and not proxy.secure)
    if route.proxy_ssl_context is not None and without_tls:
        raise ValueError("proxy_ssl_context goes with a proxy at https://")


def _check_hostname(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"server_hostname is a str, not {type(name).__name__}")
    host, port = split_host_port(name)
    if port is not None:
        raise ValueError("server_hostname is a name or an address, without a port")
    return certified_name(host)


def _proxy_from_environment(url: WebSocketURL) -> Proxy | None:
    try:
        return proxy_from_environment(url, os.environ)
    except ValueError as exc:
        raise HandshakeError(str(exc)) from exc
