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

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

import trio

from ._budget import Account, open_purse
from ._messages import OVERHEAD, Data, MessagePart
from ._options import KIB
from ._pace import Pace

LARGE: Final = 16 * KIB
"""Bytes, or characters, from which on pieces are only joined when all are there: so few of
them take no memory to speak of."""


class Inbox:
    """The receiving half of a connection: a queue bounded in bytes, for one consumer."""

    def __init__(
        self,
        limit: float,
        on_drained: Callable[[], None],
        account: Account | None = None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit = limit
        self._on_drained = on_drained
        self._on_room = on_room
        self._purse = open_purse(account)
        self.messages: list[tuple[Data, int]] = []
        """The first complete messages that wait to be received, each with its size, and the
        oldest at the end: so it is taken at no cost, and an empty list is not the 760 bytes of
        an empty deque. There are none if there are none at all. To be looked at only."""
        self._later: list[tuple[Data, int]] = []  # those behind, the oldest first
        self._pieces: list[Data] = []  # of the message that is not complete yet
        self._pieces_size = 0
        self._skipping = False  # the rest of a message that nobody wants any more
        self._end: Callable[[], Exception] | None = None
        self._busy = False
        self._whole_wanted = False
        self._pace = Pace()
        self._sleeper: trio.lowlevel.Task | None = None  # who waits for news
        self._promised = 0  # what a consumer that was just woken is about to take
        self.held: int = 0
        """What is unread, and what that costs besides."""
        self.received: int = 0
        """Messages that have been handed out, or have begun to be."""
        self.visits: int = 0
        """How often a task has come to receive."""
        self.consumer: trio.lowlevel.Task | None = None
        """The last task that did."""
        self.paused: bool = False
        """Whether whoever fills it waits to be told of room."""

    # The reading task's side...

    @property
    def full(self) -> bool:
        """Whether reading should pause."""
        unread = self.held - self._promised
        return unread >= self._limit and not self._whole_wanted and self._end is None

    @property
    def room(self) -> float:
        """What can be put until it is full."""
        return self._limit - self.held

    @property
    def size(self) -> int:
        """Unread bytes."""
        return self.held - OVERHEAD * self.unread_messages

    @property
    def unread_messages(self) -> int:
        """Complete messages that wait to be received."""
        return len(self.messages) + len(self._later)

    @property
    def awaited(self) -> bool:
        """Whether a consumer waits for what comes next."""
        return self._sleeper is not None

    @property
    def in_hand(self) -> bool:
        """Whether the consumer has received, and has not come back for more."""
        return self.visits > 0 and self._sleeper is None

    def put_messages(self, messages: Sequence[tuple[Data, int]]) -> None:
        """Add whole messages, each with its size; the one before is complete."""
        if self.messages:
            self._later += messages
        else:
            self.messages += reversed(messages)
        for _, size in messages:
            self.held += size + OVERHEAD
        if self._sleeper is not None:
            self._wake(self._sleeper)
        if self._purse is not None:
            self._purse.settle(self.held)

    def put(self, part: MessagePart) -> None:
        """Add what has come of a message."""
        if self._skipping:
            self._skipping = not part.final
            return
        self.held += part.size
        if part.final:
            self.held += OVERHEAD
        if part.final and not self._pieces:
            self._add((part.data, part.size))
        else:
            self._add_piece(part)
        if self._sleeper is not None and (self.messages or not self._whole_wanted):
            self._wake(self._sleeper)  # here it is; what comes behind it has to wait
        if self._purse is not None:
            self._purse.settle(self.held)

    def _add_piece(self, part: MessagePart) -> None:
        pieces = self._pieces
        pieces.append(part.data)
        self._pieces_size += part.size
        if part.final:
            self._add(self._take_pieces())
            return
        while len(pieces) > 1 and len(pieces[-2]) <= len(pieces[-1]) < LARGE:
            tail = pieces.pop()
            pieces[-1] += tail  # type: ignore[operator]  # a message is all text or all binary

    def _add(self, message: tuple[Data, int]) -> None:
        (self._later if self.messages else self.messages).append(message)

    def _take_first(self) -> tuple[Data, int]:
        first = self.messages.pop()
        if self._later and not self.messages:
            self.messages += reversed(self._later)
            self._later.clear()
        return first

    def _take_pieces(self) -> tuple[Data, int]:
        pieces, self._pieces = self._pieces, []
        size, self._pieces_size = self._pieces_size, 0
        return type(pieces[0])().join(pieces), size  # type: ignore[arg-type]  # likewise

    def end(self, make_error: Callable[[], Exception]) -> None:
        """Say that no more will come: ``make_error`` tells a consumer why.

        ``on_drained`` is called when one has come back and is told.
        """
        self._end = make_error
        if self._sleeper is not None:
            self._wake(self._sleeper)
        self._tell_of_room()

    def discard(self) -> None:
        """Drop everything unread: nobody will ask for it."""
        self.messages.clear()
        self._later.clear()
        self._pieces.clear()
        self._pieces_size = self.held = 0
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

    @trio.lowlevel.enable_ki_protection  # who sleeps, and what is taken, must be known exactly
    async def get(self) -> Data:
        """Consume the next message.

        Raises: as `enter`; once there is none, what `end` said.
        """
        self.enter()
        try:
            if self.messages:
                if self._pace.is_due():
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.checkpoint_if_cancelled()
            while not self.messages:
                await self._wait(whole=True)
        finally:
            self._busy = False
        data, size = self._take_first()
        self.received += 1
        self._taken(size + OVERHEAD)
        return data

    @trio.lowlevel.enable_ki_protection
    async def get_part(self) -> MessagePart:
        """Return what there is of the next message; whoever asks has called `enter`."""
        self.consumer = trio.lowlevel.current_task()  # another may have entered
        await trio.lowlevel.checkpoint()
        while not (self.messages or self._pieces):
            await self._wait(whole=False)
        return MessagePart(*self._take_part())

    def _take_part(self) -> tuple[Data, int, bool]:
        final = bool(self.messages)
        data, size = self._take_first() if final else self._take_pieces()
        self._taken(size + OVERHEAD * final)
        return data, size, final

    def skip(self) -> None:
        """Drop the rest of the message that `get_part` has begun."""
        if self.messages:
            self._take_part()
        else:
            size, self._pieces_size = self._pieces_size, 0
            self._pieces.clear()
            self._skipping = True
            self._taken(size)

    def _wait(self, *, whole: bool) -> Awaitable[object]:
        """Return what waits for news; no coroutine of its own, to wake up a little faster."""
        if self._end is not None:
            return self._tell_end(self._end)
        self._whole_wanted = whole
        if self.paused:
            self._tell_of_room()
        self._sleeper = self.consumer
        return trio.lowlevel.wait_task_rescheduled(self._abort_sleep)  # noqa: ASYNC105  # see above

    async def _tell_end(self, make_error: Callable[[], Exception]) -> NoReturn:
        await trio.lowlevel.checkpoint()  # who is cancelled by the end shall hear that
        self._on_drained()
        raise make_error()

    def _abort_sleep(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        self._whole_wanted = False
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self, sleeper: trio.lowlevel.Task) -> None:
        self._sleeper = None
        self._whole_wanted = False
        if self.messages:
            self._promised = self.messages[-1][1] + OVERHEAD
        trio.lowlevel.reschedule(sleeper)

    def _taken(self, held: int) -> None:
        self.held -= held
        self._promised = 0
        if self._purse is not None:
            self._purse.settle(self.held)
        if self.paused:
            self._tell_of_room()

    def _tell_of_room(self) -> None:
        if self.paused and not self.full:
            self.paused = False
            self._on_room()
