"""Listeners for a server: TLS over TCP, Unix sockets, and patience with all of them."""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

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
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    client = trusting.wrap_bio(to_client, to_server)
    for side in (client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            if exc.reason in _NO_CERTIFICATE and ssl_context.sni_callback is None:
                raise ValueError(
                    "ssl_context has no certificate: call its load_cert_chain() first"
                ) from exc


_NO_CERTIFICATE = frozenset({"NO_SHARED_CIPHER", "NO_CERTIFICATE_SET", "NO_SUITABLE_KEY_SHARE"})


async def open_tcp_listeners(
    port: int, *, host: str | bytes | None, backlog: int | None
) -> list[trio.SocketListener]:
    """As `trio.open_tcp_listeners`, and an error that says which port it was."""
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


async def open_unix_listener(path: str | os.PathLike[str], mode: int) -> trio.SocketListener:
    """Listen on a Unix socket, which replaces one that nobody listens on any more.

    Raises:
      OSError: somebody listens there already, or it cannot be made.
    """
    target = Path(path)
    if _exists(target):
        await _refuse_to_evict(target)
    await trio.lowlevel.checkpoint()
    return trio.SocketListener(trio.socket.from_stdlib_socket(_bind(target, mode)))


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _bind(target: Path, mode: int) -> socket.socket:
    """Make the socket in a folder that is closed to others, and move it when it is ready.

    So nobody meets it with other permissions than ``mode``, or before it listens; and the
    umask, which is the whole process's, stays as it is.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:  # 0700
            made = Path(folder, "s")
            sock.bind(str(made))
            made.chmod(mode)
            sock.listen(_UNIX_BACKLOG)
            made.rename(target)
    except BaseException:
        sock.close()
        raise
    return sock


_UNIX_BACKLOG = 65535  # as trio.open_tcp_listeners: the kernel cuts it to what it allows


async def _refuse_to_evict(path: Path) -> None:
    try:
        stream = await trio.open_unix_socket(path)
    except ConnectionRefusedError:
        return  # left behind by a process that is gone
    except OSError as exc:
        raise FileExistsError(
            errno.EEXIST, "there is something that is no socket", str(path)
        ) from exc
    await trio.aclose_forcefully(stream)
    raise OSError(errno.EADDRINUSE, "another server listens there", str(path))


def remove_unix_socket(path: str | os.PathLike[str]) -> None:
    """Remove the socket of a server that has ended, if it is still there."""
    Path(path).unlink(missing_ok=True)
