"""``trio-ws serve --workers``: several processes share a port, and open what they need."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from _components import PATIENCE

from trio_ws._cli import main

RUN = (sys.executable, "-m", "trio_ws")

APP = """
async def echo(request):
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder."""
    (tmp_path / "an_app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("an_app", "span", "bad"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "an_app"


LIFESPAN = """
import os
from contextlib import asynccontextmanager

from trio_ws import Response, Routes


@asynccontextmanager
async def application():
    routes = Routes()

    @routes.get("/")
    async def number(request):
        return Response(str(os.getpid()))

    yield routes
    print("closed", flush=True)
"""


async def test_several_workers_serve_what_a_block_opens(app: str) -> None:
    Path("span.py").write_text(LIFESPAN)  # noqa: ASYNC240  # a small file, and nobody waits
    process = await trio.lowlevel.open_process(
        [*RUN, "serve", "span:application", "--port", "0", "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    output = process.stdout
    assert output is not None
    async with output:
        try:
            with trio.fail_after(PATIENCE):
                said = b""
                while not said.endswith(b"\n"):
                    said += await output.receive_some()
                assert said.endswith(b", 2 workers\n")
                port = int(said.partition(b"127.0.0.1:")[2].partition(b",")[0])
                found: set[bytes] = set()
                while len(found) < 2:
                    found.add(await _fetch(port))
                process.terminate()
                assert await process.wait() == 0
                said = b"".join([bytes(data) async for data in output])
                assert said == b"closed\nclosed\n"
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _fetch(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join([bytes(data) async for data in stream])
    return answer.rpartition(b"\n")[2]


def test_workers_for_a_port_in_use_say_so(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", f"{app}:echo", "--port", port, "--workers", "2"]) == 2
    assert "is in use" in capsys.readouterr().err


BAD = """
from pathlib import Path

if Path("imported").exists():
    exit(5)
Path("imported").touch()


async def handler(request):
    pass
"""


async def test_workers_that_do_not_start_end_the_command(app: str) -> None:
    Path("bad.py").write_text(BAD)  # noqa: ASYNC240  # a small file, and nobody waits
    process = await trio.run_process(
        [*RUN, "serve", "bad:handler", "--port", "0", "--workers", "2"],
        capture_stderr=True,
        check=False,
    )
    assert process.returncode == 2
    assert b"a worker did not come to serve" in process.stderr
