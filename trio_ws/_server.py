"""Server: from listeners to handlers, and the two ways to stop.

::

    serve_websocket_listeners
      ├─ accepts, until it is cancelled or drained (`Server._accept_from`)
      └─ a task per TCP connection: TLS, request, handler, and so on
           └─ in the handler, ``async with request.accept()``: the WebSocket's own tasks

Resource handling: listeners and streams are closed here, whatever happens.

Error handling: nothing that a peer does, and no `Exception` of a handler, ends the
server (unless ``Options(on_handler_error="raise")`` asks for that). What a listener
raises, but for the shortage of descriptors, does.

Stopping: cancelling the server says Close 1001 to every connection and cancels the
handlers; `Server.drain` says Close 1012, in batches if so wished, and gives handlers
time. Either way ``Options.close_grace`` bounds what a silent peer can make us wait.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Sequence
from typing import Any

import trio

from ._flag import Flag
from ._listeners import (
    PatientListener,
    check_server_context,
    open_tcp_listeners,
    open_unix_listener,
    tcp_port,
    wrap_with_tls,
)
from ._messages import CloseCode, check_close
from ._options import Options, check_options
from ._pump import open_pump
from ._server_connection import Handler, ServerConnection, ServerState
from ._server_statistics import ServerStatistics
from ._websocket import WebSocket


class Server:
    """A running server: what ``await nursery.start(serve_websocket, ...)`` returns."""

    def __init__(
        self, handler: Handler, listeners: Sequence[trio.abc.Listener[Any]], options: Options
    ) -> None:
        self._listeners = tuple(listeners)
        if not self._listeners:
            raise ValueError("there is no listener to serve")
        self._ports = tuple(port for each in self._listeners if (port := tcp_port(each)))
        self._state = ServerState(handler, options)
        self._accepting = trio.CancelScope()

    @property
    def listeners(self) -> tuple[trio.abc.Listener[Any], ...]:
        """The listeners that it serves."""
        return self._listeners

    @property
    def port(self) -> int:
        """The first TCP port among the listeners.

        Raises:
          LookupError: there is none.
        """
        if not self._ports:
            raise LookupError("none of the listeners has a TCP port")
        return self._ports[0]

    @property
    def connections(self) -> tuple[WebSocket, ...]:
        """The WebSockets that are open."""
        found = (each.websocket for each in self._state.connections)
        return tuple(ws for ws in found if ws is not None and ws.close_info is None)

    @property
    def draining(self) -> Flag:
        """Whether it stops, by `drain` or cancelled: true, or awaited with ``draining.wait()``.

        A load balancer shall send nobody here any more.
        """
        return self._state.draining

    def statistics(self) -> ServerStatistics:
        """Return what is open, and what has been."""
        return self._state.statistics()

    async def drain(
        self,
        code: int = CloseCode.SERVICE_RESTART,
        reason: str = "",
        deadline: float = 30,
        batch: int | None = None,
        interval: float = 0,
    ) -> None:
        """Stop the patient way: let clients move on before the server ends.

        At once `draining` and each ``ws.draining`` are set, and new requests get 503 with
        Retry-After. Then connections are told Close ``code``: all of them, or ``batch`` at
        a time with ``interval`` seconds between, so that they do not all come back in the
        same instant. Handlers may finish until ``deadline`` seconds have gone by; those
        that have not are cancelled. At last the listeners are closed, and the function
        that served them returns.

        Raises:
          TypeError, ValueError: a code or reason that must not be sent; a batch, deadline
              or interval that is negative.

        If cancelled: no new connections are taken still, but nothing else is stopped.

        Concurrency: any number of tasks.
        """
        check_close(code, reason)
        if batch is not None and batch < 1:
            raise ValueError(f"a batch has at least one connection, not {batch}")
        if deadline < 0 or interval < 0:
            raise ValueError("deadline and interval are 0 or more seconds")
        state = self._state
        state.stop(int(code), reason)
        with trio.move_on_after(deadline):
            await self._say_close(code, reason, batch or len(state.connections) or 1, interval)
            await state.wait_until(lambda: not any(each.busy for each in state.connections))
        self._accepting.cancel(reason="the server was drained")
        self._cancel_handlers("the server was drained", code, reason)
        await self._wait_for_all()

    async def _say_close(self, code: int, reason: str, batch: int, interval: float) -> None:
        waiting = [each for each in self._state.connections if each.websocket is not None]
        for start in range(0, len(waiting), batch):
            if start:
                await trio.sleep(interval)
            for connection in waiting[start : start + batch]:
                connection.begin_close(code, reason)
        await trio.lowlevel.checkpoint()

    def _cancel_handlers(self, why: str, code: int, reason: str) -> None:
        self._state.over = True
        for connection in tuple(self._state.connections):
            connection.begin_close(code, reason)
            connection.scope.cancel(reason=why)

    async def _wait_for_all(self) -> None:
        with trio.move_on_after(self._state.options.close_grace):
            await self._state.wait_until(lambda: not self._state.connections)

    async def _serve(
        self,
        handler_nursery: trio.Nursery | None,
        task_status: trio.TaskStatus[Server],
    ) -> None:
        """Serve until drained or cancelled, then see to it that every peer is told."""
        try:
            async with trio.open_nursery() as nursery:
                pump = self._state.pump = open_pump()
                if pump is not None:
                    with trio.CancelScope(shield=True):  # the listeners are to be closed yet
                        await nursery.start(pump.work)
                try:
                    await self._accept(handler_nursery or nursery, task_status)
                finally:
                    if pump is not None:
                        pump.stop()
        except BaseExceptionGroup as group:
            # Ctrl-C: our nurseries are nobody's business.
            rest = group.split((KeyboardInterrupt, trio.Cancelled))[1]
            if rest is None and group.subgroup(KeyboardInterrupt) is not None:
                raise KeyboardInterrupt from None
            raise

    async def _accept(
        self, handler_nursery: trio.Nursery, task_status: trio.TaskStatus[Server]
    ) -> None:
        listeners = [PatientListener(each, self._count_shortage) for each in self._listeners]
        try:
            with self._accepting:
                task_status.started(self)
                async with trio.open_nursery() as nursery:
                    for each in listeners:
                        nursery.start_soon(self._accept_from, each, handler_nursery)
        except BaseException:  # cancelled, interrupted, or a listener is of no more use
            self._state.stop(CloseCode.GOING_AWAY, "")
            self._cancel_handlers("the server ends", CloseCode.GOING_AWAY, "")
            with trio.CancelScope(shield=True):
                await self._wait_for_all()
            raise

    def _count_shortage(self) -> None:
        self._state.accept_failures += 1

    async def _accept_from(self, listener: PatientListener, handler_nursery: trio.Nursery) -> None:
        """Do as `trio.serve_listeners`, but for the end: `ServerConnection.run` sees to that."""
        async with listener:
            while True:
                stream = await listener.accept()
                try:
                    handler_nursery.start_soon(self._serve_stream, stream)
                except BaseException:  # the nursery, which may be the user's, has been closed
                    await trio.aclose_forcefully(stream)
                    raise

    def _serve_stream(self, stream: trio.abc.Stream) -> Awaitable[None]:
        return ServerConnection(stream, self._state).run()


async def serve_websocket(
    handler: Handler,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    options: Options = Options(),
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSockets on a TCP port, for ever: ``trio.run(serve_websocket, handler, 8000)``.

    ``handler`` is an async function of one `WebSocketRequest`, or a `Routes`. ``port`` 0
    takes any that is free; ``host`` is the interface to listen on, all of them by default;
    ``backlog`` as in `trio.open_tcp_listeners`. With an ``ssl_context`` TLS is spoken.
    Handlers run in ``handler_nursery`` if there is one.

    ``await nursery.start(...)`` returns the `Server`. Returns only after `Server.drain`.

    Raises:
      OSError: the port cannot be listened on.
      TypeError, ValueError: an argument is of no use: a context without a certificate, ...

    If cancelled: listeners close, every connection gets Close 1001 and its handler is
    cancelled, all within ``options.close_grace``.

    Concurrency: any number of servers.
    """
    check_handler(handler)
    check_options(options)
    if ssl_context is not None:
        check_server_context(ssl_context)
    listeners: Sequence[trio.abc.Listener[Any]]
    listeners = tcp = await open_tcp_listeners(port, host=host, backlog=backlog)
    if ssl_context is not None:
        listeners = wrap_with_tls(tcp, ssl_context)
    await serve_websocket_listeners(
        handler,
        listeners,
        options=options,
        handler_nursery=handler_nursery,
        task_status=task_status,
    )


async def serve_websocket_unix(
    handler: Handler,
    path: str | os.PathLike[str],
    *,
    mode: int = 0o600,
    options: Options = Options(),
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSockets on a Unix socket; clients connect to ``ws+unix:///path:/target``.

    ``mode`` are the permissions of the socket: only its owner, by default. A socket that
    a dead process left at ``path`` is replaced; ours is removed in the end.

    Raises:
      OSError: another server listens there, or the socket cannot be made.
      TypeError: the handler is none.

    If cancelled, concurrency: as `serve_websocket`.
    """
    check_handler(handler)
    check_options(options)
    listener, file = await open_unix_listener(path, mode)
    try:
        await serve_websocket_listeners(
            handler,
            [listener],
            options=options,
            handler_nursery=handler_nursery,
            task_status=task_status,
        )
    finally:
        file.remove()


async def serve_websocket_listeners(
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[Any]],
    *,
    options: Options = Options(),
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSockets on listeners of any kind; they are closed in the end.

    Raises:
      ValueError: there are no listeners.
      TypeError: the handler is none.
      Whatever a listener's ``accept`` raises, but for the shortage of descriptors; in a
          group, like all that leaves a nursery.

    If cancelled, concurrency: as `serve_websocket`.
    """
    check_handler(handler)
    check_options(options)
    await Server(handler, listeners, options)._serve(handler_nursery, task_status)


def check_handler(handler: object) -> None:
    if not callable(handler):
        raise TypeError(
            "a handler is an async function of one request, or Routes, "
            f"not {type(handler).__name__}"
        )
