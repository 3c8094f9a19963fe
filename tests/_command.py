"""The command line as a program: started, talked to, ended by its id."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from _components import PATIENCE

PROGRAM = [sys.executable, "-m", "trio_ws"]


class Program:
    """A command that runs, and what it has said."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.said = ""

    async def wait_for(self, text: str) -> str:
        """Read its output until the text comes; return the line that holds it."""
        assert self.process.stdout is not None
        while text not in self.said or "\n" not in self.said.partition(text)[2]:
            data = await self.process.stdout.receive_some()
            assert data, f"it has ended, and said {self.said!r}"
            self.said += data.decode()
        return next(line for line in self.said.splitlines() if text in line)

    async def read_all(self) -> str:
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.said += data.decode()
        return self.said


@asynccontextmanager
async def run_command(*arguments: str, cwd: Path) -> AsyncGenerator[Program, None]:
    """Run ``trio-ws``, output and errors together, for the length of a block."""
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(
            [*PROGRAM, *arguments], cwd=cwd, stdout=-1, stderr=-2, stdin=-1
        )
        try:
            yield Program(process)
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def run_to_end(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run ``trio-ws`` to its end; return its exit code, output and errors."""
    run = partial(
        trio.run_process, capture_stdout=True, capture_stderr=True, stdin=stdin, check=False
    )
    with trio.fail_after(PATIENCE):
        result = await run([*PROGRAM, *arguments])
    return result.returncode, result.stdout.decode(), result.stderr.decode()
