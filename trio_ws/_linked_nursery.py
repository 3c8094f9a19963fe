"""``ws.open_nursery()``: a nursery that lives no longer than its connection."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import trio

from ._errors import ConnectionClosed
from ._inbox import Inbox
from ._messages import CloseInfo


class LinkedNursery:
    """The ``async with`` of `WebSocket.open_nursery`; ``registry`` is the connection's list."""

    def __init__(
        self,
        registry: list[LinkedNursery],
        inbox: Inbox,
        get_info: Callable[[], CloseInfo | None],
    ) -> None:
        self._registry = registry
        self._inbox = inbox
        self._get_info = get_info
        self._manager = trio.open_nursery()
        self._visits = 0

    async def __aenter__(self) -> trio.Nursery:
        self._nursery = await self._manager.__aenter__()
        self._visits = self._inbox.visits
        self._registry.append(self)
        if self._get_info() is not None and not self._inbox.unread_messages:
            self.cancel()
        return self._nursery

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        rest: BaseExceptionGroup[BaseException] | None
        try:
            return bool(await self._manager.__aexit__(etype, exc, traceback))
        except BaseExceptionGroup as group:
            rest = group.split(self._means_the_end)[1]
        finally:
            self._registry.remove(self)
        if rest is None:
            return True
        raise rest

    @property
    def consuming(self) -> bool:
        """Whether one of its tasks has received, and may come back for more."""
        task = self._inbox.consumer
        if task is None or self._inbox.visits == self._visits:
            return False
        return getattr(task.coro, "cr_frame", None) is not None  # the task has not returned

    def cancel(self) -> None:
        """Cancel its tasks, and say why."""
        self._nursery.cancel_scope.cancel(reason=f"the WebSocket was {self._get_info()}")

    def _means_the_end(self, exc: BaseException) -> bool:
        """Whether this is but another way of being cancelled by the end of the connection."""
        return isinstance(exc, ConnectionClosed) and exc.info == self._get_info()
