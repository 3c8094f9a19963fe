"""What the early documents of websockets show, row by row."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
from _browser import launch_browser, open_browser
from _seeds import echo, load_example
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import ConnectionEnded, Rooms, WebSocket, WebSocketRequest, serve_websocket
from trio_ws import open_websocket as open_real_websocket
from trio_ws.testing import Frame, open_server


async def test_w1_a_server_greets_whom_its_client_names(autojump_clock: MockClock) -> None:
    hello = load_example("hello")
    async with open_server(hello.hello) as connect, connect() as ws:
        await ws.send("Ada")
        assert await ws.receive() == "Hello Ada!"


async def test_w2_a_handler_runs_once_per_connection_which_ends_with_it(
    autojump_clock: MockClock,
) -> None:
    calls = 0

    async def handler(request: WebSocketRequest) -> None:
        nonlocal calls
        calls += 1
        async with request.accept() as ws:
            await ws.send(str(calls))

    async with open_server(handler) as connect:
        for number in ("1", "2", "3"):
            async with connect() as ws:
                assert await ws.receive() == number
                with pytest.raises(ConnectionEnded):
                    await ws.receive()


async def test_w3_the_time_is_pushed_at_random_moments_to_a_page() -> None:
    time_server = load_example("time_server")
    async with trio.open_nursery() as nursery:
        routes = time_server.make_routes(Rooms())
        serve = functools.partial(serve_websocket, routes, 0, host="127.0.0.1")
        server = await nursery.start(serve)
        with launch_browser() as devtools:
            async with open_browser(devtools) as browser:
                page = await browser.open_page(f"http://127.0.0.1:{server.port}/")
                await page.wait_for_text("It is ", "#events")
        async with open_real_websocket(f"ws://127.0.0.1:{server.port}/talk") as ws:
            assert str(await ws.receive()).startswith("It is ")
        nursery.cancel_scope.cancel()


async def test_w4_a_consumer_loops_to_the_end_without_an_exception(
    autojump_clock: MockClock,
) -> None:
    consumed: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                consumed.append(message)  # noqa: PERF401  # as one writes it
            consumed.append(None)

    async with open_server(handler) as connect:
        async with connect() as ws:
            await ws.send("one")
            await ws.send("two")
        await wait_all_tasks_blocked()
    assert consumed == ["one", "two", None]


async def test_w5_a_producer_stops_while_it_waits_for_its_source(
    autojump_clock: MockClock,
) -> None:
    stopped: list[float] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, ws.open_nursery():
            await ws.send("first")
            await trio.sleep_forever()  # a source that has no more to say
        stopped.append(trio.current_time())

    async with open_server(handler) as connect:
        async with connect() as ws:
            await ws.receive()
            await trio.sleep(7)
        await wait_all_tasks_blocked()
    assert stopped == [7]


async def test_w6_both_directions_take_two_lines_and_lose_nothing(
    autojump_clock: MockClock,
) -> None:
    consumed: list[Any] = []

    async def consume(ws: WebSocket) -> None:
        async for message in ws:
            await trio.sleep(0.1)
            consumed.append(message)

    async def produce(ws: WebSocket) -> None:
        while True:
            await ws.send("tick")
            await trio.sleep(1)

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, ws.open_nursery() as nursery:
            nursery.start_soon(consume, ws)
            nursery.start_soon(produce, ws)

    async with open_server(handler) as connect:
        async with connect() as ws:
            for number in range(20):
                await ws.send(str(number))
            assert await ws.receive() == "tick"
        await trio.sleep(5)
    assert consumed == [str(number) for number in range(20)]


async def test_w7_the_clients_that_are_connected_are_known(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "all"):
            async for _ in ws:
                pass

    async with open_server(handler) as connect:
        for wanted in (0, 1, 2, 1, 0):
            clients = [connect() for _ in range(wanted)]
            sockets = [await client.__aenter__() for client in clients]
            await wait_all_tasks_blocked()
            assert len(connect.server.connections) == wanted
            assert len(rooms.members("all")) == wanted
            del sockets
            for client in reversed(clients):
                await client.__aexit__(None, None, None)
            await wait_all_tasks_blocked()


async def test_w8_hello_is_sent_to_all_who_are_connected(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "all"):
            await ws.receive()

    async with open_server(handler) as connect, connect() as one, connect() as other:
        await wait_all_tasks_blocked()
        assert await rooms.publish("all", "Hello!") == 2
        assert [await one.receive(), await other.receive()] == ["Hello!", "Hello!"]


async def test_w10_handshakes_pings_and_closing_happen_by_themselves(
    autojump_clock: MockClock,
) -> None:
    """Frame by frame; all the rest is Autobahn's to judge (``nox -s autobahn``)."""
    async with open_server(echo) as connect:
        async with connect.raw() as peer:
            await peer.send(Frame.ping(b"are you there?"))
            await peer.expect(Frame.pong(b"are you there?"))
            await peer.send(Frame.close(4000, "bye"))
            await peer.expect(Frame.close(4000))
            await peer.expect_end()
        async with connect.raw() as peer:
            await peer.send(b"\xff\xff")  # reserved bits
            frame = await peer.receive_frame()
            assert frame is not None
            assert frame.code == 1002
