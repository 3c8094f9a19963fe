"""A server in memory: a listener without a network, visitors who speak HTTP in literal bytes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import trio
import trio.testing
from _helpers import Peer, Role, connected_streams
from multidict import CIMultiDict

from trio_ws import (
    Options,
    Server,
    WebSocket,
    WebSocketRequest,
    open_websocket_over_stream,
    serve_websocket_listeners,
)
from trio_ws._budget import Budget
from trio_ws._client import Opening
from trio_ws.testing import Direction, Link

Handler = Callable[[WebSocketRequest], Awaitable[object]]

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3


def get(target: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Return a request for a page."""
    lines = [f"{method} {target} HTTP/{version}", "Host: test", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def upgrade(target: str = "/", *headers: str, method: str = "GET") -> bytes:
    """Return a request for a WebSocket."""
    return get(
        target,
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *headers,
        method=method,
    )


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def sleep(request: WebSocketRequest) -> None:
    """Accept, and then look neither left nor right."""
    async with request.accept():
        await trio.sleep_forever()


class MemoryListener(trio.abc.Listener[trio.SocketStream]):
    """A listener without a network: who calls `connect` is accepted."""

    def __init__(self) -> None:
        self._arrive, self._accept = trio.open_memory_channel[trio.SocketStream](math.inf)
        self.visitors: list[Visitor] = []
        """All that there were."""
        self.closed = False

    def connect(self) -> Visitor:
        """Return the client's end of a new connection."""
        link, streams = connected_streams()
        self._arrive.send_nowait(streams["server"])
        self.visitors.append(Visitor(link, streams))
        return self.visitors[-1]

    async def accept(self) -> trio.SocketStream:
        return await self._accept.receive()

    async def aclose(self) -> None:
        self.closed = True
        with contextlib.suppress(trio.WouldBlock):
            while True:
                await trio.aclose_forcefully(self._accept.receive_nowait())  # came too late
        await self._accept.aclose()


@attrs.frozen
class Answer:
    """What came over HTTP."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class Visitor:
    """A client that sends literal bytes, and reads answers one after the other."""

    def __init__(self, link: Link, streams: dict[Role, trio.SocketStream]) -> None:
        self.link = link
        self.stream = streams["client"]
        self.far = streams["server"]
        self.data = bytearray()

    @property
    def way(self) -> Direction:
        """What the server sends."""
        return self.link.to_client

    @property
    def left(self) -> bool:
        """Whether the server has ended TCP."""
        return self.far.socket.fileno() == -1

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, *, body: bool = True) -> Answer:
        """Return the next answer; without ``body`` that of a request with HEAD."""
        while b"\r\n\r\n" not in self.data:
            await self._read()
        head, _, rest = bytes(self.data).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = CIMultiDict(tuple(line.split(": ", 1)) for line in lines)
        length = int(headers.get("Content-Length", "0")) if body else 0
        self.data[:] = rest
        while len(self.data) < length:
            await self._read()
        content = bytes(self.data[:length])
        del self.data[:length]
        version, status, *_ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        return Answer(int(status), headers, content)

    async def _read(self) -> None:
        data = await self.stream.receive_some(65536)
        assert data, f"TCP has ended behind {bytes(self.data)!r}"
        self.data += data

    async def ask(self, request: bytes, *, body: bool = True) -> Answer:
        """Send a request, return the answer."""
        await self.send(request)
        return await self.answer(body=body)

    async def until_eof(self) -> bytes:
        """Return all there is to come."""
        try:
            while data := await self.stream.receive_some(65536):
                self.data += data
        except trio.BrokenResourceError:  # reset
            pass
        return bytes(self.data)

    async def switch(self, request: bytes = upgrade()) -> Peer:
        """Open a WebSocket; from here on, frames."""
        answer = await self.ask(request)
        assert answer.status == 101, answer
        return self.frames()

    def frames(self) -> Peer:
        """Return a peer who goes on from here."""
        streams: dict[Role, trio.SocketStream] = {"client": self.stream, "server": self.far}
        return Peer("client", self.link, streams, leftover=bytes(self.data))


class Site:
    """A server that runs, and the way to it."""

    def __init__(self, listener: MemoryListener, nursery: trio.Nursery) -> None:
        self.listener = listener
        self.nursery = nursery
        """For whatever a test does at the same time."""
        self.server: Server
        self.scope = trio.CancelScope()
        """What the server runs in: cancelled, it stops."""
        self.over = trio.Event()

    async def _serve(
        self, handler: Handler, task_status: trio.TaskStatus[Server], **arguments: Any
    ) -> None:
        with self.scope:
            await serve_websocket_listeners(
                handler, [self.listener], task_status=task_status, **arguments
            )
        self.over.set()

    def visit(self) -> Visitor:
        return self.listener.connect()

    def open(self, path: str = "/", **arguments: Any) -> Opening:
        stream = self.listener.connect().stream
        return open_websocket_over_stream(stream, f"ws://test{path}", **arguments)

    def assert_nothing_left(self) -> None:
        assert self.listener.closed
        assert all(visitor.left for visitor in self.listener.visitors)
        assert not self.server._state.connections
        assert self.server.statistics().connections == 0


@asynccontextmanager
async def serve(
    handler: Handler, options: Options = Options(), **arguments: Any
) -> AsyncIterator[Site]:
    """Serve a handler for the length of the block; then nothing may be left of it."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        site = Site(listener, nursery)
        start = partial(site._serve, handler, options=options, **arguments)
        site.server = await nursery.start(start)
        yield site
        site.scope.cancel()
        await site.over.wait()
        nursery.cancel_scope.cancel()
    site.assert_nothing_left()


@asynccontextmanager
async def bounded(
    limit: float, handler: Handler = echo, **options: Any
) -> AsyncIterator[tuple[Site, Budget]]:
    """Serve with a budget; at the end nothing may be left in the books."""
    async with serve(handler, Options(memory_budget=limit, **options)) as site:
        budget = site.server._state.budget
        assert budget is not None
        yield site, budget
    assert budget.used == 0
    assert not budget._accounts
    assert not budget._waiting


class Steps(trio.abc.Instrument):
    """Does something after so many steps of all tasks together."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self._step = step
        self._action = action
        self.fired = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step -= 1
        if self._step == 0:
            self.fired = True
            self._action()


@contextlib.contextmanager
def after_steps(step: int, action: Callable[[], object]) -> Iterator[Steps]:
    """Let something happen at the n-th step of the block."""
    instrument = Steps(step, action)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def open_one(site: Site, path: str = "/") -> Peer:
    """Return a peer of literal bytes whose WebSocket is open, as the handler knows, too."""
    peer = await site.visit().switch(upgrade(path))
    await trio.testing.wait_all_tasks_blocked()
    return peer


def websocket_of(site: Site) -> WebSocket:
    """Return the only WebSocket that the server has open."""
    (ws,) = site.server.connections
    return ws
