"""Every 32nd call, and the first, lets others run."""

from __future__ import annotations

from trio_ws._pace import STRIDE, Pace


def test_the_first_call_is_due_and_then_every_32nd() -> None:
    pace = Pace()
    due = [index for index in range(2 * STRIDE + 1) if pace.is_due()]
    assert due == [0, STRIDE, 2 * STRIDE]
