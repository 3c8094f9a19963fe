"""SOCKS over a stream that is open already: what is asked, and what every refusal becomes."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
from _proxies import SOCKSProxy, listening
from trio.testing import MockClock

from trio_ws._errors import HandshakeError
from trio_ws._proxy import parse_proxy
from trio_ws._socks import open_tunnel
from trio_ws._url import parse_url
from trio_ws.testing import MemoryNetwork

PROXY = parse_proxy("socks5h://proxy.test:3128")


async def ask(proxy: SOCKSProxy, scheme: str, host: str = "a.test", user: str = "") -> None:
    """Ask the proxy for port 81 of the host, and see that the way leads there."""
    network = proxy.network
    async with listening(network, proxy), network.listen("a.test", 81) as listener:
        stream = await network.connect("proxy.test", 3128)
        async with stream:
            url = parse_url(f"ws://{host}:81/")
            await open_tunnel(stream, parse_proxy(f"{scheme}://{user}proxy.test:3128"), url)
            async with await listener.accept() as there:
                await stream.send_all(b"hello")
                assert await there.receive_some() == b"hello"


@pytest.mark.parametrize(
    ("scheme", "user", "asked"),
    [
        ("socks5h", "", (5, "", "a.test", 81)),
        ("socks5h", "ann:x@", (5, "ann:x", "a.test", 81)),
        ("socks4a", "", (4, "", "a.test", 81)),
        ("socks4a", "ann@", (4, "ann", "a.test", 81)),
    ],
)
async def test_the_proxy_is_told_who_asks_for_what(
    scheme: str, user: str, asked: tuple[Any, ...], autojump_clock: MockClock
) -> None:
    proxy = SOCKSProxy(MemoryNetwork(), user="ann:x" if ":" in user else "")
    await ask(proxy, scheme, user=user)
    assert proxy.asked == [asked]


async def test_a_zone_stays_at_home(autojump_clock: MockClock) -> None:
    proxy = SOCKSProxy(MemoryNetwork(), reply=2)
    with pytest.raises(HandshakeError):
        await ask(proxy, "socks5", "[fe80::1%25eth0]")
    assert proxy.asked == [(5, "", "fe80::1", 81)]


async def test_socks_4_knows_no_ipv6(autojump_clock: MockClock) -> None:
    proxy = SOCKSProxy(MemoryNetwork())
    with pytest.raises(HandshakeError, match="SOCKS4 knows no IPv6 addresses, as 2001:db8::1"):
        await ask(proxy, "socks4a", "[2001:db8::1]")
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("reply", "kind", "number"),
    [
        (3, OSError, errno.ENETUNREACH),
        (4, OSError, errno.EHOSTUNREACH),
        (5, ConnectionRefusedError, errno.ECONNREFUSED),
        (6, TimeoutError, errno.ETIMEDOUT),
    ],
)
async def test_what_the_proxy_met_is_told_as_if_we_had(
    reply: int, kind: type[OSError], number: int, autojump_clock: MockClock
) -> None:
    where = r"the proxy socks5h://proxy\.test:3128 cannot connect to a\.test:81: "
    with pytest.raises(OSError, match=where) as caught:
        await ask(SOCKSProxy(MemoryNetwork(), reply=reply), "socks5h")
    assert type(caught.value) is kind
    assert caught.value.errno == number


@pytest.mark.parametrize(
    ("scheme", "reply", "said"),
    [
        ("socks5h", 1, "General SOCKS server failure"),
        ("socks5h", 2, "Connection not allowed by ruleset"),
        ("socks5h", 8, "Address type not supported"),
        ("socks5h", 99, "Invalid reply code"),
        ("socks4a", 0x5B, "Request rejected or failed"),
    ],
)
async def test_other_refusals_name_the_proxy_and_the_server(
    scheme: str, reply: int, said: str, autojump_clock: MockClock
) -> None:
    where = rf"the proxy {scheme}://proxy\.test:3128 opens no way to a\.test:81: {said}"
    with pytest.raises(HandshakeError, match=where):
        await ask(SOCKSProxy(MemoryNetwork(), reply=reply), scheme)


@pytest.mark.parametrize(
    ("user", "said"),
    [("", "No acceptable authentication methods"), ("ann:wrong@", "authentication failure")],
)
async def test_who_is_not_let_in_is_told(user: str, said: str, autojump_clock: MockClock) -> None:
    with pytest.raises(HandshakeError, match=said) as caught:
        await ask(SOCKSProxy(MemoryNetwork(), user="ann:right"), "socks5h", user=user)
    assert "wrong" not in str(caught.value)


async def test_an_address_that_makes_no_sense_is_told(autojump_clock: MockClock) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(3)
        await stream.send_all(b"\x05\x00")
        await stream.receive_some(100)
        await stream.send_all(b"\x05\x00\x00\x03\x01\xff\x00\x00")

    network = MemoryNetwork()
    async with listening(network, talk):
        stream = await network.connect("proxy.test", 3128)
        with pytest.raises(HandshakeError, match="its answer makes no sense"):
            await open_tunnel(stream, PROXY, parse_url("ws://a.test/"))
        await stream.aclose()


async def test_an_end_is_told_as_one(autojump_clock: MockClock) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(3)

    network = MemoryNetwork()
    async with listening(network, talk):
        stream = await network.connect("proxy.test", 3128)
        with pytest.raises(HandshakeError, match=r"proxy .* closed .* without an answer$") as it:
            await open_tunnel(stream, PROXY, parse_url("ws://a.test/"))
        await stream.aclose()
    assert isinstance(it.value.__cause__, EOFError)  # so it is worth another attempt


async def test_a_reset_is_a_broken_stream(autojump_clock: MockClock) -> None:
    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(1)
        network.links[0].reset()

    network = MemoryNetwork()
    async with listening(network, talk):
        stream = await network.connect("proxy.test", 3128)
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await open_tunnel(stream, PROXY, parse_url("ws://a.test/"))
        await stream.aclose()


class NobodyKnows(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_a_name_that_nobody_here_knows_is_told(autojump_clock: MockClock) -> None:
    old = trio.socket.set_custom_hostname_resolver(NobodyKnows())
    try:
        with pytest.raises(socket.gaierror, match=r"no address for a\.test:81: Name or service"):
            await ask(SOCKSProxy(MemoryNetwork()), "socks5")
    finally:
        trio.socket.set_custom_hostname_resolver(old)
