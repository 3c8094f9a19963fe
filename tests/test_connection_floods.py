"""What a peer sends in one go must not hold up the rest of the program, nor break it."""

from __future__ import annotations

import pytest
import trio

from trio_ws._connection import TURN
from trio_ws.testing import Frame


async def test_other_tasks_get_their_turns_during_a_flood(connect_peer) -> None:
    us, peer = connect_peer()
    async with us, trio.open_nursery() as nursery:
        turns = await count_turns(nursery)
        await peer.send(*[Frame.ping(b"%d" % number) for number in range(20 * TURN)])
        while await peer.receive_frame() != Frame.pong(b"%d" % (20 * TURN - 1)):
            pass
        assert len(turns) >= 20
        await peer.aclose()
        nursery.cancel_scope.cancel()


async def test_frames_without_an_event_are_no_single_turn_either(connect_peer) -> None:
    us, peer = connect_peer()
    async with us, trio.open_nursery() as nursery:
        turns = await count_turns(nursery)
        fragments = [Frame.continuation(b"", fin=False)] * (20 * TURN)
        await peer.send(Frame.binary(b"", fin=False), *fragments, Frame.ping(b"last"))
        await peer.expect(Frame.pong(b"last"))
        assert len(turns) >= 20
        await peer.aclose()
        nursery.cancel_scope.cancel()


async def count_turns(nursery: trio.Nursery) -> list[None]:
    """Return a list that grows with each turn of a task."""
    turns: list[None] = []
    await trio.testing.wait_all_tasks_blocked()

    @nursery.start_soon
    async def count() -> None:
        while True:
            turns.append(None)
            await trio.lowlevel.checkpoint()

    return turns


@pytest.mark.parametrize("steps", range(12))
async def test_a_block_cancelled_while_its_connection_is_lost(connect_peer, steps: int) -> None:
    us, peer = connect_peer()
    with trio.CancelScope() as scope:
        async with us as ws:
            await trio.testing.wait_all_tasks_blocked()
            await peer.aclose()
            for _ in range(steps):
                await trio.lowlevel.cancel_shielded_checkpoint()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ws.close_info is not None
