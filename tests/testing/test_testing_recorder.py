"""The transcript of a link: who sent what, when it arrived, and how that is told."""

from __future__ import annotations

import pytest
import trio

from trio_ws.testing import Entry, Frame, Link, MemoryNetwork, Recorder, open_pair, open_server
from trio_ws.testing._recorder import MAX_BYTES, recent

pytest_plugins = ("pytest_trio_ws",)

LONG = Frame.text("x" * 100).encode()


async def test_a_transcript_has_all_frames_of_both_sides(autojump_clock) -> None:
    async with open_pair("/chat") as pair:
        client, server = pair
        await client.send("hello")
        await server.send(await server.receive())
        await client.receive()
        await client.aclose(1001, "bye")
    recorder = pair.recorder
    assert recorder.frames("client") == [Frame.text("hello"), Frame.close(1001, "bye")]
    assert recorder.frames("server") == [Frame.text("hello"), Frame.close(1001)]
    assert recorder.frames() == [
        Frame.text("hello"),
        Frame.text("hello"),
        Frame.close(1001, "bye"),
        Frame.close(1001),
    ]
    assert [str(entry.what) for entry in recorder.entries] == [
        "GET /chat HTTP/1.1",
        "HTTP/1.1 101 Switching Protocols",
        "text 'hello'",
        "text 'hello'",
        "close 1001 'bye'",
        "close 1001",
        "end of TCP",
        "end of TCP",
    ]


async def tell(link: Link) -> None:
    """Have something of everything on a link."""
    network = MemoryNetwork()
    async with network.listen() as listener:
        client = await network.connect("localhost", 80, link=link)
        server = await listener.accept()
    async with client, server:
        await client.send_all(b"GET /chat HTTP/1.1\r\nSec-WebSocket-Key: 1\r\n")
        await client.send_all(b"\r\n")
        await server.receive_some()
        await trio.sleep(1)
        await server.send_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + Frame.ping().encode())
        await client.receive_some()
        await client.send_all(Frame.text("hello").encode() + LONG[:1])
        await trio.sleep(1)
        link.to_server.stall()
        await client.send_all(LONG[1:])
        await server.send_eof()
        await client.receive_some()
        link.reset()


async def test_it_reads_like_a_letter(autojump_clock) -> None:
    link = Link(latency=0.25)
    await tell(link)
    assert str(link.recorder).splitlines() == [
        "    0.000  client   GET /chat HTTP/1.1   (arrived 0.250)",
        "    1.250  server   HTTP/1.1 101 Switching Protocols   (arrived 1.500)",
        "    1.250  server   ping   (arrived 1.500)",
        "    1.500  client   text 'hello'   (has not arrived)",
        "    2.500  network  to the server: stalled",
        f"    2.500  client   text '{'x' * 40}' (100 bytes)   (has not arrived)",
        "    2.500  server   end of TCP   (arrived 2.750)",
        "    2.750  network  reset",
    ]
    assert repr(link.recorder) == f"<Recorder\n{link.recorder}\n>"
    first = link.recorder.entries[0]
    assert repr(first) == f"<Entry {first}>"


async def test_it_can_be_drawn(autojump_clock) -> None:
    link = Link(latency=0.25)
    await tell(link)
    assert link.recorder.diagram().splitlines() == [
        "         client                                            server",
        "    0.000   |-- GET /chat HTTP/1.1 ------------------------->| 0.250",
        "    1.250   |<----------- HTTP/1.1 101 Switching Protocols --| 1.500",
        "    1.250   |<--------------------------------------- ping --| 1.500",
        "    1.500   |-- text 'hello' ---x                            |",
        "    2.500   |~~~~~~~~~~~~ to the server: stalled ~~~~~~~~~~~~|",
        "    2.500   |-- text 'xxxxxxxxxxxxxxxxxxxxxxxxxxxx.. ---x    |",
        "    2.500   |<--------------------------------- end of TCP --| 2.750",
        "    2.750   |~~~~~~~~~~~~~~~~~~~~ reset ~~~~~~~~~~~~~~~~~~~~~|",
    ]


async def test_a_frame_of_the_server_that_has_not_arrived(autojump_clock) -> None:
    async with open_pair() as pair:
        pair.link.to_client.stall()
        await pair.server.send("hello")
        await trio.testing.wait_all_tasks_blocked()
        line = pair.recorder.diagram().splitlines()[-1]
        assert line == "    0.000   |                            x--- text 'hello' --|"
        pair.link.resume()


async def test_a_frame_that_has_not_come_to_its_end_is_counted(autojump_clock) -> None:
    recorder = Recorder()
    recorder._note_sent("client", Frame.text("hello").encode()[:4])
    assert str(recorder) == "(client: 4 bytes of a frame that has not come to its end)"
    assert recorder.diagram().splitlines()[-1] == str(recorder)
    assert recorder.frames() == []


async def test_a_frame_has_arrived_when_all_of_it_has(autojump_clock) -> None:
    recorder = Recorder()
    wire = Frame.text("hello").encode()
    recorder._note_sent("client", wire + wire)
    recorder._note_arrived("client", len(wire) + 1)
    assert [entry.arrived_at for entry in recorder.entries] == [0, None]
    recorder._note_arrived("client", 2 * len(wire))
    assert [entry.arrived_at for entry in recorder.entries] == [0, 0]


async def test_http_that_becomes_no_websocket_is_told_too(autojump_clock) -> None:
    async def refuse(request) -> None:
        await request.reject(404, body="Not here")

    async with open_server(refuse) as connect:
        with pytest.raises(Exception, match="404"):
            async with connect("/nowhere"):
                pass
    (link,) = connect.network.links
    told = [str(entry.what) for entry in link.recorder.entries]
    assert told[:2] == ["GET /nowhere HTTP/1.1", "HTTP/1.1 404 Not Found"]
    assert "8 bytes" in told


async def test_tls_is_only_counted(autojump_clock) -> None:
    recorder = Recorder()
    recorder._note_sent("client", b"\x16\x03\x01...")
    recorder._note_sent("client", b"abc")
    assert [entry.what for entry in recorder.entries] == ["TLS: 6 bytes", "TLS: 3 bytes"]


async def test_frames_may_come_without_a_handshake(autojump_clock) -> None:
    recorder = Recorder()
    recorder._note_sent("server", b"\xc1\x01a")
    recorder._note_sent("client", b"A\x01a")
    assert recorder.frames("server") == [Frame(1, b"a", rsv=4)]
    assert recorder.frames("client") == [Frame(1, b"a", rsv=4, fin=False)]


async def test_the_oldest_is_forgotten_first(autojump_clock) -> None:
    recorder = Recorder()
    for letter in b"abc":
        recorder._note_sent("client", Frame.binary(bytes([letter]) * (MAX_BYTES // 2)).encode())
    assert [frame.payload[:1] for frame in recorder.frames()] == [b"c"]
    assert str(recorder).startswith("(2 older entries are forgotten)\n")
    recorder._note_sent("client", Frame.binary(b"d" * (MAX_BYTES + 1)).encode())
    assert [frame.payload[:1] for frame in recorder.frames()] == [b"d"]
    assert recorder.diagram().startswith("(3 older entries are forgotten)\n")


async def test_what_follows_can_stand_alone() -> None:
    async with open_pair() as pair:
        for word in ("before", "behind"):
            pair.recorder.clear()
            await pair.client.send(word)
            await pair.server.receive()
        assert pair.recorder.frames() == [Frame.text("behind")]
        assert len(pair.recorder.entries) == 1


def test_what_happens_when_the_run_is_over_has_the_time_of_its_end() -> None:
    recorder = Recorder()
    recorder._note_event("network", "reset")
    (entry,) = recorder.entries
    assert isinstance(entry, Entry)
    assert (entry.sent_at, entry.arrived_at) == (0, 0)


def test_the_newest_recorders_are_known() -> None:
    recorder = Recorder()
    assert recent[-1] is recorder
