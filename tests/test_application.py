from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from trio_ws import Routes, WebSocketRequest
from trio_ws._application import open_application


async def handler(request: WebSocketRequest) -> None:
    """Do nothing."""


async def test_a_handler_is_served_as_it_is() -> None:
    for application in (handler, Routes()):
        async with open_application(application) as served:
            assert served is application


async def test_a_block_opens_what_the_handler_needs_and_closes_it() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def application() -> AsyncGenerator[Any, None]:
        log.append("open")
        yield handler
        log.append("closed")

    async with open_application(application) as served:
        assert served is handler
        assert log == ["open"]
    assert log == ["open", "closed"]
