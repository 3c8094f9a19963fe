"""trio_ws: WebSockets for trio: server, client and rooms, with structured concurrency."""

from types import FunctionType as _FunctionType

from ._backoff import Backoff as Backoff
from ._backoff import is_transient as is_transient
from ._basic_auth import basic_auth as basic_auth
from ._client import open_websocket as open_websocket
from ._client import open_websocket_over_stream as open_websocket_over_stream
from ._errors import BrokerDown as BrokerDown
from ._errors import BrokerOverflow as BrokerOverflow
from ._errors import ConnectionClosed as ConnectionClosed
from ._errors import ConnectionEnded as ConnectionEnded
from ._errors import ConnectionLost as ConnectionLost
from ._errors import ConnectionRejected as ConnectionRejected
from ._errors import HandshakeError as HandshakeError
from ._errors import HandshakeTimeout as HandshakeTimeout
from ._errors import ProtocolViolation as ProtocolViolation
from ._errors import ProxyRejected as ProxyRejected
from ._errors import WebSocketError as WebSocketError
from ._flag import Flag as Flag
from ._http_response import Response as Response
from ._messages import CloseCode as CloseCode
from ._messages import CloseInfo as CloseInfo
from ._messages import PreparedMessage as PreparedMessage
from ._options import ANY_ORIGIN as ANY_ORIGIN
from ._options import SAME_ORIGIN as SAME_ORIGIN
from ._options import Deflate as Deflate
from ._options import Options as Options
from ._reconnect import Sessions as Sessions
from ._reconnect import SessionsStatistics as SessionsStatistics
from ._reconnect import open_reconnecting as open_reconnecting
from ._request import Request as Request
from ._request import ServerStatus as ServerStatus
from ._request import WebSocketRequest as WebSocketRequest
from ._routes import Routes as Routes
from ._server import Server as Server
from ._server import serve_websocket as serve_websocket
from ._server import serve_websocket_listeners as serve_websocket_listeners
from ._server import serve_websocket_unix as serve_websocket_unix
from ._server_statistics import ServerStatistics as ServerStatistics
from ._status_pages import health_page as health_page
from ._status_pages import metrics_page as metrics_page
from ._websocket import WebSocket as WebSocket
from ._websocket import WebSocketStatistics as WebSocketStatistics
from .rooms import START as START
from .rooms import Codec as Codec
from .rooms import Envelope as Envelope
from .rooms import History as History
from .rooms import Joined as Joined
from .rooms import JoinRefused as JoinRefused
from .rooms import Left as Left
from .rooms import Member as Member
from .rooms import MemberStatistics as MemberStatistics
from .rooms import Missed as Missed
from .rooms import Occupant as Occupant
from .rooms import Overflow as Overflow
from .rooms import Position as Position
from .rooms import Presence as Presence
from .rooms import Resume as Resume
from .rooms import RoomLimits as RoomLimits
from .rooms import RoomMessage as RoomMessage
from .rooms import Rooms as Rooms
from .rooms import RoomsStatistics as RoomsStatistics
from .rooms import RoomStatistics as RoomStatistics
from .rooms import Subscription as Subscription

# Tracebacks, pickles and the docs name things by where users find them, not by our files.
for _thing in tuple(globals().values()):
    if isinstance(_thing, (type, _FunctionType)) and _thing is not _FunctionType:
        _thing.__module__ = __name__
