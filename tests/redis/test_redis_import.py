from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "{name}":
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Missing())
import trio_ws.redis
"""


@pytest.mark.parametrize(
    ("name", "text"), [("coredis", "pip install 'trio-ws[redis]'"), ("beartype", "beartype")]
)
def test_without_its_extra_the_module_says_what_to_install(name: str, text: str) -> None:
    run = subprocess.run(  # noqa: S603  # the interpreter that runs this test
        [sys.executable, "-c", WITHOUT.format(name=name)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError")
    assert text in last
