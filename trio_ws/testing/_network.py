"""A network in memory: hosts by name, no port, no file descriptor, TLS if wanted."""

from __future__ import annotations

import contextlib
import errno
import functools
import socket as stdlib
import ssl
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import trio

from .._client import Opening, open_websocket_through
from .._http_headers import Headers
from .._listeners import wrap_with_tls
from .._options import Options
from .._url import parse_url
from ._link import Link
from ._socket import ANY_HOST, MemorySocket, Switchboard

if TYPE_CHECKING:
    import trustme


class MemoryNetwork:
    """Hosts that reach each other in memory, over links with latency and faults.

    ``listen`` on one side, ``open_websocket`` or ``connect`` on the other; the streams in
    between are trio's own. Every connection gets a `Link`: that of the call, or what
    ``make_link`` returns (it is called with the number of the connection, from 0). All of
    them stand in `links`.

    With `install` around it a program that knows nothing of this network uses it.
    """

    def __init__(self, make_link: Callable[[int], Link] | None = None) -> None:
        self._switchboard = Switchboard(make_link or _make_plain_link)

    def __repr__(self) -> str:
        return f"<MemoryNetwork with {len(self.links)} links>"

    @property
    def links(self) -> tuple[Link, ...]:
        """The links of all connections so far, in the order of connecting."""
        return tuple(self._switchboard.links)

    # Servers...

    def listen(
        self,
        host: str = "localhost",
        port: int = 80,
        *,
        tls: bool = False,
        ssl_context: ssl.SSLContext | None = None,
    ) -> trio.abc.Listener[Any]:
        """Listen on a host and port: for ``serve_websocket_listeners(handler, [listener])``.

        Any name is a host. Port 0 takes one that is free. With ``tls`` it speaks TLS with
        a certificate for this host, from `ca`; with an ``ssl_context`` as that says.

        Raises:
          OSError: somebody listens there already.
          ImportError: ``tls``, and trustme is not installed.
        """
        if tls and ssl_context is None:
            ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.ca.issue_cert(host).configure_cert(ssl_context)
        sock = MemorySocket(self._switchboard)
        sock.local = (self._switchboard.address_of(host), port or self._switchboard.free_port())
        try:
            sock.listen()
        except OSError:
            sock.close()
            raise
        listener = trio.SocketListener(sock)
        return listener if ssl_context is None else wrap_with_tls([listener], ssl_context)[0]

    @functools.cached_property
    def ca(self) -> trustme.CA:
        """The authority that signs the hosts' certificates, made when it is needed.

        Raises:
          ImportError: trustme is not installed.
        """
        try:
            import trustme  # noqa: PLC0415  # only who wants TLS needs it
        except ImportError as exc:
            exc.add_note("TLS in memory needs certificates: pip install trustme")
            raise
        return trustme.CA()

    @functools.cached_property
    def client_context(self) -> ssl.SSLContext:
        """What a client needs to trust the hosts: what `open_websocket` uses for ``wss://``.

        Raises:
          ImportError: trustme is not installed.
        """
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    # Clients...

    async def connect(
        self, host: str, port: int, *, link: Link | None = None
    ) -> trio.SocketStream:
        """Connect to a host: the stream of a client that speaks for itself, as `RawPeer`.

        Raises:
          ConnectionRefusedError: nobody listens there.

        If cancelled: there is no connection.

        Concurrency: any number of tasks.
        """
        sock = MemorySocket(self._switchboard)
        address = (self._switchboard.address_of(host), port)
        try:
            await self._switchboard.connect(sock, address, link)
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    def open_websocket(
        self,
        url: str,
        *,
        subprotocols: Iterable[str] = (),
        headers: Headers = (),
        origin: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: str | None = None,
        proxy_ssl_context: ssl.SSLContext | None = None,
        options: Options = Options(),
        link: Link | None = None,
    ) -> Opening:
        """Connect to a WebSocket server in this network: `trio_ws.open_websocket`, over ``link``.

        A ``wss://`` URL trusts the certificates of `ca`, unless ``ssl_context`` says otherwise,
        and so does a ``proxy`` at ``https://``. What the environment says about proxies is for
        another network: it counts only if ``proxy`` is ``"environment"``.

        Raises, if cancelled, concurrency: as `trio_ws.open_websocket`.
        """
        if ssl_context is None and parse_url(url).secure:
            ssl_context = self.client_context
        if proxy_ssl_context is None and (proxy or "").lower().startswith("https://"):
            proxy_ssl_context = self.client_context
        return open_websocket_through(
            functools.partial(self.connect, link=link),
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

    # Programs that open their connections themselves...

    @contextlib.contextmanager
    def install(self) -> Generator[None, None, None]:
        """Let all TCP of this program go over this network, for the length of a block.

        ``trio_ws.open_websocket("ws://example.org/")``, ``trio_ws.serve_websocket(handler,
        80)``, `trio.open_tcp_stream` and so on, in all tasks. Any host name is known, and
        nothing leaves the process. For ``wss://`` the program has to be given
        `client_context`.

        Only inside of `trio.run`.
        """
        hooks = _Hooks(self._switchboard)
        old_factory = trio.socket.set_custom_socket_factory(hooks)
        old_resolver = trio.socket.set_custom_hostname_resolver(hooks)
        try:
            yield
        finally:
            trio.socket.set_custom_socket_factory(old_factory)
            trio.socket.set_custom_hostname_resolver(old_resolver)


class _Hooks(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """What trio asks for sockets and addresses."""

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard

    def socket(
        self,
        family: int = stdlib.AF_INET,
        type: int = stdlib.SOCK_STREAM,  # noqa: A002  # trio's name
        proto: int = 0,
    ) -> trio.socket.SocketType:
        if family == stdlib.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "there is no IPv6 in a MemoryNetwork")
        if family != stdlib.AF_INET or type != stdlib.SOCK_STREAM:
            return trio.socket.from_stdlib_socket(stdlib.socket(family, type, proto))
        return MemorySocket(self._switchboard)

    async def getaddrinfo(  # noqa: PLR0917  # trio's arguments
        self,
        host: bytes | str | None,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002  # trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else host or ANY_HOST
        address = (self._switchboard.address_of(name), int(port or 0))
        return [(stdlib.AF_INET, stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP, "", address)]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        return str(sockaddr[0]), str(sockaddr[1])


def _make_plain_link(number: int) -> Link:
    return Link(seed=number)
