"""One open connection: its state, how it ends, and who reads for it meanwhile.

::

    socket ─ Pump or run_reader ─→ Protocol (wsproto, or past it) ─→ Inbox ─→ ws.receive()
    ws.send(x) ─→ Protocol.encode ─ frames ─→ Outbox ─ Writer ─→ socket
    rooms.publish(x) ─→ PreparedMessage, encoded once ─→ the same Outbox

Nothing else touches the stream. That is what makes sending all or nothing: a caller
queues a whole message or none, and no cancellation of a caller can tear a frame.

While a server's connection is open and waits for nothing but bytes, the server's `Pump`
reads for it, and it has no task of its own. All else is done by a task that reads: the
whole life of a client, of TLS, and of any stream that is no socket; and the end. The
tasks are shielded from the cancellation of the block that they serve (`Session` opens
and ends it), for they have to carry the Close that follows from it.

Who reads never waits for who writes: pings are answered and the peer's Close is seen
whatever we have to say ourselves. Reading pauses only while the `Inbox` is full, and
then TCP pushes back on the peer.

How a connection ends. ``close_info`` is set once, by whoever is first:

* the peer's Close: what is unread stays there to be received. The answer waits until
  it has been (at most ``close_grace``), so that the last messages can be answered too. So
  it does for whoever works on a message that came in one read with the Close;
* our Close (``aclose``, the end of the block, a drain, a slow room member): goes out
  behind what was sent before, and the peer's is waited for;
* a violation: whoever is ready to answer what came before it may do so, then our Close
  goes out, and what the peer still sends is thrown away for a moment, lest a reset
  overtakes the Close;
* a loss: the network, a silent peer, a write that does not move.

Then TCP ends, server first (RFC 6455, section 7.1.1), all waiters are woken, and the
nurseries that hang on the connection are cancelled. The deadline of one cancel scope,
the reading task's own, bounds all of this by ``close_grace``; only if a consumer has
used that up, the goodbye gets a second more.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import attrs
import trio

from ._budget import Account, Budget, open_purse
from ._connection_pump import PumpedReading
from ._errors import ConnectionClosed, ConnectionEnded, ConnectionLost, ProtocolViolation
from ._flag import Flag
from ._inbox import Inbox
from ._linked_nursery import LinkedNursery
from ._messages import (
    CloseCode,
    CloseInfo,
    CloseReceived,
    Event,
    MessagePart,
    PingReceived,
    PongReceived,
    PreparedMessage,
    Violated,
)
from ._options import KIB, Options
from ._outbox import Outbox
from ._pings import Ping, Pings
from ._protocol import Protocol
from ._pump import Pump
from ._streams import linger
from ._transport import READ, Transport
from ._writer import Writer

logger: Final = logging.getLogger("trio_ws")

TURN: Final = 64
"""Events, and KiB of messages, that are handled in a row before other tasks get their turn.
64 KiB of empty pings are 10,000 events of 8 µs each: nobody else shall wait for all of them."""

LARGE_READ: Final = 256 * KIB
"""Bytes of one read in the middle of a large frame that somebody waits for: a third of the time
that reads of 64 KiB take, most of which is not reading. Elsewhere the memory for it would cost
more than it saves."""

READY_STEPS: Final = 10
"""Schedule points that tasks which are ready to run get, at the end, to reach their first
receive, or to answer what came before a violation."""

GOODBYE_TIME: Final = 1.0
"""Seconds that our Close has to leave when the consumer has taken all the grace, and that the
reading task has to find out how it ended when writing has failed."""


class Connection:
    """What a `WebSocket` stands in front of. `Session` runs its tasks."""

    # More attributes than 30 cost each instance a dict of its own, of 1.5 KiB.
    __slots__ = (
        *("_answered", "_broken", "_cause", "_closed_here", "_deadline", "_done", "_drained"),
        *("_ended_at", "_failure", "_interrupted", "_leaving", "_pumped", "_purse", "_reading"),
        *("_room", "_told", "_transport", "_writer", "account", "bytes_received", "client", "id"),
        *("inbox", "info", "last_received", "messages_sent", "nurseries", "options", "outbox"),
        *("over", "pings", "protocol", "pump", "read_size", "reading_since", "tasks"),
    )

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        options: Options,
        *,
        client: bool,
        name: str | None = None,
        budget: Budget | None = None,
        pump: Pump | None = None,
    ) -> None:
        account = None if budget is None else budget.open_account(self._evict, self.abort)
        self.account: Account | None = account
        self.options = options
        self.client = client
        self.protocol = protocol
        self.id: str = name or new_id()
        self.inbox: Inbox = Inbox(options.receive_buffer, self._on_drained, account, self._on_room)
        self.nurseries: list[LinkedNursery] = []
        self.info: CloseInfo | None = None
        self.over: Flag = Flag()
        self.tasks: trio.Nursery  # where those of the connection run; set by `Session`
        self.last_received: float = trio.current_time()
        self.reading_since: float | None = self.last_received
        """Since when reading goes on; `None` while it is paused."""
        self.messages_sent: int = 0
        self.bytes_received: int = 0
        self.read_size: int = READ

        self._transport = transport
        self._purse = open_purse(account)
        self.pump: Pump | None = pump if self._transport.direct else None
        self._pumped: PumpedReading | None = None
        self._broken: Exception | None = None  # a bug met by the pump
        self._writer = Writer(self._transport, options, self)
        self.outbox: Outbox = self._writer.outbox
        self.pings: Pings = Pings(self.outbox, protocol)
        self._room: trio.lowlevel.ParkingLot | None = None  # the reader, while the inbox is full
        self._reading: trio.CancelScope | None = None  # that task's own, once it runs
        self._deadline = math.inf  # for all of it
        self._cause: BaseException | None = None
        self._failure: CloseInfo | None = None  # why nothing can be written any more
        self._told: tuple[CloseInfo, ...] = ()  # all that errors of this connection may carry
        self._ended_at = math.inf
        self._interrupted = False  # others have run since the last read, which goes on
        self._answered = False  # our Close is queued, or will never be
        self._done = False  # nothing that the peer still says matters
        self._leaving = False  # this side has begun to close
        self._closed_here = False  # ... by aclose() or the end of the block
        self._drained = Flag()  # nobody will receive any more

    def start(self, tasks: trio.Nursery) -> None:
        """Begin to read and write; ``tasks`` is where the tasks of the connection run."""
        self.tasks = tasks
        self._writer.start()
        if self.pump is None or self.pump.closed:
            self.start_task(self.run_reader, "reader")
        else:
            self._pumped = PumpedReading(self.pump, self._transport, self)
            self._pumped.go_on()  # with what came right behind the handshake

    def start_task(self, function: Callable[[], Awaitable[object]], name: str) -> None:
        """Run one of the connection's tasks."""
        self.tasks.start_soon(function, name=f"{name} of {self.id}")

    @property
    def bytes_sent(self) -> int:
        """Bytes that the network has taken."""
        return self._writer.bytes_sent

    # Sending...

    def send_nowait(self, message: PreparedMessage, *, shared: bool = True) -> bool:
        """Queue a message if there is room for it now; `False` if there is not.

        For rooms, which keep a queue of their own for a member who is behind. ``shared``:
        others get the same message.

        Raises: as `send`.
        """
        outbox = self.outbox
        if not outbox.has_room():
            return False
        outbox.put(self.protocol.encode_prepared(message), shared=shared)
        self.messages_sent += 1
        return True

    def start_ping(self, payload: bytes) -> Ping:
        """Queue a Ping without waiting for anything."""
        if self.info is not None:
            raise self.sender_error()
        return self.pings.start(payload)

    # Closing...

    def begin_close(self, code: int, reason: str, *, by_user: bool = False) -> None:
        """Start to close without waiting; the block's tasks do the rest.

        ``by_user``: the caller has said goodbye itself, and will hear
        `trio.ClosedResourceError`. Anybody else hears `ConnectionLost`.
        """
        if self.info is None:
            local = CloseInfo(int(code), reason, "local", clean=False)
            self._conclude(self._failure or local)
        self._leaving = True
        if by_user:
            self._closed_here = True
            self.inbox.discard()
        self._queue_close()
        self._announce_end()
        self._drained.set()

    def close_account(self) -> None:
        """Draw on the budget no more: everything has been dropped."""
        if self.account is not None:
            self.account.close()

    def _evict(self) -> None:
        """Make room for others: drop all that waits, and say Close 1013."""
        logger.warning("websocket %s: closed, it holds most of what all may hold", self.id)
        self.inbox.discard()
        self.outbox.discard()
        self.begin_close(CloseCode.TRY_AGAIN_LATER, "out of memory")

    def give_up(self, reason: str) -> None:
        """Declare the connection lost."""
        self._lose(reason, None)
        self.abort()

    def abort(self) -> None:
        """End TCP now, whatever is still to be said."""
        self._set_deadline(-math.inf)
        self._leave_pump()

    # Nurseries...

    def watch(self, linked: LinkedNursery) -> None:
        """Cancel a nursery in time: it was opened, or its block left, after the end."""
        if not self.inbox.unread_messages:
            linked.cancel()
        else:
            self.tasks.start_soon(self._cancel_in_time, linked)

    @trio.lowlevel.enable_ki_protection
    async def _cancel_in_time(self, linked: LinkedNursery) -> None:
        with trio.move_on_after(self.options.close_grace, shield=True):
            for _ in range(READY_STEPS):
                await trio.lowlevel.checkpoint()
            if linked.consuming:
                await self._drained.wait()
        linked.cancel()

    def hangs_on_us(self, task: trio.lowlevel.Task) -> bool:
        """Whether a task is cancelled when the connection ends."""
        return any(linked.contains(task) for linked in self.nurseries)

    def caused(self, error: BaseException) -> bool:
        """Whether an exception says that this connection is over."""
        return isinstance(error, ConnectionClosed) and any(
            error.info is known for known in self._told
        )

    # Reading...

    def take(self, data: bytes, now: float) -> None:
        """Take what was read."""
        self._interrupted = False
        self.last_received = now
        self.bytes_received += len(data)
        self.protocol.receive_data(data)

    def read_pending(self) -> None:
        """Take what has come, if that is the pump's to do: it has many to read for."""
        if self._pumped is not None:
            self._pumped.read_pending()

    def handle(self) -> bool:
        """Handle what was taken; return whether there is more to handle at once."""
        unfinished = self._dispatch()
        self.outbox.send_pongs()
        if self._purse is not None:
            self._purse.settle(self.protocol.held)
        if unfinished:
            self._interrupted = True
        elif self.inbox.full:
            self._interrupted = self.inbox.paused = True
            self.reading_since = None
        return unfinished

    def _on_room(self) -> None:
        """Somebody has received: reading may go on."""
        self.reading_since = trio.current_time()
        if self._pumped is None or self._pumped.over:
            if self._room is not None:
                self._room.unpark_all()
        else:
            self._pumped.on_room()

    def _leave_pump(self) -> None:
        if self._pumped is not None:
            self._pumped.leave_pump()

    def on_pump_left(self, error: Exception | None) -> None:
        """Let a task read from now on, if there is anything left to do."""
        self._broken = error
        self.reading_since = self.reading_since or trio.current_time()
        answered = self.info is not None and self.info.initiator == "remote"
        if answered and self._writer.finished.is_set() and not self.nurseries:
            self._finish()
        else:
            self.start_task(self.run_reader, "reader")

    # The reading task...

    @trio.lowlevel.enable_ki_protection
    async def run_reader(self) -> None:
        """Read until the end, and see to it that there is one."""
        with trio.CancelScope(shield=True, deadline=self._deadline) as self._reading:
            if await self._guard(self._read_frames):
                await self._guard(self._part)
        self._lose("given up", None)
        self._writer.stop()
        if not self._transport.direct:
            with trio.CancelScope(shield=True):  # a block that is cancelled in this very moment
                await self._guard(self._end_stream)
        self._finish()
        if self.nurseries:
            await self._wait_for_consumer(patient=True)
            self._cancel_nurseries()

    async def _guard(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Nothing that a peer or a stream does may leave this task as an exception."""
        try:
            return await step()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._lose(str(exc.__cause__ or exc), exc)
        except Exception as exc:
            logger.exception("websocket %s: failed inside", self.id)
            self._lose(f"failed inside: {exc!r}", exc)
        return False

    async def _end_stream(self) -> bool:
        await trio.aclose_forcefully(self._transport.stream)
        return True

    def _finish(self) -> None:
        self._transport.close_now()
        self.over.set()

    async def _read_frames(self) -> bool:
        """Read until nothing more matters; return whether there is a goodbye to say."""
        if self._broken is not None:
            raise self._broken
        while True:
            while self.handle():  # noqa: ASYNC110  # the checkpoint is for others
                await trio.lowlevel.checkpoint()
            if self._done:
                return True
            if self.inbox.full:
                self._room = self._room or trio.lowlevel.ParkingLot()
                await self._room.park()
                continue
            data = await self._transport.read(self.read_size)
            if not data:
                self._lose("the peer ended TCP without a Close", None)
                return False
            self.take(data, trio.current_time())
            del data  # or it would be kept until more comes

    def _dispatch(self) -> bool:
        """Handle what has come; return whether there may be more to handle at once."""
        inbox, protocol = self.inbox, self.protocol
        turn = TURN
        while not inbox.full:
            messages = protocol.next_messages(turn, min(inbox.room, turn * KIB))
            if messages:
                if self.info is None:
                    inbox.put_messages(messages)
                turn -= len(messages) + sum([size for _, size in messages]) // KIB
            if protocol.exhausted:
                return False
            if not messages:
                event = protocol.next_event(turn)
                if event is None:
                    return protocol.unfinished
                turn -= 1 + self._on_event(event)
            if turn <= 0:
                return not protocol.exhausted
        return False

    def _on_event(self, event: Event) -> int:
        """Do what an event calls for; return the KiB that it weighs."""
        if isinstance(event, MessagePart):
            # What nobody waits for shall not go further beyond `receive_buffer` than by one READ.
            most = self.protocol.missing if self.inbox.awaited else READ
            self.read_size = max(READ, min(most, LARGE_READ))
            if self.info is None:
                self.inbox.put(event)
            return event.size // KIB
        if isinstance(event, PingReceived):
            self.outbox.put_pong(partial(self.protocol.pong, event.payload))
        elif isinstance(event, PongReceived):
            self.pings.match(event.payload)
        elif isinstance(event, CloseReceived):
            self._on_close(event)
        else:
            self._on_violation(event)
        return 0

    def _on_close(self, event: CloseReceived) -> None:
        self._done = True
        if self.info is not None:
            self._conclude(attrs.evolve(self.info, clean=self._failure is None))
            return
        self._conclude(CloseInfo(event.code, event.reason, "remote", clean=True))
        in_hand = self._interrupted and self.inbox.in_hand
        if not (self.inbox.unread_messages or in_hand):
            self._queue_close()
        self._announce_end()

    def _on_violation(self, event: Violated) -> None:
        self._done = True
        if self.info is None:
            self._cause = ProtocolViolation(event.code, event.reason)
            self._conclude(CloseInfo(event.code, event.reason, "local", clean=False))
            if not self.inbox.unread_messages:
                self._queue_close()
            self._announce_end()

    # The end...

    def _conclude(self, info: CloseInfo) -> None:
        """Know how it ended."""
        self.info = info
        self._told += (info,)

    def _lose(self, reason: str, cause: BaseException | None) -> None:
        """The connection ends without a goodbye."""
        if self.info is None:
            self._cause = self._cause or cause
            self._conclude(self._failure or _lost(reason))
            self._answered = True
            self._announce_end()

    def _announce_end(self) -> None:
        """Wake all who wait for something that will not come any more."""
        assert self.info is not None
        self._ended_at = min(self._ended_at, trio.current_time())
        if self._leaving:
            self._cancel_nurseries()
        elif not self.inbox.unread_messages:
            self._cancel_nurseries(unless_consuming=True)
        self.inbox.end(self._receiver_error)
        if self._answered:
            self.outbox.refuse(self.sender_error)
        self.pings.wake_all()
        self._leave_pump()

    def _queue_close(self) -> None:
        """Say Close, once: behind what was sent before."""
        if not self._answered:
            assert self.info is not None
            self._answered = True
            reason = "" if self.info.initiator == "remote" else self.info.reason
            self.outbox.put_close(self.protocol.close(self.info.code, reason))
            self.outbox.refuse(self.sender_error)
        self._limit_goodbye(self.options.close_grace)

    def _limit_goodbye(self, seconds: float) -> None:
        """Bound it by ``seconds`` from when the end began, `GOODBYE_TIME` included if need be."""
        now = trio.current_time()
        self._set_deadline(
            max(min(self._ended_at, now) + seconds, now + min(GOODBYE_TIME, seconds))
        )
        self._leave_pump()

    def _set_deadline(self, deadline: float) -> None:
        self._deadline = min(self._deadline, deadline)
        if self._reading is not None:
            self._reading.deadline = self._deadline

    async def _part(self) -> bool:
        """Let the last frames out, then see the peer end TCP where that is its part."""
        violated = isinstance(self._cause, ProtocolViolation)
        if not self._answered:
            await self._wait_for_consumer(patient=not violated)
        self._queue_close()
        await self._writer.finished.wait()
        if violated:
            await linger(self._transport.stream)
        elif self.client:
            while await self._transport.read():
                pass
        return True

    async def _wait_for_consumer(self, *, patient: bool) -> None:
        """Wait until what is unread has been received: within the grace, or just now."""
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = self._ended_at + self.options.close_grace
            for _ in range(READY_STEPS):
                await trio.lowlevel.checkpoint()
            self._cancel_nurseries(unless_consuming=True)
            if patient:
                await self._drained.wait()

    def _on_drained(self) -> None:
        """Everything has been received, or will never be."""
        self._drained.set()
        self._cancel_nurseries()

    def _cancel_nurseries(self, *, unless_consuming: bool = False) -> None:
        for linked in self.nurseries:
            if not (unless_consuming and linked.consuming):
                linked.cancel()

    def _receiver_error(self) -> Exception:
        if self._closed_here:
            return trio.ClosedResourceError("this side has closed the WebSocket")
        assert self.info is not None
        if not self.info.polite:
            return self.sender_error()
        return ConnectionEnded(self.info)

    def sender_error(self) -> Exception:
        """Return what a sender gets now that the connection is over."""
        if self._closed_here:
            return trio.ClosedResourceError("this side has closed the WebSocket")
        info = self.info or self._failure
        assert info is not None
        error = ConnectionLost(info)
        error.__cause__ = self._cause
        return error

    # The writer...

    def on_write_error(self, exc: Exception) -> None:
        """Nobody can send any more; the reading task finds out how it ended, in time."""
        if not isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError, OSError)):
            logger.error("websocket %s: failed inside", self.id, exc_info=exc)
        self._failure = _lost(f"writing failed: {exc.__cause__ or exc}")
        self._told += (self._failure,)
        self._cause = self._cause or exc
        self._answered = True
        self.outbox.discard()
        self.outbox.refuse(self.sender_error)
        self._limit_goodbye(min(GOODBYE_TIME, self.options.close_grace))


def new_id() -> str:
    """Return a name for a connection: 64 random bits, as 16 hexadecimal digits."""
    return secrets.token_hex(8)


def _lost(reason: str) -> CloseInfo:
    return CloseInfo(CloseCode.ABNORMAL, reason, "lost", clean=False)


def close_code_for(error: BaseException) -> CloseCode:
    """Return what an exception that leaves a block says to the peer."""
    if isinstance(error, BaseExceptionGroup):
        failed = error.subgroup(Exception) is not None
    else:
        failed = isinstance(error, Exception)
    return CloseCode.INTERNAL_ERROR if failed else CloseCode.GOING_AWAY
