"""One message in pieces, sent and received, without a connection around it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from _helpers import DEFLATE
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_ws._inbox import Inbox
from trio_ws._message_streams import MessageReceiver, MessageSender
from trio_ws._messages import MessagePart
from trio_ws._options import Options
from trio_ws._outbox import Outbox
from trio_ws._protocol import Protocol
from trio_ws.testing import cancellations

# Sending...


class Sending:
    """An outbox, and what a peer makes of what is in it."""

    def __init__(self, *, deflate: bool = False, limit: float = math.inf) -> None:
        agreed = DEFLATE if deflate else None
        self.outbox = Outbox(limit)
        self.protocol = Protocol(client=True, options=Options(), deflate=agreed)
        self._peer = Protocol(client=False, options=Options(), deflate=agreed)
        self.done: list[BaseException | None] = []

    def open(self, *, text: bool = True, compress: bool | None = None) -> MessageSender:
        return MessageSender(self.outbox, self.protocol, self.done.append, text, compress)

    def arrived(self) -> list[Any]:
        while not self.outbox.empty:
            self._peer.receive_data(self.outbox.next_batch())
            self.outbox.written()
        return list(iter(self._peer.next_event, None))


@pytest.mark.parametrize("deflate", [True, False])
async def test_each_piece_is_a_fragment(deflate: bool) -> None:
    sending = Sending(deflate=deflate)
    with assert_checkpoints():
        message = await sending.open().__aenter__()
    for chunk in ("caf", "é"):
        with assert_checkpoints():
            await message.send(chunk)
    await message.__aexit__(None, None, None)
    assert sending.arrived() == [
        MessagePart("caf", 3, final=False),
        MessagePart("é", 2, final=False),
        MessagePart("", 0, final=True),
    ]
    assert sending.done == [None]


@pytest.mark.parametrize("deflate", [True, False])
async def test_a_message_without_pieces_is_empty(deflate: bool) -> None:
    sending = Sending(deflate=deflate)
    async with sending.open(text=False):
        pass
    assert sending.arrived() == [MessagePart(b"", 0, final=True)]


async def test_pieces_are_compressed_unless_forbidden() -> None:
    sending = Sending(deflate=True)
    for compress, bits in ((None, 0x42), (True, 0x42), (False, 0x02)):
        async with sending.open(text=False, compress=compress) as part:
            await part.send(bytearray(b"data"))
            assert sending.outbox.next_batch()[0] == bits
            sending.outbox.written()
        sending.outbox.discard()


@pytest.mark.parametrize(("text", "chunk"), [(True, b"bytes"), (False, "text")])
async def test_a_piece_of_the_other_kind_is_refused_and_the_block_goes_on(
    text: bool, chunk: str | bytes
) -> None:
    sending = Sending()
    kind = "text" if text else "binary"
    async with sending.open(text=text) as part:
        with pytest.raises(TypeError, match=f"this message is {kind}: a piece cannot be"):
            await part.send(chunk)
        with pytest.raises(TypeError, match="encode it first"):
            await part.send(5)
    assert len(sending.arrived()) == 1


async def test_lone_surrogates_are_refused_and_the_block_goes_on() -> None:
    sending = Sending()
    async with sending.open() as part:
        with pytest.raises(ValueError, match="surrogates"):
            await part.send("\ud800")
        await part.send("fine")
    assert [event.data for event in sending.arrived()] == ["fine", ""]


async def test_an_error_before_the_first_piece_leaves_nothing_behind() -> None:
    sending = Sending()
    with pytest.raises(KeyError):
        async with sending.open():
            raise KeyError
    assert sending.arrived() == []
    assert sending.done == []
    async with sending.open():  # and the turn is free
        pass


async def test_an_error_behind_the_first_piece_is_reported() -> None:
    sending = Sending()
    error = KeyError()
    message = sending.open()
    await message.__aenter__()
    await message.send("a")
    await message.__aexit__(KeyError, error, None)
    assert sending.arrived() == [MessagePart("a", 1, final=False)]
    assert sending.done == [error]


async def test_the_end_is_told_at_the_end_of_the_block() -> None:
    sending = Sending()
    with pytest.raises(ValueError, match="over"):
        async with sending.open():
            sending.outbox.refuse(lambda: ValueError("over"))
    assert sending.done == []
    with pytest.raises(ValueError, match="over"):
        async with sending.open():
            pytest.fail("it cannot be entered")


async def test_no_piece_can_be_sent_outside_of_the_block() -> None:
    sending = Sending()
    part = sending.open()
    with pytest.raises(trio.ClosedResourceError, match=r"outside of: async with ws.open_message"):
        await part.send("early")
    async with part:
        await part.send("in time")
    with pytest.raises(trio.ClosedResourceError, match="outside of"):
        await part.send("late")
    assert [event.data for event in sending.arrived()] == ["in time", ""]


async def test_a_piece_that_waits_when_the_block_ends_is_not_sent() -> None:
    sending = Sending(limit=1)
    async with trio.open_nursery() as nursery:

        async def send_late(part: MessageSender) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await part.send("late")

        async with sending.open() as part:
            await part.send("a")
            nursery.start_soon(send_late, part)  # noqa: ASYNC111  # lateness is the point
            await wait_all_tasks_blocked()
        events = sending.arrived()
    assert [event.data for event in events + sending.arrived()] == ["a", ""]


async def test_the_same_block_can_be_entered_again() -> None:
    sending = Sending()
    message = sending.open()
    for _ in range(2):
        async with message as part:
            await part.send("a")
    assert [(event.data, event.final) for event in sending.arrived()] == [
        ("a", False),
        ("", True),
    ] * 2


async def test_cancelling_at_any_step_sends_each_piece_whole_or_not() -> None:
    async for attempt in cancellations():
        sending = Sending(limit=1)
        sent = 0
        arrived: list[Any] = []

        async def write(sending: Sending = sending, arrived: list[Any] = arrived) -> None:
            while True:
                await wait_all_tasks_blocked()
                arrived += sending.arrived()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with attempt:
                async with sending.open() as part:
                    for _ in range(3):
                        await part.send("piece")
                        sent += 1
            nursery.cancel_scope.cancel()
        pieces = arrived + sending.arrived()
        assert [piece.data for piece in pieces if not piece.final] == ["piece"] * sent
        assert any(piece.final for piece in pieces) is not attempt.cancelled
        if attempt.cancelled and sent:
            assert isinstance(sending.done[0], trio.Cancelled)
        else:
            assert sending.done == ([] if attempt.cancelled else [None])
        assert sending.outbox.has_room()


# Receiving...


class Receiving:
    """An inbox, and a message that comes in pieces."""

    def __init__(self) -> None:
        self.inbox = Inbox(math.inf, lambda: None)

    def open(self) -> MessageReceiver:
        return MessageReceiver(self.inbox)

    def put(self, data: str | bytes, *, final: bool = False) -> None:
        self.inbox.put(MessagePart(data, len(data), final))


async def test_chunks_come_as_they_arrive() -> None:
    receiving = Receiving()
    receiving.put("one")
    with assert_checkpoints():
        parts = await receiving.open().__aenter__()
    assert parts.text
    assert receiving.inbox.received == 1
    with assert_checkpoints():
        assert await anext(parts) == "one"
    receiving.put("two", final=True)
    with assert_checkpoints():
        assert await anext(parts) == "two"
    for _ in range(2):
        with assert_checkpoints(), pytest.raises(StopAsyncIteration):
            await anext(parts)
    await parts.__aexit__(None, None, None)


async def test_a_message_that_is_there_is_one_chunk() -> None:
    receiving = Receiving()
    receiving.put(b"one")
    receiving.put(b"two", final=True)
    receiving.put("next", final=True)
    async with receiving.open() as parts:
        assert not parts.text
        assert [chunk async for chunk in parts] == [b"onetwo"]
    async with receiving.open() as parts:
        assert parts.text
        assert [chunk async for chunk in parts] == ["next"]


@pytest.mark.parametrize("data", ["", b""], ids=["text", "binary"])
async def test_an_empty_message_has_no_chunks(data: str | bytes) -> None:
    receiving = Receiving()
    receiving.put(data, final=True)
    async with receiving.open() as parts:
        assert parts.text is isinstance(data, str)
        assert [chunk async for chunk in parts] == []


async def test_an_empty_end_is_no_chunk() -> None:
    receiving = Receiving()
    receiving.put("one")
    async with receiving.open() as parts:
        chunks = [await anext(parts)]
        receiving.put("", final=True)
        chunks += [chunk async for chunk in parts]
    assert chunks == ["one"]


@pytest.mark.parametrize("read", [0, 1])
async def test_what_is_left_when_the_block_ends_is_thrown_away(read: int) -> None:
    receiving = Receiving()
    receiving.put("one")
    async with receiving.open() as parts:
        for _ in range(read):
            await anext(parts)
    receiving.put("two")
    receiving.put("three", final=True)
    receiving.put("next", final=True)
    assert await receiving.inbox.get() == "next"


async def test_nobody_else_receives_in_the_meantime() -> None:
    receiving = Receiving()
    receiving.put("one")
    async with receiving.open():
        with pytest.raises(trio.BusyResourceError):
            receiving.inbox.enter()
        with pytest.raises(trio.BusyResourceError):
            await receiving.open().__aenter__()
    receiving.inbox.enter()


async def test_a_second_task_in_the_same_block_is_refused() -> None:
    receiving = Receiving()
    receiving.put("1")
    async with receiving.open() as parts:
        await parts.__anext__()
        chunks: list[str | bytes] = []
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                chunks.append(await parts.__anext__())

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="this block"):
                await parts.__anext__()
            receiving.put("2")
        assert chunks == ["2"]
        receiving.put("3")
        assert await parts.__anext__() == "3"


async def test_no_chunk_can_be_received_outside_of_the_block() -> None:
    receiving = Receiving()
    receiving.put("one")
    parts = receiving.open()
    with pytest.raises(
        trio.ClosedResourceError, match=r"outside of: async with ws.receive_message"
    ):
        await anext(parts)
    async with parts:
        pass
    receiving.put("", final=True)
    receiving.put("next", final=True)
    with pytest.raises(trio.ClosedResourceError):
        await anext(parts)
    assert await receiving.inbox.get() == "next"


async def test_the_end_is_told_where_it_comes() -> None:
    receiving = Receiving()
    receiving.put("one")
    receiving.inbox.end(lambda: ValueError("over"))
    async with receiving.open() as parts:
        assert await anext(parts) == "one"
        with pytest.raises(ValueError, match="over"):
            await anext(parts)
    with pytest.raises(ValueError, match="over"):
        async with receiving.open():
            pytest.fail("it cannot be entered")
    receiving.inbox.enter()  # nobody is left inside


async def test_cancelling_at_any_step_loses_no_chunk() -> None:
    async for attempt in cancellations():
        receiving = Receiving()
        chunks: list[Any] = []
        receiving.put("one")

        async def feed(receiving: Receiving = receiving) -> None:
            await trio.lowlevel.checkpoint()
            receiving.put("two")
            await wait_all_tasks_blocked()
            receiving.put("three", final=True)

        async with receiving.open() as parts, trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            with attempt:
                async for chunk in parts:
                    chunks.append(chunk)  # noqa: PERF401  # to see what came before the cancel
            chunks += [chunk async for chunk in parts]
        assert "".join(chunks) == "onetwothree"


async def test_cancelling_on_the_way_in_leaves_the_message_there() -> None:
    async for attempt in cancellations():
        receiving = Receiving()
        receiving.put("one")
        with attempt:
            async with receiving.open() as parts:
                assert await anext(parts) == "one"
                receiving.put("", final=True)
        if not receiving.inbox.received:
            assert attempt.cancelled
            receiving.put("", final=True)
            assert await receiving.inbox.get() == "one"
        receiving.inbox.enter()
