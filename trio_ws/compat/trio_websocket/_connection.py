"""A WebSocket with the methods of trio-websocket's."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial

import trio

from ... import _errors
from ..._connection import close_code_for
from ..._messages import MAX_CONTROL_PAYLOAD
from ..._websocket import WebSocket
from ._words import CloseReason, ConnectionClosed, Endpoint, endpoint


class WebSocketConnection(trio.abc.AsyncResource):
    """A WebSocket with the methods of trio-websocket's."""

    def __init__(
        self,
        ws: WebSocket,
        path: str,
        headers: tuple[tuple[bytes, bytes], ...],
        *,
        is_ssl: bool = False,
    ) -> None:
        self._ws = ws
        self._path = path
        self._headers = headers
        self._is_ssl = is_ssl
        self._receiving = trio.Lock()  # several tasks may receive here
        self._left: deque[str | bytes] = deque()

    def __str__(self) -> str:
        return f"{'client' if self.is_client else 'server'}-{self._ws.id}"

    @property
    def closed(self) -> CloseReason | None:
        """How it ended, `None` while it is open."""
        info = self._ws.close_info
        return None if info is None else CloseReason(info.code, info.reason or None)

    @property
    def is_client(self) -> bool:
        """Whether this side is the client."""
        return self._ws.request is None

    @property
    def is_server(self) -> bool:
        """Whether this side is the server."""
        return not self.is_client

    @property
    def local(self) -> Endpoint | str:
        """This side's address."""
        return endpoint(self._ws.local_address, is_ssl=self._is_ssl)

    @property
    def remote(self) -> Endpoint | str:
        """The peer's address."""
        return endpoint(self._ws.remote_address, is_ssl=self._is_ssl)

    @property
    def path(self) -> str:
        """Path and query of the request."""
        return self._path

    @property
    def subprotocol(self) -> str | None:
        """What both sides agreed on."""
        return self._ws.subprotocol

    @property
    def handshake_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that the peer sent in the handshake."""
        return self._headers

    async def get_message(self) -> str | bytes:
        """Receive the next message.

        Raises:
          ConnectionClosed: it is over, and everything has been received.

        If cancelled: nothing is lost.

        Concurrency: any number of tasks; each message goes to one of them.
        """
        async with self._receiving:
            if self._left:
                return self._left.popleft()
            with self._told():
                return await self._ws.receive()

    async def send_message(self, message: str | bytes) -> None:
        """Send a message: whole, or not at all.

        Raises:
          ConnectionClosed: it is over.
          ValueError: the message is neither `str` nor `bytes`.

        If cancelled: the message is not sent at all.

        Concurrency: any number of tasks.
        """
        if not isinstance(message, (str, bytes)):
            raise ValueError(  # noqa: TRY004  # as there
                f"a message is str or bytes, not {type(message).__name__}"
            )
        with self._told():
            await self._ws.send(message)

    async def ping(self, payload: bytes | None = None) -> None:
        """Send a Ping and wait for its Pong.

        Raises:
          ConnectionClosed: it is over.
          ValueError: such a ping is on its way, or it is too long.

        If cancelled: the Ping may have gone out; its Pong is nobody's.

        Concurrency: any number of tasks.
        """
        with self._told():
            await self._ws.ping(payload)

    async def pong(self, payload: bytes | None = None) -> None:
        """Send a Pong that nobody asked for.

        Raises:
          ConnectionClosed: it is over.
          ValueError: it is too long.

        If cancelled: the Pong is not sent.

        Concurrency: any number of tasks; of those that wait, the latest goes out.
        """
        content = b"" if payload is None else payload
        if len(content) > MAX_CONTROL_PAYLOAD:
            raise ValueError(f"a pong's payload has up to {MAX_CONTROL_PAYLOAD} bytes")
        await trio.lowlevel.checkpoint()
        with self._told():
            self._ws._outbox.check()
        protocol = self._ws._connection.protocol
        self._ws._outbox.put_pong(partial(protocol.pong, content))
        self._ws._outbox.send_pongs()

    async def aclose(self, code: int = 1000, reason: str | None = None) -> None:
        """Close the connection; nothing happens if it is over.

        Raises:
          ValueError: the code or the reason must not be sent.

        If cancelled: the connection is dropped.

        Concurrency: any number of tasks.
        """
        await self._ws.aclose(code, reason or "")

    @contextmanager
    def _told(self) -> Generator[None, None, None]:
        try:
            yield
        except (_errors.ConnectionClosed, trio.ClosedResourceError):
            raise ConnectionClosed(self.closed) from None

    async def _stay(self) -> None:
        """Wait for the end, and keep what has come before it for those who still ask."""
        async with self._ws.open_nursery():
            await trio.sleep_forever()
        async with self._receiving:
            with suppress(_errors.ConnectionClosed, trio.ClosedResourceError):
                while True:
                    self._left.append(await self._ws.receive())
        await self._ws.wait_closed()


def begin_close(connection: WebSocketConnection, error: BaseException) -> None:
    connection._ws._connection.begin_close(close_code_for(error), "", by_user=True)
