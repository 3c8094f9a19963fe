"""Reconnecting client: sessions with one server, one after another.

::

    async with open_reconnecting(url) as sessions:      a nursery, for the length of the block
        async for ws in sessions:                       ┐ each round: end the last session,
            ...                                         ┘ judge how it ended, wait, connect

A session has a nursery and scopes of its own, which are to be left in the order opposite to
that of entering them. The loop's body knows nothing of that order: it may be left at any
moment, and stand inside of scopes that the next round does not. So each session lives in a
task of its own, below the block's nursery. It ends when it is told to: by the next
round, or when the block is left. All that goes from one task to the other is the WebSocket,
or the exception for which there is none.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeVar, cast

import attrs
import trio

from ._backoff import Backoff, is_transient
from ._client import Opening, open_websocket
from ._connection import close_code_for
from ._errors import ConnectionClosed, ConnectionEnded, ConnectionLost, ProtocolViolation
from ._http_headers import Headers
from ._messages import CloseCode
from ._options import Options
from ._url import parse_url
from ._websocket import WebSocket

logger: Final = logging.getLogger("trio_ws")

T = TypeVar("T")

Fresh: TypeAlias = "Callable[[], T | Awaitable[T]]"
"""A function, async or not, that is asked before each attempt."""


def open_reconnecting(
    url: str | Fresh[str],
    *,
    retry: Backoff = Backoff(),
    retry_if: Callable[[Exception], bool] = is_transient,
    subprotocols: Iterable[str] = (),
    headers: Headers | Fresh[Headers] = (),
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    proxy: str | None = "environment",
    proxy_ssl_context: ssl.SSLContext | None = None,
    local_address: str | None = None,
    options: Options = Options(),
) -> Sessions:
    """Connect again and again: ``async with open_reconnecting(url) as sessions``.

    ::

        async with open_reconnecting("wss://example.org/feed") as sessions:
            async for ws in sessions:
                with suppress(ConnectionLost):
                    async for message in ws:
                        ...

    Each round of the loop is a session. When the body has come to its end, or goes on with
    ``continue``, the session is closed if it still is open, and the next one is opened, after
    the wait that ``retry`` says (`Backoff`). What the body raises ends the loop, as in any
    other; what is to be survived is caught, and how the session ended is judged by the loop.

    ``url`` and ``headers`` may be functions, async or not: they are called before each
    attempt, and return where to resume, or a fresh token. All else is that of
    `open_websocket`, for each session.

    ``retry_if`` says whether a failure is worth another attempt: it is called with what an
    attempt has raised, or with the `ConnectionClosed` of a session that the peer or the network
    has ended. If not, the loop raises that; only after a polite end (`ConnectionEnded`) it just
    ends.

    Leaving the block closes the session of the moment: Close 1000, on an exception 1011, on
    cancellation 1001, within ``options.close_grace``. The block's exception comes out as it
    is. ``break`` alone leaves the session open until then.

    Raises:
      TypeError, ValueError: at once: an argument is of no use.

    Raises (each round):
      OSError, HandshakeError: connecting failed (`open_websocket` tells how), and another
          attempt is not worth it, or there were too many.
      ConnectionLost: the session before this one ended so; likewise.
      trio.BusyResourceError: another task waits for a session.
      trio.ClosedResourceError: the block was left.

    and whatever ``url`` and ``headers`` do, if ``retry_if`` does not want to try again.

    If cancelled: a session that is open stays open until the next round, or the end of the
    block; of an attempt that was going on nothing is left behind the block.

    Concurrency: one task at a time waits for a session. Each call is independent.
    """
    open_ = functools.partial(
        open_websocket,
        subprotocols=tuple(subprotocols) if isinstance(subprotocols, Iterator) else subprotocols,
        origin=origin,
        ssl_context=ssl_context,
        server_hostname=server_hostname,
        proxy=proxy,
        proxy_ssl_context=proxy_ssl_context,
        local_address=local_address,
        options=options,
    )
    # What would be refused in the first attempt is refused now, as far as it is known.
    secure = ssl_context is not None or server_hostname is not None
    unknown = "wss://localhost/" if secure else "ws://localhost/"
    if not callable(headers) and isinstance(headers, Iterator):
        headers = tuple(headers)
    open_(
        unknown if callable(url) else url,
        headers=() if callable(headers) else headers,
    )
    if not isinstance(retry, Backoff):
        raise TypeError(f"retry is a Backoff, not {type(retry).__name__}")
    if not callable(retry_if):
        raise TypeError(f"retry_if is a function of an error, not {type(retry_if).__name__}")
    return Sessions(Repeated(open_, url, headers), retry, retry_if)


@attrs.frozen
class Repeated:
    """Any number of attempts, each with what is true by then."""

    open: Callable[..., Opening]
    url: str | Fresh[str]
    headers: Headers | Fresh[Headers]

    async def prepare(self) -> tuple[str, Opening]:
        """Return where the next attempt goes, without secrets, and the attempt."""
        await trio.lowlevel.checkpoint()
        url = await _ask(self.url) if callable(self.url) else self.url
        headers: Headers = await _ask(self.headers) if callable(self.headers) else self.headers
        opening = self.open(url, headers=headers)
        target = parse_url(url)
        return target.unix_path or target.host_header, opening


async def _ask(function: Fresh[T]) -> T:
    await trio.lowlevel.checkpoint()
    answer = function()
    if not isinstance(answer, Awaitable):
        return answer
    return await cast("Awaitable[T]", answer)


@attrs.frozen
class SessionsStatistics:
    """What `Sessions.statistics` returns: a snapshot."""

    attempts: int
    """Attempts to connect so far, the one that is going on included."""
    opened: int
    """Those that came to a session."""
    failures: int
    """Failures in a row: attempts, and sessions that did not last."""
    last_error: Exception | None
    """Why the last attempt or session failed."""
    next_attempt: float | None
    """When the next attempt comes, in `trio.current_time`; `None` if none is waited for."""


class Sessions:
    """Sessions with one server, one after another; made by `open_reconnecting`."""

    def __init__(
        self, again: Repeated, retry: Backoff, retry_if: Callable[[Exception], bool]
    ) -> None:
        self._again = again
        self._retry = retry
        self._retry_if = retry_if
        self._nursery: trio.Nursery | None = None
        self._left = trio.Event()
        self._current: Session | None = None
        self._peer = "the server"
        self._busy = False
        self._waiting = False
        self._due = 0.0  # when the next attempt may come
        self._well_until = 0.0  # the end of the last session that lasted
        self._attempts = self._opened = self._failures = 0
        self._last_error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Sessions with {self._peer}: {self._opened} so far>"

    def statistics(self) -> SessionsStatistics:
        """Return how it goes: for a task that tells a user why there is nothing to see."""
        return SessionsStatistics(
            attempts=self._attempts,
            opened=self._opened,
            failures=self._failures,
            last_error=self._last_error,
            next_attempt=self._due if self._waiting else None,
        )

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise RuntimeError("this block is entered once: call open_reconnecting() again")
        await trio.lowlevel.checkpoint()
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._due = self._well_until = trio.current_time()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery is not None
        self._nursery.cancel_scope.shield = True  # close_grace bounds what follows
        self._left.set()
        if self._current is not None:
            self._current.release(exc)
        await self._manager.__aexit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WebSocket:
        if self._nursery is None:
            raise RuntimeError("first: async with open_reconnecting(...) as sessions")
        self._check_not_left()
        if self._busy:
            raise trio.BusyResourceError("another task waits for the next session")
        self._busy = True
        try:
            if self._current is not None:
                await self._finish(self._current)
            while True:
                await self._wait()
                try:
                    return await self._attempt(self._nursery)
                except Exception as error:  # noqa: BLE001  # _fail raises what is not to be tried
                    self._fail(error)
        finally:
            self._busy = False

    # A round: the end of the last session...

    async def _finish(self, session: Session) -> None:
        """End a session, and find out whether there shall be another one."""
        session.release(None)
        await session.over.wait()
        self._current = None
        now = trio.current_time()
        lasted = session.lasted >= self._retry.stable_after
        if lasted:
            self._failures = 0
            self._well_until = now
        error = session.ended_by
        if error is None:  # this side did: it wants another one
            self._due = now + self._retry.delay(self._failures)
        else:
            last = StopAsyncIteration() if isinstance(error, ConnectionEnded) else error
            self._fail(error, lasted=lasted, last=last)

    def _fail(
        self, error: Exception, *, lasted: bool = False, last: Exception | None = None
    ) -> None:
        """Note a failure, and when to try again; if that is not to be, raise it, or ``last``."""
        self._last_error = error
        self._failures += not lasted
        if not self._retry_if(error):
            raise last or error
        now = trio.current_time()
        delay = self._retry.delay(self._failures, error)
        outage = now + delay - self._well_until
        if self._failures >= self._retry.max_attempts or outage > self._retry.max_outage:
            error.add_note(f"given up after {self._failures} failures in a row")
            raise error
        self._due = now + delay
        logger.warning(
            "%s: %s; attempt %d in %.1f s", self._peer, error, self._attempts + 1, delay
        )

    # ...the wait...

    async def _wait(self) -> None:
        self._waiting = True
        try:
            with trio.move_on_at(self._due):
                await self._left.wait()
        finally:
            self._waiting = False
        self._check_not_left()

    def _check_not_left(self) -> None:
        if self._left.is_set():
            raise trio.ClosedResourceError("the block of open_reconnecting() was left")

    # ...and the next session.

    async def _attempt(self, nursery: trio.Nursery) -> WebSocket:
        self._attempts += 1
        self._peer, opening = await self._again.prepare()
        self._check_not_left()
        session = self._current = Session(opening)
        nursery.start_soon(session.run, name=f"session with {self._peer}")
        try:
            await session.settled.wait()
        except BaseException:
            session.give_up()
            raise
        if session.ws is None:
            self._current = None
            self._check_not_left()
            assert session.error is not None
            raise session.error
        self._opened += 1
        logger.info("%s: attempt %d is open", self._peer, self._attempts)
        return session.ws


class Session:
    """A session in its task: from the attempt to the end of TCP."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._scope = trio.CancelScope(shield=True)  # it ends when it is told to
        self._released = trio.Event()
        self._given_up = False
        self._opened_at = self._released_at = 0.0
        self.settled = trio.Event()
        self.over = trio.Event()
        self.ws: WebSocket | None = None
        self.error: Exception | None = None
        """Why it could not be opened."""

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Connect, and hold the connection open until it is released."""
        try:
            with self._scope:
                async with contextlib.AsyncExitStack() as stack:
                    try:
                        self.ws = await stack.enter_async_context(self._opening)
                    except Exception as error:  # noqa: BLE001  # raised again by who waits for it
                        self.error = error
                    else:
                        self._opened_at = trio.current_time()
                        self.settled.set()
                        await self._released.wait()
        finally:
            self.settled.set()
            self.over.set()

    def give_up(self) -> None:
        """End it: nobody waits for it any more."""
        self._given_up = True
        self._scope.cancel(reason="nobody waits for this session any more")

    def release(self, exc: BaseException | None) -> None:
        """End it, with the goodbye for who left with this exception."""
        if self.ws is None:
            self.give_up()
        elif not self._released.is_set():
            code = CloseCode.NORMAL if exc is None else close_code_for(exc)
            self.ws._connection.begin_close(code, "", by_user=True)
            self._released_at = trio.current_time()
            self._released.set()

    @property
    def lasted(self) -> float:
        """Seconds from its opening to its release."""
        return self._released_at - self._opened_at

    @property
    def ended_by(self) -> ConnectionClosed | None:
        """How the peer or the network has ended it; `None` if this side has."""
        info = None if self.ws is None else self.ws.close_info
        if self.ws is None or info is None or self._given_up:
            return None
        cause = self.ws._connection._cause
        if info.initiator == "local" and not isinstance(cause, ProtocolViolation):
            return None
        error = ConnectionEnded(info) if info.polite else ConnectionLost(info)
        error.__cause__ = cause
        return error
