"""The load: pre-built frames over plain sockets, in one process on a core of its own.

What comes back is counted by frame headers alone, so that a message costs the load a
fraction of what it costs the server. Every message is counted, and the first of each
connection is checked byte by byte (through zlib if it is compressed).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import select
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator

READ = 256 * 1024


def frame(payload: bytes, opcode: int, *, rsv1: bool = False) -> bytes:
    """Return a client's frame with a mask of zeros, which costs the server as much as any."""
    first = 0x80 | (0x40 if rsv1 else 0) | opcode
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    key = b"\x5a\xa5\x3c\xc3"
    stream = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + key + masked.to_bytes(size, "big")


def compress(payload: bytes) -> bytes:
    """Return a payload as permessage-deflate sends it."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -12, 5)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Client:
    """One connection; `received` counts whole messages."""

    def __init__(self, port: int, *, deflate: bool = False, tls: ssl.SSLContext | None = None):
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="localhost")
        self.sock = sock
        self.received = 0
        self._first: bytearray | None = bytearray()
        self._compressed = False
        self._left = 0
        self._fin = False
        self._head = b""
        self._shake_hands(deflate)
        sock.setblocking(False)

    def _shake_hands(self, deflate: bool) -> None:
        lines = [
            "GET / HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        if deflate:
            lines.append(
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
                "client_no_context_takeover"
            )
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self.sock.recv(4096)
            assert data, "the server hung up"
            answer += data
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert b" 101 " in head, head
        assert deflate == (b"permessage-deflate" in head), head
        self.feed(rest)

    def feed(self, data: bytes) -> None:
        """Count the messages in what has come."""
        data = self._head + data
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                begun = self._begin_frame(data, at)
                if begun is None:
                    break
                at = begun
            taken = min(self._left, end - at)
            if self._first is not None:
                self._first += data[at : at + taken]
            at += taken
            self._left -= taken
            if not self._left and self._fin:
                self.received += 1
        self._head = data[at:]

    def _begin_frame(self, data: bytes, at: int) -> int | None:
        """Read a header; return where the payload begins, `None` if there is more to come."""
        size = {126: 4, 127: 10}.get(data[at + 1] & 0x7F, 2) if at + 1 < len(data) else 2
        if len(data) < at + size:
            return None
        opcode = data[at] & 15
        assert opcode < 3, f"unexpected opcode {opcode}"
        self._fin = bool(data[at] & 0x80)
        self._compressed |= bool(data[at] & 0x40)
        self._left = data[at + 1] & 0x7F
        if size > 2:
            self._left = int.from_bytes(data[at + 2 : at + size], "big")
        if data[at + 1] & 0x80:  # only who sends our own bytes back masks them
            self._left += 4
            self._first = None
        return at + size

    def check(self, payload: bytes) -> None:
        """Compare the first message with what it should be."""
        if self._first is None:
            return
        got = bytes(self._first)
        if self._compressed:
            inflater = zlib.decompressobj(-15)
            got = inflater.decompress(got + b"\x00\x00\xff\xff")
        assert got == payload, f"{got[:60]!r}... instead of {payload[:60]!r}..."
        self._first = None


def first_exchange(clients: list[Client], request: bytes, payload: bytes) -> None:
    """Send one message on each connection and check what comes back."""
    for client in clients:
        client.sock.settimeout(30)
        client.sock.sendall(request)
        before = client.received
        while client.received == before:
            data = client.sock.recv(READ)
            assert data, "the server hung up"
            client.feed(data)
        client.check(payload)
        client.sock.setblocking(False)


class Echo:
    """Keeps messages in flight on connections until each has had its share."""

    def __init__(self, clients: list[Client], request: bytes, depth: int, total: int) -> None:
        self._clients = {client.sock.fileno(): client for client in clients}
        self._request = request
        self._depth = depth
        self._goal = total // len(clients)
        self._sent = dict.fromkeys(self._clients, 0)
        self._base = {fd: client.received for fd, client in self._clients.items()}
        self._backlog: dict[int, memoryview] = {}
        self._began: dict[int, float] = {}
        self._open = set(self._clients)
        self._poll = select.epoll()
        self.trips: list[float] = []

    def run(self) -> float:
        """Return the seconds that it took."""
        for fd in self._clients:
            self._poll.register(fd, select.EPOLLIN)
        start = time.perf_counter()
        for fd in self._clients:
            self._began[fd] = time.perf_counter()
            self._push(fd, self._depth)
        while self._open:
            events = self._poll.poll(30)
            assert events, "nothing came for 30 s"
            for fd, mask in events:
                if mask & select.EPOLLOUT and fd in self._backlog:
                    self._flush(fd)
                if mask & ~select.EPOLLOUT:
                    self._pull(fd)
        self._poll.close()
        return time.perf_counter() - start

    def _pull(self, fd: int) -> None:
        client = self._clients[fd]
        before = client.received
        for data in _available(client.sock):
            client.feed(data)
        got = client.received - before
        if self._depth == 1 and got:
            now = time.perf_counter()
            self.trips.append(now - self._began[fd])
            self._began[fd] = now
        self._push(fd, got)
        if client.received - self._base[fd] >= self._goal:
            self._open.discard(fd)

    def _push(self, fd: int, count: int) -> None:
        count = min(count, self._goal - self._sent[fd])
        if not count:
            return
        self._sent[fd] += count
        waiting = self._backlog.get(fd, memoryview(b""))
        self._backlog[fd] = memoryview(bytes(waiting) + self._request * count)
        self._poll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
        self._flush(fd)

    def _flush(self, fd: int) -> None:
        rest = self._backlog[fd]
        try:
            rest = rest[self._clients[fd].sock.send(rest) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        if rest:
            self._backlog[fd] = rest
        else:
            del self._backlog[fd]
            self._poll.modify(fd, select.EPOLLIN)


def _available(sock: socket.socket) -> Iterator[bytes]:
    try:
        data = sock.recv(READ)
    except (BlockingIOError, ssl.SSLWantReadError):
        return
    assert data, "the server hung up"
    yield data
    while isinstance(sock, ssl.SSLSocket) and sock.pending():
        yield sock.recv(READ)


def listen(clients: list[Client], goal: int, trigger: Callable[[], None]) -> float:
    """Wait until each connection has received ``goal`` further messages; return seconds."""
    by_fd = {client.sock.fileno(): client for client in clients}
    base = {fd: client.received for fd, client in by_fd.items()}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    start = time.perf_counter()
    trigger()
    missing = set(by_fd)
    while missing:
        events = poll.poll(30)
        assert events, f"nothing came for 30 s; {len(missing)} connections wait"
        for fd, _ in events:
            client = by_fd[fd]
            for data in _available(client.sock):
                client.feed(data)
            if client.received - base[fd] >= goal:
                missing.discard(fd)
    poll.close()
    return time.perf_counter() - start


def answer(listener: socket.socket, payload: bytes) -> None:
    """Echo ``payload`` to one client until it hangs up: the other way round, as cheap.

    All that it sends has to be this message, in one frame: so whole messages are counted by
    their length, the headers of all are looked at, and the first is compared.
    """
    listener.settimeout(30)
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(30)
    _accept(sock)
    size = len(payload) + 6
    reply = bytes([0x81, len(payload)]) + payload
    data, first = b"", True
    while data[:1] != b"\x88":
        count = len(data) // size
        if count:
            whole, data = data[: count * size], data[count * size :]
            assert whole[::size] == b"\x81" * count, "not a text message in one frame"
            assert whole[1::size] == bytes([0x80 | len(payload)]) * count, "of another length"
            if first:
                key = whole[2:6]
                plain = bytes(byte ^ key[n % 4] for n, byte in enumerate(whole[6:size]))
                assert plain == payload, f"{plain[:60]!r}... instead of {payload[:60]!r}..."
                first = False
            sock.sendall(reply * count)
        else:
            more = sock.recv(READ)
            assert more, "the client hung up"
            data += more
    sock.sendall(b"\x88\x02\x03\xe8")
    sock.close()  # the server's part, RFC 6455, section 7.1.1


def _accept(sock: socket.socket) -> None:
    """Answer the request by hand."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(4096)
    key = re.search(rb"(?i)\r\nsec-websocket-key: *([^\r ]+)", head)
    assert key is not None, head
    digest = hashlib.sha1(  # noqa: S324  # RFC 6455, section 4.2.2, asks for it
        key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    ).digest()
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
