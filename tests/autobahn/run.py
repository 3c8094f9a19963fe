"""Runs the Autobahn suite against our server and our client, and judges what it found.

::

    run.py WSTEST [--full] [--role server] [--role client] [--reports FOLDER]

``wstest`` exits with 0 whatever it found, and also when it found nobody to test: so its
report is judged here, by the number of cases and by both verdicts on each of them. The long
groups of cases have a ``wstest`` and a report each, side by side.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import attrs
import trio
from expected import EXPECTED

from trio_ws import (
    ConnectionClosed,
    Options,
    Server,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
)

AGENT: Final = "trio_ws"
HOST: Final = "127.0.0.1"

OPTIONS: Final = Options(
    max_message_size=16 * 2**20,  # group 9 goes up to 16 MiB, ...
    max_fragments=None,  # ... in fragments of 64 bytes
)


@attrs.frozen
class Tier:
    """How much to run: without 9, 12 and 13 (sizes, and compression) it takes seconds."""

    cases: int
    parts: tuple[tuple[str, ...], ...]
    """What each ``wstest`` runs."""
    seconds: float
    """More than it ever took, on a machine that is busy with other things, too."""


_QUICK: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
FAST: Final = Tier(247, (_QUICK,), 300)
FULL: Final = Tier(517, ((*_QUICK, "9.*"), ("12.*",), ("13.*",)), 7200)


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wstest", type=Path)
    parser.add_argument("--full", action="store_true", help="all 517 cases, not 247")
    parser.add_argument("--role", action="append", choices=("server", "client"))
    parser.add_argument("--reports", type=Path, help="keep Autobahn's pages there")
    arguments = parser.parse_args()
    tier = FULL if arguments.full else FAST
    errors = ErrorLog()
    logging.getLogger("trio_ws").addHandler(errors)

    problems: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        for role in arguments.role or ("server", "client"):
            folder = (arguments.reports or Path(temporary)) / role
            shutil.rmtree(folder, ignore_errors=True)  # an old report must not be judged
            started = time.monotonic()
            trio.run(run, role, arguments.wstest.absolute(), tier, folder.absolute())
            found, score = judge(folder, tier)
            seconds = time.monotonic() - started
            print(f"{role}: {score} in {seconds:.0f} s", flush=True)  # noqa: T201  # a program
            problems += [f"{role}: {problem}" for problem in found]
    problems += [f"logged: {line}" for line in errors.lines]
    if problems:
        print(*problems, sep="\n", file=sys.stderr)  # noqa: T201  # a program's output
    return 1 if problems else 0


class ErrorLog(logging.Handler):
    """Whatever is logged as an error while Autobahn is at it is one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines.append(self.format(record))


async def run(role: str, wstest: Path, tier: Tier, folder: Path) -> None:
    """Run the parts of a tier side by side."""
    with trio.fail_after(tier.seconds):
        async with trio.open_nursery() as nursery:
            for number, cases in enumerate(tier.parts):
                part = Part(wstest, cases, folder / str(number))
                nursery.start_soon(_TESTS[role], part)


def judge(folder: Path, tier: Tier) -> tuple[list[str], str]:
    """Return what is wrong with the reports, and the score in one line."""
    results: dict[str, dict[str, Any]] = {}
    for number, cases in enumerate(tier.parts):
        index = folder / str(number) / "index.json"
        if not index.exists():
            return [f"there is no report: the suite did not run {', '.join(cases)}"], "nothing"
        results |= json.loads(index.read_text()).get(AGENT, {})
    problems = [
        f"case {case}: {verdict} is {result[verdict]}, not {_expected(case)}"
        for case, result in results.items()
        for verdict in ("behavior", "behaviorClose")
        if result[verdict] != _expected(case)
    ]
    if len(results) != tier.cases:
        problems.append(f"{len(results)} cases, {tier.cases} there should be")
    score = Counter(f"{each['behavior']}/{each['behaviorClose']}" for each in results.values())
    return problems, ", ".join(f"{count} {name}" for name, count in score.most_common())


def _expected(case: str) -> str:
    return EXPECTED[case].behavior if case in EXPECTED else "OK"


@attrs.frozen
class Part:
    """Some of the cases, for one ``wstest``."""

    wstest: Path
    cases: tuple[str, ...]
    folder: Path

    def specification(self) -> dict[str, Any]:
        """Return what ``wstest`` has to know in either role."""
        return {
            "outdir": str(self.folder),
            "cases": list(self.cases),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }

    def command(self, mode: str, specification: dict[str, Any]) -> list[str]:
        """Return the words that start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "specification.json"
        file.write_text(json.dumps(specification))
        return [str(self.wstest), "-m", mode, "-s", str(file)]

    def log(self) -> IO[bytes]:
        """Return the file for what it prints: a line for each case, and tracebacks."""
        return (self.folder / "wstest.log").open("wb")


# Our server, Autobahn's client...


async def test_server(part: Part) -> None:
    """Let ``wstest`` connect once for each case."""
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, echo, 0, host=HOST, options=OPTIONS)
        server: Server = await nursery.start(serve)
        specification = {
            "servers": [{"agent": AGENT, "url": f"ws://{HOST}:{server.port}"}],
            **part.specification(),
        }
        command = part.command("fuzzingclient", specification)
        with part.log() as log:
            await trio.run_process(command, stdout=log, stderr=log)
        nursery.cancel_scope.cancel()


async def echo(request: WebSocketRequest) -> None:
    """Send back what comes, compressed if the peer can have it so."""
    async with request.accept() as ws:
        await send_back(ws)


async def send_back(ws: WebSocket) -> None:
    """Do what Autobahn expects of either role."""
    async for message in ws:
        await ws.send(message, compress=True)


# Autobahn's server, our client...


async def test_client(part: Part) -> None:
    """Connect to ``wstest`` once for each case; it has to be asked for its report."""
    port = _free_port()
    url = f"ws://{HOST}:{port}"
    specification = {"url": url, **part.specification()}
    command = part.command("fuzzingserver", specification)
    async with trio.open_nursery() as nursery:
        with part.log() as log:  # "-u 0": without web pages
            serve = partial(trio.run_process, [*command, "-u", "0"], stdout=log, stderr=log)
            await nursery.start(serve)
        await _wait_for_listener(port)
        for case in range(1, await _case_count(url) + 1):
            await _run_case(url, case)
        await _update_reports(url)
        nursery.cancel_scope.cancel()  # it never ends by itself


def _free_port() -> int:
    with socket.socket() as sock:
        # A moment later it might be taken, and then the suite fails and says so.
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


async def _wait_for_listener(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream(HOST, port)
        except OSError:
            await trio.sleep(0.1)
        else:
            await trio.aclose_forcefully(stream)
            return


async def _case_count(url: str) -> int:
    async with open_websocket(f"{url}/getCaseCount", options=OPTIONS) as ws:
        return int(await ws.receive())


async def _run_case(url: str, case: int) -> None:
    try:
        target = f"{url}/runCase?case={case}&agent={AGENT}"
        async with open_websocket(target, options=OPTIONS) as ws:
            await send_back(ws)
    except ConnectionClosed:
        pass  # many cases end so; Autobahn knows which may


async def _update_reports(url: str) -> None:
    async with open_websocket(f"{url}/updateReports?agent={AGENT}", options=OPTIONS) as ws:
        async for _ in ws:
            pass


_TESTS: Final = {"server": test_server, "client": test_client}


if __name__ == "__main__":
    sys.exit(main())
