"""What real outages do not bring about on demand."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from _components import until
from _helpers import settle
from _redis import open_broker_on, redis_server, refusal

from trio_ws import BrokerDown, History, Rooms
from trio_ws.redis import _service, open_rooms
from trio_ws.redis._broker import RedisBroker
from trio_ws.redis._link import LinkDown
from trio_ws.rooms import Delivery, Publication

NOWHERE = "redis://127.0.0.1:1"


def unserved(**arguments: Any) -> tuple[Rooms, RedisBroker]:
    """Return rooms, and their broker, whose tasks do not run."""
    opening: Any = open_rooms(NOWHERE, **arguments)
    return opening._face, opening._broker


def publication(*rooms: str) -> Publication:
    return Publication(rooms, "x", "x", waits=True)


async def publish(broker: RedisBroker, results: list[Any]) -> None:
    try:
        results.append(await broker.publish(publication("a")))
    except BrokerDown as exc:
        results.append(exc)


async def test_a_publisher_that_is_cancelled_takes_its_message_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, broker = unserved()
    with trio.move_on_after(1):
        await broker.publish(publication("a"))
    assert broker._outgoing.next_batch("run") is None
    assert broker._delivering.pending == {}


async def test_what_was_sent_by_a_publisher_that_was_cancelled_is_still_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, broker = unserved()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, broker, [])
        await settle()
        batch = broker._outgoing.next_batch("run")
        assert batch is not None
        nursery.cancel_scope.cancel()
    (pending,) = batch.pending
    assert not pending.publication.waits
    assert broker._delivering.pending == {pending.origin: pending}


async def test_a_publisher_whose_message_was_published_but_never_came_hears_no_error(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, broker = unserved()
    broker._delivering.add("a")
    results: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, broker, results)
        await settle()
        batch = broker._outgoing.next_batch("run")
        assert batch is not None
        for pending in broker._outgoing.acknowledge(batch, []):
            broker._delivering.check(pending)
    assert trio.current_time() == 5
    assert isinstance(results[0], Delivery)
    assert results[0].taken == 0
    assert broker._delivering.pending == {}


async def test_a_publisher_that_is_cancelled_before_the_reply_leaves_nobody_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, broker = unserved()
    abandoned: list[str] = []

    class Taken(Delivery):
        def abandon(self) -> None:
            abandoned.append("those who have not taken it")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, broker, [])
        await settle()
        (pending,) = broker._delivering.pending.values()
        assert broker._outgoing.next_batch("run") is not None
        pending.delivery = Taken(waits=True)  # it has come, but not the reply
        nursery.cancel_scope.cancel()
    assert abandoned


async def test_a_room_that_is_closed_keeps_no_publisher_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, broker = unserved()
    room = broker._delivering.add("a")
    results: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, broker, results)
        await settle()
        batch = broker._outgoing.next_batch("run")
        assert batch is not None
        broker._outgoing.acknowledge(batch, [])
        broker._delivering.remove(room)
    assert trio.current_time() == 0
    assert isinstance(results[0], Delivery)


async def test_the_end_of_the_block_keeps_no_publisher_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, broker = unserved()
    broker._delivering.add("a")
    results: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, broker, results)
        await settle()
        batch = broker._outgoing.next_batch("run")
        assert batch is not None
        broker._outgoing.acknowledge(batch, [])
        nursery.start_soon(publish, broker, results)
        await settle()
        await broker.stop()
    assert trio.current_time() == 0
    assert {type(each) for each in results} == {Delivery, BrokerDown}


async def test_what_still_comes_for_a_room_that_was_closed_is_ignored() -> None:
    _, broker = unserved()
    broker._delivering.hear("a", b"M1 e:1\n{}\nx")


async def test_a_new_epoch_that_is_known_already_is_no_news() -> None:
    with redis_server() as server:
        async with open_rooms(server.url) as rooms, rooms.subscribe("a") as messages:
            await rooms.publish("a", "x")
            assert await messages.receive() == "x"
            assert messages.last is not None
            epoch = messages.last.position.epoch
            server.command("PUBLISH", "trio_ws:{a}", f"E1 {epoch}:0\n")
            server.command("PUBLISH", "trio_ws:{a}", "E1 other:0\n")  # fetched, and not so
            await rooms.publish("a", "y")
            assert await messages.receive() == "y"


async def test_the_broker_itself_publishes_nothing_at_once() -> None:
    _, broker = unserved()
    with pytest.raises(RuntimeError, match="await"):
        broker.publish_nowait(publication("a"))


async def test_a_link_is_named_in_logs() -> None:
    with redis_server() as server:
        async with open_broker_on(server.url) as broker:
            link = broker._service._link
            assert link is not None
            assert repr(link._connection) == f"connection to Redis at 127.0.0.1:{server.port}"


async def test_a_link_on_which_nothing_is_heard_is_down() -> None:
    with redis_server() as server:
        async with open_broker_on(server.url, timeout=0.2) as broker:
            link = broker._service._link
            assert link is not None
            server.signal(signal.SIGSTOP)
            with pytest.raises(LinkDown, match="does not answer"):
                await link.wait_heard()
            server.signal(signal.SIGCONT)


async def test_redis_remembers_rooms_in_which_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, brisk: None
) -> None:
    monkeypatch.setattr(_service, "STATE_LIFE", 0.3)
    endless = History(age=None)
    with redis_server() as server:
        async with (
            open_rooms(server.url) as rooms,
            open_rooms(server.url, prefix="endless", history=endless) as others,
            rooms.subscribe("a"),
            others.subscribe("a"),
        ):
            for prefix in ("trio_ws", "endless"):
                server.command("EXPIRE", f"{prefix}:{{a}}:state", "60")
            await until(lambda: server.command("TTL", "trio_ws:{a}:state") == b":3600\r\n")
            await trio.sleep(0.2)
            assert 0 < int(server.command("TTL", "endless:{a}:state")[1:]) <= 60


@asynccontextmanager
async def fake_redis(*replies: bytes) -> AsyncIterator[str]:
    """Serve as many replies as there are commands, whatever they are."""

    async def serve(stream: trio.SocketStream) -> None:
        remaining = list(replies)
        async for data in stream:
            commands = data.count(b"*")
            answer, remaining = remaining[:commands], remaining[commands:]
            await stream.send_all(b"".join(answer))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield f"redis://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_an_answer_that_no_redis_gives_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    hello = b"%3\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n"
    sha = [b"$40\r\n%b\r\n" % script.sha.encode() for script in (_service.PUBLISH, _service.FETCH)]
    role, info = b"*1\r\n$6\r\nmaster\r\n", b"$7\r\nnothing\r\n"
    async with fake_redis(hello, role, info, *sha) as url:
        await refusal(url)
    assert "failed" in "".join(
        each.message for each in caplog.records if each.levelno == logging.ERROR
    )


async def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    async with fake_redis() as url:
        assert "timed out" in await refusal(url, timeout=0.04)


async def test_a_room_that_becomes_stale_while_it_is_fetched_has_another_turn() -> None:
    _, broker = unserved()
    delivering = broker._delivering
    first, second = delivering.add("a"), delivering.add("b")
    assert delivering.take_stale(set()) == [first, second]
    assert not delivering.stale_news.is_set()
    delivering.mark_stale(first)
    third = delivering.add("c")
    assert delivering.take_stale({"a", "b"}) == [third]
    assert delivering.stale_news.is_set()
    assert delivering.take_stale(set()) == [first]
    assert not delivering.stale_news.is_set()
