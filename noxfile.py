"""Every gate of the project: plain ``nox`` runs them all."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # .ci/run has its own opinion
nox.options.sessions = [
    "lint",
    "typing",
    "docs",
    "tests",
    "lowest",
    "coverage",
    "own_coverage",
]


def _put_pyenv_on_path() -> None:
    """Let the newest pyenv Python of each version be found; its shims hide all but one."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        max(versions.glob(f"{python}.*/bin"), key=_patch_number, default=None)
        for python in reversed(PYTHONS)  # the oldest last, so that it does not come first
    ]
    path = [str(folder) for folder in found if folder]
    os.environ["PATH"] = os.pathsep.join([*path, os.environ["PATH"]])


def _patch_number(folder: Path) -> int:
    return int(re.sub(r"\D.*", "", folder.parent.name.split(".")[2]) or 0)


_put_pyenv_on_path()


def _install(session: nox.Session, *groups: str, package: bool = True) -> None:
    """Install dependency groups and, as users do, the built wheel: not the source tree."""
    session.install(
        *nox.project.dependency_groups(PYPROJECT, *groups), *(["."] if package else [])
    )


# What a reader sees


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, awaiting, and the direction of imports."""
    _install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("flake8-async", *_ASYNC_RULES, *_python_files("trio_ws", "tests", "examples"))
    face = [file for file in _python_files("trio_ws") if Path(file).stem not in _MACHINE_ROOM]
    session.run("flake8-async", *_CHECKPOINT_RULES, *face)
    session.run("lint-imports", "--no-cache")


_NOT_OURS = [
    "ASYNC102",  # __aexit__ waits no longer than close_grace, further down than the rule sees
    "ASYNC124",  # methods of trio's abstract classes are async whether they await or not
    "ASYNC128",  # the three serve_... pass task_status on
    "ASYNC91",  # see below
]
_STARTABLE = [
    "serve_asgi",
    "serve_websocket",
    "serve_websocket_listeners",
    "serve_websocket_unix",
    "_serve",
    "_accept",
    "start",
    "stay",
    "stay_with_peer",
    "work",
    "run_client",
    "run_clients",
]
_ASYNC_RULES = [
    "--enable=ASYNC",
    f"--disable={','.join(_NOT_OURS)}",
    f"--startable-in-context-manager={','.join(_STARTABLE)}",
    "--transform-async-generator-decorators=trio_fixture",
]
# "async" means checkpoint: on every path through what a user may call.
_CHECKPOINT_RULES = ["--enable=ASYNC910,ASYNC911,ASYNC912,ASYNC913"]
# What only our own modules await may return at once: see the costs in docs/explanation.
_MACHINE_ROOM = {
    "_benchmark",
    "_broker",
    "_connecting",
    "_connection",
    "_delivering",
    "_embedded",
    "_http_connection",
    "_inbox",
    "_keepalive",
    "_link",
    "_linked_nursery",
    "_listeners",
    "_outbox",
    "_outgoing",
    "_pump",
    "_registry",
    "_relay",
    "_reloading",
    "_server_connection",
    "_service",
    "_serving",
    "_streams",
    "_talking",
    "_terminal",
    "_transport",
    "_workers",
    "_writer",
}


def _python_files(*folders: str) -> list[str]:
    return [str(file) for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


@nox.session
def typing(session: nox.Session) -> None:
    """Check types, and that users get all of them."""
    _install(session, "typing")
    places = ["trio_ws", "pytest_trio_ws.py", "tests/typing", "examples"]
    session.run("mypy", *places)
    session.run("pyright", *places)
    _verify_types(session)


def _verify_types(session: nox.Session) -> None:
    report = session.run(
        *("pyright", "--verifytypes", "trio_ws", "--ignoreexternal", "--outputjson"),
        silent=True,
        success_codes=[0, 1],
    )
    result = json.loads(str(report))["typeCompleteness"]
    for symbol in result["symbols"]:
        for diagnostic in symbol["diagnostics"]:
            session.warn(f"{symbol['name']}: {diagnostic['message']}")
    known = result["exportedSymbolCounts"]
    session.log(f"Type completeness: {result['completenessScore']:.1%} of {known}")
    if result["completenessScore"] < 1:
        session.error("some public names have no type")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the docs and run what they show; every warning is an error."""
    _install(session, "docs", "test")
    for builder in ("html", "doctest"):
        session.run(
            *("sphinx-build", "-n", "-W", "--keep-going", "-q", "-b", builder),
            *("docs", f"docs/_build/{builder}"),
        )
    session.log(f"Read them: {ROOT}/docs/_build/html/index.html")


# What it does


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests against the installed wheel; on the newest Python, measure what they reach.

    To measure takes more than twice the time, and no line of the package is for one Python alone.
    """
    _install(session, "test")
    # Not "python -m pytest": that would put the source tree before the wheel.
    if session.python != _MEASURED:
        session.run("pytest", *session.posargs)
        return
    for old in ROOT.glob(".coverage.*"):
        old.unlink()
    # Coverage starts pytest, and not the other way round: our pytest plugin is measured, too.
    session.run(
        *("coverage", "run", f"{session.bin}/pytest", "-p", "_contexts", *session.posargs),
        env={"COVERAGE_FILE": str(ROOT / ".coverage")},  # also where programs run elsewhere
    )


_MEASURED = next((each for each in reversed(PYTHONS) if shutil.which(f"python{each}")), None)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    oldest = [each.replace(">=", "==") for each in PYPROJECT["project"]["dependencies"]]
    session.install(*nox.project.dependency_groups(PYPROJECT, "test"), *oldest, ".")
    session.run("pytest", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run the tests of the examples alone: each in a real browser."""
    _install(session, "test")
    session.run("pytest", "tests/test_examples.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Fail under 100 % of branches."""
    _install(session, "test", package=False)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def own_coverage(session: nox.Session) -> None:
    """Fail if a module is not covered in full by the tests that carry its name.

    What only other modules' tests reach is reached by luck.
    """
    _install(session, "test", package=False)
    if not (ROOT / ".coverage").exists():
        session.error("run the sessions tests and coverage first")
    short = [module for module in _modules() if not _own_tests_suffice(session, module)]
    if short:
        session.error(f"not covered by their own tests: {', '.join(short)}")


def _modules() -> list[str]:
    files = sorted((ROOT / "trio_ws").rglob("*.py"))
    return [str(file.relative_to(ROOT)) for file in files if file.read_text()]


def _own_tests_suffice(session: nox.Session, module: str) -> bool:
    """Ask for what ran at import, or by tests named ``test_<name>[_*].py`` or ``<name>/*.py``.

    For a module of a subpackage the name is the subpackage's.
    """
    parts = Path(module).with_suffix("").parts[1:]
    names = [part.strip("_") for part in parts if part != "__init__"] or ["exports"]
    own = rf"(^|/)(test_{names[0]}(_\w+)?|{names[0]}/\w+)\.py$"
    output = session.run(
        *("coverage", "report", f"--include={module}", "--skip-empty", "--fail-under=0"),
        *("--format=total", f"--contexts=^$,{own}"),
        silent=True,
        log=False,
        success_codes=[0, 1],
    )
    return str(output).strip() in {"100", "100.00"}


@nox.session(default=False)
def size(session: nox.Session) -> None:
    """Fill rooms as far as is promised: a thousand members, a hundred thousand rooms."""
    _install(session, "test")
    session.run("pytest", "tests/size", *session.posargs)


# What a hostile world does to it


@nox.session(default=False)
def autobahn(session: nox.Session) -> None:
    """Let Autobahn judge server and client: 247 cases, or all 517 with ``-- full``."""
    session.install(".")
    tool = Path(session.create_tmp(), "autobahn")
    session.run("python", "tests/autobahn/install.py", tool, success_codes=[0, 3])
    wstest = tool / "env" / "bin" / "wstest"
    if not wstest.exists():
        give_up = session.error if "CI" in os.environ else session.skip
        give_up(
            "Autobahn runs on Python 2.7 alone, which PyPI has not and Debian no longer has:"
            " `pyenv install 2.7.18`, or put a python2.7 with pip on PATH"
        )
    size = ["--full"] if "full" in session.posargs else []
    session.run("python", "tests/autobahn/run.py", wstest, *size)


@nox.session(default=False)
def outages(session: nox.Session) -> None:
    """Kill, freeze and restart Redis 15 times under two servers and 400 members."""
    _install(session, "test")
    session.run("python", "tests/redis/outages.py", *session.posargs)


@nox.session(default=False)
def hostile(session: nox.Session) -> None:
    """Attack server and client, and print what it cost; ``-- full`` is the full size."""
    _install(session, "test")
    arguments = [each for each in session.posargs if each != "full"]
    size = "full" if "full" in session.posargs else "fast"
    session.run("pytest", "tests/hostile", *arguments, env={"TRIO_WS_HOSTILE": size})


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Kill servers, proxies and links under 50 reconnecting clients; 5 minutes, or ``-- 1``."""
    _install(session, "test")
    minutes = session.posargs[0] if session.posargs else "5"
    session.run("python", "tests/chaos/run.py", "--minutes", minutes)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Let coverage guide bytes into each parser, for a minute or so many seconds: ``-- 600``."""
    _install(session, "test", "fuzz")
    seconds = session.posargs[0] if session.posargs else "60"
    corpus = Path(session.create_tmp(), "corpus")  # kept from run to run
    output = session.run("python", "tests/fuzz/run.py", silent=True)
    for target in str(output).splitlines()[-1].split():
        session.run("python", "tests/fuzz/run.py", target, seconds, corpus)


# What it costs


@nox.session(default=False)
def benchmark(session: nox.Session) -> None:
    """Compare with other libraries, on two cores; ``-- --rounds 1 --scale 0.1`` is quick."""
    _install(session, "benchmark")
    figures = Path(session.create_tmp(), "figures.json")
    session.run("python", "benchmarks/run.py", "--json", figures, *session.posargs)
    session.log(f"Tables and a picture: python benchmarks/report.py {figures}")


@nox.session(default=False)
def clean(session: nox.Session) -> None:
    """Remove what the other sessions leave behind, but for their environments."""
    for old in [*ROOT.glob(".coverage*"), ROOT / "docs" / "_build"]:
        session.log(f"Removing {old}")
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
