"""The command line: what it says, what it does, and how it exits."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from _helpers import connect
from _site import upgrade

import trio_ws
from trio_ws import Server, WebSocketRequest, serve_websocket
from trio_ws._cli import (
    UsageError,
    _connect,
    _parser,
    _print_messages,
    _send_lines,
    _serve,
    load_handler,
    main,
)

APP = """
from trio_ws import Routes

routes = Routes()
answer = 42


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
    monkeypatch.delitem(sys.modules, "an_app", raising=False)
    return "an_app"


@asynccontextmanager
async def serving(handler: Callable[[WebSocketRequest], object]) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Server]) -> None:
            await serve_websocket(handler, 0, host="127.0.0.1", task_status=task_status)  # type: ignore[arg-type]

        yield await nursery.start(start)
        nursery.cancel_scope.cancel()


# Which handler...


def test_a_handler_is_found_in_the_current_folder(app: str) -> None:
    assert load_handler("an_app:echo").__name__ == "echo"  # type: ignore[attr-defined]
    assert isinstance(load_handler("an_app:routes"), trio_ws.Routes)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("an_app", "'an_app' is not of the form module:handler"),
        (":echo", "':echo' is not of the form module:handler"),
        ("an_app:", "'an_app:' is not of the form module:handler"),
        ("an_ap:echo", "there is no module 'an_ap' here"),
        ("an_app:ecko", "no handler 'ecko' in an_app: it has routes, echo"),
        ("an_app:answer", "no handler 'answer' in an_app: it has routes, echo"),
        ("string:nothing", "it has nothing that could be served"),
    ],
)
def test_a_typo_is_told_with_what_there_is(app: str, target: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_handler(target)
    assert said in str(caught.value)


def test_wrong_use_exits_with_2(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "an_app:ecko"]) == 2
    assert capsys.readouterr().err == (
        "trio-ws: no handler 'ecko' in an_app: it has routes, echo\n"
    )


def test_ctrl_c_exits_as_shells_count_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", interrupted)
    assert main(["connect", "ws://localhost/"]) == 130


# trio-ws serve...


async def test_a_second_signal_ends_it_at_once(app: str) -> None:
    """In a process of its own: a client does not answer the Close, and nobody wants to wait."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_ws", "serve", "an_app:echo", "--port", "0"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(20):
            said = await process.stdout.receive_some(1000)
            stream = await trio.open_tcp_stream("127.0.0.1", int(said.rpartition(b":")[2]))
            async with stream:
                await stream.send_all(upgrade())
                await stream.receive_some()
                process.send_signal(signal.SIGTERM)
                assert bytes(await stream.receive_some()).endswith(b"\x03\xe9")  # Close 1001
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == -signal.SIGTERM
    finally:
        process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_it_serves_until_a_signal_comes(
    app: str, signum: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _parser().parse_args(["serve", "an_app:echo", "--port", "0"])
    codes: list[int] = []

    async def serve() -> None:
        codes.append(await _serve(options))

    said = ""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(5):
            while not said:
                await trio.lowlevel.checkpoint()
                said = capsys.readouterr().out
        port = int(said.rpartition(":")[2])
        assert said == f"serving http:// and ws://127.0.0.1:{port}\n"
        async with trio_ws.open_websocket(f"ws://127.0.0.1:{port}/") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
            signal.raise_signal(signum)
            with pytest.raises(trio_ws.ConnectionEnded) as caught:
                await ws.receive()
            assert caught.value.code == 1001
    assert codes == [0]


async def test_with_a_certificate_it_speaks_tls(
    app: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem
    certificate.write_to_path(str(tmp_path / "both.pem"))
    arguments = ["serve", "an_app:echo", "--port", "0", "--certfile", "both.pem"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, _parser().parse_args(arguments))
        with trio.fail_after(5):
            while "https:// and wss://" not in capsys.readouterr().out:  # noqa: ASYNC110  # text
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keyfile", "key.pem"], "--keyfile goes with --certfile"),
        (["--certfile", "nowhere.pem"], "no certificate in nowhere.pem"),
        (["--certfile", "an_app.py"], "no certificate in an_app.py"),
    ],
)
def test_a_certificate_that_is_none_is_told(
    app: str, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["serve", "an_app:echo", *arguments]) == 2
    assert said in capsys.readouterr().err


# trio-ws connect...


async def run_connect(
    monkeypatch: pytest.MonkeyPatch, server: Server, lines: str, *arguments: str
) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    url = f"ws://127.0.0.1:{server.port}/"
    return await _connect(_parser().parse_args(["connect", url, *arguments]))


async def test_it_sends_lines_and_prints_what_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept(request.subprotocols[0]) as ws:
            await ws.send(b"\x00\xff")
            await ws.send(request.headers["X-Token"])
            async for message in ws:
                await ws.send(f"echo {message}")
                if message == "two":
                    break

    more = ("--header", "X-Token: secret", "--subprotocol", "chat")
    async with serving(handler) as server:
        assert await run_connect(monkeypatch, server, "one\ntwo\n", *more) == 0
    assert capsys.readouterr().out == "00 ff\nsecret\necho one\necho two\n"


async def test_after_the_last_line_it_waits_until_the_answers_cease(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("go on\n"))
    us, them = connect("client")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def answer_slowly() -> None:
            async with them as ws:
                assert await ws.receive() == "go on"
                for _ in range(3):
                    await trio.sleep(0.9)
                    await ws.send("and on")
                assert [message async for message in ws] == []

        async with us as ws, ws.open_nursery() as tasks:
            tasks.start_soon(_print_messages, ws)
            tasks.start_soon(_send_lines, ws, 1.0)
        assert ws.statistics().messages_received == 3
        assert trio.current_time() > 3


async def test_a_connection_that_is_lost_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose(4000, "enough")

    async with serving(handler) as server:
        assert await run_connect(monkeypatch, server, "") == 1
    assert "closed by the peer (4000 'enough')" in capsys.readouterr().err


async def test_a_rejection_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, body="who are you?")

    async with serving(handler) as server:
        assert await run_connect(monkeypatch, server, "") == 1
    assert "the server answered 401: 'who are you?'" in capsys.readouterr().err


async def test_what_went_wrong_is_told_without_the_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "gopher://proxy.test")
    url = "ws://ann:secret@localhost/chat?key=secret"
    assert await _connect(_parser().parse_args(["connect", url])) == 1
    said = capsys.readouterr().err
    assert said.startswith("trio-ws: ws://localhost/chat: the environment variable http_proxy is")
    assert "secret" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://localhost/"], "use ws:// or wss:// instead of http://"),
        (["ws://localhost/", "--header", "nonsense"], "'nonsense' is not of the form NAME:VALUE"),
    ],
)
def test_what_cannot_be_connected_to_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["connect", *arguments]) == 2
    assert said in capsys.readouterr().err


# Workers...

RUN = (sys.executable, "-m", "trio_ws")

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
            with trio.fail_after(60):
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
