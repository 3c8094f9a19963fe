"""How the docs are built: see ``nox -s docs``."""

from __future__ import annotations

import contextlib
import os
import pkgutil
import re
import shutil
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.pycode import ModuleAnalyzer

import trio_ws
import trio_ws.testing

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "trio_ws"
author = "The trio_ws contributors"
copyright = f"2026, {author}"
version = release = metadata("trio-ws")["Version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinxcontrib_trio",
]
nitpicky = True
default_role = "py:obj"
exclude_patterns = ["_build", "newsfragments"]

html_theme = "furo"
html_title = f"trio_ws {release}"

# As reference/ reads: what receives comes before what sends, as in the source.
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True  # Options(), and not every field of it

# A snippet that hangs says where, and ends the build. What it uses it imports itself, for readers
# copy it as it stands.
doctest_global_setup = f"""
import faulthandler
faulthandler.dump_traceback_later(60, exit=True)
REDIS_IS_MISSING = {shutil.which("redis-server") is None and "CI" not in os.environ}
"""

if os.environ.get("READTHEDOCS"):  # links into other projects' docs take a network
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
        "multidict": ("https://multidict.aio-libs.org/en/stable", None),
    }


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _find_attribute_docs)
    app.connect("autodoc-process-docstring", _mark_up)
    app.connect("autodoc-process-signature", _hide_what_is_ours)
    app.connect("autodoc-process-signature", _shorten_defaults)
    app.connect("missing-reference", _check_other_name)
    app.connect("source-read", _list_seeds)


def _list_seeds(_: Sphinx, __: str, source: list[str]) -> None:
    """Write a table of the tests in ``tests/seeds`` where a page says ``.. seeds``."""
    if "\n.. seeds\n" not in source[0]:
        return
    rows = []
    for file in sorted((Path(__file__).parent.parent / "tests" / "seeds").glob("test_*.py")):
        for letter, number, fact in re.findall(
            r"^(?:async )?def test_([a-z])(\d+)_(\w+)", file.read_text(), re.MULTILINE
        ):
            rows.append((letter, int(number), fact.replace("_", " "), file.stem))
    table = ["", ".. list-table::", "   :widths: 8 62 30", ""]
    for letter, number, fact, name in sorted(rows):
        table += [f"   * - {letter.upper()}{number}", f"     - {fact}", f"     - ``{name}``"]
    source[0] = source[0].replace("\n.. seeds\n", "\n".join([*table, ""]))


def _find_attribute_docs(_: Sphinx) -> None:
    """Let autodoc find the docstrings of attributes.

    It reads them from the source of an object's ``__module__``. Public objects call
    themselves ``trio_ws`` or ``trio_ws.testing``, and their source is elsewhere.
    """
    for package in (trio_ws, trio_ws.testing):
        _gather_attribute_docs(package.__name__, package.__path__)


def _gather_attribute_docs(name: str, path: list[str]) -> None:
    public = ModuleAnalyzer.for_module(name)
    public.analyze()
    for module in pkgutil.walk_packages(path, f"{name}."):
        part = ModuleAnalyzer.for_module(module.name)
        part.analyze()
        public.attr_docs.update(part.attr_docs)
        public.annotations.update(part.annotations)
        public.finals.extend(part.finals)
        public.overloads.update(part.overloads)
        public.tagorder.update(
            (name, order + len(public.tagorder)) for name, order in part.tagorder.items()
        )


def _mark_up(_: Sphinx, __: str, ___: str, ____: object, _____: object, lines: list[str]) -> None:
    """Turn the house style of docstrings into markup: sections, and their items by name."""
    marked: list[str] = []
    section = None
    for line in lines:
        if header := _SECTION.match(line):
            section = header[1]
            rest = line[header.end() :]
            marked += [f"**{header[0]}**{rest}"] if rest else [f"**{header[0]}**", ""]
        elif section and re.match(r"  \S", line):
            marked.append(f"* {_mark_up_names(section, line.strip())}")
        elif section and line.startswith(" "):
            marked.append(f"  {line.strip()}")
        else:
            section = section if not line else None
            marked.append(line)
    lines[:] = marked


_SECTION = re.compile(r"(Args|Raises)[^:]*:|(If cancelled|Concurrency)[\w, ]*:(?= )")


def _mark_up_names(section: str, item: str) -> str:
    """Mark up what stands before the colon: arguments, or exceptions."""
    names = re.match(r"(\**[\w.]+(?:, [\w.]+)*):(?= |$)", item)
    if names is None:
        return item
    form = "``{}``" if section == "Args" else ":exc:`{}`"
    return ", ".join(map(form.format, names[1].split(", "))) + item[names.end() - 1 :]


_MADE_BY_US = {"Member", "Request", "Server", "WebSocket", "WebSocketRequest"} | {
    "Attempt",
    "Cancellations",
    "Connect",
    "Direction",
    "Entry",
    "Pair",
    "Presence",
    "Recorder",
    "Serve",
    "Subscription",
}


def _hide_what_is_ours(  # the signature of the event
    _: Sphinx, kind: str, name: str, *rest: Any
) -> tuple[str, str] | None:
    """Show no constructor where users get the object from us."""
    return ("", "") if kind == "class" and name.rpartition(".")[2] in _MADE_BY_US else None


def _shorten_defaults(  # the signature of the event
    _: Sphinx,
    __: str,
    ___: str,
    ____: object,
    _____: object,
    args: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Show ``Options()`` for context managers, too, whose defaults autodoc cannot preserve."""
    default = repr(trio_ws.Options())
    if not args:
        return None
    permissions = ("mode: int = 384", "mode: int = 0o600")  # autodoc writes numbers its own way
    return args.replace(default, "Options()").replace(*permissions), returns


def _check_other_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Take a name without a link, if there is such a thing.

    That is a name of another project, or one of ours that is not public: in a signature, or
    in the docstring of a module. What is misspelt remains a warning, and so an error.
    """
    target = node.get("reftarget", "")
    if target.startswith("trio_ws.") and "._" not in target:
        return None
    public = env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, "obj", f"trio_ws.{target}", node, content
    )
    return public or (content if _exists(target) else None)


def _exists(name: str) -> bool:
    """Whether it can be imported, is built in, or is known to a module of ours."""
    modules = pkgutil.walk_packages(trio_ws.__path__, "trio_ws.")
    places = ["builtins", "trio_ws", *(module.name for module in modules)]
    for full_name in (name, *(f"{place}:{name}" for place in places)):
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            pkgutil.resolve_name(full_name)
            return True
    return False
