"""Three tests that find three bugs: run them with `buggy_chat` in place of `mended_chat`."""

from __future__ import annotations

import mended_chat as chat
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import Options
from trio_ws.testing import Link, Serve, cancellations, open_pair


async def test_no_message_is_lost_wherever_it_is_cancelled(autojump_clock: MockClock) -> None:
    async for attempt in cancellations():
        chat.history.clear()
        async with open_pair() as (client, server):
            await client.send("hello")
            await wait_all_tasks_blocked()  # it has arrived
            with attempt:
                await chat.relay(server, "ann")
            if not chat.history:
                with attempt.explaining(), trio.fail_after(1):
                    assert await server.receive() == "hello"


async def test_a_member_who_does_not_read_holds_up_nobody(
    serve: Serve, autojump_clock: MockClock
) -> None:
    connect = await serve(chat.chat, options=Options(compression=None))
    line = Link()
    async with connect() as ann, connect() as bob, connect(link=line) as carl:
        for ws, name in ((ann, "ann"), (bob, "bob"), (carl, "carl")):
            await ws.send(name)
        await trio.sleep(1)
        line.to_client.stall()
        with trio.fail_after(10):
            for _ in range(5):
                await ann.send("x" * 50_000)
                assert await bob.receive() == "ann: " + "x" * 50_000


async def test_who_never_says_a_name_is_not_waited_for(
    serve: Serve, autojump_clock: MockClock
) -> None:
    connect = await serve(chat.chat)
    async with connect() as ws:
        await trio.sleep(3600)
        assert ws.close_info is not None, "it has waited for an hour"
