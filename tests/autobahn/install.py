"""Installs Autobahn's ``wstest``, which needs Python 2.7, into a folder: ``install.py FOLDER``.

The exit code is 3 if there is no Python 2.7, pyenv's or on PATH, to install it with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
TOOL: Final = HERE / "tool-requirements.txt"
WSTEST: Final = HERE / "wstest-requirements.txt"
BUILD: Final = HERE / "build-requirements.txt"
ACCELERATOR: Final = HERE / "accelerator-requirements.txt"

_QUIET: Final = ("-q", "--disable-pip-version-check")


def main() -> int:
    """Install; return the exit code."""
    python2 = find_python2()
    if python2 is None:
        return 3
    install(python2, Path(sys.argv[1]))
    return 0


def find_python2() -> Path | None:
    """Return a Python 2.7 with TLS and zlib: pyenv's, or the one on PATH."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which("python2.7")
    candidates = [*sorted(versions.glob("2.7.*/bin/python"), reverse=True)]
    if on_path is not None:
        candidates.append(Path(on_path))
    return next(filter(_is_complete, candidates), None)


def install(python2: Path, folder: Path) -> None:
    """Install ``env/bin/wstest`` in a folder, if it is not there yet.

    Raises:
      subprocess.CalledProcessError: pip could not do it.
    """
    wstest = folder / "env" / "bin" / "wstest"
    stamp = folder / "installed"
    if wstest.exists() and stamp.exists() and stamp.read_text() == _pins():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    # Python 2.7 has no venv module, and its virtualenv shall not go into the system.
    tool = folder / "tool"
    _run(python2, "-m", "pip", "install", *_QUIET, "--no-deps", "--target", tool, "-r", TOOL)
    _run(
        *(python2, "-m", "virtualenv", "-q", "--no-periodic-update", folder / "env"),
        env={**os.environ, "PYTHONPATH": str(tool)},
    )
    pip = (folder / "env" / "bin" / "pip", "install", *_QUIET, "--no-python-version-warning")
    _run(*pip, "--no-deps", "-r", WSTEST)
    if shutil.which("cc") or shutil.which("gcc"):
        _run(*pip, "--no-deps", "-r", BUILD)
        _run(*pip, "--no-deps", "--no-build-isolation", "-r", ACCELERATOR)
    _run(wstest, "-a")  # does it start?
    stamp.write_text(_pins())


def _is_complete(python: Path) -> bool:
    check = "import sys, ssl, zlib; sys.exit(sys.version_info[:2] != (2, 7))"
    tried = subprocess.run(  # noqa: S603  # an interpreter of the developer's own
        [python, "-c", check], capture_output=True, check=False
    )
    return tried.returncode == 0


def _pins() -> str:
    pins = b"".join(file.read_bytes() for file in (TOOL, WSTEST, BUILD, ACCELERATOR))
    return hashlib.sha256(pins).hexdigest()


def _run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    subprocess.run(  # noqa: S603  # all of it is written above
        [str(part) for part in command], check=True, env=env
    )


if __name__ == "__main__":
    sys.exit(main())
