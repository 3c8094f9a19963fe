"""A handler that is served in memory for the length of a block, and clients for it."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import trio

from .._client import Opening
from .._http_headers import Headers
from .._options import Options
from .._server import Server, serve_websocket_listeners
from .._server_connection import Handler, ServerConnection
from ._background import Background
from ._leaks import PATIENCE, settle, task_with, where
from ._link import Link
from ._network import MemoryNetwork
from ._raw_peer import RawPeer
from ._socket import link_under


class Connect:
    """Opens clients of a handler that is served: ``async with connect("/path") as ws``."""

    def __init__(self, server: Server, network: MemoryNetwork, host: str, *, tls: bool) -> None:
        self._server = server
        self._network = network
        self._host = host
        self._tls = tls

    def __repr__(self) -> str:
        return f"<Connect to {self.url}>"

    @property
    def server(self) -> Server:
        """The server: its connections, its statistics, its ``drain()``."""
        return self._server

    @property
    def network(self) -> MemoryNetwork:
        """The network in between, with its links."""
        return self._network

    @property
    def url(self) -> str:
        """Where it is served: without a path."""
        return f"{'wss' if self._tls else 'ws'}://{self._host}"

    def __call__(
        self,
        path: str = "/",
        *,
        subprotocols: Iterable[str] = (),
        headers: Headers = (),
        origin: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        options: Options = Options(),
        link: Link | None = None,
    ) -> Opening:
        """Connect a client: `trio_ws.open_websocket`, with a path in place of the URL.

        Raises, if cancelled, concurrency: as `trio_ws.open_websocket`.
        """
        return self._network.open_websocket(
            self.url + path,
            subprotocols=subprotocols,
            headers=headers,
            origin=origin,
            ssl_context=ssl_context,
            options=options,
            link=link,
        )

    @asynccontextmanager
    async def raw(
        self,
        path: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        behind: bytes = b"",
        link: Link | None = None,
    ) -> AsyncGenerator[RawPeer, None]:
        """Connect a `RawPeer` that has shaken hands: ``async with connect.raw() as peer``.

        ``headers`` and ``behind`` as in `RawPeer.request`. Leaving the block ends TCP.

        Raises:
          AssertionError: the server did not accept.

        If cancelled: the server sees the end of TCP.

        Concurrency: each call is a connection of its own.
        """
        context = self._network.client_context if self._tls else None
        port = 443 if self._tls else 80
        stream: trio.abc.Stream = await self._network.connect(self._host, port, link=link)
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname=self._host)
        async with RawPeer(stream, client=True) as peer:
            await peer.request(
                path, headers={"Host": self._host, **(headers or {})}, behind=behind
            )
            yield peer


class Serve:
    """Serves handlers in memory: ``connect = await serve(handler)``. See `open_server`."""

    def __init__(self, nursery: trio.Nursery, network: MemoryNetwork) -> None:
        self._nursery = nursery
        self._network = network
        self._served: list[Connect] = []

    async def __call__(
        self,
        handler: Handler,
        *,
        host: str | None = None,
        tls: bool = False,
        options: Options = Options(),
        on_handler_error: Literal["log", "raise"] = "raise",
    ) -> Connect:
        """Serve a handler or `Routes` until the end of the test; return a factory of clients.

        ``host`` is a name of your choice. ``on_handler_error`` overrules that of ``options``:
        what a handler raises fails the test, if you do not say ``"log"``.

        Raises:
          TypeError: the handler is none.
          OSError: there is such a host already.

        If cancelled: nothing is served.

        Concurrency: any number of tasks, any number of servers.
        """
        number = len(self._served) + 1
        host = host or ("server.test" if number == 1 else f"server-{number}.test")
        listener = self._network.listen(host, 443 if tls else 80, tls=tls)
        serve = functools.partial(
            serve_websocket_listeners,
            handler,
            [listener],
            options=options.replace(on_handler_error=on_handler_error),
        )
        try:
            server: Server = await self._nursery.start(serve)
        except BaseException:
            await trio.aclose_forcefully(listener)
            raise
        connect = Connect(server, self._network, host, tls=tls)
        self._served.append(connect)
        return connect

    async def _check_handlers(self, patience: float) -> None:
        """Make sure that the handlers of clients who have gone come to their end.

        Raises:
          AssertionError: one does not.
        """
        if left := await settle(self._forsaken, patience):
            lines = [f"a handler still runs {patience:g} s after its client has gone:"]
            for connection in left:
                task = task_with(connection)
                lines += where(task) if task else [repr(connection)]
            raise AssertionError("\n    ".join(lines))

    def _forsaken(self) -> list[ServerConnection]:
        """Return connections with a handler, and nobody at the other end."""
        return [
            connection
            for served in self._served
            for connection in served.server._state.connections
            if connection.busy and link_under(connection._stream)._client_has_gone
        ]


@asynccontextmanager
async def open_servers(
    network: MemoryNetwork, *, patience: float = PATIENCE
) -> AsyncGenerator[Serve, None]:
    """Serve any number of handlers for the length of a block: the fixture ``serve``.

    Leaving the block stops them: every client gets Close 1001. If it was left without an
    error, handlers whose client has gone must have ended, or end within ``patience`` seconds.

    Raises:
      AssertionError: one does not.
    """
    async with Background() as nursery:
        serve = Serve(nursery, network)
        yield serve
        await serve._check_handlers(patience)


@asynccontextmanager
async def open_server(
    handler: Handler,
    *,
    network: MemoryNetwork | None = None,
    host: str | None = None,
    tls: bool = False,
    options: Options = Options(),
    on_handler_error: Literal["log", "raise"] = "raise",
    patience: float = PATIENCE,
) -> AsyncGenerator[Connect, None]:
    """Serve a handler or `Routes` in memory: ``async with open_server(handler) as connect``.

    ``connect`` opens clients. What a handler raises ends the block, as the error that it
    is, unless ``on_handler_error`` is ``"log"`` (it overrules that of ``options``).

    Leaving the block stops the server: every client that is left gets Close 1001. If it
    was left without an error, handlers whose client has gone must have ended, or end
    within ``patience`` seconds.

    Raises:
      AssertionError: a handler goes on without its client.
      TypeError: the handler is none.
      OSError: there is such a host already in this ``network``.

    If cancelled: the server stops likewise.

    Concurrency: each call is a server of its own.
    """
    async with open_servers(network or MemoryNetwork(), patience=patience) as serve:
        yield await serve(
            handler, host=host, tls=tls, options=options, on_handler_error=on_handler_error
        )
