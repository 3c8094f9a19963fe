"""Connecting to a server that goes away at the worst moment, and wrong use of the block."""

from __future__ import annotations

import pytest
import trio
from _components import until
from _helpers import break_sending, stream_pair
from trio.testing import MockClock

from trio_ws import (
    ConnectionRejected,
    HandshakeError,
    WebSocketRequest,
    open_websocket_over_stream,
)
from trio_ws.testing import open_server
from trio_ws.testing._socket import link_under

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n"


async def test_an_opening_is_entered_once(autojump_clock: MockClock) -> None:
    async def echo(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                await ws.send(message)

    async with open_server(echo) as connect:
        opening = connect()
        async with opening as ws:
            with pytest.raises(RuntimeError, match=r"call open_websocket\(\) again"):
                await opening.__aenter__()
            await ws.send("undisturbed")
            assert await ws.receive() == "undisturbed"


async def test_what_is_known_of_a_rejection_survives_a_reset(autojump_clock: MockClock) -> None:
    ours, theirs = stream_pair()
    link_under(ours).to_client.reset_after(len(BUSY + b"no"))
    await theirs.send_all(BUSY + b"no")
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket_over_stream(ours, "ws://test"):
            raise AssertionError
    assert (caught.value.status, caught.value.body) == (503, b"no")
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
    assert ours.socket.fileno() == -1


async def test_a_server_may_refuse_without_reading_the_request(autojump_clock: MockClock) -> None:
    ours, theirs = stream_pair()
    break_sending(ours, trio.BrokenResourceError("reset"))
    await theirs.send_all(BUSY + b"full")
    with pytest.raises(ConnectionRejected) as caught:
        async with open_websocket_over_stream(ours, "ws://test"):
            raise AssertionError
    assert (caught.value.status, caught.value.body) == (503, b"full")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 5", b"nonsense"])
async def test_without_a_whole_refusal_it_is_the_request_that_failed(
    said: bytes, autojump_clock: MockClock
) -> None:
    ours, theirs = stream_pair()
    break_sending(ours, trio.BrokenResourceError("reset"))
    await theirs.send_all(said)
    await theirs.send_eof()
    with pytest.raises(HandshakeError, match=r"^sending the request to the server: reset$"):
        async with open_websocket_over_stream(ours, "ws://test"):
            raise AssertionError


async def test_a_loss_without_a_reason_is_told_in_words(autojump_clock: MockClock) -> None:
    ours, theirs = stream_pair()
    break_sending(ours, trio.BrokenResourceError())
    await theirs.aclose()
    with pytest.raises(
        HandshakeError, match=r"^sending the request to the server: the connection was lost$"
    ):
        async with open_websocket_over_stream(ours, "ws://test"):
            raise AssertionError


async def test_a_refusal_that_the_network_has_overtaken_is_heard_over_real_sockets() -> None:
    """The server answers and closes; what we send then is answered with a reset."""

    async def refuse(stream: trio.SocketStream) -> None:
        await stream.send_all(BUSY + b"full")
        await stream.aclose()
        closed.set()

    closed = trio.Event()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, refuse, listeners)
        stream = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
        await closed.wait()
        await stream.send_all(b"GET")  # answered with a reset
        await until(lambda: is_reset(stream))
        with pytest.raises(ConnectionRejected) as caught:
            async with open_websocket_over_stream(stream, "ws://test"):
                raise AssertionError
        assert caught.value.body == b"full"
        nursery.cancel_scope.cancel()


def is_reset(stream: trio.SocketStream) -> bool:
    """Return whether the kernel knows that nothing more can be sent: TCP_CLOSE."""
    return stream.getsockopt(6, 11, 1) == b"\x07"  # IPPROTO_TCP, TCP_INFO: the state comes first


class ProtectedStream(trio.abc.Stream):
    """Notes whether Ctrl-C could come in while the request is sent."""

    def __init__(self) -> None:
        self.protected: list[bool] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.protected.append(trio.lowlevel.currently_ki_protected())
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_an_interrupt_does_not_come_between_a_connection_and_its_block() -> None:
    """Ctrl-C has to wait for a checkpoint, where all is closed in order."""
    stream = ProtectedStream()
    with pytest.raises(HandshakeError):
        async with open_websocket_over_stream(stream, "ws://test"):
            raise AssertionError
    assert stream.protected == [True]
