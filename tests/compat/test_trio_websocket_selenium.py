"""Selenium's own code for the DevTools protocol, as it is, on trio_ws and a real Chromium.

Its module ``selenium.webdriver.common.bidi.cdp`` is trio-cdp, with devtools of its own.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from _browser import launch_browser
from _components import PATIENCE

import trio_ws
from trio_ws.compat import trio_websocket

CDP = "selenium.webdriver.common.bidi.cdp"
PAGE = "<title>a page</title><p>for Selenium</p>"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with launch_browser() as url:
        yield url


@pytest.fixture
def cdp(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Selenium's module, freshly imported with ours in the place of trio_websocket."""
    monkeypatch.setitem(sys.modules, "trio_websocket", trio_websocket)
    monkeypatch.delitem(sys.modules, CDP, raising=False)
    module = importlib.import_module(CDP)
    assert module.connect_websocket_url is trio_websocket.connect_websocket_url
    assert issubclass(module.CdpConnectionClosed, trio_websocket.ConnectionClosed)
    module.import_devtools("latest")
    yield module
    sys.modules.pop(CDP)


async def start(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    routes = trio_ws.Routes()

    @routes.get("/")
    async def index(request: trio_ws.Request) -> trio_ws.Response:
        return trio_ws.Response.html(PAGE)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_ws.serve_websocket, routes, 0)
        task_status.started(server.port)


async def test_selenium_drives_a_page(url: str, cdp: Any) -> None:
    devtools = cdp.devtools
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(start)
            async with cdp.open_cdp(url) as connection:
                target = await connection.execute(devtools.target.create_target("about:blank"))
                async with connection.open_session(target) as session, session.page_enable():
                    async with session.wait_for(devtools.page.LoadEventFired):
                        navigate = devtools.page.navigate(f"http://127.0.0.1:{port}/")
                        await session.execute(navigate)
                    expression = "document.title + document.body.innerText"
                    result, _ = await session.execute(devtools.runtime.evaluate(expression))
                    assert result.value == "a pagefor Selenium"

                    # 3 MB: more than a WebSocket's default limit, less than Selenium's.
                    big = devtools.runtime.evaluate("'x'.repeat(3000000)", return_by_value=True)
                    result, _ = await session.execute(big)
                    assert len(result.value) == 3_000_000

                    # Many commands at a time.
                    answers: list[int] = []

                    async def ask(number: int) -> None:
                        command = devtools.runtime.evaluate(f"{number} * 2")
                        result, _ = await session.execute(command)
                        answers.append(result.value)

                    async with trio.open_nursery() as askers:
                        for number in range(50):
                            askers.start_soon(ask, number)
                    assert sorted(answers) == list(range(0, 100, 2))
                    with pytest.raises(cdp.BrowserError, match="Could not find node"):
                        await session.execute(devtools.dom.focus(devtools.dom.NodeId(12345)))
            nursery.cancel_scope.cancel()


async def test_selenium_is_told_that_the_connection_is_closed(url: str, cdp: Any) -> None:
    with trio.fail_after(PATIENCE):
        async with cdp.open_cdp(url) as connection:
            await connection.execute(cdp.devtools.target.get_targets())
        with pytest.raises(cdp.CdpConnectionClosed) as caught:
            await connection.execute(cdp.devtools.target.get_targets())
    assert caught.value.reason.code == 1000


async def test_selenium_is_told_that_the_browser_has_gone(cdp: Any) -> None:
    with launch_browser() as url, trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            connection = await cdp.connect_cdp(nursery, url)
            await connection.execute(cdp.devtools.browser.close())
        # The nursery has ended: its reader was told.
        with pytest.raises(cdp.CdpConnectionClosed):
            await connection.execute(cdp.devtools.target.get_targets())
