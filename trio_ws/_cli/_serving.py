"""``trio-ws serve`` and ``trio-ws echo``: a server until a signal comes."""

from __future__ import annotations

import argparse
import functools
import signal
import socket
import ssl
import sys
from typing import Any, Final

import trio

from .._application import open_application
from .._listeners import wrap_with_tls
from .._request import WebSocketRequest
from .._routes import Routes, WebSocketHandler
from .._server import (
    Server,
    serve_websocket,
    serve_websocket_listeners,
    serve_websocket_unix,
)
from .._server_connection import Handler
from .._workers import Duty, Supervisor, WorkerFailed, open_posts
from ._loading import load_handler
from ._reloading import run_reloading
from ._usage import (
    ExitCode,
    UsageError,
    check_keyfile,
    count,
    load_certificate,
    port,
    seconds,
)

STOP: Final = (signal.SIGINT, signal.SIGTERM)


def add_parsers(commands: Any) -> None:
    """Add the commands ``serve`` and ``echo``."""
    serve = commands.add_parser(
        "serve",
        help="serve a handler, Routes, or a folder",
        description="Serve module:handler, or the files of a folder, or both.",
        epilog="SIGTERM lets clients move on (Close 1012) and handlers finish; Ctrl-C says"
        " Close 1001 to all; a second signal ends at once.",
    )
    serve.set_defaults(run=run_serve)
    serve.add_argument("target", metavar="module:handler", nargs="?", help="what to serve")
    serve.add_argument("--static", metavar="DIR", help="a folder whose files are pages")
    several = serve.add_mutually_exclusive_group()
    several.add_argument("--reload", action="store_true", help="start anew when code changes")
    several.add_argument(
        "--workers",
        type=count,
        default=1,
        metavar="N",
        help="processes that share the port; SIGHUP exchanges them (default: %(default)s)",
    )
    _add_listening(serve)

    echo = commands.add_parser("echo", help="serve a handler that sends back what it gets")
    echo.set_defaults(run=run_echo)
    _add_listening(echo)


def _add_listening(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", type=port, default=8000, help="0 for any (default: %(default)s)")
    where.add_argument("--unix", metavar="PATH", help="a Unix socket instead of a port")
    where.add_argument("--fd", type=int, metavar="N", help="a socket that listens already")
    parser.add_argument("--host", default="127.0.0.1", help="interface (default: %(default)s)")
    parser.add_argument("--certfile", help="certificate chain in PEM: speak TLS")
    parser.add_argument("--keyfile", help="its private key, if it is in a file of its own")
    parser.add_argument(
        "--drain",
        type=seconds,
        default=30,
        metavar="SECONDS",
        help="how long handlers may go on after SIGTERM (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error", "critical"),
        help="what to tell on stderr (default: %(default)s)",
    )


async def run_serve(options: argparse.Namespace) -> int:
    """Run ``trio-ws serve``."""
    if options.reload:
        return await run_reloading(options.arguments)
    duty = Duty.find()
    if options.target is None and options.static is None:
        raise UsageError("name what to serve: module:handler, or a folder with --static DIR")
    application = no_websocket if options.target is None else load_handler(options.target)
    folder = None if options.static is None else _serve_folder(options.static)
    if duty is None and options.workers > 1:
        return await _supervise(options)
    async with open_application(application) as handler:
        everything = handler if folder is None else _put_beside(handler, folder)
        if duty is None:
            return await serve_until_signal(everything, options)
        context = server_context(options.certfile, options.keyfile)
        await duty.serve(everything, ssl_context=context)
    return ExitCode.OK


async def run_echo(options: argparse.Namespace) -> int:
    """Run ``trio-ws echo``."""
    return await serve_until_signal(echo, options)


async def echo(request: WebSocketRequest) -> None:
    """Send back what comes."""
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def no_websocket(request: WebSocketRequest) -> None:
    """Refuse: there is a folder, and nothing else."""
    await request.reject(404, body="there is no WebSocket here\n")


def _serve_folder(folder: str) -> Routes:
    routes = Routes()
    try:
        routes.static("/", folder)
    except NotADirectoryError as exc:
        raise UsageError(str(exc)) from exc
    return routes


def _put_beside(handler: Handler, folder: Routes) -> Routes:
    """Let pages come from the handler, if it has some, and else from a folder."""
    routes = Routes()
    if isinstance(handler, Routes):
        routes.include("/", handler)
    else:
        routes.websocket("/")(handler)
        routes.websocket("/{path:path}")(_without_path(handler))
    routes.include("/", folder)
    return routes


def _without_path(handler: Handler) -> WebSocketHandler:
    async def on_any_path(request: WebSocketRequest, *, path: str) -> None:
        await handler(request)

    return on_any_path


async def _supervise(options: argparse.Namespace) -> int:
    """Let several processes serve one port."""
    if options.unix is not None or options.fd is not None:
        raise UsageError("--workers share a port: neither --unix nor --fd go with them")
    context = server_context(options.certfile, options.keyfile)
    try:
        posts = open_posts(options.host, options.port, options.workers)
    except OSError as exc:
        raise UsageError(" ".join([str(exc), *getattr(exc, "__notes__", ())])) from exc
    port = posts[0].sockets[0].getsockname()[1]
    supervisor = Supervisor([sys.executable, "-m", "trio_ws", *options.arguments], posts)
    failure: WorkerFailed | None = None
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(supervisor.run)
        except WorkerFailed as exc:
            failure = exc
        else:
            place = f"{_place(options.host, context)}:{port}"
            print(f"serving {place}, {options.workers} workers", flush=True)
    if failure is not None:
        raise UsageError(str(failure))
    return ExitCode.OK


async def serve_until_signal(handler: Handler, options: argparse.Namespace) -> int:
    """Serve until a signal says how to stop.

    Raises:
      UsageError: the server cannot listen where it should.
    """
    serve, place = _listen(handler, options)
    failure: OSError | None = None
    with trio.open_signal_receiver(*STOP) as signals:
        async with trio.open_nursery() as nursery:
            try:
                server: Server = await nursery.start(serve)
            except OSError as exc:
                failure = exc
            else:
                if options.unix is None and options.fd is None:
                    place += f":{server.port}"
                print(f"serving {place}", flush=True)
                number = await anext(signals)
                for each in STOP:  # whoever sends a second one does not want to wait
                    signal.signal(each, signal.SIG_DFL)
                if number == signal.SIGTERM:
                    await server.drain(deadline=options.drain)
                nursery.cancel_scope.cancel(reason="a signal came")
    if failure is not None:
        why = [str(failure.strerror or failure), *getattr(failure, "__notes__", ())]
        raise UsageError(f"cannot listen on {place}: {'; '.join(why)}")
    return ExitCode.OK


def _listen(handler: Handler, options: argparse.Namespace) -> tuple[Any, str]:
    """Return what serves, to be started, and what to call the place."""
    context = server_context(options.certfile, options.keyfile)
    if options.unix is not None:
        if context is not None:
            raise UsageError("--unix and --certfile do not go together")
        return functools.partial(serve_websocket_unix, handler, options.unix), (
            f"ws+unix://{options.unix}:/"
        )
    if options.fd is not None:
        listener = _listener_of(options.fd)
        listeners = [listener] if context is None else wrap_with_tls([listener], context)
        serve = functools.partial(serve_websocket_listeners, handler, listeners)
        return serve, _place(f"descriptor {options.fd}", context)
    serve = functools.partial(
        serve_websocket, handler, options.port, host=options.host, ssl_context=context
    )
    return serve, _place(options.host, context)


def _place(host: str, context: ssl.SSLContext | None) -> str:
    schemes = "https:// and wss://" if context else "http:// and ws://"
    return schemes + (f"[{host}]" if ":" in host else host)


def _listener_of(descriptor: int) -> trio.SocketListener:
    """Take over a socket that somebody else has opened: systemd, or a process before this."""
    try:
        theirs = socket.socket(fileno=descriptor)
        return trio.SocketListener(trio.socket.from_stdlib_socket(theirs))
    except (OSError, ValueError) as exc:
        raise UsageError(f"descriptor {descriptor} is no socket that listens: {exc}") from exc


def server_context(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    """Return a context with a certificate, if there is one.

    Raises:
      UsageError: there is none in the file.
    """
    check_keyfile(certfile, keyfile)
    if certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, certfile, keyfile)
    return context
