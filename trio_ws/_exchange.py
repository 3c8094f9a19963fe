"""One request over a stream, and how far an opening has come when something fails."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

import trio

from ._errors import HandshakeError
from ._http_client import Exchange
from ._streams import READ_SIZE

T = TypeVar("T")


class Progress:
    """What an opening is doing: the phase that an error names."""

    phase: str
    """As in "... took longer than" and "...: connection reset"."""

    def __init__(self) -> None:
        self.enter("connecting")

    def enter(self, phase: str, exchange: Exchange[Any] | None = None) -> None:
        """Begin something; with ``exchange``, whose refusal counts more than how it ended."""
        self.phase = phase
        self._exchange = exchange

    @property
    def rejection(self) -> HandshakeError | None:
        """The refusal that has begun to come, if that is so."""
        return None if self._exchange is None else self._exchange.rejection


async def ask(stream: trio.abc.Stream, exchange: Exchange[T], progress: Progress) -> T:
    """Send a request, and return the answer.

    Raises:
      HandshakeError: it is none, or a refusal.
      trio.BrokenResourceError: the stream broke.
    """
    progress.enter(f"sending the request to {exchange.peer}", exchange)
    try:
        await stream.send_all(exchange.request())
    except trio.BrokenResourceError:
        # The peer may have refused, and gone, before it had read all of the request.
        with contextlib.suppress(trio.BrokenResourceError, HandshakeError):
            await _read_answer(stream, exchange)  # noqa: ASYNC120  # being cancelled counts more
        raise
    progress.enter(f"waiting for the answer of {exchange.peer}", exchange)
    return await _read_answer(stream, exchange)


async def _read_answer(stream: trio.abc.Stream, exchange: Exchange[T]) -> T:
    while True:
        data = await stream.receive_some(READ_SIZE)
        if not data:
            exchange.receive_eof()
        answer = exchange.receive_data(bytes(data))
        if answer is not None:
            return answer
