"""A TCP connection in the hands of an attacker."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio
from hostile._wire import CLOSE, Frame, Parser, request


class Peer:
    """Sends what it is told, reads what comes; closed with a reset or politely."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.parser = Parser()
        self._turn = trio.Lock()
        self.ended: str | None = None
        """How TCP ended, once it has: ``"eof"`` or ``"reset"``."""

    async def send(self, data: bytes) -> None:
        """Send bytes, in one piece whoever else sends."""
        async with self._turn:
            await self.stream.send_all(data)

    async def try_to_send(self, data: bytes) -> bool:
        """Send bytes to a peer that may have gone; return whether it took them."""
        try:
            await self.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def talk(self, data: bytes, interval: float) -> None:
        """Send the same again and again, until TCP ends."""
        while True:
            if not await self.try_to_send(data):
                return
            await trio.sleep(interval)

    async def upgrade(
        self,
        target: str = "/",
        *,
        extensions: str | None = None,
        headers: Iterable[str] = (),
        behind: bytes = b"",
    ) -> bytes:
        """Do the handshake, with bytes right behind it; return the head of the answer."""
        await self.send(request(target, extensions=extensions, headers=headers) + behind)
        head = await self.read_head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return head

    async def read_head(self) -> bytes:
        """Read up to a blank line, or to the end."""
        while (end := self.parser.buffer.find(b"\r\n\r\n")) < 0:
            if not await self.read():
                end = len(self.parser.buffer)
                break
        head = bytes(self.parser.buffer[: end + 4])
        del self.parser.buffer[: end + 4]
        return head

    async def read(self) -> bool:
        """Read a little; return whether there was anything."""
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            self.ended = "reset"
            return False
        self.parser.buffer += data
        if not data:
            self.ended = "eof"
        return bool(data)

    async def next_frame(self) -> Frame | None:
        """Read a frame; `None` at the end."""
        while (frame := self.parser.next_frame()) is None:
            if not await self.read():
                return None
        return frame

    async def frames(self) -> list[Frame]:
        """Read all there is to come, up to the end of TCP."""
        found = []
        while (frame := await self.next_frame()) is not None:
            found.append(frame)
        assert not self.parser.buffer, "the last frame was torn"
        return found

    async def close_code(self) -> int:
        """Read to the end; return the code of the Close, which has to be the last frame."""
        frames = await self.frames()
        assert frames, f"no frame came before the {self.ended}"
        assert frames[-1].opcode == CLOSE, frames[-1]
        return frames[-1].code

    def reset(self) -> None:
        """Be gone, with a reset."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def aclose(self) -> None:
        """End TCP."""
        await trio.aclose_forcefully(self.stream)


@asynccontextmanager
async def connected(
    port: int, target: str | None = None, *, small: bool = False, extensions: str | None = None
) -> AsyncIterator[Peer]:
    """Connect, and upgrade if there is a target; ``small``: with little room to receive."""
    sock = trio.socket.socket()
    if small:  # before connecting, or the kernel has offered a large window already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with sock:
        await sock.connect(("127.0.0.1", port))
        peer = Peer(trio.SocketStream(sock))
        if target is not None:
            await peer.upgrade(target, extensions=extensions)
        yield peer


@asynccontextmanager
async def many(port: int, count: int, target: str | None = "/") -> AsyncIterator[list[Peer]]:
    """Connect many times."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port, target)) for _ in range(count)]
