"""A real Redis for tests: started by this process on a free port, and ended by it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any, Final

import trio
from _components import require

from trio_ws.redis import open_rooms
from trio_ws.redis._broker import RedisBroker
from trio_ws.redis._open import Opening

PATIENCE: Final = 10  # seconds in which it starts


class RedisServer:
    """A ``redis-server``; data and log are in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._program = require("redis-server")
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
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1"]
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
            assert time.monotonic() < end, (self.folder / "log").read_text()
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


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


def open_broker_on(url: str, **arguments: Any) -> AbstractAsyncContextManager[RedisBroker]:
    """Open what is underneath ``open_rooms(url, ...)``, to be bound to a sink of one's own."""
    opening: Any = open_rooms(url, **arguments)
    return Opening(opening._broker, opening._broker)


async def until(condition: Callable[[], bool], patience: float = 5) -> None:
    """Wait for what other programs have a part in."""
    with trio.fail_after(patience):
        while not condition():  # noqa: ASYNC110  # other programs set no events here
            await trio.sleep(0.005)


class Cable:
    """What lies between a process and Redis, and can be cut, held, or slow."""

    def __init__(self, nursery: trio.Nursery, target: int) -> None:
        self._nursery = nursery
        self._target = target
        self._streams: set[trio.SocketStream] = set()
        self._free = trio.Event()
        self._free.set()
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

    def hold(self) -> None:
        """Let nothing through, in silence, as a network does that has lost the way."""
        self._free = trio.Event()

    def release(self) -> None:
        self._free.set()

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
                            nursery.start_soon(self._pump, stream, other, nursery)
                            nursery.start_soon(self._pump, other, stream, nursery)
                    finally:
                        self._streams -= pair  # what has ended by itself is not to be cut

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(serve, listeners)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, nursery: trio.Nursery
    ) -> None:
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await self._free.wait()
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
