from __future__ import annotations

from pathlib import Path

import pytest
from _components import COMPONENTS, require


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("program", COMPONENTS["chromium"])
def test_a_component_is_found_under_each_of_its_names(bin_folder: Path, program: str) -> None:
    file = bin_folder / program
    file.touch(mode=0o755)
    assert require("chromium") == str(file)


def test_a_missing_component_skips_the_test(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        require("chromium")


def test_a_missing_component_fails_the_test_in_ci(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        require("chromium")


def test_an_unknown_component_is_a_mistake(bin_folder: Path) -> None:
    with pytest.raises(KeyError):
        require("chromum")
