"""One TCP connection or Unix socket: which address it takes, and why there is none."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_ws import HandshakeTimeout, Options, WebSocketRequest, open_websocket, serve_websocket
from trio_ws._exchange import Progress
from trio_ws._tcp import open_tcp, open_unix, reworded
from trio_ws.testing import Link, MemoryNetwork

PATIENT = Options(handshake_timeout=3)


async def accept(request: WebSocketRequest) -> None:
    async with request.accept() as ws:
        await ws.wait_closed()


class Resolver(trio.abc.HostnameResolver):
    """A name service that knows what a test tells it, or does not answer."""

    def __init__(self, *addresses: tuple[int, str], slow: bool = False) -> None:
        self.addresses = addresses
        self.slow = slow

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if self.slow:
            await trio.sleep_forever()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for family, address in self.addresses
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@contextlib.contextmanager
def resolving(resolver: Resolver) -> Iterator[None]:
    old = trio.socket.set_custom_hostname_resolver(resolver)
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(old)


# Addresses...


@pytest.mark.parametrize("dead", ["a refusal", "a black hole"])
async def test_where_the_first_address_is_dead_the_next_one_is_taken(
    dead: str, autojump_clock: MockClock
) -> None:
    """A black hole gets a quarter of a second: that is trio's patience."""
    hole = dead == "a black hole"
    network = MemoryNetwork(lambda number: Link(latency=1000 if hole and number == 0 else 0))
    async with trio.open_nursery() as nursery:
        with network.install():
            host = None if hole else "192.0.2.2"
            await nursery.start(partial(serve_websocket, host=host), accept, 80)
            with resolving(Resolver((socket.AF_INET, "192.0.2.1"), (socket.AF_INET, "192.0.2.2"))):
                started = trio.current_time()
                async with open_websocket("ws://example.test/") as ws:
                    assert trio.current_time() - started == (0.25 if hole else 0)
                    assert ws.remote_address == ("192.0.2.2", 80)
        nursery.cancel_scope.cancel()


async def test_the_local_address_is_the_callers() -> None:
    seen: list[Any] = []

    async def handler(request: WebSocketRequest) -> None:
        seen.append(request.remote_address)
        await accept(request)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, host="127.0.0.1"), handler, 0)
        url = f"ws://127.0.0.1:{server.port}/"
        with trio.fail_after(10):
            async with open_websocket(url, local_address="127.0.0.2"):
                pass
        nursery.cancel_scope.cancel()
    assert seen[0][0] == "127.0.0.2"


async def test_an_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(OSError, match=r"cannot connect to 127\.0\.0\.1:9: .*192\.0\.2\.1"):
        async with open_websocket("ws://127.0.0.1:9/", local_address="192.0.2.1"):
            pass


# Why there is none...


async def test_a_name_that_nobody_knows_is_told() -> None:
    with (
        resolving(Resolver()),
        pytest.raises(
            socket.gaierror, match=r"no address for example\.test:80: Name or service not known"
        ),
    ):
        async with open_websocket("ws://example.test/"):
            pass


async def test_a_lookup_that_takes_too_long_is_told_as_such(autojump_clock: MockClock) -> None:
    with (
        resolving(Resolver(slow=True)),
        pytest.raises(
            HandshakeTimeout,
            match=r"^looking up the address of example\.test:80 took longer than 3",
        ),
    ):
        async with open_websocket("ws://example.test/", options=PATIENT):
            pass


async def test_a_black_hole_is_told_as_such(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(lambda number: Link(latency=1000))
    with network.install():
        async with network.listen("example.test"):
            with pytest.raises(
                HandshakeTimeout, match=r"^connecting to example\.test:80 took longer than 3"
            ):
                async with open_websocket("ws://example.test/", options=PATIENT):
                    pass


async def test_no_more_than_a_cancellation_is_made_of_one(autojump_clock: MockClock) -> None:
    progress = Progress()
    with resolving(Resolver(slow=True)), trio.move_on_after(1) as scope:
        await open_tcp(trio.open_tcp_stream, "example.test", 80, progress)
    assert scope.cancelled_caught
    assert progress.phase == "looking up the address of example.test:80"

    async def dial(host: str, port: int) -> trio.SocketStream:
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await open_tcp(dial, "example.test", 80, progress)
    assert scope.cancelled_caught
    assert progress.phase == "connecting to example.test:80"


async def test_a_closed_port_is_a_refusal_with_its_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as caught:
            await open_tcp(trio.open_tcp_stream, "127.0.0.1", port, Progress(), purpose="the p ")
    assert str(caught.value) == (
        f"[Errno 111] cannot connect to the p 127.0.0.1:{port}: Connection refused"
    )


async def test_a_unix_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    progress = Progress()
    with pytest.raises(FileNotFoundError) as caught:
        await open_unix(str(tmp_path / "s"), progress)
    assert f"cannot connect to {tmp_path}/s: No such file" in str(caught.value)
    assert progress.phase == f"connecting to {tmp_path}/s"


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
NO_WAY = OSError(errno.ENETUNREACH, "Network is unreachable")


@pytest.mark.parametrize(
    ("cause", "kind", "text"),
    [
        (REFUSED, ConnectionRefusedError, "[Errno 111] cannot connect to x: Connection refused"),
        (
            ExceptionGroup("", [NO_WAY, REFUSED, NO_WAY]),
            OSError,
            "[Errno 101] cannot connect to x: Network is unreachable, Connection refused",
        ),
        (ExceptionGroup("", [ExceptionGroup("", [REFUSED])]), ConnectionRefusedError, None),
        (None, OSError, "cannot connect to x: all attempts failed"),
        (ValueError("odd"), OSError, "cannot connect to x: all attempts failed"),
    ],
)
def test_the_reasons_of_all_attempts_are_told_once(
    cause: Exception | None, kind: type[OSError], text: str | None
) -> None:
    error = OSError("all attempts failed")
    error.__cause__ = cause
    told = reworded(error, "x")
    assert type(told) is kind
    assert text is None or str(told) == text
