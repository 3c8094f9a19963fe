"""From the `Outbox` to the network: at once where that can be, else by a task.

What a socket takes without waiting leaves within the call that queued it, at one system
call and no task switch. While there is more to receive, and more to answer therefore, it
waits until those who are ready have had their turn: then all answers leave together.
The task writes what is left over, and everything where there is no socket (TLS above all).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import trio

from ._budget import Account
from ._flag import Flag
from ._inbox import Inbox
from ._options import Options
from ._outbox import Outbox
from ._pump import Pump
from ._transport import Transport

_NOTHING: Final = memoryview(b"")


class Owner(Protocol):
    """What a writer has to know of its connection."""

    account: Account | None
    pump: Pump | None
    inbox: Inbox

    def start_task(self, function: Callable[[], Awaitable[object]], name: str) -> None:
        """Run a task for as long as the connection lasts."""
        ...

    def on_write_error(self, exc: Exception) -> None:
        """Nothing can be written any more."""
        ...

    def give_up(self, reason: str) -> None:
        """The peer takes nothing."""
        ...


class Writer:
    """Writes what an outbox holds until the Close has left or the connection is over."""

    def __init__(self, transport: Transport, options: Options, owner: Owner) -> None:
        self.outbox: Outbox = Outbox(
            options.send_buffer, self._on_work, owner.account, self._write_through
        )
        self.bytes_sent: int = 0
        self.finished: Flag = Flag()
        """Set when nothing will be written any more."""
        self._transport = transport
        self._patience = options.write_timeout
        self._owner = owner
        self._unread = owner.inbox.messages  # as long as there are any, more answers will follow
        self._rest = _NOTHING  # of a batch that has begun to leave
        self._scope: trio.CancelScope | None = None  # of the task, once it has been started

    def start(self) -> None:
        """Start the task, if everything has to go through it."""
        if not self._transport.direct:
            self._wake()

    @trio.lowlevel.enable_ki_protection  # between the writing and the counting, above all
    def flush(self) -> None:
        """Write what the network takes at once; the rest is the task's."""
        self.outbox.quiet = False
        if self._rest:  # what was due has been taken back, and another frame has begun to leave
            self._wake()
            return
        self.outbox.quiet = True  # room calls for more, in the middle of this
        try:
            while self.outbox.waiting:
                self._rest = memoryview(self.outbox.next_batch())
                self._advance(self._transport.write_now(self._rest))
                if self._rest:
                    break
                self.outbox.written()
        finally:
            self.outbox.quiet = False
        if self._rest or (self._scope is not None and self.outbox.closing):
            self._wake()
        elif self.outbox.closing:
            self._finish()

    def stop(self) -> None:
        """Write nothing any more."""
        self.outbox.discard()
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._finish()

    @trio.lowlevel.enable_ki_protection
    async def run(self, scope: trio.CancelScope) -> None:
        """Write what is queued, as it is queued."""
        with scope:
            try:
                while not (self.outbox.closing and self.outbox.empty):
                    await self.outbox.wait_work()
                    if not self._rest:
                        self._rest = memoryview(self.outbox.next_batch())
                    await self._write(scope)
                    self.outbox.written()
            except Exception as exc:  # noqa: BLE001  # no stream's error may leave this task
                self._owner.on_write_error(exc)
        if scope.cancelled_caught:  # by its deadline; or it is over already
            self._owner.give_up(f"no byte was taken for {self._patience} s")
        self._finish()

    async def _write(self, scope: trio.CancelScope) -> None:
        """Write the batch; each part that the network takes is a sign of life."""
        while self._rest:
            scope.deadline = trio.current_time() + self._patience
            self._advance(await self._transport.write(self._rest))
        scope.deadline = math.inf

    def _advance(self, taken: int) -> None:
        self.bytes_sent += taken
        self._rest = self._rest[taken:] or _NOTHING  # an empty view would keep all of it

    @trio.lowlevel.enable_ki_protection
    def _write_through(self, frame: bytes) -> bool:
        """Write a frame past the empty outbox; return whether it has begun to leave."""
        if self._unread or self.outbox.quiet:
            return False
        taken = self._transport.write_now(frame)
        self.bytes_sent += taken
        if 0 < taken < len(frame):
            self._rest = memoryview(frame)[taken:]
            self.outbox.begin(len(frame))
            self._wake()
        return taken > 0

    @trio.lowlevel.enable_ki_protection
    def _on_work(self) -> None:
        if self._rest or not self._transport.direct:
            self._wake()
        elif not self._unread:
            self.flush()
        elif self._owner.pump is None:
            self._wake()
        else:
            self.outbox.quiet = True
            self._owner.pump.call_soon(self.flush)

    def _wake(self) -> None:
        if self._scope is not None:
            self.outbox.wake_writer()
        else:
            self._scope = trio.CancelScope(shield=True)
            self._owner.start_task(partial(self.run, self._scope), "writer")

    def _finish(self) -> None:
        self.outbox.stop()
        self._rest = _NOTHING
        self.finished.set()
