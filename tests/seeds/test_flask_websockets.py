"""What the guide of flask-websockets shows, row by row."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from _seeds import echo, load_example, next_with
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import ConnectionEnded, Deflate, Options, Overflow, Rooms, WebSocketRequest
from trio_ws.testing import Frame, Link, open_server


async def test_f2_a_handler_that_returns_closes_the_connection(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("bye")

    async with open_server(handler) as connect, connect() as ws:
        assert [message async for message in ws] == ["bye"]
        assert ws.close_info is not None
        assert ws.close_info.code == 1000


@pytest.mark.parametrize("kind", ["all", "text", "bytes"])
async def test_f3_iterators_end_with_the_connection_and_breaking_ends_it(
    autojump_clock: MockClock, kind: str
) -> None:
    got: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            channel: Any = {"all": ws, "text": ws.text, "bytes": ws.binary}[kind]
            async for message in channel:
                got.append(message)
                if message in ("break", b"break"):
                    break

    encode = str.encode if kind == "bytes" else str
    async with open_server(handler) as connect:
        async with connect() as ws:
            await ws.send(encode("one"))
        await wait_all_tasks_blocked()
        async with connect() as ws:
            await ws.send(encode("break"))
            with pytest.raises(ConnectionEnded):
                await ws.receive()
    assert got == [encode("one"), encode("break")]


async def test_f4_send_takes_text_and_bytes(autojump_clock: MockClock) -> None:
    async with open_server(echo) as connect, connect() as ws:
        for data in ("text", b"bytes"):
            await ws.send(data)
            assert await ws.receive() == data


async def test_f5_a_block_subscribes_to_several_channels(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async with rooms.join(ws, "a", "b"):
                await ws.receive()
            await ws.send("left")
            await ws.receive()

    async with open_server(handler) as connect, connect() as ws:
        await wait_all_tasks_blocked()
        for room in ("a", "b", "c"):
            await rooms.publish(room, f"to {room}")
        await ws.send("leave")
        assert [await ws.receive() for _ in range(3)] == ["to a", "to b", "left"]
        assert await rooms.publish("a", "to nobody") == 0


async def test_f6_a_member_leaves_a_channel_as_often_as_it_likes(
    autojump_clock: MockClock,
) -> None:
    rooms = Rooms()

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "a", "b") as member:
            await ws.receive()
            member.leave("a")
            member.leave("a")  # twice is no error
            assert member.rooms == ("b",)
            await ws.send("left a")
            await ws.receive()

    async with open_server(handler) as connect, connect() as ws:
        await ws.send("leave")
        assert await ws.receive() == "left a"
        assert await rooms.publish("a", "not heard") == 0
        assert await rooms.publish("b", "heard") == 1
        assert await ws.receive() == "heard"


async def test_f7_another_thread_publishes() -> None:
    rooms = Rooms()

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "server_time"):
            await ws.send("joined")
            await ws.receive()

    async with open_server(handler) as connect, connect() as ws:
        assert await ws.receive() == "joined"

        def work() -> int:
            return rooms.publish_from_thread("server_time", "from a thread")

        assert await trio.to_thread.run_sync(work) == 1
        assert await ws.receive() == "from a thread"


async def test_f8_every_client_gets_the_time_every_second(autojump_clock: MockClock) -> None:
    time_server = load_example("time_server")
    rooms = Rooms()
    began = time.monotonic()
    async with (
        open_server(time_server.make_routes(rooms)) as connect,
        connect("/clock") as one,
        connect("/clock") as other,
        trio.open_nursery() as nursery,
    ):
        await wait_all_tasks_blocked()
        nursery.start_soon(time_server.tick, rooms)
        start = trio.current_time()
        ticks = [await one.receive() for _ in range(61)]
        assert trio.current_time() - start == pytest.approx(60)
        assert [await other.receive() for _ in range(61)] == ticks
        nursery.cancel_scope.cancel()
    assert time.monotonic() - began < 30  # of real time


async def test_f9_a_dead_member_does_not_stop_a_publish(autojump_clock: MockClock) -> None:
    rooms = Rooms()

    async def handler(request: WebSocketRequest) -> None:
        policy = Overflow.DISCONNECT
        async with request.accept() as ws, rooms.join(ws, "all", buffer=2, overflow=policy):
            await ws.receive()

    options = Options(write_timeout=5, close_grace=1, send_buffer=1)
    async with open_server(handler, options=options) as connect:
        link = Link(buffer=2000)
        async with connect() as alive, connect.raw(link=link):
            await wait_all_tasks_blocked()
            link.to_client.stall()
            for number in range(10):
                with trio.fail_after(0.5):  # nobody waits for the dead one
                    await rooms.publish("all", str(number) * 1000)
                assert await alive.receive() == str(number) * 1000
            assert len(rooms.members("all")) == 1


async def test_f10_a_chat_tells_who_comes_and_goes(autojump_clock: MockClock) -> None:
    chat = load_example("chat")
    async with (
        open_server(chat.make_routes()) as connect,
        connect("/chat/lobby?name=Ada") as ada,
    ):
        await next_with(ada, "people")
        async with connect("/chat/lobby?name=Bob") as bob:
            assert (await next_with(ada, "joined"))["joined"]["name"] == "Bob"
            await bob.send("hi")
            assert (await next_with(ada, "data"))["data"]["name"] == "Bob"
        assert (await next_with(ada, "left"))["left"]["name"] == "Bob"


async def test_f11_pings_subprotocols_limits_and_compression_are_options(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept("chat") as ws:
            await ws.send("x" * 5000)
            await ws.receive()

    options = Options(ping_interval=3, max_message_size=100, compression=Deflate(level=9))
    async with open_server(handler, options=options) as connect:
        async with connect(subprotocols=["other", "chat"]) as ws:
            assert ws.subprotocol == "chat"
            assert await ws.receive() == "x" * 5000
            assert ws.statistics().bytes_received < 500  # compressed
            await ws.send("y" * 101)
            assert (await ws.wait_closed()).code == 1009
        headers = {"Sec-WebSocket-Protocol": "chat"}
        async with connect.raw(headers=headers) as peer:
            await peer.expect(Frame.text("x" * 5000))
            before = trio.current_time()
            frame = await peer.receive_frame()
            assert frame is not None
            assert frame.opcode == Frame.ping().opcode
            assert trio.current_time() - before == pytest.approx(3)
            await peer.send(Frame.close(1000))
            await peer.expect(Frame.close(1000))
