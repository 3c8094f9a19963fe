"""Workers: several processes that serve one port, and the supervisor that keeps them at it.

::

    supervisor ─ opens a socket per post (SO_REUSEPORT: the kernel spreads connections)
        ├─ post 1: worker ─ ends by itself ─→ another one, after a pause
        ├─ post 2: worker
        │    └─ SIGHUP: a new worker at the same socket; once it is ready, the old one drains
        └─ SIGTERM, SIGINT: all of them drain; a second signal kills them

The sockets are the supervisor's and stay open, so nobody is refused while a worker is
exchanged or restarted: who connects meanwhile waits in the socket's queue for the next one.

A worker is told by its environment that it is one. Between it and the supervisor there is a
socket: the worker says on it that it is ready, and either hears on it that the other is gone.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Any, Final, Self

import attrs
import trio

from ._options import Options
from ._server import Server, serve_websocket_listeners
from ._server_connection import Handler

logger: Final = logging.getLogger("trio_ws")

VARIABLE: Final = "TRIO_WS_WORKER"
"""The environment of a worker: the descriptors of its line to the supervisor, and its sockets."""

START: Final = 60.0
"""Seconds that a worker may take until it serves: imports, and what the program opens first."""

DRAIN: Final = 30.0
"""Seconds in which handlers may finish, as `Server.drain`."""

SETTLE: Final = 1.0
"""Seconds that a draining worker waits for requests of connections that it has accepted."""

PATIENCE: Final = DRAIN + 15
"""Seconds until a worker that was told to stop is killed: draining, and closing what is open."""

STEADY: Final = 10.0
"""Seconds behind which a worker that ends is no reason to wait before the next one starts."""

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0


# The supervisor...


class WorkerFailed(Exception):
    """A worker did not get as far as to serve; it has said why."""


@attrs.define(eq=False)
class Worker:
    """A process at a post."""

    process: trio.Process
    line: trio.SocketStream
    since: float
    dismissed: bool = False
    over: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class Post:
    """Sockets, and the worker that serves them."""

    number: int
    sockets: list[socket.socket]
    worker: Worker | None = None
    pause: float = FIRST_PAUSE


def open_posts(host: str | None, port: int, count: int) -> list[Post]:
    """Open sockets for so many workers, all of them on one port; 0: any.

    Raises:
      OSError: the port is in use, or the host is none of this machine's.
    """
    posts = [Post(number + 1, []) for number in range(count)]
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, kind, _, _, address in infos:
            with _bound(family, kind, (address[0], port), shared=False) as probe:
                port = probe.getsockname()[1]  # nobody else has it
            for post in posts:
                sock = _bound(family, kind, (address[0], port), shared=True)
                post.sockets.append(sock)
                sock.listen(_BACKLOG)
    except OSError as exc:
        for post in posts:
            for sock in post.sockets:
                sock.close()
        if exc.errno == errno.EADDRINUSE:
            exc.add_note(f"port {port} is in use: stop what listens there, or take another port")
        raise
    return posts


_BACKLOG: Final = 65535  # as trio.open_tcp_listeners: the kernel cuts it to what it allows


def _bound(family: int, kind: int, address: tuple[Any, int], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Supervisor:
    """Keeps a worker at each post.

    ``command`` starts one: a program that asks `Duty.find` for its sockets.
    """

    def __init__(self, command: Sequence[str], posts: Sequence[Post]) -> None:
        self._command = list(command)
        self._posts = posts
        self._workers: set[Worker] = set()
        self._stopping = False
        self._nursery: trio.Nursery

    async def run(  # noqa: ASYNC114  # a name that others have for what cannot be started
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start the workers, and keep them running until a signal ends them.

        Raises:
          WorkerFailed: one of the first workers does not come to serve.

        If cancelled: the workers are killed.
        """
        failed = False
        try:
            with trio.open_signal_receiver(*_SIGNALS) as signals:
                async with trio.open_nursery() as self._nursery:
                    self._nursery.start_soon(self._obey, signals)
                    failed = not await self._start_all()
                    if failed:
                        await self._stop()
                    else:
                        task_status.started()
        finally:
            for post in self._posts:
                for sock in post.sockets:
                    sock.close()
        if failed:
            raise WorkerFailed("a worker did not come to serve: it has said why above")

    async def _start_all(self) -> bool:
        """Return whether all of them serve."""

        async def start(post: Post) -> None:
            post.worker = await self._hire(post)

        async with trio.open_nursery() as nursery:
            for post in self._posts:
                nursery.start_soon(start, post)
        return self._stopping or all(post.worker is not None for post in self._posts)

    async def _obey(self, signals: AsyncIterable[int]) -> None:
        async for number in signals:
            if self._stopping:
                if number != signal.SIGHUP:
                    logger.warning("workers: killed, because a second signal came")
                    self._nursery.cancel_scope.cancel(reason="a second signal came")
            elif number == signal.SIGHUP:
                self._nursery.start_soon(self._exchange_all)
            else:
                self._nursery.start_soon(self._stop)

    async def _stop(self) -> None:
        self._stopping = True
        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(self._dismiss, worker)
        self._nursery.cancel_scope.cancel(reason="the workers have ended")

    # One worker...

    async def _hire(self, post: Post) -> Worker | None:
        """Start a worker; return it once it serves."""
        ours, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *(sock.fileno() for sock in post.sockets)]
        with theirs:
            process = await trio.lowlevel.open_process(
                self._command,
                pass_fds=descriptors,
                env={**os.environ, VARIABLE: ",".join(map(str, descriptors))},
            )
        line = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        worker = Worker(process, line, trio.current_time())
        self._workers.add(worker)
        self._nursery.start_soon(self._watch, post, worker)
        with trio.move_on_after(START), contextlib.suppress(*_LINE_GONE):
            if await line.receive_some(1):
                return worker
        worker.dismissed = True
        process.kill()
        await worker.over.wait()
        return None

    async def _watch(self, post: Post, worker: Worker) -> None:
        """Wait for the end of a worker, and start another one if it is missed."""
        try:
            code = await worker.process.wait()
        finally:
            if worker.process.returncode is None:
                worker.process.kill()
            with trio.CancelScope(shield=True):
                await worker.process.wait()
            self._workers.remove(worker)
            worker.over.set()
            worker.line.socket.close()
        if worker.dismissed or self._stopping or post.worker is not worker:
            return
        logger.error("worker %d has ended with %d: another one starts", post.number, code)
        post.worker = None
        if trio.current_time() - worker.since > STEADY:
            post.pause = FIRST_PAUSE
        while post.worker is None and not self._stopping:
            await trio.sleep(post.pause)
            post.pause = min(2 * post.pause, LONGEST_PAUSE)
            post.worker = await self._hire(post)

    async def _exchange_all(self) -> None:
        """Exchange the workers, one after the other."""
        for post in self._posts:
            old = post.worker
            if self._stopping or old is None:
                continue  # it is about to be a new one anyway
            new = await self._hire(post)
            if new is None:
                logger.error("worker %d stays: the new one does not serve", post.number)
                continue
            post.worker = new
            logger.info("worker %d is exchanged", post.number)
            self._nursery.start_soon(self._dismiss, old)

    async def _dismiss(self, worker: Worker) -> None:
        """Let a worker drain."""
        worker.dismissed = True
        worker.process.terminate()
        with trio.move_on_after(PATIENCE):
            await worker.over.wait()
            return
        logger.error("a worker did not stop in time: killed")
        worker.process.kill()
        await worker.over.wait()


_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LINE_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


# A worker...


class Duty:
    """What a supervisor has told this process: to serve its sockets, until it is told to stop."""

    def __init__(self, line: socket.socket, sockets: Sequence[socket.socket]) -> None:
        self._line = trio.SocketStream(trio.socket.from_stdlib_socket(line))
        self._listeners = [
            StoppableListener(trio.SocketListener(trio.socket.from_stdlib_socket(each)))
            for each in sockets
        ]

    @classmethod
    def find(cls) -> Self | None:
        """Return the duty of this process, if it is a worker; call it once, inside of trio."""
        told = os.environ.pop(VARIABLE, None)  # or what it starts would believe it was one, too
        if told is None:
            return None
        line, *sockets = [socket.socket(fileno=int(each)) for each in told.split(",")]
        return cls(line, sockets)

    async def serve(
        self,
        handler: Handler,
        *,
        ssl_context: ssl.SSLContext | None = None,
        options: Options = Options(),
    ) -> None:
        """Serve until the supervisor says to stop, or is gone; then drain.

        If cancelled: as `serve_websocket`.
        """
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to workers, too
            signal.signal(number, signal.SIG_IGN)
        listeners: list[trio.abc.Listener[Any]] = [*self._listeners]
        if ssl_context is not None:
            listeners = [
                trio.SSLListener(each, ssl_context, https_compatible=True) for each in listeners
            ]
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                serve = functools.partial(serve_websocket_listeners, options=options)
                server: Server = await nursery.start(serve, handler, listeners)
                nursery.start_soon(self._drain_when_told, server, signals)
                await self._line.send_all(b"+")
                with self._line.socket, contextlib.suppress(*_LINE_GONE):
                    await self._line.receive_some(1)
                await self._drain(server)  # the supervisor is gone
                nursery.cancel_scope.cancel(reason="the supervisor is gone")

    async def _drain_when_told(self, server: Server, signals: AsyncIterator[int]) -> None:
        await anext(signals)
        await self._drain(server)
        self._line.socket.close()  # which ends the wait for the supervisor's end

    async def _drain(self, server: Server) -> None:
        """Take nobody any more; answer those who were taken; then end."""
        for listener in self._listeners:
            listener.stop()
        with trio.move_on_after(SETTLE):
            while server.statistics().opening:  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.01)
        await server.drain(deadline=DRAIN)


class StoppableListener(trio.abc.Listener[trio.SocketStream]):
    """A listener that can stop to accept, and leave the queue to another process."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self._stopped = False
        self._scope: trio.CancelScope | None = None

    @property
    def socket(self) -> trio.socket.SocketType:
        """Its socket."""
        return self._listener.socket

    def stop(self) -> None:
        """Accept nobody any more."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel(reason="somebody else accepts from now on")

    async def accept(self) -> trio.SocketStream:
        """Return the next connection."""
        if not self._stopped:
            with trio.CancelScope() as self._scope:
                return await self._listener.accept()
        return await trio.sleep_forever()

    async def aclose(self) -> None:
        """Close it in this process."""
        await self._listener.aclose()
