from __future__ import annotations

from trio_ws.redis._roster import Roster
from trio_ws.redis._wire import Presence
from trio_ws.rooms import Joined, Left, Occupant


def test_those_of_this_process_come_and_go() -> None:
    roster = Roster("a")
    ann = Occupant("1", "Ann")
    assert roster.enter(ann) == Joined("a", "1", "Ann")
    assert roster.occupants == (ann,)
    assert roster.leave(ann) == Left("a", "1", "Ann")
    assert roster.occupants == ()


def test_others_come_and_go_one_at_a_time() -> None:
    roster = Roster("a")
    told = roster.hear(Presence("p", {"1": "Ann", "2": "Bob"}))
    seen = [(event, len(roster.occupants)) for event in told]
    assert seen == [(Joined("a", "1", "Ann"), 1), (Joined("a", "2", "Bob"), 2)]
    assert list(roster.processes) == ["p"]
    assert list(roster.hear(Presence("p", left=("1", "unknown")))) == [Left("a", "1", "Ann")]
    assert list(roster.hear(Presence("p", left=("2",)))) == [Left("a", "2", "Bob")]
    assert list(roster.processes) == []


def test_who_is_known_already_comes_only_once() -> None:
    roster = Roster("a")
    for _ in range(2):
        events = list(roster.hear(Presence("p", {"1": "Ann"})))
    assert events == []


def test_a_complete_list_tells_who_has_left() -> None:
    roster = Roster("a")
    list(roster.hear(Presence("p", {"1": None, "2": None})))
    events = list(roster.hear(Presence("p", {"2": None, "3": None}, complete=True)))
    assert events == [Left("a", "1", None), Joined("a", "3", None)]


def test_what_redis_knows_counts_for_those_it_is_trusted_about() -> None:
    roster = Roster("a")
    list(roster.hear(Presence("p", {"1": None})))
    list(roster.hear(Presence("q", {"2": None})))
    assert list(roster.read({"r": {"3": None}}, [])) == [Joined("a", "3", None)]
    assert list(roster.read({"q": {"2": None}}, ["p", "q"])) == [Left("a", "1", None)]


def test_those_of_a_process_that_has_ended_leave() -> None:
    roster = Roster("a")
    list(roster.hear(Presence("p", {"1": "Ann"})))
    assert list(roster.drop("p")) == [Left("a", "1", "Ann")]
    assert list(roster.drop("p")) == []
