"""``python -m trio_ws`` is the command ``trio-ws``."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = importlib.import_module("trio_ws.__main__")


def test_it_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "trio_ws", "--help"], capture_output=True, text=True, check=True
    )
    assert "serve" in result.stdout
    assert "connect" in result.stdout


def test_it_exits_with_the_code_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["trio-ws", "serve", "nonsense"])
    program = compile(Path(str(MAIN.__file__)).read_text(), str(MAIN.__file__), "exec")
    with pytest.raises(SystemExit) as caught:  # here, where it can be measured
        exec(program, {"__name__": "__main__", "__package__": "trio_ws"})  # noqa: S102  # ours
    assert caught.value.code == 2
