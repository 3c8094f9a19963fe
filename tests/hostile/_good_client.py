"""Well-behaved clients, in a process of their own: an echo each 20 ms, and a stop-watch.

::

    _good_client.py PORT COUNT INTERVAL

They run until standard input ends, then tell in JSON how it was for them. They are
written without the library that is under attack, and without much work of their own:
what they measure is the server.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Final

PAYLOAD: Final = b"x" * 125
PATIENCE: Final = 30.0  # seconds for one echo


class Client:
    """One connection, with at most one echo on its way."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(
            b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        self.received = b""
        self.sent_at: float | None = None
        self.number = 0

    def send(self) -> None:
        """Ask for an echo."""
        self.number += 1
        key = 0x01010101  # what the mask is does not matter here
        payload = struct.pack("!I", self.number) + PAYLOAD[4:]
        masked = int.from_bytes(payload, "big") ^ int.from_bytes(b"\x01" * 125, "big")
        self.sent_at = time.monotonic()
        self.sock.sendall(struct.pack("!BBI", 0x82, 0x80 | 125, key) + masked.to_bytes(125, "big"))

    def receive(self) -> float | None:
        """Read; return how long the echo took, once it is whole."""
        data = self.sock.recv(4096)
        assert data, "the server has ended the connection"
        self.received += data
        while len(self.received) > 1 and self.received[0] == 0x89:
            self.received = self.received[2 + self.received[1] :]  # a ping: echoes are life
        if len(self.received) < 127:
            return None
        expected = b"\x82\x7d" + struct.pack("!I", self.number) + PAYLOAD[4:]
        assert self.received == expected, self.received[:20]
        self.received = b""
        assert self.sent_at is not None
        taken, self.sent_at = time.monotonic() - self.sent_at, None
        return taken


def main() -> None:
    """Run."""
    port, count, interval = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    clients = [Client(port) for _ in range(count)]
    for client in clients:  # an echo each: now the server knows them all
        client.send()
        while client.receive() is None:
            pass
    by_descriptor = {client.sock.fileno(): client for client in clients}
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    now = time.monotonic()
    turns = [(now + interval * i / count, i) for i in range(count)]
    heapq.heapify(turns)
    taken: list[float] = []
    print("ready", flush=True)  # noqa: T201  # a program's output
    running = True
    while running:
        now = time.monotonic()
        while turns and turns[0][0] <= now:
            at, i = heapq.heappop(turns)
            if clients[i].sent_at is None:
                clients[i].send()
            else:  # still waiting
                assert now - clients[i].sent_at < PATIENCE, "no echo came"
            heapq.heappush(turns, (max(at + interval, now), i))
        for descriptor, _ in poll.poll(max(0.0, turns[0][0] - time.monotonic())):
            if descriptor == sys.stdin.fileno():
                running = bool(os.read(descriptor, 100))
            elif (seconds := by_descriptor[descriptor].receive()) is not None:
                taken.append(seconds)
    report(clients, taken)


def report(clients: list[Client], taken: list[float]) -> None:
    """Say goodbye, and tell."""
    late = [time.monotonic() - each.sent_at for each in clients if each.sent_at is not None]
    taken = sorted(taken + late)
    result = {
        "echoes": len(taken),
        "median": taken[len(taken) // 2],
        "p99": taken[len(taken) * 99 // 100],
        "slowest": taken[-1],
    }
    print(json.dumps(result), flush=True)  # noqa: T201  # a program's output


if __name__ == "__main__":
    main()
