"""The pings that are on their way, and the pongs that answer them."""

from __future__ import annotations

import attrs
import trio

from ._outbox import Outbox, PingEntry
from ._protocol import Protocol


@attrs.define(eq=False)
class Ping:
    """A Ping on its way."""

    left_at: float
    left: bool = False
    entry: PingEntry | None = None
    round_trip: float | None = None
    over: trio.Event = attrs.field(factory=trio.Event)

    def set_left(self) -> None:
        """Say that it has left: its time begins."""
        self.left = True
        self.left_at = trio.current_time()


class Pings:
    """Those of one connection, by payload, in the order in which they were sent."""

    def __init__(self, outbox: Outbox, protocol: Protocol) -> None:
        self.latency: float | None = None
        """The last round trip in seconds."""
        self._outbox = outbox
        self._protocol = protocol
        self._waiting: dict[bytes, Ping] = {}

    def __contains__(self, payload: bytes) -> bool:
        return payload in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self, payload: bytes) -> Ping:
        """Queue a Ping without waiting for anything."""
        ping = self._waiting[payload] = Ping(trio.current_time())
        ping.entry = self._outbox.put_ping(self._protocol.ping(payload), ping.set_left)
        return ping

    def forget(self, payload: bytes, ping: Ping) -> None:
        """Stop waiting for a Pong, or for the Ping to leave."""
        if not ping.left and ping.entry is not None:
            self._outbox.withdraw_ping(ping.entry)
        if self._waiting.get(payload) is ping:  # another may have followed
            del self._waiting[payload]

    def match(self, payload: bytes) -> None:
        """A Pong answers its Ping and all before it (RFC 6455, section 5.5.3)."""
        now = trio.current_time()
        while payload in self._waiting:
            ping = self._waiting.pop(next(iter(self._waiting)))
            ping.round_trip = self.latency = now - ping.left_at
            ping.over.set()

    def wake_all(self) -> None:
        """Wake all who wait: there will be no Pong."""
        for ping in self._waiting.values():
            ping.over.set()
