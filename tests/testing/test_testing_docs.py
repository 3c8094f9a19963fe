"""What the docs show is run here, and goes as they say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "testing"
PAGES = [
    ROOT / "docs" / "howto" / "test-your-handler.rst",
    ROOT / "docs" / "howto" / "find-bugs.rst",
    *sorted((ROOT / "docs" / "reference" / "testing").glob("*.rst")),
]
OUTPUTS = sorted((ROOT / "docs" / "howto" / "find-bugs").glob("*.txt"))


@pytest.fixture
def examples(pytester: pytest.Pytester) -> pytest.Pytester:
    """A pytest of their own for a copy of the examples."""
    pytester.makeini("[pytest]\ntrio_mode = true\n")
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, pytester.path)
    return pytester


def run(examples: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return examples.runpytest_subprocess("-p", "pytest_trio_ws", "-W", "error", *arguments)


def test_the_examples_pass(examples: pytest.Pytester) -> None:
    result = run(examples)
    passed = result.parseoutcomes()
    assert passed.keys() == {"passed"}
    shown = sum(file.read_text().count("\nasync def test_") for file in EXAMPLES.glob("test_*.py"))
    assert passed["passed"] == shown


@pytest.fixture
def buggy_run(examples: pytest.Pytester) -> pytest.RunResult:
    tests = examples.path / "test_chat.py"
    tests.write_text(tests.read_text().replace("mended_chat", "buggy_chat"))
    return run(examples, tests.name)


def test_each_bug_is_found_and_told_as_the_docs_tell_it(buggy_run: pytest.RunResult) -> None:
    buggy_run.assert_outcomes(failed=3)
    said = [line.removeprefix("    | ").strip() for line in buggy_run.outlines]
    for output in OUTPUTS:
        shown = [line.strip() for line in output.read_text().splitlines()]
        begin = said.index(shown[0])
        while said[begin : begin + len(shown)] != shown:
            begin = said.index(shown[0], begin + 1)
    assert len(OUTPUTS) == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_code_that_is_there(page: Path) -> None:
    shown = re.findall(
        r"\.\. literalinclude:: (\S+)\n(?:   :(?!pyobject)\S+.*\n)*(?:   :pyobject: (\w+))?",
        page.read_text(),
    )
    assert shown or page.stem == "pytest"
    for file, name in shown:
        text = (page.parent / file).read_text()
        assert not name or f"def {name}(" in text
