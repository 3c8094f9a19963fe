"""What the kit shows to its users: the same names in code, docs and tracebacks."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import trio_ws.testing

DOCS = Path(__file__).parent.parent.parent / "docs"
PUBLIC = {
    name: value
    for name, value in vars(trio_ws.testing).items()
    if not (name.startswith("_") or isinstance(value, ModuleType))
}


def test_the_reference_documents_every_public_name_once_and_no_other() -> None:
    directive = re.compile(r"^\.\. auto(?:class|exception|function|data):: (\w+)", re.MULTILINE)
    documented: list[str] = []
    for page in (DOCS / "reference" / "testing").glob("*.rst"):
        documented += directive.findall(page.read_text())
    assert sorted(documented) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_object_says_that_it_is_of_trio_ws_testing(name: str) -> None:
    assert PUBLIC[name].__module__ == "trio_ws.testing"
    assert PUBLIC[name].__qualname__ == name


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_object_is_documented_in_full(name: str) -> None:
    members = [value for key, value in vars(PUBLIC[name]).items() if not key.startswith("_")]
    functions = [value for value in members if inspect.isfunction(value)]
    properties = [value for value in members if isinstance(value, property)]
    for thing in (PUBLIC[name], *functions, *properties):
        assert inspect.getdoc(thing), thing


def test_it_needs_no_trustme_before_there_is_tls() -> None:
    code = "import trio_ws.testing, sys; print(*sys.modules)"
    run = subprocess.run(  # noqa: S603  # the interpreter that runs this test
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "trustme" not in run.stdout.split()
