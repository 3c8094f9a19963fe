"""A headless Chromium, driven over the DevTools protocol by our own client.

::

    launch_browser() ─ the process, once per test module; its port is in DevToolsActivePort
    open_browser(url) ─ one WebSocket, a private profile; per test
      └─ await browser.open_page("http://...") ─ a tab: evaluate(), wait_for(), type(), click()

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import trio
from _components import PATIENCE, require

from trio_ws import Options, WebSocket, open_websocket

FLAGS: Final = [
    "--headless",
    "--no-sandbox",  # root, as in a container, may not have one
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # containers have 64 MB there
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
]
LONGEST_TEST: Final = 5 * PATIENCE
"""Every wait is bounded, this one for what was not thought of."""
DESKTOP: Final = (1100, 760)
PHONE: Final = (375, 667)


# The process...


@contextmanager
def launch_browser(*flags: str) -> Iterator[str]:
    """Run Chromium with an empty profile and more flags; yield the URL of its DevTools."""
    program = require("chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(  # noqa: S603  # our own flags, and no shell
            [program, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _devtools_url(process, Path(profile) / "DevToolsActivePort")
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _devtools_url(process: subprocess.Popen[bytes], file: Path) -> str:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up and process.poll() is None:
        if file.exists() and len(lines := file.read_text().split()) == 2:
            port, path = lines
            return f"ws://127.0.0.1:{port}{path}"
        time.sleep(0.01)
    raise AssertionError(f"Chromium did not start (exit code {process.poll()})")


# Its DevTools...


@asynccontextmanager
async def open_browser(url: str) -> AsyncIterator[Browser]:
    """Connect to Chromium; what its pages store is forgotten at the end."""
    options = Options(max_message_size=math.inf, compression=None)  # screenshots are large
    with trio.fail_after(LONGEST_TEST):
        async with open_websocket(url, options=options) as ws, ws.open_nursery() as nursery:
            browser = Browser(ws)
            nursery.start_soon(browser._read)
            created = await browser.command("Target.createBrowserContext", disposeOnDetach=True)
            browser._context = created["browserContextId"]
            yield browser
            nursery.cancel_scope.cancel()


class Browser:
    """A private profile in a running Chromium."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._answers: dict[int, dict[str, Any]] = {}
        self._waiting: dict[int, trio.Event] = {}
        self._last_id = 0
        self._context = ""

    async def command(
        self, method: str, *, session: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Let Chromium do something and return its result."""
        self._last_id += 1
        number = self._last_id
        request = {"id": number, "method": method, "params": parameters}
        if session is not None:
            request["sessionId"] = session
        self._waiting[number] = trio.Event()
        try:
            await self._ws.send(json.dumps(request))
            await self._waiting[number].wait()
            answer = self._answers.pop(number)
        finally:
            del self._waiting[number]
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    async def _read(self) -> None:
        async for message in self._ws:
            answer = json.loads(message)
            if (number := answer.get("id")) in self._waiting:  # not an event
                self._answers[number] = answer
                self._waiting[number].set()

    async def open_page(
        self, url: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False
    ) -> Page:
        """Open a tab and wait until the page is there."""
        target = await self.command(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = await self.command(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, attached["sessionId"])
        await page._show_as(size, dark=dark)
        await page.command("Page.enable")
        await page.command("Page.addScriptToEvaluateOnNewDocument", source=_NOTE_CLOSE_CODES)
        await page.goto(url)
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._browser.command(method, session=self._session, **parameters)

    async def _show_as(self, size: tuple[int, int], *, dark: bool) -> None:
        width, height = size
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])
        await self.command("Emulation.setFocusEmulationEnabled", enabled=True)

    async def goto(self, url: str) -> None:
        """Go to another page and wait until it is there."""
        result = await self.command("Page.navigate", url=url)
        assert "errorText" not in result, result["errorText"]
        await self.wait_for(
            "document.readyState === 'complete' && location.href !== 'about:blank'"
        )

    async def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression comes to; a promise is awaited."""
        answer = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true in the page; return what it comes to.

        It is asked again and again: a page may be gone and another one come meanwhile.
        """
        value = None
        with trio.move_on_after(PATIENCE):
            # The event that is waited for is in the page.
            while not (value := await self.evaluate(expression)):  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert value, f"{expression} did not come true; the page says:\n{await self.text()}"
        return value

    async def close_codes(self) -> list[int]:
        """Return the codes of the page's WebSockets that have been closed."""
        codes: list[int] = await self.evaluate("window.closeCodes")
        return codes

    async def wait_for_text(self, text: str, selector: str = "body") -> None:
        """Wait until a text can be read."""
        await self.wait_for(f"{_one(selector)}.innerText.includes({json.dumps(text)})")

    async def text(self, selector: str = "body") -> str:
        """Return what can be read."""
        return str(await self.evaluate(f"{_one(selector)}.innerText"))

    async def texts(self, selector: str) -> list[str]:
        """Return what can be read in each element."""
        found: list[str] = await self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)"
        )
        return found

    async def type(self, selector: str, text: str) -> None:
        """Type a text into a field, and the Enter key."""
        await self.evaluate(f"{_one(selector)}.focus()")
        await self.command("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                text="\r",
                windowsVirtualKeyCode=13,
            )

    async def click(self, selector: str) -> None:
        """Click an element."""
        await self.evaluate(f"{_one(selector)}.click()")

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(
            await self.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )

    async def screenshot(self, file: str | os.PathLike[str]) -> None:
        """Save what can be seen as a PNG file."""
        image = await self.command("Page.captureScreenshot")
        await trio.Path(file).write_bytes(base64.b64decode(image["data"]))


_NOTE_CLOSE_CODES: Final = """
    window.closeCodes = [];
    window.WebSocket = class extends WebSocket {
      constructor(...args) {
        super(...args);
        this.addEventListener("close", (event) => window.closeCodes.push(event.code));
      }
    };
"""


def _one(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"
