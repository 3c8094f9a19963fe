from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from trio_ws.redis._address import Address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", {"hosts": (("localhost", 6379),)}),
        ("redis://[::1]:7000/3", {"hosts": (("::1", 7000),), "db": 3}),
        ("redis://h?db=2", {"hosts": (("h", 6379),), "db": 2}),
        (
            "redis://ann:p%40ss@h:1",
            {"hosts": (("h", 1),), "username": "ann", "password": "p@ss"},
        ),
        ("redis://:secret@h", {"hosts": (("h", 6379),), "password": "secret"}),
        ("unix:///run/redis%20x.sock?db=1", {"path": "/run/redis x.sock", "db": 1}),
        (
            "redis+sentinel://s1,s2:7:/main/4".replace("s2:7:", "s2:7"),
            {"hosts": (("s1", 26379), ("s2", 7)), "service": "main", "db": 4},
        ),
        ("redis+sentinel://s1/main", {"hosts": (("s1", 26379),), "service": "main"}),
    ],
)
def test_a_url_says_where_redis_is(url: str, expected: dict[str, Any]) -> None:
    assert Address.parse(url) == Address(**expected)


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "localhost:6379",
        "redis://",
        "redis://h:port",
        "redis://h/lobby",
        "redis://h?timeout=3",
        "redis://h#x",
        "redis+sentinel://h",
        "redis+sentinel://h,/main",
        "unix://",
        "redis://[::1",
    ],
)
def test_what_is_no_url_of_redis_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"it looks like redis://"):
        Address.parse(url)


def test_a_password_appears_in_no_message() -> None:
    with pytest.raises(ValueError, match="no URL") as caught:
        Address.parse("redis://ann:secret@h:port")
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
    address = Address.parse("redis://ann:secret@h")
    assert "secret" not in repr(address) + str(address)


def test_a_url_is_a_string() -> None:
    with pytest.raises(TypeError, match="not bytes"):
        Address.parse(b"redis://h")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://u:p@h", "h:6379"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("redis+sentinel://a,b/main", "main at a:26379,b:26379"),
    ],
)
def test_an_address_has_a_name_for_operators(url: str, name: str) -> None:
    assert str(Address.parse(url)) == name


def test_tls_checks_certificate_and_name_unless_told_otherwise() -> None:
    context = Address.parse("rediss://h").ssl_context
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    own = ssl.create_default_context()
    assert Address.parse("rediss://h", own).ssl_context is own
    assert Address.parse("redis+sentinel://h/main", own).ssl_context is own
    assert Address.parse("redis://h").ssl_context is None


async def test_a_stream_is_opened_to_a_host() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with listeners[0] as listener, trio.open_nursery() as nursery:
        address = Address.parse(f"redis://127.0.0.1:{port}")
        nursery.start_soon(_greet, listener)
        async with await address.connect(address.hosts[0]) as stream:
            assert await stream.receive() == b"hello"


async def test_a_stream_is_opened_to_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(str(path))
        sock.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_greet, trio.SocketListener(sock))
            async with await Address.parse(f"unix://{path}").connect(None) as stream:
                assert await stream.receive() == b"hello"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_stream_with_tls_is_opened_to_whom_the_certificate_names(host: str) -> None:
    authority = trustme.CA()
    server, client = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    listeners = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]
    address = Address.parse(f"rediss://{host}:{port}", client)
    async with listeners[0] as listener, trio.open_nursery() as nursery:
        nursery.start_soon(_greet, listener)
        if host == "localhost":
            async with await address.connect(address.hosts[0]) as stream:
                assert await stream.receive() == b"hello"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                await address.connect(address.hosts[0])


async def _greet(listener: trio.abc.Listener[Any]) -> None:
    async with await listener.accept() as stream:
        with suppress(trio.BrokenResourceError):  # of a client that does not like the certificate
            await stream.send_all(b"hello")
