from __future__ import annotations

import pytest
import trio
from _helpers import settle

from trio_ws import BrokerDown, BrokerOverflow
from trio_ws.redis._outgoing import BATCH, BATCH_BYTES, Batch, Outgoing, Pending
from trio_ws.rooms import Publication


def pending(size: int = 1) -> Pending:
    return Pending(Publication(("a",), "x", "x"), b"x" * size, "p:1")


def filled(outgoing: Outgoing, count: int, size: int = 1) -> list[Pending]:
    result = [pending(size) for _ in range(count)]
    for each in result:
        outgoing.put(each)
    return result


def next_batch(outgoing: Outgoing, run: str = "1") -> Batch:
    batch = outgoing.next_batch(run)
    assert batch is not None
    return batch


async def test_what_waits_is_sent_in_batches_in_order() -> None:
    outgoing = Outgoing()
    waiting = filled(outgoing, BATCH + 1)
    batch = next_batch(outgoing)
    assert batch.pending == waiting[:BATCH]
    assert all(each.sent for each in batch.pending)
    assert outgoing.acknowledge(batch, []) == waiting[:BATCH]
    assert all(each.acknowledged for each in batch.pending)
    second = next_batch(outgoing)
    assert second.pending == waiting[BATCH:]
    assert second.number > batch.number
    outgoing.acknowledge(second, [""])
    assert outgoing.next_batch("1") is None


async def test_a_batch_is_bounded_in_bytes_but_for_a_single_message() -> None:
    outgoing = Outgoing()
    waiting = filled(outgoing, 3, BATCH_BYTES // 2)
    large = filled(outgoing, 1, 2 * BATCH_BYTES)
    for expected in (waiting[:2], waiting[2:], large):
        batch = next_batch(outgoing)
        assert batch.pending == expected
        outgoing.acknowledge(batch, [])


async def test_what_was_not_acknowledged_is_sent_again_as_it_was() -> None:
    outgoing = Outgoing()
    filled(outgoing, 1)
    batch = next_batch(outgoing)
    filled(outgoing, 1)
    assert next_batch(outgoing) is batch


async def test_what_another_run_of_redis_may_have_published_is_not_sent_again() -> None:
    outgoing = Outgoing()
    (first,) = filled(outgoing, 1)
    next_batch(outgoing)
    (second,) = filled(outgoing, 1)
    assert next_batch(outgoing, "2").pending == [second]
    assert first.failure is not None
    assert first.failure.uncertain
    assert first.done.is_set()


async def test_who_is_refused_hears_why() -> None:
    outgoing = Outgoing()
    good, bad = filled(outgoing, 2)
    outgoing.acknowledge(next_batch(outgoing), ["", "OOM"])
    assert good.acknowledged
    assert isinstance(bad.failure, BrokerDown)
    assert "OOM" in bad.failure.reason
    assert not bad.failure.uncertain


async def test_a_publisher_that_finds_no_room_is_told() -> None:
    outgoing = Outgoing(most=2)
    filled(outgoing, 2)
    with pytest.raises(BrokerOverflow, match="2 publications wait"):
        outgoing.put(pending())
    batch = next_batch(outgoing)
    with pytest.raises(BrokerOverflow):  # what was sent takes room until it is acknowledged
        outgoing.put(pending())
    outgoing.acknowledge(batch, [])
    outgoing.put(pending())


async def test_bytes_are_bounded_but_for_a_single_message() -> None:
    outgoing = Outgoing(most_bytes=10)
    large = pending(50)
    outgoing.put(large)
    with pytest.raises(BrokerOverflow):
        outgoing.put(pending())
    assert outgoing.withdraw(large)
    filled(outgoing, 2, 5)
    with pytest.raises(BrokerOverflow):
        outgoing.put(pending())


async def test_what_was_sent_cannot_be_taken_back() -> None:
    outgoing = Outgoing()
    first, second = filled(outgoing, 2)
    assert outgoing.withdraw(second)
    assert next_batch(outgoing).pending == [first]
    assert not outgoing.withdraw(first)


async def test_giving_up_tells_everybody_what_is_known() -> None:
    outgoing = Outgoing()
    outgoing.fail_all("closed")
    (sent,) = filled(outgoing, 1)
    batch = next_batch(outgoing)
    (waiting,) = filled(outgoing, 1)
    outgoing.fail_all("closed")
    assert sent.failure is not None
    assert sent.failure.uncertain
    assert waiting.failure is not None
    assert not waiting.failure.uncertain
    assert outgoing.acknowledge(batch, []) == []
    assert outgoing.next_batch("1") is None
    outgoing.put(pending())  # and all of it is counted out


async def test_the_sender_is_woken() -> None:
    outgoing = Outgoing()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await outgoing.wait()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "for news")
        await settle()
        assert not woken
        filled(outgoing, 1)
        await settle()
        assert woken == ["for news"]
        await wait("not at all")  # there is something
        next_batch(outgoing)
        await wait("not for what has to be sent again")
        assert len(woken) == 3
