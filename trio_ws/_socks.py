"""SOCKS, through python-socks (the extra ``socks``), over a connection that is open already."""

from __future__ import annotations

import errno
import math
import os
import socket
from typing import Any, Final

import trio
from python_socks import ProxyError, ProxyType
from python_socks.async_.trio import Proxy as Client

from ._errors import HandshakeError
from ._proxy import Proxy
from ._tcp import reworded
from ._url import WebSocketURL


async def open_tunnel(stream: trio.SocketStream, proxy: Proxy, url: WebSocketURL) -> None:
    """Ask a SOCKS proxy for a way to the server; from here on the stream leads there.

    Raises:
      HandshakeError: the proxy refused, or makes no sense.
      OSError: the proxy found no way to the server, or we found no address for it.
      trio.BrokenResourceError: the connection broke.
    """
    host = url.host.partition("%")[0]  # a zone means something on this machine only
    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    if kind is ProxyType.SOCKS4 and ":" in host:
        raise HandshakeError(f"the proxy {proxy}: SOCKS4 knows no IPv6 addresses, as {host}")
    user, password = proxy.userinfo or (None, None)
    client = Client(
        kind,
        proxy.host,
        proxy.port,
        user,
        password,
        rdns=proxy.resolves,
        forward=_Connected(stream, kind, proxy),
    )
    try:
        await client.connect(host, url.port, timeout=math.inf)  # the deadline is the caller's
    except ProxyError as exc:
        if type(exc.__cause__).__name__ == "IncompleteReadError":  # of a private module
            raise HandshakeError(
                f"the proxy {proxy} closed the connection without an answer"
            ) from EOFError()
        raise _refusal(exc, proxy, url) from exc
    except ValueError as exc:  # what cannot be decoded is an address that nobody needs
        raise HandshakeError(f"the proxy {proxy}: its answer makes no sense") from exc
    except socket.gaierror as exc:
        raise reworded(exc, url.authority) from exc
    except OSError as exc:
        raise trio.BrokenResourceError(exc.strerror) from exc


class _Connected(Client):
    """In a chain of proxies the one before the last, connected already.

    So that it is trio that connects to the proxy, or a network in memory, and not
    python-socks, which would try the first address alone.
    """

    def __init__(self, stream: trio.SocketStream, kind: ProxyType, proxy: Proxy) -> None:
        super().__init__(kind, proxy.host, proxy.port)
        self._stream = stream

    async def connect(
        self,
        dest_host: str,
        dest_port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # python-socks calls it so
        **kwargs: Any,
    ) -> trio.socket.SocketType:
        await trio.lowlevel.checkpoint()
        return self._stream.socket


# RFC 1928, section 6: what the proxy met on its way, and may not meet the next time.
_ERRNO: Final = {
    3: errno.ENETUNREACH,
    4: errno.EHOSTUNREACH,
    5: errno.ECONNREFUSED,
    6: errno.ETIMEDOUT,
}


def _refusal(error: ProxyError, proxy: Proxy, url: WebSocketURL) -> HandshakeError | OSError:
    number = _ERRNO.get(error.error_code or 0)
    if number is not None:
        why = os.strerror(number)
        return OSError(number, f"the proxy {proxy} cannot connect to {url.authority}: {why}")
    return HandshakeError(f"the proxy {proxy} opens no way to {url.authority}: {error}")
