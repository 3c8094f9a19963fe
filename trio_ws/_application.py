"""Application: what the command line serves: a handler, or a block that opens one."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

from ._server_connection import Handler

Application: TypeAlias = "Handler | Callable[[], AbstractAsyncContextManager[Handler]]"


@asynccontextmanager
async def open_application(application: Application) -> AsyncGenerator[Handler, None]:
    """Return the handler; if it is a `contextlib.asynccontextmanager`, what that yields.

    Such a function opens what its handlers need, rooms on Redis for one, and closes it again
    when the server has ended::

        @asynccontextmanager
        async def chat():
            async with open_rooms("redis://...") as rooms:
                yield make_routes(rooms)
    """
    if not inspect.isasyncgenfunction(inspect.unwrap(application)):
        yield application  # type: ignore[misc]  # a handler: there is no third
        return
    async with application() as handler:  # type: ignore[call-arg,union-attr]  # it takes nothing
        yield handler
