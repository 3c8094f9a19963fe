"""A nursery for what runs beside a block, which leaves the block's exception as it is."""

from __future__ import annotations

from types import TracebackType

import trio


class Background:
    """``async with Background() as nursery``: its tasks are cancelled when the block ends.

    What a task raises cancels the block, and comes out in no group if it is the only error:
    for a test that is the cause, and what the block met is its consequence.
    """

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> trio.Nursery:
        self.nursery = await self._manager.__aenter__()
        return self.nursery

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.nursery.cancel_scope.cancel(reason="the block that it served has ended")
        try:
            return bool(await self._manager.__aexit__(etype, exc, traceback))
        except BaseExceptionGroup as group:
            errors = [each for each in group.exceptions if each is not exc]
            message = group.message
        if not errors:
            return False
        if len(errors) > 1:
            raise BaseExceptionGroup(message, errors)
        error = errors[0]
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]  # from the nurseries of a server
        context = error.__context__
        if context is None and not isinstance(exc, trio.Cancelled):
            context = exc
        try:
            raise error
        finally:  # raising has put the block's exception there, for better or worse
            error.__context__ = context
