"""That each row of the seeds has its test, and each test its row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROWS: Final = {
    f"{letter}{number}"
    for letter, count in {"q": 12, "b": 17, "f": 12, "w": 10, "t": 15}.items()
    for number in range(1, count + 1)
}
ELSEWHERE: Final = {
    *("q3", "q4", "q9", "q11", "q12", "b1", "b2", "b5", "b14", "b17", "f1", "f12"),
    *("w9", "t1", "t2", "t3", "t12", "t14"),
}
"""Rows of pages, routes, requests, the command line and Redis: shown by the tests of these."""


def test_each_row_has_a_test_of_its_name() -> None:
    found: set[str] = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        found |= set(re.findall(r"def test_([a-z]\d+)_", file.read_text()))
    assert found <= ROWS
    assert ROWS - found <= ELSEWHERE
