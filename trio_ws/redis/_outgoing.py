"""The way out: publications that wait to be sent, in batches that are sent again if need be.

::

    put ─→ queue ─ next_batch ─→ batch ─ sent ─→ acknowledged ─→ the publisher goes on
                                   └── the link went down: sent again by the next one

A batch has a number, and Redis remembers the last one that it has published: so the same
batch is never published twice by one run of Redis. Another run may have forgotten, and then
nobody knows: the publisher is told so.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import attrs
import trio

from .._errors import BrokerDown, BrokerOverflow
from ..rooms import Delivery, Publication

BATCH: Final = 100
"""Publications in a batch: Redis is busy with it for about a millisecond."""

BATCH_BYTES: Final = 1024 * 1024
"""Bytes in a batch, but for a single publication that is larger."""


@attrs.define(eq=False)
class Pending:
    """A publication that its publisher waits for."""

    publication: Publication
    body: bytes
    origin: str
    sent: bool = False
    """Whether it may be published already."""
    acknowledged: bool = False
    """Whether it is published for sure."""
    delivery: Delivery | None = None
    """What became of it in this process."""
    failure: BrokerDown | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    def fail(self, failure: BrokerDown) -> None:
        """Let its publisher know that it was not published, or may not have been."""
        self.failure = failure
        self.done.set()


@attrs.define(eq=False)
class Batch:
    """Publications that are sent together."""

    number: int
    run: str
    """The run of Redis that it was sent to."""
    pending: list[Pending]


class Outgoing:
    """The queue of publications; bounded: a publisher that finds no room is told."""

    def __init__(self, most: float = math.inf, most_bytes: float = math.inf) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._queue: deque[Pending] = deque()
        self._batch: Batch | None = None
        self._number = 0
        self._length = 0
        self._bytes = 0
        self._news = trio.Event()

    def put(self, pending: Pending) -> None:
        """Queue a publication.

        Raises:
          BrokerOverflow: there is no room.
        """
        size = len(pending.body)
        if self._length and (self._length >= self._most or self._bytes + size > self._most_bytes):
            raise BrokerOverflow(f"{self._length} publications wait for Redis already")
        self._queue.append(pending)
        self._length += 1
        self._bytes += size
        self._news.set()

    def withdraw(self, pending: Pending) -> bool:
        """Take a publication back; return whether it was still there."""
        if pending.sent:
            return False
        self._queue.remove(pending)
        self._count_out(pending)
        return True

    async def wait(self) -> None:
        """Wait until there is something to send."""
        if not self._queue and self._batch is None:
            self._news = trio.Event()
            await self._news.wait()

    def next_batch(self, run: str) -> Batch | None:
        """Return what to send next: what was not acknowledged, or what waits, or nothing.

        If Redis has been started anew since, it may have published what it did not
        acknowledge, or not.
        """
        batch = self._batch
        if batch is not None and batch.run != run:
            self.fail_batch(
                BrokerDown("Redis was started anew: it may have been published", uncertain=True)
            )
            batch = None
        if batch is None and self._queue:
            self._number += 1
            batch = self._batch = Batch(self._number, run, self._take())
        return batch

    def _take(self) -> list[Pending]:
        taken: list[Pending] = []
        size = 0
        while self._queue and len(taken) < BATCH:
            size += len(self._queue[0].body)
            if taken and size > BATCH_BYTES:
                break
            pending = self._queue.popleft()
            pending.sent = True
            taken.append(pending)
        return taken

    def acknowledge(self, batch: Batch, problems: list[str]) -> list[Pending]:
        """The batch was published, but for what Redis refuses; return what it held."""
        if batch is not self._batch:
            return []  # it was given up meanwhile
        pending = self._end_batch()
        for each, problem in zip(pending, problems or [""] * len(pending), strict=True):
            if problem:
                each.fail(BrokerDown(f"Redis refuses it: {problem}"))
            else:
                each.acknowledged = True
        return pending

    def fail_batch(self, failure: BrokerDown) -> None:
        """Give the batch up."""
        for pending in self._end_batch():
            pending.fail(failure)

    def fail_all(self, reason: str) -> None:
        """Give everything up."""
        if self._batch is not None:
            self.fail_batch(BrokerDown(reason, uncertain=True))
        while self._queue:
            pending = self._queue.popleft()
            self._count_out(pending)
            pending.fail(BrokerDown(reason))

    def _end_batch(self) -> list[Pending]:
        assert self._batch is not None
        pending = self._batch.pending
        self._batch = None
        for each in pending:
            self._count_out(each)
        return pending

    def _count_out(self, pending: Pending) -> None:
        self._length -= 1
        self._bytes -= len(pending.body)
