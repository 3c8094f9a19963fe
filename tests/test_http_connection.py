"""A server's HTTP connection: requests in, answers out, whatever TCP does to them."""

from __future__ import annotations

import socket

import pytest
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream, wait_all_tasks_blocked

from trio_ws._http_connection import HTTPConnection
from trio_ws._http_response import BadRequest, Response
from trio_ws._streams import READ_SIZE
from trio_ws.testing import cancellations

GET = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = Response("ok")

Peer = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def connect(max_header_size: float = 16384) -> tuple[HTTPConnection, Peer]:
    ours, theirs = trio.testing.memory_stream_pair()
    return HTTPConnection(ours, max_header_size), theirs


async def serve(http: HTTPConnection) -> list[str]:
    """Answer all requests; return their targets."""
    targets = []
    while (head := await http.next_request()) is not None:
        targets.append(head.target)
        await http.send(http.protocol.respond(OK))
        if http.finished:
            break
    return targets


async def received(peer: Peer) -> bytes:
    """Return all that has come so far."""
    with trio.fail_after(1):
        return bytes(await peer.receive_some())


async def test_requests_are_served_one_after_the_other() -> None:
    http, peer = connect()
    for number in range(3):
        await peer.send_all(GET % number)
        head = await http.next_request()
        assert head is not None
        assert head.target == f"/{number}"
        assert not http.finished
        await http.send(http.protocol.respond(OK))
        assert (await received(peer)).endswith(b"\r\n\r\nok")


async def test_pipelined_requests_are_served_in_their_order_without_reading_again() -> None:
    http, peer = connect()
    await peer.send_all(GET % 1 + GET % 2 + GET % 3)
    await peer.send_eof()
    assert await serve(http) == ["/1", "/2", "/3"]
    assert (await received(peer)).count(b"HTTP/1.1 200 ") == 3
    assert http.finished


async def test_a_request_may_come_byte_by_byte() -> None:
    http, peer = connect()
    async with trio.open_nursery() as nursery:

        async def dribble() -> None:
            for byte in GET % 1 + GET % 2:
                await peer.send_all(bytes([byte]))
                await trio.testing.wait_all_tasks_blocked()
            await peer.send_eof()

        nursery.start_soon(dribble)
        assert await serve(http) == ["/1", "/2"]


async def test_the_end_of_the_connection_between_requests_is_none() -> None:
    http, peer = connect()
    await peer.send_eof()
    assert not http.finished  # it has not been read yet
    assert await http.next_request() is None
    assert http.finished
    assert await http.next_request() is None  # and again, without reading


async def test_the_end_in_the_middle_of_a_request_is_a_bad_one() -> None:
    http, peer = connect()
    await peer.send_all((GET % 1)[:-2])
    await peer.send_eof()
    with pytest.raises(BadRequest, match="400: the connection ended in the middle of a request"):
        await http.next_request()
    assert http.finished
    await http.send(http.protocol.respond(Response(status=400)))
    assert b"connection: close" in (await received(peer)).lower()


async def test_the_end_in_the_middle_of_a_body_is_a_bad_one() -> None:
    http, peer = connect()
    await peer.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    await peer.send_eof()
    with pytest.raises(BadRequest, match="in the middle"):
        await http.next_request()


@pytest.mark.parametrize(
    "post",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 36\r\n\r\n" + GET % 6,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"24\r\n" + GET % 6 + b"\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_a_body_is_skipped_and_never_taken_for_a_request(post: bytes, pieces: int) -> None:
    assert len(GET % 6) == 36
    http, peer = connect()
    data = post + GET % 7
    size = -(-len(data) // pieces)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(data), size):
                await peer.send_all(data[start : start + size])
                await trio.testing.wait_all_tasks_blocked()
            await peer.send_eof()

        nursery.start_soon(send)
        assert await serve(http) == ["/", "/7"]


async def test_a_bad_request_is_the_last() -> None:
    http, peer = connect()
    await peer.send_all(b"nonsense\r\n\r\n" + GET % 1)
    with pytest.raises(BadRequest):
        await http.next_request()
    assert http.finished
    assert await http.next_request() is None


async def test_a_head_that_is_too_long_is_refused_before_it_has_ended() -> None:
    http, peer = connect(max_header_size=100)
    await peer.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100)
    with pytest.raises(BadRequest) as caught:
        await http.next_request()
    assert caught.value.status == 431


async def test_connection_close_finishes_after_the_answer() -> None:
    http, peer = connect()
    await peer.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET % 1)
    assert await serve(http) == ["/"]
    assert http.finished


async def test_a_lost_connection_is_told_on_either_way() -> None:
    http, peer = connect()
    await peer.send_all(GET % 1)
    assert await http.next_request() is not None
    await peer.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await http.send(http.protocol.respond(OK))

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    ours, _ = trio.testing.memory_stream_pair()
    ours.receive_stream.receive_some_hook = fail
    http = HTTPConnection(ours, 16384)
    with pytest.raises(trio.BrokenResourceError):
        await http.next_request()
    assert not http.finished  # it is lost, not ended: nobody asks again


async def test_a_cancelled_wait_loses_no_byte() -> None:
    async for attempt in cancellations():
        http, peer = connect()
        await peer.send_all((GET % 1)[:20])
        head = None
        async with trio.open_nursery() as nursery:

            async def send_the_rest(peer: Peer = peer) -> None:
                await trio.testing.wait_all_tasks_blocked()
                await peer.send_all((GET % 1)[20:])

            nursery.start_soon(send_the_rest)
            with attempt:
                head = await http.next_request()
        if head is None:
            assert attempt.cancelled
            head = await http.next_request()
        assert head is not None
        assert head.target == "/1"


@pytest.mark.parametrize("how", ["eof", "close"])
async def test_a_client_that_goes_while_it_waits_for_its_answer_is_noticed(how: str) -> None:
    http, peer = connect()
    await peer.send_all(GET % 1)
    await http.next_request()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.wait_gone)
        await wait_all_tasks_blocked()
        await peer.send_all(GET % 2)  # the next request
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await (peer.send_eof() if how == "eof" else peer.aclose())
    if how == "eof":
        await http.send(http.protocol.respond(OK))
        assert await serve(http) == ["/2"]


async def test_what_came_with_the_connection_is_read_at_once_but_only_once() -> None:
    near, far = socket.socketpair()
    with far:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        async with stream:
            http = HTTPConnection(stream, 1000)
            far.send(GET % 1)
            with trio.testing.assert_no_checkpoints():
                first = await http.next_request()
            await http.send(http.protocol.respond(OK))
            far.send(GET % 2)
            with trio.testing.assert_checkpoints():
                second = await http.next_request()
    assert first is not None
    assert second is not None
    assert (first.target, second.target) == ("/1", "/2")


async def test_a_client_that_resets_while_it_waits_for_its_answer_is_noticed() -> None:
    near, far = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    http = HTTPConnection(stream, 1000)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(http.wait_gone)
        await wait_all_tasks_blocked()
        await http.send(b"unread")
        far.close()  # a reset, on a Unix socket: it leaves something unread


async def test_a_client_that_sends_and_sends_is_there_and_is_not_read_for_ever() -> None:
    http, peer = connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.wait_gone)
        for _ in range(10):
            await peer.send_all(bytes(30_000))
            await wait_all_tasks_blocked()
        await peer.send_eof()
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()
    assert READ_SIZE <= len(http.protocol.leftover) < 3 * READ_SIZE


async def test_the_leftover_behind_a_request_is_taken_once() -> None:
    http, peer = connect()
    await peer.send_all(GET % 1 + b"frames")
    assert await http.next_request() is not None
    assert http.take_leftover() == b"frames"
    assert http.take_leftover() == b""
    assert http.protocol.leftover == b""


async def test_what_a_socket_takes_at_once_needs_no_further_write() -> None:
    ours, theirs = socket.socketpair()
    http = HTTPConnection(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), 16384)
    async with http.stream:
        with theirs:
            await http.send(b"an answer")
            assert theirs.recv(100) == b"an answer"


async def test_an_answer_to_a_socket_can_be_cancelled_before_it_leaves() -> None:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    http = HTTPConnection(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), 16384)
    async with http.stream:
        with theirs, trio.CancelScope() as scope:
            scope.cancel()
            await http.send(b"an answer")
        assert scope.cancelled_caught
