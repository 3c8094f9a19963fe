"""The tutorial: each chapter's program, in a folder of its own as its reader has it."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio
from _browser import PHONE, launch_browser, open_browser
from _command import Program, run_command

from trio_ws import ConnectionLost, ConnectionRejected, open_websocket

pytest_plugins = ("pytester",)

ROOT: Final = Path(__file__).parent.parent
VOTES: Final = ROOT / "examples" / "votes"
TUTORIAL: Final = ROOT / "docs" / "tutorial"
NOTHING: Final = '{"tea": 0, "coffee": 0, "water": 0}'
STAFF: Final = {"Authorization": "Basic " + base64.b64encode(b"staff:sesame").decode()}


@attrs.frozen
class Served:
    """A chapter's program that runs."""

    program: Program
    port: int

    @property
    def http(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://localhost:{self.port}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, with the pages in it."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for name in ("web", "staff"):
        shutil.copytree(VOTES / name, tmp_path / name)
    return tmp_path


@asynccontextmanager
async def serve(
    folder: Path, program: str, target: str, *arguments: str
) -> AsyncGenerator[Served, None]:
    """Save a program as ``votes.py``, and serve it."""
    shutil.copy(VOTES / program, folder / "votes.py")
    arguments = arguments or ("--port", "0")
    async with run_command("serve", f"votes:{target}", *arguments, cwd=folder) as command:
        said = await command.wait_for("serving")
        yield Served(command, int(said.rpartition(":")[2]))


async def test_the_first_server_answers_its_client(folder: Path) -> None:
    async with serve(folder, "first.py", "vote") as served:
        source = (VOTES / "client.py").read_text()
        assert "localhost:8000" in source
        (folder / "client.py").write_text(source.replace("8000", str(served.port)))
        run = await trio.run_process(
            [sys.executable, "client.py"], cwd=folder, capture_stdout=True
        )
        assert run.stdout.decode() == "you voted for coffee\n"


async def test_the_page_counts_and_comes_back(folder: Path) -> None:
    with launch_browser() as devtools:
        async with open_browser(devtools) as browser:
            async with serve(folder, "pages.py", "routes") as served:
                page = await browser.open_page(served.http)
                await page.wait_for_text("tea: 0")
                await page.click("button[data-say=tea]")
                await page.wait_for_text("tea: 1")
            await page.wait_for_text("not connected, trying again")
            assert await page.evaluate("document.querySelector('button').disabled")
            async with serve(folder, "pages.py", "routes", "--port", str(served.port)):
                await page.wait_for_text("tea: 0")
                await page.wait_for_text("connected", "#state")


async def test_both_pages_see_what_happens_on_the_other_one(folder: Path) -> None:
    with launch_browser() as devtools:
        async with (
            serve(folder, "rooms.py", "routes") as served,
            open_browser(devtools) as browser,
        ):
            ann = await browser.open_page(served.http, PHONE)
            bob = await browser.open_page(served.http)
            staff = await browser.open_page(f"{served.http}/staff/", PHONE)
            for page in (ann, bob, staff):
                await page.wait_for_text("tea: 0")
                assert await page.overflow() == 0
            await ann.click("button[data-say=tea]")
            for page in (ann, bob, staff):
                await page.wait_for_text("tea: 1")
            await staff.click("button")
            for page in (ann, bob, staff):
                await page.wait_for_text("tea: 0")


async def test_only_the_staff_begins_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOTES_PASSWORD", "sesame")
    with launch_browser() as devtools:
        async with (
            serve(folder, "votes.py", "routes") as served,
            open_browser(devtools) as browser,
        ):
            with pytest.raises(ConnectionRejected, match="401: 'authentication needed'"):
                async with open_websocket(f"{served.ws}/staff/live"):
                    pass
            guest = await browser.open_page(served.http)
            await guest.wait_for_text("tea: 0")
            await guest.click("button[data-say=tea]")
            await guest.wait_for_text("tea: 1")
            who = f"staff:sesame@localhost:{served.port}"  # as if it were typed into the question
            staff = await browser.open_page(f"http://{who}/staff/")
            await staff.wait_for_text("tea: 1")
            await staff.click("button")
            await guest.wait_for_text("tea: 0")


async def test_without_a_password_nobody_is_staff(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOTES_PASSWORD", "")
    async with serve(folder, "votes.py", "routes") as served:
        with pytest.raises(ConnectionRejected, match="401"):
            async with open_websocket(f"ws://staff:@localhost:{served.port}/staff/live"):
                pass


@pytest.fixture
def tested(pytester: pytest.Pytester) -> pytest.Pytester:
    """The reader's folder in the chapter on tests, with the configuration that it shows."""
    page = (TUTORIAL / "tests.rst").read_text()
    (shown,) = re.findall(r":caption: pyproject.toml\n\n((?:   .*\n)+)", page)
    (pytester.path / "pyproject.toml").write_text(re.sub("(?m)^   ", "", shown))
    for name in ("votes.py", "test_votes.py"):
        shutil.copy(VOTES / name, pytester.path)
    for name in ("web", "staff"):
        shutil.copytree(VOTES / name, pytester.path / name)
    return pytester


def test_its_tests_pass(tested: pytest.Pytester) -> None:
    result = tested.runpytest_subprocess("-p", "pytest_trio_ws", "-W", "error")
    result.assert_outcomes(passed=6)
    assert "6 passed" in (TUTORIAL / "tests.rst").read_text()


def test_its_tests_find_the_bug_that_readers_make(tested: pytest.Pytester) -> None:
    file = tested.path / "votes.py"
    program = file.read_text()
    guard = """            if choice in votes:
                votes[choice] += 1
                await rooms"""
    assert guard in program
    mistake = """            votes[choice] += 1
            await rooms"""
    file.write_text(program.replace(guard, mistake))
    result = tested.runpytest_subprocess("-p", "pytest_trio_ws")
    result.assert_outcomes(failed=1, passed=5)
    result.stdout.fnmatch_lines(["*KeyError: 'beer'", "*text 'beer' *", "*close 1011*"])


async def test_it_speaks_tls(folder: Path) -> None:
    await trio.run_process([sys.executable, "-m", "trustme", "-q"], cwd=folder)
    context = ssl.create_default_context(cafile=folder / "client.pem")
    files = ("--certfile", "server.pem", "--keyfile", "server.key")
    async with serve(folder, "votes.py", "routes", "--port", "0", *files) as served:
        url = f"wss://localhost:{served.port}/live"
        async with open_websocket(url, ssl_context=context) as ws:
            assert await ws.receive() == NOTHING


async def test_its_service_starts_as_systemd_would_start_it_and_drains(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (VOTES / "votes.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    credentials = folder / "credentials"
    credentials.mkdir()
    await trio.run_process([sys.executable, "-m", "trustme", "-q"], cwd=credentials)
    (credentials / "server.pem").rename(credentials / "chain.pem")
    (credentials / "server.key").rename(credentials / "key.pem")
    monkeypatch.setenv("VOTES_PASSWORD", "sesame")

    start = settings["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(credentials))
    program, serve_word, target, *arguments = shlex.split(start)
    assert program == f"{settings['WorkingDirectory']}/.venv/bin/trio-ws"
    assert (serve_word, target) == ("serve", "votes:routes")
    assert int(settings["TimeoutStopSec"]) > int(arguments[arguments.index("--drain") + 1])
    arguments[arguments.index("--port") + 1] = "0"  # 443 is for root

    context = ssl.create_default_context(cafile=credentials / "client.pem")
    async with serve(folder, "votes.py", "routes", *arguments) as served:
        url = f"wss://localhost:{served.port}/staff/live"
        async with open_websocket(url, headers=STAFF, ssl_context=context) as ws:
            assert await ws.receive() == NOTHING
            os.kill(served.program.process.pid, signal.SIGTERM)
            with pytest.raises(ConnectionLost, match="1012"):
                await ws.receive()
        assert await served.program.process.wait() == 0
