"""What Redis can do to rooms, one outage at a time; ``outages.py`` has all of them in a row."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from _components import PATIENCE, free_port, until
from _helpers import settle
from _redis import (
    RedisServer,
    impatient,
    open_cable,
    redis_server,
    refusal,
    signs_of_life,
    take,
)

from trio_ws import (
    START,
    BrokerDown,
    BrokerOverflow,
    Envelope,
    History,
    Joined,
    JoinRefused,
    Left,
    Missed,
    Rooms,
)
from trio_ws.redis import open_rooms
from trio_ws.rooms import Publication
from trio_ws.testing import open_pair

HISTORY = History()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


async def is_down(*rooms: Rooms) -> None:
    await until(lambda: all(each.degraded for each in rooms))


async def is_up(*rooms: Rooms) -> None:
    await until(lambda: not any(each.degraded for each in rooms))


def drop_links(redis: RedisServer) -> None:
    """Cut all connections, as a network does, while Redis goes on."""
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    redis.command("CLIENT", "KILL", "TYPE", "normal")


async def test_a_restart_of_redis_disconnects_nobody_and_is_announced(redis: RedisServer) -> None:
    terms: dict[str, Any] = {"history": HISTORY, "codec": Envelope()}
    async with (
        open_rooms(redis.url, **terms) as one,
        open_rooms(redis.url, **terms) as other,
        open_pair() as (client, server),
        other.join(server, "a", meta="Ann") as member,
    ):
        await one.publish("a", "before")
        assert json.loads(await client.receive())["resume"] == "new"
        assert json.loads(await client.receive())["data"] == "before"
        redis.kill()
        await is_down(one, other)
        assert str(redis.port) in str(one.degraded)
        assert one.statistics().degraded == one.degraded
        redis.start()
        await is_up(one, other)
        await one.publish("a", "after")
        with trio.fail_after(PATIENCE):
            assert json.loads(await client.receive())["resume"] == "lost"
            after = json.loads(await client.receive())
        assert after["data"] == "after"
        assert after["position"].endswith(":1")  # of a new epoch
        assert server.close_info is None
        async with open_rooms(redis.url) as third, third.presence("a") as late:
            assert [each.id for each in late.snapshot] == [member.id]


async def test_a_link_that_drops_costs_nothing_if_there_is_a_history(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url, history=HISTORY) as one,
        open_rooms(redis.url, history=HISTORY) as other,
        other.subscribe("a", "b") as messages,
    ):
        for number in range(0, 40, 4):
            drop_links(redis)
            await one.publish("a", number)
            await one.publish(["b", "a"], number + 1)
            await one.publish(["a", "b"], number + 2)
            await one.publish("b", number + 3)
        assert await take(messages, 40) == list(range(40))


async def test_what_was_missed_is_announced_in_its_place(redis: RedisServer) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url, history=History(count=2)) as one,
        open_rooms(cable.url, history=History(count=2)) as other,
        other.subscribe("a", "b") as messages,
    ):
        await one.publish("a", 0)
        assert await take(messages, 1) == [0]  # before the cut, not what is fetched after it
        cable.cut()
        for number in (1, 2, 3):
            await one.publish("a", number)
        await one.publish("b", "there is all of this")
        cable.mend()
        assert await take(messages, 4) == [Missed(None), 2, 3, "there is all of this"]


async def test_without_a_history_what_was_missed_is_announced(redis: RedisServer) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url) as one,
        open_rooms(cable.url) as other,
        other.subscribe("a") as noisy,
        other.subscribe("b") as quiet,
    ):
        cable.cut()
        await one.publish("a", "unheard")
        cable.mend()
        assert await take(noisy, 1) == [Missed(None)]
        await one.publish(["a", "b"], "heard")
        assert await take(noisy, 1) == ["heard"]
        assert await take(quiet, 1) == ["heard"]  # and nothing else: nothing was missed


async def test_a_network_that_swallows_everything_is_noticed(redis: RedisServer) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url, history=HISTORY) as one,
        open_rooms(cable.url, history=HISTORY, timeout=0.3, patience=PATIENCE) as other,
        other.subscribe("a") as messages,
        trio.open_nursery() as nursery,
    ):
        cable.hold()
        await one.publish("a", 1)
        nursery.start_soon(other.publish, "a", 2)
        await is_down(other)
        cable.release()
        assert sorted(await take(messages, 2)) == [1, 2]


async def test_a_slow_network_delays_and_nothing_else(redis: RedisServer) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url) as one,
        open_rooms(cable.url) as other,
        other.subscribe("a") as messages,
    ):
        cable.delay = 0.1
        for number in range(30):
            await one.publish("a", number)
        assert await take(messages, 30) == list(range(30))
        assert other.degraded is None


async def test_a_frozen_redis_is_noticed_and_nothing_is_lost_or_doubled(
    redis: RedisServer,
) -> None:
    terms: dict[str, Any] = {"history": HISTORY, "timeout": 0.3, "patience": PATIENCE}
    async with (
        open_rooms(redis.url, **terms) as one,
        open_rooms(redis.url, **terms) as other,
        other.subscribe("a") as messages,
        trio.open_nursery() as nursery,
    ):
        redis.signal(signal.SIGSTOP)
        for number in range(3):
            nursery.start_soon(one.publish, "a", number)
        await is_down(one, other)
        assert "does not answer" in str(one.degraded)
        await trio.sleep(0.5)  # attempts to connect meet a server that says nothing
        redis.signal(signal.SIGCONT)
        assert sorted(await take(messages, 3)) == [0, 1, 2]
        await is_up(one, other)
        await one.publish("a", 3)
        assert await take(messages, 1) == [3]


# The publisher...


async def test_a_publisher_waits_and_then_is_told(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url, patience=PATIENCE) as rooms,
        rooms.subscribe("a") as messages,
    ):
        redis.kill()
        await is_down(rooms)
        with impatient(rooms), pytest.raises(BrokerDown, match="no connection") as caught:
            await rooms.publish("a", "given up")
        assert not caught.value.uncertain
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rooms.publish, "a", "in time")
            await settle()
            redis.start()
        assert await take(messages, 2) == [Missed(None), "in time"]


async def test_a_publisher_is_told_if_nobody_knows(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms:
        redis.signal(signal.SIGSTOP)
        caught: list[BrokerDown] = []

        async def publish() -> None:
            try:
                await rooms.publish("a", "x")
            except BrokerDown as exc:
                caught.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await settle()  # it is sent
            redis.kill()
            redis.start()
        assert caught[0].uncertain


async def test_patience_ends_while_redis_is_silent(redis: RedisServer) -> None:
    async with open_rooms(redis.url, timeout=60) as rooms:
        redis.signal(signal.SIGSTOP)
        with impatient(rooms), pytest.raises(BrokerDown, match="slow") as caught:
            await rooms.publish("a", "x")
        assert caught.value.uncertain
        redis.signal(signal.SIGCONT)


async def test_a_batch_that_redis_has_published_unheard_is_not_published_again(
    redis: RedisServer,
) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url, history=HISTORY) as one,
        open_rooms(cable.url, history=HISTORY) as other,
        one.subscribe("a") as messages,
        other.subscribe("a") as own,
        trio.open_nursery() as nursery,
    ):
        cable.hold("back")
        nursery.start_soon(other.publish, "a", "once")
        assert await take(messages, 1) == ["once"]  # and the reply is on its way
        cable.cut()
        cable.release()
        cable.mend()
        assert await take(own, 1) == ["once"]
        await other.publish("a", "then")
        assert await take(messages, 1) == ["then"]
        assert await take(own, 1) == ["then"]


async def test_too_many_who_wait_are_told(redis: RedisServer) -> None:
    async with open_rooms(redis.url, max_waiting=3) as rooms:
        redis.kill()
        await is_down(rooms)
        problems: list[type[BrokerDown]] = []

        async def publish() -> None:
            try:
                await rooms.publish("a", "x")
            except BrokerDown as exc:
                problems.append(type(exc))

        with impatient(rooms, 0.5):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(publish)
        assert problems == [BrokerOverflow, BrokerDown, BrokerDown, BrokerDown]


async def test_who_publishes_when_the_block_ends_is_told(redis: RedisServer) -> None:
    async with trio.open_nursery() as nursery, open_rooms(redis.url) as rooms:
        redis.kill()
        await is_down(rooms)

        async def publish() -> None:
            with pytest.raises(BrokerDown, match="closed"):
                await rooms.publish("a", "x")

        nursery.start_soon(publish)
        await trio.testing.wait_all_tasks_blocked()


async def test_a_room_cannot_be_entered_without_redis(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms, rooms.subscribe("a"):
        redis.kill()
        await is_down(rooms)
        async with rooms.subscribe("a"):
            pass  # it is open already
        with impatient(rooms), pytest.raises(JoinRefused, match="now") as caught:
            async with rooms.subscribe("b"):
                pytest.fail("it is not open")
        assert isinstance(caught.value.__cause__, BrokerDown)
        assert str(redis.port) not in str(caught.value)  # a peer may be told of it
        redis.start()
        await is_up(rooms)
        async with rooms.subscribe("b"):
            pass


async def test_entering_that_is_cancelled_leaves_nothing(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms:
        redis.kill()
        await is_down(rooms)
        with trio.move_on_after(0.05) as scope:
            async with rooms.subscribe("b"):
                pytest.fail("it is not open")
        assert scope.cancelled_caught
        redis.start()
        await is_up(rooms)
        assert rooms.statistics().rooms == {}


# What operators hear...


async def test_operators_are_told_once_each_way(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str | None] = []
    async with open_rooms(redis.url, on_degraded=heard.append) as rooms:
        assert rooms.degraded is None
        redis.kill()
        await is_down(rooms)
        await trio.sleep(0.2)
        redis.start()
        await is_up(rooms)
        assert len(heard) == 2
        assert "no connection to Redis" in str(heard[0])
        assert heard[1] is None
    ours = [each.message for each in caplog.records if each.name == "trio_ws"]
    assert ours == [f"rooms: {heard[0]}", "rooms: Redis is back"]


async def test_a_hook_that_fails_is_logged(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reason: str | None) -> None:
        raise ValueError("the hook's own")

    async with open_rooms(redis.url, on_degraded=fail) as rooms:
        redis.kill()
        await is_down(rooms)
        redis.start()
        await is_up(rooms)
    assert "the hook's own" in caplog.text


# In this process alone...


async def test_members_of_one_process_go_on_hearing_each_other(redis: RedisServer) -> None:
    terms: dict[str, Any] = {"history": HISTORY, "local": True}
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url, **terms) as one,
        open_rooms(cable.url, **terms) as other,
        one.subscribe("a", "b") as there,
        other.subscribe("a", "b") as here,
    ):
        await one.publish("a", 0)
        assert await take(here, 1) == [0]
        cable.cut()
        await is_down(other)
        assert await other.publish("a", "local") == 1
        assert await other.publish(["a", "b"], "in both") == 1
        await other.publish("elsewhere", "unheard")
        await one.publish("a", "remote")
        assert await take(here, 2) == ["local", "in both"]
        cable.mend()
        await is_up(other)
        assert await take(here, 1) == ["remote"]
        await one.publish("a", "all")
        # who was not here hears that something is missing, in both rooms, and then what follows
        assert await take(there, 4) == [0, "remote", Missed(None), "all"]
        assert await take(here, 1) == ["all"]


async def test_what_is_said_alone_while_redis_is_asked_is_announced_too(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms: dict[str, Any] = {"history": HISTORY, "local": True}
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url, **terms) as one,
        open_rooms(cable.url, **terms) as other,
        one.subscribe("a") as there,
        other.subscribe("a") as here,
    ):
        broker: Any = other._broker
        ask = broker._service._ask

        async def ask_and_publish(*arguments: Any, **terms: Any) -> Any:
            monkeypatch.undo()
            answer = await ask(*arguments, **terms)
            assert await take(there, 1) == [Missed(None)]
            assert other.degraded
            await other.publish("a", "alone again")
            return answer

        cable.cut()
        await is_down(other)
        await other.publish("a", "alone")
        monkeypatch.setattr(broker._service, "_ask", ask_and_publish)
        cable.mend()
        await is_up(other)
        assert await take(there, 1) == [Missed(None)]
        await one.publish("a", "all")
        assert await take(there, 1) == ["all"]
        assert await take(here, 3) == ["alone", "alone again", "all"]


async def test_what_is_said_alone_between_two_steps_of_catching_up_costs_nothing_here(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(redis.url) as one,
        open_rooms(cable.url, local=True) as other,
        one.subscribe("a", "b") as there,
        other.subscribe("a", "b") as here,
    ):
        broker: Any = other._broker
        jump = broker._delivering._jump

        def jump_and_publish(*step: Any) -> None:
            monkeypatch.undo()
            jump(*step)
            again = Publication(("a",), "alone again", "alone again", waits=True)
            broker._delivering.publish_alone(again)  # others can run before the jump of "b"

        cable.cut()
        await is_down(other)
        await other.publish(["a", "b"], "alone")
        monkeypatch.setattr(broker._delivering, "_jump", jump_and_publish)
        cable.mend()
        assert await take(here, 2) == ["alone", "alone again"]
        await is_up(other)
        await until(lambda: not broker._delivering.unsaid | broker._delivering.stale.keys())
        await one.publish(["a", "b"], "all")
        assert await take(here, 1) == ["all"]
        announced = await take(there, 2)
        while announced[-1] != "all":
            announced += await take(there, 1)
        assert set(announced[:-1]) == {Missed(None)}


async def test_rooms_can_be_entered_alone(redis: RedisServer) -> None:
    terms: dict[str, Any] = {"history": HISTORY, "local": True}
    async with open_rooms(redis.url, **terms) as one:
        await one.publish("a", "before")
        async with open_cable(redis.port) as cable, open_rooms(cable.url, **terms) as other:
            cable.cut()
            await is_down(other)
            async with other.subscribe("a", since=START) as here:
                await other.publish("a", "alone")
                assert await take(here, 1) == ["alone"]
                cable.mend()
                assert await take(here, 1) == [Missed(None)]
                await is_up(other)
                await one.publish("a", "all")
                assert await take(here, 1) == ["all"]
            async with other.subscribe("a", since=START) as late:
                assert await take(late, 2) == ["before", "all"]


async def test_a_publisher_who_was_waiting_goes_on_alone(redis: RedisServer) -> None:
    async with (
        open_cable(redis.port) as cable,
        open_rooms(cable.url, local=True) as rooms,
        rooms.subscribe("a") as messages,
    ):
        cable.hold()
        async with trio.open_nursery() as nursery:
            with impatient(rooms):
                nursery.start_soon(_publish_until_certain, rooms, "sent")
                await settle()
            with impatient(rooms, 1):
                nursery.start_soon(rooms.publish, "a", "waiting")
                await settle()
            cable.cut()
        assert await take(messages, 1) == ["waiting"]


async def _publish_until_certain(rooms: Rooms, data: str) -> None:
    with pytest.raises(BrokerDown) as caught:
        await rooms.publish("a", data)
    assert caught.value.uncertain


# Redis without memory, scripts, data, or its primary...


async def test_a_redis_without_memory_is_named_and_nothing_is_lost(
    redis: RedisServer, brisk: None
) -> None:
    async with (
        open_rooms(redis.url) as rooms,
        rooms.subscribe("a") as messages,
        open_pair() as (_, server),
        rooms.presence("a") as presence,
    ):
        redis.command("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(BrokerDown, match="memory") as caught:
            await rooms.publish("a", "refused")
        assert not caught.value.uncertain
        assert "memory" in str(rooms.degraded)
        async with rooms.join(server, "a", meta="Ann") as member:
            with trio.fail_after(PATIENCE):
                assert await presence.receive() == Joined("a", member.id, "Ann")
            await signs_of_life(redis, 1)
            assert "memory" in str(rooms.degraded)
        redis.command("CONFIG", "SET", "maxmemory", "0")
        await is_up(rooms)
        await rooms.publish("a", "taken")
        assert await take(messages, 1) == ["taken"]


async def test_without_memory_members_of_one_process_go_on_too(
    redis: RedisServer, brisk: None
) -> None:
    async with (
        open_rooms(redis.url, local=True) as one,
        open_rooms(redis.url, local=True) as other,
        one.subscribe("a") as here,
        other.subscribe("a") as there,
    ):
        redis.command("CONFIG", "SET", "maxmemory", "1mb")
        assert await one.publish("a", "refused, so alone") == 1
        assert await one.publish("a", "alone") == 1
        redis.command("CONFIG", "SET", "maxmemory", "0")
        await is_up(one, other)
        assert await take(there, 1) == [Missed(None)]
        await other.publish("a", "all")
        assert await take(there, 1) == ["all"]
        assert await take(here, 3) == ["refused, so alone", "alone", "all"]


async def test_scripts_that_were_removed_are_loaded_again(redis: RedisServer) -> None:
    async with open_rooms(redis.url) as rooms, rooms.subscribe("a") as messages:
        redis.command("SCRIPT", "FLUSH")
        await rooms.publish("a", "x")
        assert await take(messages, 1) == ["x"]


async def test_data_that_was_removed_is_announced(redis: RedisServer) -> None:
    async with (
        open_rooms(redis.url, history=HISTORY) as one,
        open_rooms(redis.url, history=HISTORY) as other,
        other.subscribe("a", "b") as messages,
    ):
        await one.publish("a", 1)
        redis.command("FLUSHALL")
        await one.publish("a", 2)
        await one.publish(["a", "b"], 3)
        assert await take(messages, 5) == [1, Missed(None), 2, Missed(None), 3]


async def test_a_key_of_somebody_else_spoils_its_room_only(redis: RedisServer) -> None:
    async with open_rooms(redis.url, history=HISTORY) as rooms, rooms.subscribe("b") as messages:
        redis.command("SET", "trio_ws:{a}:history", "what is this")
        with pytest.raises(BrokerDown, match="WRONGTYPE"):
            await rooms.publish("a", "x")
        await rooms.publish("b", "y")
        assert await take(messages, 1) == ["y"]


async def test_a_primary_that_becomes_a_replica_is_left(redis: RedisServer) -> None:
    with redis_server() as other:
        async with open_rooms(redis.url) as rooms, rooms.subscribe("a") as messages:
            redis.command("REPLICAOF", "127.0.0.1", str(other.port))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rooms.publish, "a", "at last")
                await is_down(rooms)
                await until(lambda: "replica" in str(rooms.degraded))
                redis.command("REPLICAOF", "NO", "ONE")
            received = await take(messages, 1)
            while received[-1] != "at last":
                assert received == [Missed(None)]  # it has begun to forget
                received = await take(messages, 1)


async def test_a_replica_is_not_written_to(redis: RedisServer) -> None:
    redis.command("REPLICAOF", "127.0.0.1", "1")
    assert "this Redis is a replica" in await refusal(redis.url)


async def test_sentinel_leads_to_the_replica_that_takes_over(
    redis: RedisServer, tmp_path: Path
) -> None:
    redis.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with redis_server("--replicaof", f"127.0.0.1 {redis.port}") as replica:
        await until(lambda: b"master_link_status:up" in replica.command("INFO", "replication"))
        with sentinel(redis.port, tmp_path) as port:
            missing = free_port()
            url = f"redis+sentinel://127.0.0.1:{missing},127.0.0.1:{port}/main"
            async with (
                open_rooms(url, history=HISTORY, timeout=1) as rooms,
                rooms.subscribe("a") as messages,
            ):
                await rooms.publish("a", 1)
                redis.kill()
                await is_down(rooms)
                with trio.fail_after(PATIENCE):
                    while await fails(rooms, 2):
                        pass
                assert await take(messages, 3) == [1, Missed(None), 2]
                assert replica.command("EXISTS", "trio_ws:{a}:history") == b":1\r\n"


async def fails(rooms: Rooms, data: object) -> bool:
    try:
        await rooms.publish("a", data)
    except BrokerDown as exc:
        return not exc.uncertain
    return False


@contextmanager
def sentinel(primary: int, folder: Path) -> Iterator[int]:
    """Run a Redis Sentinel that watches over "main"; yield its port."""
    file = folder / "sentinel.conf"
    file.write_text(
        f"sentinel monitor main 127.0.0.1 {primary} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
    )
    server = RedisServer(folder, config=file)
    server.start("--sentinel")
    try:
        yield server.port
    finally:
        server.stop()


async def test_a_sentinel_that_knows_nothing_is_named(redis: RedisServer, tmp_path: Path) -> None:
    with sentinel(redis.port, tmp_path) as port:
        url = f"redis+sentinel://127.0.0.1:{port}/other"
        said = f"no Sentinel knows 'other': 127.0.0.1:{port}: it does not know it"
        assert said in await refusal(url)


# Who may do what...


async def test_a_user_with_no_more_rights_than_needed(redis: RedisServer) -> None:
    assert redis.command("ACL", "SETUSER", "chat", "on", ">secret", *ACL) == b"+OK\r\n"
    redis.command("ACL", "SETUSER", "default", "off")
    url = f"redis://chat:secret@127.0.0.1:{redis.port}"
    async with (
        open_rooms(url, history=HISTORY, local=True) as one,
        open_rooms(url, history=HISTORY) as other,
        other.subscribe("a", since=START) as messages,
        other.presence("a") as presence,
        open_pair() as (_, server),
    ):
        async with one.join(server, "a"):
            await one.publish("a", "x")
            assert await take(messages, 1) == ["x"]
        with trio.fail_after(PATIENCE):
            assert isinstance(await presence.receive(), Joined)
            assert isinstance(await presence.receive(), Left)
        assert (one.degraded, other.degraded) == (None, None)


async def test_a_right_that_is_missing_is_named(redis: RedisServer) -> None:
    redis.command("ACL", "SETUSER", "chat", "on", ">secret", *ACL, "-get")
    url = f"redis://chat:secret@127.0.0.1:{redis.port}"
    async with open_rooms(url) as rooms:
        with pytest.raises(BrokerDown, match="can't run this command"):
            await rooms.publish("a", "x")
    redis.command("ACL", "SETUSER", "chat", "-time")
    async with open_rooms(url, patience=PATIENCE) as rooms, trio.open_nursery() as nursery:
        nursery.start_soon(rooms.subscribe("a").__aenter__)
        await until(lambda: "can't run this command" in str(rooms.degraded))
        with impatient(rooms), pytest.raises(JoinRefused) as caught:
            async with rooms.subscribe("b"):
                pytest.fail("nothing can be fetched")
        nursery.cancel_scope.cancel()
    assert "can't run this command" in str(caught.value.__cause__)


HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "redis.rst"
ACL = next(
    line.split(">a-long-password ")[1].split()
    for line in HOWTO.read_text().splitlines()
    if "ACL SETUSER" in line
)


@pytest.mark.parametrize("credentials", ["", "chat:wrong@"])
async def test_a_wrong_password_is_named(redis: RedisServer, credentials: str) -> None:
    redis.command("CONFIG", "SET", "requirepass", "secret")
    url = f"redis://{credentials}127.0.0.1:{redis.port}"
    assert re.search(r"(?i)auth|password", await refusal(url))
    redis.command("AUTH", "secret")


async def test_something_else_that_listens_is_no_redis() -> None:
    async def babble(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, babble, 0)
        port = listeners[0].socket.getsockname()[1]
        assert str(port) in await refusal(f"redis://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


# All of them in a row...


def test_nothing_is_lost_in_silence_doubled_or_reordered_whatever_happens_to_redis() -> None:
    """And delivery goes on, here on any machine: ``nox -s outages`` wants it within a second."""
    program = Path(__file__).with_name("outages.py")
    size = ["--members", "5", "--outages", "5", "--pause", "0.1", "--soon", "60"]
    subprocess.run(  # noqa: S603  # our own program
        [sys.executable, program, *size], check=True, timeout=600
    )
