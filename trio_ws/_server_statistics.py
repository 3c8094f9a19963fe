"""What a server counts."""

from __future__ import annotations

import attrs


@attrs.frozen
class ServerStatistics:
    """What `Server.statistics` returns: a snapshot, and counts since the start."""

    connections: int
    """WebSockets that are open."""
    opening: int
    """TCP connections whose first request is yet to be answered."""
    accepted: int
    """WebSockets so far."""
    rejected: dict[int, int]
    """Requests that were refused, by HTTP status."""
    close_codes: dict[int, int]
    """WebSockets that have ended, by close code."""
    handler_errors: int
    """Handlers that failed."""
    accept_failures: int
    """Attempts to accept a connection for which the system had no descriptor or memory."""
    memory: int
    """Bytes in use of `Options.memory_budget`; 0 if there is none."""
    pages: dict[int, int]
    """Pages that were answered, by HTTP status."""
    messages_received: int
    """Messages that handlers have received."""
    messages_sent: int
    """Messages that handlers have sent."""
    bytes_received: int
    """Bytes that came over WebSockets."""
    bytes_sent: int
    """Bytes that WebSockets have sent."""
    unread_bytes: int
    """Bytes that came and wait for a handler to receive them."""
    queued_bytes: int
    """Bytes that were sent and wait for the network to take them."""


@attrs.define(eq=False)
class Traffic:
    """What connections have carried, those that have ended included."""

    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
