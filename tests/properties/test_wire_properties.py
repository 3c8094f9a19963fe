"""Whole servers and clients over any wire bytes: they end in time, and break nothing.

The parsers have properties of their own. Here handler, tasks, timeouts and TCP's ends are
in it, too: whatever comes, and however it stops coming.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import attrs
import h11
import trio
import trio.testing
from _helpers import CLOSE, PING, PONG
from hypothesis import example, given, settings
from hypothesis import strategies as st
from properties.test_http_properties import ACCEPT, HANDSHAKE, TOKEN, mutated
from wsproto.connection import Connection, ConnectionType
from wsproto.utilities import RemoteProtocolError

from trio_ws import (
    ConnectionClosed,
    HandshakeError,
    Options,
    WebSocketRequest,
    open_websocket_over_stream,
    serve_websocket_listeners,
)
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._http_headers import accept_token

DEFLATE_OFFER = HANDSHAKE.replace(
    b"\r\n\r\n",
    b"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
)
DEFLATE_ACCEPT = ACCEPT.replace(
    b"Sec-WebSocket-Protocol: chat",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
)


def some_frames(*, masked: bool) -> list[bytes]:
    encode = partial(encode_frame, masked=masked)
    return [
        encode(TEXT, "grüße".encode()),
        encode(BINARY, bytes(200)),
        encode(TEXT, b"a", fin=False) + encode(PING, b"p") + encode(CONTINUATION, b"b"),
        encode(TEXT, b"\xf2H\xcd\xc9\xc9\x07\x00", rsv1=True),  # RFC 7692, section 7.2.3.1
        encode(BINARY, b"\xff" * 9, rsv1=True),
        encode(PONG, b""),
        encode(CLOSE, b"\x03\xe8bye"),
        encode(CLOSE, b""),
    ]


@attrs.frozen
class Script:
    """What a peer does: bytes in chunks with pauses, and then an end."""

    data: bytes
    sizes: list[int]
    pause: float
    end: str


def scripts(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[Script]:
    return st.builds(
        Script,
        data,
        sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5),
        pause=st.sampled_from([0, 0.1, 30]),
        end=st.sampled_from(["eof", "reset", "silence", "gone"]),
    )


def behind(opening: bytes, frames: list[bytes]) -> st.SearchStrategy[bytes]:
    """A handshake that is in order, and frames that may not be."""
    return mutated(frames).map(opening.__add__)


def wire(openings: list[bytes], frames: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.binary(max_size=300),
        mutated([*openings, *frames]),
        *(behind(opening, frames) for opening in openings),
    )


async def play(script: Script, stream: trio.StapledStream[Any, Any]) -> bytes:
    """Be the peer; return all that it heard."""
    heard = bytearray()

    async def listen() -> None:
        try:
            while data := await stream.receive_some():
                heard.extend(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await speak(script, stream)
        if script.end == "silence":
            await trio.sleep(100)  # longer than all timeouts of the other side together
        nursery.cancel_scope.cancel()
    return bytes(heard)


async def speak(script: Script, stream: trio.StapledStream[Any, Any]) -> None:
    data, turn = script.data, 0
    try:
        while data:
            size = script.sizes[turn % len(script.sizes)]
            await stream.send_all(data[:size])
            data, turn = data[size:], turn + 1
            if script.pause and turn % 3 == 0:
                await trio.sleep(script.pause)
        if script.end == "eof":
            await stream.send_eof()
            await trio.sleep(100)
        elif script.end == "gone":
            await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    if script.end == "reset":
        await trio.aclose_forcefully(stream)


class Complaints(logging.Handler):
    """Nothing that a peer does is an error of ours."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario at once, whatever it waits for; nothing may be logged as an error."""
    complaints = Complaints()
    logger = logging.getLogger("trio_ws")
    logger.addHandler(complaints)
    try:
        trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logger.removeHandler(complaints)
    assert complaints.lines == []


# Our server...


class OneStream(trio.abc.Listener[trio.abc.Stream]):
    """A listener that one client comes to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._streams = [stream]

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if not self._streams:
            await trio.sleep_forever()
        return self._streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def echo(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


UPGRADE = [("Host", "h"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]


def assert_answers(heard: bytes) -> None:
    """Check that it is HTTP, and behind a 101 frames that a strict client takes."""
    if not heard:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=UPGRADE))
    client.send(h11.EndOfMessage())
    client.receive_data(heard)
    head = client.next_event()
    if isinstance(head, h11.InformationalResponse):
        assert head.status_code == 101
        opening, _, frames = heard.partition(b"\r\n\r\n")
        if b"permessage-deflate" not in opening:
            assert_frames(frames, ConnectionType.CLIENT)
    else:  # that its length is right, and that another may follow, other tests show
        assert isinstance(head, h11.Response)


def assert_frames(data: bytes, role: ConnectionType) -> None:
    witness = Connection(role)
    try:
        witness.receive_data(data)
        events = list(witness.events())
    except RemoteProtocolError as error:
        raise AssertionError("what we said is against the rules") from error
    codes = [event.code for event in events if type(event).__name__ == "CloseConnection"]
    if not codes or codes[0] != 1014:  # echoed, and unknown to wsproto
        assert "error" not in [type(event).__name__ for event in events]
        assert witness.state.name in {"OPEN", "REMOTE_CLOSING"}


@settings(max_examples=150)
@given(
    scripts(wire([HANDSHAKE, DEFLATE_OFFER], some_frames(masked=True))),
    st.sampled_from(["stay", "leave", "cancel"]),
)
@example(Script(HANDSHAKE, [50], 0, "silence"), "stay")
@example(Script(HANDSHAKE + b"\x81", [1000], 0, "eof"), "stay")
@example(Script(b"", [1], 0, "silence"), "stay")
def test_a_server_survives_any_bytes(script: Script, then: str) -> None:
    async def handler(request: WebSocketRequest) -> None:
        if then == "leave":
            async with request.accept():
                pass
        else:
            await echo(request)

    async def scenario() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket_listeners, handler, [OneStream(ours)])
            server = await nursery.start(serve)
            heard = await play(script, theirs)
            if then != "cancel":
                await trio.sleep(100)
                assert server.statistics().connections == 0
                assert not server._state.connections
            assert_answers(heard)
            cancelled_at = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - cancelled_at < 6  # close_grace, and a moment

    run(scenario)


# Our client...


@settings(max_examples=150)
@given(
    scripts(wire([ACCEPT, DEFLATE_ACCEPT], some_frames(masked=False))),
    st.sampled_from(["stay", "leave", "cancel"]),
)
@example(Script(ACCEPT, [50], 0, "silence"), "stay")
@example(Script(ACCEPT, [50], 0, "silence"), "leave")
@example(Script(ACCEPT + b"\x81", [1000], 0, "eof"), "stay")
@example(Script(b"", [1], 0, "silence"), "stay")
def test_a_client_survives_any_bytes(script: Script, then: str) -> None:
    async def use(stream: trio.abc.Stream) -> None:
        try:
            async with open_websocket_over_stream(
                stream, "ws://example.org/chat", subprotocols=["chat"], options=Options()
            ) as ws:
                if then != "leave":
                    async for message in ws:
                        await ws.send(message)
        except (HandshakeError, ConnectionClosed):
            pass

    async def scenario() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_server, script, theirs)
            with trio.fail_after(30 * len(script.data) + 200):
                with trio.move_on_after(0.5 if then == "cancel" else 10**6):
                    await use(ours)
            nursery.cancel_scope.cancel()

    run(scenario)


async def be_server(script: Script, stream: trio.StapledStream[Any, Any]) -> None:
    request = bytearray()
    while b"\r\n\r\n" not in request:
        data = await stream.receive_some()
        if not data:
            return  # cancelled before it had said anything
        request += data
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    token = accept_token(key.decode()).encode()
    heard = await play(attrs.evolve(script, data=script.data.replace(TOKEN, token)), stream)
    if b"permessage-deflate" not in script.data:
        assert_frames(heard, ConnectionType.SERVER)
