"""``ws.open_nursery()``: a nursery that lives no longer than its connection."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import trio

from ._inbox import Inbox
from ._messages import CloseInfo


class Owner(Protocol):
    """What a nursery has to know of its connection."""

    inbox: Inbox
    info: CloseInfo | None
    nurseries: list[LinkedNursery]

    def watch(self, linked: LinkedNursery) -> None:
        """Cancel a nursery in time, now that the connection has ended."""
        ...

    def caused(self, error: BaseException) -> bool:
        """Whether an exception says that the connection is over."""
        ...


class LinkedNursery:
    """The ``async with`` of `WebSocket.open_nursery`."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        # Groups even where trio was told to do without: only those can be taken apart.
        self._manager = trio.open_nursery(strict_exception_groups=True)
        self._visits = 0
        self._leaving = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        await trio.lowlevel.checkpoint()
        self._nursery = await self._manager.__aenter__()
        self._visits = self._owner.inbox.visits
        self._owner.nurseries.append(self)
        if self._owner.info is not None:
            self._owner.watch(self)
        return self._nursery

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._leaving = True
        if self._owner.info is not None and not self.consuming:
            self._owner.watch(self)
        try:
            return bool(await self._manager.__aexit__(etype, exc, traceback))
        except BaseExceptionGroup as group:
            caused = self._owner.caused
            rest = group.split(lambda each: caused(each))[1]  # noqa: PLW0108  # no methods < 3.13
            if rest is None:
                return True
            context = rest.__context__
            try:
                raise rest
            finally:
                rest.__context__ = context
        finally:
            self._owner.nurseries.remove(self)

    def contains(self, task: trio.lowlevel.Task) -> bool:
        """Whether a task is in the block, or was started in the nursery or below it."""
        opener = self._nursery.parent_task
        opened = opener.child_nurseries
        if self._nursery not in opened:
            return False  # it has been closed meanwhile
        inside = opened[opened.index(self._nursery) :]  # this one, and those in its block
        if task is opener:
            return True
        while (nursery := task.parent_nursery) is not None:
            if nursery in inside:
                return True
            task = nursery.parent_task
        return False

    @property
    def consuming(self) -> bool:
        """Whether one of its tasks has received, and may come back for more."""
        task = self._owner.inbox.consumer
        if task is None or self._owner.inbox.visits == self._visits or not self.contains(task):
            return False
        if task is self._nursery.parent_task:
            return not self._leaving
        return task.parent_nursery is not None and task in task.parent_nursery.child_tasks

    def cancel(self) -> None:
        """Cancel its tasks, and say why."""
        self._nursery.cancel_scope.cancel(reason=f"the WebSocket was {self._owner.info}")
