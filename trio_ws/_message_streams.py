"""One message in pieces: ``ws.open_message()`` and ``ws.receive_message()``."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import trio

from ._inbox import Inbox
from ._messages import Data, MessagePart, as_data
from ._outbox import Outbox
from ._protocol import Protocol


class MessageSender:
    """The block of `WebSocket.open_message`: each `send` is a fragment of the message."""

    def __init__(
        self,
        outbox: Outbox,
        protocol: Protocol,
        on_done: Callable[[BaseException | None], None],
        text: bool,
        compress: bool | None,
    ) -> None:
        self._outbox = outbox
        self._protocol = protocol
        self._on_done = on_done
        self._text = text
        self._compressed = protocol.compresses_parts(compress)
        self._open = False
        self._begun = False

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._outbox.take_turn()
        self._open = True
        self._begun = False
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        try:
            if exc is None:
                self._put("" if self._text else b"", final=True)
                self._on_done(None)
            elif self._begun:
                self._on_done(exc)
        finally:
            self._outbox.end_turn()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def send(self, chunk: Any) -> None:
        """Send the next piece: `str` if the message is text, else bytes-like.

        Raises:
          TypeError: the other kind; nothing was sent.
          ValueError: the text holds lone surrogates; nothing was sent.
          ConnectionLost: the connection is over.
          trio.ClosedResourceError: after ``aclose()``, or behind the block.

        If cancelled: this piece was not sent, not even in part.

        Concurrency: one task at a time.
        """
        data = as_data(chunk)
        if isinstance(data, str) is not self._text:
            kind = "text" if self._text else "binary"
            raise TypeError(f"this message is {kind}: a piece cannot be {type(chunk).__name__}")
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._outbox.wait_room()
        if not self._open:
            raise trio.ClosedResourceError("outside of: async with ws.open_message() as part")
        self._put(data, final=False)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _put(self, data: Data, *, final: bool) -> None:
        self._outbox.check()
        frames = self._protocol.encode_part(
            data, first=not self._begun, final=final, compressed=self._compressed
        )
        self._begun = True
        self._outbox.put(frames)


class MessageReceiver:
    """The block of `WebSocket.receive_message`: an iterator over the message's pieces."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._open = False
        self._asking = False  # a task is in `__anext__`
        self._next: MessagePart | None = None
        self._finished = False
        self.text: bool = False
        """Whether the message is text; known once the block is entered."""

    async def __aenter__(self) -> Self:
        self._inbox.enter()
        try:
            self._next = await self._inbox.get_part()
        except BaseException:
            self._inbox.leave()
            raise
        self._open = True
        self._finished = self._next.final
        self.text = isinstance(self._next.data, str)
        self._inbox.received += 1
        return self

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._finished:
            self._inbox.skip()
        self._open = False
        self._inbox.leave()

    def __aiter__(self) -> MessageReceiver:
        return self

    async def __anext__(self) -> str | bytes:
        if not self._open:
            raise trio.ClosedResourceError("outside of: async with ws.receive_message() as parts")
        if self._asking:  # the inbox can wake but one
            raise trio.BusyResourceError("another task is receiving from this block")
        self._asking = True
        try:
            part = await self._next_part()
        finally:
            self._asking = False
        if part is None or not part.data:  # only the last one can be empty
            raise StopAsyncIteration
        return part.data

    async def _next_part(self) -> MessagePart | None:
        if self._next is not None or self._finished:
            await trio.lowlevel.checkpoint()
            part, self._next = self._next, None
            return part
        part = await self._inbox.get_part()
        self._finished = part.final
        return part
