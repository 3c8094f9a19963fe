"""``python -m trio_ws`` is the command ``trio-ws``."""

from __future__ import annotations

import importlib
import runpy
import sys

import pytest


def test_it_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trio-ws", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("trio_ws", run_name="__main__")
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "serve" in said
    assert "connect" in said


def test_importing_it_runs_nothing() -> None:
    assert importlib.import_module("trio_ws.__main__").main
