"""What the package shows to its users: the same names in code, docs, tracebacks and pickles."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from multidict import CIMultiDict, CIMultiDictProxy

import trio_ws

DOCS = Path(__file__).parent.parent / "docs"
PUBLIC = {
    name: value
    for name, value in vars(trio_ws).items()
    if not (name.startswith("_") or isinstance(value, ModuleType))
}
DEFINED = {name: value for name, value in PUBLIC.items() if hasattr(value, "__qualname__")}
"""Classes and functions: what has a module of its own."""


def test_the_reference_documents_every_public_name_once_and_no_other() -> None:
    directive = re.compile(r"^\.\. auto(?:class|exception|function|data):: (\w+)", re.MULTILINE)
    documented: list[str] = []
    for page in (DOCS / "reference").glob("*.rst"):
        documented += directive.findall(page.read_text())
    assert sorted(documented) == sorted(PUBLIC)


@pytest.mark.parametrize("name", DEFINED)
def test_a_public_object_says_that_it_is_of_trio_ws(name: str) -> None:
    assert DEFINED[name].__module__ == "trio_ws"
    assert DEFINED[name].__qualname__ == name


@pytest.mark.parametrize("name", DEFINED)
def test_a_public_object_is_documented_in_full(name: str) -> None:
    members = [value for key, value in vars(DEFINED[name]).items() if not key.startswith("_")]
    functions = [value for value in members if inspect.isfunction(value)]
    properties = [value for value in members if isinstance(value, property)]
    for thing in (DEFINED[name], *functions, *properties):
        assert inspect.getdoc(thing), thing


def test_every_error_is_public() -> None:
    errors = importlib.import_module("trio_ws._errors")
    declared = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, trio_ws.WebSocketError)
    }
    assert declared <= PUBLIC.keys()


INFO = trio_ws.CloseInfo(1012, "later", "remote", clean=True)
HEADERS = CIMultiDictProxy(CIMultiDict({"Retry-After": "3"}))


@pytest.mark.parametrize(
    "value",
    [
        trio_ws.ConnectionEnded(INFO),
        trio_ws.ConnectionLost(INFO),
        trio_ws.ConnectionRejected(503, HEADERS, b"later"),
        trio_ws.HandshakeTimeout("late"),
        trio_ws.ProtocolViolation(1002, "reserved bit"),
        INFO,
        trio_ws.CloseCode.NORMAL,
        trio_ws.Backoff(initial=3),
        trio_ws.Deflate(level=1),
        trio_ws.Options(compression=None, allowed_origins=["https://example.org"]),
        trio_ws.PreparedMessage("hello"),
        trio_ws.Response("hello"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_pickle_survives_and_names_no_private_module(value: Any) -> None:
    """So that values can leave a process, and private modules can move."""
    pickled = pickle.dumps(value)
    copy = pickle.loads(pickled)  # noqa: S301  # our own bytes
    assert type(copy) is type(value)
    assert repr(copy) == repr(value)
    assert b"trio_ws._" not in pickled


def test_a_traceback_names_an_error_as_users_do() -> None:
    error = trio_ws.ConnectionLost(INFO)
    module = type(error).__module__
    assert f"{module}.{type(error).__qualname__}" == "trio_ws.ConnectionLost"
    assert isinstance(error, trio.BrokenResourceError)


def test_importing_the_package_imports_neither_tools_for_tests_nor_optional_ones() -> None:
    code = "import trio_ws, sys; print(*sys.modules)"
    run = subprocess.run(  # noqa: S603  # the interpreter that runs this test
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = set(run.stdout.split())
    for unwanted in ("pytest", "coredis", "asyncio", "trio_ws.testing", "trio_ws._cli"):
        assert unwanted not in loaded
