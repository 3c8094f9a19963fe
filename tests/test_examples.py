"""The examples, as programs in a real browser, and their handlers on the virtual clock."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing
from _browser import PHONE, Browser, Page, launch_browser, open_browser
from _components import PATIENCE
from _redis import redis_server

from trio_ws import ConnectionLost, ConnectionRejected, Options, Rooms, WebSocket
from trio_ws._server_connection import Handler
from trio_ws.testing import Connect, open_server

ROOT: Final = Path(__file__).parent.parent
SOON: Final = 2  # seconds in which a program ends that was told to...
START: Final = 0.5  # ...on a machine that starts it in this time: a busy one takes longer for both


# Programs...


@attrs.frozen
class Program:
    """An example that runs; ``url`` is where it says it is."""

    process: trio.Process
    errors: Any
    url: str
    port: int
    starting: float
    """Seconds that it took to start."""

    async def stop(self, number: signal.Signals) -> None:
        """Send a signal; the program has to end cleanly, soon, and with nothing to say."""
        begin = time.monotonic()
        self.process.send_signal(number)
        with trio.move_on_after(PATIENCE):
            await self.process.wait()
        taken = time.monotonic() - begin
        self.errors.seek(0)
        assert self.errors.read() == b""
        assert self.process.returncode == 0
        assert taken < SOON * max(1, self.starting / START)


@asynccontextmanager
async def start_example(
    name: str, port: int = 0, arguments: tuple[str, ...] = ()
) -> AsyncIterator[Program]:
    """Run ``python examples/<name>/server.py``; it is killed at the end if it still runs."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = await trio.lowlevel.open_process(
            [sys.executable, f"examples/{name}/server.py", "--port", str(port), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            assert process.stdout is not None
            said = ""
            with trio.fail_after(PATIENCE):
                while "\n" not in said:
                    chunk = await process.stdout.receive_some()
                    errors.seek(0)
                    assert chunk, errors.read().decode()
                    said += chunk.decode()
            found = re.search(r"(?:http|ws)://127\.0\.0\.1:(\d+)/", said)
            assert found is not None, said
            yield Program(process, errors, found[0], int(found[1]), time.monotonic() - begin)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@pytest.fixture(scope="module")
def devtools() -> Iterator[str]:
    with launch_browser() as url:
        yield url


async def test_hello_greets_whom_its_client_names() -> None:
    async with start_example("hello") as server:
        command = [sys.executable, "examples/hello/client.py", "--url", server.url]
        ada = await trio.run_process([*command, "Ada"], cwd=ROOT, capture_stdout=True)
        world = await trio.run_process(command, cwd=ROOT, capture_stdout=True)
        await server.stop(signal.SIGINT)
        nobody = await trio.run_process(command, cwd=ROOT, capture_stderr=True, check=False)

    assert ada.stdout.decode().splitlines() == ["Hello Ada!"]
    assert world.stdout.decode().splitlines() == ["Hello World!"]
    assert nobody.returncode == 1
    assert nobody.stderr.decode().startswith(f"No answer from {server.url}: ")


async def test_thousands_of_clients_fit_into_one_process_and_little_memory() -> None:
    count = 2000 if "CI" in os.environ else 300  # the others would like to run, too
    async with start_example("echo") as server:
        load = [sys.executable, "examples/load/clients.py", f"ws://127.0.0.1:{server.port}/echo"]
        sizes = ["--count", str(count), "--rate", "1000", "--interval", "3", "--seconds", "3"]
        run = await trio.run_process([*load, *sizes], cwd=ROOT, capture_stdout=True)

    connected, memory, used, echoes = run.stdout.decode().splitlines()
    assert connected == f"{count} of {count} connected; 0 connections lost"
    size = re.fullmatch(r"([\d.]+) KiB of memory per client", memory)
    assert size is not None
    assert float(size[1]) < 50  # 38.6 were measured, 29 of them the connection's
    assert re.fullmatch(r"[\d.]+% of a CPU for \d+ echoes a second", used)
    assert re.fullmatch(r"echoes: median [\d.]+ ms, 99 % within [\d.]+ ms", echoes)


async def test_echo_page_gets_text_as_text_and_bytes_as_bytes(devtools: str) -> None:
    async with start_example("echo") as server, open_browser(devtools) as browser:
        page = await browser.open_page(server.url, PHONE)
        await page.wait_for_text("connected", "#status")
        await page.type("#text", "Grüße & <b>tags</b>")
        await page.click("#binary")
        await page.type("#text", "0123456789" * 30)
        await page.wait_for("document.querySelectorAll('#log li').length === 2")

        assert await page.texts("#log .kind") == ["bytes", "text"]
        assert await page.texts("#log .content") == ["0123456789" * 30, "Grüße & <b>tags</b>"]
        assert await page.overflow() == 0
        await server.stop(signal.SIGINT)
        await page.wait_for_text("closed (1001)", "#status")


async def test_time_page_ticks_and_shows_every_event(devtools: str) -> None:
    async with start_example("time_server") as server, open_browser(devtools) as browser:
        page = await browser.open_page(server.url, PHONE)
        first = await page.wait_for("/\\d/.test(time.textContent) && time.dateTime")
        await page.wait_for(f"time.dateTime > {json.dumps(first)}")

        await page.wait_for("!send.disabled")
        await page.type("#text", "<i>what</i> time is it?")
        await page.wait_for_text("you said '<i>what</i> time is it?'", "#events")
        assert await page.overflow() == 0

        await page.click("#toggle")
        await page.wait_for_text("code 1000, clean", "#events")
        await page.click("#toggle")
        await page.wait_for("!send.disabled")
        await server.stop(signal.SIGTERM)
        await page.wait_for_text("code 1001, clean", "#events")
        await page.wait_for_text("stopped", "#clock-state")
        await page.click("#toggle")
        await page.wait_for_text("code 1006, not clean", "#events")

        kinds = {"open", "message", "error", "close"}
        assert set(await page.texts("#events .kind")) == kinds


async def test_chat_tabs_talk_and_see_who_comes_and_goes(devtools: str) -> None:
    markup = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>"
    async with start_example("chat") as server, open_browser(devtools) as one:
        ada = await enter_chat(one, server.url, "Ada")
        async with open_browser(devtools) as other:  # another profile, so another name
            bob = await enter_chat(other, server.url, "Bob", PHONE)
            await ada.wait_for_text("Bob joined", "#log")
            assert await ada.texts("#names li") == ["Ada", "Bob"]
            await ada.type("#text", "Hello Bob")
            await bob.wait_for_text("Hello Bob", "#log")
            await bob.type("#text", markup)
            await ada.wait_for_text(markup, "#log")
            assert await ada.evaluate("document.querySelector('#log img, #log script')") is None
            assert await ada.evaluate("window.hacked") is None
            assert await ada.texts("#log .mine .text") == ["Hello Bob"]
            assert await ada.texts("#log .message:not(.mine) .author") == ["Bob"]

            assert await bob.overflow() == 0
            assert await bob.evaluate("send.getBoundingClientRect().bottom <= innerHeight")

            newcomer = await one.open_page(server.url)  # in Ada's profile: the name is known
            await newcomer.wait_for_text(markup, "#log")
            assert await newcomer.texts("#log .text") == ["Hello Bob", markup]
            kitchen = await one.open_page(f"{server.url}chat/kitchen")
            await kitchen.wait_for_text("connected", "#status")
            assert await kitchen.texts("#names li") == ["Ada"]
            assert await kitchen.texts("#log li") == []
        await ada.wait_for_text("Bob left", "#log")
        assert await ada.texts("#names li") == ["Ada"]  # however many tabs she has


async def test_chat_tabs_on_two_processes_are_in_one_room(devtools: str) -> None:
    with redis_server() as redis:
        flag = ("--redis", redis.url)
        async with (
            start_example("chat", arguments=flag) as first,
            start_example("chat", arguments=flag) as second,
            open_browser(devtools) as one,
            open_browser(devtools) as other,
        ):
            ada = await enter_chat(one, first.url, "Ada")
            bob = await enter_chat(other, second.url, "Bob")
            await ada.wait_for_text("Bob joined", "#log")
            assert await ada.texts("#names li") == ["Ada", "Bob"]
            assert await bob.texts("#names li") == ["Ada", "Bob"]
            await ada.type("#text", "Hello from the first process")
            await bob.wait_for_text("Hello from the first process", "#log")
            await bob.type("#text", "Hello from the second")
            await ada.wait_for_text("Hello from the second", "#log")
            said = ["Hello from the first process", "Hello from the second"]
            assert await ada.texts("#log .text") == await bob.texts("#log .text") == said

            newcomer = await enter_chat(other, first.url, "Bob")  # in a tab on the other process
            await newcomer.wait_for_text(said[1], "#log")
            assert await newcomer.texts("#log .text") == said

            redis.kill()
            await ada.type("#text", "Is anybody there?")
            await ada.wait_for_text("Nobody has heard this: Is anybody there?", "#log")
            assert await ada.text("#status") == "connected"
            redis.start()
            await bob.wait_for_text("Some messages may be missing here.", "#log")
            await ada.wait_for_text("Some messages may be missing here.", "#log")
            await ada.type("#text", "There you are")
            await bob.wait_for_text("There you are", "#log")
            assert await bob.close_codes() == []


async def test_chat_page_comes_back_when_the_server_does(devtools: str) -> None:
    async with open_browser(devtools) as browser:
        async with start_example("chat") as server:
            ada = await enter_chat(browser, server.url, "Ada")
            await ada.type("#text", "Before")
            await ada.wait_for_text("Before", "#log")
            server.process.kill()
            await ada.wait_for("!retry.hidden")
            assert await ada.text("#status") == "connection lost"
            assert await ada.evaluate("send.disabled")
            assert await ada.close_codes() == [1006]
        async with start_example("chat", server.port):
            await ada.wait_for_text("connected", "#status")
            await ada.type("#text", "After")
            await ada.wait_for_text("After", "#log")
            assert await ada.texts("#log .text") == ["Before", "After"]
            assert await ada.texts("#log .notice") == ["Some messages may be missing here."]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_chat_that_is_told_to_stop_says_1001_to_every_tab(
    devtools: str, number: signal.Signals
) -> None:
    async with start_example("chat") as server, open_browser(devtools) as browser:
        ada = await enter_chat(browser, server.url, "Ada")
        tab = await browser.open_page(server.url)
        await tab.wait_for_text("connected", "#status")
        await server.stop(number)
        for page in (ada, tab):
            await page.wait_for("window.closeCodes[0] === 1001")


async def test_chat_ends_in_time_though_a_client_is_mute_and_ctrl_c_is_pressed_again() -> None:
    async with (
        start_example("chat") as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as mute,
    ):
        await mute.send_all(
            b"GET /chat/lobby?name=Mute HTTP/1.1\r\nHost: here\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        with trio.fail_after(PATIENCE):
            await read_until(mute, b'"people"')
            server.process.send_signal(signal.SIGINT)
            await read_until(mute, b"\x88\x02\x03\xe9")  # Close 1001: it is ending
        await server.stop(signal.SIGINT)


async def read_until(stream: trio.abc.ReceiveStream, mark: bytes) -> None:
    received = b""
    while mark not in received:
        chunk = await stream.receive_some()
        assert chunk, received
        received += chunk


async def enter_chat(
    browser: Browser, url: str, name: str, size: tuple[int, int] = (1000, 700)
) -> Page:
    """Come into the lobby as one does who has never been there."""
    page = await browser.open_page(url, size)
    await page.wait_for("entrance.open")
    await page.type("#name", name)
    await page.wait_for_text("connected", "#status")
    return page


# Handlers...


def serve(example: ModuleType, handler: Handler) -> AbstractAsyncContextManager[Connect]:
    """Serve a handler of an example in memory, with the example's options."""
    return open_server(handler, options=getattr(example, "OPTIONS", Options()))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"example_{name}", ROOT / "examples" / name / "server.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_hello_wants_a_name_in_text() -> None:
    hello = load("hello")
    async with serve(hello, hello.hello) as connect, connect("/") as ws:
        await ws.send(b"Ada")
        with pytest.raises(ConnectionLost) as caught:
            await ws.receive()
        assert (caught.value.code, caught.value.reason) == (1003, "a name is text, not bytes")


async def test_time_server_tells_everybody_each_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    time_server = load("time_server")
    rooms = Rooms()
    begin = time.monotonic()
    async with (
        serve(time_server, time_server.make_routes(rooms)) as connect,
        connect("/clock") as one,
        connect("/clock") as other,
        trio.open_nursery() as nursery,
    ):
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(time_server.tick, rooms)
        start = trio.current_time()
        first = [await one.receive() for _ in range(61)]
        assert trio.current_time() - start == pytest.approx(60)
        assert [await other.receive() for _ in range(61)] == first
        assert sorted(first) == first
        nursery.cancel_scope.cancel()
    assert time.monotonic() - begin < 30  # of real time


async def test_time_server_answers_while_it_pushes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    time_server = load("time_server")
    async with (
        serve(time_server, time_server.make_routes(Rooms())) as connect,
        connect("/talk") as ws,
    ):
        pushed = [str(await ws.receive()) for _ in range(5)]
        assert all(text.startswith("It is ") for text in pushed)
        assert 0 < trio.current_time() <= 4 * time_server.LONGEST_PAUSE
        now = trio.current_time()
        await ws.send("hello")
        assert str(await ws.receive()).endswith(" you said 'hello'")
        assert trio.current_time() == now


async def test_chat_tells_everybody_everything_in_one_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chat = load("chat")
    heard: list[list[tuple[str, str]]] = [[] for _ in range(10)]
    everybody_is_there = trio.Event()

    async def talk(connect: Connect, number: int) -> None:
        async with connect(f"/chat/lobby?name={number}") as ws, trio.open_nursery() as nursery:
            nursery.start_soon(listen, ws, heard[number])
            await everybody_is_there.wait()
            for count in range(20):
                await ws.send(f"{number} says {count}")

    async def listen(ws: WebSocket, messages: list[tuple[str, str]]) -> None:
        while len(messages) < 200:
            data = json.loads(await ws.receive()).get("data")
            if data is not None:
                messages.append((data["name"], data["text"]))

    async with serve(chat, chat.make_routes()) as connect:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(talk, connect, number)
                await trio.testing.wait_all_tasks_blocked()
                everybody_is_there.set()

    assert all(each == heard[0] for each in heard)
    for number in range(10):
        said = [text for name, text in heard[0] if name == str(number)]
        assert said == [f"{number} says {count}" for count in range(20)]


async def test_chat_shows_a_newcomer_the_last_messages_and_a_returner_what_was_missed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chat = load("chat")
    async with serve(chat, chat.make_routes()) as connect, connect("/chat/lobby?name=Ada") as ada:
        await until(ada, "people")
        for number in range(60):
            await ada.send(str(number))
        for _ in range(60):
            position = (await until(ada, "data"))["position"]
        async with connect("/chat/lobby?name=Bob") as bob:
            assert json.loads(await bob.receive())["resume"] == "new"
            shown = [(await until(bob, "data"))["data"]["text"] for _ in range(50)]
            assert shown == [str(number) for number in range(10, 60)]
            welcome = await until(bob, "people")
            assert sorted(welcome["people"].values()) == ["Ada", "Bob"]
            assert (await until(ada, "joined"))["joined"]["name"] == "Bob"
        assert (await until(ada, "left"))["left"]["name"] == "Bob"
        await ada.send("while you were away")
        await until(ada, "data")
        async with connect(f"/chat/lobby?name=Bob&since={position}") as bob:
            assert json.loads(await bob.receive())["resume"] == "complete"
            missed = json.loads(await bob.receive())
            assert missed["data"]["text"] == "while you were away"
            await until(bob, "people")
        async with connect("/chat/lobby?name=Bob&since=nonsense") as bob:
            assert json.loads(await bob.receive())["resume"] == "lost"


async def test_chat_lets_nobody_drown_the_others(autojump_clock: trio.testing.MockClock) -> None:
    chat = load("chat")
    async with (
        serve(chat, chat.make_routes()) as connect,
        connect("/chat/lobby?name=Flood") as flood,
        connect("/chat/lobby?name=Ada") as ada,
    ):
        for number in range(200):
            await flood.send(str(number))
        await ada.send("may I?")
        start = trio.current_time()
        heard = 0
        while (await until(ada, "data"))["data"]["name"] != "Ada":
            heard += 1
        assert heard <= 2
        assert trio.current_time() - start <= chat.PAUSE


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"bytes", 1003), ("x" * 1001, 1009), ("x" * 5000, 1009)],
    ids=["bytes", "too many characters", "too many bytes"],
)
async def test_chat_refuses_what_its_page_cannot_send(message: str | bytes, code: int) -> None:
    chat = load("chat")
    async with serve(chat, chat.make_routes()) as connect, connect("/chat/lobby?name=Ada") as ws:
        await ws.send(message)
        with pytest.raises(ConnectionLost) as caught:
            await until(ws, "data")
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("Ada", "Ada"),
        ("%20%20Ada%0a", "Ada"),
        ("%e2%80%aeadA", "adA"),  # right-to-left override
        ("x" * 100, "x" * 24),
        ("", "Nobody"),
        ("%00%07", "Nobody"),
    ],
)
async def test_chat_takes_no_nickname_that_plays_tricks(given: str, taken: str) -> None:
    chat = load("chat")
    async with (
        serve(chat, chat.make_routes()) as connect,
        connect(f"/chat/lobby?name={given}") as ws,
    ):
        assert (await until(ws, "people"))["you"] == taken


async def test_chat_says_nothing_for_blanks_and_trims_the_rest() -> None:
    chat = load("chat")
    async with serve(chat, chat.make_routes()) as connect, connect("/chat/lobby?name=Ada") as ws:
        await ws.send("   ")
        await ws.send("  two words ")
        assert (await until(ws, "data"))["data"]["text"] == "two words"


@pytest.mark.parametrize("room", ["x" * 33, "%e2%80%ae", "%0a"])
async def test_chat_has_no_rooms_with_odd_names(room: str) -> None:
    chat = load("chat")
    async with serve(chat, chat.make_routes()) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(f"/chat/{room}?name=Ada"):
                pass
    assert caught.value.status == 404


@pytest.mark.parametrize("name", ["hello", "echo", "time_server", "chat"])
async def test_of_a_port_in_use_the_last_line_tells_what_to_do(name: str) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        result = await trio.run_process(
            [sys.executable, f"examples/{name}/server.py", "--port", str(port)],
            cwd=ROOT,
            capture_stderr=True,
            check=False,
        )
    assert result.returncode == 1
    *_, advice, _ = result.stderr.decode().splitlines()  # below it is but the frame
    assert f"port {port} of '127.0.0.1' is in use: " in advice


async def until(ws: WebSocket, key: str) -> dict[str, Any]:
    """Receive until there is a message that tells of ``key``."""
    while True:
        message: dict[str, Any] = json.loads(await ws.receive())
        if key in message:
            return message
