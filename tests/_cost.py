"""What something costs: CPU time, on whatever machine the tests run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

ATTEMPTS: Final = 3
"""What else the machine does shows in CPU time, too: caches, hyperthreads, other guests."""

USUAL: Final = 0.05
"""Seconds that the loop below takes where the bounds were found."""


def assert_cheap(action: Callable[[], object], seconds: float) -> None:
    """Fail if an action takes more CPU time than this; on a slow machine, as much more."""
    spent: list[float] = []
    for _ in range(ATTEMPTS):
        allowed = seconds * max(1, _cpu(_loop) / USUAL)
        spent.append(_cpu(action))
        if spent[-1] < allowed:
            return
    raise AssertionError(f"it takes {spent} s of CPU time, and not {seconds}")


def _cpu(action: Callable[[], object]) -> float:
    began = time.thread_time()
    action()
    return time.thread_time() - began


def _loop() -> None:
    total = 0
    for number in range(1_000_000):
        total += number
