"""``trio-ws serve`` and ``echo``: where they listen, what they serve, and how they stop."""

from __future__ import annotations

import argparse
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from _command import run_command
from _components import PATIENCE

from trio_ws import (
    ConnectionClosed,
    ConnectionRejected,
    open_websocket,
)
from trio_ws._cli import main, make_parser
from trio_ws._cli._serving import run_echo, run_serve
from trio_ws._cli._usage import UsageError

APP = """
from trio_ws import Response, Routes

routes = Routes()


@routes.websocket("/echo")
async def echo(request):
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


@routes.get("/page")
async def page(request):
    return Response("page of the app")


async def handler(request):
    async with request.accept() as ws:
        await ws.send(request.path)


async def busy(request):
    async with request.accept() as ws:
        await ws.send("here")
        await ws.wait_closed()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "an_app.py").write_text(APP)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("the front page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "an_app", raising=False)
    return tmp_path


def parse(*arguments: str) -> argparse.Namespace:
    return make_parser().parse_args(arguments)


class Serving:
    def __init__(self) -> None:
        self.place = ""
        self.codes: list[int] = []
        self._stopped = False

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal, once: a second one would end these tests."""
        if not self._stopped:
            self._stopped = True
            signal.raise_signal(number)

    @property
    def port(self) -> int:
        return int(self.place.rpartition(":")[2])


@asynccontextmanager
async def serving(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> AsyncGenerator[Serving, None]:
    """Run the command in here, where it can be measured; end it by a signal."""
    state = Serving()
    options = parse(*arguments)

    async def run() -> None:
        state.codes.append(await options.run(options))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            while not state.place:
                await trio.sleep(0.001)
                state.place = capsys.readouterr().out.removeprefix("serving ").strip()
            yield state
            state.stop()
    assert state.codes == [0]


async def get(port: int, path: str) -> str:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join([bytes(data) async for data in stream]).decode()
    head, _, body = answer.partition("\r\n\r\n")
    return f"{head.split()[1]} {body.strip()}"


async def talk(url: str, message: str = "hello", context: ssl.SSLContext | None = None) -> str:
    async with open_websocket(url, ssl_context=context) as ws:
        await ws.send(message)
        return str(await ws.receive())


# Stopping...


async def test_ctrl_c_says_goodbye_to_all(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, "serve", "an_app:routes", "--port", "0") as state:
        assert state.place == f"http:// and ws://127.0.0.1:{state.port}"
        async with open_websocket(f"ws://127.0.0.1:{state.port}/echo") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
            state.stop()
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1001


async def test_sigterm_lets_handlers_finish(capsys: pytest.CaptureFixture[str]) -> None:
    async with (
        serving(capsys, "serve", "an_app:busy", "--port", "0") as state,
        open_websocket(f"ws://127.0.0.1:{state.port}/") as ws,
    ):
        assert await ws.receive() == "here"
        state.stop(signal.SIGTERM)
        assert (await ws.wait_closed()).code == 1012


async def test_as_a_program_it_drains_and_exits_with_0(folder: Path) -> None:
    async with run_command("serve", "an_app:routes", "--port", "0", cwd=folder) as program:
        port = int((await program.wait_for("serving ")).rpartition(":")[2])
        async with open_websocket(f"ws://127.0.0.1:{port}/echo") as ws:
            program.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as caught:
                await ws.receive()
            assert caught.value.code == 1012
        assert await program.process.wait() == 0
        assert "Traceback" not in await program.read_all()


async def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    async with run_command("serve", "an_app:busy", "--port", "0", cwd=folder) as program:
        port = int((await program.wait_for("serving ")).rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            received = b""
            while b"here" not in received:
                received += await stream.receive_some()
            program.process.send_signal(signal.SIGTERM)
            while b"\x88" not in received:  # a Close, which nobody answers
                received += await stream.receive_some()
            program.process.send_signal(signal.SIGTERM)
            assert await program.process.wait() == -signal.SIGTERM


# Where...


async def test_it_listens_on_a_unix_socket(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "socket"
    async with serving(capsys, "serve", "an_app:routes", "--unix", str(path)) as state:
        assert state.place == f"ws+unix://{path}:/"
        assert await talk(f"ws+unix://{path}:/echo") == "hello"
    assert not path.exists()


async def test_it_takes_a_socket_over(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        descriptor = theirs.detach()  # who serves it closes it
    async with serving(capsys, "serve", "an_app:routes", "--fd", str(descriptor)) as state:
        assert state.place == f"http:// and ws://descriptor {descriptor}"
        assert await talk(f"ws://127.0.0.1:{port}/echo") == "hello"


async def test_with_a_certificate_it_speaks_tls(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    certificate.write_to_path(str(folder / "both.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = ("--certfile", "both.pem")
    async with serving(capsys, "echo", "--port", "0", *tls) as state:
        assert state.place.startswith("https:// and wss://127.0.0.1:")
        assert await talk(f"wss://localhost:{state.port}/", context=context) == "hello"
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        port = theirs.getsockname()[1]
        descriptor = theirs.detach()
    async with serving(capsys, "echo", "--fd", str(descriptor), *tls):
        assert await talk(f"wss://localhost:{port}/", context=context) == "hello"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keyfile", "key.pem"], "--keyfile goes with --certfile"),
        (["--certfile", "nowhere.pem"], "no certificate in nowhere.pem"),
        (["--certfile", "an_app.py"], "no certificate in an_app.py"),
        (["--unix", "s", "--certfile", "both.pem"], "--unix and --certfile do not go together"),
        (["--fd", "999"], "descriptor 999 is no socket that listens"),
        (["--host", "192.0.2.1", "--port", "0"], "cannot listen on http:// and ws://192.0.2.1: "),
        (["--host", "::1%nothing", "--port", "0"], "cannot listen on http:// and ws://[::1%"),
        (["--unix", "/nowhere/socket"], "cannot listen on ws+unix:///nowhere/socket:/: "),
    ],
)
def test_where_it_cannot_listen_is_told(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem
    certificate.write_to_path(str(folder / "both.pem"))
    assert main(["echo", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("port", ["80000", "-1", "http"])
def test_a_port_that_there_is_not_is_told(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["echo", f"--port={port}"])
    assert f"argument --port: '{port}' is not a port: 0 to 65535" in capsys.readouterr().err


async def test_a_port_in_use_is_named() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of '127.0.0.1' is in use: stop what"):
            await run_echo(parse("echo", "--port", str(port)))


def test_a_descriptor_of_a_file_is_no_socket(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("an_app.py").open() as file:
        assert main(["echo", "--fd", str(file.fileno())]) == 2
        assert f"descriptor {file.fileno()} is no socket" in capsys.readouterr().err


# What...


async def test_a_folder_is_served_beside_routes(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("serve", "--static", "web", "an_app:routes", "--port", "0")
    async with serving(capsys, *arguments) as state:
        assert await get(state.port, "/") == "200 the front page"
        assert await get(state.port, "/page") == "200 page of the app"
        assert await get(state.port, "/missing") == "404 not found"
        assert await talk(f"ws://127.0.0.1:{state.port}/echo") == "hello"


async def test_a_folder_is_served_beside_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("serve", "--static", "web", "an_app:handler", "--port", "0")
    async with serving(capsys, *arguments) as state:
        assert await get(state.port, "/index.html") == "200 the front page"
        for path in ("/", "/any/path"):
            assert await talk(f"ws://127.0.0.1:{state.port}{path}") == path


async def test_a_folder_may_be_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(capsys, "serve", "--static", "web", "--port", "0") as state:
        assert await get(state.port, "/") == "200 the front page"
        with pytest.raises(ConnectionRejected, match="404"):
            await talk(f"ws://127.0.0.1:{state.port}/")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name what to serve"),
        (["--static", "nowhere"], "no folder to serve files from"),
        (["an_app:handler", "--workers", "2", "--unix", "x"], "neither --unix nor --fd"),
        (["an_app:handler", "--workers", "2", "--fd", "3"], "neither --unix nor --fd"),
    ],
)
def test_what_cannot_be_served_is_told(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "'70000' is not a port: 0 to 65535"),
        (["--port", "-1"], "'-1' is not a port: 0 to 65535"),
        (["--port", "http"], "'http' is not a port: 0 to 65535"),
        (["--workers", "0"], "'0' is not a number from 1 upwards"),
        (["--drain", "-1"], "'-1' is not a number of seconds, 0 or more"),
    ],
)
def test_a_number_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "an_app:handler", *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_there_is_one_place_to_listen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("echo", "--port", "1", "--unix", "x")
    assert caught.value.code == 2
    assert "not allowed with argument --port" in capsys.readouterr().err


def test_the_commands_are_these() -> None:
    assert parse("serve", "a:b").run is run_serve
    assert parse("echo").run is run_echo
