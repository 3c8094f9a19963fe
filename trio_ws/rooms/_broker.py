"""The broker: where messages get their place in a room's history on the way to its members.

::

    Rooms.publish ─ Publication ─→ Broker ─ Sink.make, Sink.deliver ─→ members here
                                     │
                                     └─ (a distributed one) ─→ the Sinks of other processes

A broker knows rooms by name, and no members. What every broker promises, and
``tests/rooms/test_broker_contract.py`` checks:

* messages of one room are delivered in the order of their offsets, which are 1, 2, 3, ...
  within an epoch, to each process that has opened the room; and each one once;
* the history is in step with the delivery: whatever has been delivered is in
  ``history()`` when ``deliver`` is called, and nothing else;
* the same holds for ``occupants()`` and ``present``;
* messages that a process cannot get any more are announced by ``gap``, in their place.

So a room can be entered without a gap and without an await: what ``replay`` returns and
what is delivered from then on follow one on the other. Only ``open`` and ``publish``
may have to wait for a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs

from .._messages import Data, PreparedMessage
from ._messages import Joined, Left, Occupant, Position, Resume, RoomMessage
from ._queue import Delivery


@attrs.define(eq=False)
class Publication:
    """A message on its way from a publisher to rooms."""

    rooms: tuple[str, ...]
    data: Any
    payload: Data
    """The ``data`` as `Codec.encode` has returned it; the same object if it was left as it is."""
    key: str | None = None
    exclude: frozenset[str] = frozenset()
    """Names of those who do not get it."""
    only: frozenset[str] | None = None
    """Names of those who get it; `None`: all."""
    waits: bool = False
    """Whether the publisher, in this process, waits for members with `Overflow.WAIT`."""
    prepared: PreparedMessage | None = None
    """The ``payload``, encoded once for all rooms."""


@attrs.frozen
class Replay:
    """What `Broker.replay` returns."""

    messages: Sequence[RoomMessage]
    """What follows on ``since`` in the history, or as much of it as is left."""
    position: Position
    """Where the room stands: the next message delivered is the one after this."""
    resume: Resume


class Sink(Protocol):
    """What a broker delivers to: the manager of the rooms in this process. All of it is sync."""

    def make(
        self,
        publication: Publication,
        room: str,
        position: Position,
        places: tuple[tuple[str, Position], ...],
        order: int,
    ) -> RoomMessage:
        """Return the message for the history and for ``deliver``.

        ``places``: where it stands in each of its rooms, if there are several. Give the same
        tuple for all of them: a thousand rooms would be a million places otherwise.

        Raises: what the publisher's data, or a codec's ``wrap``, is to blame for. Then
          nothing may have happened: make all messages first, then count them.
        """
        ...

    def deliver(self, messages: Sequence[RoomMessage], publication: Publication) -> Delivery:
        """Deliver a publication: its messages, one for each room, at most once to each member."""
        ...

    def present(self, event: Joined | Left) -> None:
        """Somebody has come or gone, in this process or in another one."""
        ...

    def gap(self, room: str) -> None:
        """Messages of this room got lost, and the history does not have them either."""
        ...


class Broker(Protocol):
    """What `Rooms` stands on: a process of its own, or something that connects many."""

    immediate: bool
    """Whether ``publish_nowait`` can be used."""

    @property
    def degraded(self) -> str | None:
        """What keeps messages from reaching other processes; `None`: nothing."""
        ...

    def bind(self, sink: Sink) -> None:
        """Deliver to this manager from now on. Called once, before anything else."""
        ...

    async def open(self, room: str) -> None:
        """Begin to deliver a room's messages and presence: all those that follow.

        Called for closed rooms only, and not twice at a time for the same. Need not be a
        checkpoint.

        Raises:
          BrokerDown: it cannot be done now. The room is still closed.

        If cancelled: the room is still closed.

        Concurrency: several rooms at a time.
        """
        ...

    def close(self, room: str) -> None:
        """Stop to deliver: nobody in this process is in the room any more."""
        ...

    async def publish(self, publication: Publication) -> Delivery:
        """Give the message its place in each room's history, and deliver it everywhere.

        Return what became of it in this process. Need not be a checkpoint.

        Raises:
          BrokerDown: it cannot be done now, or nobody knows whether it was done.

        If cancelled: it was published, or not, but then in no room.

        Concurrency: any number of tasks; their messages need no order.
        """
        ...

    def publish_nowait(self, publication: Publication) -> Delivery:
        """`publish` if it is ``immediate``."""
        ...

    def replay(self, room: str, since: Position | None) -> Replay:
        """Return what an open room's history has after ``since``; nothing for `None`."""
        ...

    def history(self, room: str) -> tuple[RoomMessage, ...]:
        """Return what is kept of a room's messages."""
        ...

    @property
    def history_messages(self) -> int:
        """How many messages are kept, in all rooms, in this process."""
        ...

    @property
    def history_memory(self) -> int:
        """How much memory they take, in bytes."""
        ...

    def check(self, meta: Any) -> None:
        """Check that presence can tell others of this `Occupant.meta`.

        Raises:
          TypeError: it cannot.
        """
        ...

    def enter(self, room: str, occupant: Occupant) -> None:
        """Let presence know of somebody in an open room."""
        ...

    def leave(self, room: str, occupant: Occupant) -> None:
        """Let presence forget somebody in an open room."""
        ...

    def occupants(self, room: str) -> tuple[Occupant, ...]:
        """Return who is in an open room, in all processes."""
        ...
