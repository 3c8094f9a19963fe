"""Rooms of two processes on one Redis: here two `open_rooms` side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from _components import PATIENCE, until
from _redis import RedisServer, redis_server, refusal, signs_of_life, take

from trio_ws import (
    START,
    Codec,
    Envelope,
    History,
    Joined,
    Left,
    Missed,
    Overflow,
    Resume,
    Rooms,
)
from trio_ws.redis import open_rooms
from trio_ws.testing import open_pair


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    shared.command("FLUSHALL")
    return shared


async def test_what_is_published_in_one_process_is_received_in_another(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        one.subscribe("a") as here,
        other.subscribe("a", "b") as there,
    ):
        data = {"text": "Grüße", "n": 1}
        assert await one.publish("a", data) == 1  # those of this process are counted
        assert await one.publish(["a", "b"], b"\0") == 1
        assert await other.publish("nowhere", "x") == 0
        assert await take(there, 2) == [data, b"\0"]
        assert await take(here, 2) == [data, b"\0"]
        assert here.last is not None
        assert there.last is not None
        assert here.last.position == there.last.position
        assert here.last.data == b"\0"


async def test_all_processes_see_one_order(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        one.subscribe("a", buffer=1000) as here,
        other.subscribe("a", buffer=1000) as there,
        trio.open_nursery() as nursery,
    ):

        async def publish(rooms: Rooms, name: str) -> None:
            for number in range(20):
                await rooms.publish("a", f"{name} {number}")

        for index in range(10):
            nursery.start_soon(publish, (one, other)[index % 2], str(index))
        assert await take(here, 200) == await take(there, 200)


async def test_a_message_to_several_rooms_comes_once(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        other.subscribe("a", "b", "c") as there,
    ):
        await one.publish(["a", "b", "x"], 1)
        await one.publish(["c", "b"], 2)
        await one.publish("a", 3)
        assert await take(there, 3) == [1, 2, 3]


async def test_members_are_excluded_and_chosen_by_name_across_processes(
    redis: RedisServer,
) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        open_pair() as (client, server),
        other.join(server, "a", name="bob") as member,
    ):
        await one.publish("a", "1", exclude={"bob"})
        await one.publish("a", "2", only={"eve"})
        await one.publish("a", "3", only={member.id})
        with trio.fail_after(PATIENCE):
            assert await client.receive() == "3"


async def test_what_was_missed_is_replayed_in_another_process(redis: RedisServer) -> None:
    terms: dict[str, Any] = {"history": History(count=3), "codec": Envelope()}
    async with open_rooms(redis.url, **terms) as one, open_rooms(redis.url, **terms) as other:
        async with one.subscribe("a") as messages:
            for text in "1234":
                await one.publish("a", text)
            await take(messages, 2)
            assert messages.last is not None
            seen = messages.last.position
        async with other.subscribe("a", since=seen) as messages:
            assert messages.resumed("a") is Resume.COMPLETE
            assert await take(messages, 2) == ["3", "4"]
        async with other.subscribe("a", since=START) as messages:
            assert await take(messages, 3) == ["2", "3", "4"]
            assert [each.data for each in other.history("a")] == ["2", "3", "4"]
            assert other.statistics().history_messages == 3
            assert other.statistics().history_memory > 3000
        assert other.history("a") == ()  # nobody of this process is in the room


async def test_the_history_in_redis_is_bounded_in_bytes_and_in_age(redis: RedisServer) -> None:
    async with open_rooms(redis.url, history=History(size=2500, age=60)) as one:
        for text in ("a" * 1000, "b" * 1000, "c" * 1000):
            await one.publish("a", text)
        assert redis.command("LLEN", "trio_ws:{a}:history") == b":2\r\n"
        let_pass(redis, 40)
        await one.publish("a", "new")
        let_pass(redis, 40)
        async with one.subscribe("a", since=START) as messages:
            assert await take(messages, 1) == ["new"]
        await one.publish("a", "newer")
        assert redis.command("LLEN", "trio_ws:{a}:history") == b":2\r\n"
        assert 0 < int(redis.command("TTL", "trio_ws:{a}:history")[1:]) <= 60
        redis.command("DEL", "trio_ws:{a}:history")  # as if it had expired
        await one.publish("a", "newest")  # its size is counted anew
        assert redis.command("HGET", "trio_ws:{a}:state", "size")[:3] == b"$2\r"


def let_pass(redis: RedisServer, seconds: int) -> None:
    """Make what is kept of a room look as old as if so much time had passed."""
    redis.command("EVAL", AGE, "1", "trio_ws:{a}:history", str(seconds * 1_000_000))


AGE = """
for index, record in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local stamp, rest = string.match(record, '^M(%d+)(.*)$')
  local older = string.format('M%.0f', tonumber(stamp) - tonumber(ARGV[1]))
  redis.call('LSET', KEYS[1], index - 1, older .. rest)
end
"""


async def test_without_bounds_nothing_expires(redis: RedisServer) -> None:
    endless = History(count=None, size=None, age=None)
    async with open_rooms(redis.url, history=endless) as one, one.subscribe("a"):
        await one.publish("a", "x")
        for key in ("state", "history"):
            assert redis.command("TTL", f"trio_ws:{{a}}:{key}") == b":-1\r\n"


async def test_prefixes_keep_programs_apart(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url, prefix="one") as one,
        open_rooms(redis.url, prefix="two") as two,
        two.subscribe("a") as messages,
    ):
        await one.publish("a", "one")
        await two.publish("a", "two")
        assert await take(messages, 1) == ["two"]


@pytest.mark.parametrize("room", ["", "ü/{}:x", "\ud800", "a" * 1000, "new\nline \0"])
async def test_any_string_is_the_name_of_a_room(redis: RedisServer, room: str) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        other.subscribe(room) as messages,
    ):
        await one.publish(room, "x")
        assert await take(messages, 1) == ["x"]


async def test_what_the_codec_refuses_is_not_sent(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as one, one.subscribe("a") as messages:
        with pytest.raises(TypeError):
            await one.publish("a", object())
        with pytest.raises(UnicodeEncodeError):
            await one.publish("a", "\ud800")
        await one.publish("a", "fine")
        assert await take(messages, 1) == ["fine"]
        assert messages.last is not None
        assert messages.last.position.offset == 1


class Peculiar(Codec):
    def decode(self, payload: Any) -> Any:
        raise ValueError("another version has written that")


async def test_what_cannot_be_decoded_is_known_to_be_missing(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_rooms(redis.url, history=History()) as one,
        open_rooms(redis.url, history=History(), codec=Peculiar()) as other,
        other.subscribe("a") as messages,
    ):
        await one.publish("a", "1")
        await one.publish("a", {"n": 2})
        await one.publish("a", "3")
        assert await take(messages, 3) == ["1", Missed(None), "3"]
        async with (
            open_rooms(redis.url, history=History(), codec=Peculiar()) as third,
            third.subscribe("a", since=START) as late,
        ):
            assert await take(late, 1) == ["3"]
    assert "could not be decoded" in caplog.text


async def test_publishing_at_once_is_refused(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms:
        with pytest.raises(RuntimeError, match=r"await rooms\.publish"):
            rooms.publish_nowait("a", "x")


async def test_a_thread_publishes(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms, rooms.subscribe("a") as messages:
        assert await trio.to_thread.run_sync(rooms.publish_from_thread, "a", "x") == 1
        assert await take(messages, 1) == ["x"]


# Waiting for members...


async def test_a_publisher_waits_for_patient_members_of_its_own_process_only(
    redis: RedisServer,
) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        one.subscribe("a", buffer=1, overflow=Overflow.WAIT) as here,
        other.subscribe("a", buffer=1, overflow=Overflow.WAIT) as there,
    ):
        await one.publish("a", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.publish, "a", 2)
            await until(lambda: one.statistics().total.waiting == 1)
            assert await take(here, 2) == [1, 2]
        await until(lambda: other.statistics().total.dropped == 1)
        assert await take(there, 2) == [1, Missed(1)]


async def test_cancelling_a_publisher_leaves_nobody_waiting(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url) as one,
        one.subscribe("a", buffer=1, overflow=Overflow.WAIT) as here,
    ):
        await one.publish("a", 1)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.publish, "a", 2)
                await until(lambda: one.statistics().total.waiting == 1)
                scope.cancel()
        assert one.statistics().total.waiting == 0
        assert await take(here, 2) == [1, Missed(1)]


async def test_cancelling_before_it_was_sent_publishes_nothing(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as one, one.subscribe("a") as here:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.publish, "a", 1)
                scope.cancel()
        await one.publish("a", 2)
        assert await take(here, 1) == [2]


# Presence...


async def test_presence_tells_of_all_processes(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        other.presence("a") as presence,
        open_pair() as (_, server),
    ):
        async with one.join(server, "a", meta={"name": "Ann"}) as member:
            with trio.fail_after(PATIENCE):
                assert await presence.receive() == Joined("a", member.id, {"name": "Ann"})
            async with open_rooms(redis.url) as third, third.presence("a") as late:
                assert [each.id for each in late.snapshot] == [member.id]
        with trio.fail_after(PATIENCE):
            assert await presence.receive() == Left("a", member.id, {"name": "Ann"})


async def test_a_process_that_says_goodbye_takes_its_people_along(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as one, one.presence("a") as presence:
        async with open_pair() as (_, server):
            async with open_rooms(redis.url) as other:
                joining = other.join(server, "a")
                await joining.__aenter__()
                with trio.fail_after(PATIENCE):
                    assert isinstance(await presence.receive(), Joined)
            with trio.fail_after(PATIENCE):
                assert isinstance(await presence.receive(), Left)
            await joining.__aexit__(None, None, None)
        assert redis.command("EXISTS", "trio_ws:{a}:presence") == b":0\r\n"


async def test_a_process_that_ends_without_a_word_is_missed_after_a_while(
    redis: RedisServer, brisk: None
) -> None:
    async with open_rooms(redis.url) as one, one.presence("a") as presence:
        redis.command("HSET", "trio_ws:{b}:presence", "dead 1", '"Ann"')
        async with one.presence("b") as ghosts:
            assert [each.id for each in ghosts.snapshot] == ["1"]
            with trio.fail_after(PATIENCE):
                assert await ghosts.receive() == Left("b", "1", "Ann")
            await until(lambda: redis.command("EXISTS", "trio_ws:{b}:presence") == b":0\r\n")
        assert presence.snapshot == ()


async def test_a_process_that_lives_is_not_missed(redis: RedisServer, brisk: None) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_rooms(redis.url) as other,
        open_pair() as (_, server),
        one.join(server, "a"),
        other.presence("a") as presence,
    ):
        with trio.fail_after(PATIENCE):
            if not presence.snapshot:
                await presence.receive()
        for _ in range(10):
            await signs_of_life(redis, 2)
        with trio.move_on_after(0.1) as scope:
            await presence.receive()
        assert scope.cancelled_caught


async def test_a_process_that_others_hold_to_be_dead_says_that_it_is_not(
    redis: RedisServer, brisk: None
) -> None:
    async with (
        open_rooms(redis.url) as one,
        open_pair() as (_, server),
        one.join(server, "a", meta="Ann") as member,
    ):
        await until(lambda: redis.command("EXISTS", "trio_ws:{a}:presence") == b":1\r\n")
        redis.command("DEL", "trio_ws:{a}:presence")
        redis.command("EVAL", "redis.call('DEL', unpack(redis.call('KEYS', '*:alive:*')))", "0")
        await until(lambda: redis.command("EXISTS", "trio_ws:{a}:presence") == b":1\r\n")
        async with open_rooms(redis.url) as other, other.presence("a") as presence:
            assert [each.id for each in presence.snapshot] == [member.id]


async def test_a_meta_that_others_cannot_be_told_is_refused_at_once(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as one, open_pair() as (_, server):
        with pytest.raises(TypeError, match="meta"):
            one.join(server, "a", meta=object())


# The block...


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prefix": "a b"}, ValueError),
        ({"prefix": 3}, ValueError),
        ({"patience": 0}, ValueError),
        ({"patience": "1"}, TypeError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": True}, TypeError),
        ({"max_waiting": -1}, ValueError),
        ({"history": 5}, TypeError),
        ({"codec": 5}, TypeError),
        ({"on_join": 5}, TypeError),
        ({"limits": 5}, TypeError),
        ({"max_waiting_bytes": "1"}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        open_rooms("redis://h", **arguments)


async def test_the_block_raises_if_nobody_is_there() -> None:
    with redis_server() as server:
        server.stop()
        assert f"127.0.0.1:{server.port}" in await refusal(server.url)


async def test_what_the_block_raises_comes_out_as_it_is(redis: RedisServer) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_rooms(redis.url):
            raise error
    assert caught.value is error


async def test_a_block_is_entered_once(redis: RedisServer) -> None:
    opening = open_rooms(redis.url)
    async with opening:
        pass
    with pytest.raises(RuntimeError, match="again"):
        async with opening:
            pass


async def test_behind_the_block_nothing_works_and_nothing_hangs(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms:
        pass
    with pytest.raises(trio.ClosedResourceError, match="block"):
        await rooms.publish("a", "x")
    with pytest.raises(trio.ClosedResourceError, match="block"):
        async with rooms.subscribe("a"):
            pass


async def test_a_cancelled_block_ends(redis: RedisServer) -> None:
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with open_rooms(redis.url) as rooms, rooms.subscribe("a"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_entering_can_be_cancelled() -> None:
    with redis_server() as server:
        server.stop()
        with trio.fail_after(PATIENCE), trio.move_on_after(0.1) as scope:
            async with open_rooms(server.url, patience=60):
                pass
        assert scope.cancelled_caught
