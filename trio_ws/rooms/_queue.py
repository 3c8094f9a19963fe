"""The bounded queue of one member, with its policy.

::

    publish ─ put() ─→ fits? ─ yes ─→ [ Entry, Entry, Gap, Entry ] ─→ the member
                         │ no                    a memory channel
                         ├─ DISCONNECT   the member is given up
                         ├─ DROP_OLDEST  the first entries make room
                         ├─ DROP_NEWEST  this one is dropped
                         ├─ LATEST       the first make room, if there are too many keys
                         └─ WAIT         the entry stands in line, and its publisher waits

An entry holds no copy: all members share the message. What was dropped leaves a `Gap`
in its place. Gaps and what is replayed take no room, which is why the channel itself
has no bound, and the entries are counted here.

Everything is counted where it happens, on the counters of the room that the message
came through, so that the sums of `RoomStatistics` are right at any moment.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import attrs
import trio

from .._budget import Account
from ._messages import Missed, RoomMessage
from ._overflow import Overflow, Terms
from ._statistics import Counters


@attrs.define(eq=False)
class Entry:
    """A message that waits for one member."""

    message: RoomMessage
    counters: Counters
    """Those of its room."""
    size: int


@attrs.frozen(eq=False)
class Extra:
    """Something of the history that waits for one member; bounded by the history."""

    message: RoomMessage


@attrs.define(eq=False)
class Gap:
    """Messages that are missing between two entries; `None`: nobody knows how many."""

    count: int | None

    def widen(self, by: int | None) -> None:
        """Let more be missing."""
        self.count = None if self.count is None or by is None else self.count + by


Thing: TypeAlias = "Entry | Extra | Gap"
Channel: TypeAlias = "tuple[trio.MemorySendChannel[Thing], trio.MemoryReceiveChannel[Thing]]"


@attrs.define(eq=False)
class Ticket:
    """An entry that stands in line for a full queue, and holds its publisher up.

    If that gives up, or never waited, there is no ``entry``, but a ``gap`` in its place.
    """

    queue: Queue
    entry: Entry | None
    delivery: Delivery | None
    gap: Gap = attrs.field(factory=lambda: Gap(1))

    def settle(self, *, taken: bool) -> None:
        """Hold its publisher up no longer."""
        assert self.delivery is not None
        self.delivery.settle(self, taken=taken)


class Delivery:
    """What became of a publication in this process."""

    def __init__(self, *, waits: bool) -> None:
        self.taken: int = 0
        """How many members and subscriptions took the message."""
        self.waits = waits
        """Whether its publisher is willing to wait for members with `Overflow.WAIT`."""
        self._expected: dict[Ticket, None] = {}
        self._settled: trio.Event | None = None  # made when it is needed: it costs 1 µs

    def expect(self, ticket: Ticket) -> None:
        """Let `wait` wait for this one."""
        self._expected[ticket] = None

    def settle(self, ticket: Ticket, *, taken: bool) -> None:
        """One less to wait for."""
        del self._expected[ticket]
        self.taken += taken
        if not self._expected and self._settled is not None:
            self._settled.set()

    def abandon(self) -> None:
        """Let those miss the message who have not taken it yet: nobody waits for them."""
        for ticket in tuple(self._expected):
            ticket.queue.withdraw(ticket)

    async def wait(self) -> None:
        """Wait until all have taken the message, or never will; let others run in any case.

        Raises: nothing.

        If cancelled: those who have not taken it yet miss it.

        Concurrency: one task: who published.
        """
        if not self._expected:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._settled = trio.Event()
        try:
            await self._settled.wait()
        finally:
            self.abandon()


class Queue:
    """What waits for a member: entries in order, counted in messages and in bytes."""

    def __init__(self, terms: Terms, account: Account | None = None) -> None:
        self._terms = terms
        self._account = account
        self._channel: Channel | None = None  # made when it is needed: it takes 2 KiB
        self._hungry = 0  # tasks that wait in get(): what is put in next is theirs at once
        self._newest: dict[tuple[str, str | None], Entry] = {}  # for LATEST
        self._first_gap: Gap | None = None  # comes before what is in the channel
        self._last_gap: Gap | None = None  # if it is the last thing in the channel
        self._line: list[Ticket] = []
        self.length: int = 0
        """Messages that wait."""
        self.size: int = 0
        """Bytes of these."""
        self.missed: int = 0
        """Messages that were dropped."""

    # The publishers' side...

    @property
    def ready(self) -> bool:
        """Whether it is not full; one more message may then exceed the bound of bytes."""
        terms = self._terms
        return not self._line and self.length < terms.buffer and self.size < terms.buffer_bytes

    def put(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool | None:
        """Queue a message, or do what the policy says; return whether it was taken.

        `None`: the member is too slow, and has to be given up.
        """
        entry = Entry(message, counters, len(message.prepared.payload))
        overflow = self._terms.overflow
        if overflow is Overflow.LATEST and self._replace(entry):
            return True
        if self._line or not self._fits(entry.size):
            if overflow is Overflow.DISCONNECT:
                return None
            if overflow is Overflow.WAIT and delivery.waits:
                self._stand_in_line(entry, delivery)
                return False
            if overflow is Overflow.DROP_NEWEST or (overflow is Overflow.WAIT and not self.ready):
                self._drop(entry)
                self._leave_gap(1)
                return False
            if overflow is not Overflow.WAIT:
                self._make_room(entry.size)
        self._push(entry)
        return True

    def put_extra(self, message: RoomMessage) -> None:
        """Queue something of the history."""
        self._send(Extra(message))

    def leave_gap(self) -> None:
        """Say that messages are missing here, and nobody knows how many."""
        self._leave_gap(None)

    def _leave_gap(self, count: int | None) -> None:
        if not self._line:
            self._push_gap(count)
        elif self._line[-1].entry is None:
            self._line[-1].gap.widen(count)
        else:
            self._line.append(Ticket(self, None, None, Gap(count)))

    def _fits(self, size: int) -> bool:
        if self.length >= self._terms.buffer:
            return False
        # A message that is larger than the bound must be able to pass an empty queue.
        return not self.length or self.size + size <= self._terms.buffer_bytes

    def _replace(self, entry: Entry) -> bool:
        """Put a message into the place of the older one with its key."""
        waiting = self._newest.get(_key(entry))
        if waiting is None:
            return False
        counters = entry.counters
        counters.delivered -= 1
        self._drop(entry)
        growth = entry.size - waiting.size
        self.size += growth
        counters.queued_bytes += growth
        counters.most_queued_bytes = max(counters.most_queued_bytes, self.size)
        if self._account is not None:
            self._account.let_go(waiting.message.prepared)
            self._account.hold(entry.message.prepared)
        waiting.message, waiting.size = entry.message, entry.size
        return True

    def _make_room(self, size: int) -> None:
        """Drop what waits longest."""
        gap = self._first_gap = self._first_gap or Gap(0)
        while not self._fits(size):
            thing = self._pop()
            if isinstance(thing, Gap):
                gap.widen(thing.count)
                continue
            if isinstance(thing, Entry):
                thing.counters.delivered -= 1
                self._drop(thing)
            else:
                self.missed += 1
            gap.widen(1)

    def _drop(self, entry: Entry) -> None:
        entry.counters.dropped += 1
        self.missed += 1

    def _push(self, entry: Entry) -> None:
        if self._send(entry):
            return
        if self._terms.overflow is Overflow.LATEST:
            self._newest[_key(entry)] = entry
        self.length += 1
        self.size += entry.size
        if self._account is not None:
            self._account.hold(entry.message.prepared)
        counters = entry.counters
        counters.queued += 1
        counters.queued_bytes += entry.size
        counters.most_queued = max(counters.most_queued, self.length)
        counters.most_queued_bytes = max(counters.most_queued_bytes, self.size)

    def _push_gap(self, count: int | None) -> None:
        if self._last_gap is not None:
            self._last_gap.widen(count)
            return
        gap = Gap(count)
        if not self._send(gap):
            self._last_gap = gap

    def _send(self, thing: Thing) -> bool:
        """Put something into the channel; return whether somebody has it already."""
        self._open_channel()[0].send_nowait(thing)
        self._last_gap = None
        if self._hungry:
            self._hungry -= 1
            return True
        return False

    def _open_channel(self) -> Channel:
        if self._channel is None:
            self._channel = trio.open_memory_channel[Thing](math.inf)
        return self._channel

    # The line of those who wait for room...

    def _stand_in_line(self, entry: Entry, delivery: Delivery) -> None:
        entry.counters.waiting += 1
        ticket = Ticket(self, entry, delivery)
        delivery.expect(ticket)
        self._line.append(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """Its publisher waits no longer: the message is missed, in its place."""
        self._drop(_turn_away(ticket))
        index = self._line.index(ticket)
        before = self._line[index - 1] if index else None
        if before is not None and before.entry is None:
            before.gap.widen(1)  # or they would pile up behind one who is patient
            del self._line[index]
        self._admit()

    def _admit(self) -> None:
        """Let in who stands first in line, as far as there is room."""
        while self._line:
            ticket = self._line[0]
            entry = ticket.entry
            if entry is None:
                self._push_gap(ticket.gap.count)
            elif self._fits(entry.size):
                self._push(entry)
                entry.counters.waiting -= 1
                entry.counters.delivered += 1
                ticket.settle(taken=True)
            else:
                break
            del self._line[0]

    # The member's side...

    def get_nowait(self) -> RoomMessage | Missed | None:
        """Return the next thing, `None` if there is nothing."""
        if self._first_gap is not None:
            gap, self._first_gap = self._first_gap, None
            return Missed(gap.count)
        try:
            thing = self._pop()
        except trio.WouldBlock:
            return None
        self._admit()
        return _reveal(thing)

    async def get(self) -> RoomMessage | Missed:
        """Wait for the next thing, if `get_nowait` has just returned `None`.

        Raises:
          trio.ClosedResourceError: after `discard`.

        If cancelled: nothing is lost.
        """
        self._hungry += 1
        try:
            thing = await self._open_channel()[1].receive()
        except BaseException:
            self._hungry -= 1
            raise
        return _reveal(thing)

    def _pop(self) -> Thing:
        if self._channel is None:
            raise trio.WouldBlock
        thing = self._channel[1].receive_nowait()
        if thing is self._last_gap:
            self._last_gap = None
        if isinstance(thing, Entry):
            if self._newest:
                del self._newest[_key(thing)]
            self.length -= 1
            self.size -= thing.size
            if self._account is not None:
                self._account.let_go(thing.message.prepared)
            thing.counters.queued -= 1
            thing.counters.queued_bytes -= thing.size
        return thing

    # The end...

    def purge(self, room: str) -> None:
        """Drop what came through a room: the member has left it."""
        line, self._line = self._line, []
        for thing in self._drain():
            if isinstance(thing, Gap):
                self._push_gap(thing.count)
            elif thing.message.room != room:
                self._push(thing) if isinstance(thing, Entry) else self._send(thing)
            elif isinstance(thing, Entry):
                _take_back(thing).counters.dropped += 1
        for ticket in line:
            if ticket.entry is not None and ticket.entry.message.room == room:
                _turn_away(ticket).counters.dropped += 1
            else:
                self._line.append(ticket)
        self._admit()

    def discard(self, *, lost: bool) -> None:
        """Drop everything; ``lost``: because the connection is over."""
        entries = [_take_back(thing) for thing in self._drain() if isinstance(thing, Entry)]
        entries += [_turn_away(ticket) for ticket in self._line if ticket.entry is not None]
        self._line.clear()
        for entry in entries:
            if lost:
                entry.counters.disconnected += 1
            else:
                entry.counters.dropped += 1
        if self._channel is not None:
            self._channel[1].close()

    def _drain(self) -> list[Thing]:
        things: list[Thing] = []
        while self._channel is not None and self._channel[1].statistics().current_buffer_used:
            things.append(self._pop())
        return things


def _reveal(thing: Thing) -> RoomMessage | Missed:
    return Missed(thing.count) if isinstance(thing, Gap) else thing.message


def _key(entry: Entry) -> tuple[str, str | None]:
    return entry.message.room, entry.message.key


def _take_back(entry: Entry) -> Entry:
    """It was counted as delivered when it was queued, and will never be."""
    entry.counters.delivered -= 1
    return entry


def _turn_away(ticket: Ticket) -> Entry:
    """It stood in line for nothing."""
    entry = ticket.entry
    assert entry is not None
    entry.counters.waiting -= 1
    ticket.entry = None
    ticket.settle(taken=False)
    return entry
