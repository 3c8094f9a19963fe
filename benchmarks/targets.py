"""What was aimed at: CPU time of trio_ws as a share of another's, in the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Target:
    """A workload, whom to compare with, the ratio to reach, and what stands in the way."""

    workload: str
    peer: str
    ratio: float
    obstacle: str


# From cProfile, and from timing os.read and os.write, in the process that is measured.
CALLS = (
    "a call of read() and one of write() are half of the time, and everybody pays them; "
    "a step of a trio task is a quarter; the rest is Python, ours and trio's"
)
PYTHON = (
    "with whole batches hardly a system call is left: what remains is dozens of calls of Python "
    "functions a message, from receiving it to the frame that is queued"
)
COPIES = (
    "a third is the kernel's copying, and what memory costs that comes and goes; the message is "
    "unmasked, decoded, put together, encoded and framed, each a copy of all of it"
)
ZLIB = (
    "zlib itself is a quarter, the same for all; the two system calls and the task's step are "
    "as much as elsewhere"
)
DELIVERY = (
    "its write() is 6.7 µs, half of it, and as much as everybody's; the rest is Python: "
    "the member's policy, the connection's state, the outbox"
)
MEMORY = (
    "a task with its two cancel scopes and seven coroutines is half of it; the rest are the small "
    "objects of a connection: state, queues, the request and its headers"
)
HANDSHAKE = (
    "no item stands out in the profile: of 840 calls of Python functions trio has a third, h11 "
    "an eighth, wsproto's reading of the Close a tenth; ours are spread over thirty modules"
)
WAITING = (
    "each answer is a wait of its own: epoll and a step of the task, beside the two system calls"
)

TARGETS = (
    Target("64 connections, 125 B, one in flight", "websockets.trio", 0.25, CALLS),
    Target("64 connections, 125 B, one in flight", "websockets uvloop", 1.0, CALLS),
    Target("64 connections, 125 B, one in flight", "picows uvloop", 1.5, CALLS),
    Target("1 connection, 125 B, one in flight", "websockets.trio", 0.5, WAITING),
    Target("8 connections, 125 B, 64 in flight", "websockets.trio", 0.1, PYTHON),
    Target("8 connections, 125 B, 64 in flight", "picows uvloop", 0.5, PYTHON),
    Target("8 connections, 64 KiB text", "websockets uvloop", 0.8, COPIES),
    Target("4 connections, 1 MiB text", "websockets uvloop", 0.8, COPIES),
    Target("64 connections, 1 KiB JSON, deflate", "websockets uvloop", 0.7, ZLIB),
    Target("broadcast to 500, per delivery", "websockets.trio", 0.2, DELIVERY),
    Target("broadcast to 500, per delivery", "picows uvloop", 1.0, DELIVERY),
    Target("open and close", "websockets.trio", 0.5, HANDSHAKE),
    Target("idle connection", "websockets.trio", 0.5, MEMORY),
    Target("idle connection", "websockets", 1.0, MEMORY),
    Target("client, 1 in flight", "websockets.trio", 0.6, WAITING),
    Target("client, 100 in flight", "websockets.trio", 0.15, PYTHON),
)
