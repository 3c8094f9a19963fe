"""A short chaos: ``nox -s chaos`` is the long one."""

from __future__ import annotations

import pytest
from chaos.run import run


@pytest.mark.parametrize("seed", [1])
async def test_nobody_loses_or_doubles_a_message_whatever_is_killed(seed: int) -> None:
    outcome = await run(5, 10, seed, with_link=False, silent=2)
    assert outcome.happened.total() > 1
    assert outcome.sent > 50
    assert outcome.report["opened"] > 10
    assert outcome.problems == []
