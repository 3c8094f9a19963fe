from __future__ import annotations

import attrs

from trio_ws.rooms._statistics import Counters, RoomStatistics


def test_counters_are_added_and_high_water_marks_are_not() -> None:
    total = Counters(published=1, delivered=2, most_queued=5, most_queued_bytes=6)
    total.add(Counters(published=10, dropped=20, most_queued=3, most_queued_bytes=60))
    assert (total.published, total.delivered, total.dropped) == (11, 2, 20)
    assert (total.most_queued, total.most_queued_bytes) == (5, 60)


def test_a_snapshot_has_every_counter() -> None:
    fields = {field.name for field in attrs.fields(Counters)}
    assert fields | {"members", "subscriptions"} == {
        field.name for field in attrs.fields(RoomStatistics)
    }
    snapshot = Counters(waiting=3).snapshot(members=1, subscriptions=2)
    assert (snapshot.waiting, snapshot.members, snapshot.subscriptions) == (3, 1, 2)
