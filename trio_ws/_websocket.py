"""WebSocket: what the user of a connection sees."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Literal, TypeVar, overload

import attrs
import trio

from ._byte_stream import ByteStream
from ._connection import Connection, close_code_for
from ._flag import Flag
from ._http_request import RequestHead
from ._linked_nursery import LinkedNursery
from ._message_streams import MessageReceiver, MessageSender
from ._messages import (
    MAX_CONTROL_PAYLOAD,
    CloseCode,
    CloseInfo,
    PreparedMessage,
    as_data,
    check_close,
)
from ._pace import SendingPace
from ._streams import RelayedStream
from ._views import View, as_it_is, decode_json, encode_binary, encode_json, encode_text

T = TypeVar("T")


@attrs.frozen
class WebSocketStatistics:
    """What `WebSocket.statistics` returns: a snapshot."""

    messages_received: int
    """Messages that were handed to a receiver."""
    messages_sent: int
    """Messages that were queued whole; they may not all have left."""
    bytes_received: int
    """Bytes that came from the network since the handshake."""
    bytes_sent: int
    """Bytes that the network took since the handshake."""
    unread_messages: int
    """Complete messages that wait to be received."""
    unread_bytes: int
    """Bytes of unread messages, complete or not."""
    reading_paused: bool
    """Whether the peer is held back until somebody receives."""
    queued_bytes: int
    """Bytes that the network has not taken yet."""
    waiting_senders: int
    """Tasks in `WebSocket.send` that wait for room."""
    pings_in_flight: int
    """Pings that were not answered yet."""


class WebSocket(trio.abc.Channel["str | bytes"]):
    """An open WebSocket connection: a `trio.abc.Channel` of `str` and `bytes`.

    Made by ``request.accept()``, `open_websocket` and `open_websocket_over_stream`;
    its tasks live in their ``async with`` block.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        subprotocol: str | None,
        request: RequestHead | None,
        local_address: Any,
        remote_address: Any,
        draining: Flag,
    ) -> None:
        self._connection = connection
        self._inbox = connection.inbox
        self._outbox = connection.outbox
        self._pace = SendingPace()
        self._subprotocol = subprotocol
        self._request = request
        self._local_address = local_address
        self._remote_address = remote_address
        self._draining = draining

    def __repr__(self) -> str:
        role = "client" if self._connection.client else "server"
        return f"<WebSocket {role} {self.id} {self.close_info or 'open'}>"

    # What one may ask...

    @property
    def id(self) -> str:
        """A random name of 16 hexadecimal digits, as it stands in the log."""
        return self._connection.id

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on."""
        return self._subprotocol

    @property
    def request(self) -> RequestHead | None:
        """Server: what was asked for: path, query, headers, cookies, ... Client: `None`.

        Whose request it was, `remote_address` tells.
        """
        return self._request

    @property
    def local_address(self) -> Any:
        """This side's socket address; `None` if the stream is no socket."""
        return self._local_address

    @property
    def remote_address(self) -> Any:
        """The peer's socket address; `None` if the stream is no socket."""
        return self._remote_address

    @property
    def close_info(self) -> CloseInfo | None:
        """How the connection ended, or is about to; `None` while it is open."""
        return self._connection.info

    @property
    def draining(self) -> Flag:
        """Whether the server stops or is drained: true, or awaited with ``draining.wait()``."""
        return self._draining

    @property
    def latency(self) -> float | None:
        """The last round trip of a ping in seconds, keepalive's included."""
        return self._connection.pings.latency

    def statistics(self) -> WebSocketStatistics:
        """Return counters and queue lengths of this moment."""
        connection = self._connection
        return WebSocketStatistics(
            messages_received=self._inbox.received,
            messages_sent=connection.messages_sent,
            bytes_received=connection.bytes_received,
            bytes_sent=connection.bytes_sent,
            unread_messages=self._inbox.unread_messages,
            unread_bytes=self._inbox.size,
            reading_paused=self._inbox.full,
            queued_bytes=self._outbox.size,
            waiting_senders=self._outbox.waiting_senders,
            pings_in_flight=len(connection.pings),
        )

    # Receiving...

    async def receive(self) -> str | bytes:
        """Receive the next message: `str` for text, `bytes` for binary.

        Raises:
          ConnectionEnded: the peer ended the connection politely (1000, 1001, no code)
              and everything before that has been received.
          ConnectionLost: the connection ended in any other way; likewise.
          trio.ClosedResourceError: after ``aclose()``, or behind the block.
          trio.BusyResourceError: another task is receiving.

        If cancelled: nothing is lost, the message stays for the next call.

        Concurrency: one task at a time.
        """
        return await self._inbox.get()

    async def __anext__(self) -> str | bytes:
        """As `receive`, but for the polite end: then there is no next one."""
        try:
            return await self._inbox.get()  # not `receive`: one step less for each message
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def receive_message(self) -> MessageReceiver:
        """Receive one message chunk by chunk: ``async with ws.receive_message() as parts``.

        Entering the block waits for a message to begin; ``async for chunk in parts``
        then yields its text or bytes as they come, and ``parts.text`` tells which.
        What is left when the block ends is thrown away.

        Raises: as `receive`, when the block is entered and for each chunk.

        If cancelled: no chunk is lost as long as the block goes on.

        Concurrency: one task at a time, `receive` included.
        """
        return MessageReceiver(self._inbox)

    # Sending...

    async def send(  # pyright: ignore[reportIncompatibleMethodOverride]  # trio says "value"
        self, data: Any, *, compress: bool | None = None
    ) -> None:
        """Send a message: `str` as text, anything bytes-like as binary, or a `PreparedMessage`.

        Returns once the message is queued whole; waits while ``options.send_buffer``
        bytes are queued already. ``compress`` overrules ``Deflate.threshold``.

        Raises:
          TypeError: ``data`` is none of these; encode it first, or use ``ws.json()``.
          ValueError: the text holds lone surrogates.
          ConnectionLost: the connection is over; the message was not sent.
          trio.ClosedResourceError: after ``aclose()``, or behind the block.

        If cancelled: the message was not sent, not even in part.

        Concurrency: any number of tasks; messages leave in the order of the calls.
        """
        prepared = isinstance(data, PreparedMessage)
        message = data if prepared or isinstance(data, (str, bytes)) else as_data(data)
        connection, outbox = self._connection, self._outbox
        await trio.lowlevel.checkpoint_if_cancelled()
        if outbox.has_room():
            frames = connection.protocol.encode(message, compress=compress)
            outbox.put(frames, shared=prepared)
        else:
            await outbox.take_turn()
            try:
                frames = connection.protocol.encode(message, compress=compress)
                outbox.put(frames, shared=prepared)
            finally:
                outbox.end_turn()
        connection.messages_sent += 1
        if self._pace.is_due():
            await trio.lowlevel.cancel_shielded_checkpoint()

    def open_message(self, *, text: bool = True, compress: bool | None = None) -> MessageSender:
        """Send one message in fragments: ``async with ws.open_message(text=True) as part``.

        Each ``await part.send(chunk)`` sends some of it (`str` with ``text``, else
        bytes-like); the end of the block ends the message. Other senders wait meanwhile.
        An exception in the block after the first chunk ends the connection (1011, or
        1001 if cancelled): a message cut short must not pass for a whole one.

        Raises: as `send`, when the block is entered, for each chunk, and at its end.

        If cancelled: ``part.send`` has sent nothing of this chunk.

        Concurrency: any number of tasks; one message at a time.
        """
        protocol = self._connection.protocol
        return MessageSender(self._outbox, protocol, self._message_done, text, compress)

    def _message_done(self, error: BaseException | None) -> None:
        if error is None:
            self._connection.messages_sent += 1
        elif self.close_info is None:
            self._connection.begin_close(close_code_for(error), "message given up halfway")

    async def ping(self, payload: bytes | None = None) -> float:
        """Send a Ping, wait for its Pong, and return the seconds between.

        ``payload`` is up to 125 bytes; by default four random ones. The time begins
        when the Ping has left. While reading is paused no Pong can be seen.

        Raises:
          TypeError: the payload is not bytes-like.
          ValueError: the payload is longer than 125 bytes (RFC 6455, section 5.5), or a
              ping with the same one is on its way.
          ConnectionLost: the connection is over, or ends before the Pong.
          trio.ClosedResourceError: after ``aclose()``, or behind the block.
          NotImplementedError: an ASGI server has the connection, and lets nobody ping.

        If cancelled: the Ping may have left; its Pong is ignored.

        Concurrency: any number of tasks.
        """
        content = secrets.token_bytes(4) if payload is None else _check_ping(payload)
        if isinstance(self._connection._transport.stream, RelayedStream):
            raise NotImplementedError("ASGI has no pings: let the ASGI server send them")
        await trio.lowlevel.checkpoint_if_cancelled()
        if content in self._connection.pings:
            raise ValueError(f"a ping with the payload {content!r} is on its way")
        ping = self._connection.start_ping(content)
        try:
            await ping.over.wait()
        finally:
            self._connection.pings.forget(content, ping)
        if ping.round_trip is None:
            raise self._connection.sender_error()
        return ping.round_trip

    # Views...

    @property
    def text(self) -> trio.abc.Channel[str]:
        """The connection as a channel of text messages.

        What holds for a view holds for `binary`, `json` and `typed`: ``receive()``, ``send()``
        and ``async for`` are the connection's own, with its errors, its guarantees on
        cancellation and one task at a time in ``receive()``; ``aclose()`` closes the
        connection. A message of the wrong type, or one that cannot be decoded, ends the
        connection: with Close 1003, or 1007. The receiver gets `ConnectionLost`, and as the
        cause of that a `ProtocolViolation` which tells what was wrong.
        """
        return View(self, self._connection, encode_text, as_it_is, text=True)

    @property
    def binary(self) -> trio.abc.Channel[bytes]:
        """The connection as a channel of binary messages: see `text`."""
        return View(self, self._connection, encode_binary, as_it_is, text=False)

    def json(self) -> trio.abc.Channel[Any]:
        """Return the connection as a channel of values, each a text message of JSON.

        What is not JSON (RFC 8259: NaN is not, either) ends the connection with Close
        1007, a binary message with 1003; the rest is as `text` tells. Whatever is received can
        be sent. ``send`` raises `TypeError` or `ValueError` for what has no JSON.
        """
        return View(self, self._connection, encode_json, decode_json, text=True)

    @overload
    def typed(
        self,
        encode: Callable[[T], str | bytes | PreparedMessage],
        decode: Callable[[str | bytes], T],
        *,
        text: None = None,
    ) -> trio.abc.Channel[T]: ...

    @overload
    def typed(
        self,
        encode: Callable[[T], str | bytes | PreparedMessage],
        decode: Callable[[str], T],
        *,
        text: Literal[True],
    ) -> trio.abc.Channel[T]: ...

    @overload
    def typed(
        self,
        encode: Callable[[T], str | bytes | PreparedMessage],
        decode: Callable[[bytes], T],
        *,
        text: Literal[False],
    ) -> trio.abc.Channel[T]: ...

    def typed(
        self,
        encode: Callable[[T], str | bytes | PreparedMessage],
        decode: Callable[[Any], T],
        *,
        text: bool | None = None,
    ) -> trio.abc.Channel[T]:
        """Return the connection as a channel of whatever a codec makes of messages.

        ``encode(value)`` returns the message to send, ``decode(message)`` the value that
        was received. With ``text=True`` (or `False`) only text (or binary) is taken.

        Any `Exception` out of ``decode`` is the peer's fault: Close 1007, see `text`; it
        is kept as the cause of the `ProtocolViolation`, and its type is logged at level
        INFO. What ``encode`` raises comes out of ``send()``, and nothing was sent.

        Raises:
          TypeError: one of the two is no function.
        """
        return View(self, self._connection, encode, decode, text=text)

    def as_stream(self, *, compress: bool | None = None) -> trio.abc.HalfCloseableStream:
        """Return the connection as a stream of bytes, carried by binary messages.

        Message borders mean nothing: ``send_all()`` cuts what is longer than 64 KiB. The
        polite end of the connection is the end of the stream; a text message ends it
        with Close 1003. ``aclose()`` closes the connection with 1000. ``compress``: as `send`.

        A WebSocket has no half-close (RFC 6455, section 5.5.1). So ``send_eof()`` sends an
        empty binary message, which such a stream at the other side reads as the end of
        this direction, while its own goes on. Other peers may not know: close, then.

        Raises: as `trio.abc.HalfCloseableStream` says. `ConnectionLost` is a
        `trio.BrokenResourceError`.

        If cancelled: ``receive_some()`` loses nothing; of ``send_all()``'s data, whole
        messages may have been sent.

        Concurrency: one task receives, one sends. Make one stream, and read no messages beside.
        """
        return ByteStream(self, self.binary, self._outbox, compress)

    # Closing...

    async def aclose(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection: send what is queued, say Close, wait for the peer's, end TCP.

        Takes ``options.close_grace`` seconds at most; then TCP is ended without more
        ado. Unread messages are dropped. Does nothing if the connection is over.

        Raises:
          TypeError, ValueError: a code or reason that must not be sent (RFC 6455,
              section 7.4: 1000-1003, 1007-1014, 3000-4999; 123 bytes of reason).

        If cancelled: TCP is ended at once (`trio.aclose_forcefully` does that).

        Concurrency: any number of tasks; the first one's code is sent.
        """
        check_close(code, reason)
        connection = self._connection
        deadline = trio.current_effective_deadline()
        connection.begin_close(code, reason, by_user=True)
        if connection.hangs_on_us(trio.lowlevel.current_task()):
            # Just cancelled, by ourselves: that shall not cut the goodbye short.
            with trio.CancelScope(shield=True, deadline=deadline):
                await connection.over.wait()
        try:
            await connection.over.wait()
        except trio.Cancelled:
            connection.abort()
            with trio.CancelScope(shield=True):
                await connection.over.wait()
            raise

    async def wait_closed(self) -> CloseInfo:
        """Wait until the connection is over, TCP included, and say how it ended.

        Raises: nothing.

        If cancelled: nothing changes.

        Concurrency: any number of tasks.
        """
        await self._connection.over.wait()
        assert self.close_info is not None
        return self.close_info

    def open_nursery(self) -> LinkedNursery:
        """Open a nursery whose tasks live no longer than the connection.

        It is cancelled once the connection is over, whoever ended it: at once after a
        local close, and if none of its tasks receives. Otherwise whoever is in the
        middle of a message gets up to ``options.close_grace`` to come back to
        ``receive()``, until everything has been received.

        The block ends quietly then: a `ConnectionClosed` of this connection that leaves
        a task means the same as being cancelled. ``ws.close_info`` tells the rest.

        Raises: an `ExceptionGroup` of everything else, as any nursery does.

        If cancelled: as any nursery.

        Concurrency: any number of them, also nested.
        """
        return LinkedNursery(self._connection)


def _check_ping(payload: Any) -> bytes:
    content = as_data(payload)
    if isinstance(content, str):
        raise TypeError("a ping's payload is bytes-like, not str")
    if len(content) > MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a ping's payload has up to {MAX_CONTROL_PAYLOAD} bytes")
    return content
