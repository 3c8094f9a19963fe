"""Several processes at one port: real ones, and signals that this process sends itself."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trustme
from _components import PATIENCE, until
from _helpers import settle

from trio_ws import Request, Response, Routes, open_websocket
from trio_ws import _workers as workers
from trio_ws._workers import (
    VARIABLE,
    Duty,
    Post,
    StoppableListener,
    Supervisor,
    WorkerFailed,
    open_posts,
)

PROGRAM = """
import os, pathlib, signal, sys, trio
from trio_ws import Response, Routes
from trio_ws._workers import Duty

if pathlib.Path("broken").exists():
    sys.exit("it is broken")
if pathlib.Path("slow").exists():
    import time
    time.sleep(60)

routes = Routes()

@routes.get("/")
async def pid(request):
    return Response(str(os.getpid()))

@routes.get("/crash")
async def crash(request):
    os._exit(3)

@routes.websocket("/ws")
async def stay(request):
    async with request.accept() as ws:
        await ws.wait_closed()

@routes.websocket("/stubborn")
async def stubborn(request):
    async with request.accept() as ws:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

async def main():
    await Duty.find().serve(routes)

trio.run(main)
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("worker.py").write_text(PROGRAM)
    return [sys.executable, "worker.py"]


@asynccontextmanager
async def supervised(command: list[str], count: int) -> AsyncIterator[int]:
    """Run workers; yield their port. They have to be gone soon after the block."""
    posts = open_posts("127.0.0.1", 0, count)
    port: int = posts[0].sockets[0].getsockname()[1]
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(command, posts).run)
            yield port


async def get(port: int, target: str = "/") -> bytes:
    """Return the answer to a request; nothing, if the connection was closed without one."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        await stream.send_all(request.encode())
        answer = bytearray()
        async for data in stream:
            answer += data
    return bytes(answer)


async def pid(port: int) -> int:
    answer = await get(port)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return int(answer.rpartition(b"\r\n\r\n")[2])


async def pids(port: int, count: int) -> set[int]:
    """Ask until so many have answered."""
    found: set[int] = set()
    with trio.fail_after(PATIENCE):
        while len(found) < count:
            found.add(await pid(port))
    return found


def make(name: str) -> None:
    """Let workers that start from now on be "broken" or "slow"."""
    Path(name).touch()


def mend(name: str) -> None:
    Path(name).unlink()


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def test_workers_share_a_port_and_drain_when_told(command: list[str]) -> None:
    async with supervised(command, 2) as port:
        found = await pids(port, 2)
        assert os.getpid() not in found
        async with open_websocket(f"ws://127.0.0.1:{port}/ws") as ws:
            tell(signal.SIGTERM)
            assert (await ws.wait_closed()).code == 1012
    with pytest.raises(OSError, match=r"refused|connect"):
        await pid(port)


async def test_a_worker_that_ends_is_replaced_and_nobody_is_refused(
    command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(command, 1) as port:
        first = await pid(port)
        assert await get(port, "/crash") == b""
        assert await pid(port) != first  # asked while there was none
        tell(signal.SIGINT)
    assert "worker 1 has ended with 3: another one starts" in caplog.text


async def test_workers_are_exchanged_and_nobody_is_refused(
    command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answers: list[int] = []

    async def ask(port: int) -> None:
        while True:
            answers.append(await pid(port))
            await trio.sleep(0.01)  # or the new workers would hardly get to run

    async with supervised(command, 2) as port:
        before = await pids(port, 2)
        async with (
            open_websocket(f"ws://127.0.0.1:{port}/ws") as ws,
            trio.open_nursery() as nursery,
        ):
            for _ in range(3):
                nursery.start_soon(ask, port)
            tell(signal.SIGHUP)
            assert (await ws.wait_closed()).code == 1012
            await until(lambda: caplog.text.count("is exchanged") == 2)
            answers.clear()
            await until(lambda: len(answers) > 50)
            nursery.cancel_scope.cancel()
        after = await pids(port, 2)
        assert not before & after
        tell(signal.SIGTERM)


async def test_a_new_worker_that_does_not_serve_replaces_nobody(
    command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with supervised(command, 1) as port:
        before = await pid(port)
        make("broken")
        tell(signal.SIGHUP)
        await until(lambda: "worker 1 stays" in caplog.text)
        assert await pid(port) == before
        tell(signal.SIGTERM)


async def test_workers_that_never_serve_are_a_failure(command: list[str]) -> None:
    make("broken")
    posts = open_posts("127.0.0.1", 0, 2)
    with trio.fail_after(PATIENCE), pytest.raises(WorkerFailed, match="said why"):
        await Supervisor(command, posts).run()
    assert all(sock.fileno() == -1 for post in posts for sock in post.sockets)


async def test_a_worker_that_takes_too_long_to_serve_is_killed(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "START", 0.3)
    make("slow")
    with trio.fail_after(PATIENCE), pytest.raises(WorkerFailed):
        await Supervisor(command, open_posts("127.0.0.1", 0, 1)).run()


async def test_being_told_to_stop_while_starting_is_no_failure(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("slow")
    async with trio.open_nursery() as nursery:
        supervisor = Supervisor(command, open_posts("127.0.0.1", 0, 1))
        nursery.start_soon(supervisor.run)
        await until(lambda: bool(supervisor._workers))
        tell(signal.SIGTERM)


async def test_a_worker_that_keeps_ending_is_tried_less_and_less_often(
    command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    posts = open_posts("127.0.0.1", 0, 1)
    port = posts[0].sockets[0].getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(command, posts).run)
        make("broken")
        assert await get(port, "/crash") == b""
        await until(lambda: posts[0].pause > 0.3)
        tell(signal.SIGHUP)  # there is none to be exchanged
        mend("broken")
        assert await pid(port)
        assert posts[0].pause > 0.3
        tell(signal.SIGTERM)


async def test_a_worker_that_was_steady_is_replaced_soon(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STEADY", 0)
    posts = open_posts("127.0.0.1", 0, 1)
    posts[0].pause = 5.0
    port = posts[0].sockets[0].getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(command, posts).run)
        assert await get(port, "/crash") == b""
        assert await pid(port)
        assert posts[0].pause < 1
        tell(signal.SIGTERM)


async def test_a_second_signal_kills(command: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async with (
        supervised(command, 1) as port,
        open_websocket(f"ws://127.0.0.1:{port}/stubborn"),
    ):
        tell(signal.SIGTERM)
        await trio.sleep(0.1)
        tell(signal.SIGHUP)  # means nothing any more
        tell(signal.SIGTERM)
        await until(lambda: "killed, because a second signal came" in caplog.text)


async def test_a_worker_that_does_not_stop_is_killed(
    command: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.3)
    async with (
        supervised(command, 1) as port,
        open_websocket(f"ws://127.0.0.1:{port}/stubborn"),
    ):
        tell(signal.SIGTERM)
        await until(lambda: "did not stop in time" in caplog.text)


async def test_cancelling_the_supervisor_kills_the_workers(command: list[str]) -> None:
    posts = open_posts("127.0.0.1", 0, 1)
    port = posts[0].sockets[0].getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(Supervisor(command, posts).run)
        worker = await pid(port)
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


# Sockets...


def close(posts: list[Post]) -> None:
    for post in posts:
        for sock in post.sockets:
            sock.close()


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            open_posts("127.0.0.1", port, 2)
    assert caught.value.__notes__[0].startswith(f"port {port} is in use")


def test_a_host_of_somebody_else_is_refused() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        open_posts("192.0.2.1", 0, 1)
    assert not hasattr(caught.value, "__notes__")


def test_what_was_opened_before_a_failure_is_closed() -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            open_posts(None, other.getsockname()[1], 1)


def test_all_addresses_of_a_host_share_one_port() -> None:
    posts = open_posts(None, 0, 2)
    ports = {sock.getsockname()[1] for post in posts for sock in post.sockets}
    assert len(ports) == 1
    assert {sock.family for sock in posts[0].sockets} >= {socket.AF_INET}
    close(posts)


# A worker, in this process...


def test_a_process_without_a_supervisor_has_no_duty() -> None:
    assert Duty.find() is None


@asynccontextmanager
async def on_duty(
    monkeypatch: pytest.MonkeyPatch, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, socket.socket]]:
    """Be a worker; yield the port, and the supervisor's end of the line."""
    ours, theirs = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    monkeypatch.setenv(VARIABLE, f"{theirs.detach()},{server.detach()}")
    duty = Duty.find()
    assert duty is not None
    assert VARIABLE not in os.environ
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    routes = Routes()

    @routes.get("/")
    async def number(request: Request) -> Response:
        return Response(str(os.getpid()))

    async def do_duty() -> None:
        await duty.serve(routes, ssl_context=ssl_context)

    try:
        with trio.fail_after(PATIENCE), ours:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(do_duty)
                assert await trio.to_thread.run_sync(ours.recv, 1) == b"+"
                yield port, ours
    finally:
        for which, handler in old.items():
            signal.signal(which, handler)


async def test_a_worker_whose_supervisor_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_duty(monkeypatch) as (port, line):
        assert await pid(port) == os.getpid()
        line.close()


async def test_a_worker_answers_those_whom_it_has_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with on_duty(monkeypatch) as (port, _):
        before = sockets()
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await until(lambda: sockets() == before + 2)  # both ends of it
        tell(signal.SIGTERM)
        await settle()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


def sockets() -> int:
    """Return how many this process has open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found += str(each.readlink()).startswith("socket:")
    return found


async def test_a_worker_speaks_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    client = ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with on_duty(monkeypatch, server) as (port, line):
        stream = await trio.open_ssl_over_tcp_stream(
            "localhost", port, ssl_context=client, https_compatible=True
        )
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()
        line.close()


async def test_who_has_stopped_accepts_nobody_and_the_queue_stays() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with StoppableListener(listener) as stoppable:
        assert stoppable.socket is listener.socket
        stoppable.stop()
        async with await trio.open_tcp_stream("127.0.0.1", port):
            with trio.move_on_after(0.1) as scope:
                await stoppable.accept()
            assert scope.cancelled_caught
            async with await listener.accept():
                pass
