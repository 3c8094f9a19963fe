"""One TCP connection of a server: files as answers, piece by piece."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from _helpers import descriptors
from _site import Site, Visitor, get, serve
from trio.testing import MockClock

from trio_ws import Options, Request, Response, Routes
from trio_ws._options import KIB, MIB

DATA = os.urandom(MIB + 1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file.bin"
    file.write_bytes(DATA)
    return file


@asynccontextmanager
async def serve_file(file: Path, options: Options = Options()) -> AsyncIterator[Site]:
    routes = Routes()

    @routes.get("/file")
    async def send(request: Request) -> Response:
        return Response.file(file)

    @routes.get("/")
    async def front(request: Request) -> Response:
        return Response("welcome")

    async with serve(routes, options) as site:
        yield site


async def test_a_file_is_sent_whole_in_parts_and_not_at_all(
    file: Path, autojump_clock: MockClock
) -> None:
    async with serve_file(file) as site:
        visitor = site.visit()
        answer = await visitor.ask(get("/file"))
        assert (answer.status, answer.body) == (200, DATA)
        etag = answer.headers["ETag"]
        part = await visitor.ask(get("/file", "Range: bytes=1000-200000"))
        assert (part.status, part.body) == (206, DATA[1000:200001])
        assert part.headers["Content-Range"] == f"bytes 1000-200000/{len(DATA)}"
        nothing = await visitor.ask(get("/file", f"If-None-Match: {etag}"))
        assert (nothing.status, nothing.headers["ETag"]) == (304, etag)
        beyond = await visitor.ask(get("/file", f"Range: bytes={len(DATA)}-"))
        assert (beyond.status, beyond.headers["Content-Length"]) == (416, "0")
        head = await visitor.ask(get("/file", method="HEAD"), body=False)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(DATA)))
        assert (await visitor.ask(get("/"))).body == b"welcome"  # all on one connection


async def test_files_are_answered_in_their_order(file: Path, autojump_clock: MockClock) -> None:
    async with serve_file(file) as site:
        visitor = site.visit()
        head = get("/file", method="HEAD")
        await visitor.send(get("/file") + head + get("/") + get("/file", "Range: bytes=-3"))
        assert (await visitor.answer()).body == DATA
        assert (await visitor.answer(body=False)).status == 200
        assert (await visitor.answer()).body == b"welcome"
        assert (await visitor.answer()).body == DATA[-3:]


async def test_a_file_that_is_not_there_is_404_and_the_connection_goes_on(
    file: Path, autojump_clock: MockClock
) -> None:
    await trio.Path(file).unlink()
    async with serve_file(file) as site:
        visitor = site.visit()
        answer = await visitor.ask(get("/file"))
        assert (answer.status, answer.body) == (404, b"not found\n")
        assert (await visitor.ask(get("/"))).body == b"welcome"


async def test_a_file_goes_out_as_long_as_the_client_takes_some_of_it(
    file: Path, autojump_clock: MockClock
) -> None:
    async with serve_file(file, Options(write_timeout=5)) as site:
        visitor = site.visit()
        visitor.way.buffer = 0
        await visitor.send(get("/file"))
        for _ in range(18):
            await trio.sleep(4)
            visitor.way.buffer += 64 * KIB
        assert (await visitor.answer()).body == DATA


async def test_no_more_of_a_file_is_read_than_the_client_takes(
    file: Path, autojump_clock: MockClock
) -> None:
    """Else a hundred slow clients of a large file were a hundred times its size."""
    async with serve_file(file, Options(write_timeout=5)) as site:
        visitor = site.visit()
        visitor.way.buffer = 0
        await visitor.send(get("/file"))
        while not descriptors(file):  # noqa: ASYNC110  # nobody sets an event
            await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        os.truncate(file, 0)  # what was not read by now is gone
        visitor.way.buffer = None
        assert len(await visitor.until_eof()) < 64 * KIB


async def full(visitor: Visitor) -> None:
    """Wait until the network takes no more.

    To sleep would not do: the clock does not see the threads that read, and jumps.
    """
    assert visitor.way.buffer is not None
    while visitor.way.sent < visitor.way.buffer:  # noqa: ASYNC110  # nobody sets an event
        await trio.lowlevel.checkpoint()


async def test_a_client_that_stops_reading_a_file_is_dropped_and_the_file_closed(
    file: Path, autojump_clock: MockClock
) -> None:
    async with serve_file(file, Options(write_timeout=5)) as site:
        visitor = site.visit()
        visitor.way.buffer = 100 * KIB
        await visitor.send(get("/file"))
        await full(visitor)
        await trio.sleep(4.9)
        assert not visitor.left
        await trio.sleep(0.2)
        assert visitor.left
        assert len(await visitor.until_eof()) == 100 * KIB
        assert descriptors(file) == 0


async def test_a_file_that_shrinks_ends_the_connection_and_not_the_server(
    file: Path, autojump_clock: MockClock
) -> None:
    """What was announced cannot be sent; only the end of TCP tells the client so."""
    async with serve_file(file) as site:
        visitor = site.visit()
        visitor.way.buffer = 100 * KIB
        await visitor.send(get("/file"))
        await full(visitor)
        os.truncate(file, 300 * KIB)
        visitor.way.buffer = None
        received = await visitor.until_eof()
        assert 300 * KIB <= len(received) < 301 * KIB
        assert (await site.visit().ask(get("/"))).body == b"welcome"


async def test_to_http_1_0_a_file_is_sent_likewise(file: Path, autojump_clock: MockClock) -> None:
    async with serve_file(file) as site:
        visitor = site.visit()
        answer = await visitor.ask(get("/file", version="1.0"))
        assert answer.body == DATA
        assert answer.headers["Connection"] == "close"
        assert await visitor.until_eof() == b""


async def test_draining_lets_a_file_go_out_to_its_end(
    file: Path, autojump_clock: MockClock
) -> None:
    async with serve_file(file) as site:
        visitor = site.visit()
        visitor.way.buffer = 100 * KIB
        await visitor.send(get("/file"))
        await full(visitor)
        # No deadline: for this clock, which does not see threads, reading takes for ever.
        site.nursery.start_soon(partial(site.server.drain, deadline=math.inf))
        await trio.sleep(1)
        visitor.way.buffer = None
        assert (await visitor.answer()).body == DATA
        await site.over.wait()
