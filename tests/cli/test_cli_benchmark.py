"""``trio-ws bench``: how fast a server sends messages back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from _components import PATIENCE

from trio_ws import Server, WebSocketRequest, serve_websocket
from trio_ws._cli import main, make_parser
from trio_ws._cli._serving import echo
from trio_ws._cli._usage import UsageError


@asynccontextmanager
async def serving(handler: Any = echo) -> AsyncGenerator[str, None]:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(
            partial(serve_websocket, handler, 0, host="127.0.0.1")
        )
        yield f"ws://127.0.0.1:{server.port}/"
        nursery.cancel_scope.cancel()


async def bench(url: str, *arguments: str) -> int:
    options = make_parser().parse_args(["bench", url, "--seconds", "0.3", *arguments])
    with trio.fail_after(PATIENCE):
        return int(await options.run(options))


async def test_it_counts_what_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as url:
        assert (
            await bench(url, "--connections", "3", "--size", "1000", "--seconds", "1", "--json")
            == 0
        )
    figures = json.loads(capsys.readouterr().out)
    assert (figures["connections"], figures["size"]) == (3, 1000)
    assert figures["messages"] > 0
    assert figures["messages_per_second"] == pytest.approx(
        figures["messages"] / figures["seconds"], rel=0.01
    )
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"]
    assert figures["latency_p99_ms"] <= figures["latency_max_ms"]


async def test_people_get_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as url:
        assert await bench(url) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "messages of 125 bytes there and back" in first
    assert second.startswith("latency: ")


async def test_a_server_that_is_no_echo_is_told() -> None:
    async def deaf(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for _ in ws:
                await ws.send("what?")

    async with serving(deaf) as url:
        with pytest.raises(UsageError, match="does not send back what it gets"):
            await bench(url)


async def test_a_server_that_is_silent_has_no_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def mute(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.receive()
            await ws.wait_closed()

    async with serving(mute) as url:
        assert await bench(url) == 1
    assert "0 messages" in capsys.readouterr().out


async def test_a_server_that_refuses_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def refuse(request: WebSocketRequest) -> None:
        await request.reject(403)

    async def hang_up(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose(4000)

    async with serving(refuse) as url:
        assert await bench(url) == 4
    async with serving(hang_up) as url:
        assert await bench(url) == 1
    assert "403" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--connections", "0"], ["--size", "-1"], ["--seconds", "0"]]
)
def test_senseless_figures_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "ws://localhost/", *arguments]) == 2
    assert "--connections is 1 or more" in capsys.readouterr().err


def test_a_url_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "http://localhost/"]) == 2
    assert "ws://" in capsys.readouterr().err
