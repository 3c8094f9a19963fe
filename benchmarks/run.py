"""Compare servers and clients: CPU time per message, in alternating rounds.

``python benchmarks/run.py [--rounds 5] [--only NAME ...] [--peers NAME ...] [--scale 1]
[--json FILE]``

Each round starts each server afresh, pinned to one core, and lets them take turns with each
workload; the load runs on another core. What is compared is user + system time of the
server process per message: on a busy machine it varies far less than throughput or latency. For
clients it is the other way round. Medians of the rounds, and ratios of medians.

``python benchmarks/report.py FILE`` makes tables and a picture of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import load

HERE = Path(__file__).parent
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
PACKAGES = (
    "trio",
    "wsproto",
    "websockets",
    "trio-websocket",
    "uvloop",
    "aiohttp",
    "picows",
)


@dataclass
class Peer:
    """Who is measured; a server runs, a client is started by its workload."""

    name: str
    pid: int = 0
    port: int = 0

    def cpu(self) -> float:
        """Seconds of user and system time so far, in nanosecond steps."""
        # What clock_getcpuclockid(3) makes of a process: CPUCLOCK_SCHED of its number.
        return time.clock_gettime((~self.pid << 3) | 2)

    def memory(self) -> int:
        """Resident bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


@dataclass
class Result:
    """What one round measured."""

    figure: float
    """Microseconds of CPU per message, or KiB per connection."""
    rate: float = 0.0
    trips: list[float] = field(default_factory=list)


@dataclass
class Workload:
    """What is asked of each peer."""

    name: str
    mode: str
    """Of the servers; "client" has none."""
    measure: Callable[[Peer], Result]
    unit: str = "µs"
    peers: tuple[str, ...] = EVERYBODY
    alone: bool = False
    """Whether it needs servers that nothing was asked of. The others of a mode share theirs."""
    every: int = 1
    """Measured in the first of so many rounds: thousands of connections take long to open."""


@contextmanager
def running(names: list[str], mode: str) -> Iterator[list[Peer]]:
    """Start servers, all at once, and give each the one core when it serves."""
    if mode == "client":
        yield [Peer(name) for name in names]
        return
    with ExitStack() as stack:
        processes = [stack.enter_context(server(name, mode)) for name in names]
        peers = []
        for name, process in zip(names, processes, strict=True):
            assert process.stdout is not None
            peers.append(Peer(name, process.pid, int(process.stdout.readline())))
            os.sched_setaffinity(process.pid, {SERVER_CORE})
        time.sleep(0.3)  # a port is told before the server accepts
        yield peers


@contextmanager
def server(name: str, mode: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "servers.py"), name, mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, CORES),  # noqa: PLW1509  # one thread here
    )
    try:
        yield process
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
) -> Callable[[Peer], Result]:
    def measure(server: Peer) -> Result:
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


def broadcast(members: int, messages: int) -> Callable[[Peer], Result]:
    def measure(server: Peer) -> Result:
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


def open_close(total: int) -> Callable[[Peer], Result]:
    close = b"\x88\x82\x00\x00\x00\x00\x03\xe8"

    def measure(server: Peer) -> Result:
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


def idle(connections: int) -> Callable[[Peer], Result]:
    def measure(server: Peer) -> Result:
        warm = [load.Client(server.port) for _ in range(200)]
        payload = text(125)
        request = load.frame(payload, 1)
        load.first_exchange(warm, request, payload)
        before = server.memory()
        clients = [load.Client(server.port) for _ in range(connections)]
        load.first_exchange(clients, request, payload)
        return Result((server.memory() - before) / connections / 1024)

    return measure


def client_echo(depth: int, total: int) -> Callable[[Peer], Result]:
    payload = text(125)

    def measure(client: Peer) -> Result:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, *map(str, (HERE / "clients.py", client.name, port, depth, total))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(process.pid, {SERVER_CORE})
        try:
            assert process.stdin is not None
            process.stdin.write(payload.decode())
            process.stdin.close()
            process.stdin = None
            with listener:
                load.answer(listener, payload)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        used, seconds = json.loads(output)
        return Result(used / total * 1e6, total / seconds)

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
        Workload(
            "broadcast to 500, per delivery",
            "broadcast",
            broadcast(500, max(int(100 * scale), 10)),
            peers=no_tcp,
            alone=True,
        ),
        Workload(
            "broadcast to 2000, per delivery",
            "broadcast",
            broadcast(2000, max(int(25 * scale), 5)),
            peers=no_tcp,
            alone=True,
            every=3,
        ),
        Workload("open and close", "echo", open_close(n(1_000)), peers=no_tcp),
        Workload(
            "idle connection",
            "echo",
            idle(max(n(2_000), 1_000)),
            unit="KiB",
            peers=no_tcp,
            alone=True,
            every=3,
        ),
        Workload("client, 1 in flight", "client", client_echo(1, n(10_000)), peers=no_tcp),
        Workload("client, 100 in flight", "client", client_echo(100, n(30_000)), peers=no_tcp),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="messages, as a share of all")
    parser.add_argument("--only", nargs="*", default=[], help="parts of workload names")
    parser.add_argument("--peers", nargs="*", default=list(EVERYBODY))
    parser.add_argument("--json", type=Path, help="write the figures there, after each round")
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    chosen = [
        each
        for each in workloads(options.scale)
        if not options.only or any(part in each.name for part in options.only)
    ]
    figures = Figures(chosen)
    conditions = machine() | {"scale": options.scale}
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(folder)
        for number in range(1, options.rounds + 1):
            due = [each for each in chosen if (number - 1) % each.every == 0]
            one_round(due, options.peers, figures)
            print(f"round {number} of {options.rounds}: load {os.getloadavg()[0]:.1f}", flush=True)
            if options.json:
                told = conditions | {"rounds": number, "load_after": os.getloadavg()[0]}
                text = json.dumps({"conditions": told, "workloads": figures.summary()}, indent=1)
                options.json.write_text(f"{text}\n")
    figures.print()


def one_round(chosen: list[Workload], names: list[str], figures: Figures) -> None:
    for group in groups(chosen):
        wanted = [name for name in names if any(name in each.peers for each in group)]
        with running(wanted, group[0].mode) as peers:
            for workload in group:
                began = time.perf_counter()
                for peer in peers:
                    if peer.name in workload.peers:
                        figures.add(workload, peer, workload.measure(peer))
                print(f"{time.perf_counter() - began:6.1f} s  {workload.name}", flush=True)


def groups(chosen: list[Workload]) -> list[list[Workload]]:
    """Put those together that can share servers."""
    found: dict[str, list[Workload]] = {}
    for workload in chosen:
        found.setdefault(workload.name if workload.alone else workload.mode, []).append(workload)
    return list(found.values())


def machine() -> dict[str, object]:
    """What is worth to know of where it ran."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": next((x.split(": ")[1] for x in lines if x.startswith("model name")), "?"),
        "cores": len(CORES),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_before": os.getloadavg()[0],
    }


class Figures:
    """The results of all rounds."""

    def __init__(self, chosen: list[Workload]) -> None:
        self._units = {workload.name: workload.unit for workload in chosen}
        self._results: dict[str, dict[str, list[Result]]] = {name: {} for name in self._units}

    def add(self, workload: Workload, peer: Peer, result: Result) -> None:
        """Take what one round measured."""
        self._results[workload.name].setdefault(peer.name, []).append(result)

    def summary(self) -> dict[str, dict[str, object]]:
        """Return what goes into the JSON."""
        return {
            name: {
                "unit": self._units[name],
                "peers": {peer: asdict(summarize(each)) for peer, each in table.items()},
            }
            for name, table in self._results.items()
        }

    def print(self) -> None:
        """Show medians, and from where to where the rounds went."""
        for name, table in self._results.items():
            print(f"\n{name}")
            for peer, results in table.items():
                told = summarize(results)
                spread = f"{told.low:.1f} - {told.high:.1f}"
                print(f"  {peer:20}{told.median:10.1f} {self._units[name]:4}{spread:>20}")


@dataclass
class Summary:
    """Medians over the rounds."""

    median: float
    low: float
    high: float
    rate: float
    """Messages per second of real time."""
    p50: float | None
    """Seconds from sending to receiving, over the trips of all rounds; likewise:"""
    p99: float | None


def summarize(results: list[Result]) -> Summary:
    figures = [result.figure for result in results]
    trips = sorted(trip for result in results for trip in result.trips)
    p50, p99 = (trips[int(len(trips) * share)] if trips else None for share in (0.5, 0.99))
    return Summary(
        median=statistics.median(figures),
        low=min(figures),
        high=max(figures),
        rate=statistics.median(result.rate for result in results),
        p50=p50,
        p99=p99,
    )


if __name__ == "__main__":
    main()
