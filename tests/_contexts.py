"""A pytest plugin that tells coverage which test module runs: see ``nox -s own_coverage``."""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if (measuring := coverage.Coverage.current()) is None:
        raise pytest.UsageError("start pytest by coverage: coverage run .../pytest")
    measuring.switch_context(item.nodeid.partition("::")[0])
    try:
        return (yield)
    finally:
        measuring.switch_context("")
