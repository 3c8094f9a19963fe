"""Listeners that fail, handlers that do not let go, clocks that jump."""

from __future__ import annotations

import errno
import gc
import math
from collections import Counter
from functools import partial

import pytest
import trio
import trio.testing

from trio_ws import (
    CloseInfo,
    ConnectionLost,
    HandshakeTimeout,
    Server,
    WebSocketRequest,
    serve_websocket_listeners,
)
from trio_ws.testing import Link, MemoryNetwork, open_pair, open_server

DAYS = 86400.0


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


# A listener...


class Breaking(trio.abc.Listener[trio.abc.Stream]):
    """A listener that breaks down when it is told to."""

    def __init__(self, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        self._listener = listener
        self.broken = trio.Event()

    async def accept(self) -> trio.abc.Stream:
        stream = None
        async with trio.open_nursery() as nursery:

            async def break_down() -> None:
                await self.broken.wait()
                raise OSError(errno.EINVAL, "the listener is broken")

            nursery.start_soon(break_down)
            stream = await self._listener.accept()
            nursery.cancel_scope.cancel()
        assert stream is not None
        return stream

    async def aclose(self) -> None:
        await self._listener.aclose()


@pytest.mark.parametrize("handlers_elsewhere", [False, True])
async def test_when_a_listener_fails_everybody_is_told(handlers_elsewhere, autojump_clock) -> None:
    network = MemoryNetwork()
    breaking = Breaking(network.listen("a"))
    other = network.listen("b")
    ended: list[CloseInfo] = []

    async def visit(url: str, nursery: trio.Nursery) -> None:
        async with network.open_websocket(url) as ws:
            ended.append(await ws.wait_closed())
        if len(ended) == 2:
            all_told.set()

    all_told = trio.Event()
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="broken"), flatten_subgroups=True):
        async with trio.open_nursery() as outer:
            serve = partial(
                serve_websocket_listeners,
                echo,
                [breaking, other],
                handler_nursery=outer if handlers_elsewhere else None,
            )
            async with trio.open_nursery() as visitors:
                server: Server = await outer.start(serve)
                with trio.CancelScope(shield=True):
                    for url in ("ws://a/", "ws://b/"):
                        visitors.start_soon(visit, url, visitors)
                    await trio.testing.wait_all_tasks_blocked()
                    assert len(server.connections) == 2
                    breaking.broken.set()
                    with trio.fail_after(6):
                        await all_told.wait()
    assert [info.code for info in ended] == [1001, 1001]
    with pytest.raises(OSError):  # noqa: PT011  # refused: the other listener is closed, too
        await network.connect("b", 80)


# Handlers...


@pytest.mark.parametrize("way", ["cancel", "drain"])
async def test_a_handler_that_ignores_cancellation_holds_up_nobody_else(
    way: str, autojump_clock
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            if request.path != "/stubborn":
                await ws.wait_closed()
            else:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1000)

    network = MemoryNetwork()
    told: dict[str, tuple[int, float]] = {}
    started = 0.0

    async def visit(path: str) -> None:
        async with network.open_websocket(f"ws://h{path}") as ws:
            info = await ws.wait_closed()
            told[path] = info.code, trio.current_time() - started

    async with trio.open_nursery() as visitors:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                serve = partial(serve_websocket_listeners, handler, [network.listen("h")])
                server: Server = await nursery.start(serve)
                for path in ("/stubborn", "/1", "/2"):
                    visitors.start_soon(visit, path)
                await trio.testing.wait_all_tasks_blocked()
                started = trio.current_time()
                if way == "cancel":
                    scope.cancel()
                else:
                    await server.drain(deadline=3)
                    assert trio.current_time() - started <= 3 + 5  # deadline, close_grace
        # A handler belongs to its server's nursery: it is waited for, whatever it does.
        assert trio.current_time() - started == pytest.approx(1000, abs=10)
    code = 1001 if way == "cancel" else 1012
    assert {path: found for path, (found, _) in told.items()} == {
        "/stubborn": code,
        "/1": code,
        "/2": code,
    }
    assert max(after for _, after in told.values()) < 5


# Clocks...


@pytest.mark.parametrize("jump", [25.0, 45.0, 3600.0, 3 * DAYS])
@pytest.mark.parametrize("latency", [0.0, 0.5])
async def test_a_process_that_stood_still_drops_nobody_who_is_there(
    jump: float, latency: float, mock_clock
) -> None:
    """The clock of the loop jumps as well when a machine wakes up, or a debugger lets go."""
    mock_clock.autojump_threshold = 0
    async with open_pair(link=Link(latency=latency)) as pair:
        mock_clock.autojump_threshold = math.inf
        for _ in range(5):
            mock_clock.jump(20.1)  # pings leave, if nothing has come for long enough
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(jump)  # meanwhile the pongs have come
            await trio.testing.wait_all_tasks_blocked()
            assert pair.client.close_info is None
            assert pair.server.close_info is None
        mock_clock.autojump_threshold = 0


async def test_a_jump_during_a_handshake_ends_it(mock_clock) -> None:
    network = MemoryNetwork()
    listener = network.listen("h")  # which nobody serves

    async def jump() -> None:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(DAYS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(jump)
        with pytest.raises(HandshakeTimeout):
            async with network.open_websocket("ws://h/"):
                raise AssertionError("nobody has answered")
    await listener.aclose()


async def test_a_jump_while_a_write_is_stuck_ends_the_connection(mock_clock) -> None:
    link = Link()
    async with open_pair(link=link) as pair:
        link.to_server.buffer = 0
        await pair.client.send("stuck")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(DAYS)
        info = await pair.client.wait_closed()
        assert info.code == 1006
        link.reset()


# Leaks...


async def test_rounds_of_connections_leave_no_objects(autojump_clock) -> None:
    counts: list[Counter[str]] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            if request.path == "/leave":
                return
            async for message in ws:
                await ws.send(message)

    async with open_server(handler) as connect:
        for _ in range(6):
            for number in range(40):
                await one_of_many(connect, number)
            await trio.sleep(20)
            gc.collect()
            counts.append(Counter(type(each).__name__ for each in gc.get_objects()))
            del connect.network._switchboard.links[:]
    tasks = trio.lowlevel.current_statistics().tasks_living
    assert tasks < 6
    grown = {
        name: count - counts[2][name]
        for name, count in counts[-1].items()
        if count - counts[2][name] >= 40  # one for each connection of a round, or more
    }
    grown.pop("str", None)
    assert grown == {}


async def one_of_many(connect, number: int) -> None:
    link = Link()
    manner = number % 5
    try:
        async with connect("/leave" if manner == 1 else "/", link=link) as ws:
            if manner == 1:
                await ws.wait_closed()
                return
            await ws.send(bytes(2000))
            await ws.receive()
            if manner == 2:
                link.reset()
            elif manner == 3:
                link.to_client.end_after(0)
            elif manner == 4:
                raise KeyError("the application is broken")
            await ws.ping()
    except (ConnectionLost, KeyError):
        pass
