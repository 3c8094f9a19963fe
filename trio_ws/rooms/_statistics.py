"""Counters of rooms, which add up."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.define(eq=False)
class Counters:
    """What is counted for a room while it lasts, and for all that are gone."""

    published: int = 0
    addressed: int = 0
    delivered: int = 0
    dropped: int = 0
    disconnected: int = 0
    waiting: int = 0
    replayed: int = 0
    queued: int = 0
    queued_bytes: int = 0
    most_queued: int = 0
    most_queued_bytes: int = 0

    def add(self, other: Counters) -> None:
        """Add those of another room; of the high-water marks, keep the higher."""
        for field in attrs.fields(Counters):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            highest = field.name.startswith("most_")
            setattr(self, field.name, max(ours, theirs) if highest else ours + theirs)

    def snapshot(self, *, members: int, subscriptions: int) -> RoomStatistics:
        """Return them as they are now."""
        return RoomStatistics(members=members, subscriptions=subscriptions, **attrs.asdict(self))


@attrs.frozen(kw_only=True)
class RoomStatistics:
    """What has happened in a room since somebody entered it while it was empty.

    ``addressed == delivered + dropped + disconnected + waiting``, at any moment.
    """

    members: int
    """Connections that are in the room."""
    subscriptions: int
    """Subscriptions to the room."""
    published: int
    """Messages that were published while somebody was there."""
    addressed: int
    """These times those who were to get them: one for each member and subscription that
    was there, not excluded, and whose ``transform`` let the message pass."""
    delivered: int
    """Of those, messages that were handed to a connection or wait in a queue."""
    dropped: int
    """Of those, messages that a policy has dropped, or that were still queued for a member
    when it left."""
    disconnected: int
    """Of those, messages that a member did not get because its connection ended, or was
    ended for being too slow."""
    waiting: int
    """Of those, messages that a publisher waits with for a member (`Overflow.WAIT`)."""
    replayed: int
    """Messages of the history that were replayed for ``since=``; not counted above."""
    queued: int
    """Messages that wait in the queues of members who are behind."""
    queued_bytes: int
    """Bytes of these."""
    most_queued: int
    """Messages in the longest queue there ever was; it may have held other rooms' too."""
    most_queued_bytes: int
    """Bytes in the largest queue there ever was; likewise."""


@attrs.frozen(kw_only=True)
class RoomsStatistics:
    """What `Rooms.statistics` returns: a snapshot."""

    rooms: Mapping[str, RoomStatistics]
    """Each room that somebody is in."""
    total: RoomStatistics
    """All rooms together, with those that are gone. ``members`` counts places: a
    connection in two rooms has two."""
    history_messages: int
    """Messages that are kept for ``since=``."""
    history_memory: int
    """Bytes of memory for these, as `RoomLimits.max_history_memory` counts them."""
    degraded: str | None = None
    """What keeps messages from reaching other processes; see `Rooms.degraded`."""


@attrs.frozen(kw_only=True)
class MemberStatistics:
    """What `Member.statistics` and `Subscription.statistics` return: a snapshot."""

    queued: int
    """Messages that wait until it takes them."""
    queued_bytes: int
    """Bytes of these."""
    missed: int
    """Messages that its policy has dropped."""
