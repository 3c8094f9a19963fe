"""What ``module:handler`` names, or what there is instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trio_ws import Routes
from trio_ws._cli import main
from trio_ws._cli._loading import load_handler
from trio_ws._cli._usage import UsageError

APP = """
from contextlib import asynccontextmanager

from trio_ws import Routes, open_websocket

routes = Routes()
answer = 42


class Site:
    @staticmethod
    async def handler(request):
        pass


async def echo(request):
    pass


@asynccontextmanager
async def application():
    yield routes
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with modules in it."""
    (tmp_path / "an_app.py").write_text(APP)
    (tmp_path / "needy_app.py").write_text("import no_such_library\n")
    (tmp_path / "no-module.py").touch()
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").write_text("from an_app import routes\n")
    (tmp_path / "no_package").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("an_app", "needy_app", "a_package"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_a_handler_is_found_in_the_current_folder() -> None:
    assert load_handler("an_app:echo").__name__ == "echo"  # type: ignore[attr-defined]
    assert isinstance(load_handler("an_app:routes"), Routes)
    assert isinstance(load_handler("a_package:routes"), Routes)
    assert load_handler("an_app:Site.handler").__name__ == "handler"  # type: ignore[attr-defined]
    assert sys.path.count("") == 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("an_app", "'an_app' is not of the form module:handler, as in an_app:routes"),
        (":echo", "':echo' is not of the form module:handler, as in app:routes"),
        ("an_app:", "'an_app:' is not of the form module:handler, as in an_app:routes"),
        (
            "an_ap:echo",
            "the current folder has a_package, an_app, needy_app; did you mean 'an_app'?",
        ),
        ("x.y:echo", "there is no module 'x' here"),
        (
            "an_app:ecko",
            "no handler 'ecko' in an_app: it has routes, echo, application; did you mean 'echo'?",
        ),
        ("an_app:answer", "no handler 'answer' in an_app: it has routes, echo, application"),
        ("an_app:Routes", "no handler 'Routes' in an_app: it has routes, echo, application"),
        ("an_app:Site.nothing", "no handler 'Site.nothing' in an_app"),
        ("string:nothing", "it has nothing that could be served"),
        ("needy_app:x", "needy_app needs the module 'no_such_library', which is not there"),
    ],
)
def test_a_typo_is_told_with_what_there_is(target: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_handler(target)
    assert said in str(caught.value)


def test_an_empty_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UsageError, match="the current folder has no module at all"):
        load_handler("missing:echo")


def test_wrong_use_exits_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "an_app:ecko"]) == 2
    has = "it has routes, echo, application; did you mean 'echo'?"
    said = f"trio-ws: no handler 'ecko' in an_app: {has}\n"
    assert capsys.readouterr().err == said
