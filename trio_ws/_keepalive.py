"""Keepalive: after silence a ping, and after more silence the end.

Any byte that comes is life, so a busy connection is never pinged. A verdict is only
passed on a peer that was asked and could have been heard: the time starts when the
ping has left, and while reading is paused it does not run. A ping that cannot leave is
the writing task's business (``write_timeout``).

On a server one task looks after all connections (`Alarms`); a client has a task for it.
"""

from __future__ import annotations

import math
import secrets

import trio

from ._connection import Connection
from ._pings import Ping


class Keepalive:
    """What watches over one connection."""

    __slots__ = ("_connection", "_next_at", "_payload", "_ping", "_received")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ping: Ping | None = None
        self._payload = b""
        self._received = 0
        self._next_at = math.inf

    @property
    def ping_at(self) -> float:
        """When it will have been silent for long enough."""
        return self._connection.last_received + self._connection.options.ping_interval

    def look(self) -> float | None:
        """Ask, or give up, if it is time to; return when to look again, `None` at the end."""
        while self._connection.info is None:
            look_at = self._wait_for_silence() if self._ping is None else self._wait_for_life()
            if look_at is not None:
                return look_at
        return None

    async def run(self) -> None:
        """Look until the end."""
        while (look_at := self.look()) is not None:
            await trio.sleep_until(look_at)
            # If the whole process stood still meanwhile, what came has yet to be read.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    def _wait_for_silence(self) -> float | None:
        """Return `ping_at`; if it is past that, ask."""
        connection, ping_at = self._connection, self.ping_at
        now = trio.current_time()
        if now < ping_at:
            return ping_at
        self._payload = secrets.token_bytes(4)
        self._received = connection.bytes_received
        self._ping = connection.start_ping(self._payload)
        self._next_at = now + connection.options.ping_interval
        return None

    def _wait_for_life(self) -> float | None:
        """Return until when to wait; if there was a sign of life, or cannot be, stop waiting.

        Where the peer has all the time there is, the next ping still goes out when it is due.
        """
        connection, ping = self._connection, self._ping
        assert ping is not None
        timeout = connection.options.ping_timeout
        now = trio.current_time()
        deadline = self._deadline(ping)
        if now >= deadline:
            connection.read_pending()
        # Who is not read cannot be heard; but whoever writes hears from TCP if they have gone.
        unheard = timeout == math.inf or (connection.reading_since is None and ping.left)
        if connection.bytes_received == self._received:
            if now < deadline and not (unheard and now >= self._next_at):
                interval = connection.options.ping_interval
                return min(deadline, self._next_at if now < self._next_at else now + interval)
            if now >= deadline and connection.info is None:
                connection.give_up(f"keepalive: nothing came for {timeout} s after a ping")
        connection.pings.forget(self._payload, ping)
        self._ping = None
        return None

    def _deadline(self, ping: Ping) -> float:
        """Return until when the peer has time: as long as it cannot be heard, always more."""
        heard_since = self._connection.reading_since
        if heard_since is None or not ping.left:
            heard_since = trio.current_time()
        return max(heard_since, ping.left_at) + self._connection.options.ping_timeout
