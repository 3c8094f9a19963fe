"""An event that is also a truth value."""

from __future__ import annotations

import trio


class Flag:
    """A `trio.Event` that is also a truth value.

    ``if ws.draining`` and ``await ws.draining.wait()`` both say what they look like. While
    nobody waits it is a tenth of an event's size: each connection has three.
    """

    __slots__ = ("_event", "_value")

    def __init__(self) -> None:
        self._value = False
        self._event: trio.Event | None = None  # made by the first who waits

    def __bool__(self) -> bool:
        return self._value

    def __repr__(self) -> str:
        return f"<Flag {'set' if self else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._value

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        self._value = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until it is set; a checkpoint even if it is.

        Raises: nothing.

        If cancelled: nothing changes.

        Concurrency: any number of tasks.
        """
        if self._event is None:
            self._event = trio.Event()
            if self._value:
                self._event.set()
        await self._event.wait()
