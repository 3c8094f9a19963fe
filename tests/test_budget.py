"""One budget for all connections of a server: whoever hoards pays, the others do not notice."""

from __future__ import annotations

import random
import zlib

import pytest
import trio
from _helpers import Peer, settle
from _site import Site, bounded, echo, open_one, serve, upgrade, websocket_of
from trio.testing import MockClock

from trio_ws import ConnectionLost, Deflate, PreparedMessage, WebSocketRequest
from trio_ws._budget import NEWCOMERS, Account, Budget, Purse, open_purse
from trio_ws._frames import BINARY, CONTINUATION, TEXT
from trio_ws._messages import OVERHEAD
from trio_ws._options import KIB
from trio_ws.rooms import Rooms
from trio_ws.testing import Frame

TOO_MUCH = Frame.close(1013, "out of memory")

# The books...


class Holder:
    """A connection that holds what it is told to."""

    def __init__(self, budget: Budget) -> None:
        self.account = budget.open_account(self._evict, self._abort)
        self.purse = Purse(self.account)
        self.evicted = self.aborted = False
        self.stuck = 0
        """What it cannot let go of at once."""

    def _evict(self) -> None:
        self.evicted = True
        self.purse.settle(self.stuck)

    def _abort(self) -> None:
        self.aborted = True


class Member(Holder):
    """A connection in a room, a message of which waits for it."""

    def __init__(self, budget: Budget, message: PreparedMessage) -> None:
        super().__init__(budget)
        self._message = message
        self.account.hold(message)

    def _evict(self) -> None:
        super()._evict()
        self.account.let_go(self._message)


def test_what_is_held_is_the_sum_of_all_purses() -> None:
    budget = Budget(100)
    one, two = Holder(budget), Holder(budget)
    second = Purse(one.account)
    one.purse.settle(10)
    second.settle(20)
    two.purse.settle(30)
    one.purse.settle(5)
    assert (one.account.held, two.account.held, budget.used) == (25, 30, 55)
    assert repr(budget) == "<Budget 55 of 100 bytes, 2 accounts>"


def test_newcomers_find_it_full_earlier_than_those_who_are_here() -> None:
    budget = Budget(100)
    holder = Holder(budget)
    holder.purse.settle(int(100 * NEWCOMERS) - 1)
    assert not budget.crowded
    holder.purse.settle(int(100 * NEWCOMERS))
    assert budget.crowded
    holder.purse.settle(100)
    assert not holder.evicted


def test_who_holds_most_is_evicted_and_not_who_asks_last() -> None:
    budget = Budget(100)
    small, great, middle = Holder(budget), Holder(budget), Holder(budget)
    middle.purse.settle(40)
    great.purse.settle(55)
    small.purse.settle(6)
    assert [each.evicted for each in (small, great, middle)] == [False, True, False]
    assert budget.used == 46


def test_it_may_be_the_one_that_asks() -> None:
    budget = Budget(100)
    holder = Holder(budget)
    holder.purse.settle(101)
    assert holder.evicted
    assert budget.used == 0


def test_what_an_evicted_one_cannot_let_go_of_at_once_costs_nobody_else() -> None:
    budget = Budget(100)
    other, great = Holder(budget), Holder(budget)
    great.stuck = 60
    other.purse.settle(30)
    great.purse.settle(80)
    assert (great.evicted, other.evicted, budget.used) == (True, False, 90)
    great.account.close()
    assert budget.used == 30


def test_what_evicted_ones_have_in_flight_is_not_held_against_those_who_grow_later() -> None:
    budget = Budget(100)
    small, next_one, great = Holder(budget), Holder(budget), Holder(budget)
    great.stuck = 25
    next_one.purse.settle(20)
    great.purse.settle(81)
    assert great.evicted
    small.purse.settle(80)
    assert (budget.used, budget.leaving) == (125, 25)
    assert [each.evicted for each in (small, next_one, great)] == [False, False, True]
    assert not great.aborted
    great.account.close()
    assert (budget.used, budget.leaving) == (100, 0)


def test_who_was_evicted_first_goes_at_once_when_all_of_them_hold_too_much() -> None:
    budget = Budget(100)
    bystander, idle, first, second = (Holder(budget) for _ in range(4))
    first.stuck = second.stuck = 20
    bystander.purse.settle(10)
    idle.purse.settle(95)  # holds nothing any more, once it is told
    for each in (first, second):
        each.purse.settle(91)
    assert [each.evicted for each in (idle, first, second)] == [True] * 3
    assert [each.aborted for each in (idle, first, second)] == [False, True, False]
    # Until it has gone it is counted, and still not held against the others.
    assert (budget.used, budget.leaving) == (50, 40)
    bystander.purse.settle(100)
    assert not bystander.evicted
    first.account.close()
    second.account.close()
    idle.account.close()
    assert (budget.used, budget.leaving) == (100, 0)


def test_several_go_where_one_is_not_enough() -> None:
    """What they share is free when the last of them has gone."""
    budget = Budget(100)
    bystander = Holder(budget)
    bystander.purse.settle(50)
    message = PreparedMessage("x" * 51)
    members = [Member(budget, message) for _ in range(3)]
    budget.relieve()
    assert [each.evicted for each in (*members, bystander)] == [True, True, True, False]
    assert budget.used == 50


def test_saying_goodbye_does_not_begin_another_round() -> None:
    budget = Budget(100)
    bystander, great = Holder(budget), Holder(budget)
    bystander.purse.settle(50)

    def evict() -> None:
        bystander.purse.settle(52)  # a goodbye takes room before it gives it
        great.purse.settle(0)

    great.account.evict = evict
    great.purse.settle(51)
    assert not bystander.evicted
    assert budget.used == 52


def test_what_many_members_wait_for_counts_once_and_weighs_on_each() -> None:
    budget = Budget(100)
    members = [Holder(budget) for _ in range(3)]
    message = PreparedMessage("x" * 40)
    for member in members:
        member.account.hold(message)
    assert budget.used == 40
    assert [member.account.shared for member in members] == [40] * 3
    members[0].purse.settle(1)
    other = Holder(budget)
    other.purse.settle(60)
    assert other.evicted
    assert not members[0].evicted
    for member in members:
        member.account.let_go(message)
    assert budget.used == 1
    assert [member.account.shared for member in members] == [0] * 3


def test_holding_closes_nobody_until_it_is_asked_for() -> None:
    """The queue of a member must be in order first."""
    budget = Budget(100)
    member = Holder(budget)
    messages = [PreparedMessage("x" * 60) for _ in range(2)]
    for message in messages:
        member.account.hold(message)
    assert (budget.used, member.evicted) == (120, False)
    budget.relieve()
    assert member.evicted
    budget.relieve()  # nobody is left who could be asked for more


def test_what_is_let_go_of_behind_the_end_is_not_counted_again() -> None:
    """A task that has been cancelled puts its things in order when its turn comes."""
    budget = Budget(100)
    holder = Holder(budget)
    holder.purse.settle(60)
    holder.account.close()
    holder.purse.settle(0)
    assert (holder.account.held, budget.used) == (0, 0)


def test_without_a_budget_there_is_no_purse() -> None:
    assert open_purse(None) is None


# At work...


async def busy(request: WebSocketRequest) -> None:
    """A handler that does not receive."""
    async with request.accept() as ws:
        await ws.wait_closed()


async def test_there_is_none_by_default(autojump_clock: MockClock) -> None:
    async with serve(echo) as site:
        peer = await open_one(site)
        await peer.send(Frame(TEXT, b"x" * 100, fin=False))
        await settle()
        assert site.server._state.budget is None
        assert site.server.statistics().memory == 0


async def test_unread_messages_and_unfinished_ones_draw_on_it(autojump_clock: MockClock) -> None:
    async with bounded(100 * KIB, busy) as (site, budget):
        peer = await open_one(site)
        await peer.send(Frame(TEXT, b"x" * 100))
        await peer.send(Frame(TEXT, b"x" * 1000))
        await peer.send(Frame(TEXT, b"x" * 10_000, fin=False))
        await settle()
        assert budget.used == 11_100 + 2 * OVERHEAD
        assert site.server.statistics().memory == budget.used
        ws = websocket_of(site)
        await ws.receive()
        assert budget.used == 11_000 + OVERHEAD
        async with ws.receive_message() as parts:
            async for _ in parts:
                pass
        async with ws.receive_message() as parts:
            assert budget.used == 0
            await peer.send(Frame(CONTINUATION, b"x" * 500, fin=False))
            await settle()
            assert budget.used == 500
        assert budget.used == 0


async def test_what_reading_leaves_unparsed_draws_on_it(autojump_clock: MockClock) -> None:
    async with bounded(100 * KIB, busy, receive_buffer=1000) as (site, budget):
        peer = await open_one(site)
        await peer.send(peer.wire(Frame(TEXT, b"x" * 1000)) * 20)
        await settle()
        ws = websocket_of(site)
        unparsed = 20 * len(peer.wire(Frame(TEXT, b"x" * 1000)))
        assert budget.used == 1000 + OVERHEAD + unparsed
        for _ in range(20):
            await ws.receive()
        await settle()
        assert budget.used == 0


@pytest.mark.parametrize("stalled", [True, False])
async def test_what_waits_to_be_sent_draws_on_it(stalled: bool, autojump_clock: MockClock) -> None:
    async with bounded(100 * KIB) as (site, budget):
        peer = await open_one(site)
        if stalled:
            site.listener.visitors[0].way.buffer = 0
        await peer.send(Frame(TEXT, b"x" * 10_000))
        await settle()
        assert budget.used == (10_004 if stalled else 0)
        site.listener.visitors[0].way.buffer = None
        await settle()
        assert budget.used == 0


async def test_what_is_sent_to_many_does_not(autojump_clock: MockClock) -> None:
    async with bounded(100 * KIB, busy) as (site, budget):
        await open_one(site)
        site.listener.visitors[0].way.buffer = 0
        ws = websocket_of(site)
        await ws.send(PreparedMessage(b"x" * 10_000))
        await ws.send(b"x" * 1000)
        await settle()
        assert budget.used == 1004


@pytest.mark.parametrize("pieces", [1, 40])
async def test_the_state_of_inflating_draws_on_it(pieces: int, autojump_clock: MockClock) -> None:
    """A message that has just begun holds a window, however few bytes have come."""
    async with bounded(100 * KIB, busy) as (site, budget):
        extension = "Sec-WebSocket-Extensions: permessage-deflate"
        peer = await site.visit().switch(upgrade("/", extension))
        deflate = zlib.compressobj(wbits=-15)
        data = deflate.compress(b"x" * 10_000) + deflate.flush(zlib.Z_SYNC_FLUSH)
        for index in range(pieces):
            piece = data[index * len(data) // pieces : (index + 1) * len(data) // pieces]
            opcode = CONTINUATION if index else TEXT
            await peer.send(Frame(opcode, piece, fin=False, rsv=0 if index else 4))
        await settle()
        assert budget.used == 10_000 + 39 * KIB
        await peer.send(Frame.continuation(b"\x00"))  # an empty last block
        await settle()
        await websocket_of(site).receive()
        assert budget.used == 0


async def test_a_context_that_is_kept_draws_on_it_all_the_time(autojump_clock: MockClock) -> None:
    keeping = Deflate(server_no_context_takeover=False, threshold=0)
    async with bounded(100 * KIB, compression=keeping) as (site, budget):
        extension = "Sec-WebSocket-Extensions: permessage-deflate"
        peer = await site.visit().switch(upgrade("/", extension))
        await peer.send(Frame(TEXT, b"x" * 100))
        await settle()
        await peer.send(Frame(TEXT, b"x" * 100))
        await settle()
        assert budget.used == (16 + 16 + 7) * KIB


# Beyond it...


async def test_newcomers_are_told_503_and_when_to_come_again(autojump_clock: MockClock) -> None:
    async with bounded(100 * KIB, busy) as (site, budget):
        peer = await open_one(site)
        await peer.send(Frame(BINARY, b"x" * 80 * KIB, fin=False))
        await settle()
        answer = await site.visit().ask(upgrade())
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        await peer.stream.aclose()
        await settle()
        assert budget.used == 80 * KIB  # the handler may still ask for it
        for ws in list(site.server._state.connections):
            ws.scope.cancel()
        await settle()
        assert (await site.visit().ask(upgrade())).status == 101


async def hoard(peer: Peer, size: int) -> None:
    """Begin a message, and never finish it."""
    await peer.send(Frame(BINARY, b"x" * size, fin=False))
    await settle()


async def test_who_hoards_is_told_1013_and_the_others_do_not_notice(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with bounded(256 * KIB) as (site, budget):
        good = await open_one(site)
        hoarders = [await open_one(site) for _ in range(5)]
        for index, hoarder in enumerate(hoarders):
            await hoard(hoarder, 60 * KIB + index)
            await good.send(Frame(TEXT, b"still here"))
            assert await good.receive_message() == "still here"
        assert await hoarders[4].until_close() == TOO_MUCH
        assert budget.used == 4 * 60 * KIB + 6
        for hoarder in hoarders[:4]:
            await hoard_more(hoarder)
        assert budget.used <= budget.limit
        assert len(site.server.connections) == 4
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 2
        assert all(line.endswith("closed, it holds most of what all may hold") for line in lines)


async def hoard_more(peer: Peer) -> None:
    await peer.send(Frame(CONTINUATION, b"x" * 10 * KIB, fin=False))
    await settle()


async def test_a_handler_hears_of_it_as_of_any_loss(autojump_clock: MockClock) -> None:
    heard: list[ConnectionLost] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            try:
                await ws.receive()
            except ConnectionLost as exc:
                heard.append(exc)
                raise

    async with bounded(10 * KIB, handler) as (site, _):
        peer = await open_one(site)
        await hoard(peer, 11 * KIB)
        assert await peer.until_close() == TOO_MUCH
        assert (heard[0].code, heard[0].info.initiator) == (1013, "local")
        await peer.aclose()
        await settle()
        assert site.server.statistics().handler_errors == 0
        assert site.server.statistics().close_codes == {1013: 1}


async def test_who_asks_for_answers_and_reads_none_pays_for_it(
    autojump_clock: MockClock,
) -> None:
    async with bounded(100 * KIB) as (site, budget):
        good, slow = await open_one(site), await open_one(site)
        site.listener.visitors[1].way.buffer = 0
        for _ in range(12):
            await slow.send(Frame(BINARY, b"x" * 10 * KIB))
            await good.send(Frame(TEXT, b"hello"))
            assert await good.receive_message() == "hello"
        assert len(site.server.connections) == 1
        assert budget.used < 20 * KIB  # what had begun to leave


async def test_a_drop_of_what_waits_tears_no_frame(autojump_clock: MockClock) -> None:
    async with bounded(100 * KIB) as (site, _):
        slow = await open_one(site)
        site.listener.visitors[0].way.buffer = 100
        for _ in range(12):
            await slow.send(Frame(BINARY, b"x" * 10 * KIB))
        await settle()
        assert not site.server.connections
        site.listener.visitors[0].way.buffer = None
        assert (await slow.until_end())[-1] == TOO_MUCH  # which fails if one was torn


# All at once...


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_peers_do_the_books_are_right(seed: int, autojump_clock: MockClock) -> None:
    """And the limit is kept but for what one read brings, and what is leaving."""
    rooms = Rooms()
    choice = random.Random(seed)

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "a", "b"):
            async for message in ws:
                await trio.sleep(choice.random())
                if choice.random() < 0.5:
                    await ws.send(message)
                else:
                    await rooms.publish(choice.choice("ab"), message)

    async with bounded(100 * KIB, handler, send_buffer=2 * KIB) as (site, budget):
        peers: list[Peer] = []
        for _ in range(150):
            visitor = site.visit()
            if len(peers) < 12 and (await visitor.ask(upgrade())).status == 101:
                visitor.way.buffer = choice.choice([None, None, 3000])
                peers.append(visitor.frames())
            for peer in choice.sample(peers, min(3, len(peers))):
                try:
                    fin = choice.random() < 0.6
                    await peer.send(Frame(BINARY, b"x" * choice.randrange(20_000), fin=fin))
                except trio.BrokenResourceError:
                    peers.remove(peer)
            await trio.sleep(choice.random() / 4)
            assert budget.used <= budget.limit + 12 * 24 * KIB
            held = sum(each.held for each in _accounts(site))
            waiting = sum(len(message.payload) for message in budget._waiting)
            assert budget.used == held + waiting


def _accounts(site: Site) -> list[Account]:
    sockets = [each.websocket for each in site.server._state.connections]
    return [ws._connection.account for ws in sockets if ws is not None and ws._connection.account]
