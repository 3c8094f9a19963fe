"""What a peer sends in one go must not hold up the rest of the program, nor break it."""

from __future__ import annotations

import pytest
import trio
from _helpers import PING, memory_streams, session
from wsproto.events import Pong

from trio_ws._connection import TURN
from trio_ws._frames import BINARY, CONTINUATION


async def test_other_tasks_get_their_turns_during_a_flood(connect_raw) -> None:
    us, peer = connect_raw()
    pings = 20 * TURN
    turns = 0
    async with us, trio.open_nursery() as nursery:

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(count_turns)
        await peer.send(b"".join([peer.frame(PING, b"%d" % i) for i in range(pings)]))
        while True:
            event = await peer.next_event()
            if isinstance(event, Pong) and event.payload == b"%d" % (pings - 1):
                break
        assert turns >= 20
        await peer.aclose()
        nursery.cancel_scope.cancel()


async def test_frames_without_an_event_are_no_single_turn_either(connect_raw) -> None:
    us, peer = connect_raw()
    async with us, trio.open_nursery() as nursery:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(count_turns)
        fragments = [peer.frame(BINARY, b"", fin=False)]
        fragments += [peer.frame(CONTINUATION, b"", fin=False)] * (20 * TURN)
        await peer.send(b"".join(fragments) + peer.frame(PING, b"last"))
        while not isinstance(await peer.next_event(), Pong):
            pass
        assert turns >= 20
        await peer.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("steps", range(12))
async def test_a_block_cancelled_while_its_connection_is_lost(role, steps: int) -> None:
    ours, theirs = memory_streams()
    us = session(ours, role)
    with trio.CancelScope() as scope:
        async with us as ws:
            await trio.testing.wait_all_tasks_blocked()
            await theirs.aclose()
            for _ in range(steps):
                await trio.lowlevel.cancel_shielded_checkpoint()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_info is not None
