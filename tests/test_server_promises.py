"""The rows of the design's first table that need a server: each of them is a promise."""

from __future__ import annotations

import logging

import pytest
import trio
from _helpers import PING, Peer
from _site import echo, get, open_one, serve, sleep, upgrade
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import (
    CloseInfo,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Options,
    WebSocketRequest,
)
from trio_ws.testing import Frame

GRACE = Options().close_grace


async def test_cancelling_the_scope_around_a_server_tells_every_peer_within_the_grace(
    autojump_clock: MockClock,
) -> None:
    """Idle, busy, mute and stuck ones, and some who had not come in yet."""

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            if request.path == "/busy":
                await trio.sleep_forever()
            async for message in ws:
                await ws.send(message)

    async def polite(path: str) -> None:
        async with site.open(path) as ws:
            with pytest.raises(ConnectionEnded) as caught:
                await ws.receive()
        told.append(caught.value.info)

    told: list[CloseInfo] = []
    async with serve(handler) as site:
        for _ in range(50):
            site.nursery.start_soon(polite, "/idle")
            site.nursery.start_soon(polite, "/busy")
        mute = [await open_one(site) for _ in range(50)]
        stuck = [await open_one(site) for _ in range(50)]
        for peer in stuck:
            peer.way.buffer = 0
        half_open = [site.visit() for _ in range(20)]
        for visitor in half_open:
            await visitor.send(upgrade()[:50])
        await wait_all_tasks_blocked()
        assert len(site.server.connections) == 200

        began = trio.current_time()
        site.scope.cancel()
        await site.over.wait()
        assert trio.current_time() - began <= GRACE
        assert told == [CloseInfo(1001, "", "remote", clean=True)] * 100
        for peer in mute:
            assert await peer.until_end() == [Frame.close(1001)]
        for visitor in half_open:
            assert await visitor.until_eof() == b""
        with pytest.raises(trio.BrokenResourceError):
            site.visit()  # new ones are refused


@pytest.mark.parametrize("polite", [True, False])
async def test_the_error_of_a_connection_that_is_over_ends_no_server(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, *, polite: bool
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            while True:
                await ws.send(await ws.receive())

    caplog.set_level(logging.INFO)
    async with serve(handler, Options(on_handler_error="raise")) as site, site.open() as other:
        peer = await open_one(site)
        if polite:
            await peer.send(Frame.close())
        else:
            await peer.stream.aclose()
        await wait_all_tasks_blocked()
        await other.send("still there?")
        assert await other.receive() == "still there?"
        assert len(site.server.connections) == 1
        assert site.server.statistics().handler_errors == 0
    assert caplog.messages == []


async def test_a_subprotocol_that_was_not_offered_is_an_error_in_that_handler_alone(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        if request.path == "/other":
            await echo(request)
            return
        try:
            async with request.accept("chat"):
                raise AssertionError
        except ValueError as exc:
            errors.append(str(exc))
            raise

    errors: list[str] = []
    async with serve(handler) as site, site.open("/other") as other:
        for offered in ([], ["superchat"]):
            with pytest.raises(ConnectionRejected) as caught:
                async with site.open("/", subprotocols=offered):
                    raise AssertionError
            assert caught.value.status == 500
        await other.send("still there?")
        assert await other.receive() == "still there?"
    assert errors == [
        "the client did not offer the subprotocol 'chat': it offered none",
        "the client did not offer the subprotocol 'chat': it offered 'superchat'",
    ]


async def test_a_handler_that_ignores_the_closing_holds_up_a_stop_until_the_deadline(
    autojump_clock: MockClock,
) -> None:
    async with serve(sleep) as site:
        async with site.open() as ws:
            began = trio.current_time()
            site.nursery.start_soon(lambda: site.server.drain(deadline=20))
            with pytest.raises(ConnectionLost) as caught:
                await ws.receive()
            assert caught.value.code == 1012
            assert trio.current_time() == began
        await site.over.wait()
        assert trio.current_time() - began == 20


async def test_any_listener_will_do_also_one_without_a_network(autojump_clock: MockClock) -> None:
    async with serve(echo) as site, site.open() as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


@pytest.mark.parametrize("end", ["Close", "EOF", "reset"])
async def test_a_handler_that_only_produces_is_told_that_its_peer_has_gone(
    end: str, autojump_clock: MockClock
) -> None:
    """Its tasks are cancelled together, and the reason says why."""

    async def produce() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            reasons.append(str(exc))
            raise

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async with ws.open_nursery() as nursery:
                nursery.start_soon(produce)
                nursery.start_soon(produce)
            infos.append(ws.close_info)

    reasons: list[str] = []
    infos: list[CloseInfo | None] = []
    async with serve(handler) as site:
        peer = await open_one(site)
        began = trio.current_time()
        if end == "Close":
            await peer.send(Frame.close(1001, "going home"))
        elif end == "EOF":
            await peer.stream.send_eof()
        else:
            await peer.stream.aclose()
        await wait_all_tasks_blocked()
        assert trio.current_time() == began
    assert len(reasons) == 2
    (info,) = infos
    assert info is not None
    expected = "closed by the peer (1001 'going home')" if end == "Close" else "lost (1006 "
    assert str(info).startswith(expected)
    assert all(str(info) in reason for reason in reasons)


async def test_a_handler_that_is_busy_keeps_a_healthy_peer_and_answers_its_pings(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await trio.sleep(6)
            async for message in ws:
                await ws.send(message)

    async def answer_pings(peer: Peer) -> None:
        while (event := await peer.receive_frame()) is not None:
            if event.opcode == PING:
                asked.append(trio.current_time())
                await peer.send(Frame.pong(event.payload))

    asked: list[float] = []
    impatient = Options(ping_interval=1, ping_timeout=1)
    async with serve(handler, impatient) as site:
        async with site.open(options=impatient) as ws:
            round_trip = await ws.ping()
            assert round_trip == 0
            await ws.send("late")
            assert await ws.receive() == "late"
            assert trio.current_time() == 6
        peer = await open_one(site)
        site.nursery.start_soon(answer_pings, peer)
        await peer.send(Frame(PING, b"are you there?"))
        await trio.sleep(5.5)
        assert len(site.server.connections) == 1
    assert len(asked) == 5


async def test_a_request_for_a_page_does_not_end_a_server_of_websockets(
    autojump_clock: MockClock,
) -> None:
    async with serve(echo) as site, site.open() as ws:
        answer = await site.visit().ask(get())
        assert (answer.status, answer.headers["Sec-WebSocket-Version"]) == (426, "13")
        await ws.send("still there?")
        assert await ws.receive() == "still there?"
