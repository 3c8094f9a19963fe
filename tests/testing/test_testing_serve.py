"""A handler that is served in memory: clients, errors, and who stays behind."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

import trio_ws
from trio_ws import ConnectionLost, Options, Routes, WebSocketRequest
from trio_ws.testing import Connect, Frame, Link, MemoryNetwork, open_server

pytest_plugins = ("pytest_trio_ws",)


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def stay(request: WebSocketRequest) -> None:
    async with request.accept():
        await trio.sleep_forever()


async def test_a_handler_is_tested_in_four_lines(serve, autojump_clock) -> None:
    connect = await serve(echo)
    async with connect() as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


async def test_clients_say_what_they_want(serve, autojump_clock) -> None:
    async def tell(request: WebSocketRequest) -> None:
        async with request.accept(request.subprotocols[-1]) as ws:
            await ws.send(f"{request.target} {request.origin} {request.headers['X-Me']}")

    link = Link(latency=1)
    connect = await serve(tell, host="a.test")
    async with connect(
        "/chat?x=1",
        subprotocols=["a", "b"],
        headers={"X-Me": "1"},
        origin="http://a.test",
        options=Options(ping_interval=None),
        link=link,
    ) as ws:
        assert await ws.receive() == "/chat?x=1 http://a.test 1"
        assert ws.subprotocol == "b"
    assert link in connect.network.links
    assert connect.server.statistics().accepted == 1


async def test_routes_are_a_handler(serve, autojump_clock) -> None:
    routes = Routes()
    routes.websocket("/echo")(echo)
    connect = await serve(routes)
    async with connect("/echo") as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"
    with pytest.raises(trio_ws.ConnectionRejected, match="404"):
        async with connect("/other"):
            pass


async def test_several_servers_are_several_hosts(serve, autojump_clock) -> None:
    first, second = await serve(echo), await serve(echo, tls=True)
    assert (first.url, second.url) == ("ws://server.test", "wss://server-2.test")
    assert repr(second) == "<Connect to wss://server-2.test>"
    assert first.network is second.network
    for connect in (first, second):
        async with connect() as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
    with pytest.raises(OSError, match=r"listens at server\.test port 80"):
        await serve(echo, host="server.test")


async def test_a_raw_client_has_shaken_hands(serve, autojump_clock) -> None:
    for tls in (False, True):
        connect = await serve(echo, tls=tls)
        link = Link(chunk=1)
        async with connect.raw(
            "/x", headers={"X-Me": "1"}, behind=b"\x81\x81\0\0\0\0a", link=link
        ) as peer:
            await peer.expect(Frame.text("a"))
        assert connect.network.links[-1] is link
    with pytest.raises(AssertionError, match="did not accept"):
        async with connect.raw(headers={"Sec-WebSocket-Version": "1"}):
            raise AssertionError("not to be reached")


async def test_a_wrong_handler_is_said_at_once(serve, autojump_clock) -> None:
    with pytest.raises(TypeError, match="async function"):
        await serve("no handler")


# Errors of handlers...


async def fail(request: WebSocketRequest) -> None:
    async with request.accept():
        raise ZeroDivisionError("mine")


async def test_what_a_handler_raises_ends_the_block_as_it_is(autojump_clock) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with open_server(fail) as connect, connect() as ws:
            await ws.receive()


async def test_what_a_handler_raises_may_be_logged_instead(autojump_clock, caplog) -> None:
    async with open_server(fail, on_handler_error="log") as connect, connect() as ws:
        with pytest.raises(ConnectionLost, match="1011"):
            await ws.receive()
    assert "handler failed" in caplog.text


async def test_the_error_of_the_block_comes_out_as_it_is(autojump_clock) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_server(stay) as connect, connect():
            raise error
    assert caught.value is error


# The end...


async def test_clients_that_are_left_are_told_1001(autojump_clock) -> None:
    async def client(connect: Connect) -> None:
        async with connect() as ws:
            with pytest.raises(trio_ws.ConnectionEnded, match="1001"):
                await ws.receive()

    async with trio.open_nursery() as nursery, open_server(stay) as connect:
        nursery.start_soon(client, connect)  # noqa: ASYNC111  # it is to be left behind
        await trio.testing.wait_all_tasks_blocked()


async def test_a_handler_without_its_client_is_told(autojump_clock) -> None:
    begin = trio.current_time()
    with pytest.raises(AssertionError) as caught:
        async with open_server(stay, patience=7) as connect, connect():
            pass
    told = str(caught.value).splitlines()
    assert told[0] == "a handler still runs 7 s after its client has gone:"
    assert told[1].endswith("in stay: await trio.sleep_forever()")
    assert trio.current_time() - begin == pytest.approx(7)


async def test_a_handler_that_comes_to_its_end_is_given_the_time(autojump_clock) -> None:
    async def tidy_up(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for _ in ws:
                pass
        await trio.sleep(5)

    async with open_server(tidy_up) as connect, connect():
        pass


async def test_a_handler_whose_client_is_there_may_stay(autojump_clock) -> None:
    network = MemoryNetwork()
    begin = trio.current_time()
    async with AsyncExitStack() as stack:
        async with open_server(stay, network=network) as connect:
            peer = await stack.enter_async_context(connect.raw())
            assert connect.server.connections
        assert trio.current_time() - begin == Options().close_grace
        await peer.expect(Frame.close(1001))


async def test_a_handler_that_cannot_know_may_stay(autojump_clock) -> None:
    async with open_server(stay, options=Options(ping_interval=None)) as connect:
        link = Link()
        async with connect(link=link):
            link.half_open()


async def test_after_an_error_nobody_looks_for_handlers(autojump_clock) -> None:
    async def fail_later() -> None:
        async with open_server(stay) as connect:
            async with connect():
                pass
            raise KeyError

    begin = trio.current_time()
    with pytest.raises(KeyError):
        await fail_later()
    assert trio.current_time() == begin


async def test_cancelling_the_block_stops_the_server(autojump_clock) -> None:
    with trio.move_on_after(5) as scope:
        async with open_server(stay) as connect, connect():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert connect.server.connections == ()
