"""A peer that does what the test says: literal bytes, legal or not, on either side."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import math
import re
import socket
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from ._frame import CLOSE, PING, RSV1, TEXT, Frame, FrameReader, compare, read_frames
from ._socket import RESET_ON_CLOSE

MASK: Final = b"\x01\x02\x04\x08"
"""What a raw client masks with: always the same, so that bytes can be compared."""
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of a raw client's handshake: that of RFC 6455, section 1.3."""
PATIENCE: Final = 60.0
"""Seconds that an expectation waits: longer than any default of `Options`."""

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_READ_SIZE: Final = 65536
_AFTERMATH: Final = 1.0  # seconds, to see what comes behind a frame that was not expected


class RawPeer(trio.abc.AsyncResource):
    """The other end of a connection, in the hands of a test: it sends and expects bytes.

    ``stream`` is any stream; ``client`` tells which side the peer plays. It reads with a
    parser of its own, to which everything is a frame, and does nothing by itself: no
    Pong, no Close. An expectation that fails is an `AssertionError` that shows frame by
    frame what was expected and what came. It fails too if nothing comes for
    ``patience`` seconds, 60 by default: with `trio.testing.MockClock` that takes no time.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, client: bool, patience: float = PATIENCE
    ) -> None:
        self.stream = stream
        self.client = client
        self.patience = patience
        self._unread = b""  # that has not been looked at as frames yet
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        self._end: str | None = None
        self._inflater = zlib.decompressobj(-15)

    def __repr__(self) -> str:
        return f"<RawPeer {'client' if self.client else 'server'} {self._end or 'open'}>"

    # The handshake...

    async def request(
        self,
        target: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        behind: bytes = b"",
    ) -> str:
        """As a client: ask for a WebSocket, and return the head of the answer.

        ``behind`` are bytes to send in the same breath.

        Raises:
          AssertionError: the answer is not 101.

        If cancelled: the request may have been sent.

        Concurrency: one task at a time, for all that receives or sends.
        """
        fields = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        await self.stream.send_all(_head(f"GET {target} HTTP/1.1", fields) + behind)
        head = await self.receive_head()
        if not head.startswith("HTTP/1.1 101 "):
            raise AssertionError(f"the server did not accept:\n{head}")
        if (accept := _answer_to(KEY)) not in head:
            raise AssertionError(f"Sec-WebSocket-Accept is not {accept}:\n{head}")
        return head

    async def accept(
        self, *, headers: Mapping[str, str] | None = None, behind: bytes = b""
    ) -> str:
        """As a server: accept a request for a WebSocket, and return its head.

        ``behind`` are bytes to send in the same breath.

        Raises:
          AssertionError: it has no key.

        If cancelled: the answer may have been sent.

        Concurrency: one task at a time, for all that receives or sends.
        """
        head = await self.receive_head()
        key = re.search(r"(?im)^sec-websocket-key:\s*(\S+)\s*$", head)
        if key is None:
            raise AssertionError(f"no request for a WebSocket:\n{head}")
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": _answer_to(key[1]),
            **(headers or {}),
        }
        await self.stream.send_all(_head("HTTP/1.1 101 Switching Protocols", fields) + behind)
        return head

    async def receive_head(self) -> str:
        """Receive the head of a request or response, up to the empty line.

        Raises:
          AssertionError: none comes.

        If cancelled: nothing that has come is lost.

        Concurrency: one task at a time, for all that receives.
        """
        with trio.move_on_after(self.patience):
            await trio.lowlevel.checkpoint()
            while b"\r\n\r\n" not in self._unread and self._end is None:
                self._unread += await self._read()
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if not end:
            raise AssertionError(f"no head came, but {self._unread!r}, then {self._ending()}")
        self._unread = rest
        return head.decode("latin-1") + "\r\n\r\n"

    # Sending...

    async def send(self, *items: bytes | Frame) -> None:
        """Send bytes as they are, and frames; a client's are masked unless they say how.

        All of it goes out in one write.

        Raises:
          trio.BrokenResourceError: the connection is lost.
          trio.ClosedResourceError: after ``aclose()``.

        If cancelled: some of it may have been sent.

        Concurrency: one task at a time, for all that sends.
        """
        await self.stream.send_all(b"".join(map(self._as_bytes, items)))

    def _as_bytes(self, item: bytes | Frame) -> bytes:
        if isinstance(item, bytes):
            return item
        if self.client and item.mask is None:
            item = attrs.evolve(item, mask=MASK)
        return item.encode()

    async def send_end(self) -> None:
        """End this side's TCP: half of a close.

        Raises:
          TypeError: the stream has no such thing: TLS.

        If cancelled: nothing was sent.

        Concurrency: one task at a time, for all that sends.
        """
        if not isinstance(self.stream, trio.abc.HalfCloseableStream):
            raise TypeError(f"{type(self.stream).__name__} cannot be closed by halves")
        await self.stream.send_eof()

    async def reset(self) -> None:
        """Close with a reset, as a system does whose program has died.

        Raises:
          TypeError: this is no socket, real or in memory.

        If cancelled: it is done all the same.

        Concurrency: any number of tasks.
        """
        stream = self.stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if not isinstance(stream, trio.SocketStream):
            raise TypeError(f"{type(stream).__name__} cannot be reset")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        await trio.aclose_forcefully(self.stream)

    async def aclose(self) -> None:
        """End TCP now, without a Close.

        Raises: nothing.

        If cancelled: it is done all the same.

        Concurrency: any number of tasks.
        """
        await trio.aclose_forcefully(self.stream)
        await trio.lowlevel.checkpoint()

    # Receiving...

    async def receive_frame(self) -> Frame | None:
        """Receive the next frame; `None` at the end of TCP.

        Raises:
          AssertionError: nothing came.

        If cancelled: nothing that has come is lost.

        Concurrency: one task at a time, for all that receives.
        """
        await self._receive(1, self.patience)
        if not (self._frames or self._end):
            raise AssertionError(f"no frame came, but {self._ending()}")
        return self._frames.popleft() if self._frames else None

    async def receive_message(self) -> str | bytes:
        """Receive the next message whole: fragments joined, inflated if it is compressed.

        Pings and Pongs in between are passed over.

        Raises:
          AssertionError: no message came, but a Close, or the end.

        If cancelled: the fragments so far are lost.

        Concurrency: one task at a time, for all that receives.
        """
        parts = [await self._receive_part()]
        while not parts[-1].fin:
            parts.append(await self._receive_part())
        return self._join(parts)

    async def _receive_part(self) -> Frame:
        while True:
            frame = await self.receive_frame()
            if frame is None or frame.opcode == CLOSE:
                raise AssertionError(f"no message came, but {frame or self._end}")
            if frame.opcode < CLOSE:
                return frame

    def _join(self, parts: Sequence[Frame]) -> str | bytes:
        data = b"".join(part.payload for part in parts)
        if parts[0].rsv & RSV1:
            data = self._inflate(data)
        return data.decode() if parts[0].opcode == TEXT else data

    def _inflate(self, data: bytes) -> bytes:
        """RFC 7692, section 7.2.2; the window is kept, which is right in either case."""
        inflated = self._inflater.decompress(data + b"\x00\x00\xff\xff")
        if self._inflater.eof:  # the sender has ended its stream with the message
            self._inflater = zlib.decompressobj(-15)
        return inflated

    async def answer(self) -> list[Frame]:
        """Be polite until TCP ends: answer Pings and the Close. Return what has come.

        Raises:
          AssertionError: TCP did not end, or within a frame.

        If cancelled: what it would have returned is lost.

        Concurrency: one task at a time, for all that receives or sends.
        """
        frames: list[Frame] = []
        while (frame := await self.receive_frame()) is not None:
            frames.append(frame)
            if frame.opcode == PING:
                await self._try_to_send(Frame.pong(frame.payload))
            elif frame.opcode == CLOSE:
                await self._try_to_send(Frame(CLOSE, frame.payload[:2]))
                if not self.client:  # who ends TCP first: RFC 6455, section 7.1.1
                    await self.aclose()
                    return frames
        if self._reader.unread:
            raise AssertionError(f"the last frame was torn: {self._reader.unread!r}")
        return frames

    async def _try_to_send(self, frame: Frame) -> None:
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(trio.BrokenResourceError):  # there may be more to receive
            await self.send(frame)

    # Expecting...

    async def expect(self, *items: bytes | Frame) -> None:
        """Receive frames, and compare them with these, byte by byte.

        `bytes` are frames as a server sends them. What a client sends is unmasked first;
        that it was masked, and that a server's was not, is checked.

        Raises:
          AssertionError: something else came, or not enough.
          ValueError: bytes that do not end with a frame.

        If cancelled: nothing that has come is lost.

        Concurrency: one task at a time, for all that receives.
        """
        expected: list[Frame] = []
        for item in items:
            frames, rest = read_frames(item) if isinstance(item, bytes) else ([item], b"")
            if rest:
                raise ValueError(f"these bytes end within a frame: {item!r}")
            expected += frames
        await self._receive(len(expected), self.patience)
        wanted = [_canonical(frame) for frame in expected]
        came = [_canonical(frame) for frame in list(self._frames)[: len(expected)]]
        if came != wanted:
            await self._receive(math.inf, _AFTERMATH)
            self._fail("something else was received", expected)
        self._check_masks(len(expected))
        for _ in expected:
            self._frames.popleft()

    async def expect_end(self, *, reset: bool = False) -> None:
        """Wait until TCP ends, with nothing before; with ``reset``, until it breaks.

        Raises:
          AssertionError: something comes first, or it does not end like that.

        If cancelled: nothing that has come is lost.

        Concurrency: one task at a time, for all that receives.
        """
        await self._receive(math.inf, self.patience)
        wanted = "reset" if reset else "end of TCP"
        if self._frames or self._reader.unread or self._end != wanted:
            self._fail("the connection did not end as expected", [wanted])

    async def expect_silence(self, seconds: float) -> None:
        """Make sure that nothing comes for some time, not even the end.

        Raises:
          AssertionError: something comes.

        If cancelled: nothing that has come is lost.

        Concurrency: one task at a time, for all that receives.
        """
        await self._receive(1, seconds)
        if self._frames or self._reader.unread or self._end:
            self._fail("something was received", [_nothing(seconds)])

    def _check_masks(self, count: int) -> None:
        for frame in list(self._frames)[:count]:
            if (frame.mask is None) != self.client:
                duty = "a server must not mask" if self.client else "a client must mask"
                raise AssertionError(f"{duty}: {frame!r} (RFC 6455, section 5.1)")

    def _fail(self, message: str, expected: Sequence[object]) -> None:
        received: list[object] = [*self._frames]
        if self._reader.unread:
            received.append(f"{self._reader.unread!r} of a frame")
        if len(received) < len(expected) or not received:
            received.append(self._ending())
        elif self._end:
            received.append(self._end)
        raise AssertionError(f"{message}\n{compare(expected, received)}")

    def _ending(self) -> str:
        return self._end or _nothing(self.patience)

    # Bytes...

    async def _receive(self, count: float, patience: float) -> None:
        """Receive until there are so many frames, or the end, or no patience any more."""
        with trio.move_on_after(patience):
            await trio.lowlevel.checkpoint()
            while True:
                self._frames.extend(self._reader.feed(self._unread))
                self._unread = b""
                if len(self._frames) >= count or self._end is not None:
                    break
                self._unread = await self._read()

    async def _read(self) -> bytes:
        try:
            data = await self.stream.receive_some(_READ_SIZE)
        except trio.BrokenResourceError:
            self._end = "reset"
            await trio.lowlevel.checkpoint()
            return b""
        if not data:
            self._end = "end of TCP"
        return bytes(data)


def _nothing(seconds: float) -> str:
    return f"nothing for {seconds:g} s"


def _canonical(frame: Frame) -> bytes:
    """The bytes of a frame without its mask, and with its true length."""
    return attrs.evolve(frame, mask=None, length=None).encode()


def _head(first_line: str, fields: Mapping[str, str]) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _answer_to(key: str) -> str:
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
