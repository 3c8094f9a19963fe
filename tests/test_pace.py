"""Every 32nd call, and the first, lets others run."""

from __future__ import annotations

import itertools

from trio_ws._pace import STRIDE, Pace, SendingPace


def test_the_first_call_is_due_and_then_every_32nd() -> None:
    pace = Pace()
    due = [index for index in range(2 * STRIDE + 1) if pace.is_due()]
    assert due == [0, STRIDE, 2 * STRIDE]


def test_of_one_connection_each_32nd_message_is_due_likewise() -> None:
    pace = SendingPace()
    due = [index for index in range(2 * STRIDE + 1) if pace.is_due()]
    assert due == [0, STRIDE, 2 * STRIDE]


def test_who_sends_to_many_connections_lets_others_run_between_them() -> None:
    paces = [SendingPace() for _ in range(1000)]
    assert all(pace.is_due() for pace in paces)
    due = [index for index, pace in enumerate(paces) if pace.is_due()]
    assert {later - earlier for earlier, later in itertools.pairwise(due)} == {STRIDE}
    assert len(due) == len(paces) // STRIDE
