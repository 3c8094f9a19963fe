"""The link: one connection to one run of Redis, for commands and for what is published.

::

    run_link ─ connect ─→ Link ─→ task(link) ... until anything is wrong ─→ LinkDown

A link does not reconnect: it ends, and with it everything that was believed because of it.
Whoever comes after it makes another one, and finds out what has happened in the meantime.

coredis speaks the protocol (RESP3, where one connection carries replies and what is
published, in the order in which Redis has written them). Its connection is used as it is,
without its pool and its pub/sub object: these reconnect on their own, which hides when
messages may have been lost.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, Final

import trio
from anyio.abc import ByteStream
from coredis.connection import BaseConnection, TCPLocation
from coredis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, RedisError
from coredis.exceptions import ConnectionError as RedisConnectionError

from ._address import Address
from ._scripts import FETCH, PUBLISH, Argument, Command, Script

_RUN: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


class LinkDown(Exception):
    """There is no connection to Redis any more, or not yet; the text says why."""


class Refused(Exception):
    """Redis has understood, and says no; the text says why."""


_FATAL: Final = (
    BusyLoadingError,  # it reads its files
    NoScriptError,  # somebody has removed the scripts: connecting loads them
    ReadOnlyError,  # it has become a replica
    RedisConnectionError,
)
"""Errors behind which another link is better than this one."""


class Link:
    """A connection to Redis that is up."""

    def __init__(self, connection: BaseConnection, run: str, patience: float) -> None:
        self._connection = connection
        self._patience = patience
        self._marks: dict[bytes, trio.Event] = {}
        self.run = run
        """The run of Redis: another one after each start."""

    async def command(self, name: bytes, *arguments: Argument) -> Any:
        """Send a command, and wait for its reply.

        Raises:
          LinkDown: there is no reply, or one that tells of a Redis that cannot be used.
          Refused: Redis answers with another error.
        """
        return (await self.commands([(name, *arguments)]))[0]

    async def commands(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands in one go, and wait for their replies.

        Raises: as `command`.
        """
        with _translated():
            requests = [self._request(*command) for command in commands]
            return [await request for request in requests]

    def _request(self, name: Argument, *arguments: Argument) -> Awaitable[Any]:
        assert isinstance(name, bytes)
        return self._connection.create_request(name, *arguments)

    async def run_script(
        self, script: Script, keys: list[bytes], arguments: list[Argument]
    ) -> Any:
        """Run a script.

        Raises: as `command`.
        """
        return await self.command(b"EVALSHA", script.sha, len(keys), *keys, *arguments)

    def subscribe(self, channels: list[bytes]) -> None:
        """Subscribe to channels: what they carry goes to `listen` from then on.

        A command that is sent after this is executed after it.

        Raises:
          LinkDown: the link is down.
        """
        with _translated():
            self._connection.send_command(b"SUBSCRIBE", *channels)

    def unsubscribe(self, channel: bytes) -> None:
        """Unsubscribe from a channel; nothing happens if the link is down."""
        if self._connection.usable:
            self._connection.send_command(b"UNSUBSCRIBE", channel)

    async def wait_heard(self) -> None:
        """Wait until `listen` has handed over all that came before the last reply.

        Replies and what is published come in order, and then go two ways. To unsubscribe
        from something is answered on the second one.

        Raises:
          LinkDown: the link is down, or Redis does not answer.
        """
        mark = b"mark %d" % len(self._marks)
        heard = self._marks[mark] = trio.Event()
        with _translated():
            self._connection.send_command(b"UNSUBSCRIBE", mark)
        with trio.move_on_after(self._patience):
            await heard.wait()
            return
        raise LinkDown("Redis does not answer")

    async def listen(self, handle: Callable[[bytes, bytes], None]) -> None:
        """Hand over channel and content of what is published, until the link is down.

        Raises:
          LinkDown: always, in the end.
        """
        with _translated():
            async with aclosing(self._connection.push_messages) as pushes:
                async for push in pushes:
                    kind, channel, data = push
                    assert isinstance(channel, bytes)
                    if kind == b"message":
                        assert isinstance(data, bytes)
                        handle(channel, data)
                    elif channel in self._marks:
                        self._marks.pop(channel).set()


@contextmanager
def _translated() -> Generator[None, None, None]:
    """Turn coredis' errors into ours."""
    try:
        yield
    except TimeoutError as exc:
        raise LinkDown(f"Redis does not answer: {exc}") from exc
    except _FATAL as exc:
        raise LinkDown(str(exc) or type(exc).__name__) from exc
    except RedisError as exc:
        raise Refused(str(exc)) from exc


class _Connection(BaseConnection):
    """coredis' connection on a stream that is open: its own leak when they cannot be opened."""

    def __init__(
        self, address: Address, stream: ByteStream, patience: float, **terms: Any
    ) -> None:
        super().__init__(TCPLocation(str(address), 0), stream_timeout=patience, **terms)
        self._open_stream = stream
        self._place = address

    async def _connect(self) -> ByteStream:
        return self._open_stream

    def describe(self) -> str:
        return f"connection to Redis at {self._place}"


async def run_link(
    address: Address, patience: float, task: Callable[[Link], Awaitable[None]]
) -> None:
    """Connect, and run a task with the link.

    An answer that takes longer than ``patience`` means that the link is down.

    Raises: what the task raises, in no group, and

      LinkDown: it could not be opened.
    """
    if address.service is None:
        location = address.hosts[0] if address.hosts else None
    else:
        location = await _find_primary(address, patience)
    terms = {"username": address.username, "password": address.password, "db": address.db}
    await _with_connection(address, location, patience, terms, partial(_use, patience, task))


async def _use(
    patience: float, task: Callable[[Link], Awaitable[None]], connection: BaseConnection
) -> None:
    with _translated():
        requests = [
            connection.create_request(b"ROLE"),
            connection.create_request(b"INFO", b"server"),
            connection.create_request(b"SCRIPT LOAD", PUBLISH.text),
            connection.create_request(b"SCRIPT LOAD", FETCH.text),
        ]
        answers: list[Any] = [await request for request in requests]
    role, info, *shas = answers
    assert [sha.decode() for sha in shas] == [PUBLISH.sha, FETCH.sha]
    if role[0] != b"master":
        raise LinkDown("this Redis is a replica")
    found = _RUN.search(info)
    assert found is not None, "INFO tells the run since Redis 2.6"
    await task(Link(connection, found[1].decode(), patience))


async def _find_primary(address: Address, patience: float) -> tuple[str, int]:
    """Ask the Sentinels, one after the other, where the primary is.

    They are asked without a password: they tell nothing but an address, which is worth
    nothing without the password of Redis.
    """
    problems: list[str] = []
    found: list[tuple[str, int]] = []

    async def ask(connection: BaseConnection) -> None:
        assert address.service is not None
        with _translated():
            answer: Any = await connection.create_request(
                b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", address.service
            )
        if answer is None:
            raise LinkDown("it does not know it")
        found.append((answer[0].decode(), int(answer[1])))

    for location in address.hosts:
        try:
            await _with_connection(address, location, patience, {}, ask)
        except (LinkDown, Refused) as exc:
            problems.append(f"{location[0]}:{location[1]}: {exc}")
        else:
            return found[0]
    raise LinkDown(f"no Sentinel knows {address.service!r}: {'; '.join(problems)}")


async def _with_connection(
    address: Address,
    location: tuple[str, int] | None,
    patience: float,
    terms: dict[str, Any],
    use: Callable[[BaseConnection], Awaitable[None]],
) -> None:
    """Open a connection, use it, close it; what comes out of this is in no group."""
    try:
        with trio.fail_after(patience):
            stream = await address.connect(location)
    except (OSError, trio.TooSlowError) as exc:
        raise LinkDown(str(exc) or "nobody answers") from exc
    connection = _Connection(address, stream, patience, **terms)
    status = _Status()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, connection, status)
        try:
            # A server that is frozen accepts connections, and then says nothing.
            with trio.move_on_after(2 * patience):
                await status.known.wait()
            status.check()
            await use(connection)
        except Exception as exc:  # noqa: BLE001  # to be raised outside of the nursery
            failure = exc
        connection.invalidate("it is not needed any more")
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Status:
    """What is known of a connection that is being opened; coredis says when it is."""

    def __init__(self) -> None:
        self.known = trio.Event()
        self.problem: Exception | None = None
        self._open = False

    def started(self, value: object = None) -> None:
        self._open = True
        self.known.set()

    def check(self) -> None:
        if not self._open:
            cause = self.problem
            while cause is not None and isinstance(cause.__cause__, Exception):
                cause = cause.__cause__
            raise LinkDown(str(cause or "it says nothing")) from self.problem


async def _run(connection: BaseConnection, status: _Status) -> None:
    try:
        await connection.run(task_status=status)
    except Exception as exc:  # noqa: BLE001  # when it is cancelled, coredis lets anything out
        status.problem = exc
    status.known.set()
