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


def test_each_row_has_a_test_of_its_name() -> None:
    found: set[str] = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        found |= set(re.findall(r"def test_([a-z]\d+)_", file.read_text()))
    assert found == ROWS
