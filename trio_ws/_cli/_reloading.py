"""Starting a server anew whenever its code changes."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from ._usage import ExitCode, UsageError

DEBOUNCE: Final = 200
"""Milliseconds in which changes count as one: editors and git write several files at once."""


PATIENCE: Final = 10.0
"""Seconds that a server has to end: twice its ``close_grace``."""


async def run_reloading(arguments: Sequence[str]) -> int:
    """Run this very command without ``--reload`` in a process, and anew after each change.

    A server that fails is started again after the next change: that may be the mended file.

    Raises:
      UsageError: the watcher of files is not installed.
    """
    try:
        from watchfiles import PythonFilter, awatch  # noqa: PLC0415  # an extra
    except ImportError as exc:
        raise UsageError("--reload needs watchfiles: pip install 'trio-ws[cli]'") from exc
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # what changed is told below
    rest = [each for each in arguments if each != "--reload"]
    command = [sys.executable, "-m", "trio_ws", *rest]
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, signals, nursery.cancel_scope)
            child = await _start(nursery, command)
            watched = PythonFilter()
            watching = awatch(Path.cwd(), watch_filter=watched, debounce=DEBOUNCE)
            async with contextlib.aclosing(watching):
                async for changes in watching:
                    changed = ", ".join(sorted({Path(path).name for _, path in changes}))
                    print(f"changed: {changed}", file=sys.stderr, flush=True)
                    await child.stop()
                    child = await _start(nursery, command)
    return ExitCode.OK


async def _cancel_after(signals: object, scope: trio.CancelScope) -> None:
    await anext(signals)  # type: ignore[call-overload]  # trio's type for it is private
    scope.cancel(reason="a signal came")


class _Child:
    """A server in a process of its own."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def stop(self) -> None:
        """End it as Ctrl-C would: its clients hear Close 1001, and come back to the next."""
        await _interrupt(self._process)


async def _start(nursery: trio.Nursery, command: list[str]) -> _Child:
    run = partial(
        trio.run_process,
        command,
        check=False,
        deliver_cancel=_interrupt,
        process_group=0,  # Ctrl-C reaches it through us, and once
    )
    return _Child(await nursery.start(run))


async def _interrupt(process: trio.Process) -> None:
    """End a server gently, and if it does not hear that, all the same.

    A Python that is just starting may lose a KeyboardInterrupt: what is raised in the callback
    of a weak reference, by an import for one, is printed and forgotten.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    with trio.move_on_after(PATIENCE):
        await process.wait()
        return
    process.kill()
    await process.wait()
