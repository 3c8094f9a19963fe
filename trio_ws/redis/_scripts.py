"""What is kept in Redis, under which names, and the two scripts that write it.

::

    <prefix>:{<room>}:state      hash    run, epoch, offset, time, size
    <prefix>:{<room>}:history    list    records, oldest first
    <prefix>:{<room>}:presence   hash    "<process> <member>": its meta, as JSON
    <prefix>:{<room>}            channel
    <prefix>:alive:<process>     string  expires if the process does not renew it
    <prefix>:sent:<process>      string  the number of its last batch that was published

A script runs as a whole or not at all, so a message, its place and what is kept agree. What
a script writes may still be lost: when Redis is killed, or a replica takes over that had not
heard of everything. It would then give out offsets a second time. So a room's epoch belongs
to one *run* of Redis: the first script that finds the state of another run begins a new
epoch. Whoever meets one knows that messages may be missing before it.

``time`` is Redis' clock in microseconds, but greater with each message of a room.

The braces make Redis Cluster keep what belongs to a room in one place.
"""

from __future__ import annotations

import hashlib
import math
from importlib.resources import files
from typing import Final, TypeAlias

import attrs

from ..rooms import History

Argument: TypeAlias = "str | bytes | int"
Command: TypeAlias = "tuple[Argument, ...]"
"""Its name, in bytes, and its arguments."""

STATE_LIFE: Final = 3600.0
"""Seconds that Redis remembers where a room stands after the last message, beyond what the
history needs: who comes back within an hour can be told that nothing was missed."""

_FOR_EVER: Final = "1e300"


@attrs.frozen
class Script:
    """A script, and the name that Redis has for it once it was loaded."""

    text: bytes
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        """Read one of the ``.lua`` files beside this one."""
        text = files("trio_ws.redis").joinpath(name).read_bytes()
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


PUBLISH: Final = Script.load("publish.lua")
FETCH: Final = Script.load("fetch.lua")


def to_bytes(text: str) -> bytes:
    """Encode the name of a room: any string is one, also what UTF-8 has no place for."""
    return text.encode("utf-8", "surrogatepass")


class Names:
    """The names of keys and channels."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()

    def channel(self, room: str) -> bytes:
        """Return where a room's messages are published."""
        return b"%b:{%b}" % (self._prefix, to_bytes(room))

    def room(self, channel: bytes) -> str:
        """Return whose channel it is."""
        return channel[len(self._prefix) + 2 : -1].decode("utf-8", "surrogatepass")

    def state(self, room: str) -> bytes:
        """Return where it is written how a room stands."""
        return self.channel(room) + b":state"

    def history(self, room: str) -> bytes:
        """Return where a room's messages are kept."""
        return self.channel(room) + b":history"

    def presence(self, room: str) -> bytes:
        """Return where it is written who is in a room."""
        return self.channel(room) + b":presence"

    def alive(self, process: str) -> bytes:
        """Return the key that exists as long as a process does."""
        return b"%b:alive:%b" % (self._prefix, process.encode())

    def sent(self, process: str) -> bytes:
        """Return where it is written how much of what a process has sent was published."""
        return b"%b:sent:%b" % (self._prefix, process.encode())


@attrs.frozen
class Bounds:
    """How much Redis keeps of each room, as the scripts are told."""

    publish: tuple[Argument, ...]
    fetch: tuple[Argument, ...]
    life: float
    """Seconds that the state of a room lives without a message; `math.inf`: for ever."""

    @classmethod
    def of(cls, history: History | None) -> Bounds:
        """Translate a `History`."""
        if history is None:
            return cls((0, 0, 0, _ms(STATE_LIFE)), (0, _ms(STATE_LIFE)), STATE_LIFE)
        age = _number(1000 * history.age)
        life = history.age + STATE_LIFE
        return cls(
            (_number(history.count), _number(history.size), age, _ms(life)), (age, _ms(life)), life
        )


def _number(value: float) -> Argument:
    return _FOR_EVER if value == math.inf else math.ceil(value)


def _ms(seconds: float) -> int:
    return 0 if seconds == math.inf else math.ceil(1000 * seconds)
