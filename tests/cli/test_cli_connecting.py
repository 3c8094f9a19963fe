"""``trio-ws connect`` in pipes: lines and JSON, in and out, and what it exits with."""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from _command import run_command, run_to_end
from _components import PATIENCE, until
from trio.testing import MockClock

from trio_ws import Backoff, Server, WebSocketRequest, open_reconnecting, serve_websocket
from trio_ws._cli import _connecting, main, make_parser
from trio_ws._cli._connecting import (
    LineReader,
    PlainSurface,
    TerminalSurface,
    run_connect,
)
from trio_ws._cli._talking import Talk
from trio_ws._cli._usage import UsageError
from trio_ws._messages import CloseInfo
from trio_ws.testing import open_pair

Handler = Callable[[WebSocketRequest], Awaitable[None]]


@asynccontextmanager
async def serving(
    handler: Handler, context: ssl.SSLContext | None = None
) -> AsyncGenerator[Server, None]:
    async with trio.open_nursery() as nursery:

        async def start(task_status: trio.TaskStatus[Server]) -> None:
            await serve_websocket(
                handler, 0, host="127.0.0.1", ssl_context=context, task_status=task_status
            )

        yield await nursery.start(start)
        nursery.cancel_scope.cancel()


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


def parse(url: str, *arguments: str) -> argparse.Namespace:
    return make_parser().parse_args(["connect", url, "--linger", "0.5", *arguments])


class Piped:
    """stdin and stdout of this process, as pipes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    async def __call__(
        self, server: Server, stdin: bytes, *arguments: str, leave_open: bool = False
    ) -> int:
        reading, writing = os.pipe()
        os.write(writing, stdin)
        if not leave_open:
            os.close(writing)
        try:
            with open(reading) as source, trio.fail_after(PATIENCE):  # noqa: ASYNC230, PTH123  # a pipe
                self._monkeypatch.setattr(sys, "stdin", source)
                url = f"ws://127.0.0.1:{server.port}/"
                return await run_connect(parse(url, *arguments))
        finally:
            if leave_open:
                os.close(writing)

    def said(self) -> tuple[str, str]:
        captured = self._capsys.readouterr()
        return captured.out, captured.err


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Piped:
    return Piped(monkeypatch, capsys)


# Lines...


async def test_lines_are_messages_and_messages_are_lines(piped: Piped) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept(request.subprotocols[0]) as ws:
            await ws.send(b"\x00\xff")
            await ws.send(request.headers["X-Token"])
            async for message in ws:
                await ws.send(f"echo {message}")

    more = ("--header", "X-Token: secret", "--subprotocol", "chat")
    async with serving(handler) as server:
        assert await piped(server, "one\r\ntwo\n\ndréi".encode(), *more) == 0
    assert piped.said() == ("00 ff\nsecret\necho one\necho two\necho \necho dréi\n", "")


async def test_a_line_that_is_no_text_is_left_out(piped: Piped) -> None:
    async with serving(echo) as server:
        assert await piped(server, b"\xff\ntwo\n") == 0
    out, err = piped.said()
    assert out == "two\n"
    assert "trio-ws: 'utf-8' codec can't decode" in err


async def test_after_the_last_line_it_waits_until_the_answers_cease(
    autojump_clock: MockClock,
) -> None:
    """In memory: how long answers take on a real network, a busy machine decides."""

    class NothingToSay(PlainSurface):
        async def next_command(self) -> None:
            await trio.lowlevel.checkpoint()

    shown = io.StringIO()
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        talk = Talk(NothingToSay(io.StringIO(), shown), linger=0.2, ping=None)
        nursery.start_soon(talk.obey)
        nursery.start_soon(talk.hold, client)
        for _ in range(3):
            await trio.sleep(0.15)
            await server.send("and on")
        assert (await server.wait_closed()).code == 1000
        assert 3 * 0.15 + 0.2 <= trio.current_time() <= 3 * 0.15 + 2 * 0.2
    assert shown.getvalue() == "and on\n" * 3


async def test_the_server_may_end_it_while_stdin_is_open(piped: Piped) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("bye")

    async with serving(handler) as server:
        assert await piped(server, b"", leave_open=True) == 0
    assert piped.said() == ("bye\n", "")


async def test_a_close_that_is_not_polite_exits_with_1(piped: Piped) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose(4000, "enough\x1b[2J")

    async with serving(handler) as server:
        assert await piped(server, b"", leave_open=True) == 1
    out, err = piped.said()
    assert out == ""
    assert "closed by the peer (4000 'enough" in err
    assert "\x1b" not in err


async def test_pings_tell_the_latency_on_stderr(piped: Piped) -> None:
    async def leave_at_the_third(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            for _ in range(3):
                before = ws.statistics().bytes_received
                await until(lambda: ws.statistics().bytes_received > before)  # noqa: B023  # now

    async with serving(leave_at_the_third) as server:
        assert await piped(server, b"", "--ping", "0.05", leave_open=True) == 0
    _, err = piped.said()
    assert err.count("ping: ") >= 2
    assert err.endswith(" ms\n")


# JSON...


async def test_json_goes_in_and_out(piped: Piped) -> None:
    lines = (
        b'{"type": "text", "data": "one"}\n{"type": "binary", "data": "00ff"}\n'
        b'{"type": "ping"}\nnonsense\n'
    )
    async with serving(echo) as server:
        assert await piped(server, lines, "--json") == 0
    out, err = piped.said()
    opened, *middle, closed = map(json.loads, out.splitlines())
    assert opened == {"type": "open", "subprotocol": None}
    assert {"type": "text", "data": "one"} in middle
    assert {"type": "binary", "data": "00ff"} in middle
    (pong,) = [each for each in middle if each["type"] == "pong"]
    assert 0 < pong["seconds"] < 5
    assert closed == {"type": "close", "code": 1000, "reason": "", "clean": True}
    assert err.count("trio-ws: ") == 1


async def test_json_may_close_with_a_code(piped: Piped) -> None:
    lines = b'{"type": "close", "code": 4000, "reason": "enough"}\n{"type": "ping"}\n'
    async with serving(echo) as server:
        assert await piped(server, lines, "--json", leave_open=True) == 1
    closed = json.loads(piped.said()[0].splitlines()[-1])
    assert closed == {"type": "close", "code": 4000, "reason": "enough", "clean": True}


@pytest.mark.parametrize(
    "line", [rb'{"type": "text", "data": "\ud800"}', b'{"type": "text", "data": 5}', b"[]"]
)
async def test_json_that_cannot_be_sent_is_told_and_left_out(piped: Piped, line: bytes) -> None:
    async with serving(echo) as server:
        good = b'{"type": "text", "data": "good"}\n'
        assert await piped(server, line + b"\n" + good, "--json") == 0
    out, err = piped.said()
    assert json.loads(out.splitlines()[1]) == {"type": "text", "data": "good"}
    assert err.count("trio-ws: ") == 1


# Again and again...


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = functools.partial(open_reconnecting, retry=Backoff(initial=0.02, maximum=0.02))
    monkeypatch.setattr(_connecting, "open_reconnecting", soon)


class Unsteady:
    """A server that deals with each request in another way; the last way is kept."""

    def __init__(self, *ways: int | str) -> None:
        self._ways = list(ways)

    async def __call__(self, request: WebSocketRequest) -> None:
        way = self._ways.pop(0) if len(self._ways) > 1 else self._ways[0]
        if isinstance(way, int) and way < 1000:
            await request.reject(way, body="no")
            return
        async with request.accept() as ws:
            if isinstance(way, int):
                await ws.send("hello")
                await ws.aclose(way, "so it goes\x1b")
                return
            async for message in ws:
                await ws.send(f"{way} {message}")


@pytest.mark.usefixtures("hurried")
async def test_it_connects_again_until_stdin_has_been_dealt_with(piped: Piped) -> None:
    async with serving(Unsteady(503, 502, "echo")) as server:
        assert await piped(server, b"one\ntwo\n", "--reconnect") == 0
    out, err = piped.said()
    assert out == "echo one\necho two\n"
    first, second = err.splitlines()
    assert first.startswith("trio-ws: the server answered 503: 'no'; next attempt in 0.")
    assert "answered 502" in second


@pytest.mark.usefixtures("hurried")
async def test_json_tells_of_outages(piped: Piped) -> None:
    async with serving(Unsteady(1011, "echo")) as server:
        assert await piped(server, b"", "--reconnect", "--json") == 0
    out, err = piped.said()
    said = list(map(json.loads, out.splitlines()))
    assert [each["type"] for each in said] == ["open", "text", "outage", "open", "close"]
    assert said[2]["reason"] == r"closed by the peer (1011 'so it goes\x1b')"
    assert 0 <= said[2]["seconds"] < 1
    assert said[-1]["code"] == 1000
    assert err == ""


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("ways", "code", "said"),
    [
        ((1011, 401), 4, "the server answered 401: 'no'"),
        ((1001, 4000), 1, "closed by the peer (4000 'so it goes"),
    ],
)
async def test_what_will_not_pass_ends_it(
    piped: Piped, ways: tuple[int, ...], code: int, said: str
) -> None:
    async with serving(Unsteady(*ways)) as server:
        assert await piped(server, b"", "--reconnect", leave_open=True) == code
    err = piped.said()[1].splitlines()
    assert len(err) == 2
    assert said in err[1]
    assert "next attempt" not in err[1]


async def test_a_close_of_ours_is_the_last_one(piped: Piped) -> None:
    """Said before there is a connection, it would end the wait for one: so first a ping."""
    lines = b'{"type": "ping"}\n{"type": "close", "code": 4000}\n'
    async with serving(echo) as server:
        assert await piped(server, lines, "--reconnect", "--json", leave_open=True) == 1
    assert json.loads(piped.said()[0].splitlines()[-1])["code"] == 4000


async def test_closed_while_nobody_is_there_exits_with_3(piped: Piped) -> None:
    async def reject(request: WebSocketRequest) -> None:
        await request.reject(503)

    async with serving(reject) as server:
        assert await piped(server, b'{"type": "close"}\n', "--reconnect", "--json") == 3


async def test_what_makes_no_sense_makes_none_the_second_time() -> None:
    with pytest.raises(UsageError, match="ws://"):
        await run_connect(parse("http://localhost/", "--reconnect"))


# What it exits with...


async def test_a_rejection_exits_with_4(piped: Piped) -> None:
    async def handler(request: WebSocketRequest) -> None:
        await request.reject(401, body="who are you?")

    async with serving(handler) as server:
        assert await piped(server, b"") == 4
    assert "the server answered 401: 'who are you?'" in piped.said()[1]


async def test_no_connection_exits_with_3_and_tells_no_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    url = f"ws://ann:secret@127.0.0.1:{port}/"
    assert await run_connect(parse(url, "--proxy", "none")) == 3
    err = capsys.readouterr().err
    assert "refused" in err
    assert "secret" not in err


async def test_tls_needs_an_authority_that_is_trusted(
    tmp_path: Path, piped: Piped, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def hello(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("hello")

    reading, writing = os.pipe()
    os.close(writing)
    async with serving(hello, context) as server:
        url = f"wss://localhost:{server.port}/"
        assert await run_connect(parse(url)) == 3
        with open(reading) as source:  # noqa: ASYNC230, PTH123  # a pipe
            piped._monkeypatch.setattr(sys, "stdin", source)
            assert await run_connect(parse(url, "--cafile", str(tmp_path / "ca.pem"))) == 0
    said = capsys.readouterr()
    assert said.out == "hello\n"
    assert "an authority of your own is trusted by --cafile FILE" in said.err


async def test_a_client_shows_what_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("inside.test").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ann = authority.issue_cert("ann@example.org")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ann.cert_chain_pems[0].write_to_path(str(tmp_path / "ann.pem"))
    ann.private_key_pem.write_to_path(str(tmp_path / "ann.key"))

    async def hello(request: WebSocketRequest) -> None:
        assert request.tls is not None
        (name,) = request.tls.getpeercert()["subjectAltName"]
        async with request.accept() as ws:
            await ws.send(f"{name[1]} from {request.remote_address[0]} at {request.origin}")

    reading, writing = os.pipe()
    os.close(writing)
    async with serving(hello, context) as server:
        with open(reading) as source:  # noqa: ASYNC230, PTH123  # a pipe
            monkeypatch.setattr(sys, "stdin", source)
            certificate = ("--certfile", f"{tmp_path}/ann.pem", "--keyfile", f"{tmp_path}/ann.key")
            origin = f"https://127.0.0.1:{server.port}"
            more = ("--server-hostname", "inside.test", "--origin", origin)
            whence = ("--local-address", "127.0.0.2", "--cafile", f"{tmp_path}/ca.pem")
            url = f"wss://127.0.0.1:{server.port}/"
            assert await run_connect(parse(url, *certificate, *more, *whence)) == 0
    assert capsys.readouterr().out == f"ann@example.org from 127.0.0.2 at {origin}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wss://localhost/", "--keyfile", "ann.key"], "--keyfile goes with --certfile"),
        (["wss://localhost/", "--certfile", "ann.pem"], "no certificate in ann.pem"),
        (["wss://localhost/", "--local-address", "here"], "local_address is an IP address"),
        (["ws://localhost/", "--server-hostname", "x"], "wss://"),
        (["http://localhost/"], "use ws:// or wss:// instead of http://"),
        (["ws://localhost/", "--header", "nonsense"], "'nonsense' is not of the form NAME:VALUE"),
        (["ws://localhost/", "--header", "a b: c"], "'a b' is no header name"),
        (["ws://localhost/", "--proxy", "ftp://x"], "socks5h://"),
        (["wss://localhost/", "--cafile", "nowhere.pem"], "no certificates in nowhere.pem"),
    ],
)
def test_what_cannot_be_connected_to_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["connect", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--ping", "0"),
        ("--ping", "often"),
        ("--linger", "-1"),
        ("--linger", "nan"),
    ],
)
def test_a_time_that_is_none_is_told(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["connect", "ws://localhost/", option, value])
    assert caught.value.code == 2
    assert f"argument {option}: '{value}' is not a number of seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), BaseExceptionGroup("of a nursery", [KeyboardInterrupt()])]
)
def test_ctrl_c_exits_as_shells_count_it(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException
) -> None:
    def interrupted(*_: object) -> None:
        raise raised

    monkeypatch.setattr(trio, "run", interrupted)
    assert main(["connect", "ws://localhost/"]) == 130


def test_what_goes_wrong_besides_ctrl_c_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise BaseExceptionGroup("of a nursery", [KeyboardInterrupt(), ValueError()])

    monkeypatch.setattr(trio, "run", interrupted)
    with pytest.RaisesGroup(KeyboardInterrupt, ValueError):
        main(["connect", "ws://localhost/"])


@pytest.mark.parametrize("more", [[], ["--reconnect"]])
async def test_as_a_program_it_takes_ctrl_c_without_a_traceback(
    tmp_path: Path, more: list[str]
) -> None:
    async def hello(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("hello")
            await ws.wait_closed()

    async with serving(hello) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with run_command("connect", url, *more, cwd=tmp_path) as program:
            await program.wait_for("hello")
            program.process.send_signal(signal.SIGINT)
            assert await program.read_all() == "hello\n"
            assert await program.process.wait() == 130


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"trio-ws {version('trio-ws')}\n"


def test_without_arguments_those_of_the_process_are_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["trio-ws", "connect", "nonsense"])
    assert main() == 2
    assert "ws://" in capsys.readouterr().err


async def test_as_a_program_it_talks_and_exits() -> None:
    async def echo_once(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send(await ws.receive())

    async with serving(echo_once) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        code, out, err = await run_to_end("connect", url, "--linger", "60", stdin=b"hello\n")
        assert (code, out, err) == (0, "hello\n", "")
        assert (await run_to_end("connect", url + "\t"))[0] == 2


async def test_who_has_read_enough_may_leave() -> None:
    async def chatter(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            while True:
                await ws.send("x" * 1000)

    reading, writing = os.pipe()
    async with serving(chatter) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        command = f"{sys.executable} -m trio_ws connect {url} | head -n 2"
        with trio.fail_after(PATIENCE):
            result = await trio.run_process(
                ["/bin/bash", "-c", command],
                stdin=reading,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    os.close(reading)
    os.close(writing)  # not before: who has more to say leaves, too
    assert result.stdout.decode() == ("x" * 1000 + "\n") * 2
    assert result.stderr == b""


# Reading lines...


async def test_lines_come_whole_however_they_were_written() -> None:
    reading, writing = os.pipe()
    lines: list[bytes] = []
    with open(reading) as source:  # noqa: ASYNC230, PTH123  # a pipe
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def collect() -> None:
                reader = LineReader(source)
                while (line := await reader.read()) is not None:
                    lines.append(line)
                assert await reader.read() is None

            for piece in (b"a", b"b\nc", b"\r\n\n", b"d" * 100_000, b"\nend"):
                await trio.to_thread.run_sync(os.write, writing, piece)
                await trio.sleep(0.01)
            os.close(writing)
    assert lines == [b"ab", b"c", b"", b"d" * 100_000, b"end"]


# At a terminal...


class Shown:
    """What a terminal would show, and what is typed at it."""

    def __init__(self, *lines: str) -> None:
        send, self.lines = trio.open_memory_channel[str](100)
        for line in lines:
            send.send_nowait(line)
        send.close()
        self.shown: list[tuple[str, str]] = []

    def show(self, style: str, text: str) -> None:
        self.shown.append((style, text))


async def test_what_is_typed_is_shown_and_done() -> None:
    typed = Shown("hello", "/nonsense", "/binary 00", "/ping", "/close 1006", "/close 4000 bye")
    surface = TerminalSurface(typed)
    commands = [repr(await surface.next_command()) for _ in range(5)]
    assert commands == [
        "'hello'",
        r"b'\x00'",
        "Ping()",
        "Close(code=4000, reason='bye')",
        "Close(code=1000, reason='')",  # Ctrl-D
    ]
    styles = [style for style, _ in typed.shown]
    assert styles == ["sent", "wrong", "sent", "wrong"]


def test_what_comes_is_shown_by_its_kind() -> None:
    shown = Shown()
    surface = TerminalSurface(shown)
    surface.show_message('{"a":1}')
    surface.show_latency(0.0123)
    surface.show_help()
    surface.show_end(CloseInfo(1000, "", "remote", clean=True))
    surface.show_end(CloseInfo(4000, "\x1b", "remote", clean=True))
    surface.show_outage(OSError("nobody\x1b"), 1.234)
    assert shown.shown[0] == ("received", '< {\n  "a": 1\n}')
    assert shown.shown[1] == ("about", "ping: 12.3 ms")
    assert shown.shown[2][1].startswith("a line ")
    assert [style for style, _ in shown.shown[3:]] == ["about", "wrong", "wrong"]
    assert "\x1b" not in shown.shown[4][1]
    assert shown.shown[5][1] == r"nobody\x1b; next attempt in 1.2 s"


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_a_terminal_without_the_extra_has_lines(
    piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person all the same: what comes is readable and harmless."""

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("\x1b[2J" + str(await ws.receive()))

    reading, writing = os.pipe()
    os.write(writing, b"hello\n")
    monkeypatch.setitem(sys.modules, "trio_ws._cli._terminal", None)
    sink = FakeTerminal()
    with open(reading) as source:  # noqa: ASYNC230, PTH123  # a pipe
        monkeypatch.setattr(source, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdin", source)
        monkeypatch.setattr(sys, "stdout", sink)
        async with serving(handler) as server:
            assert await run_connect(parse(f"ws://127.0.0.1:{server.port}/")) == 0
    os.close(writing)
    assert sink.getvalue() == "\\x1b[2Jhello\n"
