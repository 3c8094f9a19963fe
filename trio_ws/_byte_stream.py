"""``ws.as_stream()``: a stream of bytes over binary messages.

Where messages begin and end means nothing: `send_all` cuts what is large, and
`receive_some` gives out what it is asked for.

RFC 6455 has no half-close: who has said Close may not send any more (section 5.5.1), and who
hears it stops. So the end of one direction is a message, and the only one that carries no
bytes: an empty one. Two of these streams understand each other; the Close ends
both directions, as it does for other peers.
"""

from __future__ import annotations

import operator
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import trio

from ._errors import ConnectionEnded
from ._options import KIB
from ._outbox import Outbox
from ._views import Messages

CHUNK: Final = 64 * KIB
"""Bytes of the messages that `send_all` makes: less than any known peer's limit (1 MiB for
most), and enough that a message costs little per byte."""


class ByteStream(trio.abc.HalfCloseableStream):
    """The stream of `WebSocket.as_stream`."""

    def __init__(
        self,
        messages: Messages,
        binary: trio.abc.ReceiveChannel[bytes],
        outbox: Outbox,
        compress: bool | None,
    ) -> None:
        self._messages = messages
        self._binary = binary
        self._outbox = outbox
        self._compress = compress
        self._unread = memoryview(b"")
        self._ended = False  # the peer's direction
        self._eof_sent = False
        self._closed = False
        self._sending = False

    # Receiving...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte; ``b""`` at the end of the peer's direction."""
        most = None if max_bytes is None else operator.index(max_bytes)
        if most is not None and most < 1:
            raise ValueError(f"max_bytes is 1 or more, not {most}")
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this side has closed the stream")
        if not (self._unread or self._ended):
            self._unread = memoryview(await self._next_chunk())
            self._ended = not self._unread
        given = bytes(self._unread[:most])
        self._unread = self._unread[len(given) :]
        return given

    async def _next_chunk(self) -> bytes:
        try:
            return await self._binary.receive()
        except ConnectionEnded:
            await trio.lowlevel.checkpoint()
            return b""

    # Sending...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, in messages of up to 64 KiB each."""
        with self._only_sender():
            await trio.lowlevel.checkpoint()
            self._check_open()
            with memoryview(data) as whole, whole.cast("B") as view:
                for start in range(0, len(view), CHUNK):
                    chunk = view[start : start + CHUNK].tobytes()
                    await self._messages.send(chunk, compress=self._compress)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more."""
        with self._only_sender():
            await trio.lowlevel.checkpoint()
            self._check_open()
            await self._outbox.take_turn()
            self._outbox.end_turn()

    async def send_eof(self) -> None:
        """End this direction: the peer's goes on."""
        with self._only_sender():
            await trio.lowlevel.checkpoint()
            if not self._eof_sent:
                await self._messages.send(b"")
                self._eof_sent = True

    def _check_open(self) -> None:
        if self._eof_sent:
            raise trio.ClosedResourceError("behind send_eof() nothing can be sent")
        self._outbox.check()

    @contextmanager
    def _only_sender(self) -> Generator[None, None, None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    # Closing...

    async def aclose(self) -> None:
        """Close the connection."""
        self._closed = True
        await self._messages.aclose()
