"""``trio-ws connect``: a client at a terminal, or in a pipe."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TextIO, TypeVar

import trio

from .._backoff import is_transient
from .._client import Opening, open_websocket
from .._errors import ConnectionClosed, ConnectionRejected, WebSocketError
from .._messages import CloseInfo
from .._reconnect import Sessions, open_reconnecting
from .._streams import READ_SIZE
from .._tls import TRUST_ANOTHER
from .._url import parse_url
from .._websocket import WebSocket
from ._talking import Surface, Talk
from ._usage import ExitCode, UsageError, client_context, interval, seconds, split_header
from ._words import (
    HELP,
    Close,
    Command,
    as_json,
    as_line,
    close_as_json,
    defuse,
    for_eyes,
    message_as_json,
    parse_json,
    parse_typed,
    say_outage,
)

T = TypeVar("T")


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
    connect.set_defaults(run=run_connect, log_level="error")  # the rest is told where it is seen
    connect.add_argument("url", metavar="URL", help="ws://, wss:// or ws+unix://")
    add_connecting(connect)
    connect.add_argument("--subprotocol", action="append", default=[], help="may be repeated")
    connect.add_argument(
        "--reconnect",
        action="store_true",
        help="connect again, and again, until you close or the server refuses",
    )
    connect.add_argument(
        "--json", action="store_true", help="a JSON object a line, in and out: for scripts"
    )
    connect.add_argument(
        "--ping", type=interval, metavar="SECONDS", help="ping so often, and tell the latency"
    )
    connect.add_argument(
        "--linger",
        type=seconds,
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
    parser.add_argument("--certfile", help="certificate chain in PEM to show to the server")
    parser.add_argument("--keyfile", help="its private key, if it is in a file of its own")
    parser.add_argument(
        "--server-hostname", metavar="NAME", help="what its certificate is for, if not the host"
    )
    parser.add_argument("--origin", help="the web page to come from, as https://example.org")
    parser.add_argument(
        "--local-address", metavar="IP", help="the address of this machine to connect from"
    )


def open_as_told(options: argparse.Namespace) -> Opening:
    """Make the connection that the options describe; entering it connects.

    Raises:
      UsageError: they make no sense.
    """
    return _as_told(open_websocket, options)


def _reopen_as_told(
    options: argparse.Namespace, retry_if: Callable[[Exception], bool]
) -> Sessions:
    return _as_told(functools.partial(open_reconnecting, retry_if=retry_if), options)


def _as_told(open_: Callable[..., T], options: argparse.Namespace) -> T:
    try:
        return open_(
            options.url,
            subprotocols=getattr(options, "subprotocol", ()),
            headers=[split_header(each) for each in options.header],
            origin=options.origin,
            ssl_context=client_context(options.cafile, options.certfile, options.keyfile),
            server_hostname=options.server_hostname,
            proxy=None if options.proxy == "none" else options.proxy,
            local_address=options.local_address,
        )
    except (ValueError, TypeError) as exc:
        raise UsageError(str(exc)) from exc


async def run_connect(options: argparse.Namespace) -> int:
    """Run ``trio-ws connect``."""
    return await (_stay_connected if options.reconnect else _connect_once)(options)


async def _connect_once(options: argparse.Namespace) -> int:
    opening = open_as_told(options)
    try:
        async with opening as ws, _open_surface(options) as surface:
            surface.greet(parse_url(options.url), ws)
            talk = Talk(surface, linger=options.linger, ping=options.ping)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.obey)
                info = await talk.hold(ws)
                nursery.cancel_scope.cancel(reason="the connection has ended")
            surface.show_end(info)
    except (WebSocketError, OSError) as exc:
        return tell_failure(options, exc)
    return _exit_code(info)


async def _stay_connected(options: argparse.Namespace) -> int:
    errors, outages = trio.open_memory_channel[Exception](1)

    def is_worth_it(error: Exception) -> bool:
        transient = is_transient(error)
        if transient:
            with contextlib.suppress(trio.WouldBlock):  # one is as good as another
                errors.send_nowait(error)
        return transient

    sessions = _reopen_as_told(options, is_worth_it)
    info: CloseInfo | None = None
    failure: Exception | None = None
    async with _open_surface(options) as surface:
        talk = Talk(surface, linger=options.linger, ping=options.ping)
        async with sessions, trio.open_nursery() as nursery:
            nursery.start_soon(talk.obey)
            nursery.start_soon(talk.leave_with_user)
            nursery.start_soon(_tell_outages, sessions, outages, surface)
            try:
                info = await _talk_over(sessions, talk, surface, options)
            except (WebSocketError, OSError) as exc:
                failure = exc
            nursery.cancel_scope.cancel(reason="there will be no further connection")
        if isinstance(failure, ConnectionClosed):
            info, failure = failure.info, None
        if failure is None and info is not None:
            surface.show_end(info)
    if failure is not None:
        return tell_failure(options, failure)
    return ExitCode.UNREACHABLE if info is None else _exit_code(info)


async def _talk_over(
    sessions: Sessions, talk: Talk, surface: Surface, options: argparse.Namespace
) -> CloseInfo | None:
    """Talk until the user closes; return how the last connection ended, if there is one."""
    with talk.waiting:
        async for ws in sessions:
            surface.greet(parse_url(options.url), ws)
            info = await talk.hold(ws)
            if talk.over:
                return info
    return None


async def _tell_outages(
    sessions: Sessions, outages: trio.MemoryReceiveChannel[Exception], surface: Surface
) -> None:
    async for error in outages:
        now = trio.current_time()
        surface.show_outage(error, max((sessions.statistics().next_attempt or now) - now, 0))


def _exit_code(info: CloseInfo) -> ExitCode:
    return ExitCode.OK if info.polite else ExitCode.CLOSED


def tell_failure(options: argparse.Namespace, exc: Exception) -> ExitCode:
    """Say why there was no connection, and return what to exit with."""
    why = str(exc).replace(TRUST_ANOTHER, "--cafile FILE")  # what is said to programs
    print(f"trio-ws: {parse_url(options.url)}: {why}", file=sys.stderr)  # no password
    if isinstance(exc, ConnectionRejected):
        return ExitCode.REJECTED
    return ExitCode.CLOSED if isinstance(exc, ConnectionClosed) else ExitCode.UNREACHABLE


@asynccontextmanager
async def _open_surface(options: argparse.Namespace) -> AsyncGenerator[Surface, None]:
    if options.json:
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
                yield TerminalSurface(terminal)


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

    async def wait_left(self) -> None:
        """Nobody can go: what stdin says is done in its order, and then it is the end."""
        await trio.sleep_forever()

    def greet(self, url: object, ws: WebSocket) -> None:
        """Say nothing: stdout is for messages, stderr for what is wrong."""

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

    def show_outage(self, error: Exception, seconds: float) -> None:
        """Tell it on stderr."""
        print(f"trio-ws: {say_outage(error, seconds)}", file=sys.stderr, flush=True)

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

    def greet(self, url: object, ws: WebSocket) -> None:
        """Print ``{"type": "open", ...}``."""
        self._print(as_json("open", subprotocol=ws.subprotocol))

    def show_latency(self, seconds: float) -> None:
        """Print ``{"type": "pong", "seconds": ...}``."""
        self._print(as_json("pong", seconds=round(seconds, 6)))

    def show_outage(self, error: Exception, seconds: float) -> None:
        """Print ``{"type": "outage", ...}``."""
        self._print(as_json("outage", reason=str(error), seconds=round(seconds, 3)))

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

    async def wait_left(self) -> None:
        """Wait for Ctrl-D, or Ctrl-C."""
        await self._terminal.left.wait()

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

    def show_outage(self, error: Exception, seconds: float) -> None:
        """Show why there is no connection, and when another one is tried."""
        self._terminal.show("wrong", say_outage(error, seconds))

    def show_end(self, info: CloseInfo) -> None:
        """Show how the connection ended."""
        self._terminal.show("about" if info.polite else "wrong", defuse(str(info)))

    def show_help(self) -> None:
        """Show what can be typed."""
        self._terminal.show("about", HELP)
