"""A network in memory: hosts by name, TLS, and programs that know nothing of it."""

from __future__ import annotations

import errno
import socket
import ssl
import sys

import pytest
import trio
import trio.testing
from _proxies import HTTPProxy, listening

import trio_ws
from trio_ws.testing import Link, MemoryNetwork
from trio_ws.testing._network import _Hooks
from trio_ws.testing._socket import ANY_HOST, Switchboard

pytest_plugins = ("pytest_trio_ws",)


async def echo(request: trio_ws.WebSocketRequest) -> None:
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def tell_host(request: trio_ws.WebSocketRequest) -> None:
    async with request.accept() as ws:
        await ws.send(
            f"{request.headers['Host']} {request.local_address} {request.tls is not None}"
        )


async def serve(
    nursery: trio.Nursery, *listeners: trio.abc.Listener, handler=echo
) -> trio_ws.Server:
    return await nursery.start(trio_ws.serve_websocket_listeners, handler, listeners)


async def test_a_server_is_reached_by_its_name(nursery, memory_network) -> None:
    server = await serve(nursery, memory_network.listen("example.org", 80))
    assert server.port == 80
    async with memory_network.open_websocket("ws://EXAMPLE.org/path") as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"
        assert ws.remote_address == ("192.0.2.1", 80)
        assert ws.local_address == server.connections[0].remote_address


async def test_each_host_and_port_is_a_place_of_its_own(nursery, memory_network) -> None:
    places = [("one.test", 80), ("one.test", 81), ("two.test", 80), ("192.0.2.77", 80)]
    listeners = [memory_network.listen(*place) for place in places]
    await serve(nursery, *listeners, handler=tell_host)
    told = []
    for host, port in places:
        async with memory_network.open_websocket(f"ws://{host}:{port}/") as ws:
            told.append(await ws.receive())
    assert told == [
        "one.test ('192.0.2.1', 80) False",
        "one.test:81 ('192.0.2.1', 81) False",
        "two.test ('192.0.2.2', 80) False",
        "192.0.2.77 ('192.0.2.77', 80) False",
    ]


async def test_nobody_there_is_a_refusal_that_says_who_is(memory_network) -> None:
    with pytest.raises(ConnectionRefusedError, match="but: nowhere"):
        await memory_network.connect("example.org", 80)
    async with memory_network.listen("example.org", 8080), memory_network.listen("b.test", 80):
        with pytest.raises(ConnectionRefusedError) as caught:
            async with memory_network.open_websocket("ws://example.org/"):
                pass
    assert caught.value.errno == errno.ECONNREFUSED
    assert "nobody listens at example.org port 80 in this MemoryNetwork" in str(caught.value)
    assert "but: example.org port 8080, b.test port 80" in str(caught.value)


async def test_a_listener_that_has_closed_listens_no_more(memory_network) -> None:
    listener = memory_network.listen()
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await memory_network.connect("localhost", 80)
    await memory_network.listen().aclose()


async def test_a_listener_that_closes_while_somebody_connects_refuses(
    memory_network, autojump_clock
) -> None:
    listener = memory_network.listen()

    async def connect() -> None:
        with pytest.raises(ConnectionRefusedError):
            await memory_network.connect("localhost", 80, link=Link(latency=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.sleep(0.5)
        await listener.aclose()


async def test_a_place_has_one_listener(memory_network) -> None:
    async with memory_network.listen("a.test", 80):
        with pytest.raises(OSError, match=r"somebody listens at a\.test port 80") as caught:
            memory_network.listen("a.test", 80)
        assert caught.value.errno == errno.EADDRINUSE


async def test_port_0_is_one_that_is_free(memory_network) -> None:
    async with memory_network.listen(port=0) as one, memory_network.listen(port=0) as two:
        assert one.socket.getsockname() == ("127.0.0.1", 49152)
        assert two.socket.getsockname() == ("127.0.0.1", 49153)


async def test_a_cancelled_connect_leaves_nothing(memory_network, autojump_clock) -> None:
    async with memory_network.listen() as listener:
        with trio.move_on_after(1) as scope:
            await memory_network.connect("localhost", 80, link=Link(latency=1))
        assert scope.cancelled_caught
        with trio.move_on_after(1) as scope:
            await listener.accept()
        assert scope.cancelled_caught


async def test_links_are_numbered_made_and_kept(memory_network, nursery) -> None:
    network = MemoryNetwork(lambda number: Link(latency=number))
    assert repr(network) == "<MemoryNetwork with 0 links>"
    await serve(nursery, network.listen())
    mine = Link()
    for link in (None, mine):
        async with network.open_websocket("ws://localhost/", link=link) as ws:
            await ws.ping()
    assert [link.to_server.latency for link in network.links] == [0, 0]
    assert network.links[1] is mine
    assert mine.recorder.frames("client")


async def test_tls_comes_with_a_certificate_for_the_host(nursery, memory_network) -> None:
    await serve(nursery, memory_network.listen("example.org", 443, tls=True), handler=tell_host)
    async with memory_network.open_websocket("wss://example.org/") as ws:
        assert await ws.receive() == "example.org ('192.0.2.1', 443) True"
        assert ws.remote_address == ("192.0.2.1", 443)


async def test_a_certificate_is_for_one_host_alone(nursery, memory_network) -> None:
    listener = memory_network.listen("example.org", 443, tls=True)
    await serve(nursery, listener)
    with memory_network.install():
        address = listener.transport_listener.socket.getsockname()[0]
        with pytest.raises(trio_ws.HandshakeError, match="certificate"):
            async with memory_network.open_websocket(f"wss://{address}/"):
                pass
    context = ssl.create_default_context()
    with pytest.raises(trio_ws.HandshakeError, match="certificate"):
        async with memory_network.open_websocket("wss://example.org/", ssl_context=context):
            pass


async def test_tls_may_be_all_ones_own(nursery, memory_network) -> None:
    trustme = pytest.importorskip("trustme")
    ca = trustme.CA()
    server, client = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    ca.issue_cert("example.org").configure_cert(server)
    ca.configure_trust(client)
    await serve(nursery, memory_network.listen("example.org", 443, ssl_context=server))
    async with memory_network.open_websocket("wss://example.org/", ssl_context=client) as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"


async def test_a_context_for_a_plain_url_is_refused(memory_network) -> None:
    with pytest.raises(ValueError, match="wss://"):
        memory_network.open_websocket("ws://a.test/", ssl_context=ssl.create_default_context())


def test_without_trustme_tls_says_what_to_install(monkeypatch, memory_network) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ImportError) as caught:
        memory_network.listen("example.org", 443, tls=True)
    assert caught.value.__notes__ == ["TLS in memory needs certificates: pip install trustme"]


async def test_a_program_that_knows_nothing_of_it_uses_it(nursery, memory_network) -> None:
    with memory_network.install():
        server = await nursery.start(trio_ws.serve_websocket, echo, 8000)
        assert server.port == 8000
        async with trio_ws.open_websocket("ws://anything.example:8000/") as ws:
            await ws.send("hello")
            assert await ws.receive() == "hello"
        with pytest.raises(OSError, match=r"cannot connect to anything\.example:80: nobody"):
            async with trio_ws.open_websocket("ws://anything.example/"):
                pass
        with pytest.raises(OSError, match="somebody listens"):
            await trio_ws.serve_websocket(echo, 8000)
        local = await trio_ws_on(nursery, "localhost")
        assert local.listeners[0].socket.getsockname()[0] == "127.0.0.1"
        assert await trio.socket.getnameinfo(("192.0.2.1", 80), 0) == ("192.0.2.1", "80")
    assert len(memory_network.links) == 1


async def trio_ws_on(nursery: trio.Nursery, host: str) -> trio_ws.Server:
    async def serve(*, task_status=trio.TASK_STATUS_IGNORED) -> None:
        await trio_ws.serve_websocket(echo, 0, host=host, task_status=task_status)

    return await nursery.start(serve)


async def test_other_sockets_than_tcp_stay_real(memory_network) -> None:
    with memory_network.install():
        ours, theirs = trio.socket.socketpair()
        unix = trio.socket.socket(socket.AF_UNIX)
        for each in (ours, theirs, unix):
            assert each.fileno() not in {-1, 2**31 - 1}
            each.close()
        with pytest.raises(OSError, match="IPv6") as caught:
            trio.socket.socket(socket.AF_INET6)
        assert caught.value.errno == errno.EAFNOSUPPORT


async def test_what_was_installed_before_is_there_afterwards(memory_network) -> None:
    outer = MemoryNetwork()
    with outer.install():
        async with memory_network.listen("inner.test"), outer.listen("outer.test"):
            with memory_network.install():
                await trio.aclose_forcefully(await trio.open_tcp_stream("inner.test", 80))
            await trio.aclose_forcefully(await trio.open_tcp_stream("outer.test", 80))
    sock = trio.socket.socket()
    assert sock.fileno() != 2**31 - 1
    sock.close()


async def test_a_host_may_be_bytes_or_none() -> None:
    hooks = _Hooks(Switchboard(lambda number: Link()))
    ((*_, address),) = await hooks.getaddrinfo(b"a.test", "80")
    assert address == ("192.0.2.1", 80)
    ((*_, address),) = await hooks.getaddrinfo(None, None)
    assert address == (ANY_HOST, 0)


async def test_a_proxy_in_it_leads_to_its_hosts(nursery, memory_network) -> None:
    """Also one that speaks TLS: its certificate is of the same authority."""
    proxy = HTTPProxy(memory_network)
    listener = memory_network.listen("a.test")
    await nursery.start(trio_ws.serve_websocket_listeners, echo, [listener])
    for tls, url in ((False, "http://p1.test:1"), (True, "https://p2.test:2")):
        host, _, port = url.partition("://")[2].partition(":")
        async with (
            listening(memory_network, proxy, host, int(port), tls=tls),
            memory_network.open_websocket("ws://a.test/", proxy=url) as ws,
        ):
            await ws.send("hello")
            assert await ws.receive() == "hello"
    assert [head.split()[1] for head in proxy.heads] == ["a.test:80"] * 2


async def test_the_environments_proxies_are_for_another_network(
    nursery, memory_network, monkeypatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy.test:3128")
    listener = memory_network.listen("a.test")
    await nursery.start(trio_ws.serve_websocket_listeners, echo, [listener])
    async with memory_network.open_websocket("ws://a.test/"):
        pass
    with pytest.raises(ConnectionRefusedError, match=r"the proxy proxy\.test:3128"):
        async with memory_network.open_websocket("ws://a.test/", proxy="environment"):
            pass
