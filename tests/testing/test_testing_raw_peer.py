"""A peer of literal bytes: what it sends, what it expects, what it says of anything else."""

from __future__ import annotations

import zlib

import attrs
import pytest
import trio
import trio.testing

import trio_ws
from trio_ws.testing import Frame, Link, MemoryNetwork, RawPeer, open_raw_pair, open_server
from trio_ws.testing._frame import RSV1
from trio_ws.testing._raw_peer import MASK

pytest_plugins = ("pytest_trio_ws",)
SIDES = ["client", "server"]


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    """Which side the peer plays."""
    return request.param


@pytest.fixture
async def peers(side: str, memory_network: MemoryNetwork):
    """Two raw peers that talk to each other: the one under test, and its opposite."""
    async with memory_network.listen() as listener:
        ours = await memory_network.connect("localhost", 80)
        theirs = await listener.accept()
        async with RawPeer(ours, client=True) as client, RawPeer(theirs, client=False) as server:
            yield (client, server) if side == "client" else (server, client)


def failure(caught: pytest.ExceptionInfo[AssertionError]) -> list[str]:
    return str(caught.value).splitlines()


# The handshake...


async def test_two_raw_peers_shake_hands(memory_network, nursery) -> None:
    listener = memory_network.listen()
    heads: list[str] = []

    async def accept() -> None:
        async with listener, RawPeer(await listener.accept(), client=False) as server:
            heads.append(await server.accept(headers={"X-Server": "1"}, behind=b"\x89\x00"))
            await server.expect(b"\x81\x01a")

    nursery.start_soon(accept)
    async with RawPeer(await memory_network.connect("localhost", 80), client=True) as client:
        head = await client.request("/chat?a=b", headers={"Host": "a.test"}, behind=masked(b"a"))
        await client.expect(Frame.ping())
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
    assert head.endswith("X-Server: 1\r\n\r\n")
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    assert heads[0].startswith("GET /chat?a=b HTTP/1.1\r\nHost: a.test\r\n")


def masked(payload: bytes) -> bytes:
    return attrs.evolve(Frame.text(payload), mask=MASK).encode()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the server did not accept:\nHTTP/1.1 403"),
        (b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: x\r\n\r\n", "Sec-WebSocket-Accept is not"),
        (b"HTTP/1.1 101 OK\r\n", "no head came, but b'HTTP/1.1 101 OK.*, then end of TCP"),
    ],
    ids=["403", "key", "torn"],
)
async def test_a_raw_client_judges_the_answer(
    memory_network, nursery, answer: bytes, complaint: str
) -> None:
    listener = memory_network.listen()

    async def reply() -> None:
        async with listener, await listener.accept() as stream:
            await stream.receive_some()
            await stream.send_all(answer)

    nursery.start_soon(reply)
    async with RawPeer(await memory_network.connect("localhost", 80), client=True) as client:
        with pytest.raises(AssertionError, match=complaint):
            await client.request()


async def test_a_raw_server_wants_a_key(autojump_clock, peers, side) -> None:
    peer, other = peers
    await other.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    with pytest.raises(AssertionError, match="no request for a WebSocket:\nGET / HTTP"):
        await peer.accept()


async def test_no_head_is_no_reason_to_wait_for_ever(autojump_clock, peers) -> None:
    peer, _ = peers
    begin = trio.current_time()
    with pytest.raises(AssertionError, match="no head came, but b'', then nothing for 60 s"):
        await peer.receive_head()
    assert trio.current_time() - begin == 60


# Sending...


async def test_bytes_go_out_as_they_are_and_frames_as_the_side_must(
    autojump_clock, peers, side
) -> None:
    peer, other = peers
    await peer.send(b"\x81", Frame.text("a"), attrs.evolve(Frame.ping(b"x"), mask=b"1234"))
    wire = b"\x81\x81\x01\x02\x04\x08`" if side == "client" else b"\x81\x01a"
    ping = b"\x89\x811234I"
    assert await other.stream.receive_some() == b"\x81" + wire + ping


async def test_half_a_close_ends_one_direction(autojump_clock, peers) -> None:
    peer, other = peers
    await peer.send_end()
    await other.expect_end()
    await other.send(Frame.text("a"))
    assert await peer.receive_frame() == Frame.text("a")
    assert repr(other).endswith("end of TCP>")


async def test_a_stream_that_has_no_half_close_says_so(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_one_way_pair()
    stream = trio.StapledStream(ours, theirs)
    peer = RawPeer(trio.testing.memory_stream_pair()[0], client=True)
    with pytest.raises(TypeError, match="cannot be reset"):
        await peer.reset()
    tls = RawPeer(trio.SSLStream(stream, trio_ws._tls.default_context()), client=True)
    with pytest.raises(TypeError, match="SSLStream cannot be closed by halves"):
        await tls.send_end()
    with pytest.raises(TypeError, match="StapledStream cannot be reset"):
        await tls.reset()


async def test_a_reset_is_one(autojump_clock, peers) -> None:
    peer, other = peers
    await peer.reset()
    await other.expect_end(reset=True)
    assert repr(other).endswith("reset>")


async def test_a_reset_works_over_real_tcp() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.testing.open_stream_to_socket_listener(listener)
        async with RawPeer(await listener.accept(), client=False) as other:
            await RawPeer(stream, client=True).reset()
            await other.expect_end(reset=True)


async def test_closing_is_a_checkpoint_and_leaves_no_close_frame(autojump_clock, peers) -> None:
    peer, other = peers
    with trio.testing.assert_checkpoints():
        await peer.aclose()
    await other.expect_end()


# Receiving...


async def test_frames_come_one_by_one_and_then_none(autojump_clock, peers) -> None:
    peer, other = peers
    await other.send(Frame.text("a"), Frame.ping())
    await other.send_end()
    assert await peer.receive_frame() == Frame.text("a")
    assert await peer.receive_frame() == Frame.ping()
    assert await peer.receive_frame() is None
    assert await peer.receive_frame() is None


async def test_no_frame_is_no_reason_to_wait_for_ever(autojump_clock, peers) -> None:
    peer, _ = peers
    peer.patience = 5
    with pytest.raises(AssertionError, match="no frame came, but nothing for 5 s"):
        await peer.receive_frame()


async def test_a_cancelled_receive_loses_nothing(autojump_clock, peers) -> None:
    peer, other = peers
    wire = Frame.text("a").encode()
    await other.send(wire[:2])
    with trio.move_on_after(1):
        await peer.receive_frame()
    await other.send(wire[2:])
    assert await peer.receive_frame() == Frame.text("a")


async def test_a_message_is_its_fragments_without_the_pings(autojump_clock, peers) -> None:
    peer, other = peers
    await other.send(
        Frame.text("a", fin=False),
        Frame.ping(),
        Frame.continuation("b"),
        Frame.binary(b"\x00"),
        Frame.close(1000),
    )
    assert await peer.receive_message() == "ab"
    assert await peer.receive_message() == b"\x00"
    with pytest.raises(AssertionError, match="no message came, but close 1000"):
        await peer.receive_message()
    await other.aclose()
    with pytest.raises(AssertionError, match="no message came, but end of TCP"):
        await peer.receive_message()


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FINISH])
async def test_a_compressed_message_is_inflated(autojump_clock, peers, flush: int) -> None:
    peer, other = peers
    for text in ("hello " * 10, "hello " * 20):
        deflater = zlib.compressobj(wbits=-15)
        data = deflater.compress(text.encode()) + deflater.flush(flush)
        payload = data[:-4] if flush == zlib.Z_SYNC_FLUSH else data + b"\x00"
        await other.send(
            Frame(1, payload[:5], fin=False, rsv=RSV1), Frame.continuation(payload[5:])
        )
        assert await peer.receive_message() == text


async def test_a_window_that_is_kept_is_followed(autojump_clock, peers) -> None:
    peer, other = peers
    deflater = zlib.compressobj(wbits=-15)
    for _ in range(3):
        data = deflater.compress(b"hello" * 10) + deflater.flush(zlib.Z_SYNC_FLUSH)
        await other.send(Frame(2, data[:-4], rsv=RSV1))
        assert await peer.receive_message() == b"hello" * 10


async def test_a_polite_peer_answers_until_the_end(side, autojump_clock) -> None:
    opposite = "server" if side == "client" else "client"
    async with open_raw_pair(opposite) as (ws, peer):
        async with trio.open_nursery() as nursery:
            frames = []

            async def answer() -> None:
                frames.extend(await peer.answer())

            nursery.start_soon(answer)
            await ws.ping(b"1")
            await ws.send("a")
            await ws.aclose(1001, "bye")
        assert frames == [Frame.ping(b"1"), Frame.text("a"), Frame.close(1001, "bye")]
    assert ws.close_info == trio_ws.CloseInfo(1001, "bye", "local", clean=True)


async def test_a_polite_peer_takes_a_broken_connection(autojump_clock, peers) -> None:
    peer, other = peers
    await other.send(Frame.ping())
    await other.stream.send_all(Frame.ping().encode())
    await trio.testing.wait_all_tasks_blocked()
    other.stream.socket.link.to_client.buffer = None
    await other.aclose()
    frames = await peer.answer()
    assert frames == [Frame.ping(), Frame.ping()]


async def test_a_frame_that_was_torn_is_no_polite_end(autojump_clock, peers) -> None:
    peer, other = peers
    await other.send(b"\x81\x05hel")
    await other.send_end()
    with pytest.raises(AssertionError, match=r"the last frame was torn: b'\\x81\\x05hel'"):
        await peer.answer()


# Expecting...


async def test_what_was_expected_has_come(autojump_clock, peers, side) -> None:
    peer, other = peers
    await other.send(Frame.text("a"), Frame.ping(b"1"), Frame.close(1000))
    await peer.expect(Frame.text("a"), b"\x89\x011")
    await peer.expect(b"\x88\x02\x03\xe8")
    await other.aclose()
    await peer.expect_end()


async def test_something_else_is_shown_frame_by_frame(autojump_clock, peers) -> None:
    peer, other = peers
    await other.send(Frame.text("a"), Frame.close(1011, "oh"), Frame.ping())
    with pytest.raises(AssertionError) as caught:
        await peer.expect(Frame.text("a"), Frame.close(1000))
    assert failure(caught) == [
        "something else was received",
        "  expected     received",
        "  text 'a'     text 'a'",
        "! close 1000   close 1011 'oh'",
        "! -            ping",
    ]


async def test_too_little_is_shown_with_what_came_instead(autojump_clock, peers) -> None:
    peer, other = peers
    peer.patience = 5
    await other.send(Frame.text("a"), b"\x81\x05he")
    with pytest.raises(AssertionError) as caught:
        await peer.expect(Frame.text("a"), Frame.text("hello"), Frame.close(1000))
    assert failure(caught) == [
        "something else was received",
        "  expected       received",
        "  text 'a'       text 'a'",
        r"! text 'hello'   b'\x81\x05he' of a frame",
        "! close 1000     nothing for 5 s",
    ]
    await other.send(b"llo")
    await other.aclose()
    with pytest.raises(AssertionError) as caught:
        await peer.expect(Frame.text("a"), Frame.text("hello"), Frame.close(1000))
    assert failure(caught)[-1] == "! close 1000     end of TCP"


async def test_a_length_that_is_longer_than_it_needs_is_something_else(
    autojump_clock, peers
) -> None:
    peer, other = peers
    await other.send(attrs.evolve(Frame.text("a"), length_size=2))
    with pytest.raises(AssertionError, match=r"text \(length in 2 bytes\) 'a'"):
        await peer.expect(b"\x81\x01a")
    await peer.expect(b"\x81\x7e\x00\x01a")


async def test_a_mask_must_be_there_or_not(autojump_clock, peers, side) -> None:
    peer, other = peers
    wrong = Frame.text("a") if side == "server" else attrs.evolve(Frame.text("a"), mask=MASK)
    await other.send(wrong.encode())
    must = "a client must mask" if side == "server" else "a server must not mask"
    with pytest.raises(AssertionError, match=f"{must}: <Frame text"):
        await peer.expect(Frame.text("a"))


async def test_bytes_to_expect_are_whole_frames(autojump_clock, peers) -> None:
    peer, _ = peers
    with pytest.raises(ValueError, match="end within a frame"):
        await peer.expect(b"\x81\x05a")


@pytest.mark.parametrize("reset", [False, True])
async def test_another_end_than_expected_is_shown(autojump_clock, peers, reset: bool) -> None:
    peer, other = peers
    await other.send(Frame.text("a"))
    await peer.expect(Frame.text("a"))
    await (other.aclose() if reset else other.reset())
    with pytest.raises(AssertionError) as caught:
        await peer.expect_end(reset=reset)
    wanted, came = ("reset", "end of TCP") if reset else ("end of TCP", "reset")
    assert failure(caught)[0] == "the connection did not end as expected"
    assert failure(caught)[2].split() == ["!", *wanted.split(), *came.split()]


async def test_frames_before_the_end_are_shown(autojump_clock, peers) -> None:
    peer, other = peers
    await other.send(Frame.text("a"))
    await other.aclose()
    with pytest.raises(AssertionError) as caught:
        await peer.expect_end()
    assert failure(caught)[1:] == [
        "  expected     received",
        "! -            text 'a'",
        "  end of TCP   end of TCP",
    ]


async def test_silence_is_expected_for_a_time(autojump_clock, peers) -> None:
    peer, other = peers
    begin = trio.current_time()
    await peer.expect_silence(30)
    assert trio.current_time() - begin == 30
    await other.send(Frame.ping())
    with pytest.raises(AssertionError) as caught:
        await peer.expect_silence(30)
    assert failure(caught) == [
        "something was received",
        "  expected           received",
        "! nothing for 30 s   ping",
    ]


async def test_a_peer_may_do_all_this_over_tls(autojump_clock) -> None:
    async def echo(request: trio_ws.WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send(await ws.receive())

    async with open_server(echo, tls=True) as connect, connect.raw(link=Link(chunk=1)) as peer:
        await peer.send(Frame.text("a"))
        await peer.expect(Frame.text("a"), Frame.close(1000))
        await peer.reset()


def test_a_repr_tells_the_side() -> None:
    ours, _ = trio.testing.memory_stream_pair()
    assert repr(RawPeer(ours, client=False)) == "<RawPeer server open>"
