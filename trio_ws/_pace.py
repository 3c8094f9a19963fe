"""Checkpoints at a price: a chance to be cancelled each time, to be overtaken at times."""

from __future__ import annotations

from typing import Final

STRIDE: Final = 32
"""Calls from one schedule point to the next. A full checkpoint takes 2.8 to 4.3 µs, as long
as all the rest of a small message; 32 messages hold up the other tasks for less than 1 ms."""

PASS: Final = 0.005
"""Seconds that a task which works for many connections goes on before others get their turn:
150 reads of small messages, or pings, and less than anybody notices."""


class Pace:
    """Counts the calls of one connection: the first is a schedule point."""

    def __init__(self) -> None:
        self._calls = -1

    def is_due(self) -> bool:
        """Count a call, and return whether it shall let other tasks run."""
        self._calls += 1
        return not self._calls % STRIDE


class SendingPace(Pace):
    """Counts, besides, what is sent on all connections: a task may loop over thousands."""

    _sent: Final = [0]  # on whichever, since the last schedule point (a class would be slower)

    def is_due(self) -> bool:
        """Count a call, and return whether it shall let other tasks run."""
        self._calls += 1
        sent = self._sent
        sent[0] += 1
        if self._calls % STRIDE and sent[0] < STRIDE:
            return False
        sent[0] = 0
        return True
