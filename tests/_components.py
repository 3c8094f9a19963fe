"""Programs that some tests need: skipped without them here, failed without them in CI."""

from __future__ import annotations

import os
import shutil
from typing import Final

import pytest

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
