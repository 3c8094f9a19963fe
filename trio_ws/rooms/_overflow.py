"""Overflow: what becomes of a message that finds a member's queue full."""

from __future__ import annotations

import enum


class Overflow(enum.Enum):
    """What to do with a member that does not take its messages fast enough."""

    DISCONNECT = "disconnect"
    """End its connection with 1013 (try again later): it misses nothing unknowingly."""
    DROP_OLDEST = "drop-oldest"
    """Drop what has waited longest."""
    DROP_NEWEST = "drop-newest"
    """Drop the message that finds no room."""
