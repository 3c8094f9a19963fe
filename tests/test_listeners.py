"""Listeners: ports, certificates and sockets in the file system, and what is said about them."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from _site import MemoryListener
from pytest_trio import trio_fixture

from trio_ws._listeners import (
    UnixSocketFile,
    check_server_context,
    open_tcp_listeners,
    open_unix_listener,
    tcp_port,
    wrap_with_tls,
)
from trio_ws.testing import cancellations


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if authority is not None:
        authority.issue_cert("localhost").configure_cert(context)
    return context


# TCP...


async def test_the_port_of_a_listener_is_known_through_tls() -> None:
    (plain,) = await open_tcp_listeners(0, host="127.0.0.1", backlog=5)
    async with plain:
        port = tcp_port(plain)
        assert port == plain.socket.getsockname()[1]
        (tls,) = wrap_with_tls([plain], server_context(None))
        assert tcp_port(tls) == port


async def test_a_listener_that_has_no_port_is_no_error(tmp_path: Path) -> None:
    listener, _ = await open_unix_listener(tmp_path / "s", 0o600)
    async with listener:
        assert tcp_port(listener) is None
    assert tcp_port(MemoryListener()) is None


async def test_a_port_in_use_is_named() -> None:
    (listener,) = await open_tcp_listeners(0, host="127.0.0.1", backlog=None)
    async with listener:
        port = tcp_port(listener)
        assert port is not None
        with pytest.raises(OSError, match="in use") as caught:
            await open_tcp_listeners(port, host="127.0.0.1", backlog=None)
    (note,) = caught.value.__notes__
    assert note.startswith(f"port {port} of '127.0.0.1' is in use: ")


@pytest.mark.parametrize("port", [-1, 65536, 80000])
async def test_a_port_that_there_is_not_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=f"a port is a number from 0 to 65535, not {port}"):
        await open_tcp_listeners(port, host="127.0.0.1", backlog=None)


async def test_a_privileged_port_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be privileged."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(trio, "open_tcp_listeners", refuse)
    with pytest.raises(PermissionError) as caught:
        await open_tcp_listeners(80, host=None, backlog=None)
    assert caught.value.__notes__ == ["port 80 is privileged: take one from 1024 upwards"]


@pytest.mark.parametrize("port", [-1, 65536, 70000])
async def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    """The system would take it modulo 65536, and 70000 for 4464."""
    with pytest.raises(ValueError, match=f"a port is a number from 0 to 65535, not {port}"):
        await open_tcp_listeners(port, host="127.0.0.1", backlog=None)


async def test_without_a_host_every_interface_is_listened_on() -> None:
    listeners = await open_tcp_listeners(0, host=None, backlog=None)
    hosts = {listener.socket.getsockname()[0] for listener in listeners}
    for listener in listeners:
        await listener.aclose()
    assert "0.0.0.0" in hosts  # noqa: S104  # that is the point


async def test_an_interface_of_somebody_else_is_named() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        await open_tcp_listeners(8000, host="192.0.2.1", backlog=None)  # RFC 5737: nobody's
    assert caught.value.__notes__ == ["while opening port 8000 of '192.0.2.1'"]


# TLS...


@pytest.mark.parametrize("context", ["cert.pem", None, ssl.SSLContext])
def test_what_is_no_context_is_refused(context: Any) -> None:
    with pytest.raises(TypeError, match=r"is an ssl\.SSLContext"):
        check_server_context(context)


def test_the_context_of_a_client_is_refused() -> None:
    with pytest.raises(ValueError, match="not for a server"):
        check_server_context(ssl.create_default_context())


def old(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def new(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def odd(context: ssl.SSLContext) -> None:
    """Set ciphers that no client of Python's would offer."""
    old(context)
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA")


def suspicious(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED


def nothing(context: ssl.SSLContext) -> None:
    pass


PROFILES = [nothing, old, new, odd, suspicious]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_context_with_a_certificate_is_fine(profile: Any, authority: trustme.CA) -> None:
    context = server_context(authority)
    profile(context)
    check_server_context(context)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_context_without_a_certificate_is_refused(profile: Any) -> None:
    context = server_context(None)
    profile(context)
    with pytest.raises(ValueError, match=r"call its load_cert_chain\(\) first"):
        check_server_context(context)


def test_a_context_that_chooses_by_name_is_not_judged() -> None:
    """Its certificates come from the callback, which is for clients."""

    def choose(*_: Any) -> None:
        raise AssertionError

    context = server_context(None)
    context.sni_callback = choose
    check_server_context(context)


def test_a_context_for_versions_of_yesterday_is_not_judged(authority: trustme.CA) -> None:
    """Nobody speaks them with us, so there is no telling; clients will hear of it."""
    context = server_context(authority)
    with pytest.deprecated_call():
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.deprecated_call():
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    check_server_context(context)


async def test_tls_may_end_without_a_word(authority: trustme.CA) -> None:
    """Browsers just hang up."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    (plain,) = await open_tcp_listeners(0, host="127.0.0.1", backlog=None)
    (listener,) = wrap_with_tls([plain], server_context(authority))

    async def visit() -> None:
        stream = await trio.open_tcp_stream(*plain.socket.getsockname())
        tls = trio.SSLStream(stream, trusting, server_hostname="localhost", https_compatible=True)
        await tls.send_all(b"hello")
        await stream.aclose()

    with trio.fail_after(10):
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            async with await listener.accept() as stream:
                assert await stream.receive_some(100) == b"hello"
                assert await stream.receive_some(100) == b""


# Unix sockets...


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


@trio_fixture
async def live(tmp_path: Path) -> AsyncIterator[Path]:
    """Yield the path of a socket that somebody listens on."""
    listener, _ = await open_unix_listener(tmp_path / "live", 0o600)
    async with listener:
        yield tmp_path / "live"


def stale(path: Path) -> None:
    """Leave behind what a process does that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize("as_path", [str, Path, os.fsencode])
async def test_a_socket_is_made_with_its_permissions(tmp_path: Path, as_path: Any) -> None:
    path = tmp_path / "chat.sock"
    listener, file = await open_unix_listener(as_path(path), 0o660)
    async with listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert names(tmp_path) == ["chat.sock"]
        async with await trio.open_unix_socket(path), await listener.accept():
            pass
    file.remove()
    assert not path.exists()
    file.remove()  # as often as one likes


async def test_the_umask_of_the_process_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All threads have the same one: their files must not get strange permissions."""

    def refuse(mask: int) -> int:
        raise AssertionError

    before = threading.active_count()
    monkeypatch.setattr(os, "umask", refuse)
    listener, _ = await open_unix_listener(tmp_path / "s", 0o666)
    async with listener:
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o666
    assert threading.active_count() >= before


async def test_nobody_can_connect_before_the_permissions_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(path: Path, mode: int) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            outcomes.append(sock.connect_ex(str(path)))
        chmod(path, mode)

    outcomes: list[int] = []
    chmod = Path.chmod
    monkeypatch.setattr(Path, "chmod", look)
    listener, _ = await open_unix_listener(tmp_path / "s", 0o600)
    async with listener:
        assert outcomes == [errno.ECONNREFUSED]


async def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale(path)
    listener, _ = await open_unix_listener(path, 0o600)
    async with listener, await trio.open_unix_socket(path):
        pass


async def test_a_socket_that_is_replaced_is_never_missing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale(path)
    missing: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            missing.append(not path.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        listener, _ = await open_unix_listener(path, 0o600)
        await listener.aclose()
    finally:
        over.set()
        watcher.join()
    assert missing
    assert not any(missing)


@pytest.mark.parametrize("step", ["chmod", "rename"])
async def test_a_failure_on_the_way_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EROFS, "no more changes")

    path = tmp_path / "s"
    stale(path)
    inode = os.lstat(path).st_ino
    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(OSError, match="no more changes"):
        await open_unix_listener(path, 0o600)
    assert names(tmp_path) == ["s"]
    assert os.lstat(path).st_ino == inode


async def test_a_server_that_listens_is_not_evicted(live: Path) -> None:
    with pytest.raises(OSError, match="another server listens there") as caught:
        await open_unix_listener(live, 0o600)
    assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, str(live))
    async with await trio.open_unix_socket(live):
        pass


async def test_what_is_no_socket_is_not_replaced(tmp_path: Path, live: Path) -> None:
    """Connecting to a plain file is refused, as if nobody listened there."""
    file, folder, link, dangling = (tmp_path / name for name in ("file", "folder", "l", "d"))
    file.write_text("precious")
    folder.mkdir()
    link.symlink_to(live)
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (file, folder, link, dangling):
        with pytest.raises(FileExistsError, match="something that is no socket"):
            await open_unix_listener(path, 0o600)
    assert file.read_text() == "precious"
    assert link.is_symlink()


async def test_a_socket_that_cannot_be_looked_at_is_left_alone(
    live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests may be allowed everything."""

    async def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(trio, "open_unix_socket", refuse)
    with pytest.raises(PermissionError) as caught:
        await open_unix_listener(live, 0o600)
    assert "whether another server listens" in caught.value.__notes__[0]


@pytest.mark.parametrize("vanished", [FileNotFoundError, ConnectionRefusedError])
async def test_a_socket_that_vanishes_while_one_looks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vanished: type[OSError]
) -> None:
    async def look(path: str) -> None:
        (tmp_path / "s").unlink()
        raise vanished

    stale(tmp_path / "s")
    monkeypatch.setattr(trio, "open_unix_socket", look)
    listener, _ = await open_unix_listener(tmp_path / "s", 0o600)
    await listener.aclose()


@pytest.mark.parametrize(
    ("name", "mode", "error"),
    [
        ("missing/s", 0o600, FileNotFoundError),
        ("file/s", 0o600, NotADirectoryError),
        ("x" * 108, 0o600, OSError),  # more than the system takes
        ("s", "600", TypeError),
    ],
)
async def test_a_socket_that_cannot_be_made_is_named_and_leaves_nothing(
    tmp_path: Path, name: str, mode: Any, error: type[Exception]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error) as caught:
        await open_unix_listener(tmp_path / name, mode)
    assert names(tmp_path) == ["file"]
    if error is not NotADirectoryError:  # which names it itself
        (note,) = caught.value.__notes__
        assert repr(str(tmp_path / name)) in note


async def test_a_path_of_the_greatest_length_will_do(tmp_path_factory: Any) -> None:
    folder = Path("/tmp") / f"trio_ws-{os.getpid()}"  # noqa: S108  # a short one is needed
    folder.mkdir(mode=0o700)
    try:
        path = folder / ("x" * (107 - len(str(folder)) - 1))
        listener, file = await open_unix_listener(path, 0o600)
        async with listener, await trio.open_unix_socket(path):
            pass
        file.remove()
    finally:
        folder.rmdir()


async def test_a_relative_path_is_removed_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener, file = await open_unix_listener("s", 0o600)
    await listener.aclose()
    assert names(tmp_path) == ["s"]
    monkeypatch.chdir("/")
    file.remove()
    assert names(tmp_path) == []


async def test_a_server_that_has_taken_the_place_of_another_keeps_its_socket(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    first, file = await open_unix_listener(path, 0o600)
    await first.aclose()
    second, _ = await open_unix_listener(path, 0o600)
    async with second:
        file.remove()
        async with await trio.open_unix_socket(path):
            pass


def test_a_socket_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    stale(path)
    UnixSocketFile(path, (0, 0)).remove()
    assert path.is_socket()


async def test_to_open_a_unix_socket_can_be_cancelled_and_leaves_nothing(tmp_path: Path) -> None:
    stale(tmp_path / "s")
    async for attempt in cancellations():
        with attempt:
            listener, _ = await open_unix_listener(tmp_path / "s", 0o600)
            await listener.aclose()
        assert names(tmp_path) == ["s"]
