"""An event that is also a truth value."""

from __future__ import annotations

import trio


class Flag:
    """A `trio.Event` that is also a truth value.

    ``if ws.draining`` and ``await ws.draining.wait()`` both say what they look like.
    """

    def __init__(self) -> None:
        self._event = trio.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def __repr__(self) -> str:
        return f"<Flag {'set' if self else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._event.is_set()

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until it is set; a checkpoint even if it is.

        Raises: nothing.

        If cancelled: nothing changes.

        Concurrency: any number of tasks.
        """
        await self._event.wait()
