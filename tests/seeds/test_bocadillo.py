"""What Bocadillo's websocket guide shows, row by row."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from _seeds import echo, load_example, next_with
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import (
    CloseCode,
    ConnectionEnded,
    ConnectionLost,
    WebSocketRequest,
)
from trio_ws.asgi import from_asgi
from trio_ws.testing import open_server


async def test_b3_accept_receive_send_and_close_are_explicit(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            message = await ws.receive()
            await ws.send(f"you said {message}")
            await ws.aclose(4000, "that will do")

    async with open_server(handler) as connect, connect() as ws:
        await ws.send("hello")
        assert await ws.receive() == "you said hello"
        with pytest.raises(ConnectionLost, match="4000 'that will do'"):
            await ws.receive()


async def test_b4_waiting_for_one_client_does_not_hold_up_another(
    autojump_clock: MockClock,
) -> None:
    async with open_server(echo) as connect, connect() as silent, connect() as busy:
        for number in range(3):
            await busy.send(str(number))
            assert await busy.receive() == str(number)
        await silent.send("at last")
        assert await silent.receive() == "at last"
    assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("how", "code"), [("returns", 1000), ("raises", 1011), ("is cancelled", 1001)]
)
async def test_b6_leaving_the_block_closes_with_a_fitting_code(
    autojump_clock: MockClock, how: str, code: int
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        with trio.CancelScope() as scope:
            async with request.accept():
                if how == "raises":
                    raise KeyError("oops")
                if how == "is cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()

    async with open_server(handler, on_handler_error="log") as connect, connect() as ws:
        assert (await ws.wait_closed()).code == code


async def test_b7_a_client_that_leaves_is_no_error_unless_one_asks(
    autojump_clock: MockClock,
) -> None:
    seen: list[Any] = []

    async def quiet(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for _ in ws:
                pass
            seen.append("ended")

    async def careless(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            while True:
                await ws.receive()  # the error leaves the handler: that is fine

    async def curious(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            with pytest.raises(ConnectionEnded) as caught:
                await ws.receive()
            seen.append(caught.value.code)

    for handler in (quiet, careless, curious):
        async with open_server(handler) as connect:  # any error of the handler would end this
            async with connect():
                pass
            await wait_all_tasks_blocked()
            assert connect.server.statistics().handler_errors == 0
    assert seen == ["ended", 1000]


async def test_b8_a_send_to_a_client_that_has_gone_tells_the_code(
    autojump_clock: MockClock,
) -> None:
    seen: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("tick")
            await trio.sleep(1)
            with pytest.raises(ConnectionLost) as caught:
                await ws.send("tock")
            assert isinstance(caught.value, trio.BrokenResourceError)
            seen.append((caught.value.code, caught.value.reason))

    async with open_server(handler) as connect:
        async with connect() as ws:
            await ws.receive()
            await ws.aclose(4001, "lunch")
        await trio.sleep(2)
    assert seen == [(4001, "lunch")]


@pytest.mark.parametrize("clean", [True, False])
async def test_b9_iterating_is_receiving_until_the_end(
    autojump_clock: MockClock, clean: bool
) -> None:
    """It ends on a clean close, and raises on any other."""
    got: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            got.append(await anext(ws))
            try:
                async for message in ws:
                    got.append(message)  # noqa: PERF401  # as one writes it
                got.append("ended")
            except ConnectionLost as exc:
                got.append(exc.code)

    async with open_server(handler) as connect, connect() as ws:
        for number in range(3):
            await ws.send(str(number))
        await ws.aclose(1000 if clean else 4000)
        await wait_all_tasks_blocked()
    assert got == ["0", "1", "2", "ended" if clean else 4000]


async def test_b10_views_send_and_receive_one_type(autojump_clock: MockClock) -> None:
    async with open_server(echo) as connect, connect() as ws:
        await ws.text.send("text")
        assert await ws.text.receive() == "text"
        await ws.binary.send(b"bytes")
        assert await ws.binary.receive() == b"bytes"
        numbers: trio.abc.Channel[int] = ws.typed(str, int)
        await numbers.send(5)
        assert await numbers.receive() == 5


async def test_b11_json_is_a_view_and_what_is_none_closes_with_1007(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            channel = ws.json()
            async for value in channel:
                await channel.send({"got": value})

    async with open_server(handler) as connect, connect() as ws:
        await ws.json().send([1, None, "é"])
        assert await ws.json().receive() == {"got": [1, None, "é"]}
        await ws.send("{no json")
        assert (await ws.wait_closed()).code == 1007


async def test_b12_a_message_of_the_wrong_type_closes_with_1003(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for _ in ws.text:
                pytest.fail("there was no text")

    async with open_server(handler) as connect, connect() as ws:
        await ws.send(b"bytes")
        assert (await ws.wait_closed()).code == 1003


async def test_b13_raw_asgi_events_are_received_and_sent(autojump_clock: MockClock) -> None:
    events: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        events.append((scope["type"], scope["path"]))
        events.append(await receive())
        await send({"type": "websocket.accept"})
        events.append(await receive())
        await send({"type": "websocket.send", "text": "hello"})
        await send({"type": "websocket.close", "code": 4000})

    async with open_server(from_asgi(application)) as connect, connect("/raw") as ws:
        await ws.send(b"data")
        assert await ws.receive() == "hello"
        assert (await ws.wait_closed()).code == 4000
    assert events == [
        ("websocket", "/raw"),
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "bytes": b"data"},
    ]


async def test_b15_close_codes_have_names_and_limits(autojump_clock: MockClock) -> None:
    names = {1012: "SERVICE_RESTART", 1013: "TRY_AGAIN_LATER", 1014: "BAD_GATEWAY"}
    assert {code: CloseCode(code).name for code in names} == names
    async with open_server(echo) as connect, connect() as ws:
        for reserved in (999, 1004, 1005, 1006, 1015, 1016, 2999, 5000):
            with pytest.raises(ValueError, match=f"close code {reserved} may not be sent"):
                await ws.aclose(reserved)
        await ws.send("still open")
        assert await ws.receive() == "still open"
    for allowed in (*names, 3000, 4999):
        async with open_server(echo) as connect, connect() as ws:
            await ws.aclose(allowed)
            assert ws.close_info is not None
            assert (ws.close_info.code, ws.close_info.clean) == (allowed, True)


async def test_b16_a_chat_has_clients_and_a_history(autojump_clock: MockClock) -> None:
    """examples/chat: the program, whose page is tested in a real browser elsewhere."""
    chat = load_example("chat")
    async with open_server(chat.make_routes()) as connect:
        async with connect("/chat/lobby?name=Ada") as ada:
            await ada.send("hello")
            assert (await next_with(ada, "data"))["data"]["text"] == "hello"
        async with connect("/chat/lobby?name=Bob") as bob:  # who was not there
            assert (await next_with(bob, "data"))["data"]["text"] == "hello"
            assert "Bob" in (await next_with(bob, "people"))["people"].values()
