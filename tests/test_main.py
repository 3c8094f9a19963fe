"""``python -m trio_ws`` is the command ``trio-ws``."""

from __future__ import annotations

import importlib
import subprocess
import sys


def test_it_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "trio_ws", "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in result.stdout
    assert "connect" in result.stdout


def test_importing_it_runs_nothing() -> None:
    assert importlib.import_module("trio_ws.__main__").main
