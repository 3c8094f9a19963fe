"""The pytest plugin of trio_ws: fixtures, and what a test that fails shows.

pytest imports this file wherever trio_ws is installed. So it lies beside the package, and
imports nothing of it before a test does.

PYTEST_DONT_REWRITE: there is no assertion in it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trio_ws.testing import MemoryNetwork, Pair, Serve

# For tests...


@pytest.fixture
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a socket in memory open. The other fixtures ask for it."""
    from trio_ws.testing import _plugin  # noqa: PLC0415

    yield from _plugin.check_leaks(request.node)


@pytest.fixture
def memory_network(leak_check: None) -> MemoryNetwork:
    """A network in memory: ``listen``, ``open_websocket``, ``connect``."""
    from trio_ws.testing import MemoryNetwork  # noqa: PLC0415

    return MemoryNetwork()


@pytest.fixture
async def serve(memory_network: MemoryNetwork) -> AsyncIterator[Serve]:
    """Serve handlers until the end of the test: ``connect = await serve(handler)``."""
    from trio_ws.testing._serve import open_servers  # noqa: PLC0415

    async with open_servers(memory_network) as start:
        yield start


@pytest.fixture
async def websocket_pair(request: pytest.FixtureRequest, leak_check: None) -> AsyncIterator[Pair]:
    """A client and a server that are connected: ``client, server = websocket_pair``.

    Indirect parameters are arguments for ``open_pair``:
    ``@pytest.mark.parametrize("websocket_pair", [{"path": "/chat"}], indirect=True)``.
    """
    from trio_ws.testing import open_pair  # noqa: PLC0415

    async with open_pair(**getattr(request, "param", {})) as pair:
        yield pair


# For pytest...


def pytest_runtest_setup() -> None:
    """Let the report of a test show its own connections."""
    if _in_use():
        from trio_ws.testing import _plugin  # noqa: PLC0415

        _plugin.forget_transcripts()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report of a failed test show what went over its connections."""
    report = yield
    if _in_use():
        from trio_ws.testing import _plugin  # noqa: PLC0415

        _plugin.add_transcripts(item, report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Let an assertion about frames show them side by side."""
    if not _in_use():
        return None
    from trio_ws.testing import _plugin  # noqa: PLC0415

    return _plugin.explain_comparison(op, left, right)


def _in_use() -> bool:
    return "trio_ws.testing" in sys.modules
