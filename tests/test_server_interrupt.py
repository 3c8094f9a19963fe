"""Ctrl-C, and a listener that breaks: everybody is told, and nothing is hidden in groups."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_ws import ConnectionEnded, WebSocketRequest, serve_websocket_listeners
from trio_ws.testing import MemoryNetwork


class BrokenListener(trio.abc.Listener[trio.abc.Stream]):
    """Breaks when it is told to."""

    def __init__(self) -> None:
        self.broken = trio.Event()

    async def accept(self) -> trio.abc.Stream:
        await self.broken.wait()
        raise OSError("no network any more")

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def handler(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        if request.path == "/interrupt":
            raise KeyboardInterrupt
        await ws.receive()


async def stay(network: MemoryNetwork, codes: list[int]) -> None:
    async with network.open_websocket("ws://example.org/stay") as ws:
        with pytest.raises(ConnectionEnded) as caught:
            await ws.receive()
        codes.append(caught.value.code)


async def test_ctrl_c_comes_out_as_it_is_and_everybody_is_told(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    codes: list[int] = []
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            listener = network.listen("example.org", 80)
            task_status.started()
            with pytest.raises(KeyboardInterrupt) as caught:
                await serve_websocket_listeners(handler, [listener])
            assert caught.value.__suppress_context__

        await nursery.start(serve)
        nursery.start_soon(stay, network, codes)
        await trio.testing.wait_all_tasks_blocked()
        async with network.open_websocket("ws://example.org/interrupt"):
            pass
    assert codes == [1001]


async def test_a_listener_that_breaks_ends_the_server_and_everybody_is_told(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork()
    broken = BrokenListener()
    codes: list[int] = []
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            listener = network.listen("example.org", 80)
            task_status.started()
            with pytest.RaisesGroup(
                pytest.RaisesExc(OSError, match="no network any more"), flatten_subgroups=True
            ):
                await serve_websocket_listeners(handler, [listener, broken])

        await nursery.start(serve)
        nursery.start_soon(stay, network, codes)
        await trio.testing.wait_all_tasks_blocked()
        broken.broken.set()
    assert codes == [1001]
