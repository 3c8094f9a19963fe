"""The pytest plugin: its fixtures, and what a test that fails shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

import pytest_trio_ws
import trio_ws
from trio_ws.testing import Frame, MemoryNetwork, Pair, Recorder, Serve
from trio_ws.testing._plugin import MOST_LINES, explain_comparison
from trio_ws.testing._recorder import recent

pytest_plugins = ("pytester", "pytest_trio_ws")

HEADER = """
import pytest
import trio
import trio_ws
from trio_ws.testing import Frame, MemoryNetwork, open_pair
"""


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Run tests in a pytest of their own."""
    pytester.makeini("[pytest]\ntrio_mode = true\n")

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(HEADER + source)
        return pytester.runpytest_inprocess("-p", "pytest_trio_ws", *arguments)

    return run


# The fixtures...


async def test_a_pair_is_connected(websocket_pair: Pair) -> None:
    client, server = websocket_pair
    await client.send("hello")
    assert await server.receive() == "hello"


@pytest.mark.parametrize(
    "websocket_pair", [{"path": "/chat", "subprotocols": ["a"], "subprotocol": "a"}], indirect=True
)
async def test_a_pair_takes_arguments(websocket_pair: Pair) -> None:
    assert websocket_pair.server.request is not None
    assert websocket_pair.server.request.target == "/chat"
    assert websocket_pair.client.subprotocol == "a"


async def test_a_handler_is_served(serve: Serve, memory_network: MemoryNetwork) -> None:
    async def hello(request: trio_ws.WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("hello")

    connect = await serve(hello)
    async with connect() as ws:
        assert await ws.receive() == "hello"
    assert connect.network is memory_network


def test_the_fixtures_pass(run) -> None:
    result = run("""
async def test_pair(websocket_pair, autojump_clock):
    client, server = websocket_pair
    await trio.sleep(3600)
    await client.send("a")
    assert await server.receive() == "a"

async def test_serve(serve, memory_network):
    async def handler(request):
        async with request.accept() as ws:
            await ws.send("a")
    connect = await serve(handler)
    async with connect() as ws:
        assert await ws.receive() == "a"
    assert connect.network is memory_network

def test_plain(memory_network):
    assert memory_network.links == ()
""")
    result.assert_outcomes(passed=3)


# Leaks...

LEAKING = """
async def test_leak(memory_network):
    listener = memory_network.listen("a.test")
    stream = await memory_network.connect("a.test", 80)
    await listener.aclose()
"""


def test_what_a_test_leaves_open_fails_it(run) -> None:
    result = run(LEAKING)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "the test has left open:",
            "    <MemorySocket ('198.51.100.1', 49152) connected to ('192.0.2.1', 80)>",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_connection_that_is_left_with_something_unread_is_told_as_well(run) -> None:
    result = run("""
async def test_leak(memory_network):
    async with memory_network.listen("a.test") as listener:
        client = await memory_network.connect("a.test", 80)
        server = await listener.accept()
    await client.send_all(b"unread")
""")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "the test has left open:",
            "    <MemorySocket ('198.51.100.1', *) connected to ('192.0.2.1', 80)>",
            "    <MemorySocket ('192.0.2.1', 80) connected to ('198.51.100.1', *)>",
        ]
    )


def test_a_test_that_has_failed_is_not_blamed_for_that_too(run) -> None:
    run(LEAKING + "    assert False\n").assert_outcomes(failed=1)


def test_what_is_left_once_is_not_left_twice(run) -> None:
    result = run(LEAKING + "\nasync def test_other(leak_check): pass\n")
    result.assert_outcomes(passed=2, errors=1)


def test_every_test_can_be_checked(run) -> None:
    result = run(
        """
def test_leak():
    MemoryNetwork().listen()
""",
        "-o",
        "usefixtures=leak_check",
    )
    result.assert_outcomes(passed=1, errors=1)


def test_a_handler_that_is_left_behind_fails_the_test(run) -> None:
    result = run("""
async def test_left(serve, autojump_clock):
    async def stay(request):
        async with request.accept():
            await trio.sleep_forever()
    connect = await serve(stay)
    async with connect():
        pass
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: a handler still runs 10 s after its client has gone:",
            "*fails_the_test.py:* in stay: await trio.sleep_forever()",
        ]
    )


def test_an_error_of_a_handler_fails_the_test(run) -> None:
    result = run("""
async def test_error(serve, autojump_clock):
    async def fail(request):
        async with request.accept() as ws:
            await ws.receive()
            raise ZeroDivisionError("mine")
    connect = await serve(fail)
    async with connect() as ws:
        await ws.send("go")
        await ws.wait_closed()
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ZeroDivisionError: mine"])


# What a test that fails shows...


def test_a_failed_test_shows_what_was_said(run) -> None:
    result = run("""
async def test_before(websocket_pair):
    await websocket_pair.client.send("not shown")

async def test_fails(websocket_pair, autojump_clock):
    async with open_pair() as other:
        await other.client.send("one")
        await other.server.receive()
    await websocket_pair.client.send("two")
    await websocket_pair.server.receive()
    assert False
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- connection 1 of 2 in memory -*",
            "    0.000   |-- GET / HTTP/1.1 -*>|",
            "    0.000   |-- text 'two' -*>|",
            "*- connection 2 of 2 in memory -*",
            "    0.000   |-- text 'one' -*>|",
        ]
    )
    result.stdout.no_fnmatch_line("*not shown*")


def test_of_a_long_conversation_the_end_is_shown(run) -> None:
    result = run("""
async def test_fails(websocket_pair, autojump_clock):
    for number in range(100):
        await websocket_pair.client.send(str(number))
        await websocket_pair.server.receive()
    assert False
""")
    shown = [
        line for line in result.outlines if line.startswith("    0.") or "lines before" in line
    ]
    assert len(shown) == MOST_LINES - 1
    assert shown[0] == "(48 lines before)"
    assert "text '99'" in shown[-5]


def test_a_test_that_passes_shows_nothing(run) -> None:
    result = run("async def test_passes(websocket_pair): pass", "-rA")
    result.stdout.no_fnmatch_line("*in memory*")


def test_frames_that_are_not_those_are_shown_side_by_side(run) -> None:
    result = run("""
async def test_fails(websocket_pair):
    await websocket_pair.client.send("a")
    await websocket_pair.server.receive()
    assert websocket_pair.recorder.frames("client") == [Frame.text("b"), Frame.close(1000)]
""")
    result.stdout.fnmatch_lines(
        [
            "*assert these frames are not those",
            "*  expected     received",
            "*! text 'b'     text 'a'",
            "*! close 1000   -",
        ]
    )


def test_one_frame_is_compared_like_many() -> None:
    assert explain_comparison("==", Frame.ping(), Frame.pong()) == [
        "these frames are not those",
        "  expected   received",
        "! pong       ping",
    ]


@pytest.mark.parametrize(
    ("op", "left", "right"),
    [("!=", Frame.ping(), Frame.ping()), ("==", [1], [2]), ("==", [], ()), ("in", "a", "b")],
)
def test_other_comparisons_are_left_to_pytest(op: str, left: object, right: object) -> None:
    assert explain_comparison(op, left, right) is None
    assert pytest_trio_ws.pytest_assertrepr_compare(op, left, right) is None


def test_each_test_begins_with_no_transcripts() -> None:
    Recorder()
    assert recent
    pytest_trio_ws.pytest_runtest_setup()
    assert not recent


# What it costs...


def test_a_suite_that_does_not_use_it_does_not_import_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
import sys
import pytest

def test_nothing_of_it_is_there():
    assert not [name for name in sys.modules if name.split(".")[0] == "trio_ws"]

def test_and_failures_are_reported():
    assert [1] == [2]

@pytest.mark.xfail(reason="it is not there")
def test_really():
    assert "trio_ws" in sys.modules
""")
    root = Path(pytest_trio_ws.__file__).parent
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:trio", "-p", "pytest_trio_ws", "-q"],
        cwd=pytester.path,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed, 1 xfailed" in run.stdout, run.stdout + run.stderr


def test_the_hooks_do_nothing_before_a_test_has_imported_it(monkeypatch) -> None:
    Recorder()
    monkeypatch.delitem(sys.modules, "trio_ws.testing")
    pytest_trio_ws.pytest_runtest_setup()
    assert recent
    assert pytest_trio_ws.pytest_assertrepr_compare("==", Frame.ping(), Frame.pong()) is None
    hook = pytest_trio_ws.pytest_runtest_makereport(None)
    next(hook)
    with pytest.raises(StopIteration) as caught:
        hook.send("report")
    assert caught.value.value == "report"
    assert "trio_ws.testing" not in sys.modules


async def test_the_clock_is_the_tests_own(websocket_pair: Pair, autojump_clock) -> None:
    begin = trio.current_time()
    await trio.sleep(1000)
    assert trio.current_time() - begin == 1000
