"""``trio-ws connect`` at a terminal: a line to type in below what has happened."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from _command import PROGRAM
from _components import PATIENCE, require
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from trio_ws import Backoff, Server, WebSocketRequest, open_reconnecting, serve_websocket
from trio_ws._cli import _connecting, make_parser
from trio_ws._cli._connecting import run_connect
from trio_ws._cli._terminal import open_terminal

Handler = Callable[[WebSocketRequest], Awaitable[None]]


async def echo(request: WebSocketRequest) -> None:
    async with request.accept("chat" if request.subprotocols else None) as ws:
        async for message in ws:
            await ws.send(message)
            if message == "enough":
                await ws.aclose(4000, "as you like")


@asynccontextmanager
async def serving(handler: Handler = echo, *, port: int = 0) -> AsyncGenerator[str, None]:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, handler, port, host="127.0.0.1")
        server: Server = await nursery.start(serve)
        yield f"ws://127.0.0.1:{server.port}/"
        nursery.cancel_scope.cancel()


class Screen(io.StringIO):
    """What a terminal gets, with what commands it taken out."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@contextmanager
def keyboard_and_screen() -> Iterator[tuple[PipeInput, Screen, Vt100_Output]]:
    screen = Screen()
    output = Vt100_Output(screen, lambda: Size(rows=24, columns=80), enable_cpr=False)
    with create_pipe_input() as keyboard:
        yield keyboard, screen, output


async def until(screen: Screen, text: str) -> None:
    with trio.fail_after(PATIENCE):
        while text not in screen.text:  # noqa: ASYNC110  # nobody would set an event
            await trio.sleep(0.01)


# The terminal alone...


async def test_lines_are_typed_one_after_the_other() -> None:
    with keyboard_and_screen() as (keyboard, screen, output):
        async with open_terminal(source=keyboard, sink=output) as terminal:
            keyboard.send_text("one\r")
            assert await terminal.lines.receive() == "one"
            keyboard.send_text("two\r")
            assert await terminal.lines.receive() == "two"
    assert ">" in screen.text


@pytest.mark.parametrize("key", ["\x03", "\x04"])
async def test_ctrl_c_and_ctrl_d_end_the_lines(key: str) -> None:
    with keyboard_and_screen() as (keyboard, screen, output):
        async with open_terminal(source=keyboard, sink=output) as terminal:
            keyboard.send_text(key)
            with trio.fail_after(PATIENCE), pytest.raises(trio.EndOfChannel):
                await terminal.lines.receive()
            terminal.show("about", "the last word")
            terminal._leave()  # whoever asks once more asks for nothing
    assert "the last word" in screen.text


async def test_all_is_shown_in_order_above_the_line() -> None:
    with keyboard_and_screen() as (keyboard, screen, output):
        async with open_terminal(source=keyboard, sink=output) as terminal:
            keyboard.send_text("half a li")
            for number in range(100):
                terminal.show("received", f"message {number}.")
    found = re.findall(r"message (\d+)\.", screen.text)
    assert found == [str(number) for number in range(100)]
    assert "\x1b[0;32m" in screen.getvalue()  # green


async def test_a_terminal_that_is_cancelled_is_given_back() -> None:
    with keyboard_and_screen() as (keyboard, _, output):
        with trio.move_on_after(0.2) as scope:
            async with open_terminal(source=keyboard, sink=output):
                await trio.sleep_forever()
        assert scope.cancelled_caught


# The command...


async def connect_at(
    monkeypatch: pytest.MonkeyPatch, url: str, keyboard: Any, output: Any, *more: str
) -> int:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Tty())
    monkeypatch.setattr(sys, "stdout", Tty())
    options = make_parser().parse_args(["connect", url, *more])
    with create_app_session(input=keyboard, output=output), trio.fail_after(PATIENCE):
        return await run_connect(options)


async def test_a_person_talks_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with keyboard_and_screen() as (keyboard, screen, output):
        codes: list[int] = []
        async with serving() as url, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def connect() -> None:
                more = ("--subprotocol", "chat")
                codes.append(await connect_at(monkeypatch, url, keyboard, output, *more))

            await until(screen, f"connected to {url}, speaking chat; /help tells what to type")
            keyboard.send_text("hello\r")
            await until(screen, "< hello")
            assert "> hello" in screen.text
            keyboard.send_text("/help\r")
            await until(screen, "/binary HEX")
            keyboard.send_text("/ping\r")
            await until(screen, "ping: ")
            keyboard.send_text("/nonsense\r")
            await until(screen, "there is no command /nonsense")
            keyboard.send_text("\x04")
    assert codes == [0]
    assert "1000" in screen.text


async def test_a_server_that_hangs_up_ends_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with keyboard_and_screen() as (keyboard, screen, output):
        keyboard.send_text("enough\r")
        async with serving() as url:
            assert await connect_at(monkeypatch, url, keyboard, output) == 1
    assert "4000 'as you like'" in screen.text


async def test_who_stays_connected_sees_why_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was typed meanwhile is sent when there is a connection again."""
    soon = partial(open_reconnecting, retry=Backoff(initial=0.3, maximum=0.3))
    monkeypatch.setattr(_connecting, "open_reconnecting", soon)
    requests: list[WebSocketRequest] = []

    async def lose_the_first(request: WebSocketRequest) -> None:
        requests.append(request)
        if len(requests) == 1:
            async with request.accept() as ws:
                assert await ws.receive() == "lose me"
                await ws.aclose(1011)
        elif len(requests) == 2:
            await request.reject(503)
        else:
            await echo(request)

    with keyboard_and_screen() as (keyboard, screen, output):
        codes: list[int] = []
        async with serving(lose_the_first) as url, trio.open_nursery() as nursery:

            @nursery.start_soon
            async def connect() -> None:
                codes.append(await connect_at(monkeypatch, url, keyboard, output, "--reconnect"))

            await until(screen, f"connected to {url}")
            keyboard.send_text("lose me\r")
            await until(screen, "closed by the peer (1011); next attempt in 0.")
            keyboard.send_text("all well?\r")
            await until(screen, "the server answered 503; next attempt in 0.")
            await until(screen, "< all well?")
            keyboard.send_text("\x04")
    assert codes == [0]
    assert screen.text.count("connected to") == 2


async def test_who_does_not_want_to_wait_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    with keyboard_and_screen() as (keyboard, screen, output):
        codes: list[int] = []
        async with serving() as url:
            pass  # nobody listens there any more
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def connect() -> None:
                codes.append(await connect_at(monkeypatch, url, keyboard, output, "--reconnect"))

            await until(screen, "refused; next attempt in ")
            keyboard.send_text("is anybody there?\r")
            keyboard.send_text("\x04")
    assert codes == [3]


# In a real terminal...


class Tmux:
    """A terminal of 100 columns that nobody looks at, on a socket of its own."""

    def __init__(self, socket: Path) -> None:
        self._command = [require("tmux"), "-S", str(socket), "-f", "/dev/null"]

    async def run(self, *arguments: str) -> str:
        result = await trio.run_process(
            [*self._command, *arguments], capture_stdout=True, stdin=b""
        )
        return result.stdout.decode()

    async def until(self, text: str, *, more: str = "") -> str:
        """Return the screen once it shows the text."""
        with trio.fail_after(PATIENCE):
            while True:
                screen = await self.run("capture-pane", "-p", *more.split())
                if text in screen:
                    return screen
                await trio.sleep(0.05)

    async def type(self, *keys: str) -> None:
        await self.run("send-keys", *keys)


@asynccontextmanager
async def open_tmux(socket: Path, command: str) -> AsyncGenerator[Tmux, None]:
    tmux = Tmux(socket)
    await tmux.run("new-session", "-d", "-x", "100", "-y", "30", "/bin/sh")
    try:
        await tmux.type(f"PS1='$ '; clear; {command}; echo exit $?", "Enter")
        yield tmux
    finally:
        with trio.CancelScope(shield=True):
            await tmux.run("kill-server")


async def test_in_a_real_terminal(tmp_path: Path) -> None:
    async with serving() as url:
        command = shlex.join([*PROGRAM, "connect", url])
        async with open_tmux(tmp_path / "tmux", command) as tmux:
            await tmux.until("connected to ws://")
            await tmux.type('{"a": [1]}', "Enter")
            screen = await tmux.until("<" + ' {\n  "a": [\n    1\n  ]\n}')
            assert screen.index("> {") < screen.index("< {")
            await tmux.type("/binary 00 41", "Enter")
            await tmux.until("00000000  00 41                                            .A")
            coloured = await tmux.until("< {", more="-e")
            assert "\x1b[32m< {" in coloured
            await tmux.type("Up", "Up", "Enter")  # the JSON again
            with trio.fail_after(PATIENCE):
                while True:
                    if (await tmux.run("capture-pane", "-p")).count("< {") == 2:
                        break
                    await trio.sleep(0.05)
            await tmux.type("/ping", "Enter")
            await tmux.until("ping: ")
            await tmux.type("C-d")
            screen = await tmux.until("exit 0")
            assert "closed" in screen
            await tmux.type("echo still a termi''nal", "Enter")
            await tmux.until("still a terminal")


async def test_in_a_real_terminal_a_server_may_hang_up(tmp_path: Path) -> None:
    async with serving() as url:
        command = shlex.join([*PROGRAM, "connect", url])
        async with open_tmux(tmp_path / "tmux", command) as tmux:
            await tmux.until("connected to ws://")
            await tmux.type("enough", "Enter")
            screen = await tmux.until("exit 1")
            assert "4000 'as you like'" in screen


async def test_in_a_real_terminal_it_connects_again(tmp_path: Path) -> None:
    async with serving() as url:
        port = int(url.rpartition(":")[2].strip("/"))
    command = shlex.join([*PROGRAM, "connect", "--reconnect", url])
    async with open_tmux(tmp_path / "tmux", command) as tmux:
        await tmux.until("refused; next attempt in ")
        async with serving(port=port):
            await tmux.until("connected to ws://")
        await tmux.until("closed by the peer (1001); next attempt in ")
        await tmux.type("still there?", "Enter")
        async with serving(port=port):
            await tmux.until("< still there?")
            await tmux.type("C-d")
            await tmux.until("exit 0")
