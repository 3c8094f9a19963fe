"""The reference: what is awaited says what it raises, if cancelled, and to how many tasks."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

MODULES: Final = [
    "trio_ws",
    "trio_ws.asgi",
    "trio_ws.compat.trio_websocket",
    "trio_ws.redis",
    "trio_ws.rooms",
    "trio_ws.testing",
]
SECTIONS: Final = [r"^Raises\b.*:", r"\b[Ii]f cancelled\b.*:", r"\b[Cc]oncurrency:"]


def public(module: str) -> Iterator[tuple[str, Any]]:
    """Names of a module, and what classes of ours have below them."""
    for name, value in vars(importlib.import_module(module)).items():
        if name.startswith("_") or not getattr(value, "__module__", "").startswith("trio_ws"):
            continue
        yield f"{module}.{name}", value
        if inspect.isclass(value):
            for base in value.__mro__:
                for key, member in vars(base).items():
                    if base.__module__.startswith("trio_ws") and not key.startswith("_"):
                        yield f"{module}.{name}.{key}", member


def is_awaited(thing: Any) -> bool:
    """Whether users write ``await`` before it, or ``async with``."""
    if not inspect.isfunction(thing):
        return False
    inner = inspect.unwrap(thing)
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        return True
    returned = str(inspect.signature(thing).return_annotation)
    return re.search(r"AsyncContextManager|^Opening$", returned) is not None


AWAITED: Final = {
    name: thing for module in MODULES for name, thing in public(module) if is_awaited(thing)
}


def test_there_is_something_to_await_in_each_module() -> None:
    for module in MODULES:
        assert any(name.startswith(f"{module}.") for name in AWAITED)


@pytest.mark.parametrize("name", AWAITED)
def test_it_says_what_it_raises_if_cancelled_and_to_how_many_tasks(name: str) -> None:
    function: Callable[..., object] = AWAITED[name]
    told = inspect.getdoc(function) or ""
    assert [each for each in SECTIONS if not re.search(each, told, re.MULTILINE)] == []
