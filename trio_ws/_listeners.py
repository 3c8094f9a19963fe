"""Listeners for a server: TLS over TCP, Unix sockets, and patience with all of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import secrets
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

logger: Final = logging.getLogger("trio_ws")

ACCEPT_PAUSE: Final = 0.1
"""Seconds until the next attempt, when the system has no room for a connection."""

COMPLAINT_INTERVAL: Final = 60.0
"""Seconds between two lines in the log about that."""

_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class PatientListener(trio.abc.Listener[trio.abc.Stream]):
    """Waits while the system has no descriptor, or no memory, for one more connection.

    `trio.serve_listeners` does so, too, and logs a traceback ten times a second:
    whoever has filled the table of descriptors would fill the disk as well.
    """

    def __init__(self, listener: trio.abc.Listener[Any], on_failure: Callable[[], None]) -> None:
        self._listener = listener
        self._on_failure = on_failure
        self._quiet_until = -math.inf

    async def accept(self) -> trio.abc.Stream:
        """Return the next connection."""
        while True:
            try:
                stream: trio.abc.Stream = await self._listener.accept()
            except OSError as exc:
                if exc.errno not in _SHORTAGES:
                    raise
                self._complain(exc)
                await trio.sleep(ACCEPT_PAUSE)
            else:
                return stream

    async def aclose(self) -> None:
        """Close the listener."""
        await self._listener.aclose()

    def _complain(self, error: OSError) -> None:
        self._on_failure()
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAINT_INTERVAL
            logger.error("no connection can be accepted at the moment: %s", error)


def tcp_port(listener: trio.abc.Listener[Any]) -> int | None:
    """Return the port that a listener listens on, if it has one."""
    if isinstance(listener, trio.SSLListener):
        listener = listener.transport_listener
    if not isinstance(listener, trio.SocketListener):
        return None
    address = listener.socket.getsockname()
    return address[1] if isinstance(address, tuple) else None


MAX_PORT: Final = 65535


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None, backlog: int | None
) -> list[trio.SocketListener]:
    """As `trio.open_tcp_listeners`, and an error that says which port it was.

    Raises:
      ValueError: there is no such port. The system would take the rest of a division.
      OSError: it cannot be listened on.
    """
    if isinstance(port, int) and not 0 <= port <= MAX_PORT:
        raise ValueError(f"a port is a number from 0 to {MAX_PORT}, not {port}")
    try:
        return list(await trio.open_tcp_listeners(port, host=host, backlog=backlog))
    except OSError as exc:
        where = f"port {port}" + (f" of {host!r}" if host else "")
        if exc.errno == errno.EADDRINUSE:
            exc.add_note(f"{where} is in use: stop what listens there, or take another port")
        elif exc.errno == errno.EACCES:
            exc.add_note(f"{where} is privileged: take one from 1024 upwards")
        else:
            exc.add_note(f"while opening {where}")
        raise


# TLS...


def wrap_with_tls(
    listeners: Sequence[trio.SocketListener], ssl_context: ssl.SSLContext
) -> list[trio.SSLListener[trio.SocketStream]]:
    """Return listeners that speak TLS.

    Browsers never send close_notify, nor wait for it: hence ``https_compatible``.
    """
    return [trio.SSLListener(each, ssl_context, https_compatible=True) for each in listeners]


def check_server_context(ssl_context: ssl.SSLContext) -> None:
    """Find out now what each handshake would otherwise find out later.

    Raises:
      TypeError: it is no `ssl.SSLContext`.
      ValueError: the context is a client's, or has no certificate.
    """
    if not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(ssl_context).__name__}")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server = ssl_context.wrap_bio(to_server, to_client, server_side=True)
    except ssl.SSLError as exc:
        raise ValueError(f"this ssl_context is not for a server: {exc.reason or exc}") from exc
    if ssl_context.sni_callback is not None:
        return  # it may bring the certificate, and is called for clients only
    # A client that takes whatever there is, so that nothing but the certificate is judged.
    lenient = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    lenient.check_hostname = False
    lenient.verify_mode = ssl.CERT_NONE
    lenient.set_ciphers("ALL:@SECLEVEL=0")
    client = lenient.wrap_bio(to_client, to_server)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    try:
        server.do_handshake()
    except ssl.SSLWantReadError:
        return
    except ssl.SSLError as exc:
        # Without a certificate OpenSSL shares no cipher, and leaves TLS 1.3 out altogether.
        speaks_1_3 = ssl_context.maximum_version in _FROM_1_3
        if exc.reason == "NO_SHARED_CIPHER" or (
            exc.reason == "UNSUPPORTED_PROTOCOL" and speaks_1_3
        ):
            raise ValueError(
                "ssl_context has no certificate: call its load_cert_chain() first"
            ) from exc


_FROM_1_3: Final = frozenset({ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3})


# Unix sockets...


@attrs.frozen
class UnixSocketFile:
    """A socket's name in the file system, and which file it was when it was made."""

    path: Path
    _identity: tuple[int, int]

    def remove(self) -> None:
        """Remove it, unless another server's socket has taken its place."""
        with contextlib.suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


async def open_unix_listener(
    path: str | os.PathLike[str], mode: int
) -> tuple[trio.SocketListener, UnixSocketFile]:
    """Listen on a Unix socket, which replaces one that nobody listens on any more.

    Raises:
      OSError: somebody listens there already, something else is there, or it cannot be
          made.
    """
    target = Path(os.fsdecode(path))
    await trio.to_thread.run_sync(_refuse_to_replace, target)
    await _refuse_to_evict(target)
    sock, file = await trio.to_thread.run_sync(_bind, target, mode)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock)), file


def _refuse_to_replace(path: Path) -> None:
    """Refuse what is no socket, not even a link to one, which would be replaced itself.

    This has to come first, for connecting to any other kind of file is refused as well.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is something that is no socket", str(path))


async def _refuse_to_evict(path: Path) -> None:
    try:
        stream = await trio.open_unix_socket(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return  # left behind by a process that is gone; or nothing is there
    except OSError as exc:  # the path is too long to be connected to, for one
        exc.add_note(f"while looking whether another server listens on {str(path)!r}")
        raise
    await trio.aclose_forcefully(stream)
    raise OSError(errno.EADDRINUSE, "another server listens there", str(path))


def _bind(target: Path, mode: int) -> tuple[socket.socket, UnixSocketFile]:
    """Make the socket beside its place, and move it there: clients find the old or the new one.

    Nobody can connect before it has its mode, for only then it begins to listen. So there
    is no need of a umask, which all threads of the process would share.
    """
    temporary = target.with_name(f".{secrets.token_hex(4)}")  # short: the system takes 107 bytes
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(temporary))
        temporary.chmod(mode)
        sock.listen(_UNIX_BACKLOG)
        file = UnixSocketFile(target.absolute(), _identity(temporary))
        temporary.rename(target)
    except Exception as exc:
        sock.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        exc.add_note(f"while making the socket {str(target)!r}")
        raise
    return sock, file


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


_UNIX_BACKLOG: Final = 65535  # as trio.open_tcp_listeners: the kernel cuts it to what it allows
