"""A link between a client and a server: two directions, each with its faults.

::

    send() ─ put() ─→ [queue] ─ bandwidth ─→ [travelling] ─ latency ─→ take() ─ recv()
               ↑                                                         ↓
               └────────────── buffer: bytes that were not read ─────────┘

There is no task behind it. When bytes leave and arrive is computed from the clock whenever
somebody looks; who has to wait sleeps until then. So a link does the same each time, costs
nothing while nothing happens, and leaves nothing behind.

What it takes from TCP: bytes never change places; closing is told behind the data; a reset
is told at once, and destroys what was not read yet; closing while there is something unread
is a reset (RFC 2525, section 2.17), as is sending to who has closed.
"""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Any, Final

import attrs
import trio

from ._recorder import Recorder, Side

PACKET: Final = 1460
"""Bytes that leave together when the bandwidth is limited: a TCP segment on Ethernet."""
BUFFER: Final = 64 * 1024
"""Bytes between two sockets by default, all buffers together: as on a small machine."""


def _at_least(least: float) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: float) -> None:
        if not value >= least:  # also refuses NaN
            raise ValueError(f"{field.name} is at least {least}, not {value!r}")

    return check


def _above_zero(_: object, field: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{field.name} is greater than 0, not {value!r}")


def _or_none(check: Any) -> Any:
    return attrs.validators.optional(check)


def _check_chunk(_: object, __: object, value: int | tuple[int, int] | None) -> None:
    low, high = value if isinstance(value, tuple) else (value or 1, value or 1)
    if not 1 <= low <= high or value == 0:
        raise ValueError(f"chunk is a number of bytes, or two: fewest and most, not {value!r}")


def _settled(direction: Direction, field: attrs.Attribute[Any], value: Any) -> Any:
    """What has left, has left; what follows obeys the new value."""
    direction._settle()
    if direction._queue and field.name == "bandwidth":
        direction._free_at = trio.current_time()  # the packet that is leaving begins anew
    direction._wake()
    return value


_LIVE: Final = attrs.setters.pipe(attrs.setters.validate, _settled)


@attrs.define(eq=False, repr=False, on_setattr=attrs.setters.NO_OP)
class Direction:
    """One direction of a `Link`. Its settings may be assigned to at any time."""

    _sender: Side
    _link: Link
    latency: float = attrs.field(default=0, validator=_at_least(0), on_setattr=_LIVE)
    """Seconds on the way."""
    jitter: float = attrs.field(default=0, validator=_at_least(0), on_setattr=_LIVE)
    """Up to so many seconds more, by chance; the order stays."""
    bandwidth: float | None = attrs.field(
        default=None, validator=_or_none(_above_zero), on_setattr=_LIVE
    )
    """Bytes per second; `None`: no limit."""
    chunk: int | tuple[int, int] | None = attrs.field(
        default=None, validator=_check_chunk, on_setattr=_LIVE
    )
    """Bytes of one read at most: a number, or two to choose between by chance."""
    buffer: float | None = attrs.field(
        default=BUFFER, validator=_or_none(_at_least(0)), on_setattr=_LIVE
    )
    """Bytes that may be sent and not read before the sender has to wait: the buffers of both
    systems together, 64 KiB by default. 0: a full write buffer; nothing is taken any more.
    `None`: no limit."""
    sent: int = attrs.field(default=0, init=False)
    """Bytes so far that the sender's socket has taken. To be read only, as the next."""
    received: int = attrs.field(default=0, init=False)
    """Bytes so far that the other side has read."""

    _random: Random = attrs.field(factory=Random, kw_only=True, alias="random")
    _queue: deque[bytes] = attrs.field(factory=deque, init=False)  # b"" is the end of TCP
    _travelling: deque[tuple[float, bytes]] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)  # bytes in both
    _free_at: float = attrs.field(default=-math.inf, init=False)  # when the wire is free again
    _last_arrival: float = attrs.field(default=-math.inf, init=False)
    _stalled: bool = attrs.field(default=False, init=False)
    _cut: bool = attrs.field(default=False, init=False)
    _deaf: bool = attrs.field(default=False, init=False)  # the reader has closed
    _reset_pending: bool = attrs.field(default=False, init=False)
    _cut_at: float = attrs.field(default=math.inf, init=False)
    _reset_at: float = attrs.field(default=math.inf, init=False)
    _end_at: float = attrs.field(default=math.inf, init=False)
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _writers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __repr__(self) -> str:
        return f"<Direction from the {self._sender}: {self.sent} sent, {self.received} received>"

    # Faults...

    def stall(self) -> None:
        """Let nothing arrive until `resume`; nothing is lost."""
        if not self._stalled:
            self._stalled = True
            self._note("stalled")

    def resume(self) -> None:
        """Let everything arrive that was held back."""
        if self._stalled:
            self._stalled = False
            self._note("resumed")
            self._wake()
            if self._reset_pending:
                self._link.reset()

    def cut(self) -> None:
        """Let nothing arrive any more, closing included, and tell nobody."""
        self._settle()
        while self._travelling and (
            self._stalled or self._travelling[-1][0] > trio.current_time()
        ):
            self._travelling.pop()
        self._queue.clear()
        self._cut = True
        self._note("cut")

    def cut_after(self, count: int) -> None:
        """Let ``count`` more bytes be read, then nothing any more, and tell nobody."""
        self._cut_at = self.received + count
        self._check_limits()

    def reset_after(self, count: int) -> None:
        """Let ``count`` more bytes be read, then reset the connection."""
        self._reset_at = self.received + count
        self._check_limits()

    def end_after(self, count: int) -> None:
        """Let ``count`` more bytes be read, then the end of TCP; the rest is lost."""
        self._end_at = self.received + count
        self._check_limits()

    def _note(self, event: str) -> None:
        receiver = "server" if self._sender == "client" else "client"
        self._link.recorder._note_event("network", f"to the {receiver}: {event}")

    # The sender's side...

    @property
    def _room(self) -> float:
        """Bytes that may be put now."""
        if self._deaf or self.buffer is None:
            return math.inf
        return max(self.buffer - self._size, 0)

    @property
    def _low_water(self) -> float:
        """Room that is worth waking a sender for, lest a large message leaves byte by byte.

        Linux waits until a third of a buffer is free; here a packet is enough.
        """
        return min(max((self.buffer or 0) // 3, 1), PACKET)

    def _put(self, data: bytes) -> None:
        """Send bytes."""
        self.sent += len(data)
        self._link.recorder._note_sent(self._sender, data)
        if self.received >= self._end_at:
            return
        if self._deaf:
            self._link._other(self)._put_reset()  # nobody listens there, says its system
            return
        self._size += len(data)
        if not self._cut:
            self._enqueue(data)

    def _put_end(self) -> None:
        """Say that nothing more will be sent."""
        self._link.recorder._note_end(self._sender, unheard=self._deaf)
        if not self._cut:
            self._enqueue(b"")

    def _put_reset(self) -> None:
        """Say that the connection is no more."""
        if self._stalled:
            self._reset_pending = True
        elif not self._cut:
            self._link.reset()

    def _enqueue(self, data: bytes) -> None:
        self._settle()
        if not self._queue:
            self._free_at = max(self._free_at, trio.current_time())
        if self.bandwidth is None or not data:
            self._queue.append(data)
        else:
            self._queue.extend(data[at : at + PACKET] for at in range(0, len(data), PACKET))
        self._settle()
        self._readers.unpark_all()

    @property
    def _next_leaves_at(self) -> float:
        """When the first of the queue will have left."""
        time = len(self._queue[0]) / self.bandwidth if self.bandwidth is not None else 0
        return self._free_at + time

    def _settle(self) -> None:
        """Let leave what the bandwidth has let leave by now."""
        while self._queue:
            left_at = self._next_leaves_at
            if left_at > trio.current_time():
                break
            self._free_at = left_at
            delay = self.latency + self.jitter * self._random.random()
            self._last_arrival = max(self._last_arrival, left_at + delay)
            self._travelling.append((self._last_arrival, self._queue.popleft()))

    # The receiver's side...

    @property
    def _readable(self) -> bool:
        """Whether something has arrived, be it the end."""
        if self.received >= self._end_at:
            return True
        self._settle()
        if self._stalled or not self._travelling:
            return False
        return self._travelling[0][0] <= trio.current_time()

    @property
    def _unread(self) -> bool:
        """Whether bytes have arrived that nobody has read."""
        return self._readable and bool(self._travelling and self._travelling[0][1])

    def _take(self, most: int) -> bytes:
        """Read what has arrived, ``b""`` at the end; only if there is something."""
        allowed = min(self._cut_at, self._reset_at, self._end_at) - self.received
        chunk = self.chunk if self.chunk is not None else most
        if isinstance(chunk, tuple):
            chunk = self._random.randint(*chunk)
        wanted = int(min(most, chunk, allowed))
        pieces: list[bytes] = []
        while wanted and self._unread:
            arrival, data = self._travelling.popleft()
            pieces.append(data[:wanted])
            if len(data) > wanted:
                self._travelling.appendleft((arrival, data[wanted:]))
            wanted -= len(pieces[-1])
        taken = b"".join(pieces)
        self._size -= len(taken)
        self.received += len(taken)
        ended = not taken and bool(self._travelling)
        self._link.recorder._note_arrived(self._sender, self.received + ended)
        self._writers.unpark_all()
        self._check_limits()
        return taken

    def _stop_reading(self) -> None:
        """The reader has closed: what is sent from now on meets nobody."""
        self._deaf = True
        self._wake()

    def _check_limits(self) -> None:
        if self.received >= self._reset_at:
            self._link.reset()
        elif self.received >= self._end_at and not self._cut:
            self._note("end of TCP")
            self._forget()
            self._cut = True
            self._wake()
        elif self.received >= self._cut_at and not self._cut:
            self._travelling.clear()
            self.cut()

    # Waiting...

    async def _wait_readable(self) -> None:
        """Wait until there may be something to read."""
        next_at = math.inf
        if self._stalled:
            pass
        elif self._travelling:
            next_at = self._travelling[0][0]
        elif self._queue:
            next_at = self._next_leaves_at
        with trio.CancelScope(deadline=next_at):
            await self._readers.park()

    async def _wait_writable(self) -> None:
        """Wait until there may be room."""
        await self._writers.park()

    async def _pass_through(self) -> None:
        """Take the time that one empty packet takes; for ever, if nothing gets through."""
        await trio.sleep(self.latency)
        while self._stalled or self._cut:
            await self._readers.park()

    def _wake(self) -> None:
        """Let all who wait look again."""
        self._readers.unpark_all()
        self._writers.unpark_all()

    def _forget(self) -> None:
        self._queue.clear()
        self._travelling.clear()
        self._size = 0


class Link:
    """The way between a client and a server, for one connection, with its faults.

    The arguments are settings of both directions, `to_server` and `to_client`; each can be
    changed there at any time, for one direction alone. ``seed`` decides what is left to
    chance: the same seed, the same link.

    Make one and hand it on: ``open_pair(link=link)``, ``network.open_websocket(url,
    link=link)``; or take the one that there is: ``pair.link``, ``network.links``.

    Raises:
      ValueError: a setting makes no sense.
    """

    def __init__(
        self,
        *,
        latency: float = 0,
        jitter: float = 0,
        bandwidth: float | None = None,
        chunk: int | tuple[int, int] | None = None,
        buffer: float | None = BUFFER,
        seed: object = 0,
    ) -> None:
        settings: dict[str, Any] = {
            "latency": latency,
            "jitter": jitter,
            "bandwidth": bandwidth,
            "chunk": chunk,
            "buffer": buffer,
        }
        sides: tuple[Side, Side] = ("client", "server")
        self._to_server, self._to_client = (
            Direction(side, self, **settings, random=Random(f"{seed} {side}"))  # noqa: S311  # no secret
            for side in sides
        )
        self._recorder = Recorder()
        self._broken = False
        self._used = False

    def __repr__(self) -> str:
        state = "reset" if self._broken else "in use" if self._used else "new"
        there, back = self._to_server.sent, self._to_client.sent
        return f"<Link {state}: {there} bytes to the server, {back} back>"

    @property
    def to_server(self) -> Direction:
        """What the client sends."""
        return self._to_server

    @property
    def to_client(self) -> Direction:
        """What the server sends."""
        return self._to_client

    @property
    def recorder(self) -> Recorder:
        """The transcript."""
        return self._recorder

    @property
    def broken(self) -> bool:
        """Whether it was reset."""
        return self._broken

    def stall(self) -> None:
        """Let nothing arrive on either side until `resume`; nothing is lost."""
        self._to_server.stall()
        self._to_client.stall()

    def resume(self) -> None:
        """Let everything arrive that was held back."""
        self._to_server.resume()
        self._to_client.resume()

    def half_open(self) -> None:
        """Let neither side hear of the other any more, and tell none of them.

        So it is when a cable is pulled, or a box on the way has forgotten the connection.
        """
        self._to_server.cut()
        self._to_client.cut()

    def reset(self) -> None:
        """Break the connection: what both sides read or send next fails, unread bytes are lost."""
        if not self._broken:
            self._broken = True
            self._recorder._note_event("network", "reset")
            for direction in (self._to_server, self._to_client):
                direction._forget()
                direction._wake()

    # For the sockets...

    @property
    def _client_has_gone(self) -> bool:
        """Whether the client has closed, and the server can know."""
        told = not (self._to_server._cut or self._to_server._stalled)
        return self._broken or (told and self._to_client._deaf)

    def _take_into_use(self) -> None:
        """Carry a connection.

        Raises:
          RuntimeError: it carries one already.
        """
        if self._used:
            raise RuntimeError("a Link carries one connection: make another one")
        self._used = True

    def _other(self, direction: Direction) -> Direction:
        """Return the opposite direction."""
        return self._to_client if direction is self._to_server else self._to_server
