"""A stream of bytes over binary messages, judged by trio's own check of streams."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme
from _helpers import Peer, Role
from trio.testing import (
    MockClock,
    assert_checkpoints,
    check_half_closeable_stream,
    lockstep_stream_pair,
    wait_all_tasks_blocked,
)

from trio_ws._byte_stream import CHUNK
from trio_ws._errors import ConnectionLost
from trio_ws._messages import CloseInfo
from trio_ws._options import Options
from trio_ws._session import Session
from trio_ws.testing import Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[..., tuple[Session, Peer]]
    ConnectOurs = Callable[..., tuple[Session, Session]]

Streams = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


async def stay(us: Session, *, task_status: trio.TaskStatus[trio.abc.HalfCloseableStream]) -> None:
    async with us as ws:
        task_status.started(ws.as_stream())
        await trio.sleep_forever()


@asynccontextmanager
async def open_pair(
    connect: ConnectOurs, *options: Options
) -> AsyncIterator[tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]]:
    ours, theirs = connect(*options)
    async with ours as us, theirs as them:
        yield us.as_stream(), them.as_stream()


# As a stream has to be...


async def test_it_is_a_half_closeable_stream_as_trio_wants_it(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def make() -> Streams:
            # No more than a frame on the way: so one may get stuck.
            here, there = lockstep_stream_pair()
            options = Options(receive_buffer=1, send_buffer=1, write_timeout=None)
            streams: list[Any] = [
                await nursery.start(stay, Session(stream, options, client=client, leftover=b""))
                for stream, client in ((here, True), (there, False))
            ]
            return streams[0], streams[1]

        async def make_clogged() -> Streams:
            streams = await make()
            for stream in streams:
                with trio.move_on_after(1):
                    while True:
                        await stream.send_all(b"x")
            return streams

        await check_half_closeable_stream(make, make_clogged)
        nursery.cancel_scope.cancel()


async def test_any_pieces_come_out_as_the_same_bytes(
    connect: ConnectOurs, autojump_clock: MockClock
) -> None:
    dice = random.Random(5)
    data = dice.randbytes(10**6)
    async with open_pair(connect) as (here, there), trio.open_nursery() as nursery:

        async def send() -> None:
            rest = memoryview(data)
            while rest:
                size = dice.choice([1, 10, 1000, CHUNK, CHUNK + 1, 3 * CHUNK])
                await here.send_all(rest[:size])
                rest = rest[size:]
            await here.send_eof()

        nursery.start_soon(send)
        received = bytearray()
        while chunk := await there.receive_some(dice.choice([None, 1000, CHUNK, 10**7])):
            received += chunk
        assert received == data


async def test_what_is_sent_at_once_is_cut_into_messages(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        stream = ws.as_stream(compress=False)
        nursery.start_soon(stream.send_all, memoryview(b"abcd" * CHUNK).cast("I"))
        sizes = [len(await peer.receive_message()) for _ in range(4)]
        assert sizes == [CHUNK] * 4


async def test_each_call_is_a_checkpoint(connect: ConnectOurs, autojump_clock: MockClock) -> None:
    async with open_pair(connect) as (here, there):
        for _ in range(3):
            with assert_checkpoints():
                await here.send_all(b"12")
            with assert_checkpoints():
                await here.wait_send_all_might_not_block()
            for _ in range(2):  # the second comes from the rest of the first
                with assert_checkpoints():
                    assert len(await there.receive_some(1)) == 1


async def test_cancelling_a_receive_loses_nothing(
    connect: ConnectOurs, autojump_clock: MockClock
) -> None:
    async with open_pair(connect) as (here, there):
        with trio.move_on_after(1) as scope:
            await there.receive_some()
        assert scope.cancelled_caught
        await here.send_all(b"data")
        assert await there.receive_some() == b"data"


async def test_two_tasks_may_not_send_at_a_time(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer(Options(send_buffer=1, close_grace=0.1))
    async with us as ws, trio.open_nursery() as nursery:
        stream = ws.as_stream()
        peer.way.buffer = 0
        nursery.start_soon(stream.send_all, b"x" * 3 * CHUNK)
        await wait_all_tasks_blocked()
        for attempt in (
            stream.send_eof,
            stream.wait_send_all_might_not_block,
            lambda: stream.send_all(b"y"),
        ):
            with pytest.raises(trio.BusyResourceError, match="another task is sending"):
                await attempt()
        nursery.cancel_scope.cancel()


# Ends...


async def test_the_end_of_one_direction_is_an_empty_message(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        stream = ws.as_stream()
        await stream.send_all(b"")  # sends nothing
        await stream.send_eof()
        await stream.send_eof()  # says nothing new
        with pytest.raises(trio.ClosedResourceError, match="behind send_eof"):
            await stream.send_all(b"more")
        with pytest.raises(trio.ClosedResourceError, match="behind send_eof"):
            await stream.wait_send_all_might_not_block()
        await ws.send("next")
        assert [await peer.receive_message(), await peer.receive_message()] == [b"", "next"]

        await peer.send(Frame.binary(b"still"), Frame.binary(b""))
        assert await stream.receive_some() == b"still"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


async def test_an_end_that_is_cancelled_has_not_been_sent(
    connect_peer: Connect, autojump_clock: MockClock
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        stream = ws.as_stream()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_eof()
        assert scope.cancelled_caught
        await stream.send_all(b"more")
        assert await peer.receive_message() == b"more"


@pytest.mark.parametrize("code", [1000, 1001])
async def test_the_polite_end_of_the_connection_is_the_end_of_the_stream(
    connect_peer: Connect, autojump_clock: MockClock, code: int
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        stream = ws.as_stream()
        await peer.send(Frame.binary(b"last"))
        await peer.send(Frame.close(code))
        assert [await stream.receive_some() for _ in range(3)] == [b"last", b"", b""]
        await wait_all_tasks_blocked()  # until then it might have been answered
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"too late")
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"")


@pytest.mark.parametrize("how", ["abruptly", "rudely"])
async def test_any_other_end_breaks_the_stream(
    connect_peer: Connect, autojump_clock: MockClock, how: str
) -> None:
    us, peer = connect_peer()
    async with us as ws:
        stream = ws.as_stream()
        await (peer.aclose() if how == "abruptly" else peer.send(Frame.close(1011)))
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_a_text_message_is_refused(connect_peer: Connect, autojump_clock: MockClock) -> None:
    us, peer = connect_peer()
    async with us as ws:
        await peer.send(Frame.text("text"))
        with pytest.raises(ConnectionLost, match="1003 'a binary message was expected'"):
            await ws.as_stream().receive_some()
        assert (await peer.until_close()).code == 1003
        await peer.send(Frame.close(1003))
        await peer.aclose()


async def test_closing_the_stream_closes_the_connection(
    connect_peer: Connect, autojump_clock: MockClock, role: Role
) -> None:
    us, peer = connect_peer()
    async with us as ws, trio.open_nursery() as nursery:
        stream = ws.as_stream()
        await peer.send(Frame.binary(b"unread"))
        assert await stream.receive_some(2) == b"un"
        nursery.start_soon(peer.answer)
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        assert ws.close_info == CloseInfo(1000, "", "local", clean=True)


async def test_tls_runs_through_it(connect: ConnectOurs, autojump_clock: MockClock) -> None:
    """A protocol that was written for TCP notices nothing."""
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("inner.test").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with open_pair(connect) as (here, there), trio.open_nursery() as nursery:
        inner = trio.SSLStream(here, client_context, server_hostname="inner.test")
        outer = trio.SSLStream(there, server_context, server_side=True)

        async def echo() -> None:
            async with outer:
                async for chunk in outer:
                    await outer.send_all(chunk)

        nursery.start_soon(echo)
        async with inner:
            await inner.send_all(b"secret")
            assert await inner.receive_some() == b"secret"
