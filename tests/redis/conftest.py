"""What tests with a real Redis share."""

from __future__ import annotations

import pytest

from trio_ws.redis._service import Terms


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let signs of life come, and be missed, soon.

    A short ``timeout`` would do so as well, and end connections on a machine that is busy.
    """
    monkeypatch.setattr(Terms, "beat", 0.05)
    monkeypatch.setattr(Terms, "life", 1.5)
