"""Catching up: what has to be delivered once a room is heard of again, and what is missing.

::

    what was delivered last:  E1:100
    what Redis has:           E1:99  E1:100  E1:101 | E2:1  E2:2      it stands at E2:2
    so:                                      take  jump take take

A jump says that something may be missing: the next message does not follow on the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from ..rooms import Position
from ._wire import Record


@attrs.frozen
class Stand:
    """Where a room stands: in Redis, or in this process."""

    position: Position
    time: int
    run: str


@attrs.frozen
class Jump:
    """Go on behind another place; messages may be missing."""

    position: Position
    time: int
    silent: bool = False
    """Whether nothing is missing, for once."""


@attrs.frozen
class Fetched:
    """What `fetch.lua` tells of a room."""

    stand: Stand
    ended: Position | None
    """Where the epoch before has ended, if this process has ended it itself."""
    records: Sequence[Record]


def catch_up(
    room: str, seen: Stand, fetched: Fetched, heard: Iterable[Record], until: int
) -> list[Record | Jump]:
    """Return what to do for a room that stands at ``seen``, so that it stands where Redis does.

    ``heard`` was published in the meantime: that may be more than the history keeps. What
    is newer than ``until`` is left for later.
    """
    tip = fetched.stand
    known = {record.time: record for record in (*heard, *fetched.records)}
    records = [known[time] for time in sorted(known) if time <= min(tip.time, until)]
    steps: list[Record | Jump] = []
    position = seen.position
    for record in _unseen(room, seen, tip.run, records):
        place = record.place(room)
        before = Position(place.epoch, place.offset - 1)
        if before != position:
            steps.append(Jump(before, record.time - 1, silent=position == fetched.ended))
        steps.append(record)
        position = place
    up_to_tip = tip.time <= until or all(time <= until for time in known)
    if position != tip.position and up_to_tip:
        steps.append(Jump(tip.position, tip.time, silent=position == fetched.ended))
    return steps


def _unseen(room: str, seen: Stand, run: str, records: list[Record]) -> list[Record]:
    """Return what was not delivered yet."""
    if seen.run == run:
        return [record for record in records if record.time > seen.time]
    # Redis may have forgotten something, and its clock may be another one.
    epochs = [record.place(room).epoch for record in records]
    if seen.position.epoch not in epochs:
        return [record for record in records if record.time > seen.time]
    first = epochs.index(seen.position.epoch)
    return [
        record
        for record in records[first:]
        if record.place(room).epoch != seen.position.epoch
        or record.place(room).offset > seen.position.offset
    ]
