"""How a connection is read while its server's pump watches its socket."""

from __future__ import annotations

from typing import Protocol

import trio

from ._inbox import Inbox
from ._pump import Pump
from ._transport import Transport


class Reader(Protocol):
    """What handles what is read: a connection."""

    inbox: Inbox
    read_size: int
    """Bytes that the next read should ask for."""

    def take(self, data: bytes, now: float) -> None:
        """Take what was read, and when."""
        ...

    def handle(self) -> bool:
        """Handle what was taken; return whether there is more to handle at once."""
        ...

    def on_pump_left(self, error: Exception | None) -> None:
        """Read with a task from now on."""
        ...


class PumpedReading:
    """Reads whenever the pump says so; pauses while the inbox is full."""

    def __init__(self, pump: Pump, transport: Transport, reader: Reader) -> None:
        self._pump = pump
        self._transport = transport
        self._reader = reader
        self._watched = False
        self.over: bool = False
        """Whether it has been left, for good."""

    @trio.lowlevel.enable_ki_protection
    def read_some(self, now: float) -> None:
        """Take what has come."""
        data = self._transport.read_now(self._reader.read_size)
        if data:
            self._reader.take(data, now)
            self.go_on()
        elif data is not None:  # the end
            self.leave_pump()

    def read_pending(self) -> None:
        """Take what has come, if the pump has not come round to it: it reads for many."""
        if self._watched:
            self.read_some(trio.current_time())

    @trio.lowlevel.enable_ki_protection
    def leave_pump(self, error: Exception | None = None) -> None:
        """Let a task read from now on; ``error`` is the bug that makes it necessary."""
        if not self.over:
            if self._watched:
                self._watch(False)
            self.over = True
            self._reader.on_pump_left(error)

    @trio.lowlevel.enable_ki_protection
    def go_on(self) -> None:
        """Handle what has come, and have more read when that is all there is to do."""
        if self.over:
            return
        try:
            unfinished = self._reader.handle()
        except Exception as exc:  # noqa: BLE001  # the task shall tell
            self.leave_pump(exc)
            return
        if self.over:
            return
        watched = not (unfinished or self._reader.inbox.paused)
        if watched is not self._watched:
            try:
                self._watch(watched)
            except OSError:
                self.leave_pump()
                return
        if unfinished:
            if self._pump.closed:
                self.leave_pump()
            else:
                self._pump.call_soon(self.go_on)

    def on_room(self) -> None:
        """Go on: the inbox is not full any more."""
        if self._pump.closed:  # it would go on at once, under the hands of who made room
            self.leave_pump()
        else:
            self._pump.call_soon(self.go_on)

    def _watch(self, watched: bool) -> None:
        if watched:
            self._pump.add(self._transport.fileno(), self)
        else:
            self._pump.remove(self._transport.fileno())
        self._watched = watched
