"""The bytes of a connection, in and out: past trio's streams where a socket allows it.

A read through `trio.SocketStream` asks the kernel twice, once in vain; a write through a
task of its own costs two task switches. On a POSIX socket both are done directly: 10 µs
less for each message that is echoed (measured). Everything else, TLS above all, goes
through the stream.
"""

from __future__ import annotations

import os
import stat
from typing import Final

import trio

from ._options import KIB
from ._streams import READ_SIZE

READ: Final = READ_SIZE + KIB
"""Bytes of one read from a socket: so a message of 64 KiB and its header need only one."""

WRITE_SLICE: Final = 16 * KIB
"""Bytes handed at a time to a stream that is no socket, so that ``write_timeout`` sees
progress: the size of a TLS record (RFC 8446, section 5.1)."""


class Transport:
    """A stream, and the socket that it is if it is one."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._direct = self._socket if _is_of_the_kernel(self._socket) else None
        if self._direct is not None:
            self._fileno = self._direct.fileno  # looked up once, for it is asked twice a message
        self._error: OSError | None = None  # met by `read_now`, for `read` to tell

    @property
    def direct(self) -> bool:
        """Whether `read_now` and `write_now` are worth a try."""
        return self._direct is not None

    def fileno(self) -> int:
        """Return the descriptor of a `direct` transport, -1 once it is closed."""
        assert self._direct is not None
        return self._fileno()

    def read_now(self, most: int = READ) -> bytes | None:
        """Return bytes from the peer; `None` if there are none just now.

        No bytes: there will never be more, and `read` tells why.
        """
        try:
            return os.read(self._fileno(), most)
        except BlockingIOError:
            return None
        except OSError as exc:
            self._error = exc
            return b""

    async def read(self, most: int = READ) -> bytes:
        """Return bytes from the peer, none at the end; a checkpoint.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: as `trio.abc.ReceiveStream`.
        """
        if self._direct is None:
            return bytes(await self.stream.receive_some(READ_SIZE))
        data = None
        while data is None:  # the kernel's word may not be good for long
            await trio.lowlevel.wait_readable(self._direct)
            data = b"" if self._error else self.read_now(most)
        if self._error is not None:
            raise trio.BrokenResourceError(f"reading failed: {self._error}") from self._error
        return data

    def write_now(self, data: bytes | memoryview) -> int:
        """Return how many bytes the network took at once.

        None where only waiting helps. That goes for an error too: who waits will meet it.
        """
        if self._direct is None:
            return 0
        try:
            return os.write(self._fileno(), data)
        except OSError:
            return 0

    def close_now(self) -> None:
        """End TCP, if the transport is `direct`."""
        if self._direct is not None:
            self._direct.close()

    async def write(self, data: memoryview) -> int:
        """Wait until the network takes bytes, and return how many.

        Raises:
          OSError, trio.BrokenResourceError, trio.ClosedResourceError: it never will.
        """
        if self._socket is not None:
            return await self._socket.send(data)
        piece = data[:WRITE_SLICE]
        await self.stream.send_all(piece)
        return len(piece)


def _is_of_the_kernel(socket: trio.socket.SocketType | None) -> bool:
    """Whether a socket has a descriptor: a `trio.abc.SocketFactory` may make others."""
    if socket is None or os.name != "posix":
        return False
    try:
        return stat.S_ISSOCK(os.fstat(socket.fileno()).st_mode)
    except OSError:
        return False
