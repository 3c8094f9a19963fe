"""Finding what ``module:handler`` names, or saying what there is instead."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import cast

from .._application import Application
from .._routes import Routes
from ._usage import UsageError


def load_handler(target: str) -> Application:
    """Import ``module:handler``.

    Raises:
      UsageError: there is no such module, or nothing to serve of that name in it.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise UsageError(f"{target!r} is not of the form module:handler{_example(module_name)}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as python -m does: the current folder
    module = _import(module_name)
    handler: object = module
    for part in name.split("."):
        handler = getattr(handler, part, None)
    if handler is None or not callable(handler) or inspect.isclass(handler):
        found = list(_candidates(module))
        has = ", ".join(found) or "nothing that could be served"
        raise UsageError(
            f"no handler {name!r} in {module_name}: it has {has}{_guess(name, found)}"
        )
    return cast("Application", handler)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = exc.name or name
        if missing != name and not name.startswith(f"{missing}."):
            raise UsageError(f"{name} needs the module {missing!r}, which is not there") from exc
        here = sorted(_modules_here())
        has = ", ".join(here) or "no module at all"
        raise UsageError(
            f"there is no module {missing!r} here or among the installed: the current folder"
            f" has {has}{_guess(missing, here)}"
        ) from exc


def _modules_here() -> Iterable[str]:
    for path in Path.cwd().iterdir():
        if path.suffix == ".py" and path.stem.isidentifier():
            yield path.stem
        elif path.joinpath("__init__.py").is_file():
            yield path.name


def _candidates(module: ModuleType) -> Iterable[str]:
    for name, value in vars(module).items():
        if isinstance(value, Routes) or (
            inspect.isfunction(value)
            and value.__module__ == module.__name__
            and (inspect.iscoroutinefunction(value) or _opens_one(value))
        ):
            yield name


def _opens_one(function: Callable[..., object]) -> bool:
    """Whether it is a `contextlib.asynccontextmanager`: see `open_application`."""
    return inspect.isasyncgenfunction(inspect.unwrap(function))


def _guess(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close and len(known) > 1 else ""


def _example(module_name: str) -> str:
    return f", as in {module_name}:routes" if module_name else ", as in app:routes"
