from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing
from _helpers import DEFLATE, STATEFUL_DEFLATE, settle
from _seats import NARROW, Seat, Seats

from trio_ws._deflate import DeflateParameters
from trio_ws._errors import ConnectionLost
from trio_ws._messages import CloseInfo, PreparedMessage
from trio_ws._options import Options
from trio_ws.rooms import START, Envelope, History, Overflow, Resume, RoomMessage, Rooms
from trio_ws.testing import cancellations


async def publish(rooms: Rooms, *data: Any, room: str = "x") -> list[int]:
    return [await rooms.publish(room, each) for each in data]


def check_sums(rooms: Rooms) -> None:
    """Every message is accounted for."""
    statistics = rooms.statistics()
    for each in (*statistics.rooms.values(), statistics.total):
        assert each.addressed == (each.delivered + each.dropped + each.disconnected + each.waiting)


@pytest.mark.parametrize("deflate", [None, DEFLATE, STATEFUL_DEFLATE])
@pytest.mark.parametrize("role", ["server", "client"])
async def test_every_member_gets_every_message_in_order(
    role: Any, deflate: DeflateParameters | None
) -> None:
    rooms = Rooms()
    data = ["short", "long " * 1000, b"\0" * 5000, {"json": [1, 2]}]
    expected = ["short", "long " * 1000, b"\0" * 5000, '{"json":[1,2]}']
    async with Seats(3, Options(), deflate=deflate, role=role) as seats, trio.open_nursery() as n:
        for seat in seats:

            async def stay(seat: Seat = seat) -> None:
                async with rooms.join(seat.ws, "x"):
                    await trio.sleep_forever()

            n.start_soon(stay)
        await settle()
        assert await publish(rooms, *data) == [3] * 4
        for seat in seats:
            assert await seat.received() == expected
        n.cancel_scope.cancel()
    assert rooms.statistics().total.delivered == 12


async def test_a_message_is_encoded_once_however_many_members_there_are() -> None:
    rooms = Rooms()
    message = PreparedMessage("x" * 5000)
    async with (
        Seats(2) as (a, b),
        Seats(2, deflate=DEFLATE) as (c, d),
        rooms.join(a.ws, "x"),
        rooms.join(b.ws, "x"),
        rooms.join(c.ws, "x"),
        rooms.join(d.ws, "x"),
    ):
        assert await rooms.publish("x", message) == 4
        assert len(message.encoded) == 2  # one plain form, one compressed
        for seat in (a, b, c, d):
            assert await seat.received() == ["x" * 5000]
            assert seat.ws.statistics().messages_sent == 1


# Being behind...


async def test_who_is_behind_gets_everything_in_order_when_the_network_moves_again() -> None:
    rooms = Rooms()
    async with (
        Seats(2) as (slow, fast),
        rooms.join(slow.ws, "x") as member,
        rooms.join(fast.ws, "x"),
    ):
        slow.stall()
        await publish(rooms, *map(str, range(10)))
        assert await fast.received() == [str(n) for n in range(10)]
        assert await slow.received() == []
        assert member.statistics().queued == 9  # the first one waits for the network
        assert rooms.statistics().rooms["x"].most_queued == 9
        slow.release()
        assert await slow.received() == [str(n) for n in range(10)]
        assert member.statistics().queued == 0
        await publish(rooms, "more")
        assert await slow.received() == ["more"]
        assert slow.ws._connection.outbox.feeders == []
        check_sums(rooms)


async def test_a_member_that_does_not_keep_up_is_closed_with_1013_and_nobody_else_notices() -> (
    None
):
    rooms = Rooms()
    async with (
        Seats(2) as (slow, fast),
        rooms.join(fast.ws, "x") as quick,
        rooms.join(slow.ws, "x", "y", buffer=3, meta="slow") as member,
        rooms.presence("y") as presence,
    ):
        slow.stall()
        assert await publish(rooms, *"abcdef") == [2, 2, 2, 2, 1, 1]
        assert await fast.received() == list("abcdef")
        assert rooms.members("x") == (quick,)
        assert member.rooms == ()
        assert member.statistics().queued == 0
        assert (await presence.receive()).id == member.id
        assert slow.ws.close_info == CloseInfo(1013, "too slow", "local", clean=False)
        counted = rooms.statistics().rooms["x"]
        assert (counted.delivered, counted.disconnected) == (6 + 1, 4)
        check_sums(rooms)
        slow.release()
        assert await slow.received() == ["a"]
        assert slow.peer.close_info == CloseInfo(1013, "too slow", "remote", clean=True)
        with pytest.raises(trio.ClosedResourceError):
            await member.join("z")
    assert rooms.statistics().rooms == {}


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        (Overflow.DROP_OLDEST, ["0", "8", "9"]),
        (Overflow.DROP_NEWEST, ["0", "1", "2"]),
        (Overflow.LATEST, ["0", "9"]),
    ],
)
async def test_what_a_slow_member_gets_is_what_its_policy_says(
    overflow: Overflow, expected: list[str]
) -> None:
    rooms = Rooms()
    async with (
        Seats(1) as (slow,),
        rooms.join(slow.ws, "x", buffer=2, overflow=overflow) as member,
    ):
        slow.stall()
        await publish(rooms, *map(str, range(10)))
        missed = 10 - len(expected)
        assert member.statistics().missed == missed
        slow.release()
        assert await slow.received() == expected
        counted = rooms.statistics().total
        assert (counted.delivered, counted.dropped) == (len(expected), missed)
        check_sums(rooms)


async def test_bytes_bound_a_member_too() -> None:
    rooms = Rooms()
    async with (
        Seats(1) as (slow,),
        rooms.join(slow.ws, "x", buffer_bytes=100, overflow=Overflow.DROP_OLDEST),
    ):
        slow.stall()
        await publish(rooms, *[f"{n:050}" for n in range(10)])
        slow.release()
        assert [int(each) for each in await slow.received()] == [0, 8, 9]


async def test_latest_hands_nothing_over_while_something_is_unwritten() -> None:
    """With a wide outgoing buffer, too: what is in there cannot be replaced any more."""
    rooms = Rooms()
    async with (
        Seats(1, Options(ping_interval=None, write_timeout=None)) as (slow,),
        rooms.join(slow.ws, "x", overflow=Overflow.LATEST),
    ):
        slow.stall()
        for n in range(10):
            await rooms.publish("x", str(n), key="even" if n % 2 == 0 else "odd")
        await slow.ws.send("by itself")
        slow.release()
        assert await slow.received() == ["0", "by itself", "9", "8"]


async def test_a_publisher_waits_for_a_member_that_it_may_not_outrun() -> None:
    rooms = Rooms()
    async with (
        Seats(2) as (slow, fast),
        rooms.join(slow.ws, "x", buffer=1, overflow=Overflow.WAIT),
        rooms.join(fast.ws, "x"),
    ):
        slow.stall()
        assert await publish(rooms, "a", "b") == [2, 2]
        counts: list[int] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def publish_more() -> None:
                counts.append(await rooms.publish("x", "c"))

            await settle()
            assert await fast.received() == ["a", "b", "c"]  # others need not wait
            assert not counts
            assert rooms.statistics().rooms["x"].waiting == 1
            check_sums(rooms)
            with pytest.raises(trio.WouldBlock):
                rooms.publish_nowait("x", "d")
            assert rooms.publish_nowait("x", "e", exclude={slow.ws}) == 1
            slow.release()
        assert counts == [2]
        assert await slow.received() == ["a", "b", "c"]
        check_sums(rooms)


@pytest.mark.parametrize("how", ["lost", "closed", "left", "ended"])
async def test_nobody_waits_for_a_member_that_is_gone(how: str) -> None:
    rooms = Rooms()
    async with Seats(1, Options(send_buffer=1, close_grace=1)) as (slow,):
        async with trio.open_nursery() as nursery:
            joining = rooms.join(slow.ws, "x", buffer=1, overflow=Overflow.WAIT)
            member = await joining.__aenter__()
            slow.stall()
            await publish(rooms, "a", "b")
            counts: list[int] = []

            @nursery.start_soon
            async def publish_more() -> None:
                counts.append(await rooms.publish("x", "c"))

            await settle()
            assert not counts
            if how == "lost":
                await trio.aclose_forcefully(slow.peer)
            elif how == "closed":
                slow.ws._connection.begin_close(1000, "")
            elif how == "left":
                member.leave("x")
            else:
                await joining.__aexit__(None, None, None)
            await settle()
            assert counts == [0]
            check_sums(rooms)
            assert rooms.statistics().total.waiting == 0
            await joining.__aexit__(None, None, None)
        slow.release()


# The end of a connection...


async def test_a_connection_that_is_over_is_found_out_and_stops_no_publish() -> None:
    rooms = Rooms()
    async with (
        Seats(2) as (gone, there),
        rooms.join(gone.ws, "x", "y") as member,
        rooms.join(there.ws, "x"),
    ):
        await trio.aclose_forcefully(gone.peer)
        await settle()
        assert await publish(rooms, "a", "b") == [1, 1]
        assert await there.received() == ["a", "b"]
        assert member.rooms == ()
        assert rooms.members("y") == ()
        assert rooms.statistics().total.disconnected == 1
        check_sums(rooms)


async def test_what_waits_for_a_connection_that_ends_is_let_go_at_once() -> None:
    rooms = Rooms()
    async with Seats(1) as (slow,), rooms.join(slow.ws, "x") as member:
        slow.stall()
        await publish(rooms, *"abc")
        assert member.statistics().queued == 2
        await trio.aclose_forcefully(slow.peer)
        await settle()
        assert member.statistics().queued == 0
        assert member.rooms == ()
        assert rooms.statistics().total.disconnected == 2


@pytest.mark.parametrize("transform", [None, lambda message: message])
async def test_a_connection_that_ends_between_two_messages_is_lost_in_any_case(
    transform: Any,
) -> None:
    rooms = Rooms()
    async with (
        Seats(1) as (seat,),
        rooms.join(seat.ws, "x", overflow=Overflow.LATEST, transform=transform),
    ):
        await trio.aclose_forcefully(seat.peer)
        await settle()
        assert await publish(rooms, "a", "b") == [0, 0]
        assert rooms.statistics().total.disconnected == 1


async def test_a_connection_that_is_over_cannot_join() -> None:
    rooms = Rooms()
    async with Seats(2) as (lost, closed):
        await trio.aclose_forcefully(lost.peer)
        await settle()
        with pytest.raises(ConnectionLost):
            async with rooms.join(lost.ws, "x"):
                pass
        await closed.ws.aclose()
        with pytest.raises(trio.ClosedResourceError):
            async with rooms.join(closed.ws, "x"):
                pass
    assert rooms.statistics().rooms == {}


# Coming and going...


@pytest.mark.parametrize("error", [None, ValueError, trio.Cancelled])
async def test_a_member_leaves_in_whichever_way_its_block_ends(error: Any) -> None:
    rooms = Rooms()
    async with Seats(1) as (seat,):
        with trio.CancelScope() as scope:
            try:
                async with rooms.join(seat.ws, "x", "y") as member:
                    assert member.rooms == ("x", "y")
                    if error is trio.Cancelled:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                    elif error is not None:
                        raise error
            except ValueError:
                assert error is ValueError
        assert scope.cancelled_caught == (error is trio.Cancelled)
        assert member.rooms == ()
        assert rooms.statistics().rooms == {}
        with pytest.raises(trio.ClosedResourceError):
            await member.join("z")
        member.leave("x")


async def test_joining_and_leaving_can_be_repeated() -> None:
    rooms = Rooms()
    async with Seats(1) as (seat,), rooms.join(seat.ws, "x", "x") as member:
        await member.join("x", "y")
        with trio.testing.assert_checkpoints():
            await member.join("x")
        assert rooms.members("x") == rooms.members("y") == (member,)
        member.leave("x", "nowhere")
        member.leave("x")
        assert member.rooms == ("y",)
        assert await rooms.publish(["x", "y"], "once") == 1
        assert await seat.received() == ["once"]


async def test_what_is_queued_of_a_room_is_dropped_on_leaving_it() -> None:
    rooms = Rooms()
    async with Seats(1) as (slow,), rooms.join(slow.ws, "x", "y") as member:
        slow.stall()
        for n in range(5):
            await publish(rooms, f"x{n}")
            await publish(rooms, f"y{n}", room="y")
        member.leave("x")
        slow.release()
        assert await slow.received() == ["x0", "y0", "y1", "y2", "y3", "y4"]
        assert rooms.statistics().total.dropped == 4
        check_sums(rooms)


async def test_a_connection_may_join_twice_and_is_two_members() -> None:
    rooms = Rooms()
    async with Seats(1) as (seat,), rooms.join(seat.ws, "x") as a, rooms.join(seat.ws, "x") as b:
        assert rooms.members("x") == (a, b)
        assert a.id != b.id
        assert await rooms.publish("x", "hi") == 2
        assert await seat.received() == ["hi", "hi"]


async def test_both_members_of_one_slow_connection_are_found_out() -> None:
    rooms = Rooms()
    async with (
        Seats(1) as (slow,),
        rooms.join(slow.ws, "x", buffer=1) as a,
        rooms.join(slow.ws, "x", buffer=5) as b,
    ):
        slow.stall()
        await publish(rooms, *"abc")
        assert a.rooms == b.rooms == ()
        check_sums(rooms)
        slow.release()


async def test_a_member_tells_who_it_is() -> None:
    rooms = Rooms()
    async with Seats(1) as (seat,), rooms.join(seat.ws, "x", meta={"name": "bob"}) as member:
        assert member.ws is seat.ws
        assert member.meta == {"name": "bob"}
        assert repr(member) == f"<Member {member.id} of 'x'>"
        member.leave("x")
        assert repr(member) == f"<Member {member.id} of no room>"


async def test_cancelling_a_join_leaves_no_trace() -> None:
    rooms = Rooms(history=History())
    await rooms.publish("x", "before")
    async with Seats(1) as (seat,):
        async for attempt in cancellations():
            with attempt:
                async with rooms.join(seat.ws, "x", "y", since=START) as member:
                    assert member.rooms == ("x", "y")
                    assert rooms.members("y") == (member,)
            assert rooms.statistics().rooms == {}
            assert rooms.statistics().total.members == 0
            assert seat.ws._connection.outbox.feeders == []


async def test_cancelling_a_later_join_enters_none_of_the_rooms() -> None:
    rooms = Rooms()
    async with Seats(1) as (seat,):
        async for attempt in cancellations():
            async with rooms.join(seat.ws, "x") as member:
                joined = False
                with attempt:
                    await member.join("y", "z")
                    joined = True
                assert member.rooms == (("x", "y", "z") if joined else ("x",))
                assert set(rooms.statistics().rooms) == set(member.rooms)


async def test_cancelling_a_publish_that_waits_leaves_everything_in_order() -> None:
    rooms = Rooms()
    async with Seats(1) as (slow,):
        async for attempt in cancellations():
            async with rooms.join(slow.ws, "x", buffer=1, overflow=Overflow.WAIT) as member:
                slow.stall()
                await publish(rooms, "a", "b")
                async with trio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def give_up(attempt: Any = attempt) -> None:
                        with attempt:
                            await rooms.publish("x", "c")

                    await settle()
                    slow.release()
                missed = member.statistics().missed
                assert await slow.received() == ["a", "b", "c"][: 3 - attempt.cancelled]
                assert missed in {0, 1}
                check_sums(rooms)


# Transforms...


async def test_a_transform_passes_leaves_out_or_changes_messages() -> None:
    def shout(message: RoomMessage) -> Any:
        if message.data == "as it is":
            return message
        return None if message.data == "secret" else {"loud": message.data.upper()}

    rooms = Rooms()
    async with (
        Seats(2) as (a, b),
        rooms.join(a.ws, "x", transform=shout),
        rooms.join(b.ws, "x"),
    ):
        assert await publish(rooms, "as it is", "secret", "hi") == [2, 1, 2]
        assert await a.received() == ["as it is", '{"loud":"HI"}']
        assert await b.received() == ["as it is", "secret", "hi"]
        assert rooms.statistics().total.addressed == 5
        check_sums(rooms)


async def test_a_transform_sees_what_is_replayed_too() -> None:
    rooms = Rooms(history=History())
    await publish(rooms, "a", "b", "c")
    async with Seats(1) as (seat,):
        odd = ["a", "c"]
        async with rooms.join(
            seat.ws, "x", since=START, transform=lambda m: m if m.data in odd else None
        ):
            assert await seat.received() == odd
            assert rooms.statistics().rooms["x"].replayed == 2


async def test_a_transform_that_fails_costs_its_member_the_connection_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rooms = Rooms()
    async with (
        Seats(2) as (bad, good),
        rooms.join(bad.ws, "x", transform=lambda message: message.data / 0) as member,
        rooms.join(good.ws, "x"),
    ):
        with caplog.at_level(logging.ERROR, "trio_ws"):
            assert await publish(rooms, 1, 2) == [1, 1]
        assert await good.received() == ["1", "2"]
        assert member.rooms == ()
        assert bad.ws.close_info is not None
        assert bad.ws.close_info.code == 1011
        assert [record.exc_info is not None for record in caplog.records] == [True]
        assert bad.ws.id in caplog.text
        check_sums(rooms)


async def test_a_transform_that_fails_on_the_history_does_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rooms = Rooms(history=History())
    await publish(rooms, 1)
    async with Seats(1) as (bad,), rooms.presence("x") as presence:
        async with rooms.join(bad.ws, "x", since=START, transform=lambda m: m.data / 0) as member:
            assert member.rooms == ()
            assert bad.ws.close_info is not None
        assert [type(event).__name__ for event in presence._events] == ["Joined", "Left"]


async def test_a_transform_must_not_publish(caplog: pytest.LogCaptureFixture) -> None:
    rooms = Rooms()
    async with (
        Seats(1) as (seat,),
        rooms.join(seat.ws, "x", transform=lambda m: rooms.publish_nowait("x", m.data)),
    ):
        assert await publish(rooms, "a") == [0]
    assert "must not publish" in caplog.text


# History...


async def test_what_is_replayed_comes_before_what_is_new_also_to_who_is_behind() -> None:
    rooms = Rooms(history=History())
    await publish(rooms, *"abcdef")
    async with Seats(1) as (slow,):
        slow.stall()
        async with rooms.join(slow.ws, "x", buffer=2, since=START) as member:
            await publish(rooms, "g", "h")
            assert member.statistics().queued == 2  # what is replayed takes no room
            slow.release()
            assert await slow.received() == list("abcdefgh")


async def test_the_greeting_comes_first() -> None:
    rooms = Rooms(history=History(), codec=Envelope())
    await publish(rooms, 1, 2)
    async with Seats(1) as (seat,):
        seat.stall()
        async with rooms.join(seat.ws, "x", since=START) as member:
            seat.release()
            position = member.position("x")
            assert (position.offset, member.resumed("x")) == (0, Resume.NEW)
            first, *rest = await seat.received()
            assert first == f'{{"room":"x","position":"{position}","resume":"new"}}'
            assert [each[-9:] for each in rest] == ['"data":1}', '"data":2}']


async def test_a_gap_in_the_room_is_told_to_who_can_understand_it() -> None:
    told, untold = Rooms(codec=Envelope()), Rooms()
    async with Seats(2, NARROW) as (a, b), told.join(a.ws, "x"), untold.join(b.ws, "x"):
        await a.received()
        told._registry.gap("x")
        untold._registry.gap("x")
        (greeting,) = await a.received()
        assert '"resume":"lost"' in greeting
        assert await b.received() == []
        told._registry.gap("a room that nobody is in")
