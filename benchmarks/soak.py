"""Mixed abuse for ten minutes, with 200 good clients in between who must not notice.

::

    python benchmarks/soak.py [--minutes 10] [--clients 200] [--seed 0]

The server under attack, the good clients and our own client, which is sent to hostile
servers all the while, are programs of their own. Every attack runs again and again, each
as several tasks beside all others. The exit code is 0 if every good client got every echo,
nothing was logged as an error, memory did not grow in the second half of the time, and
after it all neither task nor descriptor was left. The server has default options, but for a
memory budget of 64 MiB.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio
import trustme

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from hostile import _attacks, _lab
from hostile._lab import KIB, MIB, ServerUnderAttack
from hostile._peer import connected, many
from hostile._wire import BINARY, DEFLATE, PING, TEXT, close, frame, request
from hostile.test_hostile_servers import KINDS, QUICK, serve_hostile

SAMPLE: Final = 5.0  # seconds
GROWTH: Final = 16 * MIB
"""What memory may grow by in the second half: attacks that overlap by chance take more."""

BOMB: Final = frame(BINARY, _attacks.deflate(256 * MIB), rsv=4)
BOMB_IN_FRAGMENTS: Final = _attacks.in_fragments(_attacks.deflate(256 * MIB), 1000, rsv=4)

Attack = Callable[[int, random.Random], Awaitable[None]]


# The attacks: each ends by itself, within some seconds...


async def violate(port: int, chance: random.Random) -> None:
    """Break RFC 6455."""
    _, data, code = chance.choice(_attacks.VIOLATIONS)
    async with connected(port, "/echo") as peer:
        await peer.send(data)
        assert await peer.close_code() == code


async def announce_a_length(port: int, chance: random.Random) -> None:
    """Announce what will never come."""
    head, code = chance.choice(list(_attacks.LENGTHS.values()))
    async with connected(port, "/echo", extensions=DEFLATE) as peer:
        await peer.send(head + bytes(4))
        assert await peer.close_code() == code


async def ask_oddly(port: int, chance: random.Random) -> None:
    """Send an odd request."""
    data, status = chance.choice(list(_attacks.ODD.values()))
    async with connected(port) as peer:
        await peer.try_to_send(data)
        head = await peer.read_head()
        assert status is None or head.startswith(b"HTTP/1.1 %d " % status), head


async def bomb(port: int, chance: random.Random) -> None:
    """Send what inflates without end."""
    async with connected(port, "/echo", extensions=DEFLATE) as peer:
        await peer.try_to_send(chance.choice([BOMB, BOMB_IN_FRAGMENTS]))
        assert await peer.close_code() == 1009


async def flood(port: int, chance: random.Random) -> None:
    """Send the same small frame 20,000 times, and read nothing."""
    kinds = [frame(PING), frame(PING, b"x" * 120), frame(TEXT), frame(BINARY, b"ab", fin=False)]
    async with connected(port, chance.choice(["/echo", "/sleep"]), small=True) as peer:
        with trio.move_on_after(2):
            await peer.try_to_send(chance.choice(kinds) * 20_000)


async def never_read(port: int, chance: random.Random) -> None:
    """Ask for echoes, or have something sent, and read nothing."""
    async with connected(port, chance.choice(["/echo", "/produce"]), small=True) as peer:
        with trio.move_on_after(chance.uniform(1, 8)):
            while True:
                await peer.send(frame(BINARY, bytes(64 * KIB)))


async def leave_unfinished(port: int, chance: random.Random) -> None:
    """Begin a message, and send no end of it."""
    async with connected(port, "/echo") as peer:
        await peer.send(frame(BINARY, bytes(chance.randrange(500_000)), fin=False))
        await trio.sleep(chance.uniform(0, 5))


async def ask_slowly(port: int, chance: random.Random) -> None:
    """Send a request a byte a second."""
    async with connected(port) as peer:
        for byte in request("/echo"):
            if not await peer.try_to_send(bytes([byte])):
                break
            with trio.move_on_after(1):
                await peer.read()
                break


async def send_byte_by_byte(port: int, chance: random.Random) -> None:
    """Send a message in as many segments as it has bytes."""
    message = frame(BINARY, bytes(5000)) + close()
    async with connected(port, "/echo") as peer:
        for index in range(len(message)):
            await peer.send(message[index : index + 1])
        assert await peer.close_code() == 1000


async def be_silent(port: int, chance: random.Random) -> None:
    """Say nothing, and answer nothing."""
    async with connected(port, chance.choice(["/echo", "/leave"])):
        await trio.sleep(chance.uniform(0, 30))


async def die_together(port: int, chance: random.Random) -> None:
    """Be killed, as one of 50."""
    async with many(port, 50, "/echo") as peers:
        for peer in peers:
            peer.reset()


async def end_somehow(port: int, chance: random.Random) -> None:
    """Connect and end, in one of five manners."""
    await chance.choice(_attacks.MANNERS)(port)


async def talk_nonsense(port: int, chance: random.Random) -> None:
    """Send random and mutated bytes."""
    await _attacks.talk_nonsense(port, chance.randrange(10**9))


async def listen_and_not_read(port: int, chance: random.Random) -> None:
    """Be a room's member who does not read, while a lot is published."""
    async with connected(port, "/listen", small=True), connected(port, "/publish") as publisher:
        for _ in range(100):
            await publisher.send(frame(TEXT, b"x" * 4000))
            await trio.sleep(0.02)


async def break_the_handler(port: int, chance: random.Random) -> None:
    """Leave in the middle of what a handler does."""
    target, count = chance.choice([("/push", 400), ("/leave-unread", 400), ("/slow", 20)])
    async with connected(port, target) as peer:
        await peer.send(frame(BINARY, b"unread") * count)
        await trio.sleep(chance.uniform(0, 2))


ATTACKS: Final[tuple[Attack, ...]] = (
    *(violate, announce_a_length, ask_oddly, bomb, flood, never_read, leave_unfinished),
    *(ask_slowly, send_byte_by_byte, be_silent, die_together, end_somehow, talk_nonsense),
    *(listen_and_not_read, break_the_handler),
)


async def attack_tls(port: int, chance: random.Random) -> None:
    """Speak something else than TLS on the TLS port."""
    async with connected(port) as peer:
        await peer.send(chance.choice([*_attacks.NO_TLS.values(), *_attacks.HALF_TLS.values()]))
        with trio.move_on_after(chance.uniform(0, 12)):
            while await peer.read():
                pass


# Running them...


@attrs.define
class Soak:
    """The whole of it."""

    chance: random.Random
    counts: Counter[str] = attrs.field(factory=Counter)
    failures: list[str] = attrs.field(factory=list)

    async def repeat(self, attack: Attack, port: int) -> None:
        """Attack until cancelled."""
        while True:
            try:
                await attack(port, self.chance)
            except (OSError, trio.BrokenResourceError):
                pass  # cut off: that is one answer to an attack
            except AssertionError as error:
                self.failures.append(f"{attack.__name__}: {error}"[:300])
            self.counts[attack.__name__] += 1
            await trio.sleep(self.chance.uniform(0, 0.2))

    async def send_client_to_hostile_servers(
        self, good_port: int, task_status: trio.TaskStatus[_lab.Program]
    ) -> None:
        """Let our client visit all kinds of hostile server, again and again.

        Ten connections to the server under attack it keeps meanwhile, and uses them.
        """
        process = await trio.lowlevel.open_process(
            [sys.executable, str(_lab.HERE / "_client.py"), json.dumps({"options": QUICK})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        client = _lab.Program(process)
        assert await client.line() == b"ready"
        assert process.stdin is not None
        try:
            async with trio.open_nursery() as nursery:
                orders = ""
                for name, kind in KINDS.items():
                    serve = partial(serve_hostile, kind.behave)
                    listeners = await nursery.start(
                        partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
                    )
                    port = listeners[0].socket.getsockname()[1]
                    url = f"ws://127.0.0.1:{port}/"
                    orders += json.dumps({"name": name, "url": url}) + "\n"
                good = json.dumps({"name": "good", "url": f"ws://127.0.0.1:{good_port}/echo"})
                await process.stdin.send_all(f"{good}\n".encode() * 10)
                task_status.started(client)
                while True:
                    await process.stdin.send_all(orders.encode())
                    for _ in KINDS:
                        result = json.loads(await client.line())
                        if result["name"] == "good":
                            self.failures.append(f"a good connection of ours has ended: {result}")
                        self.counts["hostile servers"] += 1
                        if result.get("error") not in DOCUMENTED:
                            self.failures.append(f"client: {result}"[:300])
        finally:
            process.kill()


DOCUMENTED: Final = {
    *(None, "HandshakeError", "HandshakeTimeout", "ConnectionRejected"),
    *("ConnectionLost", "ConnectionEnded", "OSError"),
}


HEADINGS: Final = (
    "minute   server      tls   client    files     open  attacks      cpu     pass\n"
    "            MiB      MiB      MiB                                   s       ms"
)


@attrs.frozen
class Sample:
    """A moment."""

    minute: float
    server: int
    tls: int
    client: int
    descriptors: int
    connections: int
    attacks: int
    cpu: float
    """Seconds that the server has used so far."""
    longest_pass: float
    """Seconds of CPU of the longest pass of its event loop since the last sample."""

    def __str__(self) -> str:
        memory = (f"{size / MIB:8.1f}" for size in (self.server, self.tls, self.client))
        numbers = (f"{number:8d}" for number in (self.descriptors, self.connections, self.attacks))
        times = (f"{self.cpu:8.1f}", f"{self.longest_pass * 1000:8.0f}")
        return f"{self.minute:6.1f} " + " ".join([*memory, *numbers, *times])


async def soak(minutes: float, clients: int, seed: int) -> int:
    """Do it; return the exit code."""
    state = Soak(random.Random(seed))  # noqa: S311  # no secret
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        certificate = folder / "certificate.pem"
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        (folder / "tls").mkdir()
        async with (
            _lab.serve(folder=folder, errors=True, memory_budget=64 * MIB) as server,
            _lab.serve(folder=folder / "tls", certificate=certificate) as tls,
            _lab.good_clients(server.port, clients, 0.5) as good,
        ):
            await server.begin()
            await tls.begin()
            print(HEADINGS)
            async with trio.open_nursery() as nursery:
                client = await nursery.start(state.send_client_to_hostile_servers, server.port)
                for attack in ATTACKS:
                    for _ in range(3):
                        nursery.start_soon(state.repeat, attack, server.port)
                for _ in range(3):
                    nursery.start_soon(state.repeat, attack_tls, tls.port)
                started = trio.current_time()
                while trio.current_time() - started < minutes * 60:
                    await trio.sleep(SAMPLE)
                    samples.append(await take(state, started, server, tls, client))
                    print(samples[-1], flush=True)
                nursery.cancel_scope.cancel()
            await server.settled(within=75)  # the silent are given 40 s, the unread 65 s
            await tls.settled(within=15)
            log = server.log
    felt = good.felt
    print(*(f"{count:8d}  {name}" for name, count in state.counts.most_common()), sep="\n")
    print(
        f"{felt.echoes} echoes of {clients} good clients: median {felt.median * 1000:.1f} ms,"
        f" p99 {felt.p99 * 1000:.0f} ms, slowest {felt.slowest * 1000:.0f} ms"
    )
    problems = state.failures[:20] + judge(samples, log)
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


async def take(
    state: Soak,
    started: float,
    server: ServerUnderAttack,
    tls: ServerUnderAttack,
    client: _lab.Program,
) -> Sample:
    """Measure."""
    report = await server.ask()
    return Sample(
        minute=(trio.current_time() - started) / 60,
        server=_lab.memory(server.pid),
        tls=_lab.memory(tls.pid),
        client=_lab.memory(client.pid),
        descriptors=server.descriptors,
        connections=report["connections"],
        attacks=sum(state.counts.values()),
        cpu=report["cpu"],
        longest_pass=report["longest_pass"],
    )


def judge(samples: list[Sample], log: str) -> list[str]:
    """Return what is wrong."""
    half = len(samples) // 2
    problems = []
    for name in ("server", "tls", "client"):
        first = sorted(getattr(each, name) for each in samples[half // 2 : half + 1])
        second = sorted(getattr(each, name) for each in samples[half:])
        growth = second[len(second) // 2] - first[len(first) // 2]
        if growth > GROWTH:
            problems.append(f"memory of the {name} grows: {growth / MIB:.1f} MiB in half the time")
    if "Traceback" in log or "ERROR" in log:
        problems.append(log[log.find("ERROR") :][:3000])
    return problems


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return trio.run(soak, arguments.minutes, arguments.clients, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
