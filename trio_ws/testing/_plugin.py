"""What the pytest plugin does once a test uses the kit; the hooks are in pytest_trio_ws.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from ._frame import Frame, compare
from ._recorder import Recorder, recent
from ._socket import open_sockets

FAILED: Final = pytest.StashKey[bool]()
MOST_LINES: Final = 60
"""Of one transcript in a report: the last ones, for that is where it went wrong."""


def check_leaks(item: pytest.Item) -> Iterator[None]:
    """Run a test; if it has passed, fail it for what it left open in memory."""
    before = open_sockets()
    yield
    left = [each for each in open_sockets() if each not in before]
    told = "\n    ".join(["the test has left open:", *map(repr, left)])
    for each in left:
        each.abandon()
    if left and not item.stash.get(FAILED, False):
        pytest.fail(told, pytrace=False)


def add_transcripts(item: pytest.Item, report: pytest.TestReport) -> None:
    """Show what went over the links of a failed test."""
    if report.failed:
        item.stash[FAILED] = True
        spoken = [recorder for recorder in recent if recorder.entries]
        for number, recorder in enumerate(spoken, start=1):
            title = f"connection {number} of {len(spoken)} in memory"
            report.sections.append((title, _shorten(recorder)))


def forget_transcripts() -> None:
    """Begin a new test."""
    recent.clear()


def explain_comparison(op: str, left: object, right: object) -> list[str] | None:
    """Tell why ``received == expected`` does not hold for frames, as `RawPeer` tells it."""
    received, expected = _frames(left), _frames(right)
    if op != "==" or not (received or expected):
        return None
    return ["these frames are not those", *compare(expected, received).splitlines()]


def _frames(value: object) -> list[object]:
    """Return a list in which there is a frame."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return items if any(isinstance(item, Frame) for item in items) else []


def _shorten(recorder: Recorder) -> str:
    lines = recorder.diagram().splitlines()
    hidden = len(lines) - MOST_LINES
    if hidden > 0:
        lines[1 : hidden + 2] = [f"({hidden + 1} lines before)"]
    return "\n".join(lines)
