"""The server: what it is asked to serve, what it tells, and the two ways to stop it."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import stat
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from _components import until
from _helpers import PING, Peer
from _site import (
    MemoryListener,
    Site,
    after_steps,
    echo,
    get,
    open_one,
    serve,
    sleep,
    upgrade,
    websocket_of,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws import (
    ConnectionLost,
    Options,
    Server,
    WebSocket,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
    serve_websocket_listeners,
    serve_websocket_unix,
)
from trio_ws.testing import Frame

GRACE = Options().close_grace


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@asynccontextmanager
async def running(
    serve_it: Callable[..., Any], *args: Any, **kwargs: Any
) -> AsyncIterator[Server]:
    """Run one of the functions that serve, in the usual way."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve_it, *args, **kwargs))
        nursery.cancel_scope.cancel()


async def greet(url: str, **arguments: Any) -> None:
    async with open_websocket(url, **arguments) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


# What is served...


async def test_a_tcp_port_is_served() -> None:
    async with running(serve_websocket, echo, 0, host="127.0.0.1") as server:
        assert [type(each) for each in server.listeners] == [trio.SocketListener]
        assert server.port == server.listeners[0].socket.getsockname()[1]
        await greet(f"ws://127.0.0.1:{server.port}")
    assert server.port  # still known when all is over
    with pytest.raises(OSError, match="attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_sockets_are_served_where_the_system_cannot_watch_them_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_ws._server.open_pump", lambda: None)
    async with running(serve_websocket, echo, 0, host="127.0.0.1") as server:
        await greet(f"ws://127.0.0.1:{server.port}")


async def test_all_interfaces_are_served_by_default() -> None:
    async with running(serve_websocket, echo, 0) as server:
        for listener in server.listeners:
            family, port = listener.socket.family, listener.socket.getsockname()[1]
            host = "127.0.0.1" if family == socket.AF_INET else "[::1]"
            await greet(f"ws://{host}:{port}")


async def test_a_tcp_port_is_served_over_tls(contexts: Any) -> None:
    def handler(request: WebSocketRequest) -> Any:
        assert request.tls is not None
        seen.append(request.tls.version())
        return echo(request)

    seen: list[str] = []
    async with running(
        serve_websocket, handler, 0, host="127.0.0.1", ssl_context=contexts[0]
    ) as server:
        assert isinstance(server.listeners[0], trio.SSLListener)
        await greet(f"wss://127.0.0.1:{server.port}", ssl_context=contexts[1])
    assert seen == ["TLSv1.3"]


async def test_a_unix_socket_is_served_and_removed_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "chat.sock"
    async with running(serve_websocket_unix, echo, path, mode=0o640) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        await greet(f"ws+unix://{path}")
        with pytest.raises(LookupError, match="TCP port"):
            _ = server.port
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240  # an empty folder


async def test_a_unix_socket_that_took_the_place_of_ours_stays(tmp_path: Path) -> None:
    """A new server may have begun while the old one's handlers went on."""

    async def handler(request: WebSocketRequest) -> None:
        begun.set()
        with trio.CancelScope(shield=True):
            await finish.wait()

    async def _serve(task_status: trio.TaskStatus[Server]) -> None:
        options = Options(close_grace=0.01)
        await serve_websocket_unix(handler, path, options=options, task_status=task_status)
        over.set()

    begun, finish, over = trio.Event(), trio.Event(), trio.Event()
    path = tmp_path / "chat.sock"
    async with trio.open_nursery() as nursery:
        old: Server = await nursery.start(_serve)
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(upgrade())
            await begun.wait()
            await old.drain(deadline=0)
            assert path.is_socket()
            async with running(serve_websocket_unix, echo, path):
                assert not over.is_set()
                finish.set()
                await over.wait()
                await greet(f"ws+unix://{path}")
        assert not path.exists()


@pytest.mark.parametrize(
    "run",
    [
        partial(serve_websocket, port=0),
        partial(serve_websocket_unix, path="chat.sock"),
        partial(serve_websocket_listeners, listeners=[]),
    ],
)
async def test_what_is_no_handler_is_refused(run: Any) -> None:
    with pytest.raises(TypeError, match="a handler is an async function of one request"):
        await run("handler")


@pytest.mark.parametrize(
    "run",
    [
        partial(serve_websocket, port=0),
        partial(serve_websocket_unix, path="chat.sock"),
        partial(serve_websocket_listeners, listeners=[]),
    ],
)
async def test_what_is_no_options_is_refused(run: Any) -> None:
    with pytest.raises(TypeError, match=r"options is an Options\(\.\.\.\), not dict"):
        await run(print, options={"close_grace": 1})


async def test_to_serve_no_listener_is_refused() -> None:
    with pytest.raises(ValueError, match="no listener to serve"):
        await serve_websocket_listeners(echo, [])


async def test_a_port_in_use_is_said_to_be() -> None:
    async with running(serve_websocket, echo, 0, host="127.0.0.1") as server:
        with pytest.raises(OSError, match="in use") as caught:
            await serve_websocket(echo, server.port, host="127.0.0.1")
    assert caught.value.errno == errno.EADDRINUSE
    assert f"port {server.port} of '127.0.0.1' is in use" in caught.value.__notes__[0]


async def test_a_context_that_is_of_no_use_opens_no_port(contexts: Any) -> None:
    with pytest.raises(ValueError, match="not for a server"):
        await serve_websocket(echo, 0, ssl_context=contexts[1])


# What a server tells...


async def test_a_server_knows_who_is_there(autojump_clock: MockClock) -> None:
    async with serve(echo) as site:
        server = site.server
        half = site.visit()
        await half.send(b"GET / HTTP/1.1\r\n")
        peer = await open_one(site)
        with contextlib.suppress(ConnectionLost):
            async with site.open():
                await wait_all_tasks_blocked()
                (first, second) = server.connections
                assert {first.close_info, second.close_info} == {None}
                assert server.statistics().connections == 2
                assert server.statistics().opening == 1
        await site.visit().ask(b"nonsense\r\n\r\n")
        await peer.send(Frame.close(3000))
        await peer.until_end()
        await wait_all_tasks_blocked()
        assert server.connections == ()
        statistics = server.statistics()
        assert statistics.accepted == 2
        assert statistics.close_codes == {1000: 1, 3000: 1}
        assert statistics.rejected == {400: 1}
        statistics.rejected.clear()  # a copy
        assert server.statistics().rejected == {400: 1}
        with pytest.raises(LookupError):
            _ = server.port


async def test_a_websocket_that_is_closing_is_not_counted_as_open(
    autojump_clock: MockClock,
) -> None:
    async with serve(sleep) as site:
        peer = await open_one(site)
        await peer.send(Frame.close())
        await peer.until_end()
        assert site.server.connections == ()
        assert not site.over.is_set()  # the handler does not look


async def test_connections_that_could_not_be_accepted_are_counted(
    autojump_clock: MockClock,
) -> None:
    class Crowded(MemoryListener):
        async def accept(self) -> Any:
            if failures:
                raise OSError(failures.pop(), "too many open files")
            return await super().accept()

    failures = [errno.EMFILE] * 3
    async with trio.open_nursery() as nursery:
        site = Site(Crowded(), nursery)
        site.server = await nursery.start(site._serve, echo)
        async with site.open() as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        assert site.server.statistics().accept_failures == 3
        nursery.cancel_scope.cancel()


async def test_the_handler_nursery_is_where_handlers_run(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        parents.append(trio.lowlevel.current_task().parent_nursery)

    parents: list[Any] = []
    async with trio.open_nursery() as nursery, serve(handler, handler_nursery=nursery) as site:
        await site.visit().ask(upgrade())
    assert parents == [nursery]


async def test_who_cannot_be_served_is_not_left_waiting(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as closed:
        pass
    listener = MemoryListener()
    client = listener.connect().stream
    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match="Nursery is closed"), flatten_subgroups=True
    ):
        await serve_websocket_listeners(sleep, [listener], handler_nursery=closed)
    with trio.fail_after(1):
        assert await client.receive_some() == b""


# Cancelling a server...


async def say_goodbye(peer: Peer, told: list[Frame]) -> None:
    close = await peer.until_close()
    told.append(close)
    await peer.send(Frame.close(close.code))
    await peer.until_end()


@pytest.mark.parametrize("own_nursery", [True, False])
async def test_a_server_that_is_cancelled_says_1001_to_all(
    autojump_clock: MockClock, *, own_nursery: bool
) -> None:
    told: list[Frame] = []
    async with trio.open_nursery() as handlers:
        arguments = {} if own_nursery else {"handler_nursery": handlers}
        async with serve(sleep, **arguments) as site:
            for _ in range(20):
                site.nursery.start_soon(say_goodbye, await open_one(site), told)
            half_open = [site.visit() for _ in range(5)]
            for visitor in half_open:
                await visitor.send(upgrade()[:-1])
            began = trio.current_time()
            site.scope.cancel()
            await site.over.wait()
            assert trio.current_time() == began
            assert site.listener.closed
            for visitor in half_open:
                assert await visitor.until_eof() == b""
            await wait_all_tasks_blocked()
            assert told == [Frame.close(1001)] * 20
        assert not handlers.child_tasks


@pytest.mark.parametrize("own_nursery", [True, False])
async def test_mute_and_stuck_peers_hold_up_a_cancelled_server_for_the_grace_and_no_longer(
    autojump_clock: MockClock, *, own_nursery: bool
) -> None:
    async with trio.open_nursery() as handlers:
        arguments = {} if own_nursery else {"handler_nursery": handlers}
        async with serve(sleep, **arguments) as site:
            mute = await open_one(site)
            stuck = await open_one(site)
            stuck.way.buffer = 0
            began = trio.current_time()
            site.scope.cancel()
            await site.over.wait()
            assert trio.current_time() - began == pytest.approx(GRACE)
            assert await mute.until_end() == [Frame.close(1001)]
            assert await stuck.until_end() == []


async def test_peers_of_a_handler_that_shields_itself_are_told_in_time(
    autojump_clock: MockClock,
) -> None:
    """Only the handler can end what it shields; nobody else has to wait for that."""

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept():
            with trio.CancelScope(shield=True):
                await trio.sleep(1000)

    async with serve(handler) as site:
        peer = await open_one(site)
        began = trio.current_time()
        site.scope.cancel()
        assert await peer.until_end() == [Frame.close(1001)]
        assert trio.current_time() - began == pytest.approx(GRACE)
        await site.over.wait()
        assert trio.current_time() - began == 1000


async def test_the_client_of_a_handler_that_had_yet_to_answer_is_told_503(
    autojump_clock: MockClock,
) -> None:
    """If handlers run in a nursery that lives on; else there is no time for it."""

    async def handler(request: WebSocketRequest) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as handlers, serve(handler, handler_nursery=handlers) as site:
        visitor = site.visit()
        await visitor.send(upgrade())
        await wait_all_tasks_blocked()
        site.scope.cancel()
        assert (await visitor.answer()).status == 503


@pytest.mark.parametrize("own_nursery", [True, False])
async def test_when_a_listener_fails_all_are_told_and_its_error_comes_out(
    autojump_clock: MockClock, *, own_nursery: bool
) -> None:
    class Failing(MemoryListener):
        async def accept(self) -> Any:
            with trio.move_on_after(1):
                return await super().accept()
            raise OSError(errno.EINVAL, "the cable is cut")

    told: list[Frame] = []
    listener = Failing()
    async with trio.open_nursery() as nursery:
        arguments = {} if own_nursery else {"handler_nursery": nursery}

        async def _serve(task_status: trio.TaskStatus[Server]) -> None:
            with pytest.RaisesGroup(
                pytest.RaisesExc(OSError, match="cable"), flatten_subgroups=True
            ):
                await serve_websocket_listeners(
                    sleep, [listener], task_status=task_status, **arguments
                )

        site = Site(listener, nursery)
        site.server = await nursery.start(_serve)
        for _ in range(5):
            nursery.start_soon(say_goodbye, await open_one(site), told)
    assert told == [Frame.close(1001)] * 5
    site.assert_nothing_left()


async def test_what_was_sent_before_arrives_before_the_goodbye(autojump_clock: MockClock) -> None:
    async with serve(sleep) as site:
        peer = await open_one(site)
        await websocket_of(site).send("last words")
        site.scope.cancel()
        assert await peer.receive_frame() == Frame.text("last words")
        assert await peer.receive_frame() == Frame.close(1001)
        await peer.send(Frame.close(1001))


# Draining a server...


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"code": 1006}, ValueError),
        ({"code": "1012"}, TypeError),
        ({"reason": "x" * 124}, ValueError),
        ({"batch": 0}, ValueError),
        ({"deadline": -1}, ValueError),
        ({"interval": -1}, ValueError),
    ],
)
async def test_a_drain_that_makes_no_sense_is_refused_and_nothing_happens(
    arguments: Any, error: type[Exception], autojump_clock: MockClock
) -> None:
    async with serve(echo) as site:
        with pytest.raises(error):
            await site.server.drain(**arguments)
        assert not site.server.draining
        async with site.open() as ws:
            assert not ws.draining


async def test_a_drain_says_1012_to_all_and_ends_the_server_with_the_last_handler(
    autojump_clock: MockClock,
) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.draining.wait()
            seen.append(ws.close_info)
            await trio.sleep(7)

    seen: list[Any] = []
    told: list[Frame] = []
    async with serve(handler) as site:
        for _ in range(10):
            site.nursery.start_soon(say_goodbye, await open_one(site), told)
        began = trio.current_time()
        with trio.fail_after(7.1):
            await site.server.drain(reason="restart")
            await site.over.wait()
        assert trio.current_time() - began == 7
        assert told == [Frame.close(1012, "restart")] * 10
        assert len(seen) == 10
        assert site.server.draining.is_set()
        assert site.server.statistics().close_codes == {1012: 10}
        assert site.listener.closed


async def test_a_drain_goes_in_batches(autojump_clock: MockClock) -> None:
    async def client() -> None:
        try:
            async with site.open() as ws:
                await ws.receive()
        except ConnectionLost as exc:
            told.append((exc.code, trio.current_time() - began))

    told: list[tuple[int, float]] = []
    async with serve(echo) as site:
        for _ in range(7):
            site.nursery.start_soon(client)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await site.server.drain(batch=3, interval=2)
    assert told == [(1012, 0)] * 3 + [(1012, 2)] * 3 + [(1012, 4)]


async def test_handlers_that_go_on_are_cancelled_at_the_deadline(
    autojump_clock: MockClock,
) -> None:
    async with serve(sleep) as site:
        mute = [await open_one(site) for _ in range(3)]
        began = trio.current_time()
        await site.server.drain(deadline=3)
        await site.over.wait()
        # Close has been said at once, and the grace runs from then.
        assert trio.current_time() - began == pytest.approx(GRACE)
        for peer in mute:
            assert await peer.until_end() == [Frame.close(1012)]


@pytest.mark.parametrize("deadline", [0, 1])
async def test_who_was_not_yet_told_at_the_deadline_hears_the_same(
    deadline: float, autojump_clock: MockClock
) -> None:
    told: list[Frame] = []
    async with serve(echo) as site:
        for _ in range(5):
            site.nursery.start_soon(say_goodbye, await open_one(site), told)
        await site.server.drain(3333, "enough", deadline=deadline, batch=2, interval=100)
        await site.over.wait()
    assert told == [Frame.close(3333, "enough")] * 5


async def test_a_drain_cuts_off_what_is_no_websocket_yet(autojump_clock: MockClock) -> None:
    async with serve(sleep) as site:
        half = site.visit()
        await half.send(get()[:-1])
        began = trio.current_time()
        await site.server.drain()
        await site.over.wait()
        assert trio.current_time() == began
        assert await half.until_eof() == b""


async def test_nobody_who_comes_at_the_last_moment_holds_up_a_drain(
    autojump_clock: MockClock,
) -> None:
    """At none of its steps: who is accepted when all have been told is too late."""

    def come() -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the door is closed
            site.visit()

    for step in range(1, 100):
        async with serve(sleep) as site:
            peer = await open_one(site)
            await peer.stream.aclose()
            began = trio.current_time()
            with after_steps(step, come) as newcomer:
                await site.server.drain(deadline=0)
                await site.over.wait()
            assert trio.current_time() == began
        if not newcomer.fired:
            break
    else:
        raise AssertionError("there is no end to it")


async def test_two_drains_at_a_time_are_one(autojump_clock: MockClock) -> None:
    told: list[Frame] = []
    async with serve(sleep) as site:
        site.nursery.start_soon(say_goodbye, await open_one(site), told)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(site.server.drain, 3001, deadline=100))
            await wait_all_tasks_blocked()
            began = trio.current_time()
            nursery.start_soon(partial(site.server.drain, 3002, deadline=3))
        assert trio.current_time() - began == 3
        assert told == [Frame.close(3001)]
        await site.over.wait()
        await site.server.drain()  # nothing is left to do


async def test_a_drain_that_is_cancelled_leaves_the_server_draining(
    autojump_clock: MockClock,
) -> None:
    async with serve(sleep) as site:
        peer = await open_one(site)
        with trio.move_on_after(1):
            await site.server.drain()
        assert site.server.draining
        assert not site.over.is_set()
        assert (await site.visit().ask(upgrade())).status == 503
        assert await peer.until_close() == Frame.close(1012)
        await peer.send(Frame.close(1012))
        await site.server.drain(deadline=1)
        await site.over.wait()


async def test_a_handler_may_drain_its_own_server(autojump_clock: MockClock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            await ws.receive()
            await site.server.drain(deadline=2)

    async with serve(handler) as site:
        peer = await open_one(site)
        await peer.send(Frame(0x1, b"go"))
        assert await peer.until_close() == Frame.close(1012)
        await peer.send(Frame.close(1012))
        with trio.fail_after(GRACE + 3):
            await site.over.wait()


async def test_cancelling_a_server_cuts_a_drain_short(autojump_clock: MockClock) -> None:
    async with serve(sleep) as site:
        peer = await open_one(site)
        site.nursery.start_soon(partial(site.server.drain, deadline=1000))
        assert await peer.until_close() == Frame.close(1012)
        await peer.send(Frame.close(1012))
        began = trio.current_time()
        site.scope.cancel()
        await site.over.wait()
        assert trio.current_time() == began


async def test_a_drain_of_handlers_in_a_nursery_of_their_own(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as handlers, serve(sleep, handler_nursery=handlers) as site:
        peer = await open_one(site)
        began = trio.current_time()
        await site.server.drain(deadline=2)
        assert trio.current_time() - began == pytest.approx(GRACE)
        assert await peer.until_end() == [Frame.close(1012)]
        await site.over.wait()
        assert not handlers.child_tasks


async def test_pings_are_answered_while_a_drained_handler_finishes(
    autojump_clock: MockClock,
) -> None:
    """Up to our Close: nothing may follow that (RFC 6455, section 5.5.1)."""
    async with serve(sleep) as site:
        peer = await open_one(site)
        await peer.send(Frame(PING, b"1"))
        await wait_all_tasks_blocked()
        site.nursery.start_soon(partial(site.server.drain, deadline=2))
        await wait_all_tasks_blocked()
        await peer.send(Frame(PING, b"2"))
        await peer.send(Frame.close(1012))
        assert await peer.until_end() == [Frame.pong(b"1"), Frame.close(1012)]


# Sockets...


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_after_many_peers_were_killed_at_once_all_descriptors_are_back() -> None:
    """A reset each, in three rounds."""
    async with running(serve_websocket, echo, 0, host="127.0.0.1") as server:
        before = descriptors()
        for _ in range(3):
            streams = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(50)]
            for stream in streams:
                await stream.send_all(upgrade())
                assert (await stream.receive_some())[9:12] == b"101"
            await until(lambda: len(server.connections) == 50)  # handlers come a step behind
            for stream in streams:
                at_once = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: a reset
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                stream.socket.close()
            await until(lambda: not server._state.connections and descriptors() <= before)
        assert server.statistics().accepted == 150
        assert server.statistics().close_codes == {1006: 150}


async def test_of_two_servers_on_one_loop_each_has_its_own(contexts: Any) -> None:
    async with (
        running(serve_websocket, echo, 0, host="127.0.0.1") as plain,
        running(serve_websocket, echo, 0, host="127.0.0.1", ssl_context=contexts[0]) as tls,
    ):
        await greet(f"ws://127.0.0.1:{plain.port}")
        await greet(f"wss://localhost:{tls.port}", ssl_context=contexts[1])
        assert plain.statistics().accepted == tls.statistics().accepted == 1


# What is left of a server that has ended...


@pytest.mark.parametrize("way", ["cancel", "drain"])
async def test_who_asks_whether_a_server_stops_is_told_however_it_does(
    way: str, autojump_clock: MockClock
) -> None:
    heard: list[str] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            with trio.CancelScope(shield=True):
                await ws.draining.wait()
                heard.append("handler")
            await ws.wait_closed()

    async def balance(server: Server) -> None:
        await server.draining.wait()
        heard.append("load balancer")

    async with serve(handler) as site:
        peer = await open_one(site)
        site.nursery.start_soon(balance, site.server)
        await wait_all_tasks_blocked()
        assert not site.server.draining
        if way == "cancel":
            site.scope.cancel()
        else:
            site.nursery.start_soon(site.server.drain)
        await peer.aclose()
        await site.over.wait()
        await wait_all_tasks_blocked()
        assert sorted(heard) == ["handler", "load balancer"]
        assert site.server.draining


@pytest.mark.parametrize("way", ["cancel", "drain"])
async def test_nothing_waits_for_a_server_that_has_ended(
    way: str, autojump_clock: MockClock
) -> None:
    websockets: list[WebSocket] = []

    async def handler(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            websockets.append(ws)
            await ws.wait_closed()

    async with serve(handler) as site:
        peer = await open_one(site)
        site.nursery.start_soon(peer.answer)
        if way == "cancel":
            site.scope.cancel()
        else:
            await site.server.drain()
        await site.over.wait()
        (ws,) = websockets
        for use in (ws.receive, ws.ping, lambda: ws.send("x")):
            with pytest.raises(trio.ClosedResourceError):
                await use()
        assert (await ws.wait_closed()).code == (1001 if way == "cancel" else 1012)
        await ws.aclose()
        await ws.draining.wait()
        await site.server.draining.wait()
        await site.server.drain(deadline=100)
        assert site.server.connections == ()
        assert trio.current_time() == 0
