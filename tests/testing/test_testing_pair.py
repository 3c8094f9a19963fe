"""A client and a server in memory: real ones, which end whatever the link does."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import trio_ws
from trio_ws import CloseInfo, Options
from trio_ws.testing import Frame, Link, Pair, open_pair, open_raw_pair

SIDES = ["client", "server"]


async def test_both_sides_are_real_and_have_shaken_hands() -> None:
    async with open_pair(
        "/chat?x=1", subprotocols=["a", "b"], subprotocol="b", headers={"X-Me": "1"}
    ) as (client, server):
        await client.send("hello")
        await server.send(b"there")
        assert await server.receive() == "hello"
        assert await client.receive() == b"there"
        assert client.subprotocol == server.subprotocol == "b"
        assert server.request is not None
        assert server.request.target == "/chat?x=1"
        assert server.request.headers["X-Me"] == "1"
        assert "client" in repr(client)
        assert "server" in repr(server)


async def test_each_side_has_its_own_options(autojump_clock) -> None:
    async with open_pair(
        client_options=Options(ping_interval=None, compression=None),
        server_options=Options(max_message_size=10),
    ) as (client, _):
        await client.send("x" * 11)
        with pytest.raises(trio_ws.ConnectionLost, match="1009"):
            await client.receive()
    async with open_pair() as pair:
        await pair.client.send("x" * 5000)
        await pair.server.receive()
        assert pair.recorder.frames("client")[0].rsv == 4


async def test_it_ends_politely(autojump_clock) -> None:
    async with open_pair() as pair:
        pass
    assert pair.client.close_info == CloseInfo(1000, "", "local", clean=True)
    assert pair.server.close_info == CloseInfo(1000, "", "remote", clean=True)
    assert trio.current_time() < 1e9


async def test_it_may_have_ended_before(autojump_clock) -> None:
    async with open_pair() as (client, server):
        await server.aclose(3000)
    assert client.close_info == CloseInfo(3000, "", "remote", clean=True)


async def test_the_exception_of_the_block_comes_out_as_it_is(autojump_clock) -> None:
    error = ValueError("mine")
    pair: Pair | None = None
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_pair() as pair:
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert pair.client.close_info == CloseInfo(1011, "", "local", clean=True)


async def test_a_group_of_the_block_comes_out_as_it_is(autojump_clock) -> None:
    group = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:  # noqa: ASYNC401  # the very same one
        async with open_pair():
            raise group
    assert caught.value is group


async def test_cancelling_the_block_says_1001(autojump_clock) -> None:
    with trio.move_on_after(1) as scope:
        async with open_pair() as pair:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert {pair.client.close_info.code, pair.server.close_info.code} == {1001}


@pytest.mark.parametrize("fault", ["stall", "half_open", "reset"])
async def test_it_ends_whatever_the_link_does(fault: str, autojump_clock) -> None:
    begin = trio.current_time()
    async with open_pair() as pair:
        getattr(pair.link, fault)()
    assert trio.current_time() - begin <= 10
    assert not pair.client.close_info.clean
    assert not pair.server.close_info.clean


async def test_no_connection_over_the_link_is_said_at_once(autojump_clock) -> None:
    link = Link()
    link.to_server.reset_after(10)
    with pytest.raises(trio_ws.HandshakeError):
        async with open_pair(link=link):
            raise AssertionError("not to be reached")
    link = Link()
    link.stall()
    with pytest.raises(trio_ws.HandshakeTimeout):
        async with open_pair(link=link):
            raise AssertionError("not to be reached")


async def test_a_wrong_argument_is_the_error_that_it_is(autojump_clock) -> None:
    with pytest.raises(ValueError, match="offer") as caught:
        async with open_pair(subprotocol="nobody-asked"):
            raise AssertionError("not to be reached")
    assert not isinstance(caught.value, trio_ws.WebSocketError)
    with pytest.raises(ValueError, match=r"."):
        async with open_pair("/white space"):
            raise AssertionError("not to be reached")


async def test_the_link_is_the_one_that_was_given(autojump_clock) -> None:
    link = Link(latency=1)
    async with open_pair(link=link) as pair:
        assert pair.link is link
        assert pair.recorder is link.recorder
        assert await pair.client.ping() == 2


async def test_an_hour_of_keepalive_takes_no_time(autojump_clock) -> None:
    async with open_pair() as pair:
        await trio.sleep(3600)
        assert pair.client.close_info is None
    assert pair.recorder.frames().count(Frame.close(1000)) == 2
    pings = [frame for frame in pair.recorder.frames() if frame.opcode == 9]
    assert 179 <= len(pings) <= 360


@pytest.mark.parametrize("side", SIDES)
async def test_a_raw_peer_can_be_either_side(side, autojump_clock) -> None:
    async with open_raw_pair(side, options=Options(ping_interval=None)) as (ws, peer):
        assert peer.client == (side == "server")
        await ws.send("a")
        await peer.expect(b"\x81\x01a")
        await peer.send(Frame.text("b"))
        assert await ws.receive() == "b"
        await peer.expect_silence(1000)


@pytest.mark.parametrize("side", SIDES)
async def test_a_raw_peer_says_what_it_likes_in_the_handshake(side, autojump_clock) -> None:
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    if side == "client":
        headers = {
            "Sec-WebSocket-Extensions": "permessage-deflate; server_no_context_takeover;"
            " client_no_context_takeover"
        }
    behind = Frame.text("early").encode() if side == "client" else b"\x81\x85\0\0\0\0early"
    link = Link()
    async with open_raw_pair(side, headers=headers, behind=behind, link=link) as (ws, peer):
        assert await ws.receive() == "early"
        await ws.send("x" * 5000)
        assert (await peer.receive_frame()).rsv == 4
    assert link.recorder.frames()


@pytest.mark.parametrize("side", SIDES)
async def test_the_end_of_the_block_is_the_end_of_the_peer(side, autojump_clock) -> None:
    begin = trio.current_time()
    async with open_raw_pair(side) as (ws, peer):
        pass
    assert trio.current_time() == begin
    assert ws.close_info.initiator == "lost"
    with pytest.raises(trio.ClosedResourceError):
        await peer.send(b"x")


@pytest.mark.parametrize("side", SIDES)
async def test_a_raw_pair_keeps_the_exception_of_the_block(side, autojump_clock) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_raw_pair(side):
            raise error
    assert caught.value is error


async def test_a_raw_pair_needs_a_handshake_too(autojump_clock) -> None:
    with pytest.raises(AssertionError, match="did not accept"):
        async with open_raw_pair("server", headers={"Sec-WebSocket-Version": "12"}):
            raise AssertionError("not to be reached")
    with pytest.raises(trio_ws.HandshakeError):
        async with open_raw_pair("client", headers={"Sec-WebSocket-Protocol": "what"}):
            raise AssertionError("not to be reached")
