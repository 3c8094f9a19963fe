"""Proxies and TLS servers in a network in memory, for clients to meet."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from trio_ws.testing import MemoryNetwork

Talk = Callable[[trio.abc.Stream], Awaitable[object]]


@asynccontextmanager
async def listening(
    network: MemoryNetwork, talk: Talk, host: str = "proxy.test", port: int = 3128, **tls: object
) -> AsyncIterator[None]:
    """Let ``talk`` speak with whoever connects; their streams are closed behind it."""

    async def serve(stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with stream:
                await talk(stream)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        listener = network.listen(host, port, **tls)  # type: ignore[arg-type]  # tls or ssl_context
        await nursery.start(trio.serve_listeners, serve, [listener])
        try:
            yield
        except Exception as exc:  # noqa: BLE001  # raised below, without a group around it
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class HTTPProxy:
    """Opens the way to whoever is asked for, and notes the heads of the requests."""

    def __init__(self, network: MemoryNetwork, *, password: str = "") -> None:
        self.network = network
        self.password = password
        self.heads: list[str] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await receive_exactly(stream, 1)
        self.heads.append(head.decode("latin-1"))
        if (
            self.password
            and f"Proxy-Authorization: Basic {self.password}\r\n" not in self.heads[-1]
        ):
            await stream.send_all(
                b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
            )
            return
        host, _, port = head.split()[1].decode("ascii").rpartition(":")
        try:
            server = await self.network.connect(host.strip("[]"), int(port))
        except OSError:
            await stream.send_all(b"HTTP/1.1 502 No way\r\nContent-Length: 0\r\n\r\n")
            return
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(stream, server)


class SOCKSProxy:
    """SOCKS 4, 4a and 5 (RFC 1928, RFC 1929); notes versions, users and destinations."""

    def __init__(self, network: MemoryNetwork, *, user: str = "", reply: int = 0) -> None:
        self.network = network
        self.user = user
        self.reply = reply
        self.asked: list[tuple[int, str, str, int]] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        version = (await receive_exactly(stream, 1))[0]
        await (self._speak_4 if version == 4 else self._speak_5)(stream)

    async def _speak_4(self, stream: trio.abc.Stream) -> None:
        _, port_1, port_2, *address = await receive_exactly(stream, 7)
        user = await receive_string(stream)
        host = str(ipaddress.IPv4Address(bytes(address)))
        if host.startswith("0.0.0."):
            host = await receive_string(stream)
        self.asked.append((4, user, host, port_1 * 256 + port_2))
        granted = not self.reply
        await stream.send_all(bytes([0, 0x5A if granted else self.reply]) + bytes(6))
        if granted:
            await join(stream, await self.network.connect(*self.asked[-1][2:]))

    async def _speak_5(self, stream: trio.abc.Stream) -> None:
        methods = await receive_exactly(stream, (await receive_exactly(stream, 1))[0])
        user = ""
        if self.user:
            if 2 not in methods:
                await stream.send_all(b"\x05\xff")
                return
            await stream.send_all(b"\x05\x02")
            await receive_exactly(stream, 1)
            name = await receive_exactly(stream, (await receive_exactly(stream, 1))[0])
            word = await receive_exactly(stream, (await receive_exactly(stream, 1))[0])
            user = f"{name.decode()}:{word.decode()}"
            await stream.send_all(b"\x01\x00" if user == self.user else b"\x01\x01")
            if user != self.user:
                return
        else:
            await stream.send_all(b"\x05\x00")
        kind = (await receive_exactly(stream, 4))[3]
        if kind == 3:
            host = (await receive_exactly(stream, (await receive_exactly(stream, 1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await receive_exactly(stream, 4 if kind == 1 else 16)))
        port = int.from_bytes(await receive_exactly(stream, 2), "big")
        self.asked.append((5, user, host, port))
        await stream.send_all(bytes([5, self.reply, 0, 1]) + bytes(6))
        if not self.reply:
            await join(stream, await self.network.connect(host, port))


def with_alerts(context: ssl.SSLContext) -> Talk:
    """Be a TLS server that tells its client what it does not like, as OpenSSL's own does."""

    async def talk(stream: trio.abc.Stream) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                tls.read(1)
            except ssl.SSLWantReadError:
                await stream.send_all(outgoing.read())
                incoming.write(bytes(await stream.receive_some()))
            except ssl.SSLError:
                await stream.send_all(outgoing.read())
                await trio.sleep(1)
                return

    return talk


async def receive_exactly(stream: trio.abc.Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise trio.BrokenResourceError("the client has gone")
        data += more
    return data


async def receive_string(stream: trio.abc.Stream) -> str:
    data = b""
    while not data.endswith(b"\0"):
        data += await receive_exactly(stream, 1)
    return data[:-1].decode()


async def join(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    """Be a tunnel, until either side ends."""

    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while data := await source.receive_some(65536):
                await sink.send_all(data)
        nursery.cancel_scope.cancel()

    async with other, trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)
