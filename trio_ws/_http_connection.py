"""A server's HTTP connection over a stream: requests in, answers out, until the upgrade."""

from __future__ import annotations

import trio

from ._http import ServerHTTP
from ._http_request import RequestHead
from ._streams import READ_SIZE
from ._transport import Transport


class HTTPConnection:
    """A `ServerHTTP`, and the stream that it speaks over. The caller bounds all waiting."""

    def __init__(self, stream: trio.abc.Stream, max_header_size: float) -> None:
        self.stream = stream
        self.transport: Transport = Transport(stream)
        self._fresh = True  # nothing has been read
        self.protocol: ServerHTTP = ServerHTTP(max_header_size)

    @property
    def finished(self) -> bool:
        """Whether there will be no further request."""
        return self.protocol.closing or self.protocol.closed

    async def next_request(self) -> RequestHead | None:
        """Return the next request; `None` if the client has ended the connection.

        Raises:
          BadRequest: to be answered, and the last.
          trio.BrokenResourceError: the connection is lost.
        """
        while (request := self.protocol.next_request()) is None and not self.finished:
            data = self._read_first() or await self.transport.read()
            if data:
                self.protocol.receive_data(data)
            else:
                self.protocol.receive_eof()
        return request

    def _read_first(self) -> bytes | None:
        """Return what came with the connection, if anything did: that saves waiting for it.

        Only once: who is always answered at once would keep all others waiting.
        """
        if not (self._fresh and self.transport.direct):
            return None
        self._fresh = False
        return self.transport.read_now()

    async def wait_gone(self) -> None:
        """Return once the client has ended the connection, in whichever way.

        What it sends meanwhile is the next request. Once that is more than a read, it is
        not listened to any more.
        """
        data = b"."
        try:
            while data and len(self.protocol.leftover) < READ_SIZE:
                data = await self.transport.read()
                self.protocol.receive_data(data)
        except trio.BrokenResourceError:
            return
        if data:
            await trio.sleep_forever()
        self.protocol.receive_eof()

    def take_leftover(self) -> bytes:
        """Return the frames that came behind the request, and keep no copy of them."""
        leftover = self.protocol.leftover
        self.protocol._buffer.take(len(leftover))
        return leftover

    async def send(self, data: bytes) -> None:
        """Send an answer, or a part of one.

        Raises:
          trio.BrokenResourceError: the connection is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        taken = self.transport.write_now(data)
        if taken < len(data):
            await self.stream.send_all(data[taken:])
