"""Subscription: rooms for tasks that have no WebSocket."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import trio

from ._messages import Missed, Resume, RoomMessage
from ._overflow import Terms
from ._participant import Participant
from ._queue import Delivery
from ._recipient import BaseRecipient
from ._registry import Registry, Since
from ._statistics import Counters


class Subscription(Participant, trio.abc.ReceiveChannel[Any]):
    """What is published in rooms, as a `trio.abc.ReceiveChannel`; made by `Rooms.subscribe`.

    It yields what was published, as it was published: the same object, which must not be
    changed therefore. Where messages were dropped it yields a `Missed`.
    """

    def __init__(
        self, registry: Registry, rooms: tuple[str, ...], terms: Terms, since: Since
    ) -> None:
        self._recipient = self._channel = ChannelRecipient(registry, terms)
        self._names = rooms
        self._since = since
        self._entered = False
        self._last: RoomMessage | None = None

    def __repr__(self) -> str:
        return f"<Subscription {self.id} to {', '.join(map(repr, self.rooms)) or 'no room'}>"

    @property
    def last(self) -> RoomMessage | None:
        """The message that was received last, with its room and its position."""
        return self._last

    async def __aenter__(self) -> Self:
        try:
            await self.join(*self._names, since=self._since)
        except BaseException:
            self._recipient.end(lost=False)
            raise
        self._entered = True
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recipient.end(lost=False)

    async def receive(self) -> Any:
        """Receive the next message, or a `Missed` in the place of some.

        Raises:
          trio.BrokenResourceError: it was too slow, and ``overflow`` is
              `Overflow.DISCONNECT`; or its ``transform`` has failed (the cause).
          trio.ClosedResourceError: after ``aclose()``, or outside of the block.

        If cancelled: nothing is lost.

        Concurrency: any number of tasks; each message goes to one of them.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        recipient = self._channel
        if not self._entered:  # nothing would ever come
            raise trio.ClosedResourceError("messages come inside of `async with rooms.subscribe`")
        recipient.check_open()
        message = recipient.queue.get_nowait()
        if message is None:
            message = await recipient.get()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        if isinstance(message, Missed):
            return message
        self._last = message
        return message.data

    async def aclose(self) -> None:
        """Leave all rooms. Whoever waits in `receive` hears `trio.ClosedResourceError`.

        Raises: nothing.

        If cancelled: it is closed all the same.

        Concurrency: any number of tasks, any number of times.
        """
        self._recipient.end(lost=False)
        await trio.lowlevel.checkpoint()


class ChannelRecipient(BaseRecipient):
    """What stands behind a `Subscription`."""

    def __init__(self, registry: Registry, terms: Terms) -> None:
        super().__init__(registry, terms)
        self.queue = self._queue
        self._failure: tuple[str, Exception | None] | None = None

    def check_open(self) -> None:
        """Raise if it is closed or broken."""
        if self.over:
            raise self._end_error()

    def _end_error(self) -> Exception:
        if self._failure is None:
            return trio.ClosedResourceError("this subscription is closed")
        reason, cause = self._failure
        error = trio.BrokenResourceError(reason)
        error.__cause__ = cause
        return error

    async def get(self) -> RoomMessage | Missed:
        """Wait for the next message."""
        try:
            return await self._queue.get()
        except trio.ClosedResourceError:
            error = self._end_error()
        raise error

    def take(self, message: RoomMessage, counters: Counters, delivery: Delivery) -> bool:
        """Queue a message; return whether it was taken."""
        if self._transform is not None:
            return self._take_changed(message, counters, delivery)
        return self._hand_over(message, counters, delivery)

    def greet(self, greeting: RoomMessage | None, resume: Resume) -> None:
        """Leave a gap if something is lost; a greeting is for peers."""
        if resume is Resume.LOST:
            self._queue.leave_gap()

    def _on_too_slow(self) -> None:
        self._failure = "messages came faster than this subscription was read", None
        self.end(lost=True)

    def _on_transform_error(self, exc: Exception) -> None:
        self._failure = "the transform of this subscription failed", exc
        self.end(lost=True)
