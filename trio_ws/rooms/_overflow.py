"""Overflow: what becomes of a message that finds a member's queue full."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from .._options import MIB, _limit, _positive

if TYPE_CHECKING:
    from ._messages import RoomMessage

Transform: TypeAlias = "Callable[[RoomMessage], Any]"


class Overflow(enum.Enum):
    """What to do for a member that does not take its messages as fast as they come.

    Whatever the choice, no other member notices, and but for `WAIT` no publisher does.
    """

    DISCONNECT = "disconnect"
    """End its connection with 1013 (try again later). It never misses a message without
    knowing, and can come back and resume: for chats, logs, orders."""
    DROP_OLDEST = "drop-oldest"
    """Drop what has waited longest: for a feed whose newest entries matter most."""
    DROP_NEWEST = "drop-newest"
    """Drop the message that finds no room: for samples, of which any will do."""
    LATEST = "latest"
    """Keep one message per room and ``key``, the newest: for prices, positions, game
    state. Nothing is handed to the connection before it has written what it has, so
    that a slow member gets fewer messages, and not old ones. The messages of one key
    keep their order; those of different keys may change places."""
    WAIT = "wait"
    """Let `Rooms.publish` wait for it: for a pipeline in which nothing may get lost and
    whose members can be trusted. Other members have the message meanwhile."""


def _check_overflow(_: object, __: object, value: Any) -> None:
    if not isinstance(value, Overflow):
        known = ", ".join(each.name for each in Overflow)
        raise TypeError(f"overflow is one of Overflow ({known}), not {value!r}")


def _check_transform(_: object, __: object, value: Any) -> None:
    if not (value is None or callable(value)):
        raise TypeError(f"transform is a function of a RoomMessage, not {value!r}")


def _check_buffer(_: object, __: object, value: float) -> None:
    if value < 1:
        raise ValueError(f"buffer is a number of messages, at least 1, not {value!r}")


@attrs.frozen
class Terms:
    """How a member is served: what `Rooms.join` was told about its queue."""

    buffer: float = attrs.field(converter=_limit, validator=[_positive, _check_buffer])
    buffer_bytes: float = attrs.field(converter=_limit, validator=_positive)
    overflow: Overflow = attrs.field(validator=_check_overflow)
    transform: Transform | None = attrs.field(validator=_check_transform)


BUFFER: Final = 64
"""Messages that may wait for a member: behind the 64 KiB of ``Options.send_buffer`` and
what the kernel takes, enough for a burst, and few enough to notice who does not read."""

BUFFER_BYTES: Final = MIB
"""Bytes of messages that may wait for a member: one message of the greatest default size."""
