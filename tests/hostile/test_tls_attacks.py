from __future__ import annotations

import os
import ssl

import pytest
import trio
from hostile._attacks import HALF_TLS, NO_TLS
from hostile._lab import scaled
from hostile._peer import Peer, connected
from hostile._wire import BINARY, PING, PONG, TEXT, frame


@pytest.fixture
def client_context(authority) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_what_is_no_tls_is_dropped_and_logged_in_one_line(serve, certificate):
    async with serve(certificate=certificate) as server:
        await server.begin()
        for name, data in NO_TLS.items():
            lines = len(server.log.splitlines())
            async with connected(server.port) as peer:
                await peer.send(data)
                with trio.fail_after(5):
                    while await peer.read():
                        pass
            await server.settled(within=2)
            added = server.log.splitlines()[lines:]
            assert len(added) == 1, (name, added)
            assert "127.0.0.1" in added[0]


async def test_half_a_handshake_is_dropped_at_the_deadline(serve, certificate):
    async with serve(certificate=certificate, handshake_timeout=1.0) as server:
        await server.begin()
        async with trio.open_nursery() as nursery:

            async def attack(data: bytes) -> None:
                async with connected(server.port) as peer:
                    await peer.send(data)
                    with trio.fail_after(5):
                        while await peer.read():
                            pass

            for data in HALF_TLS.values():
                nursery.start_soon(attack, data)
        await server.settled(within=2)
        assert len(server.log.splitlines()) == len(HALF_TLS), server.log


async def secure(context: ssl.SSLContext, tcp: Peer) -> Peer:
    stream = trio.SSLStream(
        tcp.stream, context, server_hostname="localhost", https_compatible=True
    )
    peer = Peer(stream)
    await peer.upgrade("/echo")
    return peer


@pytest.mark.parametrize("goodbye", ["none", "half a record", "reset", "eof", "garbage"])
async def test_tls_that_is_cut_short(serve, certificate, client_context, goodbye):
    async with serve(certificate=certificate) as server:
        await server.begin()
        for _ in range(scaled(100, 10)):
            async with connected(server.port) as tcp:
                peer = await secure(client_context, tcp)
                await peer.send(frame(TEXT, b"hello"))
                assert await peer.next_frame() is not None
                await peer.send(frame(BINARY, bytes(5000))[:2000])
                if goodbye == "half a record":
                    await tcp.send(b"\x17\x03\x03\x40\x00" + os.urandom(100))
                elif goodbye == "garbage":
                    await tcp.send(os.urandom(1000))
                elif goodbye == "eof":
                    await tcp.stream.send_eof()
                elif goodbye == "reset":
                    tcp.reset()
        await server.settled(within=3)
        report = await server.ask()
        assert report["close_codes"] == {"1006": scaled(100, 10)}


async def test_a_good_client_on_tls_beside_all_that(serve, table, certificate, client_context):
    """It echoes and pings all the while; attackers cost the server little."""
    async with serve(certificate=certificate) as server:
        async with connected(server.port) as tcp, trio.open_nursery() as nursery:
            good = await secure(client_context, tcp)
            await server.begin()

            async def attack(data: bytes) -> None:
                async with connected(server.port) as peer:
                    await peer.send(data)
                    with trio.move_on_after(1):
                        while await peer.read():
                            pass

            for data in [*NO_TLS.values(), *HALF_TLS.values()] * scaled(10, 3):
                nursery.start_soon(attack, data)
            for number in range(50):
                await good.send(frame(TEXT, b"%d" % number) + frame(PING, b"%d" % number))
                with trio.fail_after(5):
                    replies = {each.opcode: each.payload for each in await pair(good)}
                assert replies == {TEXT: b"%d" % number, PONG: b"%d" % number}
                await trio.sleep(0.02)
        await server.settled(within=12)
        measured = await server.measured()
    attacks = scaled(10, 3) * (len(NO_TLS) + len(HALF_TLS))
    table.add(f"{attacks} connections that are no TLS, on the TLS port", measured)


async def pair(peer: Peer) -> list:
    first, second = await peer.next_frame(), await peer.next_frame()
    assert first is not None
    assert second is not None
    return [first, second]
