"""The command line: ``trio-ws serve module:handler`` and ``trio-ws connect URL``."""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import signal
import ssl
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final

import trio

from ._application import open_application
from ._client import open_websocket
from ._errors import WebSocketError
from ._routes import Routes
from ._server import Server, serve_websocket
from ._server_connection import Handler
from ._url import parse_url
from ._websocket import WebSocket
from ._workers import Duty, Supervisor, WorkerFailed, open_posts


class UsageError(Exception):
    """What the user asked for cannot be done; the text says what to do instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for a failure, 2 for wrong use."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        return int(trio.run(options.run, options))
    except UsageError as exc:
        print(f"trio-ws: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # as a shell counts it: 128 + SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trio-ws", description="WebSockets on trio.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a handler or Routes")
    serve.set_defaults(run=_serve)
    serve.add_argument("target", metavar="module:handler", help="what to serve")
    serve.add_argument("--host", default="127.0.0.1", help="interface (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="0 for any (default: %(default)s)")
    serve.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the port; SIGHUP exchanges them (default: %(default)s)",
    )
    serve.add_argument("--certfile", help="certificate chain in PEM: speak TLS")
    serve.add_argument("--keyfile", help="its private key, if it is in a file of its own")

    connect = commands.add_parser("connect", help="send lines of stdin, print what comes")
    connect.set_defaults(run=_connect)
    connect.add_argument("url", metavar="URL", help="ws://, wss:// or ws+unix://")
    connect.add_argument("--subprotocol", action="append", default=[], help="may be repeated")
    connect.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="may be repeated"
    )
    connect.add_argument(
        "--linger",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="close after so much silence once stdin has ended (default: %(default)s)",
    )
    return parser


# trio-ws serve...


_STOP: Final = (signal.SIGINT, signal.SIGTERM)


async def _serve(options: argparse.Namespace) -> int:
    duty = Duty.find()
    application = load_handler(options.target)
    context = _server_context(options.certfile, options.keyfile)
    if duty is None and options.workers > 1:
        return await _supervise(options, context)
    async with open_application(application) as handler:
        if duty is not None:
            await duty.serve(handler, ssl_context=context)
            return 0
        return await _serve_alone(handler, options, context)


async def _supervise(options: argparse.Namespace, context: ssl.SSLContext | None) -> int:
    try:
        posts = open_posts(options.host, options.port, options.workers)
    except OSError as exc:
        raise UsageError(" ".join([str(exc), *getattr(exc, "__notes__", ())])) from exc
    port = posts[0].sockets[0].getsockname()[1]
    supervisor = Supervisor([sys.executable, "-m", "trio_ws", *sys.argv[1:]], posts)
    failure: WorkerFailed | None = None
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(supervisor.run)
        except WorkerFailed as exc:
            failure = exc
        else:
            schemes = "https:// and wss://" if context else "http:// and ws://"
            print(f"serving {schemes}{options.host}:{port}, {options.workers} workers", flush=True)
    if failure is not None:
        raise UsageError(str(failure))
    return 0


async def _serve_alone(
    handler: Handler, options: argparse.Namespace, context: ssl.SSLContext | None
) -> int:
    with trio.open_signal_receiver(*_STOP) as signals:
        async with trio.open_nursery() as nursery:

            async def start(task_status: trio.TaskStatus[Server]) -> None:
                await serve_websocket(
                    handler,
                    options.port,
                    host=options.host,
                    ssl_context=context,
                    task_status=task_status,
                )

            server: Server = await nursery.start(start)
            schemes = "https:// and wss://" if context else "http:// and ws://"
            print(f"serving {schemes}{options.host}:{server.port}", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="a signal came")
            for number in _STOP:  # whoever sends a second one does not want to wait
                signal.signal(number, signal.SIG_DFL)
    return 0


def load_handler(target: str) -> Handler:
    """Import ``module:handler``.

    Raises:
      UsageError: there is no such module, or nothing to serve of that name in it.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise UsageError(f"{target!r} is not of the form module:handler")
    sys.path.insert(0, "")  # as python -m does: the current folder
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        raise UsageError(f"there is no module {exc.name!r} here or among the installed") from exc
    handler: Handler | None = getattr(module, name, None)
    if handler is None or not callable(handler):
        found = ", ".join(_candidates(module)) or "nothing that could be served"
        raise UsageError(f"no handler {name!r} in {module_name}: it has {found}")
    return handler


def _candidates(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, Routes)
        or (inspect.iscoroutinefunction(value) and value.__module__ == module.__name__)
    ]


def _server_context(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    if certfile is None:
        if keyfile is not None:
            raise UsageError("--keyfile goes with --certfile")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"no certificate in {certfile}: {exc}") from exc
    return context


# trio-ws connect...


async def _connect(options: argparse.Namespace) -> int:
    headers = [_split_header(each) for each in options.header]
    try:
        opening = open_websocket(options.url, subprotocols=options.subprotocol, headers=headers)
    except ValueError as exc:
        raise UsageError(str(exc)) from exc
    try:
        async with opening as ws, ws.open_nursery() as nursery:
            nursery.start_soon(_print_messages, ws)
            nursery.start_soon(_send_lines, ws, options.linger)
        info = ws.close_info
        assert info is not None
    except (WebSocketError, OSError) as exc:
        print(f"trio-ws: {parse_url(options.url)}: {exc}", file=sys.stderr)  # no password
        return 1
    if not info.polite:
        print(f"trio-ws: {info}", file=sys.stderr)
    return 0 if info.polite else 1


def _split_header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"the header {text!r} is not of the form NAME:VALUE")
    return name.strip(), value.strip()


async def _print_messages(ws: WebSocket) -> None:
    async for message in ws:
        print(message if isinstance(message, str) else message.hex(" "), flush=True)


async def _send_lines(ws: WebSocket, linger: float) -> None:
    """Send what is typed or piped; behind its end wait until the answers cease."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        await ws.send(line.rstrip("\n"))
    received = -1
    while received != ws.statistics().messages_received:
        received = ws.statistics().messages_received
        await trio.sleep(linger)
    await ws.aclose()
