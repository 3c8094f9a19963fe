"""Where received messages wait for ``receive()``, and ``receive()`` for messages.

The reading task puts parts in; one task at a time takes whole messages, or the parts
of one, out. Two things bound it:

* once ``limit`` bytes are unread the inbox is *full* and the reading task pauses. For
  that each message counts for more than its bytes, lest empty ones come without end.
  Reading goes on when somebody waits for the end of a message that is not yet complete:
  such a message may take up to ``Options.max_message_size``;
* pieces of an unfinished message are joined like the digits of a binary counter, so
  that a message that comes a byte at a time costs O(n log n) and not an object a byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from ._budget import Account, open_purse
from ._messages import Data, MessagePart
from ._pace import Pace

OVERHEAD: Final = 64
"""What an unread message counts for besides its bytes: a tuple of 56, and a place in a deque."""


class Inbox:
    """The receiving half of a connection: a queue bounded in bytes, for one consumer."""

    def __init__(
        self, limit: float, on_drained: Callable[[], None], account: Account | None = None
    ) -> None:
        self._limit = limit
        self._on_drained = on_drained
        self._purse = open_purse(account)
        self._messages: deque[tuple[Data, int]] = deque()
        self._pieces: list[Data] = []  # of the message that is not complete yet
        self._pieces_size = 0
        self._skipping = False  # the rest of a message that nobody wants any more
        self._end: Callable[[], Exception] | None = None
        self._busy = False
        self._whole_wanted = False
        self._pace = Pace()
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self.size: int = 0
        """Unread bytes."""
        self.visits: int = 0
        """How often a task has come to receive."""
        self.consumer: trio.lowlevel.Task | None = None
        """The last task that did."""

    # The reading task's side...

    @property
    def full(self) -> bool:
        """Whether reading should pause."""
        held = self.size + OVERHEAD * len(self._messages)  # not `held`: it is asked so often
        return held >= self._limit and not self._whole_wanted and self._end is None

    @property
    def held(self) -> int:
        """What is unread, and what that costs besides."""
        return self.size + OVERHEAD * len(self._messages)

    @property
    def unread_messages(self) -> int:
        """Complete messages that wait to be received."""
        return len(self._messages)

    @property
    def in_hand(self) -> bool:
        """Whether the consumer has received, and has not come back for more."""
        return self.visits > 0 and not self._news

    def put(self, part: MessagePart) -> None:
        """Add what has come."""
        if self._skipping:
            self._skipping = not part.final
            return
        self.size += part.size
        if part.final and not self._pieces:
            self._messages.append((part.data, part.size))
        else:
            self._add_piece(part)
        if self._messages:
            self._whole_wanted = False  # here it is; what comes behind it has to wait
        if not self._whole_wanted:
            self._news.unpark_all()
        if self._purse is not None:
            self._purse.settle(self.held)

    def _add_piece(self, part: MessagePart) -> None:
        pieces = self._pieces
        pieces.append(part.data)
        self._pieces_size += part.size
        if part.final:
            self._messages.append(self._take_pieces())
            return
        while len(pieces) > 1 and len(pieces[-2]) <= len(pieces[-1]):
            tail = pieces.pop()
            pieces[-1] += tail  # type: ignore[operator]  # a message is all text or all binary

    def _take_pieces(self) -> tuple[Data, int]:
        pieces, self._pieces = self._pieces, []
        size, self._pieces_size = self._pieces_size, 0
        return type(pieces[0])().join(pieces), size  # type: ignore[arg-type]  # likewise

    async def wait_not_full(self) -> None:
        """Return once reading may go on."""
        while self.full:
            await self._room.park()

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Say that no more will come: ``make_error`` tells a consumer why.

        ``on_drained`` is called when one has come back and is told.
        """
        self._end = make_error
        self._news.unpark_all()
        self._room.unpark_all()

    def discard(self) -> None:
        """Drop everything unread: nobody will ask for it."""
        self._messages.clear()
        self._pieces.clear()
        self._pieces_size = self.size = 0
        if self._purse is not None:
            self._purse.settle(0)

    # The consumer's side...

    def enter(self) -> None:
        """Begin to consume; `leave` must follow.

        Raises:
          trio.BusyResourceError: another task consumes.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is receiving from this WebSocket")
        self._busy = True
        self.visits += 1
        self.consumer = trio.lowlevel.current_task()

    def leave(self) -> None:
        """Let another task consume."""
        self._busy = False

    async def get(self) -> Data:
        """Return the next message; raise what `end` said if there is none."""
        await self._pace.step()
        while not self._messages:
            await self._wait(whole=True)
        data, size = self._messages.popleft()
        self._taken(size)
        return data

    async def get_part(self) -> MessagePart:
        """Return what there is of the next message."""
        await trio.lowlevel.checkpoint()
        while not (self._messages or self._pieces):
            await self._wait(whole=False)
        final = bool(self._messages)
        data, size = self._messages.popleft() if final else self._take_pieces()
        self._taken(size)
        return MessagePart(data, size, final)

    def skip(self) -> None:
        """Drop the rest of the message that `get_part` has begun."""
        if self._messages:
            _, size = self._messages.popleft()
            self._taken(size)
        else:
            size, self._pieces_size = self._pieces_size, 0
            self._pieces.clear()
            self._skipping = True
            self._taken(size)

    async def _wait(self, *, whole: bool) -> None:
        if self._end is not None:
            await trio.lowlevel.checkpoint()  # who is cancelled by the end shall hear that
            self._on_drained()
            raise self._end()
        self._whole_wanted = whole
        try:
            self._room.unpark_all()
            await self._news.park()
        finally:
            self._whole_wanted = False

    def _taken(self, size: int) -> None:
        self.size -= size
        if self._purse is not None:
            self._purse.settle(self.held)
        if not self.full:
            self._room.unpark_all()
