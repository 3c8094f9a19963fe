"""A nursery for what runs beside a block, which leaves the block's exception as it is."""

from __future__ import annotations

from types import TracebackType
from typing import Final, NoReturn

import trio

LAST_STEPS: Final = 50
"""Schedule points that its tasks get at the end, to fail of what has just happened. What
they raise when they are cancelled already is lost in trio's own cleaning up."""


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
        await give_last_steps()
        self.nursery.cancel_scope.cancel(reason="the block that it served has ended")
        involved = (etype, exc, traceback) if _is_cancellation(exc) else (None, None, None)
        try:
            swallowed = await self._manager.__aexit__(*involved)
        except BaseExceptionGroup as group:
            errors = [each for each in group.exceptions if each is not exc]
            message = group.message
        else:
            return bool(swallowed) and exc is involved[1]
        if len(errors) > 1:
            raise BaseExceptionGroup(message, errors)
        if errors:
            _raise(_unwrap(errors[0]), exc)
        return False


async def give_last_steps() -> None:
    """Let all tasks go on a little. It cannot be cancelled; so no sweep needs to try."""
    await trio.lowlevel.cancel_shielded_checkpoint()
    for _ in range(LAST_STEPS):
        await trio.lowlevel.cancel_shielded_checkpoint()


def _is_cancellation(exc: BaseException | None) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return exc.subgroup(trio.Cancelled) is not None
    return isinstance(exc, trio.Cancelled)


def _unwrap(error: BaseException) -> BaseException:
    """Take off the groups that the nurseries of a server have put around an error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _raise(error: BaseException, met: BaseException | None) -> NoReturn:
    """Raise an error; what the block has met is its context, unless it has a better one."""
    context = error.__context__
    if context is None and not isinstance(met, trio.Cancelled):
        context = met
    try:
        raise error
    finally:  # raising has put the block's exception there, for better or worse
        error.__context__ = context
