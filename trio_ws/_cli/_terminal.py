"""A terminal with a line to type in, below what has happened: prompt_toolkit in a thread.

::

    trio's thread                         prompt_toolkit's thread, and event loop
    ─────────────                         ─────────────────────────────────────
    lines  ←── from_thread ────────────── Enter; its history is the arrow keys'
    show() ─── call_soon_threadsafe ────→ queue ─→ printed above the line, in order
    leaving the block ── the queue's end → the application ends

One application runs from the beginning to the end, so that nothing is printed while
the line is being set up or taken down.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio
from prompt_toolkit.application import Application, in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import Layout
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import TextArea

STYLE: Final = Style.from_dict(
    {
        "received": "ansigreen",
        "sent": "ansicyan",
        "about": "ansibrightblack",
        "wrong": "ansired",
    }
)


@asynccontextmanager
async def open_terminal(
    *,
    source: Input | None = None,
    sink: Output | None = None,
) -> AsyncGenerator[Terminal, None]:
    """Take over the terminal of this process for the length of a block."""
    terminal = Terminal(source, sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, terminal.run)
        await terminal.started.wait()
        try:
            yield terminal
        finally:
            terminal.end()


class Terminal:
    """A line to type in; ``lines`` are those that have been typed, until Ctrl-D."""

    def __init__(self, source: Input | None, sink: Output | None) -> None:
        self._send_lines, self.lines = trio.open_memory_channel[str](math.inf)
        self.started = trio.Event()
        self.left = trio.Event()
        """Set once no more lines will come."""
        self._queue: asyncio.Queue[Sequence[tuple[str, str]] | None]
        self._loop: asyncio.AbstractEventLoop
        self._printing: asyncio.Task[None]
        line = TextArea(
            height=1,
            prompt="> ",
            multiline=False,
            history=InMemoryHistory(),
            accept_handler=self._on_enter,
        )
        self._app: Application[None] = Application(
            Layout(line),
            key_bindings=self._keys(),
            style=STYLE,
            input=source,
            output=sink,
            erase_when_done=True,
        )

    def show(self, style: str, text: str) -> None:
        """Print something above the line."""
        self._put([(f"class:{style}", text + "\n")])

    def end(self) -> None:
        """Take the line away, once all has been shown."""
        self._put(None)

    def _end_lines(self) -> None:
        self._send_lines.close()
        self.left.set()

    def _put(self, what: Sequence[tuple[str, str]] | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, what)

    # In the other thread...

    def run(self) -> None:
        """Show the line, and what is to be shown, until the end; in a thread of its own."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue = asyncio.Queue()
        await self._app.run_async(pre_run=self._on_start, handle_sigint=False)
        # Ctrl-D has ended the line; what is yet to be shown needs none.
        trio.from_thread.run_sync(self._end_lines)
        while (what := await self._queue.get()) is not None:
            self._app.print_text(FormattedText(what), style=STYLE)

    def _on_start(self) -> None:
        self._printing = self._app.create_background_task(self._print_all())
        trio.from_thread.run_sync(self.started.set)

    async def _print_all(self) -> None:
        while (what := await self._queue.get()) is not None:
            async with in_terminal():
                self._app.print_text(FormattedText(what), style=STYLE)
        self._queue.put_nowait(None)  # for _main
        self._leave()

    def _on_enter(self, buffer: Buffer) -> bool:
        trio.from_thread.run_sync(self._send_lines.send_nowait, buffer.text)
        return False  # keep nothing in the line

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        for key in ("c-c", "c-d"):
            keys.add(key)(lambda _: self._leave())
        return keys

    def _leave(self) -> None:
        if self._app.is_running and not self._app.is_done:
            self._app.exit()
