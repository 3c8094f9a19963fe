"""Rooms: one message to many, none of whom can hold up another."""

from .._errors import JoinRefused as JoinRefused
from ._broker import Broker as Broker
from ._broker import Publication as Publication
from ._broker import Replay as Replay
from ._broker import Sink as Sink
from ._codec import Codec as Codec
from ._codec import Envelope as Envelope
from ._history import History as History
from ._member import Member as Member
from ._messages import START as START
from ._messages import Joined as Joined
from ._messages import Left as Left
from ._messages import Missed as Missed
from ._messages import Occupant as Occupant
from ._messages import Position as Position
from ._messages import Resume as Resume
from ._messages import RoomMessage as RoomMessage
from ._overflow import Overflow as Overflow
from ._presence import Presence as Presence
from ._queue import Delivery as Delivery
from ._registry import RoomLimits as RoomLimits
from ._rooms import Rooms as Rooms
from ._statistics import MemberStatistics as MemberStatistics
from ._statistics import RoomsStatistics as RoomsStatistics
from ._statistics import RoomStatistics as RoomStatistics
from ._subscription import Subscription as Subscription
