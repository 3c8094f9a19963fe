"""Rooms: one message to many, none of whom can hold up another."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import trio

from .._messages import PreparedMessage, as_data
from .._websocket import WebSocket
from ._broker import Broker, Publication
from ._codec import Codec
from ._embedded import EmbeddedBroker
from ._history import History
from ._member import ConnectionRecipient, Joining, Member
from ._messages import RoomMessage
from ._overflow import BUFFER, BUFFER_BYTES, Overflow, Terms, Transform
from ._participant import Participant, check_kind, check_names
from ._presence import Presence
from ._registry import OnJoin, Registry, RoomLimits, Since
from ._statistics import RoomsStatistics
from ._subscription import Subscription

Who: TypeAlias = "Collection[Participant | WebSocket | str]"


class Rooms:
    """Rooms that connections join and messages are published to.

    ``Rooms()`` lives in this process, and needs no task and no block of its own: a
    module-level ``rooms = Rooms()`` is as good as one made inside of `trio.run`. A room
    begins with whoever enters it first, and is gone with the last one, but for its
    history.

    Args:
      history: how much of each room is kept for those who come later or resume
          (`History`); by default nothing.
      codec: how what is published becomes text or bytes, and what members are told with
          it (`Codec`, `Envelope`).
      on_join: called with ``(request, room, meta)`` before a connection enters a room;
          async or not. ``request`` is `WebSocket.request`. What it raises refuses the
          entry, and leaves `join`: a `JoinRefused` of yours may leave the handler, too.
          It returns nothing, lest anybody is let in by a `False` that nobody hears.
      limits: how much peers may make this process remember (`RoomLimits`).
      broker: what stands underneath (`Broker`); by default this process alone. Others
          bring their own ``history``.

    What it promises:

    * All members of a room get its messages in the same order; a member that a message
      reaches through several rooms gets it once.
    * Publishing never waits for a member, and no member for another one, but for those
      who chose `Overflow.WAIT`.
    * A message is encoded once, however many members there are.
    * Whoever misses a message can know: the connection ends, a `Missed` stands in its
      place, or the statistics say so.
    """

    def __init__(
        self,
        *,
        history: History | None = None,
        codec: Codec | None = None,
        on_join: OnJoin | None = None,
        limits: RoomLimits | None = None,
        broker: Broker | None = None,
    ) -> None:
        check_arguments(history, codec, on_join, limits)
        limits = limits or RoomLimits()
        if broker is None:
            broker = EmbeddedBroker(history, max_memory=limits.max_history_memory)
        elif history is not None:
            raise TypeError("a broker brings its own history: leave out one of them")
        self._broker = broker
        self._codec = codec or Codec()
        self._registry = Registry(broker, self._codec, on_join, limits)
        self._token: trio.lowlevel.TrioToken | None = None
        self._note_token()

    def __repr__(self) -> str:
        return f"<Rooms {len(self._registry.rooms)} rooms>"

    # Being in rooms...

    def join(
        self,
        ws: WebSocket,
        *rooms: str,
        buffer: float = BUFFER,
        buffer_bytes: float = BUFFER_BYTES,
        overflow: Overflow = Overflow.DISCONNECT,
        name: str | None = None,
        meta: Any = None,
        since: Since = None,
        transform: Transform | None = None,
    ) -> AbstractAsyncContextManager[Member]:
        """Be in rooms for the length of a block: ``async with rooms.join(ws, "a") as member``.

        The connection leaves its rooms when the block ends, in whichever way, and when it
        is found to be over. What is still queued for it then is dropped.

        Args:
          ws: the connection, of a server or a client.
          *rooms: their names; none is fine, if `Member.join` is to follow.
          buffer: messages that may wait for a connection whose outgoing buffer is full.
          buffer_bytes: bytes of these. A larger message is taken if none waits.
          overflow: what becomes of those for which there is no room (`Overflow`).
          name: what ``exclude=`` and ``only=`` of `publish` may call it, besides the
              member itself. It may have many members, and outlives each of them: if it
              is the user's, what they are excluded from is not replayed to them either.
          meta: who it is, for `presence`, ``on_join`` and your own code.
          since: where to resume: the `Position` after which messages were missed, or
              its text; ``START`` for all that the history has; for several rooms, a dict
              of these. `Member.resumed` tells what came of it. A text that is no position
              means that all is lost: it comes from a peer.
          transform: called with each `RoomMessage`. It returns the message as it is, or
              `None` to leave it out, or other data, which is then encoded for this
              member alone. It must not publish. If it raises, the connection is closed
              with 1011.

        Raises (the block, on entering):
          JoinRefused: a limit is reached. It is no error of a handler that it leaves: the
              peer is told 1013, or 1008 if to come again would not help.
          ConnectionLost: the connection is over.
          trio.ClosedResourceError: this side has closed it.
          ValueError: one ``since`` for several rooms.

        and whatever ``on_join`` does. Raises at once:

          TypeError: ``ws`` is no `WebSocket`, a name no string, or ``meta`` cannot travel.
          ValueError: ``buffer`` or ``buffer_bytes`` is no positive number.

        If cancelled: it has entered none of the rooms.

        Concurrency: a connection may join several times; each time it is another member.
        """
        if not isinstance(ws, WebSocket):
            raise TypeError(f"join() takes the WebSocket itself, not {type(ws).__name__}")
        terms = Terms(buffer, buffer_bytes, overflow, transform)
        self._note_token()
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"the name of a member is a str, not {type(name).__name__}")
        self._broker.check(meta)
        return Joining(
            self._registry, ws, check_names(rooms), terms, name=name, meta=meta, since=since
        )

    def subscribe(
        self,
        *rooms: str,
        buffer: float = BUFFER,
        buffer_bytes: float = BUFFER_BYTES,
        overflow: Overflow = Overflow.DROP_OLDEST,
        since: Since = None,
        transform: Transform | None = None,
    ) -> Subscription:
        """Receive what is published: ``async with rooms.subscribe("a") as messages``.

        For tasks that have no WebSocket. The arguments are those of `join`;
        `Overflow.DISCONNECT` means that `Subscription.receive` raises
        `trio.BrokenResourceError`. Presence does not tell of subscriptions, limits on
        members do not count them, and ``on_join`` is not asked.

        Raises (the block, on entering):
          JoinRefused: there are too many rooms.
          ValueError: one ``since`` for several rooms.

        Raises at once: `TypeError` and `ValueError`, as `join`.

        If cancelled: it is subscribed to none of the rooms.

        Concurrency: any number of subscriptions.
        """
        terms = Terms(buffer, buffer_bytes, overflow, transform)
        self._note_token()
        return Subscription(self._registry, check_names(rooms), terms, since)

    # Publishing...

    async def publish(
        self,
        room: str | Iterable[str],
        data: Any,
        *,
        exclude: Who = (),
        only: Who | None = None,
        key: str | None = None,
    ) -> int:
        """Send a message to all who are in a room, or in several; return how many took it.

        It waits for no member, but for those with `Overflow.WAIT`. "Took" means: it is
        on its way to the peer, or waits in the member's queue. With a distributed broker
        those of this process are counted.

        Args:
          room: a room, or several: who is in more than one gets the message once,
              through the first of them.
          data: text, bytes, a `PreparedMessage`, or anything else that the codec encodes
              (JSON by default).
          exclude: members, subscriptions, connections, their ids or names: they do not
              get it.
          only: nobody but these, of those who are in the room, gets it.
          key: which of the older messages it replaces, for members with
              `Overflow.LATEST`; by default all of the room.

        Raises:
          TypeError, ValueError: the codec has no place for the data. Nothing was sent.
          BrokerDown: the rooms span processes, and cannot reach the others.
          BrokerOverflow: likewise, and too much waits for that already.

        If cancelled: the message was published, or not at all. Members with
          `Overflow.WAIT` that had not taken it yet miss it.

        Concurrency: any number of tasks; all members see one order of their messages.
        """
        publication = self._publication(room, data, exclude, only, key, waits=True)
        return await self._publish(publication)

    def publish_nowait(
        self,
        room: str | Iterable[str],
        data: Any,
        *,
        exclude: Who = (),
        only: Who | None = None,
        key: str | None = None,
    ) -> int:
        """Do what `publish` does without waiting, and without a checkpoint.

        Raises: as `publish`, and

          trio.WouldBlock: a member with `Overflow.WAIT` is behind; nothing was sent.
          RuntimeError: the rooms are distributed, so that a network has to be waited
              for; or this is not trio's thread.

        Concurrency: any number of tasks.
        """
        if not self._broker.immediate:
            raise RuntimeError("these rooms span processes: use `await rooms.publish(...)`")
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError("publish_nowait() is for trio's thread: use publish_from_thread()")
        publication = self._publication(room, data, exclude, only, key, waits=False)
        if not self._registry.all_ready(publication):
            raise trio.WouldBlock
        return self._broker.publish_nowait(publication).taken

    def publish_from_thread(
        self,
        room: str | Iterable[str],
        data: Any,
        *,
        exclude: Who = (),
        only: Who | None = None,
        key: str | None = None,
    ) -> int:
        """Do what `publish` does from another thread, and wait until it is done.

        Any thread will do. The data is encoded in it. The rooms know their trio since
        somebody entered or subscribed to one, or they were made inside of `trio.run`.

        Raises: as `publish`, and

          RuntimeError: this is trio's own thread, which must not wait; or nobody has
              entered a room yet, and no trio is known.
          trio.RunFinishedError: that `trio.run` is over.
          trio.Cancelled: it ended, or this thread was cancelled (`trio.from_thread`).

        Concurrency: any number of threads.
        """
        publication = self._publication(room, data, exclude, only, key, waits=True)
        token = self._token
        if token is None:
            raise RuntimeError(
                "nobody has entered a room yet, so these rooms know no trio to publish in:"
                " make them inside of trio.run(), or start the thread later"
            )
        return trio.from_thread.run(self._publish, publication, trio_token=token)

    # Looking...

    def members(self, room: str) -> tuple[Member, ...]:
        """Return the members of a room in this process, in the order in which they came.

        Subscriptions are none. `presence` tells of other processes, too.
        """
        found = self._registry.rooms.get(room)
        lineup = found.lineup if found is not None else ()
        return tuple(one.member for one in lineup if isinstance(one, ConnectionRecipient))

    def presence(self, room: str) -> Presence:
        """Tell who is in a room, and who comes and goes: ``async with rooms.presence("a") as p``.

        ``p.snapshot`` is a tuple of `Occupant`; ``async for event in p`` yields `Joined` and
        `Left` from then on.

        Raises (the block, on entering):
          JoinRefused: there are too many rooms.

        If cancelled: nothing has happened.

        Concurrency: any number of them.
        """
        check_names((room,))
        self._note_token()
        return Presence(self._registry, room)

    def history(self, room: str) -> tuple[RoomMessage, ...]:
        """Return what is kept of a room's messages, oldest first.

        Messages to ``only`` some are left out. A distributed broker knows the history
        while somebody in this process is in the room.
        """
        return tuple(kept for kept in self._broker.history(room) if kept.only is None)

    @property
    def degraded(self) -> str | None:
        """What keeps messages from reaching other processes, in words for an operator.

        `None`: nothing; without other processes, always. Meanwhile members stay connected
        and in their rooms, and `publish` waits, or delivers in this process alone: see
        `trio_ws.redis.open_rooms`.
        """
        return self._broker.degraded

    def statistics(self) -> RoomsStatistics:
        """Return the counters and queue lengths of this moment, for this process."""
        return self._registry.statistics()

    # Underneath...

    def _note_token(self) -> None:
        """Remember which trio to publish in: the last one that the rooms were used in."""
        if trio.lowlevel.in_trio_run():
            self._token = trio.lowlevel.current_trio_token()

    async def _publish(self, publication: Publication) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        delivery = await self._broker.publish(publication)
        await delivery.wait()
        return delivery.taken

    def _publication(
        self,
        room: str | Iterable[str],
        data: Any,
        exclude: Who,
        only: Who | None,
        key: str | None,
        *,
        waits: bool,
    ) -> Publication:
        if not isinstance(room, Iterable):
            raise TypeError(f"a room is a str, several are a list of them, not {room!r}")
        names = (room,) if isinstance(room, str) else check_names(tuple(dict.fromkeys(room)))
        prepared = None
        if isinstance(data, PreparedMessage):
            prepared, data = data, data.data
        elif isinstance(data, (bytearray, memoryview)):
            data = as_data(data)
        payload = self._codec.encode(data)
        return Publication(
            names,
            data,
            payload,
            key=key,
            exclude=_ids("exclude", exclude),
            only=None if only is None else _ids("only", only),
            waits=waits,
            prepared=prepared if payload is data else None,
        )


def check_arguments(history: object, codec: object, on_join: object, limits: object) -> None:
    """Refuse what `Rooms` cannot be made with, before it is asked for something inside.

    Raises:
      TypeError: one of them is something else than it should be.
    """
    check_kind("history", history, History)
    check_kind("codec", codec, Codec)
    check_kind("limits", limits, RoomLimits)
    if not (on_join is None or callable(on_join)):
        raise TypeError(f"on_join is a function, not {on_join!r}")


def _ids(argument: str, who: Who) -> frozenset[str]:
    if not who:
        return frozenset()
    if isinstance(who, (str, Participant, WebSocket)):
        raise TypeError(f"{argument} is a collection: write {argument}={{...}}")
    if not isinstance(who, Iterable):
        raise TypeError(f"{argument} is a collection of members, connections or ids, not {who!r}")
    ids: set[str] = set()
    for one in who:
        if not isinstance(one, (str, Participant, WebSocket)):
            raise TypeError(f"{argument} holds members, connections or ids, not {one!r}")
        ids.add(one if isinstance(one, str) else one.id)
    return frozenset(ids)
