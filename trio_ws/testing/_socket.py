"""Sockets in memory: what trio puts its own streams and listeners on.

trio lets a program bring sockets of its own (`trio.abc.SocketFactory`). So what runs over
a `Link` are `trio.SocketStream` and `trio.SocketListener` as they are, and in the library
the very lines that run in production.
"""

from __future__ import annotations

import errno
import itertools
import operator
import os
import socket as stdlib
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import trio

from ._link import Direction, Link

Address: TypeAlias = "tuple[str, int]"

ANY_HOST: Final = "0.0.0.0"  # noqa: S104  # an address in memory
NOT_A_DESCRIPTOR: Final = 2**31 - 1
"""What `MemorySocket.fileno` returns: no kernel hands out this one."""

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER that lets a system close with a reset."""

_FIRST_FREE_PORT: Final = 49152  # RFC 6335, section 6
_open: Final[dict[MemorySocket, None]] = {}  # in the order in which they were made


def open_sockets() -> list[MemorySocket]:
    """Return the sockets in memory that are open, in the order in which they were made.

    They are held until they are closed, so that a leak does not depend on the garbage
    collector.
    """
    return list(_open)


def link_under(stream: trio.abc.Stream) -> Link:
    """Return the link that carries a stream, with or without TLS."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    assert isinstance(stream.socket, MemorySocket)
    assert stream.socket.link is not None
    return stream.socket.link


class Switchboard:
    """Who listens where, and the links that were made."""

    def __init__(self, make_link: Callable[[int], Link]) -> None:
        self.links: list[Link] = []
        self._make_link = make_link
        self._hosts = {"localhost": "127.0.0.1"}
        self._listening: dict[Address, MemorySocket] = {}
        self._ports = itertools.count(_FIRST_FREE_PORT)

    def address_of(self, host: str) -> str:
        """Return the IP address of a host; each name has one (RFC 5737)."""
        name = host.lower()
        if name.replace(".", "").isdecimal():
            return name
        return self._hosts.setdefault(name, f"192.0.2.{len(self._hosts)}")

    def free_port(self) -> int:
        """Return a port that was never used."""
        return next(self._ports)

    def listen(self, listener: MemorySocket, address: Address) -> None:
        """Let a socket be found.

        Raises:
          OSError: another one listens there.
        """
        if address in self._listening:
            raise _error(errno.EADDRINUSE, f"somebody listens at {self._name(address)} already")
        self._listening[address] = listener

    def unlisten(self, address: Address) -> None:
        """Let nobody be found there any more."""
        self._listening.pop(address, None)

    async def connect(self, client: MemorySocket, to: Address, link: Link | None = None) -> None:
        """Connect a socket to who listens, in the time that this takes.

        Raises:
          ConnectionRefusedError: nobody listens there.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._find(to)
        if link is None:
            link = self._make_link(len(self.links))
        link._take_into_use()
        self.links.append(link)
        await link.to_server._pass_through()
        await link.to_client._pass_through()
        listener = self._find(to)
        server = MemorySocket(self)
        client.plug(link, link.to_client, link.to_server, to)
        server.plug(link, link.to_server, link.to_client, client.getsockname())
        server.local = to
        listener.offer(server)

    def _find(self, address: Address) -> MemorySocket:
        listener = self._listening.get(address) or self._listening.get((ANY_HOST, address[1]))
        if listener is None:
            known = ", ".join(map(self._name, self._listening)) or "nowhere"
            raise _error(
                errno.ECONNREFUSED,
                f"nobody listens at {self._name(address)} in this MemoryNetwork, but: {known}",
            )
        return listener

    def _name(self, address: Address) -> str:
        names = (name for name, ip in self._hosts.items() if ip == address[0])
        return f"{next(names, address[0])} port {address[1]}"


class MemorySocket(trio.socket.SocketType):
    """One end of a `Link`, or what listens for such ends."""

    def __init__(self, switchboard: Switchboard) -> None:
        self.closed = False
        self.local: Address = (ANY_HOST, 0)
        self.link: Link | None = None
        self._switchboard = switchboard
        self._remote: Address | None = None
        self._incoming: Direction | None = None
        self._outgoing: Direction | None = None
        self._backlog: deque[MemorySocket] | None = None
        self._arrivals = trio.lowlevel.ParkingLot()
        self._receiving = self._sending = self._shut = self._abortive = False
        _open[self] = None

    def __repr__(self) -> str:
        state = f"connected to {self._remote}" if self._remote else "new"
        if self.closed:
            state = "closed"
        elif self._backlog is not None:
            state = "listening"
        return f"<MemorySocket {self.local} {state}>"

    # Facts...

    @property
    def family(self) -> stdlib.AddressFamily:
        return stdlib.AF_INET

    @property
    def type(self) -> stdlib.SocketKind:
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        return stdlib.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802  # trio's name
        return self._shut

    def fileno(self) -> int:
        return -1 if self.closed else NOT_A_DESCRIPTOR

    def getsockname(self) -> Address:
        return self.local

    def getpeername(self) -> Address:
        if self._remote is None:
            raise _error(errno.ENOTCONN)
        return self._remote

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        listening = (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN)
        return int((level, optname) == listening and self._backlog is not None)

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """Note whether to close with a reset; nothing else means something in memory."""
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_LINGER):
            self._abortive = value == RESET_ON_CLOSE

    # Listening...

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.local = (address[0], address[1] or self._switchboard.free_port())

    def listen(self, backlog: int = 0) -> None:
        self._switchboard.listen(self, self.local)
        self._backlog = deque()

    def offer(self, newcomer: MemorySocket) -> None:
        """Have a connection accepted."""
        assert self._backlog is not None
        self._backlog.append(newcomer)
        self._arrivals.unpark()

    async def accept(self) -> tuple[MemorySocket, Address]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._backlog:
            if self.closed or self._backlog is None:
                raise _error(errno.EBADF if self.closed else errno.EINVAL)
            await self._arrivals.park()
        newcomer = self._backlog.popleft()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return newcomer, newcomer.getpeername()

    # Connecting...

    async def connect(self, address: Any) -> None:
        await self._switchboard.connect(self, (address[0], address[1]))

    def plug(self, link: Link, incoming: Direction, outgoing: Direction, remote: Address) -> None:
        """Become one end of a link."""
        self.link, self._incoming, self._outgoing = link, incoming, outgoing
        self._remote = remote
        if not self.local[1]:
            self.local = ("198.51.100.1", self._switchboard.free_port())  # RFC 5737

    # Bytes...

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        most = operator.index(buflen)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this socket")
        self._receiving = True
        try:
            while not (incoming := self._live(self._incoming))._readable:
                await incoming._wait_readable()
            data = incoming._take(most)
        finally:
            self._receiving = False
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def send(self, data: Any, flags: int = 0, /) -> int:
        await self._wait_for_room(at_once=not data)
        outgoing = self._live(self._outgoing)
        taken = bytes(memoryview(data)[: int(min(outgoing._room, len(data)))])
        if taken:
            outgoing._put(taken)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return len(taken)

    async def wait_writable(self) -> None:
        await self._wait_for_room()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _wait_for_room(self, *, at_once: bool = False) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._sending:
            raise trio.BusyResourceError("another task is sending to this socket")
        self._sending = True
        try:
            least = 1.0
            while (outgoing := self._live(self._outgoing))._room < least and not at_once:
                least = outgoing._low_water
                await outgoing._wait_writable()
        finally:
            self._sending = False

    def _live(self, direction: Direction | None) -> Direction:
        """Return a direction if it can still be used."""
        if self.closed:
            raise _error(errno.EBADF)
        if direction is None or self.link is None:
            raise _error(errno.ENOTCONN)
        if self.link.broken:
            raise _error(errno.ECONNRESET)
        if direction is self._outgoing and self._shut:
            raise _error(errno.EPIPE)
        return direction

    # The end...

    def shutdown(self, flag: int) -> None:
        if flag != stdlib.SHUT_WR:
            raise _error(errno.EINVAL, "only SHUT_WR is known here")
        self._live(self._incoming)
        self._end_sending()

    def _end_sending(self) -> None:
        if not self._shut:
            self._shut = True
            assert self._outgoing is not None
            self._outgoing._put_end()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        del _open[self]
        self._arrivals.unpark_all()
        if self._backlog is not None:
            self._switchboard.unlisten(self.local)
            for newcomer in self._backlog:
                newcomer._abortive = True
                newcomer.close()
        elif self.link is not None and not self.link.broken:
            self._hang_up()

    def abandon(self) -> None:
        """Be closed behind the run that it was of: with no clock, and nobody to tell."""
        self.closed = True
        _open.pop(self, None)
        if self._backlog is not None:
            self._switchboard.unlisten(self.local)

    def _hang_up(self) -> None:
        assert self._incoming is not None
        assert self._outgoing is not None
        if self._abortive or self._incoming._unread:
            self._outgoing._put_reset()
        else:
            self._end_sending()
        self._incoming._stop_reading()
        self._outgoing._wake()


def _error(number: int, message: str | None = None) -> OSError:
    return OSError(number, message or os.strerror(number))
