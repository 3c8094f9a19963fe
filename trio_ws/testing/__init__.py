"""Tools to test what is built on trio_ws: the real protocol, in memory, on any clock."""

from types import FunctionType as _FunctionType

from ._cancel import Attempt as Attempt
from ._cancel import Cancellations as Cancellations
from ._cancel import cancel_everywhere as cancel_everywhere
from ._cancel import cancellations as cancellations
from ._frame import Frame as Frame
from ._link import Direction as Direction
from ._link import Link as Link
from ._network import MemoryNetwork as MemoryNetwork
from ._pair import Pair as Pair
from ._pair import open_pair as open_pair
from ._pair import open_raw_pair as open_raw_pair
from ._raw_peer import RawPeer as RawPeer
from ._recorder import Entry as Entry
from ._recorder import Recorder as Recorder
from ._serve import Connect as Connect
from ._serve import Serve as Serve
from ._serve import open_server as open_server

# Tracebacks and the docs name things by where users find them, not by our files.
for _thing in tuple(globals().values()):
    if isinstance(_thing, (type, _FunctionType)) and _thing is not _FunctionType:
        _thing.__module__ = __name__
