"""trio_ws and ASGI, both ways: our handlers under an ASGI server, an ASGI app on ours.

`to_asgi` makes an ASGI application of a handler or `Routes`, for hypercorn's trio worker or
to be mounted in a framework. `from_asgi` makes a handler of an ASGI application, and
`serve_asgi` serves one. Everything runs on trio; https://asgi.readthedocs.io is spoken.
"""

from ._from import HostedApplication as HostedApplication
from ._from import from_asgi as from_asgi
from ._serve import serve_asgi as serve_asgi
from ._to import ASGIHandler as ASGIHandler
from ._to import to_asgi as to_asgi

for _thing in (ASGIHandler, HostedApplication, from_asgi, serve_asgi, to_asgi):
    _thing.__module__ = __name__
