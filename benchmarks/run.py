"""Compare servers: CPU time of the server per message, in alternating rounds.

``python benchmarks/run.py [--rounds 5] [--only NAME ...] [--peers NAME ...] [--scale 1]``

Each round starts each server afresh, pinned to one core; the load runs on another. What
is compared is user + system time of the server process per message: on a busy machine it
varies far less than throughput or latency. Medians of the rounds, and ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import load

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]

EVERYBODY = (
    "trio_ws",
    "websockets.trio",
    "trio-websocket",
    "websockets",
    "websockets uvloop",
    "aiohttp uvloop",
    "picows uvloop",
    "trio TCP echo",
)


@dataclass
class Running:
    """A server under load."""

    pid: int
    port: int

    def cpu(self) -> float:
        """Seconds of user and system time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Resident bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


@dataclass
class Result:
    """What one round measured."""

    figure: float
    """Microseconds of server CPU per message, or bytes per connection."""
    rate: float = 0.0
    trips: list[float] = field(default_factory=list)


@dataclass
class Workload:
    """What is asked of each server."""

    name: str
    mode: str
    measure: Callable[[Running], Result]
    unit: str = "µs"
    peers: tuple[str, ...] = EVERYBODY


@contextmanager
def running(peer: str, mode: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "servers.py"), peer, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        time.sleep(0.3)
        yield Running(process.pid, port)
    finally:
        process.kill()
        process.wait()


def text(size: int) -> bytes:
    """Text of a kind: ASCII words, so that nobody is slowed down by decoding."""
    return (b"the quick brown fox jumps over the lazy dog " * (size // 44 + 1))[:size]


def document(size: int) -> bytes:
    """JSON of about that size, different in each line."""
    lines = [
        {"id": n, "user": f"user{n * 7919 % 1000}", "price": n * 31 % 977 / 7, "ok": n % 3 == 0}
        for n in range(size // 50)
    ]
    return json.dumps(lines).encode()[:size]


def echo(
    clients: int, depth: int, total: int, payload: bytes, opcode: int = 1, **connect: bool
) -> Callable[[Running], Result]:
    def measure(server: Running) -> Result:
        deflate = connect.get("deflate", False)
        tls = client_tls() if connect.get("tls") else None
        connections = [load.Client(server.port, deflate=deflate, tls=tls) for _ in range(clients)]
        request = load.frame(load.compress(payload) if deflate else payload, opcode, rsv1=deflate)
        load.first_exchange(connections, request, payload)
        load.Echo(connections, request, depth, max(total // 10, clients)).run()  # warm up
        measured = load.Echo(connections, request, depth, total)
        cpu = server.cpu()
        seconds = measured.run()
        used = server.cpu() - cpu
        return Result(used / total * 1e6, total / seconds, measured.trips)

    return measure


def broadcast(members: int, messages: int) -> Callable[[Running], Result]:
    def measure(server: Running) -> Result:
        connections = [load.Client(server.port) for _ in range(members)]
        time.sleep(0.2)
        payload = b"%04d" % messages + text(121)
        request = load.frame(payload, 1)
        warm = load.frame(b"0002" + text(121), 1)
        load.listen(connections, 2, lambda: connections[0].sock.sendall(warm))
        cpu = server.cpu()
        seconds = load.listen(connections, messages, lambda: connections[0].sock.sendall(request))
        used = server.cpu() - cpu
        total = members * messages
        return Result(used / total * 1e6, total / seconds)

    return measure


def open_close(total: int) -> Callable[[Running], Result]:
    close = b"\x88\x82\x00\x00\x00\x00\x03\xe8"

    def measure(server: Running) -> Result:
        def one() -> None:
            client = load.Client(server.port)
            client.sock.settimeout(30)
            client.sock.sendall(close)
            while client.sock.recv(4096):
                pass
            client.sock.close()

        for _ in range(total // 10):
            one()
        cpu = server.cpu()
        start = time.perf_counter()
        for _ in range(total):
            one()
        seconds = time.perf_counter() - start
        time.sleep(0.1)
        return Result((server.cpu() - cpu) / total * 1e6, total / seconds)

    return measure


def idle(connections: int) -> Callable[[Running], Result]:
    def measure(server: Running) -> Result:
        warm = [load.Client(server.port) for _ in range(200)]
        payload = text(125)
        request = load.frame(payload, 1)
        load.first_exchange(warm, request, payload)
        before = server.memory()
        clients = [load.Client(server.port) for _ in range(connections)]
        load.first_exchange(clients, request, payload)
        return Result((server.memory() - before) / connections / 1024)

    return measure


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.environ["BENCHMARK_CA"])
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    return context


def make_certificates(folder: str) -> None:
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    pem = certificate.private_key_and_cert_chain_pem.bytes()
    Path(folder, "server.pem").write_bytes(pem)
    Path(folder, "ca.pem").write_bytes(authority.cert_pem.bytes())
    os.environ["BENCHMARK_CERT"] = str(Path(folder, "server.pem"))
    os.environ["BENCHMARK_CA"] = str(Path(folder, "ca.pem"))


def workloads(scale: float) -> list[Workload]:
    def n(count: int) -> int:
        return max(int(count * scale), 64)

    no_tcp = tuple(peer for peer in EVERYBODY if peer != "trio TCP echo")
    with_deflate = tuple(p for p in no_tcp if p not in ("trio-websocket", "picows uvloop"))
    kib64, mib = text(64 * 1024), text(1024 * 1024)
    return [
        Workload(
            "64 connections, 125 B, one in flight", "echo", echo(64, 1, n(40_000), text(125))
        ),
        Workload("1 connection, 125 B, one in flight", "echo", echo(1, 1, n(15_000), text(125))),
        Workload("8 connections, 125 B, 64 in flight", "echo", echo(8, 64, n(80_000), text(125))),
        Workload(
            "64 connections, 1 KiB", "echo", echo(64, 1, n(20_000), text(1024)), peers=no_tcp
        ),
        Workload("8 connections, 64 KiB text", "echo", echo(8, 1, n(3_000), kib64), peers=no_tcp),
        Workload(
            "8 connections, 64 KiB binary", "echo", echo(8, 1, n(3_000), kib64, 2), peers=no_tcp
        ),
        Workload("4 connections, 1 MiB text", "echo", echo(4, 1, n(200), mib), peers=no_tcp),
        Workload("4 connections, 1 MiB binary", "echo", echo(4, 1, n(200), mib, 2), peers=no_tcp),
        Workload(
            "64 connections, 1 KiB JSON, deflate",
            "deflate",
            echo(64, 1, n(10_000), document(1024), deflate=True),
            peers=with_deflate,
        ),
        Workload(
            "16 connections, 125 B, TLS",
            "tls",
            echo(16, 1, n(10_000), text(125), tls=True),
            peers=no_tcp,
        ),
        Workload("broadcast to 500, per delivery", "broadcast", broadcast(500, 100), peers=no_tcp),
        Workload(
            "broadcast to 2000, per delivery", "broadcast", broadcast(2000, 25), peers=no_tcp
        ),
        Workload("open and close", "echo", open_close(n(1_000)), peers=no_tcp),
        Workload("idle connection", "echo", idle(2_000), unit="KiB", peers=no_tcp),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=[], help="parts of workload names")
    parser.add_argument("--peers", nargs="*", default=list(EVERYBODY))
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    chosen = [
        each
        for each in workloads(options.scale)
        if not options.only or any(part in each.name for part in options.only)
    ]
    figures: dict[str, dict[str, list[Result]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(folder)
        for workload in chosen:
            table = figures[workload.name] = {}
            peers = [peer for peer in workload.peers if peer in options.peers]
            for _ in range(options.rounds):
                for peer in peers:
                    with running(peer, workload.mode) as server:
                        table.setdefault(peer, []).append(workload.measure(server))
            print_table(workload, table)
    if options.json:
        medians = {
            name: {peer: median(results) for peer, results in table.items()}
            for name, table in figures.items()
        }
        options.json.write_text(json.dumps(medians, indent=1))


def median(results: list[Result]) -> float:
    return statistics.median(result.figure for result in results)


def print_table(workload: Workload, table: dict[str, list[Result]]) -> None:
    print(f"\n### {workload.name}\n")
    print(f"| server | {workload.unit} | against trio_ws | per second | p50 | p99 |")
    print("|---|---|---|---|---|---|")
    ours = median(table["trio_ws"]) if "trio_ws" in table else float("nan")
    for peer, results in table.items():
        value = median(results)
        rate = statistics.median(result.rate for result in results)
        trips = sorted(trip for result in results for trip in result.trips)
        p50, p99 = (
            f"{trips[int(len(trips) * share)] * 1e6:.0f} µs" if trips else ""
            for share in (0.5, 0.99)
        )
        ratio = f"{value / ours:.2f}"
        print(f"| {peer} | {value:.1f} | {ratio} | {rate:,.0f} | {p50} | {p99} |", flush=True)


if __name__ == "__main__":
    main()
