"""Pages for those who run a server, read by Prometheus' own parser."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from _site import Visitor, echo, get, serve, upgrade
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from trio_ws import Request, Response, Rooms, Routes, WebSocketRequest, health_page, metrics_page
from trio_ws._frames import TEXT
from trio_ws._http_request import parse_request
from trio_ws.testing import Frame

Labels = tuple[tuple[str, str], ...]


async def read_metrics(visitor: Visitor) -> dict[tuple[str, Labels], float]:
    answer = await visitor.ask(get("/metrics"))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        assert family.type in {"counter", "gauge"}
        for sample in family.samples:
            key = sample.name.removeprefix("trio_ws_"), tuple(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


async def test_health_is_ok_until_the_server_is_drained(autojump_clock: MockClock) -> None:
    routes = Routes()
    routes.get("/health")(health_page())
    routes.websocket("/")(echo)
    async with serve(routes) as site:
        keeps_it_busy = await site.visit().switch()
        answer = await site.visit().ask(get("/health"))
        assert (answer.status, answer.body) == (200, b"ok\n")
        assert answer.headers["Cache-Control"] == "no-store"
        site.nursery.start_soon(site.server.drain)
        await keeps_it_busy.until_close()
        answer = await site.visit().ask(get("/health"))
        assert (answer.status, answer.body) == (503, b"draining\n")
        assert answer.headers["Retry-After"] == "5"
        head = await site.visit().ask(get("/health", method="HEAD"), body=False)
        assert head.status == 503
        await keeps_it_busy.send(Frame.close(1012))


async def test_metrics_show_what_has_been_done(autojump_clock: MockClock) -> None:
    routes = Routes()
    routes.get("/metrics")(metrics_page())
    routes.websocket("/echo")(echo)

    @routes.websocket("/no")
    async def no(request: WebSocketRequest) -> None:
        await request.reject(401)

    @routes.websocket("/broken")
    async def broken(request: WebSocketRequest) -> None:
        raise ValueError("oops")

    async with serve(routes) as site:
        before = await read_metrics(site.visit())
        assert before["connections", ()] == 0
        assert before["draining", ()] == 0

        for path in ("/no", "/no", "/broken"):
            await site.visit().ask(upgrade(path))
        await site.visit().ask(get("/missing"))
        ended = await site.visit().switch(upgrade("/echo"))
        await ended.send(Frame(TEXT, b"hello"))
        assert await ended.receive_frame() == Frame.text("hello")
        await ended.send(Frame.close(4000))
        await ended.until_end()
        open_ = await site.visit().switch(upgrade("/echo"))
        await open_.send(Frame(TEXT, b"hello"))
        assert await open_.receive_frame() == Frame.text("hello")
        await trio.testing.wait_all_tasks_blocked()

        after = await read_metrics(site.visit())
        expected = {
            "connections": 1,
            "opening": 0,  # who asks for a page opens nothing
            "accepted_total": 2,
            "handler_errors_total": 1,
            "accept_failures_total": 0,
            "messages_received_total": 2,
            "messages_sent_total": 2,
            "bytes_received_total": 11 + 8 + 11,  # masked: 6 bytes more than the payload
            "bytes_sent_total": 7 + 4 + 7,
            "unread_bytes": 0,
            "queued_bytes": 0,
        }
        assert {name: after[name, ()] for name in expected} == expected
        assert after["rejected_total", (("status", "401"),)] == 2
        assert after["rejected_total", (("status", "500"),)] == 1
        assert after["close_codes_total", (("code", "4000"),)] == 1
        assert after["pages_total", (("status", "404"),)] == 1
        assert after["pages_total", (("status", "200"),)] == 1


async def test_metrics_tell_the_totals_of_rooms(autojump_clock: MockClock) -> None:
    chat, news = Rooms(), Rooms()
    odd = 'a "\\" b\nc'
    routes = Routes()
    routes.get("/metrics")(metrics_page(chat=chat, **{odd: news}))
    async with serve(routes) as site, chat.subscribe("tea") as messages:
        await chat.publish("tea", "hello")
        found = await read_metrics(site.visit())
        for name, value in {
            "rooms": 1,
            "rooms_members": 0,
            "rooms_subscriptions": 1,
            "rooms_published_total": 1,
            "rooms_delivered_total": 1,
            "rooms_dropped_total": 0,
        }.items():
            assert found[name, (("rooms", "chat"),)] == value
            assert found[name, (("rooms", odd),)] == 0
        assert await messages.receive() == "hello"


async def test_under_a_server_of_somebody_else_there_is_less_to_tell() -> None:
    stream, _ = trio.testing.memory_stream_pair()
    head = parse_request(b"GET", b"/", b"1.1", [(b"host", b"test")])
    request = Request(head, stream)
    assert request.server is None
    assert (await health_page()(request)).status == 200
    assert (await metrics_page()(request)).body == b""


@pytest.mark.parametrize("page", [health_page(), metrics_page()])
async def test_a_status_page_is_a_checkpoint(page: object) -> None:
    stream, _ = trio.testing.memory_stream_pair()
    head = parse_request(b"GET", b"/", b"1.1", [(b"host", b"test")])
    with trio.testing.assert_checkpoints():
        response = await page(Request(head, stream))  # type: ignore[operator]
    assert isinstance(response, Response)
