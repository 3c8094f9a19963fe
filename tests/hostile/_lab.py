"""The laboratory: a server and good clients in processes of their own, and instruments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

HERE: Final = Path(__file__).parent
FULL: Final = os.environ.get("TRIO_WS_HOSTILE") == "full"
"""Whether to run at full size: see the noxfile."""

MIB: Final = 2**20
KIB: Final = 2**10


def scaled(full: int, fast: int) -> int:
    """Return a count that fits the time there is."""
    return full if FULL else fast


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    return _status(pid, "VmRSS")


def start_peak(pid: int) -> None:
    """Let `peak` start anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # see proc(5)


def peak(pid: int) -> int:
    """Return the most resident bytes that there were."""
    return _status(pid, "VmHWM")


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * KIB
    raise AssertionError(f"no {field}: has the process ended?")


class Program:
    """A Python program that answers lines with lines of JSON."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.pid = process.pid
        self._pending = bytearray()

    async def line(self) -> bytes:
        """Read a line of what it prints."""
        assert self.process.stdout is not None
        while (end := self._pending.find(b"\n")) < 0:
            data = await self.process.stdout.receive_some(65536)
            assert data, "the program has ended"
            self._pending += data
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    async def ask(self, command: str = "report") -> dict[str, Any]:
        """Let it do something, and tell what it is like then."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(command.encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self.line())
        return answer


class ServerUnderAttack(Program):
    """The server, seen from outside."""

    def __init__(self, process: trio.Process, log_file: Path) -> None:
        super().__init__(process)
        self.log_file = log_file
        self.port = 0
        self._before: dict[str, Any] = {}
        self._memory_before = 0

    @property
    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()

    async def begin(self) -> None:
        """Begin to measure; what was before is where it has to come back to."""
        self._before = {**await self.ask(), "descriptors": self.descriptors}
        start_peak(self.pid)
        self._memory_before = memory(self.pid)

    async def measured(self) -> Measured:
        """Return what has been since `begin`."""
        now = await self.ask()
        return Measured(
            memory=peak(self.pid) - self._memory_before,
            held=memory(self.pid) - self._memory_before,
            cpu=now["cpu"] - self._before["cpu"],
            longest_pass=now["longest_pass"],
        )

    async def holds(self, count: int, *, within: float = 5) -> None:
        """Wait until it has so many WebSockets more than at `begin`."""
        with trio.fail_after(within):
            while True:
                if (await self.ask())["connections"] >= count + self._before["connections"]:
                    return
                await trio.sleep(0.02)

    async def settled(self, *, within: float = 5) -> None:
        """Wait until all tasks and descriptors of attackers are gone: as at `begin`."""
        now: dict[str, Any] = {}
        wanted = {key: self._before[key] for key in ("tasks", "descriptors", "connections")}
        with trio.move_on_after(within):
            while True:
                now = {**await self.ask(), "descriptors": self.descriptors}
                if all(now[key] <= value for key, value in wanted.items()):
                    return
                await trio.sleep(0.05)
        found = {key: now.get(key) for key in wanted}
        stacks = json.dumps(await self.ask("stacks"), indent=2)
        raise AssertionError(f"left behind: {found}, not {wanted}: {stacks}")


@attrs.frozen
class Measured:
    """What an attack cost the server."""

    memory: int
    """Bytes at the peak, more than before."""
    held: int
    """Bytes at the end, more than before."""
    cpu: float
    """Seconds."""
    longest_pass: float
    """Seconds of CPU in one pass of the event loop, during which nobody else is served."""


@asynccontextmanager
async def serve(
    *,
    files: int | None = None,
    certificate: Path | None = None,
    jump: bool = False,
    level: str = "INFO",
    errors: bool = False,
    folder: Path,
    **options: Any,
) -> AsyncIterator[ServerUnderAttack]:
    """Run the server; in the end, see that it stops and that its log is in order."""
    config = {
        "options": options,
        "files": files,
        "certificate": certificate and str(certificate),
        "jump": jump,
        "level": level,
    }
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, str(HERE / "_server.py"), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        server = ServerUnderAttack(process, log_file)
        server.port = json.loads(await server.line())["port"]
        yield server
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.fail_after(15):
            await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    assert process.returncode == 0, server.log
    check_log(server.log, errors=errors)


def check_log(log: str, *, errors: bool = False) -> None:
    """Check that peers could not write into the log, nor break anything."""
    for line in log.splitlines():
        assert line.isprintable(), line
        assert len(line) < 500, line
    if not errors:
        assert "ERROR" not in log, log
        assert "Traceback" not in log, log


@attrs.frozen
class Felt:
    """How it was for a good client; seconds."""

    echoes: int
    median: float
    p99: float
    slowest: float


class Witness:
    """What the block of `good_clients` yields."""

    felt: Felt


@asynccontextmanager
async def good_clients(
    port: int, count: int = 1, interval: float = 0.02
) -> AsyncIterator[Witness]:
    """Run well-behaved clients beside the block; they must not notice."""
    witness = Witness()
    process = await trio.lowlevel.open_process(
        [sys.executable, str(HERE / "_good_client.py"), str(port), str(count), str(interval)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    program = Program(process)
    try:
        assert await program.line() == b"ready"
        yield witness
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.fail_after(15):
            witness.felt = Felt(**json.loads(await program.line()))
            await process.wait()
        assert process.returncode == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def until(condition: Callable[[], bool], *, within: float = 5) -> None:
    """Wait for something that will be so in a moment."""
    with trio.fail_after(within):
        while True:
            if condition():
                return
            await trio.sleep(0.02)
