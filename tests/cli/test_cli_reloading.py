"""``trio-ws serve --reload``: a new server whenever the code changes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from _command import run_command
from _components import PATIENCE

from trio_ws import open_websocket
from trio_ws._cli import main
from trio_ws._cli._reloading import _interrupt, run_reloading
from trio_ws._cli._usage import UsageError

APP = """
async def handler(request):
    async with request.accept() as ws:
        await ws.send("{}")
        await ws.wait_closed()
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    app = tmp_path / "an_app.py"
    app.write_text(APP.format("one"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # two versions within one second
    return app


async def hear(place: str) -> str:
    url = f"ws://127.0.0.1:{place.rpartition(':')[2]}/"
    async with open_websocket(url) as ws:
        return str(await ws.receive())


async def listening(socket: trio.Path) -> None:
    """Wait until somebody listens: between bind() and listen() there is a file already."""
    while True:
        try:
            stream = await trio.open_unix_socket(socket)
        except OSError:
            await trio.sleep(0.01)
        else:
            await stream.aclose()
            return


async def mend(app: Path) -> None:
    """Write it again and again: when it begins to be watched cannot be seen from here."""
    while True:
        await trio.sleep(4)
        await trio.Path(app).write_text(APP.format("two"))


async def test_a_change_starts_a_new_server(app: Path) -> None:
    arguments = ("serve", "an_app:handler", "--port", "0", "--reload")
    async with run_command(*arguments, cwd=app.parent) as program:
        first = await program.wait_for("serving ")
        url = f"ws://127.0.0.1:{first.rpartition(':')[2]}/"
        async with open_websocket(url) as ws:
            assert await ws.receive() == "one"
            program.said = ""
            await trio.Path(app).write_text(APP.format("two"))
            assert (await ws.wait_closed()).code == 1001
        assert await hear(await program.wait_for("serving ")) == "two"
        assert "changed: an_app.py" in program.said

        await trio.Path(app).write_text("this is no Python")
        await program.wait_for("SyntaxError")
        program.said = ""
        await trio.Path(app).write_text(APP.format("three"))
        last = await program.wait_for("serving ")
        assert await hear(last) == "three"

        program.process.send_signal(signal.SIGINT)
        assert await program.process.wait() == 0
        with pytest.raises(OSError, match="refused"):
            await hear(last)  # it has not been left behind


async def test_a_signal_ends_it_and_its_server(app: Path) -> None:
    """The same from inside, where it can be measured."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            codes: list[int] = []

            @nursery.start_soon
            async def run() -> None:
                arguments = ["serve", "an_app:handler", "--unix", "socket", "--reload"]
                codes.append(await run_reloading(arguments))

            socket = trio.Path(app.with_name("socket"))
            for text in ("one", "two"):
                await listening(socket)
                async with open_websocket(f"ws+unix://{socket}:/") as ws:
                    assert await ws.receive() == text
                    if text == "one":
                        await trio.Path(app).write_text(APP.format("two"))
                    else:
                        signal.raise_signal(signal.SIGINT)
                    assert (await ws.wait_closed()).code == 1001
    assert codes == [0]
    assert not await socket.exists()


async def test_a_server_that_has_ended_is_started_anew(app: Path) -> None:
    await trio.Path(app).write_text("this is no Python")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            arguments = ["serve", "an_app:handler", "--unix", "socket", "--reload"]
            nursery.start_soon(run_reloading, arguments)
            socket = trio.Path(app.with_name("socket"))
            nursery.start_soon(mend, app)
            await listening(socket)
            nursery.cancel_scope.cancel()


def test_without_the_watcher_it_says_what_to_install(
    app: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert main(["serve", "an_app:handler", "--reload"]) == 2
    assert "pip install 'trio-ws[cli]'" in capsys.readouterr().err


async def test_what_is_not_installed_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UsageError, match="watchfiles"):
        await run_reloading(["serve", "--reload"])


async def test_a_server_that_does_not_hear_it_is_ended_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_ws._cli._reloading.PATIENCE", 0.1)
    deaf = (
        "import signal, time; signal.signal(2, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", deaf], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.receive_some()
    await _interrupt(process)
    assert process.returncode == -signal.SIGKILL
