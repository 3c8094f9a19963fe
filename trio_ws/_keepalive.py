"""Keepalive: after silence a ping, and after more silence the end.

Any byte that comes is life, so a busy connection is never pinged. A verdict is only
passed on a peer that was asked and could have been heard: the time starts when the
ping has left, and while reading is paused it does not run. A ping that cannot leave is
the writing task's business (``write_timeout``).
"""

from __future__ import annotations

import math
import secrets

import trio

from ._connection import Connection
from ._pings import Ping


async def run_keepalive(connection: Connection) -> None:
    """Watch over a connection until it is closed or found dead."""
    interval, timeout = connection.options.ping_interval, connection.options.ping_timeout
    while connection.info is None:
        ping_at = connection.last_received + interval
        if trio.current_time() < ping_at:
            await trio.sleep_until(ping_at)
            continue
        payload = secrets.token_bytes(4)
        received = connection.bytes_received
        ping = connection.start_ping(payload)
        if not await _lives(connection, ping, received):
            connection.give_up(f"keepalive: nothing came for {timeout} s after a ping")
        connection.pings.forget(payload, ping)


async def _lives(connection: Connection, ping: Ping, received: int) -> bool:
    """Wait for a sign of life, or for the end of the peer's time.

    Where the peer has all the time there is, the next ping still goes out when it is due.
    """
    interval, timeout = connection.options.ping_interval, connection.options.ping_timeout
    next_at = trio.current_time() + interval
    while connection.info is None and connection.bytes_received == received:
        now = trio.current_time()
        deadline = _deadline(connection, ping)
        if now >= deadline:
            connection.read_pending()
            return connection.info is not None or connection.bytes_received != received
        # Who is not read cannot be heard; but whoever writes hears from TCP if they have gone.
        unheard = timeout == math.inf or (connection.reading_since is None and ping.left)
        if unheard and now >= next_at:
            break
        await trio.sleep_until(min(deadline, next_at if now < next_at else now + interval))
        # If the whole process stood still meanwhile, what came has yet to be read.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
    return True


def _deadline(connection: Connection, ping: Ping) -> float:
    """Return until when the peer has time: as long as it cannot be heard, always more."""
    heard_since = connection.reading_since
    if heard_since is None or not ping.left:
        heard_since = trio.current_time()
    return max(heard_since, ping.left_at) + connection.options.ping_timeout
