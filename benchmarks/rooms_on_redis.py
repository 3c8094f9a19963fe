"""What a room costs across processes: deliveries per second, and how long a message takes.

::

    python benchmarks/rooms_on_redis.py                             # all of it: about 5 minutes
    python benchmarks/rooms_on_redis.py --members 100 --processes 0 2

0 processes stands for the embedded broker: one process without Redis. Members are plain sockets
in one process that does nothing but read, spread over the servers. Messages are text of 125 bytes,
published by the first server: 20 a second (p50 and p99, from before ``publish`` until a member's
process has read it), then as fast as eight tasks can (deliveries per second). On a busy machine
these say little; the CPU time of servers and Redis, for each delivery and each message, holds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SIZE = 125
FRAME = SIZE + 2  # a frame of the server: no mask, short length
PUBLISHERS = 8
SLOW = 20  # messages a second


# A server...


async def serve(url: str) -> None:
    import trio

    from trio_ws import Options, Overflow, Rooms, Routes, serve_websocket
    from trio_ws.redis import open_rooms

    @contextmanager
    def nothing():
        yield

    async def run(rooms: Rooms) -> None:
        routes = Routes()

        @routes.websocket("/member")
        async def member(request) -> None:
            async with (
                request.accept() as ws,
                rooms.join(ws, "room", buffer=100, overflow=Overflow.WAIT),
            ):
                await ws.wait_closed()

        @routes.websocket("/publish/{seconds:int}/{rate:int}")
        async def publish(request, *, seconds: int, rate: int) -> None:
            count = 0

            async def keep_on() -> None:
                nonlocal count
                while True:
                    text = f"{time.monotonic_ns():020d}".ljust(SIZE, "x")
                    await rooms.publish("room", text)
                    count += 1
                    await trio.sleep(1 / rate if rate else 0)

            async with request.accept() as ws:
                with trio.move_on_after(seconds):
                    async with trio.open_nursery() as nursery:
                        for _ in range(1 if rate else PUBLISHERS):
                            nursery.start_soon(keep_on)
                await ws.send(json.dumps(count))

        options = Options(compression=None, ping_interval=None)  # a frame is a message
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                lambda task_status: serve_websocket(
                    routes, 0, host="127.0.0.1", options=options, task_status=task_status
                )
            )
            print(server.port, flush=True)

    if url:
        async with open_rooms(url) as rooms:
            await run(rooms)
    else:
        await run(Rooms())


@contextmanager
def start_server(url: str):
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", url], stdout=subprocess.PIPE, text=True
    )
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.wait()


def cpu_time(pids: list[int]) -> float:
    """Return the microseconds of CPU that processes have taken."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") * 1e6


# The members...


class Members:
    """Sockets that read, and know how long what they read was on its way."""

    def __init__(self, ports: list[int], count: int) -> None:
        self._selector = selectors.EpollSelector()
        self._sockets = [connect(ports[index % len(ports)], "/member") for index in range(count)]
        for index, sock in enumerate(self._sockets):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, [index, b""])

    def read(self, seconds: float) -> tuple[int, list[float]]:
        """Read for a while; return how many messages came, and how long each was on its way."""
        end = time.monotonic() + seconds
        count = 0
        delays: list[float] = []
        while (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                data = key.data[1] + key.fileobj.recv(1 << 16)
                now = time.monotonic_ns()
                whole = len(data) // FRAME
                count += whole
                for index in range(whole):
                    sent = int(data[index * FRAME + 2 : index * FRAME + 22])
                    delays.append((now - sent) / 1e6)
                key.data[1] = data[whole * FRAME :]
        return count, delays

    def close(self) -> None:
        """Leave."""
        for sock in self._sockets:
            sock.close()


def connect(port: int, path: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    sock.sendall(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def publish(port: int, seconds: int, rate: int) -> socket.socket:
    """Begin to publish; the answer comes when that is over."""
    return connect(port, f"/publish/{seconds}/{rate}")


def measure(url: str, redis: int, processes: int, members: int, seconds: int) -> dict[str, object]:
    with ExitStack() as stack:
        servers = [stack.enter_context(start_server(url)) for _ in range(max(1, processes))]
        ports, pids = [port for port, _ in servers], [pid for _, pid in servers]
        crowd = Members(ports, members)
        stack.callback(crowd.close)
        time.sleep(0.5)
        publisher = publish(ports[0], seconds, SLOW)
        _, delays = crowd.read(seconds)
        delays.sort()
        publisher.recv(4096)
        before, redis_before = cpu_time(pids), cpu_time([redis])
        publisher = publish(ports[0], seconds, 0)
        count = crowd.read(seconds)[0] + crowd.read(1)[0]
        cpu, redis_cpu = cpu_time(pids) - before, cpu_time([redis]) - redis_before
        publisher.settimeout(60)
        answer = publisher.recv(4096)  # a frame, and perhaps the Close behind it
        published = json.loads(answer[2 : 2 + answer[1]])
    return {
        "processes": processes or "embedded",
        "members": members,
        "p50 ms": round(delays[len(delays) // 2], 2),
        "p99 ms": round(delays[len(delays) * 99 // 100], 2),
        "published/s": round(published / seconds),
        "deliveries/s": round(count / seconds),
        "servers' us/delivery": round(cpu / count, 1),
        "Redis' us/message": round(redis_cpu / published, 1) if processes else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--members", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--serve", metavar="URL", help="be one of the servers; '': no Redis")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.serve is not None:
        import trio

        trio.run(serve, args.serve)
        return
    from _redis import redis_server

    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with redis_server() as redis:
        for members in args.members:
            for processes in args.processes:
                url = redis.url if processes else ""
                print(
                    json.dumps(measure(url, redis.pid, processes, members, args.seconds)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
