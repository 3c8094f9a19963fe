"""One connection of a client, over TCP or a Unix socket, and why there is none."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import trio

from ._exchange import Progress
from ._url import join_host_port

Dial: TypeAlias = Callable[[str, int], Awaitable[trio.SocketStream]]
"""Connects to a host and a port, as `trio.open_tcp_stream` does."""


async def open_tcp(
    dial: Dial, host: str, port: int, progress: Progress, *, purpose: str = ""
) -> trio.SocketStream:
    """Connect to a host and a port; ``purpose`` is what stands before them in errors.

    Raises:
      OSError: there is no such host, or nobody listens there.
    """
    where = f"{purpose}{join_host_port(host, port)}"
    progress.enter(f"connecting to {where}")
    try:
        return await dial(host, port)
    except OSError as exc:
        raise reworded(exc, where) from exc
    except trio.Cancelled as exc:
        if _was_looking_up(exc):
            progress.enter(f"looking up the address of {where}")
        raise


async def open_unix(path: str, progress: Progress) -> trio.SocketStream:
    """Connect to a Unix socket.

    Raises:
      OSError: there is none, or nobody listens there.
    """
    progress.enter(f"connecting to {path}")
    try:
        return await trio.open_unix_socket(path)
    except OSError as exc:
        raise reworded(exc, path) from exc


def reworded(exc: OSError, where: str) -> OSError:
    """Return the error with the host, the port and the reason in one line."""
    if isinstance(exc, socket.gaierror):
        return socket.gaierror(exc.errno, f"no address for {where}: {exc.strerror}")
    # Where several addresses were tried, trio says so, and their errors are the cause.
    tried = list(_leaves(exc.__cause__)) or [exc]
    text = f"cannot connect to {where}: {', '.join(dict.fromkeys(map(_reason, tried)))}"
    numbers = [each.errno for each in tried if each.errno is not None]
    return OSError(numbers[0], text) if numbers else OSError(text)


def _reason(exc: OSError) -> str:
    plain = "" if exc.errno is None else os.strerror(exc.errno)
    text = exc.strerror or str(exc)
    return plain if text.endswith(plain) and plain else text  # trio puts the address before it


def _was_looking_up(exc: trio.Cancelled) -> bool:
    """Return whether it was cancelled in the lookup of the name, before any connecting.

    trio does both in one call; where that waited stands in the traceback.
    """
    return any(
        frame.f_code.co_name == "getaddrinfo" for frame, _ in traceback.walk_tb(exc.__traceback__)
    )


def _leaves(exc: BaseException | None) -> Iterator[OSError]:
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from _leaves(each)
    elif isinstance(exc, OSError):
        yield exc
