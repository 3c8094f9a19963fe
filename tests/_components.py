"""What tests of real programs share: finding them, ports for them, and waiting for them.

A program that is missing skips the test; in CI it fails it.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from typing import Final

import pytest
import trio

COMPONENTS: Final = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "dante-server": ("danted", "sockd"),
    "microsocks": ("microsocks",),
    "nginx": ("nginx",),
    "openssl": ("openssl",),
    "redis-server": ("redis-server",),
    "squid": ("squid",),
    "tinyproxy": ("tinyproxy",),
    "tmux": ("tmux",),
}
"""What a component's program is called, here and there."""

PATIENCE: Final = 60
"""Seconds in which other programs do what they do in a moment, on a machine that is not busy."""


def require(name: str) -> str:
    """Return the path of a component's program, or skip the test; in CI, fail it."""
    for program in COMPONENTS[name]:
        # Where Debian puts servers, which is on the path of root alone.
        if path := shutil.which(program) or shutil.which(program, path="/usr/sbin"):
            return path
    missing = f"{name} is not installed (Debian: apt-get install {name})"
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other programs have a part in."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110  # other programs set no events here
            await trio.sleep(0.005)


async def wait_until_somebody_listens(port: int, process: trio.Process) -> None:
    """Wait until a program that was started can be connected to."""
    while True:
        assert process.poll() is None, f"{process.args[0]} has ended"
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.02)
        else:
            await stream.aclose()
            return
