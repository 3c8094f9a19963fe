"""What code that was written for trio-websocket needs, on top of trio_ws.

``from trio_ws.compat import trio_websocket`` stands in for ``import trio_websocket``: names,
arguments and errors are those that its users know. Behind them is trio_ws: messages are sent
whole or not at all, pings are answered while nobody receives, and a server cannot be ended by
a peer. What only ever tuned the other package (``message_queue_size``,
``receive_buffer_size``) is accepted and means nothing.

As there, and unlike the rest of trio_ws: no proxy, no compression, no pings of its
own, and a server lets pages of every origin in.
"""

from ._client import connect_websocket as connect_websocket
from ._client import connect_websocket_url as connect_websocket_url
from ._client import open_websocket as open_websocket
from ._client import open_websocket_url as open_websocket_url
from ._client import wrap_client_stream as wrap_client_stream
from ._connection import WebSocketConnection as WebSocketConnection
from ._server import WebSocketRequest as WebSocketRequest
from ._server import WebSocketServer as WebSocketServer
from ._server import serve_websocket as serve_websocket
from ._words import CloseReason as CloseReason
from ._words import ConnectionClosed as ConnectionClosed
from ._words import ConnectionRejected as ConnectionRejected
from ._words import ConnectionTimeout as ConnectionTimeout
from ._words import DisconnectionTimeout as DisconnectionTimeout
from ._words import Endpoint as Endpoint
from ._words import HandshakeError as HandshakeError

for _thing in tuple(globals().values()):
    if getattr(_thing, "__module__", "").startswith("trio_ws.compat.trio_websocket._"):
        _thing.__module__ = __name__
