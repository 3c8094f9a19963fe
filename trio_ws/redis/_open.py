"""open_rooms(): the block around rooms that span processes."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, TypeVar

import trio

from .._options import MIB, _limit
from ..rooms import Codec, History, RoomLimits, Rooms
from ..rooms._registry import OnJoin
from ..rooms._rooms import check_arguments
from ._address import Address
from ._broker import RedisBroker
from ._mirror import Mirror
from ._outgoing import Outgoing
from ._scripts import Bounds, Names
from ._service import Terms

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


def open_rooms(
    url: str,
    *,
    history: History | None = None,
    codec: Codec | None = None,
    on_join: OnJoin | None = None,
    limits: RoomLimits | None = None,
    prefix: str = "trio_ws",
    ssl_context: ssl.SSLContext | None = None,
    local: bool = False,
    on_degraded: Callable[[str | None], None] | None = None,
    patience: float = 5,
    timeout: float = 5,
    max_waiting: float | None = 10_000,
    max_waiting_bytes: float | None = 16 * MIB,
) -> AbstractAsyncContextManager[Rooms]:
    """Open rooms that span processes: ``async with open_rooms("redis://...") as rooms``.

    What is published in one process reaches the members in all processes that have opened
    rooms on the same Redis, with the same ``prefix``. `Rooms` is used as ever, but for
    `Rooms.publish_nowait`. All of these processes need the same ``history`` and ``codec``.

    Args:
      url: ``redis://[user:password@]host[:port][/db]``, ``rediss://...`` for TLS,
          ``unix:///path[?db=1]``, or
          ``redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]``.
      history: as for `Rooms`; kept in Redis, and in this process of those rooms that
          somebody here is in.
      codec: as for `Rooms`.
      on_join: as for `Rooms`.
      limits: as for `Rooms`; they bound this process.
      prefix: what all names of keys and channels begin with: letters, digits, ``_.:/-``.
      ssl_context: for TLS; by default one that checks certificate and host name.
      local: whether members of this process go on hearing each other while Redis is away.
          Members in other processes are told afterwards that they have missed something.
      on_degraded: called with a reason when Redis cannot be reached or refuses to work,
          and with `None` when it is back; see `Rooms.degraded`. It must not block.
      patience: seconds that `Rooms.publish`, `Rooms.join` and the beginning of the block
          wait for a Redis that is away, before `BrokerDown`.
      timeout: seconds without an answer behind which a connection is given up; a quarter
          of it is the time between two signs of life, three times as long makes others
          hold a silent process to be dead, and those there to have left.
      max_waiting: publications of this process that may wait for Redis; beyond it
          `Rooms.publish` raises `BrokerOverflow`. `None` or `math.inf`: no limit.
      max_waiting_bytes: the same in bytes.

    Raises (the block, on entering):
      BrokerDown: Redis cannot be reached.

    Raises at once:
      TypeError, ValueError: an argument is not what it should be.

    If cancelled: nothing stays behind but what expires.

    Concurrency: a block is entered once. Any number of blocks.
    """
    check_arguments(history, codec, on_join, limits)
    seconds = {"patience": _number("patience", patience), "timeout": _number("timeout", timeout)}
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix is 1 to 64 letters, digits and _.:/-, not {prefix!r}")
    terms = Terms(
        Address.parse(url, ssl_context),
        Names(prefix),
        Bounds.of(history),
        seconds["timeout"],
        on_degraded,
    )
    codec = codec or Codec()
    limits = limits or RoomLimits()
    broker = RedisBroker(
        terms,
        Mirror(history, limits.max_history_memory),
        Outgoing(
            _number("max_waiting", _limit(max_waiting)),
            _number("max_waiting_bytes", _limit(max_waiting_bytes)),
        ),
        codec,
        patience=seconds["patience"],
        local=local,
    )
    rooms = Rooms(codec=codec, on_join=on_join, limits=limits, broker=broker)
    return Opening(broker, rooms)


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    if not value > 0:  # also refuses NaN
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return value


T = TypeVar("T")


class Opening(AbstractAsyncContextManager[T]):
    """The ``async with`` of `open_rooms`: runs the tasks of a broker beside a block.

    The block's own exception never meets the nursery: it comes out as it went in.
    """

    def __init__(self, broker: RedisBroker, face: T) -> None:
        self._broker = broker
        self._face = face
        self._manager = trio.open_nursery()
        self._entered = False

    async def __aenter__(self) -> T:
        if self._entered:
            raise RuntimeError("these rooms were opened before: call open_rooms() again")
        self._entered = True
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._broker.run, name="rooms on Redis")
        try:
            await self._broker.wait_connected()
        except BaseException:
            await self._end()
            raise
        return self._face

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        try:
            await self._broker.stop()
        finally:
            self._nursery.cancel_scope.cancel(reason="the block of open_rooms() has ended")
            await self._manager.__aexit__(None, None, None)
