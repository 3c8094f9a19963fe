"""Where frames wait for the `Writer`, and ``send()`` for room.

Three lanes lead to the one who writes, and a frame that meets nobody may go past them::

    pongs    the newest 64; older ones that have not left are dropped (RFC 6455, 5.5.3)
    control  pings
    data     messages and parts of messages, then the Close

A Ping or a Pong goes out between two frames of the data lane, whatever waits there.
The Close goes last, behind what ``send()`` has taken.

Whoever sends has the *turn*: turns are taken in the order of asking, so that messages
keep theirs and nothing gets between the parts of a message. With the turn it waits for
room: until fewer than ``limit`` bytes are queued. Then the whole message is queued at
once. Hence cancelling a send takes back all of it or nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import trio
from trio.lowlevel import ParkingLot

from ._budget import Account, Purse, open_purse
from ._options import KIB

BATCH: Final = 64 * KIB
"""Bytes to gather for one write: more of them would not make the system call cheaper
per byte, and a Ping that comes meanwhile has to wait for all."""

MAX_PONGS: Final = 64
"""Pongs that may wait: as many as events are handled in a row, so that each ping of a burst is
answered; few enough that a peer that only pings and never reads takes no more than 8 KiB."""


PingEntry: TypeAlias = "tuple[bytes, Callable[[], None]]"


class Outbox:
    """The sending half of a connection: frames in the order in which they leave."""

    def __init__(
        self,
        limit: float,
        on_work: Callable[[], None] | None = None,
        account: Account | None = None,
        write_through: Callable[[bytes], bool] = lambda frame: False,
    ) -> None:
        self._limit = limit
        self._purse = open_purse(account)
        self._own = 0  # bytes of what is queued for this connection alone, at most
        self._on_work = on_work or self.wake_writer
        self._write_through = write_through
        # Lists, for an empty deque takes 760 bytes. A batch is cut off at once, not one by one.
        self._pongs: list[bytes] = []
        self._control: list[PingEntry] = []
        self._data: list[bytes] = []
        self._leaving: list[Callable[[], None]] = []
        self._batch_size = 0
        self._in_flight = False  # a batch has been taken, and is not written yet
        self._refusal: Callable[[], Exception] | None = None
        self._turn: trio.lowlevel.Task | None = None  # who has it
        # Made when they are needed, which for most connections they never are:
        self._next: ParkingLot | None = None  # who waits for it
        self._room: ParkingLot | None = None  # who has it, and waits for room
        self._work: ParkingLot | None = None  # the writing task
        self.feeders: list[Callable[[], None]] = []
        """Called when there may be room: by rooms, for members who are behind."""
        self.size: int = 0
        """Bytes of data that are queued or being written."""
        self.closing: bool = False
        """Whether the last frame is queued."""
        self.quiet: bool = False
        """Whether the writer needs not be told of what is queued: it is about to look."""

    # The senders' side...

    def check(self) -> None:
        """Raise what `refuse` said, if it did."""
        if self._refusal is not None:
            raise self._refusal()

    @property
    def waiting_senders(self) -> int:
        """Tasks that wait for their turn or for room."""
        return sum(len(lot) for lot in (self._next, self._room) if lot is not None)

    async def take_turn(self) -> None:
        """Wait until it is the caller's turn and there is room."""
        self.check()
        task = trio.lowlevel.current_task()
        if self._turn is task:
            raise RuntimeError(
                "a task that is in open_message() cannot send another message: it would wait "
                "for itself"
            )
        has_to_wait = self._turn is not None
        if has_to_wait:
            self._next = self._next or ParkingLot()
            await self._next.park()  # woken by `_pass_turn`; or by `refuse`: no turns any more
        else:
            self._turn = task
        try:
            if has_to_wait:
                await trio.lowlevel.checkpoint_if_cancelled()  # as in `wait_room`
            await self.wait_room()
        except BaseException:
            self._pass_turn()
            raise

    def has_room(self) -> bool:
        """Whether a message may be queued this instant, past nobody who waits."""
        if self._refusal is not None:
            raise self._refusal()
        return self.size < self._limit and self._turn is None

    def end_turn(self) -> None:
        """Let the next sender go on."""
        self._pass_turn()
        self._feed()

    def _pass_turn(self) -> None:
        self._turn = self._next.unpark()[0] if self._next else None

    def _feed(self) -> None:
        for feed in tuple(self.feeders):
            feed()

    async def wait_room(self) -> None:
        """With the turn: wait until a message may be queued."""
        self.check()
        while self.size >= self._limit:
            self._room = self._room or ParkingLot()
            await self._room.park()
            await trio.lowlevel.checkpoint_if_cancelled()  # if the end cancels, that comes first
            self.check()

    def put(self, frames: Sequence[bytes], *, shared: bool = False) -> None:
        """Queue a message, or a part of one: with the turn, or right after `has_room`.

        ``shared``: the same frames are queued elsewhere, and cost nothing here.
        """
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        behind = self.size or self._in_flight or self._pongs or self._control or self.feeders
        if behind or len(frames) > 1 or not self._write_through(frames[0]):
            self._data.extend(frames)
            self.size += size
            self._tell_writer()
        if self._purse is not None:
            self._settle(self._purse, 0 if shared else size)

    def _settle(self, purse: Purse, more: int = 0) -> None:
        self._own = min(self._own + more, self.size)
        purse.settle(self._own)

    def _tell_writer(self) -> None:
        if not self.quiet:
            self._on_work()

    def put_ping(self, frame: bytes, left: Callable[[], None]) -> PingEntry:
        """Queue a Ping; ``left`` is called when it has left."""
        entry = frame, left
        self._control.append(entry)
        self._tell_writer()
        return entry

    def withdraw_ping(self, entry: PingEntry) -> None:
        """Drop a Ping that nobody waits for, if it has not begun to leave."""
        with contextlib.suppress(ValueError):
            self._control.remove(entry)

    def put_pong(self, make_frame: Callable[[], bytes]) -> None:
        """Queue a Pong, unless the Close is queued: no frame may follow that.

        Behind the last of a burst `send_pongs` must follow: they leave together.
        """
        if not self.closing:
            self._pongs.append(make_frame())
            del self._pongs[:-MAX_PONGS]

    def send_pongs(self) -> None:
        """Let those that are queued leave."""
        if self._pongs:
            self._tell_writer()

    # The end...

    def put_close(self, frame: bytes) -> None:
        """Queue the Close: the last frame, behind all data."""
        self._data.append(frame)
        self.size += len(frame)
        self.closing = True
        self._tell_writer()

    def refuse(self, make_error: Callable[[], Exception]) -> None:
        """Let every sender, present and future, fail with ``make_error``."""
        self._refusal = make_error
        for waiting in (self._room, self._next):
            if waiting:
                waiting.unpark_all()
        self._feed()  # those who are behind must not wait for room that never comes

    def discard(self) -> None:
        """Drop everything that has not begun to leave."""
        self._data.clear()
        self._control.clear()
        self._pongs.clear()
        self.size = self._batch_size
        if self._purse is not None:
            self._settle(self._purse)

    # The writing task's side...

    @property
    def empty(self) -> bool:
        """Whether everything has been written."""
        return not (self._in_flight or self.waiting)

    @property
    def waiting(self) -> bool:
        """Whether there are frames that have not begun to leave."""
        return bool(self._data or self._control or self._pongs)

    def begin(self, size: int) -> None:
        """Say that a frame past the queue has left in part; `written` must follow."""
        self._in_flight = True
        self.size = self._batch_size = size

    def wake_writer(self) -> None:
        """Let the writing task, if it waits, see what there is to write."""
        if self._work:
            self._work.unpark()

    async def wait_work(self) -> None:
        """Return once there is something to write, or nothing more will be."""
        while self.empty and not self.closing:
            self._work = self._work or ParkingLot()
            await self._work.park()

    def stop(self) -> None:
        """Say that nothing will be written any more."""
        self._in_flight = False
        self._batch_size = 0
        self._leaving.clear()
        self.discard()

    def next_batch(self) -> bytes:
        """Return what to write next; `written` must follow."""
        self._in_flight = True
        frames, self._pongs = self._pongs, []
        for frame, left in self._control:
            frames.append(frame)
            self._leaving.append(left)
        self._control.clear()
        taken = 0
        for frame in self._data:
            if self._batch_size >= BATCH:
                break
            self._batch_size += len(frame)
            taken += 1
        frames += self._data[:taken]
        del self._data[:taken]
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def written(self) -> None:
        """Say that the batch is with the network: room for the next."""
        self._in_flight = False
        self.size -= self._batch_size
        self._batch_size = 0
        if self._purse is not None:
            self._settle(self._purse)
        leaving, self._leaving = self._leaving, []
        for left in leaving:
            left()
        if self.size < self._limit:
            if self._room:
                self._room.unpark_all()
            self._feed()
