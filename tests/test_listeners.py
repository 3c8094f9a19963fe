"""What a server listens on: ports that say why not, TLS that works, Unix sockets in order."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _helpers
import pytest
import trio
import trustme

from trio_ws import _listeners
from trio_ws._listeners import (
    PatientListener,
    check_server_context,
    open_tcp_listeners,
    open_unix_listener,
    tcp_port,
    wrap_with_tls,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def stale(tmp_path: Path) -> Path:
    """A socket that nobody listens on any more."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return path


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """Whatever happens: no temporary name stays in the folder."""
    yield
    assert [name for name in names(tmp_path) if name.startswith(".")] == []


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208  # the names are the point


def state(path: Path) -> os.stat_result:
    return path.lstat()


# Ports...


async def test_any_free_port_can_be_had() -> None:
    (listener,) = await open_tcp_listeners(0, host="127.0.0.1", backlog=None)
    async with listener:
        port = tcp_port(listener)
        assert port is not None
        async with await trio.open_tcp_stream("127.0.0.1", port), await listener.accept():
            pass


async def test_without_a_host_it_listens_on_every_interface() -> None:
    listeners = await open_tcp_listeners(0, host=None, backlog=7)
    addresses = {listener.socket.getsockname()[0] for listener in listeners}
    for listener in listeners:
        await listener.aclose()
    assert "0.0.0.0" in addresses  # noqa: S104  # that is the point


@pytest.mark.parametrize("host", ["127.0.0.1", b"127.0.0.1"], ids=["str", "bytes"])
async def test_a_port_in_use_is_named(host: str | bytes) -> None:
    (first,) = await open_tcp_listeners(0, host=host, backlog=None)
    async with first:
        port = tcp_port(first)
        assert port is not None
        with pytest.raises(OSError, match="in use") as caught:
            await open_tcp_listeners(port, host=host, backlog=None)
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.__notes__ == [
        f"port {port} of {host!r} is in use: stop what listens there, or take another port"
    ]


@pytest.mark.parametrize(
    ("number", "host", "note"),
    [
        (errno.EACCES, None, "port 80 is privileged: take one from 1024 upwards"),
        (errno.EADDRINUSE, None, "port 80 is in use: stop what listens there, or take another"),
        (errno.EADDRNOTAVAIL, "192.0.2.1", "while opening port 80 of '192.0.2.1'"),
    ],
)
async def test_a_port_that_cannot_be_had_says_why(
    number: int, host: str | None, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(port: int, **_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(trio, "open_tcp_listeners", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        await open_tcp_listeners(80, host=host, backlog=None)
    assert caught.value.errno == number
    (told,) = caught.value.__notes__
    assert told.startswith(note)


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(OSError, match="assign") as caught:  # RFC 5737: nobody has it
        await open_tcp_listeners(0, host="192.0.2.1", backlog=None)
    assert caught.value.__notes__ == ["while opening port 0 of '192.0.2.1'"]


async def test_a_tcp_listener_has_a_port_with_and_without_tls(
    server_context: ssl.SSLContext,
) -> None:
    (plain,) = await open_tcp_listeners(0, host="127.0.0.1", backlog=None)
    (secure,) = wrap_with_tls([plain], server_context)
    async with secure:
        assert tcp_port(plain) == tcp_port(secure) == plain.socket.getsockname()[1]


async def test_a_unix_listener_has_no_port(tmp_path: Path) -> None:
    listener, file = await open_unix_listener(tmp_path / "s", 0o600)
    async with listener:
        assert tcp_port(listener) is None
    file.remove()


def test_a_listener_of_another_kind_has_no_port() -> None:
    class Other(trio.abc.Listener[Any]):
        async def accept(self) -> None: ...

        async def aclose(self) -> None: ...

    assert tcp_port(Other()) is None
    assert tcp_port(PatientListener(Other(), lambda: None)) is None


# TLS...


async def test_tls_may_end_without_a_word(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    (plain,) = await open_tcp_listeners(0, host="127.0.0.1", backlog=None)
    (listener,) = wrap_with_tls([plain], server_context)
    address = plain.socket.getsockname()
    with trio.fail_after(10):
        async with listener, trio.open_nursery() as nursery:

            async def visit() -> None:
                stream = await trio.open_tcp_stream(*address)
                tls = trio.SSLStream(
                    stream, client_context, server_hostname="127.0.0.1", https_compatible=True
                )
                await tls.send_all(b"hello")
                await stream.aclose()  # no close_notify: so do browsers

            nursery.start_soon(visit)
            async with await listener.accept() as stream:
                assert await stream.receive_some(100) == b"hello"
                assert await stream.receive_some(100) == b""


def test_a_context_with_a_certificate_is_taken(server_context: ssl.SSLContext) -> None:
    check_server_context(server_context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_context_for_one_version_of_tls_is_taken(
    version: ssl.TLSVersion, server_context: ssl.SSLContext
) -> None:
    server_context.minimum_version = server_context.maximum_version = version
    check_server_context(server_context)


def test_a_context_that_asks_clients_for_certificates_is_taken(
    server_context: ssl.SSLContext, authority: trustme.CA
) -> None:
    authority.configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    check_server_context(server_context)


def test_a_context_whose_certificates_come_by_name_is_taken() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    calls: list[object] = []
    context.sni_callback = lambda *arguments: calls.append(arguments)
    check_server_context(context)
    assert calls == []  # it is called for clients only


def test_a_context_that_chooses_a_protocol_is_taken(server_context: ssl.SSLContext) -> None:
    server_context.set_alpn_protocols(["http/1.1"])
    check_server_context(server_context)


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_context_without_a_certificate_is_refused(version: ssl.TLSVersion | None) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with pytest.raises(ValueError, match=r"no certificate: call its load_cert_chain\(\) first"):
        check_server_context(context)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_a_context_for_a_version_that_is_out_of_use_is_the_users_own_affair(
    server_context: ssl.SSLContext,
) -> None:
    server_context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    server_context.maximum_version = ssl.TLSVersion.TLSv1_1
    check_server_context(server_context)


def test_a_clients_context_is_refused() -> None:
    with pytest.raises(ValueError, match="this ssl_context is not for a server"):
        check_server_context(ssl.create_default_context())


@pytest.mark.parametrize("context", [True, "cert.pem", ("cert.pem", "key.pem")])
def test_what_is_no_context_is_refused(context: Any) -> None:
    kind = type(context).__name__
    with pytest.raises(TypeError, match=rf"ssl_context is an ssl\.SSLContext, not {kind}"):
        check_server_context(context)


# Unix sockets...


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_a_socket_has_the_mode_that_was_asked_for(
    mode: int, umask: int, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    before = os.umask(umask)
    try:
        listener, file = await open_unix_listener(path, mode)
        assert os.umask(umask) == umask  # it is the whole process's
    finally:
        os.umask(before)
    async with listener:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        async with await trio.open_unix_socket(str(path)), await listener.accept():
            pass
    file.remove()
    assert not path.exists()


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_a_path_is_a_str_bytes_or_a_path(kind: Any, tmp_path: Path) -> None:
    listener, file = await open_unix_listener(kind(tmp_path / "s"), 0o600)
    await listener.aclose()
    assert file.path == tmp_path / "s"
    file.remove()


async def test_a_socket_whose_folder_was_left_is_removed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listener, file = await open_unix_listener("s", 0o600)
    await listener.aclose()
    monkeypatch.chdir("/")
    file.remove()
    assert names(tmp_path) == []


async def test_nobody_meets_a_socket_before_it_has_its_mode(
    stale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []
    listen = socket.socket.listen

    class Watched(socket.socket):
        def listen(self, *arguments: int) -> None:
            here = Path(self.getsockname())
            seen.append((here != stale, stat.S_IMODE(here.stat().st_mode)))
            with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(str(here))
            listen(self, *arguments)

    monkeypatch.setattr(_listeners.socket, "socket", Watched)
    before = os.umask(0)
    try:
        listener, file = await open_unix_listener(stale, 0o600)
    finally:
        os.umask(before)
    await listener.aclose()
    file.remove()
    assert seen == [(True, 0o600)]


async def test_a_stale_socket_is_replaced_and_never_missing(stale: Path) -> None:
    missing: list[bool] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            missing.append(not stale.exists())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        old = state(stale).st_ino
        listener, file = await open_unix_listener(stale, 0o600)
    finally:
        over.set()
        watcher.join()
    async with listener:
        assert state(stale).st_ino != old
        async with await trio.open_unix_socket(str(stale)), await listener.accept():
            pass
    file.remove()
    assert not any(missing)


async def test_a_live_socket_is_left_to_its_server(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener, file = await open_unix_listener(path, 0o600)
    async with listener:
        with pytest.raises(OSError, match="another server listens there") as caught:
            await open_unix_listener(path, 0o600)
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.filename == str(path)
        async with await trio.open_unix_socket(str(path)):
            pass
    file.remove()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
async def test_something_that_is_no_socket_is_left_alone(
    kind: str, stale: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(stale if kind == "link" else tmp_path / "nothing")
    before = state(path)
    with pytest.raises(FileExistsError, match="something that is no socket"):
        await open_unix_listener(path, 0o600)
    assert state(path) == before


async def test_a_socket_that_cannot_be_asked_is_left_alone(
    stale: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(path: str) -> None:
        await trio.lowlevel.checkpoint()
        raise PermissionError(errno.EACCES, "not yours", path)

    monkeypatch.setattr(trio, "open_unix_socket", refuse)
    before = state(stale)
    with pytest.raises(PermissionError, match="not yours") as caught:
        await open_unix_listener(stale, 0o600)
    assert caught.value.__notes__ == [
        f"while looking whether another server listens on {str(stale)!r}"
    ]
    assert state(stale) == before


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "s"
    with pytest.raises(FileNotFoundError) as caught:
        await open_unix_listener(path, 0o600)
    assert caught.value.__notes__ == [f"while making the socket {str(path)!r}"]


async def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 107)
    folder.mkdir()
    with pytest.raises(OSError, match="path too long") as caught:
        await open_unix_listener(folder / "s", 0o600)
    assert caught.value.__notes__ == [f"while making the socket {str(folder / 's')!r}"]
    assert names(folder) == []


@pytest.mark.parametrize("step", ["chmod", "rename"])
async def test_a_failure_on_the_way_leaves_what_was_there(
    step: str, stale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EROFS, "no more changes")

    monkeypatch.setattr(Path, step, fail)
    before = state(stale)
    with pytest.raises(OSError, match="no more changes"):
        await open_unix_listener(stale, 0o600)
    monkeypatch.undo()
    assert names(tmp_path) == [stale.name]
    assert state(stale) == before


async def test_what_has_taken_the_sockets_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first, file = await open_unix_listener(path, 0o600)
    await first.aclose()
    second, newer = await open_unix_listener(path, 0o600)
    async with second:
        file.remove()
        async with await trio.open_unix_socket(str(path)):
            pass
    newer.remove()
    newer.remove()  # it is gone: so be it
    assert not path.exists()


async def test_wherever_opening_is_cancelled_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    cancelled = 0
    for attempt in _helpers.cancellations():
        with attempt:
            listener, file = await open_unix_listener(path, 0o600)
            with trio.CancelScope(shield=True):
                await listener.aclose()
            file.remove()
        cancelled += attempt.cancelled
        assert names(tmp_path) == []
    assert cancelled
