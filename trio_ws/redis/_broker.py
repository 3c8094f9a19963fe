"""The broker that connects the rooms of many processes through Redis."""

from __future__ import annotations

import secrets
from typing import Any

import trio

from .._errors import BrokerDown
from ..rooms import Codec, Delivery, Occupant, Position, Publication, Replay, RoomMessage, Sink
from ._delivering import Delivering, OpenRoom
from ._mirror import Log, Mirror
from ._outgoing import Outgoing, Pending
from ._service import Service, Terms
from ._wire import check_meta, pack


class RedisBroker:
    """A `Broker` on Redis; made by `open_rooms`."""

    immediate = False

    def __init__(
        self,
        terms: Terms,
        mirror: Mirror,
        outgoing: Outgoing,
        codec: Codec,
        *,
        patience: float,
        local: bool,
    ) -> None:
        self._mirror = mirror
        self._outgoing = outgoing
        self._patience = patience
        self._local = local
        self._process = secrets.token_hex(6)
        self._delivering = Delivering(self._process, mirror, codec)
        self._published = 0
        self._closed = False
        self._service = Service(terms, self._process, self._delivering, outgoing)

    def bind(self, sink: Sink) -> None:
        """Deliver to this manager from now on."""
        self._delivering.sink = sink

    @property
    def degraded(self) -> str | None:
        """What is wrong with Redis, if anything is."""
        return self._service.degraded

    # For open_rooms...

    async def run(self) -> None:
        """Do what is to be done beside; never raises an `Exception`."""
        await self._service.run()

    async def wait_connected(self) -> None:
        """Wait for the first link.

        Raises:
          BrokerDown: it took too long.
        """
        with trio.move_on_after(self._patience):
            await self._service.connected.wait()
            return
        raise BrokerDown(self.degraded or "Redis is slow")

    async def stop(self) -> None:
        """Take leave: nothing can be done with these rooms any more."""
        self._closed = True
        self._outgoing.fail_all("these rooms are closed")
        await self._service.say_goodbye()
        self._delivering.finish_all()

    # Rooms...

    async def open(self, room: str) -> None:
        """Subscribe to a room, and fetch its history and who is there.

        Raises:
          BrokerDown: Redis cannot be reached.
        """
        self._check_open()
        opened = self._delivering.add(room)
        try:
            if not self._alone:
                with trio.move_on_after(self._patience):
                    await opened.ready.wait()
            if not opened.ready.is_set():
                self._open_alone(opened)
        except BaseException:
            self._service.close_room(opened)
            raise

    @property
    def _alone(self) -> bool:
        return self._local and self.degraded is not None

    def _open_alone(self, room: OpenRoom) -> None:
        if not self._alone:
            raise BrokerDown(self.degraded or "Redis is slow")
        self._delivering.begin_alone(room)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the block of open_rooms() has ended")

    def close(self, room: str) -> None:
        """Unsubscribe from a room."""
        self._service.close_room(self._delivering.rooms[room])

    # Messages...

    async def publish(self, publication: Publication) -> Delivery:
        """Send a message through Redis to all processes, and wait until it is delivered here.

        Raises:
          BrokerDown: Redis cannot be reached, or refuses.

        If cancelled: it was published, or not, but then in no room.
        """
        self._check_open()
        for room in publication.rooms:  # what is wrong with it has to come out before it is sent
            self._delivering.sink.make(publication, room, Position("0", 1), (), 0)
        if self._alone:
            return self._delivering.publish_alone(publication)
        self._published += 1
        origin = f"{self._process}:{self._published}"
        pending = Pending(publication, pack(publication, origin), origin)
        self._outgoing.put(pending)
        self._delivering.pending[origin] = pending
        try:
            with trio.move_on_after(self._patience):
                await pending.done.wait()
            if not pending.done.is_set():
                self._give_up(pending)
        except BaseException:
            self._abandon(pending)
            raise
        return self._conclude(pending)

    def _give_up(self, pending: Pending) -> None:
        """It has waited long enough."""
        if pending.acknowledged:
            self._delivering.finish(pending)  # those in this process will have it from the history
            return
        uncertain = not self._outgoing.withdraw(pending)
        pending.fail(BrokerDown(self.degraded or "Redis is slow", uncertain=uncertain))

    def _abandon(self, pending: Pending) -> None:
        """Its publisher was cancelled: nobody waits for members on its behalf."""
        if not pending.done.is_set() and self._outgoing.withdraw(pending):
            del self._delivering.pending[pending.origin]
        pending.publication.waits = False
        if pending.delivery is not None:
            pending.delivery.abandon()

    def _conclude(self, pending: Pending) -> Delivery:
        self._delivering.pending.pop(pending.origin, None)
        failure = pending.failure
        if failure is None or pending.delivery is not None:
            return pending.delivery or Delivery(waits=False)
        if self._alone and not failure.uncertain:
            return self._delivering.publish_alone(pending.publication)
        raise failure

    def publish_nowait(self, publication: Publication) -> Delivery:
        """Raise: a network has to be waited for."""
        raise RuntimeError("these rooms span processes: use `await rooms.publish(...)`")

    def replay(self, room: str, since: Position | None) -> Replay:
        """Return what an open room's history has after ``since``."""
        return self._mirror.replay(self._log(room), since)

    def history(self, room: str) -> tuple[RoomMessage, ...]:
        """Return what is kept of a room's messages; nothing if it is not open here."""
        found = self._delivering.rooms.get(room)
        return () if found is None or found.log is None else self._mirror.messages(found.log)

    def _log(self, room: str) -> Log:
        log = self._delivering.rooms[room].log
        assert log is not None, "it is open"
        return log

    @property
    def history_messages(self) -> int:
        """How many messages are kept in this process."""
        self._mirror.expire()
        return len(self._mirror)

    @property
    def history_memory(self) -> int:
        """How much memory they take, in bytes."""
        self._mirror.expire()
        return self._mirror.memory

    # Presence...

    def check(self, meta: Any) -> None:
        """Check that other processes can be told of this ``meta``.

        Raises:
          TypeError: JSON has no place for it.
        """
        check_meta(meta)

    def enter(self, room: str, occupant: Occupant) -> None:
        """Let presence know of somebody: here at once, elsewhere soon."""
        self._delivering.tell([self._delivering.rooms[room].roster.enter(occupant)])
        self._service.tell(room, occupant.id, occupant)

    def leave(self, room: str, occupant: Occupant) -> None:
        """Let presence forget somebody: here at once, elsewhere soon."""
        self._delivering.tell([self._delivering.rooms[room].roster.leave(occupant)])
        self._service.tell(room, occupant.id, None)

    def occupants(self, room: str) -> tuple[Occupant, ...]:
        """Return who is in an open room, in all processes."""
        return self._delivering.rooms[room].roster.occupants
