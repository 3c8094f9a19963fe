"""A client and a server that are connected in memory; either may be a `RawPeer`."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from .._options import Options
from .._request import WebSocketRequest
from .._server import serve_websocket_listeners
from .._websocket import WebSocket
from ._background import Background
from ._link import Link
from ._network import MemoryNetwork
from ._raw_peer import RawPeer
from ._recorder import Recorder, Side

HOST: Final = "pair.test"  # RFC 6761, section 6.2: no such name will ever exist


@attrs.frozen
class Pair:
    """What `open_pair` gives: ``client, server = pair``, and what is between them."""

    client: WebSocket
    """The side that has connected."""
    server: WebSocket
    """The side that has accepted."""
    link: Link
    """To be given faults at any time."""

    @property
    def recorder(self) -> Recorder:
        """The transcript of both sides."""
        return self.link.recorder

    def __iter__(self) -> Iterator[WebSocket]:
        return iter((self.client, self.server))


@asynccontextmanager
async def open_pair(
    path: str = "/",
    *,
    client_options: Options = Options(),
    server_options: Options = Options(),
    subprotocols: Iterable[str] = (),
    subprotocol: str | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    link: Link | None = None,
) -> AsyncGenerator[Pair, None]:
    """Connect two WebSockets in memory: ``async with open_pair() as (client, server)``.

    Both are real: they have shaken hands, about ``path``, ``headers``, compression and
    so on, over ``link``. The client offers ``subprotocols``, the server takes
    ``subprotocol``.

    Leaving the block closes the client, as leaving the block of ``open_websocket`` does,
    then the server; each within the ``close_grace`` of its options, whatever the link
    does. The block's exception comes out as it is.

    Raises:
      TypeError, ValueError: an argument is of no use.
      HandshakeError: over this link there was no connection.

    If cancelled: both are closed with 1001.

    Concurrency: each call is a pair of its own.
    """
    link = link or Link()
    network = MemoryNetwork()
    async with _serve_one(network, server_options, subprotocol) as server:
        opening = network.open_websocket(
            f"ws://{HOST}{path}",
            subprotocols=subprotocols,
            headers=headers,
            options=client_options,
            link=link,
        )
        async with opening as client:
            try:
                yield Pair(client, await server.websocket(), link)
            finally:
                server.expect_close(client)


@asynccontextmanager
async def open_raw_pair(
    side: Side,
    *,
    options: Options = Options(),
    headers: Mapping[str, str] | None = None,
    behind: bytes = b"",
    link: Link | None = None,
) -> AsyncGenerator[tuple[WebSocket, RawPeer], None]:
    """Connect a WebSocket that plays ``side``, and a `RawPeer` that plays the other one.

    They have shaken hands; ``headers`` went into the peer's request or response (so it
    can ask for compression, or agree to it), and ``behind`` right behind that.

    Leaving the block ends the peer's TCP, then the WebSocket.

    Raises: as `open_pair`.

    If cancelled: the peer vanishes, the WebSocket sees that.

    Concurrency: each call is a pair of its own.
    """
    network = MemoryNetwork()
    if side == "server":
        async with _serve_one(network, options, None) as server:
            stream = await network.connect(HOST, 80, link=link)
            async with RawPeer(stream, client=True) as peer:
                await peer.request(headers=headers, behind=behind)
                yield await server.websocket(), peer
        return
    peers_in, peers_out = trio.open_memory_channel[RawPeer](1)

    async def accept() -> None:
        peer = RawPeer(await listener.accept(), client=False)
        await peer.accept(headers=headers, behind=behind)
        peers_in.send_nowait(peer)

    async with Background() as nursery, network.listen(HOST) as listener:
        nursery.start_soon(accept)
        opening = network.open_websocket(f"ws://{HOST}/", options=options, link=link)
        async with opening as client, await peers_out.receive() as peer:
            yield client, peer


class _OneWebSocket:
    """A handler that accepts a request, and keeps the WebSocket open until it is told."""

    def __init__(self, subprotocol: str | None, nursery: trio.Nursery) -> None:
        self._subprotocol = subprotocol
        self._nursery = nursery
        self._ws: WebSocket | None = None
        self._open = trio.Event()
        self._leave = trio.Event()
        self._left = trio.Event()

    async def handle(self, request: WebSocketRequest) -> None:
        try:
            async with request.accept(self._subprotocol) as self._ws:
                self._open.set()
                await self._leave.wait()
        finally:
            self._left.set()

    async def websocket(self) -> WebSocket:
        await self._open.wait()
        assert self._ws is not None
        return self._ws

    def expect_close(self, client: WebSocket) -> None:
        """Leave once the client's Close is here: it must not wait for what nobody receives."""

        async def watch() -> None:
            for wait in (trio.lowlevel.checkpoint, functools.partial(trio.sleep, 0.01)):
                for _ in range(100):
                    await wait()
                    if client._connection.over.is_set() or self._ws is None or self._ws.close_info:
                        self._leave.set()
                        return
            self._leave.set()

        self._nursery.start_soon(watch)

    async def leave(self) -> None:
        self._leave.set()
        await trio.lowlevel.cancel_shielded_checkpoint()
        if self._open.is_set():
            with trio.CancelScope(shield=True):  # close_grace bounds it
                await self._left.wait()


@asynccontextmanager
async def _serve_one(
    network: MemoryNetwork, options: Options, subprotocol: str | None
) -> AsyncGenerator[_OneWebSocket, None]:
    async with Background() as nursery:
        one = _OneWebSocket(subprotocol, nursery)
        serve = functools.partial(
            serve_websocket_listeners,
            one.handle,
            [network.listen(HOST)],
            options=options.replace(on_handler_error="raise"),
        )
        await nursery.start(serve)
        try:
            yield one
        finally:
            await one.leave()
