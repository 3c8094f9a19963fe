"""serve_asgi: an ASGI application on our server, from its startup to its shutdown."""

from __future__ import annotations

import logging
import ssl
from typing import Any, Final

import trio

from .._options import Options
from .._server import Server, serve_websocket
from ._from import from_asgi
from ._types import Application, Event

logger: Final = logging.getLogger("trio_ws")


class Lifespan:
    """The call of an application that lasts as long as the server."""

    def __init__(self, app: Application) -> None:
        self.state: dict[str, Any] = {}
        """What the application wants its connections to know."""
        self._app = app
        self._stopping = trio.Event()
        self._started = trio.Event()
        self._ended = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._failure: str | None = None
        self._asked = False

    async def run(self) -> None:  # noqa: ASYNC910  # its first step is one, in the try  # noqa: ASYNC910  # it has one, or is cancelled
        """Call the application. One that knows nothing of this may raise."""
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await trio.lowlevel.checkpoint()
            with self._scope:
                await self._app(scope, self._receive, self._send)
        except Exception:
            if self._started.is_set():
                raise
            # Else it is one that knows nothing of this: the server has to go on, says ASGI.
        finally:
            self._started.set()
            self._ended.set()

    async def _receive(self) -> Event:
        await trio.lowlevel.checkpoint()
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        kind = event["type"]
        if kind.endswith(".failed"):
            self._failure = f"{kind}: {event.get('message', '')}"
        if kind.startswith("lifespan.startup."):
            self._started.set()
        else:
            self._ended.set()

    async def start(self) -> None:
        """Wait until the application is ready.

        Raises:
          RuntimeError: it says that it will not be.
        """
        await self._started.wait()
        self._check()

    async def stop(self) -> None:
        """Wait until the application has cleaned up.

        Raises:
          RuntimeError: it says that it could not.
        """
        self._stopping.set()
        await self._ended.wait()
        self._check()

    def cancel(self) -> None:
        """End the call."""
        self._scope.cancel(reason="the server is over")

    def _check(self) -> None:
        if self._failure is not None:
            raise RuntimeError(f"the ASGI application says {self._failure}")


async def serve_asgi(
    app: Application,
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    options: Options = Options(),
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on a TCP port, for ever: ``trio.run(serve_asgi, app, 8000)``.

    Its lifespan runs around that: connections are taken once it has started, and it is told to
    shut down when they are over, for which it gets ``options.close_grace`` seconds. The
    rest is as `trio_ws.serve_websocket` and `from_asgi` tell.

    Raises:
      RuntimeError: the application says that its startup, or its shutdown, has failed.
      Exception: as `trio_ws.serve_websocket`; and what the lifespan raises while it runs, in a
          group.

    If cancelled: connections get Close 1001, then the application is shut down. That this
    has failed is an error in the log then.

    Concurrency: any number of servers.
    """
    lifespan = Lifespan(app)
    handler = from_asgi(app, state=lifespan.state)
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lifespan.run)
        try:
            await lifespan.start()
            await serve_websocket(
                handler,
                port,
                host=host,
                backlog=backlog,
                ssl_context=ssl_context,
                options=options,
                task_status=task_status,
            )
        except Exception as exc:  # noqa: BLE001  # kept out of the nursery, and raised below
            error = exc
        finally:
            with trio.move_on_after(options.close_grace, shield=True):
                await trio.lowlevel.checkpoint()
                try:
                    await lifespan.stop()
                except RuntimeError as exc:
                    logger.error("%s", exc)  # noqa: TRY400  # who cancels hears nothing else
                    error = error or exc
            lifespan.cancel()
    if error is not None:
        raise error
