"""``trio-ws connect``: a client at a terminal, or in a pipe."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TextIO

import trio

from .._client import Opening, open_websocket
from .._errors import ConnectionClosed, ConnectionRejected, WebSocketError
from .._messages import CloseInfo
from .._streams import READ_SIZE
from .._tls import TRUST_ANOTHER
from .._url import parse_url
from .._websocket import WebSocket
from ._usage import ExitCode, UsageError, client_context, split_header
from ._words import (
    HELP,
    Close,
    Command,
    Help,
    Ping,
    as_json,
    as_line,
    close_as_json,
    defuse,
    for_eyes,
    message_as_json,
    parse_json,
    parse_typed,
)


def add_parser(commands: Any) -> None:
    """Add the command ``connect``."""
    connect = commands.add_parser(
        "connect",
        help="talk to a server: at a terminal, or in a pipe",
        description="At a terminal: type lines, see what comes; /help tells more. In a pipe: each"
        " line of stdin is a message, each message is a line of stdout (bytes as hex).",
        epilog="Exit codes: 0 closed politely (1000, 1001, no code), 1 closed otherwise or lost,"
        " 2 wrong use, 3 no connection, 4 the server refused, 130 Ctrl-C.",
    )
    connect.set_defaults(run=run_connect)
    connect.add_argument("url", metavar="URL", help="ws://, wss:// or ws+unix://")
    add_connecting(connect)
    connect.add_argument("--subprotocol", action="append", default=[], help="may be repeated")
    connect.add_argument(
        "--json", action="store_true", help="a JSON object a line, in and out: for scripts"
    )
    connect.add_argument(
        "--ping", type=float, metavar="SECONDS", help="ping so often, and tell the latency"
    )
    connect.add_argument(
        "--linger",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="close after so much silence once stdin has ended (default: %(default)s)",
    )


def add_connecting(parser: argparse.ArgumentParser) -> None:
    """Add what all clients may be told."""
    parser.add_argument(
        "--header", action="append", default=[], metavar="NAME:VALUE", help="may be repeated"
    )
    parser.add_argument(
        "--proxy",
        default="environment",
        metavar="URL",
        help="http://, https:// or socks5h://; 'none' for none (default: as the environment says)",
    )
    parser.add_argument("--cafile", help="certificates in PEM of who may sign the server's")


def open_as_told(options: argparse.Namespace) -> Opening:
    """Make the connection that the options describe; entering it connects.

    Raises:
      UsageError: they make no sense.
    """
    try:
        return open_websocket(
            options.url,
            subprotocols=getattr(options, "subprotocol", ()),
            headers=[split_header(each) for each in options.header],
            ssl_context=client_context(options.cafile),
            proxy=None if options.proxy == "none" else options.proxy,
        )
    except (ValueError, TypeError) as exc:
        raise UsageError(str(exc)) from exc


class Surface(Protocol):
    """Where things are shown, and commands come from."""

    async def next_command(self) -> Command | None:
        """Return what is to be done next, `None` if there is nothing more to come."""
        ...

    def show_message(self, message: str | bytes) -> None:
        """Show what has been received."""
        ...

    def show_latency(self, seconds: float) -> None:
        """Show how long a ping took."""
        ...

    def show_end(self, info: CloseInfo) -> None:
        """Show how the connection ended."""
        ...

    def show_help(self) -> None:
        """Show what can be done."""
        ...


async def run_connect(options: argparse.Namespace) -> int:
    """Run ``trio-ws connect``."""
    opening = open_as_told(options)
    try:
        async with opening as ws, _open_surface(options, ws) as surface:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(_show_messages, ws, surface)
                nursery.start_soon(_obey, ws, surface, options.linger)
                if options.ping is not None:
                    nursery.start_soon(_ping_often, ws, surface, options.ping)
            surface.show_end(await ws.wait_closed())
        info = await ws.wait_closed()
    except (WebSocketError, OSError) as exc:
        return tell_failure(options, exc)
    return ExitCode.OK if info.polite else ExitCode.CLOSED


def tell_failure(options: argparse.Namespace, exc: Exception) -> ExitCode:
    """Say why there was no connection, and return what to exit with."""
    why = str(exc).replace(TRUST_ANOTHER, "--cafile FILE")  # what is said to programs
    print(f"trio-ws: {parse_url(options.url)}: {why}", file=sys.stderr)  # no password
    if isinstance(exc, ConnectionRejected):
        return ExitCode.REJECTED
    return ExitCode.CLOSED if isinstance(exc, ConnectionClosed) else ExitCode.UNREACHABLE


async def _show_messages(ws: WebSocket, surface: Surface) -> None:
    with contextlib.suppress(ConnectionClosed):  # it is shown at the end
        async for message in ws:
            try:
                surface.show_message(message)
            except BrokenPipeError:  # head has seen enough
                # Or the interpreter complains when it ends, and flushes stdout once more.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                await ws.aclose()


async def _obey(ws: WebSocket, surface: Surface, linger: float) -> None:
    with contextlib.suppress(ConnectionClosed):
        await _do_all(ws, surface, linger)


async def _do_all(ws: WebSocket, surface: Surface, linger: float) -> None:
    """Do what is asked for; behind its end wait until the answers cease."""
    while (command := await surface.next_command()) is not None:
        match command:
            case Close(code, reason):
                await ws.aclose(code, reason)  # which ends this task as well
            case Ping():
                surface.show_latency(await ws.ping())
            case Help():
                surface.show_help()
            case message:
                await ws.send(message)
    received = -1
    while received != ws.statistics().messages_received:
        received = ws.statistics().messages_received
        await trio.sleep(linger)
    await ws.aclose()


async def _ping_often(ws: WebSocket, surface: Surface, interval: float) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            surface.show_latency(await ws.ping())
            await trio.sleep(interval)


@asynccontextmanager
async def _open_surface(
    options: argparse.Namespace, ws: WebSocket
) -> AsyncGenerator[Surface, None]:
    if options.json:
        print(as_json("open", subprotocol=ws.subprotocol), flush=True)
        yield JSONSurface(sys.stdin, sys.stdout)
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield PlainSurface(sys.stdin, sys.stdout)
    else:
        try:
            from ._terminal import open_terminal  # noqa: PLC0415  # prompt_toolkit is an extra
        except ImportError:
            print("pip install 'trio-ws[cli]' for colours and history", file=sys.stderr)
            yield PlainSurface(sys.stdin, sys.stdout, show=for_eyes)
        else:
            async with open_terminal() as terminal:
                surface = TerminalSurface(terminal)
                surface.greet(parse_url(options.url), ws)
                yield surface


class PlainSurface:
    """Lines of stdin are messages, messages are lines of stdout."""

    def __init__(
        self,
        source: TextIO,
        sink: TextIO,
        *,
        show: Callable[[str | bytes], str] = as_line,
        parse: Callable[[str], Command] = str,
    ) -> None:
        self._lines = LineReader(source)
        self._sink = sink
        self._show = show
        self._parse = parse

    async def next_command(self) -> Command | None:
        """Return what the next line of stdin says; complain of those that say nothing."""
        while (line := await self._lines.read()) is not None:
            try:
                return self._parse(line.decode())
            except (TypeError, ValueError) as exc:  # UnicodeDecodeError is one
                print(f"trio-ws: {exc}", file=sys.stderr, flush=True)
        return None

    def show_message(self, message: str | bytes) -> None:
        """Print a message."""
        self._print(self._show(message))

    def show_latency(self, seconds: float) -> None:
        """Tell it on stderr: stdout is for messages."""
        print(f"ping: {seconds * 1000:.1f} ms", file=sys.stderr, flush=True)

    def show_end(self, info: CloseInfo) -> None:
        """Tell the end if it was none that one waits for."""
        if not info.polite:
            print(f"trio-ws: {defuse(str(info))}", file=sys.stderr, flush=True)

    def show_help(self) -> None:
        """Nobody can ask for it."""

    def _print(self, line: str) -> None:
        print(line, file=self._sink, flush=True)


class JSONSurface(PlainSurface):
    """A JSON object a line, in and out."""

    def __init__(self, source: TextIO, sink: TextIO) -> None:
        super().__init__(source, sink, show=message_as_json, parse=parse_json)

    def show_latency(self, seconds: float) -> None:
        """Print ``{"type": "pong", "seconds": ...}``."""
        self._print(as_json("pong", seconds=round(seconds, 6)))

    def show_end(self, info: CloseInfo) -> None:
        """Print ``{"type": "close", ...}``."""
        self._print(close_as_json(info))


class LineReader:
    """Lines without their ends, the last one also if it has none.

    They are read in threads, straight from the descriptor: a thread that still waits for
    `sys.stdin` when the interpreter ends holds its lock, and that is a fatal error.
    """

    def __init__(self, source: TextIO) -> None:
        self._source = source
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._ended = False

    async def read(self) -> bytes | None:
        """Return the next line, `None` behind the last one."""
        while not self._lines and not self._ended:
            data = await trio.to_thread.run_sync(
                os.read, self._source.fileno(), READ_SIZE, abandon_on_cancel=True
            )
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines += lines
            if not data:
                self._ended = True
                self._lines += [self._rest] if self._rest else []
        return self._lines.popleft().removesuffix(b"\r") if self._lines else None


class TerminalSurface:
    """A person at a terminal."""

    def __init__(self, terminal: Any) -> None:
        self._terminal = terminal

    def greet(self, url: object, ws: WebSocket) -> None:
        """Tell what has been connected to, and how to find out more."""
        spoken = f", speaking {ws.subprotocol}" if ws.subprotocol else ""
        self._terminal.show("about", f"connected to {url}{spoken}; /help tells what to type")

    async def next_command(self) -> Command | None:
        """Return what is typed, and then the goodbye: who presses Ctrl-D waits for nothing."""
        async for line in self._terminal.lines:
            try:
                command = parse_typed(line)
            except (TypeError, ValueError) as exc:
                self._terminal.show("wrong", str(exc))
                continue
            if isinstance(command, (str, bytes)):
                self._terminal.show("sent", f"> {for_eyes(command)}")
            return command
        return Close()

    def show_message(self, message: str | bytes) -> None:
        """Show a message, readable and harmless."""
        self._terminal.show("received", f"< {for_eyes(message)}")

    def show_latency(self, seconds: float) -> None:
        """Show how long a ping took."""
        self._terminal.show("about", f"ping: {seconds * 1000:.1f} ms")

    def show_end(self, info: CloseInfo) -> None:
        """Show how the connection ended."""
        self._terminal.show("about" if info.polite else "wrong", defuse(str(info)))

    def show_help(self) -> None:
        """Show what can be typed."""
        self._terminal.show("about", HELP)
