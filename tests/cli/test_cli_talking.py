"""Talking: commands wait for a connection, however many it takes to obey them."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws import CloseInfo, WebSocket
from trio_ws._cli._talking import Talk
from trio_ws._cli._words import Close, Command, Help, Ping
from trio_ws.testing import open_pair


class Person:
    """Who commands, and sees what comes."""

    def __init__(self, *commands: Command) -> None:
        self.say, self._said = trio.open_memory_channel[Command](100)
        for command in commands:
            self.say.send_nowait(command)
        self.left = trio.Event()
        self.seen: list[object] = []

    async def next_command(self) -> Command | None:
        async for command in self._said:
            return command
        return None

    async def wait_left(self) -> None:
        await self.left.wait()

    def greet(self, url: object, ws: WebSocket) -> None: ...

    def show_message(self, message: str | bytes) -> None:
        self.seen.append(message)

    def show_latency(self, seconds: float) -> None:
        self.seen.append(seconds)

    def show_outage(self, error: Exception, seconds: float) -> None: ...

    def show_end(self, info: CloseInfo) -> None: ...

    def show_help(self) -> None:
        self.seen.append("help")


@asynccontextmanager
async def talking(person: Person, ping: float | None = None) -> AsyncGenerator[Talk, None]:
    """Obey a person; nobody has connected yet."""
    talk = Talk(person, linger=1, ping=ping)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.obey)
        nursery.start_soon(talk.leave_with_user)
        yield talk
        nursery.cancel_scope.cancel()


async def test_what_is_said_too_early_waits_for_a_connection(autojump_clock: object) -> None:
    person = Person("early", Help())
    async with talking(person) as talk, open_pair() as pair, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        assert person.seen == []
        nursery.start_soon(talk.hold, pair.client)
        assert await pair.server.receive() == "early"
        await pair.server.send("answer")
        await trio.sleep(1)
        assert person.seen == ["help", "answer"]
        await pair.server.aclose(4000)


async def test_what_a_connection_did_not_take_goes_over_the_next_one(
    autojump_clock: object,
) -> None:
    person = Person(Ping(), "and on")
    async with talking(person) as talk:
        async with open_pair() as pair:
            pair.link.stall()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk.hold, pair.client)
                await trio.sleep(1)
                pair.link.reset()
        assert person.seen == []
        async with open_pair() as pair, trio.open_nursery() as nursery:
            nursery.start_soon(talk.hold, pair.client)
            assert await pair.server.receive() == "and on"
            assert len(person.seen) == 1
            assert not talk.over
            await pair.server.aclose()


async def test_close_is_the_last_thing_that_is_done(autojump_clock: object) -> None:
    person = Person(Close(4000, "bye"), "too late")
    async with open_pair() as pair, talking(person) as talk:
        info = await talk.hold(pair.client)
        assert (info.code, info.reason, talk.over) == (4000, "bye", True)
        with pytest.raises(Exception, match="4000"):
            await pair.server.receive()


async def test_close_without_a_connection_ends_the_wait_for_one(autojump_clock: object) -> None:
    async with talking(Person(Close())) as talk:
        with trio.fail_after(5), talk.waiting:
            await trio.sleep_forever()
        assert talk.over


async def test_who_leaves_does_not_wait_until_all_is_sent(autojump_clock: object) -> None:
    person = Person("never sent")
    async with talking(person) as talk:
        await wait_all_tasks_blocked()
        person.left.set()
        with trio.fail_after(5), talk.waiting:
            await trio.sleep_forever()
        assert talk.over


async def test_who_leaves_a_connection_closes_it_in_turn(autojump_clock: object) -> None:
    person = Person()
    async with talking(person) as talk, open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(talk.hold, pair.client)
        await wait_all_tasks_blocked()
        person.left.set()
        await wait_all_tasks_blocked()
        assert talk.over
        assert pair.client.close_info is None
        await person.say.send("the last word")
        await person.say.send(Close())
        assert await pair.server.receive() == "the last word"
        assert (await pair.server.wait_closed()).code == 1000


async def test_after_the_last_command_each_connection_has_to_fall_silent(
    autojump_clock: object,
) -> None:
    person = Person()
    person.say.close()
    async with talking(person) as talk:
        async with open_pair() as pair, trio.open_nursery() as nursery:
            nursery.start_soon(talk.hold, pair.client)
            for _ in range(3):
                await trio.sleep(0.7)
                await pair.server.send("go on")
            await pair.server.aclose()
        await trio.sleep(10)
        assert not talk.over
        async with open_pair() as pair:
            began = trio.current_time()
            assert (await talk.hold(pair.client)).initiator == "local"
            assert trio.current_time() - began == 1
    assert person.seen == ["go on"] * 3


async def test_pings_are_sent_over_each_connection(autojump_clock: object) -> None:
    person = Person()
    async with (
        talking(person, ping=1) as talk,
        open_pair() as pair,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(talk.hold, pair.client)
        await trio.sleep(2.5)
        await pair.server.aclose()
    assert len(person.seen) == 3


async def test_when_nobody_takes_what_is_shown_it_ends(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        raise BrokenPipeError

    person = Person()
    monkeypatch.setattr(person, "show_message", broken)
    with (tmp_path / "stdout").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        async with talking(person) as talk, open_pair() as pair, trio.open_nursery() as nursery:
            await pair.server.send("seen enough")
            nursery.start_soon(talk.hold, pair.client)
            assert (await pair.server.wait_closed()).code == 1000
            assert talk.over
        stdout.write("into the void")
    assert (tmp_path / "stdout").read_text() == ""
