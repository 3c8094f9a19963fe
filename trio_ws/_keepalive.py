"""Keepalive: after silence a ping, and after more silence the end.

Any byte that comes is life, so a busy connection is never pinged. A verdict is only
passed on a peer that was asked and could have been heard: the time starts when the
ping has left, and while reading is paused it does not run. A ping that cannot leave is
the writing task's business (``write_timeout``).
"""

from __future__ import annotations

import secrets

import trio

from ._connection import Connection, Ping


async def run_keepalive(connection: Connection) -> None:
    """Watch over a connection until it is closed or found dead."""
    interval = connection.options.ping_interval
    while connection.info is None:
        ping_at = connection.last_received + interval
        if trio.current_time() < ping_at:
            await trio.sleep_until(ping_at)
            continue
        payload = secrets.token_bytes(4)
        received = connection.bytes_received
        ping = connection.start_ping(payload)
        if not await _lives(connection, ping, received):
            timeout = connection.options.ping_timeout
            connection.give_up(f"keepalive: nothing came for {timeout} s after a ping")
        connection.forget_ping(payload, ping)
        await trio.sleep_until(max(connection.last_received, ping.left_at) + interval)


async def _lives(connection: Connection, ping: Ping, received: int) -> bool:
    """Wait for a sign of life, or for the end of the peer's time."""
    timeout = connection.options.ping_timeout
    while connection.info is None and connection.bytes_received == received:
        since = connection.reading_since
        if not ping.left or since is None:
            await trio.sleep(timeout)
            continue
        deadline = max(ping.left_at, since) + timeout
        if trio.current_time() < deadline:
            await trio.sleep_until(deadline)
            # If the whole process stood still meanwhile, what came has yet to be read.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        else:
            return False
    return True
