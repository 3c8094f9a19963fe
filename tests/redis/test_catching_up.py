"""What is delivered after an outage. E1:3@30 is the third message of epoch E1, at time 30."""

from __future__ import annotations

import pytest

from trio_ws.redis._catching_up import Fetched, Jump, Stand, catch_up
from trio_ws.redis._wire import Record
from trio_ws.rooms import Position


def split(text: str) -> tuple[Position, int]:
    place, _, time = text.partition("@")
    return Position.parse(place), int(time)


def record(text: str) -> Record:
    place, time = split(text)
    return Record(time, f"p:{time}", ("other", "room"), (Position("x", 1), place), {}, b"")


def stand(text: str, run: str) -> Stand:
    return Stand(*split(text), run)


def steps(
    seen: str,
    has: str,
    tip: str,
    heard: str = "",
    *,
    run: str = "1",
    ended: str | None = None,
    until: int = 1000,
) -> str:
    """Tell what there is to do; the room was seen in run 1 of Redis."""
    fetched = Fetched(
        stand(tip, run),
        None if ended is None else Position.parse(ended),
        [record(each) for each in has.split()],
    )
    meanwhile = [record(each) for each in heard.split()]
    done = catch_up("room", stand(seen, "1"), fetched, meanwhile, until)
    words: list[str] = []
    for step in done:
        if isinstance(step, Jump):
            words.append(f"({step.position})" if step.silent else f"[{step.position}]")
        else:
            words.append(str(step.place("room")))
    return " ".join(words)


@pytest.mark.parametrize(
    ("seen", "has", "tip", "todo"),
    [
        # nothing has happened
        ("A:2@20", "A:1@10 A:2@20", "A:2@20", ""),
        ("A:0@5", "", "A:0@5", ""),
        # all of it is there
        ("A:2@20", "A:1@10 A:2@20 A:3@30 A:4@40", "A:4@40", "A:3 A:4"),
        ("A:0@5", "A:1@10", "A:1@10", "A:1"),
        ("A:2@20", "A:3@30", "A:3@30", "A:3"),
        # the history is too short, or there is none
        ("A:2@20", "A:5@50 A:6@60", "A:6@60", "[A:4] A:5 A:6"),
        ("A:2@20", "", "A:4@40", "[A:4]"),
        # everything is gone (FLUSHALL), or the state was
        ("A:2@20", "", "B:0@30", "[B:0]"),
        ("A:2@20", "B:1@30 B:2@40", "B:2@40", "[B:0] B:1 B:2"),
        ("A:2@20", "A:3@30 B:1@40", "B:1@40", "A:3 [B:0] B:1"),
    ],
)
def test_in_one_run_of_redis(seen: str, has: str, tip: str, todo: str) -> None:
    assert steps(seen, has, tip) == todo


@pytest.mark.parametrize(
    ("seen", "has", "tip", "todo"),
    [
        # empty
        ("A:2@20", "", "B:0@30", "[B:0]"),
        ("A:2@20", "B:1@30", "B:1@30", "[B:0] B:1"),
        # with all data: what we have missed is there, and nobody knows what else there was
        ("A:2@20", "A:1@10 A:2@20 A:3@30", "B:0@40", "A:3 [B:0]"),
        ("A:2@20", "A:1@10 A:2@20 B:1@40", "B:1@40", "[B:0] B:1"),
        # with older data: what we have seen is not there
        ("A:2@20", "A:1@10", "B:0@40", "[B:0]"),
        ("A:2@20", "A:1@10 B:1@40 B:2@50", "B:2@50", "[B:0] B:1 B:2"),
        ("C:2@20", "A:1@5 A:2@10", "B:0@40", "[B:0]"),
        # ... and a clock that is behind
        ("A:2@20", "A:1@10 B:1@15", "B:1@15", "[B:0] B:1"),
        # nothing of our epoch is left
        ("A:2@20", "B:7@70 B:8@80", "B:8@80", "[B:6] B:7 B:8"),
    ],
)
def test_after_a_new_start_of_redis(seen: str, has: str, tip: str, todo: str) -> None:
    assert steps(seen, has, tip, run="2") == todo


def test_what_was_heard_meanwhile_helps_where_there_is_no_history() -> None:
    assert steps("A:2@20", "", "A:4@40", "A:3@30 A:4@40") == "A:3 A:4"
    assert steps("A:2@20", "", "A:4@40", "A:4@40") == "[A:3] A:4"


def test_what_is_heard_twice_is_delivered_once() -> None:
    assert steps("A:2@20", "A:2@20 A:3@30", "A:3@30", "A:2@20 A:3@30") == "A:3"


def test_what_is_newer_than_the_answer_waits() -> None:
    assert steps("A:2@20", "A:3@30", "A:3@30", "A:3@30 A:4@40") == "A:3"


def test_an_epoch_that_this_process_has_ended_itself_loses_nothing_for_it() -> None:
    assert steps("A:2@20", "A:3@30", "B:0@40", ended="A:3") == "A:3 (B:0)"
    assert steps("A:2@20", "A:4@40", "B:0@50", ended="A:4") == "[A:3] A:4 (B:0)"
    assert steps("A:2@20", "", "B:0@50", ended="A:4") == "[B:0]"


def test_what_is_heard_behind_the_end_of_an_epoch_does_not_hide_that_it_has_ended() -> None:
    heard = "B:1@50"
    assert steps("A:2@20", "", "B:0@40", heard, ended="A:2", until=40) == "(B:0)"
    assert steps("A:2@20", "", "B:0@40", heard, until=40) == "[B:0]"


def test_what_other_rooms_were_not_asked_for_yet_waits() -> None:
    assert steps("A:2@20", "A:3@30 A:4@40", "A:4@40", until=35) == "A:3"
    assert steps("A:2@20", "", "B:0@40", until=35) == "[B:0]"
    assert steps("A:2@20", "", "A:3@36", "A:3@36", until=35) == ""
