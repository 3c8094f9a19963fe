"""Each tool of `trio_ws.testing` once, as the reference shows it."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

import trio_ws
from trio_ws import ConnectionLost, ConnectionRejected, WebSocket, WebSocketRequest
from trio_ws.testing import (
    Frame,
    Link,
    MemoryNetwork,
    Pair,
    RawPeer,
    cancel_everywhere,
    open_pair,
    open_server,
)


async def test_a_room_is_for_two(autojump_clock: MockClock) -> None:
    places = trio.CapacityLimiter(2)

    async def room(request: WebSocketRequest) -> None:
        if places.available_tokens == 0:
            await request.reject(503, body="full")
            return
        async with places, request.accept() as ws:
            async for message in ws:
                await ws.send(message)

    async with open_server(room) as connect, connect(), connect():
        with pytest.raises(ConnectionRejected, match="full"):
            async with connect():
                pass


async def tick(ws: WebSocket) -> None:
    async with ws.open_nursery():
        while True:
            await ws.send("tick")
            await trio.sleep(1)


async def test_a_clock_ticks_until_the_peer_has_gone(autojump_clock: MockClock) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(tick, server)
        for _ in range(3):
            assert await client.receive() == "tick"
        await client.aclose()


async def test_a_gateway_asks_another_server(nursery: trio.Nursery) -> None:
    network = MemoryNetwork()

    async def archive(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send(f"the page {request.path}")

    async def gateway(request: WebSocketRequest) -> None:
        url = f"wss://archive.test{request.path}"
        async with request.accept() as ws, network.open_websocket(url) as upstream:
            await ws.send(await upstream.receive())

    secret = network.listen("archive.test", 443, tls=True)
    await nursery.start(trio_ws.serve_websocket_listeners, archive, [secret])
    public = network.listen("www.test", 80)
    await nursery.start(trio_ws.serve_websocket_listeners, gateway, [public])
    async with network.open_websocket("ws://www.test/7") as ws:
        assert await ws.receive() == "the page /7"


async def ask(url: str) -> str | bytes:
    """A program that connects by itself."""
    async with trio_ws.open_websocket(url) as ws:
        await ws.send("how are you?")
        return await ws.receive()


async def test_a_whole_program(nursery: trio.Nursery) -> None:
    async def answer(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            assert await ws.receive() == "how are you?"
            await ws.send("well")

    with MemoryNetwork().install():
        await nursery.start(trio_ws.serve_websocket, answer, 80)
        assert await ask("ws://example.org/") == "well"


async def test_a_peer_that_has_vanished_is_noticed(autojump_clock: MockClock) -> None:
    async with open_pair() as pair:
        pair.link.half_open()
        begin = trio.current_time()
        with pytest.raises(ConnectionLost, match="keepalive"):
            await pair.client.receive()
        assert trio.current_time() - begin == 40  # ping_interval + ping_timeout


async def test_a_frame_with_a_reserved_bit_is_refused(autojump_clock: MockClock) -> None:
    async def listen(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for _ in ws:
                pass

    async with open_server(listen) as connect, connect.raw() as peer:
        await peer.send(attrs.evolve(Frame.text("hello"), rsv=2))
        close = await peer.receive_frame()
        assert close is not None
        assert close.code == 1002
        await peer.send(Frame.close(1002))
        await peer.expect_end()


async def test_a_client_meets_a_server_that_hangs_up(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()

    async def hang_up() -> None:
        async with RawPeer(await listener.accept(), client=False) as peer:
            await peer.accept()
            await peer.expect(b"\x81\x05hello")

    async with network.listen("rude.test") as listener, trio.open_nursery() as nursery:
        nursery.start_soon(hang_up)
        async with network.open_websocket("ws://rude.test/") as ws:
            await ws.send("hello")
            with pytest.raises(ConnectionLost, match="without a Close"):
                await ws.receive()


async def test_an_order_is_written_whole_or_not_at_all(autojump_clock: MockClock) -> None:
    order: list[str] = []

    async def scenario() -> None:
        order.clear()
        async with open_pair() as (client, server):
            await client.send("two apples")
            message = str(await server.receive())
            await trio.sleep(0.1)  # the warehouse is asked
            order.extend(message.split())

    def check() -> None:
        assert order in ([], ["two", "apples"])

    await cancel_everywhere(scenario, check=check)


async def test_what_was_said_can_be_asked_and_drawn(autojump_clock: MockClock) -> None:
    async with open_pair(link=Link(latency=0.1)) as pair:
        await pair.client.send("hello")
        await pair.server.receive()
    assert pair.recorder.frames("client") == [Frame.text("hello"), Frame.close(1000)]
    assert (
        pair.recorder.diagram()
        == """\
         client                                            server
    0.000   |-- GET / HTTP/1.1 ----------------------------->| 0.100
    0.100   |<----------- HTTP/1.1 101 Switching Protocols --| 0.200
    0.200   |-- text 'hello' ------------------------------->| 0.300
    0.300   |-- close 1000 --------------------------------->| 0.400
    0.400   |<--------------------------------- close 1000 --| 0.500
    0.400   |<--------------------------------- end of TCP --| 0.500
    0.500   |-- end of TCP --------------------------------->|"""
    )


@pytest.mark.parametrize(
    "websocket_pair", [{"subprotocols": ["chat"], "subprotocol": "chat"}], indirect=True
)
async def test_a_pair_speaks_the_subprotocol(websocket_pair: Pair) -> None:
    client, server = websocket_pair
    assert client.subprotocol == server.subprotocol == "chat"
