"""A real Redis for tests: started by this process on a free port, and ended by it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from _components import PATIENCE, free_port, require, until

from trio_ws import BrokerDown, Rooms, Subscription
from trio_ws.redis import open_rooms
from trio_ws.redis._broker import RedisBroker
from trio_ws.redis._open import Opening


class RedisServer:
    """A ``redis-server``; data and log are in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, config: Path | None = None) -> None:
        self._command = [require("redis-server"), *([str(config)] if config else [])]
        self.folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *arguments: str) -> None:
        """Start it, and wait until it answers."""
        command = [*self._command, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--daemonize", "no"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # what require() has found
                [*command, *self._arguments, *arguments], stdout=log, stderr=log
            )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self.command("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return
            except OSError:
                pass
            alive = self._process.poll() is None and time.monotonic() < end
            assert alive, (self.folder / "log").read_text()
            time.sleep(0.005)

    def kill(self) -> None:
        """Let it end without a word, as ``kill -9`` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def command(self, *words: str) -> bytes:
        """Send a command, and return the first piece of its reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            encoded = b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)
            connection.sendall(b"*%d\r\n%b" % (len(words), encoded))
            return connection.recv(1 << 16)


@contextmanager
def redis_server(*arguments: str) -> Iterator[RedisServer]:
    """Run a Redis that keeps nothing on disk, unless the arguments say so."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), *arguments)
        server.start()
        try:
            yield server
        finally:
            server.stop()


async def take(messages: Subscription, count: int) -> list[Any]:
    """Return so many messages, waiting for them."""
    received: list[Any] = []
    with trio.fail_after(PATIENCE):
        while len(received) < count:
            received.append(await messages.receive())
    return received


async def refusal(url: str, **arguments: Any) -> str:
    """Return why rooms cannot be opened, as soon as it is known.

    With much patience each test would take long; with little a busy machine knows nothing yet.
    """
    for patience in (0.2, 2, PATIENCE):
        with pytest.raises(BrokerDown) as caught:
            async with open_rooms(url, patience=patience, **arguments):
                pytest.fail("they are open")
        if "not reached yet" not in str(caught.value):
            break
    return str(caught.value)


async def signs_of_life(server: RedisServer, count: int) -> None:
    """Wait until so many processes have said once more that they live."""
    keys = server.command("KEYS", "*:alive:*").decode().split("\r\n")[2::2]
    assert len(keys) == count
    for key in keys:
        assert server.command("PERSIST", key) == b":1\r\n"
    await until(lambda: all(int(server.command("PTTL", key)[1:]) > 0 for key in keys))


def open_broker_on(url: str, **arguments: Any) -> AbstractAsyncContextManager[RedisBroker]:
    """Open what is underneath ``open_rooms(url, ...)``, to be bound to a sink of one's own."""
    opening: Any = open_rooms(url, **arguments)
    return Opening(opening._broker, opening._broker)


@contextmanager
def impatient(rooms: Rooms, patience: float = 0.1) -> Iterator[None]:
    """Let rooms wait no longer than this for a Redis that is away.

    As an argument of `open_rooms` it would hold for connecting as well, which takes longer on a
    machine that is busy.
    """
    broker: Any = rooms._broker
    before, broker._patience = broker._patience, patience
    try:
        yield
    finally:
        broker._patience = before


class Cable:
    """What lies between a process and Redis, and can be cut, held, or slow."""

    def __init__(self, nursery: trio.Nursery, target: int) -> None:
        self._nursery = nursery
        self._target = target
        self._streams: set[trio.SocketStream] = set()
        self._ways = {"there": trio.Event(), "back": trio.Event()}
        self.release()
        self.broken = False
        self.delay = 0.0
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections, and take no new ones until it is mended."""
        self.broken = True
        for stream in self._streams:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        self._streams.clear()

    def mend(self) -> None:
        self.broken = False

    def hold(self, *ways: Literal["there", "back"]) -> None:
        """Let nothing through, in silence, as a network does that has lost the way."""
        for way in ways or ("there", "back"):
            self._ways[way] = trio.Event()

    def release(self) -> None:
        for free in self._ways.values():
            free.set()

    async def run(  # noqa: ASYNC114  # a name that others have for what cannot be started
        self, task_status: trio.TaskStatus[None]
    ) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            if self.broken:
                return
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                async with await trio.open_tcp_stream("127.0.0.1", self._target) as other:
                    if self.broken:  # meanwhile
                        return
                    pair = {stream, other}
                    self._streams |= pair
                    try:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._pump, "there", stream, other, nursery)
                            nursery.start_soon(self._pump, "back", other, stream, nursery)
                    finally:
                        self._streams -= pair  # what has ended by itself is not to be cut

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(serve, listeners)

    async def _pump(
        self,
        way: Literal["there", "back"],
        source: trio.SocketStream,
        sink: trio.SocketStream,
        nursery: trio.Nursery,
    ) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._ways[way].wait()
                await trio.sleep(self.delay)
                await sink.send_all(data)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_cable(target: int) -> AsyncIterator[Cable]:
    """Lay a cable to a port."""
    async with trio.open_nursery() as nursery:
        cable = Cable(nursery, target)
        await nursery.start(cable.run)
        yield cable
        nursery.cancel_scope.cancel()
