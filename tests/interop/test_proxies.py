"""Through proxies that others have written: tinyproxy, squid, Dante and microsocks."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme
from _components import PATIENCE, free_port, require

from trio_ws import (
    HandshakeError,
    ProxyRejected,
    WebSocketRequest,
    open_websocket,
    serve_websocket,
)

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A place that a proxy can read, too, once it has left root's rights behind."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def running(port: int, *command: str) -> Iterator[None]:
    """Run a proxy, from when it listens to the end of the block."""
    with subprocess.Popen(  # noqa: S603  # our own command
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            give_up = time.monotonic() + PATIENCE
            while time.monotonic() < give_up and process.poll() is None:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.01)
            else:
                raise AssertionError(f"{command[0]} does not listen ({process.poll()})")
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def tinyproxy(folder: Path) -> Iterator[int]:
    """HTTP, with Basic authentication."""
    port = free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(f"Port {port}\nListen 127.0.0.1\nBasicAuth ann secret\n")
    with running(port, require("tinyproxy"), "-d", "-c", str(config)):
        yield port


@pytest.fixture(scope="module")
def squid(folder: Path) -> Iterator[tuple[int, int]]:
    """HTTP, and HTTP over TLS; not to port 9."""
    plain, secure = free_port(), free_port()
    certificate = AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem
    certificate.write_to_path(str(folder / "both.pem"))
    config = folder / "squid.conf"
    config.write_text(
        f"http_port 127.0.0.1:{plain}\n"
        f"https_port 127.0.0.1:{secure} tls-cert={folder}/both.pem\n"
        "acl nine port 9\n"
        "http_access deny nine\n"
        "http_access allow all\n"
        "cache deny all\n"
        "access_log none\n"
        "cache_log /dev/null\n"
        "pid_filename none\n"
        "pinger_enable off\n"
        "shutdown_lifetime 0 seconds\n"
        f"coredump_dir {folder}\n"
    )
    with running(secure, require("squid"), "-N", "-f", str(config)):
        yield plain, secure


@pytest.fixture(scope="module")
def dante(folder: Path) -> Iterator[int]:
    """SOCKS 4 and 5, without authentication; not to port 9."""
    port = free_port()
    config = folder / "danted.conf"
    config.write_text(
        "logoutput: /dev/null\n"
        f"internal: 127.0.0.1 port = {port}\n"
        "external: 127.0.0.1\n"
        "clientmethod: none\n"
        "socksmethod: none\n"
        "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
        "socks block { from: 0.0.0.0/0 to: 0.0.0.0/0 port = 9 }\n"
        "socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n"
    )
    with running(port, require("dante-server"), "-f", str(config)):
        yield port


@pytest.fixture(scope="module")
def microsocks() -> Iterator[int]:
    """SOCKS 5, with a password."""
    port = free_port()
    program = require("microsocks")
    arguments = ("-i", "127.0.0.1", "-p", str(port), "-u", "ann", "-P", "secret")
    with running(port, program, *arguments):
        yield port


@asynccontextmanager
async def serving(*, tls: bool) -> AsyncIterator[tuple[str, ssl.SSLContext | None]]:
    """Serve an echo; yield its URL, and what a client needs to trust it."""

    async def echo(request: WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                await ws.send(message)

    context = trusting = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert("localhost").configure_cert(context)
        trusting = trusted()
    async with trio.open_nursery() as nursery:
        start = partial(serve_websocket, host="127.0.0.1", ssl_context=context)
        server = await nursery.start(start, echo, 0)
        with trio.fail_after(PATIENCE):  # noqa: ASYNC100  # the test that it yields to waits
            yield f"{'wss' if tls else 'ws'}://localhost:{server.port}/", trusting
        nursery.cancel_scope.cancel()


def trusted() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def talk(proxy: str, *, tls: bool) -> None:
    """Send much and little through a proxy, and leave in peace."""
    secure_proxy = trusted() if proxy.startswith("https") else None
    async with (
        serving(tls=tls) as (url, context),
        open_websocket(
            url, ssl_context=context, proxy=proxy, proxy_ssl_context=secure_proxy
        ) as ws,
    ):
        for message in ("hello", b"x" * 500_000):
            await ws.send(message)
            assert await ws.receive() == message
    assert ws.close_info is not None
    assert (ws.close_info.code, ws.close_info.clean) == (1000, True)


both = pytest.mark.parametrize("tls", [False, True])


@both
async def test_tinyproxy_opens_the_way(tinyproxy: int, tls: bool) -> None:
    await talk(f"http://ann:secret@127.0.0.1:{tinyproxy}", tls=tls)


@pytest.mark.parametrize(
    ("user", "status", "said"),
    [
        ("", 407, "it wants to know who you are"),
        ("ann:wrong@", 401, "does not accept this user and password"),
    ],
)
async def test_tinyproxy_wants_a_password(
    tinyproxy: int, user: str, status: int, said: str
) -> None:
    """To a wrong password it says 401, which should be a server's to say."""
    with pytest.raises(ProxyRejected, match=said) as caught:
        async with open_websocket("ws://localhost/", proxy=f"http://{user}127.0.0.1:{tinyproxy}"):
            pass
    assert caught.value.status == status


@both
async def test_squid_opens_the_way(squid: tuple[int, int], tls: bool) -> None:
    await talk(f"http://127.0.0.1:{squid[0]}", tls=tls)


@both
async def test_squid_opens_the_way_over_tls(squid: tuple[int, int], tls: bool) -> None:
    await talk(f"https://localhost:{squid[1]}", tls=tls)


async def test_squid_says_what_it_does_not_allow_and_what_it_does_not_reach(
    squid: tuple[int, int],
) -> None:
    proxy = f"http://127.0.0.1:{squid[0]}"
    for port, status in ((9, 403), (free_port(), 503)):
        with pytest.raises(ProxyRejected) as caught:
            async with open_websocket(f"ws://127.0.0.1:{port}/", proxy=proxy):
                pass
        assert caught.value.status == status


@both
@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h"])
async def test_dante_opens_the_way(dante: int, scheme: str, tls: bool) -> None:
    await talk(f"{scheme}://127.0.0.1:{dante}", tls=tls)


async def test_dante_says_what_it_does_not_allow_and_what_it_does_not_reach(dante: int) -> None:
    proxy = f"socks5://127.0.0.1:{dante}"
    with pytest.raises(HandshakeError, match="not allowed by ruleset"):
        async with open_websocket("ws://127.0.0.1:9/", proxy=proxy):
            pass
    port = free_port()
    with pytest.raises(ConnectionRefusedError, match=f"cannot connect to 127.0.0.1:{port}"):
        async with open_websocket(f"ws://127.0.0.1:{port}/", proxy=proxy):
            pass


@both
async def test_microsocks_opens_the_way(microsocks: int, tls: bool) -> None:
    await talk(f"socks5h://ann:secret@127.0.0.1:{microsocks}", tls=tls)


@pytest.mark.parametrize("user", ["", "ann:wrong@"])
async def test_microsocks_wants_a_password(microsocks: int, user: str) -> None:
    with pytest.raises(HandshakeError, match=r"^the proxy socks5h://\S+ opens no way to .*auth"):
        async with open_websocket(
            "ws://localhost/", proxy=f"socks5h://{user}127.0.0.1:{microsocks}"
        ):
            pass


async def test_it_is_found_in_the_environment(dante: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{dante}")
    async with serving(tls=False) as (url, _), open_websocket(url) as ws:
        assert ws.remote_address == ("127.0.0.1", dante)
    monkeypatch.setenv("NO_PROXY", "localhost")
    async with serving(tls=False) as (url, _), open_websocket(url) as ws:
        assert ws.remote_address != ("127.0.0.1", dante)
