"""Sessions one after another: the loop may be left at any moment, and comes back in time."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_ws
from trio_ws import (
    Backoff,
    CloseInfo,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    Options,
    ProtocolViolation,
    Server,
    Sessions,
    WebSocket,
    WebSocketRequest,
    is_transient,
    open_reconnecting,
)
from trio_ws.testing import Link, MemoryNetwork, RawPeer, cancel_everywhere
from trio_ws.testing._socket import open_sockets

HOST = "example.test"
URL = f"ws://{HOST}/feed"


def most(low: float, high: float) -> float:
    return high


EXACT = Backoff(uniform=most)
"""Waits 1, 2, 4, ... seconds."""


class Service:
    """A server in a network in memory, which can be stopped, killed and started again."""

    def __init__(self, nursery: trio.Nursery, handler: Any) -> None:
        self.nursery = nursery
        self.handler = handler
        self.network = MemoryNetwork()
        self.requests: list[WebSocketRequest] = []
        self.ends: list[CloseInfo] = []
        self.server: Server
        self.scope = trio.CancelScope()

    async def start(self, *, tls: bool = False) -> None:
        port = 443 if tls else 80
        listener = self.network.listen(HOST, port, tls=tls)
        started = trio.Event()

        async def serve() -> None:
            with trio.CancelScope() as self.scope:
                async with trio.open_nursery() as nursery:
                    self.server = await nursery.start(
                        trio_ws.serve_websocket_listeners, self.handle, [listener]
                    )
                    started.set()

        self.nursery.start_soon(serve)
        await started.wait()

    async def handle(self, request: WebSocketRequest) -> None:
        self.requests.append(request)
        await self.handler(self, request)

    async def accept(self, request: WebSocketRequest) -> None:
        """Be a handler that sends the number of the session, and waits for its end."""
        async with request.accept() as ws:
            await ws.send(f"hello {len(self.requests)}")
            with trio.CancelScope(shield=True):
                with suppress(ConnectionLost):
                    async for _ in ws:
                        pass
                assert ws.close_info is not None
                self.ends.append(ws.close_info)

    def stop(self) -> None:
        """Say Close 1001 to all, and end."""
        self.scope.cancel()

    def reset(self) -> None:
        """Break the last connection."""
        self.network.links[-1].reset()

    @property
    def codes(self) -> list[int]:
        return [info.code for info in self.ends]


@asynccontextmanager
async def serving(
    handler: Any = Service.accept, *, started: bool = True, tls: bool = False
) -> AsyncGenerator[Service, None]:
    """Serve until the end of the block, in place of the real network."""
    async with trio.open_nursery() as nursery:
        service = Service(nursery, handler)
        with service.network.install():
            if started:
                await service.start(tls=tls)
            yield service
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def follow(
    sessions: Sessions, body: Callable[[WebSocket], Awaitable[object]] = WebSocket.receive
) -> None:
    """Run ``body`` with each session."""
    async with sessions:
        async for ws in sessions:
            await body(ws)


@pytest.fixture(autouse=True)
def every_socket_is_closed() -> Iterator[None]:
    before = open_sockets()
    yield
    assert [sock for sock in open_sockets() if sock not in before] == []


# The loop, and the ways to leave it...


async def test_each_round_is_a_session_of_its_own(autojump_clock: MockClock) -> None:
    async with serving() as service:
        heard = []
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                heard.append(await ws.receive())
                if len(heard) == 3:
                    break
                if len(heard) == 1:
                    continue
        assert heard == ["hello 1", "hello 2", "hello 3"]
        assert service.codes == [1000, 1000, 1000]
        assert [info.clean for info in service.ends] == [True] * 3


async def test_break_leaves_the_session_open_until_the_block_ends(
    autojump_clock: MockClock,
) -> None:
    async with serving() as service:
        async with open_reconnecting(URL) as sessions:
            async for ws in sessions:
                assert await ws.receive() == "hello 1"
                break
            assert ws.close_info is None
        assert ws.close_info == CloseInfo(1000, "", "local", clean=True)
        assert service.codes == [1000]


async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    async with serving() as service:
        error = KeyError("mine")

        async def body(ws: WebSocket) -> None:
            raise error

        with pytest.raises(KeyError) as caught:
            await follow(open_reconnecting(URL), body)
        assert caught.value is error
        assert error.__context__ is None
        await wait_all_tasks_blocked()
        assert service.codes == [1011]


async def test_ctrl_c_in_the_body_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    async with serving() as service:

        async def body(ws: WebSocket) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await follow(open_reconnecting(URL), body)
        await wait_all_tasks_blocked()
        assert service.codes == [1001]


async def test_cancelling_the_block_says_close_1001(autojump_clock: MockClock) -> None:
    async with serving() as service:
        with trio.move_on_after(5) as scope:
            async with open_reconnecting(URL) as sessions:
                async for _ in sessions:
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() == 5
        await wait_all_tasks_blocked()
        assert service.codes == [1001]


async def test_the_body_can_still_say_goodbye_when_it_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    heard = []

    async def listen(service: Service, request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            heard.extend([message async for message in ws])

    async with serving(listen):
        with trio.move_on_after(5):
            async with open_reconnecting(URL) as sessions:
                async for ws in sessions:
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            await trio.sleep(1)
                            await ws.send("goodbye")
        await wait_all_tasks_blocked()
        assert heard == ["goodbye"]


async def test_a_timeout_around_the_loop_inside_of_the_block_is_safe(
    autojump_clock: MockClock,
) -> None:
    """The scope is older than the session, and is left before it."""
    async with serving() as service:
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            with trio.move_on_after(2) as outer:
                async for ws in sessions:
                    with trio.move_on_after(1) as inner:
                        await trio.sleep_forever()
                    assert inner.cancelled_caught
                    first = ws
                    await trio.sleep_forever()
            assert outer.cancelled_caught
            await trio.sleep(1)
            assert first.close_info is None
            with trio.fail_after(10):
                async for ws in sessions:
                    assert ws is not first
                    assert await ws.receive() == "hello 2"
                    break
            assert first.close_info == CloseInfo(1000, "", "local", clean=True)
        assert service.codes == [1000, 1000]


async def test_scopes_and_nurseries_in_the_body_are_as_anywhere_else(
    autojump_clock: MockClock,
) -> None:
    async with serving() as service:
        rounds = 0
        async with open_reconnecting(URL, retry=EXACT) as sessions, trio.open_nursery() as nursery:
            async for ws in sessions:
                rounds += 1
                async with trio.open_nursery() as inner:
                    inner.start_soon(trio.sleep_forever)
                    inner.start_soon(ws.receive)
                    await wait_all_tasks_blocked()
                    inner.cancel_scope.cancel()
                nursery.start_soon(trio.sleep, 1)
                if rounds == 3:
                    break
        assert service.codes == [1000] * 3


async def test_a_session_that_its_peer_ends_is_followed_by_the_next(
    autojump_clock: MockClock,
) -> None:
    async def hang_up(service: Service, request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose([1000, 1001, 1011][len(service.requests) - 1])

    async with serving(hang_up):
        ends = []
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                with suppress(ConnectionLost):
                    async for _ in ws:
                        pass
                ends.append(ws.close_info)
                if len(ends) == 3:
                    break
        assert [end.code for end in ends] == [1000, 1001, 1011]
        assert {end.initiator for end in ends} == {"remote"}


async def test_a_loss_that_the_body_does_not_catch_is_raised(autojump_clock: MockClock) -> None:
    async with serving() as service:

        async def body(ws: WebSocket) -> None:
            await ws.receive()
            service.reset()
            await ws.receive()

        with pytest.raises(ConnectionLost) as caught:
            await follow(open_reconnecting(URL), body)
        assert caught.value.code == 1006


async def test_a_linked_nursery_needs_no_except_to_survive_a_loss(
    autojump_clock: MockClock,
) -> None:
    async def produce(ws: WebSocket) -> None:
        while True:
            await ws.send("tick")
            await trio.sleep(1)

    async with serving() as service:
        rounds = 0
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                async with ws.open_nursery() as nursery:
                    nursery.start_soon(produce, ws)
                    await ws.receive()
                    rounds += 1
                    if rounds == 3:
                        nursery.cancel_scope.cancel()
                        break
                    service.reset()
                    await ws.receive()
        assert rounds == 3


async def test_what_was_not_received_when_the_loop_goes_on_is_dropped(
    autojump_clock: MockClock,
) -> None:
    async with serving() as service, open_reconnecting(URL, retry=EXACT) as sessions:
        async for ws in sessions:
            await wait_all_tasks_blocked()
            if len(service.requests) == 2:
                assert await ws.receive() == "hello 2"
                break


async def test_a_body_that_closes_gets_the_next_session(autojump_clock: MockClock) -> None:
    async with serving() as service:
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                await ws.aclose(4001, "bored")
                if len(service.requests) == 2:
                    break
        assert sessions.statistics().failures == 0
        assert service.codes == [4001, 4001]


async def test_a_peer_that_never_answers_the_close_holds_up_no_longer_than_close_grace(
    autojump_clock: MockClock,
) -> None:
    async with serving() as service:
        options = Options(close_grace=3)
        async with open_reconnecting(URL, options=options) as sessions:
            async for _ in sessions:
                service.network.links[-1].to_client.stall()
                started = trio.current_time()
                break
        assert trio.current_time() - started == 3


# What is worth another attempt...


async def test_a_server_that_is_not_there_yet_is_waited_for(autojump_clock: MockClock) -> None:
    async with serving(started=False) as service:

        async def start_later() -> None:
            await trio.sleep(20)
            await service.start()

        service.nursery.start_soon(start_later)
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                assert await ws.receive() == "hello 1"
                assert trio.current_time() == 2 + 4 + 8 + 16
                break


async def test_a_server_that_says_no_ends_the_loop(autojump_clock: MockClock) -> None:
    async def refuse(service: Service, request: WebSocketRequest) -> None:
        await request.reject(403, body=b"not you")

    async with serving(refuse) as service:
        with pytest.raises(ConnectionRejected) as caught:
            await follow(open_reconnecting(URL))
        assert caught.value.status == 403
        assert caught.value.__context__ is None
        assert trio.current_time() == 0
        assert len(service.requests) == 1


async def test_a_certificate_that_is_not_trusted_ends_the_loop(autojump_clock: MockClock) -> None:
    async with serving(tls=True):
        context = ssl.create_default_context()
        sessions = open_reconnecting(f"wss://{HOST}/", ssl_context=context)
        with pytest.raises(trio_ws.HandshakeError, match="certificate"):
            await follow(sessions)
        assert sessions.statistics().attempts == 1


async def test_a_server_that_dies_before_it_answers_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    links = iter([Link(), Link(), Link(), Link()])
    network = MemoryNetwork(lambda number: next(links))
    async with trio.open_nursery() as nursery:

        async def play(stream: trio.SocketStream) -> None:
            number = len(network.links)
            peer = RawPeer(stream, client=False)
            if number == 1:
                await stream.aclose()  # TCP ends without an answer
            elif number == 2:
                await peer.receive_head()
                await peer.send(b"HTTP/1.1 101 Switching")
                await stream.aclose()  # in the middle of it
            elif number == 3:
                await peer.receive_head()
                network.links[-1].reset()
            else:
                await peer.accept()
                await peer.answer()

        with network.install():
            listener = network.listen(HOST)
            nursery.start_soon(trio.serve_listeners, play, [listener])
            async with open_reconnecting(URL, retry=EXACT) as sessions:
                async for _ in sessions:
                    break
            assert sessions.statistics().attempts == 4
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer_in_time_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    async def hesitate(service: Service, request: WebSocketRequest) -> None:
        if len(service.requests) == 1:
            await trio.sleep(5)
        await service.accept(request)

    async with serving(hesitate):
        async with open_reconnecting(
            URL, retry=EXACT, options=Options(handshake_timeout=3)
        ) as sessions:
            async for _ in sessions:
                break
        assert isinstance(sessions.statistics().last_error, trio_ws.HandshakeTimeout)


@pytest.mark.parametrize("code", [1008, 1009, 4000])
async def test_a_close_that_means_no_ends_the_loop_whatever_the_body_has_caught(
    autojump_clock: MockClock, code: int
) -> None:
    async def throw_out(service: Service, request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.aclose(code, "out")

    async with serving(throw_out) as service:

        async def body(ws: WebSocket) -> None:
            with suppress(ConnectionLost):
                await ws.receive()

        with pytest.raises(ConnectionLost) as caught:
            await follow(open_reconnecting(URL), body)
        assert caught.value.info == CloseInfo(code, "out", "remote", clean=True)
        assert len(service.requests) == 1


async def test_a_peer_that_breaks_the_protocol_ends_the_loop(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with trio.open_nursery() as nursery:

        async def play(stream: trio.SocketStream) -> None:
            peer = RawPeer(stream, client=False)
            await peer.accept()
            await peer.send(b"\xff\x00")
            with suppress(trio.BrokenResourceError):
                await peer.answer()

        with network.install():
            nursery.start_soon(trio.serve_listeners, play, [network.listen(HOST)])
            with pytest.raises(ConnectionLost) as caught:
                await follow(open_reconnecting(URL), WebSocket.wait_closed)
        assert caught.value.info.initiator == "local"
        assert isinstance(caught.value.__cause__, ProtocolViolation)
        nursery.cancel_scope.cancel()


async def test_the_user_decides_what_is_worth_another_attempt(autojump_clock: MockClock) -> None:
    asked: list[Exception] = []

    def decide(error: Exception) -> bool:
        asked.append(error)
        return is_transient(error) or (
            isinstance(error, ConnectionRejected) and error.status == 403
        )

    async def refuse_once(service: Service, request: WebSocketRequest) -> None:
        if len(service.requests) > 1:
            await service.accept(request)

    async with serving(refuse_once), open_reconnecting(URL, retry_if=decide) as sessions:
        async for ws in sessions:
            assert await ws.receive() == "hello 2"
            break
    assert [str(error) for error in asked] == ["the server answered 403: 'forbidden'"]


async def test_a_polite_end_can_be_the_end_of_the_loop(autojump_clock: MockClock) -> None:
    async def hang_up(service: Service, request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.send("that is all")

    async with serving(hang_up) as service:
        heard = []
        async with open_reconnecting(
            URL, retry_if=lambda error: not isinstance(error, ConnectionEnded)
        ) as sessions:
            async for ws in sessions:
                heard += [message async for message in ws]
        assert heard == ["that is all"]
        assert len(service.requests) == 1


async def test_the_user_is_asked_once_about_each_end(autojump_clock: MockClock) -> None:
    asked: list[Exception] = []

    def decide(error: Exception) -> bool:
        asked.append(error)
        return True

    async def hang_up(service: Service, request: WebSocketRequest) -> None:
        async with request.accept():
            pass

    async with serving(hang_up), open_reconnecting(URL, retry_if=decide) as sessions:
        async for ws in sessions:
            await ws.wait_closed()
            if len(asked) == 2:
                break
    assert [type(error) for error in asked] == [ConnectionEnded] * 2


# When the next attempt comes...


async def test_a_session_that_lasted_is_followed_soon_by_the_next(
    autojump_clock: MockClock,
) -> None:
    """The count of failures begins anew with it."""
    async with serving() as service:
        opened: list[float] = []
        lasting = iter([0, 0, 9.9, 10, 3])
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                opened.append(trio.current_time())
                await ws.receive()
                if len(opened) == 6:
                    break
                await trio.sleep(next(lasting))
                service.reset()
                await ws.wait_closed()
        waits = [2, 4, 9.9 + 8, 10 + 1, 3 + 2]
        gaps = [later - earlier for earlier, later in pairwise(opened)]
        assert gaps == pytest.approx(waits)


async def test_a_drained_server_is_given_time_to_restart(autojump_clock: MockClock) -> None:
    async with serving() as service:
        opened: list[float] = []
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            async for ws in sessions:
                opened.append(trio.current_time())
                if len(opened) == 2:
                    break
                await trio.sleep(15)
                service.nursery.start_soon(service.server.drain)
                with pytest.raises(ConnectionLost) as caught:
                    assert [message async for message in ws] == ["hello 1"]
                assert caught.value.code == 1012
                await trio.sleep(0.5)
                await service.start()
        assert opened == pytest.approx([0, 15.5 + 30])


async def test_retry_after_is_honoured(autojump_clock: MockClock) -> None:
    async def be_busy(service: Service, request: WebSocketRequest) -> None:
        if len(service.requests) == 1:
            await request.reject(503, headers={"Retry-After": "120"})
        else:
            await service.accept(request)

    async with serving(be_busy), open_reconnecting(URL, retry=EXACT) as sessions:
        async for _ in sessions:
            break
    assert trio.current_time() == 120 + 2


async def test_there_can_be_a_last_attempt(autojump_clock: MockClock) -> None:
    async with serving(started=False):
        with pytest.raises(OSError, match="connect") as caught:
            await follow(open_reconnecting(URL, retry=Backoff(max_attempts=3, uniform=most)))
        assert "given up after 3 failures in a row" in caught.value.__notes__
        assert trio.current_time() == 2 + 4


async def test_an_outage_can_be_too_long(autojump_clock: MockClock) -> None:
    async with serving() as service:

        async def body(ws: WebSocket) -> None:
            await ws.receive()
            await trio.sleep(50)
            service.stop()
            await ws.wait_closed()

        with pytest.raises(OSError, match="connect") as caught:
            await follow(open_reconnecting(URL, retry=Backoff(max_outage=20, uniform=most)), body)
        assert "given up after 4 failures in a row" in caught.value.__notes__
        assert trio.current_time() == 50 + 1 + 2 + 4 + 8  # 16 more would be too much


async def test_a_body_that_goes_on_at_once_is_slowed_down(autojump_clock: MockClock) -> None:
    async with serving() as service:
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            with trio.move_on_after(10.5):
                async for _ in sessions:
                    pass
        assert len(service.requests) == 11


async def test_a_wait_that_is_cancelled_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    async with serving(started=False) as service:
        async with open_reconnecting(URL, retry=Backoff(initial=50, uniform=most)) as sessions:
            with trio.move_on_after(10):
                async for _ in sessions:
                    pass
            assert sessions.statistics().next_attempt is None
            await service.start()
            async for _ in sessions:
                break
        assert trio.current_time() == 60
        assert sessions.statistics().attempts == 2


async def test_an_attempt_that_is_cancelled_is_followed_by_a_new_one(
    autojump_clock: MockClock,
) -> None:
    async def hesitate(service: Service, request: WebSocketRequest) -> None:
        if len(service.requests) == 1:
            await trio.sleep(5)
        await service.accept(request)

    async with serving(hesitate):
        async with open_reconnecting(URL, retry=EXACT) as sessions:
            with trio.move_on_after(3):
                async for _ in sessions:
                    pass
            async for ws in sessions:
                assert await ws.receive() == "hello 2"
                break
        assert trio.current_time() == 3 + 1
        assert sessions.statistics().failures == 0


# What is asked anew for each attempt...


async def test_url_and_headers_can_be_made_for_each_attempt(autojump_clock: MockClock) -> None:
    async with serving() as service:
        seen = 0

        def where() -> str:
            return f"{URL}?since={seen}"

        async def fresh_token() -> dict[str, str]:
            await trio.sleep(1)
            return {"Authorization": f"Bearer {seen}"}

        async with open_reconnecting(where, headers=fresh_token, retry=EXACT) as sessions:
            async for _ in sessions:
                seen += 1
                if seen == 3:
                    break
        assert [request.query["since"] for request in service.requests] == ["0", "1", "2"]
        tokens = [request.headers["Authorization"] for request in service.requests]
        assert tokens == ["Bearer 0", "Bearer 1", "Bearer 2"]


async def test_a_token_that_cannot_be_had_is_a_failure_like_any_other(
    autojump_clock: MockClock,
) -> None:
    failures: list[Exception] = [OSError("the token's server is down"), LookupError("no user")]

    async def fresh_token() -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        raise failures.pop(0)

    async with serving():
        with pytest.raises(LookupError, match="no user"):
            await follow(open_reconnecting(URL, headers=fresh_token, retry=EXACT))
        assert trio.current_time() == 2


async def test_a_url_of_no_use_that_is_made_later_ends_the_loop(
    autojump_clock: MockClock,
) -> None:
    async with serving():
        with pytest.raises(ValueError, match="use ws://"):
            await follow(open_reconnecting(lambda: "http://example.test/"))


async def test_all_else_goes_to_each_session(autojump_clock: MockClock) -> None:
    """Through a proxy, which knows nothing of that."""

    async def choose(service: Service, request: WebSocketRequest) -> None:
        async with request.accept(request.subprotocols[1]) as ws:
            await ws.wait_closed()

    async def tunnel(stream: trio.SocketStream) -> None:
        async with RawPeer(stream, client=False) as peer, trio.open_nursery() as nursery:
            await peer.receive_head()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            there = await service.network.connect(HOST, 443)
            for source, sink in ((stream, there), (there, stream)):
                nursery.start_soon(pump, source, sink)

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        await sink.aclose()

    async with serving(choose, tls=True) as service:
        listener = service.network.listen("proxy.test", 3128)
        service.nursery.start_soon(trio.serve_listeners, tunnel, [listener])
        async with open_reconnecting(
            f"wss://{HOST}/feed",
            subprotocols=iter(["a", "b"]),
            headers=iter([("X-One", "1")]),
            origin=f"https://{HOST}",
            ssl_context=service.network.client_context,
            server_hostname=HOST,
            proxy="http://proxy.test:3128",
            options=Options(compression=None),
            retry=EXACT,
        ) as sessions:
            async for ws in sessions:
                assert ws.subprotocol == "b"
                if len(service.requests) == 2:
                    break
        for request in service.requests:
            assert request.headers["X-One"] == "1"
            assert request.origin == f"https://{HOST}"
            assert "Sec-WebSocket-Extensions" not in request.headers


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"url": "http://example.test/"}, ValueError, "use ws://"),
        ({"url": 3}, TypeError, "a URL is a str"),
        ({"headers": {"Upgrade": "x"}}, ValueError, "Upgrade"),
        ({"headers": "X-One: 1"}, TypeError, "headers are a mapping"),
        ({"subprotocols": "chat"}, TypeError, "list of str"),
        ({"ssl_context": 3}, TypeError, "ssl_context is"),
        ({"url": lambda: URL, "server_hostname": ""}, ValueError, "no valid host name"),
        ({"server_hostname": "a.test"}, ValueError, "server_hostname goes with wss://"),
        ({"proxy": "proxy.test"}, ValueError, "the URL of a proxy starts with"),
        ({"proxy_ssl_context": 3}, TypeError, "proxy_ssl_context is"),
        ({"local_address": "localhost"}, ValueError, "local_address is an IP"),
        ({"retry": 3}, TypeError, "retry is a Backoff, not int"),
        ({"options": {}}, TypeError, "options is an Options"),
        ({"retry_if": True}, TypeError, "retry_if is a function of an error, not bool"),
        (
            {"url": lambda: URL, "headers": lambda: (), "subprotocols": ["a", "a"]},
            ValueError,
            "offered twice",
        ),
    ],
)
def test_an_argument_of_no_use_is_refused_at_the_call(
    arguments: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        open_reconnecting(**{"url": URL, **arguments})


def test_a_context_can_go_with_a_url_that_is_not_known_yet() -> None:
    open_reconnecting(lambda: "wss://example.test/", ssl_context=ssl.create_default_context())
    open_reconnecting(lambda: "wss://example.test/", server_hostname="example.org")


# What can be seen of it...


async def test_another_task_can_tell_why_there_is_nothing_to_see(
    autojump_clock: MockClock,
) -> None:
    async with serving(started=False) as service:
        async with open_reconnecting(URL, retry=EXACT) as sessions, trio.open_nursery() as nursery:

            async def look() -> None:
                await trio.sleep(3)
                now = sessions.statistics()
                assert (now.attempts, now.opened, now.failures) == (2, 0, 2)
                assert now.next_attempt == 2 + 4
                assert isinstance(now.last_error, OSError)
                await service.start()

            nursery.start_soon(look)
            async for _ in sessions:
                now = sessions.statistics()
                assert (now.attempts, now.opened, now.next_attempt) == (3, 1, None)
                break
        assert repr(sessions) == "<Sessions with example.test: 1 so far>"


async def test_each_attempt_is_a_line_in_the_log_without_secrets(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws")
    async with serving(started=False) as service:

        async def start_later() -> None:
            await trio.sleep(1)
            await service.start()

        service.nursery.start_soon(start_later)
        url = f"ws://me:secret@{HOST}/?token=secret"
        async with open_reconnecting(url, retry=EXACT) as sessions:
            async for _ in sessions:
                break
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("example.test: ")
    assert lines[0].endswith("; attempt 2 in 2.0 s")
    assert lines[1] == "example.test: attempt 2 is open"
    assert "secret" not in "".join(lines)


# Wrong use...


async def test_the_block_comes_before_the_loop() -> None:
    with pytest.raises(RuntimeError, match="first: async with open_reconnecting"):
        async for _ in open_reconnecting(URL):
            pass


async def test_a_block_is_entered_once() -> None:
    sessions = open_reconnecting(URL)
    async with sessions:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        async with sessions:
            pass


async def test_behind_the_block_there_are_no_sessions(autojump_clock: MockClock) -> None:
    async with serving() as service:
        async with open_reconnecting(URL) as sessions:
            async for _ in sessions:
                break
        with pytest.raises(trio.ClosedResourceError, match="was left"):
            async for _ in sessions:
                pass
        assert len(service.requests) == 1


async def test_one_task_at_a_time_waits_for_a_session(autojump_clock: MockClock) -> None:
    async with (
        serving(started=False),
        open_reconnecting(URL) as sessions,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(sessions.__anext__)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task"):
            await sessions.__anext__()
        nursery.cancel_scope.cancel()


async def _next(sessions: Sessions, raised: list[Exception]) -> None:
    try:
        await sessions.__anext__()
    except trio.ClosedResourceError as error:
        raised.append(error)


async def _hesitate(service: Service, request: WebSocketRequest) -> None:
    await trio.sleep(5)


async def _ask_slowly() -> str:
    await trio.sleep(1)
    return URL


@pytest.mark.parametrize(
    ("started", "url", "after"),
    [(False, URL, 0.5), (True, URL, 0.5), (True, _ask_slowly, 0.5)],
    ids=["the wait", "the attempt", "the question"],
)
async def test_who_leaves_the_block_ends_the_waiting_of_another_task(
    autojump_clock: MockClock,
    started: bool,
    url: str | Callable[[], Awaitable[str]],
    after: float,
) -> None:
    raised: list[Exception] = []
    async with serving(_hesitate, started=started) as service:
        async with open_reconnecting(url, retry=EXACT) as sessions:
            service.nursery.start_soon(_next, sessions, raised)
            await trio.sleep(after)
        await trio.sleep(1)  # the question is the user's, and takes its time
        assert len(raised) == 1


# Cancelled everywhere...


async def test_it_can_be_cancelled_at_every_checkpoint(autojump_clock: MockClock) -> None:
    """Nothing is left behind, and the next loop in the same program works."""
    async with serving() as service:

        async def scenario() -> None:
            rounds = 0
            async with open_reconnecting(URL, retry=EXACT) as sessions:
                async for ws in sessions:
                    rounds += 1
                    with suppress(ConnectionLost):
                        await ws.receive()
                        if rounds == 2:
                            service.reset()
                            await ws.receive()
                    if rounds == 3:
                        break

        async def check() -> None:
            await trio.sleep(6)
            assert not service.server.connections

        assert await cancel_everywhere(scenario, check=check, patience=10) > 50
        async with open_reconnecting(URL) as sessions:
            async for _ in sessions:
                break


async def test_a_loop_that_is_cancelled_anywhere_can_go_on_in_the_same_block(
    autojump_clock: MockClock,
) -> None:
    async with serving() as service:

        async def scenario() -> None:
            async with trio_ws.testing.open_pair():  # older scopes of the same task
                pass
            async with open_reconnecting(URL, retry=EXACT) as sessions:
                for delay in range(12):
                    with trio.move_on_after(delay / 4):
                        async for ws in sessions:
                            await ws.receive()
                            service.reset()
                            with suppress(ConnectionLost):
                                await ws.receive()
                with trio.fail_after(100):
                    async for _ in sessions:
                        break

        await scenario()
        await wait_all_tasks_blocked()
        assert not service.server.connections


@pytest.mark.parametrize("way", ["break", "raise", "timeout", "cancel", "outer cancel"])
async def test_programs_that_leave_the_loop_anyhow_go_on_unharmed(
    autojump_clock: MockClock, way: str
) -> None:
    """What a loop over sessions must survive: the scopes around it still work behind it."""
    async with serving() as service, trio.open_nursery() as nursery:
        with trio.CancelScope() as outer, contextlib.suppress(KeyError):
            async with open_reconnecting(URL) as sessions:
                with trio.move_on_after(1 if way == "timeout" else 100) as scope:
                    async for ws in sessions:
                        await ws.receive()
                        if way == "break":
                            break
                        if way == "raise":
                            raise KeyError
                        if way == "cancel":
                            scope.cancel()
                        if way == "outer cancel":
                            outer.cancel()
                        await trio.sleep_forever()
        assert scope.cancelled_caught == (way in ("timeout", "cancel"))
        assert outer.cancelled_caught == (way == "outer cancel")
        with trio.move_on_after(1) as behind:
            await trio.sleep_forever()
        assert behind.cancelled_caught
        assert len(service.ends) == 1
        nursery.cancel_scope.cancel()
