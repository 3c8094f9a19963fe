"""Fixtures for connections in memory, in both roles; after each test, nothing may be left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import _helpers
import hypothesis
import pytest

if TYPE_CHECKING:
    from _helpers import Peer, Role

    from trio_ws._session import Session

# How long an example takes says more of what else the machine does: seen with 8 runs at once.
hypothesis.settings.register_profile(
    "timeless", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("timeless")


@pytest.fixture(params=["client", "server"])
def role(request: pytest.FixtureRequest) -> Role:
    """Which side is under test."""
    role: Role = request.param
    return role


@pytest.fixture
def connect(role: Role) -> Callable[..., tuple[Session, Session]]:
    """``connect(options, peer_options, deflate=)``: this side and its peer, both ours."""
    return partial(_helpers.connect, role)


@pytest.fixture
def connect_peer(role: Role) -> Callable[..., tuple[Session, Peer]]:
    """``connect_peer(options, deflate=, leftover=)``: this side, and a peer of literal bytes."""
    return partial(_helpers.connect_peer, role)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says about proxies: the tests run without."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Whatever a test does to a connection: no task is left of it, and no open stream."""
    _helpers.sessions.clear()
    yield
    for session, stream in _helpers.sessions:
        if nursery := getattr(session, "_nursery", None):
            assert not nursery.child_tasks
            assert stream.socket.fileno() == -1
    _helpers.sessions.clear()
    while _helpers.ends:
        _helpers.ends.pop().abandon()
