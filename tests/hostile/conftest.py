"""What the attacks share; they run only when this folder is asked for by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from hostile import _lab
from hostile._lab import KIB, MIB, Felt, Measured, ServerUnderAttack


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these to ``nox -s hostile``: they take minutes, and measure."""
    wanted = any("hostile" in argument for argument in config.invocation_params.args)
    return None if wanted else True


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[ServerUnderAttack]]:
    """``async with serve(**options) as server``: default options but for those."""
    return partial(_lab.serve, folder=tmp_path)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(file)
    )
    return file


# The table...


@attrs.frozen
class Line:
    """A row of the table."""

    attack: str
    memory: str
    cpu: str
    others: str
    note: str


class Table:
    """The figures of all attacks, printed in the end."""

    lines: list[Line] = []  # noqa: RUF012  # of the whole run

    def add(
        self,
        attack: str,
        measured: Measured | None = None,
        felt: Felt | None = None,
        note: Any = "",
    ) -> None:
        """Add a row."""
        self.lines.append(
            Line(
                attack,
                "" if measured is None else _size(measured.memory),
                "" if measured is None else f"{measured.cpu:.2f} s",
                ""
                if felt is None
                else " / ".join(f"{s * 1000:.1f}" for s in (felt.median, felt.p99, felt.slowest)),
                str(note),
            )
        )


HEADINGS = Line("attack", "memory", "CPU", "others: median / p99 / slowest, ms", "")


def _size(count: int) -> str:
    return f"{count / MIB:.1f} MiB" if abs(count) >= MIB else f"{count / KIB:.0f} KiB"


@pytest.fixture(scope="session")
def table() -> Table:
    return Table()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; with ``TRIO_WS_FIGURES`` keep it there, too."""
    lines = [attrs.astuple(line) for line in (HEADINGS, *Table.lines)]
    if len(lines) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    terminalreporter.section("what the attacks cost the server")
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
    if file := os.environ.get("TRIO_WS_FIGURES"):
        rule = "  ".join("=" * width for width in widths)
        body = [
            "  ".join(
                (cell or "\\").ljust(width) for cell, width in zip(line, widths, strict=True)
            )
            for line in lines
        ]
        Path(file).write_text("\n".join([rule, body[0], rule, *body[1:], rule, ""]))
