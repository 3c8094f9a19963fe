"""Talking: commands wait for a connection, however many it takes to obey them.

::

    Surface ── commands ──→ Talk.obey ──→ ┐
       ↑                                  ├ the WebSocket of the moment, held by Talk.hold
       └──── messages, latencies ───────  ┘

One task obeys from the beginning to the end, and not one for each connection: a command that
is being read when a connection breaks would be lost with its reader.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import attrs
import trio

from .._errors import ConnectionClosed
from .._messages import CloseInfo
from .._websocket import WebSocket
from ._words import Close, Command, Help, Ping

T = TypeVar("T")


class Surface(Protocol):
    """Where things are shown, and commands come from."""

    async def next_command(self) -> Command | None:
        """Return what is to be done next, `None` if there is nothing more to come."""
        ...

    async def wait_left(self) -> None:
        """Wait until the user has gone, whatever is yet to be done."""
        ...

    def greet(self, url: object, ws: WebSocket) -> None:
        """Tell what has been connected to."""
        ...

    def show_message(self, message: str | bytes) -> None:
        """Show what has been received."""
        ...

    def show_latency(self, seconds: float) -> None:
        """Show how long a ping took."""
        ...

    def show_outage(self, error: Exception, seconds: float) -> None:
        """Show why there is no connection, and when another one is tried."""
        ...

    def show_end(self, info: CloseInfo) -> None:
        """Show how the connection ended."""
        ...

    def show_help(self) -> None:
        """Show what can be done."""
        ...


@attrs.frozen
class _Turn:
    """A connection, for as long as it can be talked over."""

    ws: WebSocket
    over: trio.Event = attrs.field(factory=trio.Event)


class Talk:
    """What is said over one connection after another."""

    def __init__(self, surface: Surface, *, linger: float, ping: float | None) -> None:
        self._surface = surface
        self._linger = linger
        self._ping = ping
        self._turn: _Turn | None = None
        self._turns = trio.Event()
        self.over = False
        """Whether the user wants no further connection."""
        self.waiting = trio.CancelScope()
        """For who waits for a connection: cancelled when none is wanted any more."""

    async def hold(self, ws: WebSocket) -> CloseInfo:
        """Talk over a connection until it ends; return how it did."""
        turn = self._turn = _Turn(ws)
        self._turns.set()
        try:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(self._show_messages, ws)
                if self._ping is not None:
                    nursery.start_soon(self._ping_often, ws, self._ping)
            return await ws.wait_closed()
        finally:
            self._turn, self._turns = None, trio.Event()
            turn.over.set()

    async def obey(self) -> None:
        """Do all that is asked for; behind its end wait until the answers cease, and close."""
        while (command := await self._surface.next_command()) is not None:
            match command:
                case Close(code, reason):
                    await self._leave(code, reason)
                    return
                case Ping():
                    self._surface.show_latency(await self._insist(lambda ws: ws.ping()))
                case Help():
                    self._surface.show_help()
                case message:
                    await self._send(message)
        await self._wait_for_silence()
        await self._leave()

    async def leave_with_user(self) -> None:
        """When the user goes, let nothing that is yet to be done hold up the end."""
        await self._surface.wait_left()
        self.over = True
        if self._turn is None:
            self.waiting.cancel(reason="the user has left")

    async def _leave(self, code: int = 1000, reason: str = "") -> None:
        self.over = True
        if self._turn is None:
            self.waiting.cancel(reason="the user wants no further connection")
        else:
            await self._turn.ws.aclose(code, reason)

    async def _send(self, message: str | bytes) -> None:
        await self._insist(lambda ws: ws.send(message))

    async def _insist(self, do: Callable[[WebSocket], Awaitable[T]]) -> T:
        """Do something, over the next connection if this one ends before it is done."""
        while True:
            turn = await self._next_turn()
            try:
                return await do(turn.ws)
            except (ConnectionClosed, trio.ClosedResourceError):
                await turn.over.wait()

    async def _next_turn(self) -> _Turn:
        while self._turn is None:
            await self._turns.wait()
        return self._turn

    async def _wait_for_silence(self) -> None:
        while True:
            turn = await self._next_turn()
            received = turn.ws.statistics().messages_received
            await trio.sleep(self._linger)
            if turn is self._turn and received == turn.ws.statistics().messages_received:
                return

    async def _show_messages(self, ws: WebSocket) -> None:
        with contextlib.suppress(ConnectionClosed):  # it is shown at the end
            async for message in ws:
                try:
                    self._surface.show_message(message)
                except BrokenPipeError:  # head has seen enough
                    # Or the interpreter complains when it ends, and flushes stdout once more.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                    await self._leave()

    async def _ping_often(self, ws: WebSocket, interval: float) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._surface.show_latency(await ws.ping())
                await trio.sleep(interval)
