"""Pages for those who run a server: whether it is ready, and what it has done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

import attrs
import trio

from ._http_response import Response
from ._request import Request
from ._server_connection import RETRY_AFTER
from ._server_statistics import ServerStatistics
from .rooms import Rooms

StatusPage: TypeAlias = Callable[[Request], Awaitable[Response]]


def health_page() -> StatusPage:
    """Make a page that tells whether clients may be sent here.

    Use it as ``routes.get("/health")(health_page())``. It answers 200 while the server takes
    connections, and 503 from the moment in which it is drained, so that a load balancer looks
    for another one. No answer at all means that it is dead.
    """

    async def health(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if request.server is not None and request.server.draining:
            headers = {"Retry-After": str(RETRY_AFTER), **_FRESH}
            return Response("draining\n", status=503, headers=headers)
        return Response("ok\n", headers=_FRESH)

    return health


def metrics_page(**rooms: Rooms) -> StatusPage:
    """Make a page of figures for Prometheus.

    Use it as ``routes.get("/metrics")(metrics_page(chat=rooms))``. It shows what
    `Server.statistics` tells, and the totals of `Rooms.statistics` of each ``rooms``, with the
    name as a label; no single rooms, whose names may be anybody's choice. The format is that
    of Prometheus' text files, version 0.0.4. It is for your eyes alone: serve it behind
    `basic_auth`, or on a port of its own.
    """

    async def metrics(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        lines: list[str] = []
        if request.server is not None:
            lines += _of_server(request.server.statistics(), bool(request.server.draining))
        lines += _of_rooms(rooms)
        return Response("".join(lines), content_type=_TEXT_FORMAT, headers=_FRESH)

    return metrics


_FRESH: Final = {"Cache-Control": "no-store"}
_TEXT_FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample: TypeAlias = "tuple[str, object, float]"
"""A label's name, its value, and the figure; without a name there is no label."""

# What ends in _total only ever grows: Prometheus' own convention.
_COUNTERS: Final = {
    "accepted": "WebSockets so far.",
    "handler_errors": "Handlers that failed.",
    "accept_failures": "Connections not accepted for want of descriptors or memory.",
    "messages_received": "Messages that handlers have received.",
    "messages_sent": "Messages that handlers have sent.",
    "bytes_received": "Bytes that came over WebSockets.",
    "bytes_sent": "Bytes that WebSockets have sent.",
}
_GAUGES: Final = {
    "connections": "WebSockets that are open.",
    "opening": "TCP connections whose first request is yet to be answered.",
    "memory": "Bytes in use of the memory budget; 0 if there is none.",
    "unread_bytes": "Bytes that wait for a handler to receive them.",
    "queued_bytes": "Bytes that wait for the network to take them.",
}
_BY_NUMBER: Final = {
    "rejected": ("status", "Requests for a WebSocket that were refused, by HTTP status."),
    "pages": ("status", "Pages that were answered, by HTTP status."),
    "close_codes": ("code", "WebSockets that have ended, by close code."),
}
_ROOM_COUNTERS: Final = {
    "published": "Messages that were published while somebody was there.",
    "addressed": "Messages times those who were to get them.",
    "delivered": "Of those, what was handed over or waits in a queue.",
    "dropped": "Of those, what a policy has dropped.",
    "disconnected": "Of those, what a member missed because its connection ended.",
    "replayed": "Messages of the history that were replayed.",
}
_ROOM_GAUGES: Final = {
    "members": "Places of connections in rooms.",
    "subscriptions": "Subscriptions to rooms.",
    "waiting": "Messages that a publisher waits with for a member.",
    "queued": "Messages in the queues of members who are behind.",
    "queued_bytes": "Bytes of these.",
}


def _of_server(statistics: ServerStatistics, draining: bool) -> Iterable[str]:
    values = attrs.asdict(statistics)
    yield from _family("draining", "gauge", "Whether it is drained.", [("", "", int(draining))])
    for name, help_text in _GAUGES.items():
        yield from _family(name, "gauge", help_text, [("", "", values[name])])
    for name, help_text in _COUNTERS.items():
        yield from _family(f"{name}_total", "counter", help_text, [("", "", values[name])])
    for name, (label, help_text) in _BY_NUMBER.items():
        samples = [(label, number, count) for number, count in sorted(values[name].items())]
        yield from _family(f"{name}_total", "counter", help_text, samples)


def _of_rooms(rooms: Mapping[str, Rooms]) -> Iterable[str]:
    if not rooms:
        return
    all_statistics = {name: each.statistics() for name, each in rooms.items()}
    counts = [("rooms", name, len(each.rooms)) for name, each in all_statistics.items()]
    yield from _family("rooms", "gauge", "Rooms that somebody is in.", counts)
    totals = {name: attrs.asdict(each.total) for name, each in all_statistics.items()}
    for kind, suffix, family in (
        ("gauge", "", _ROOM_GAUGES),
        ("counter", "_total", _ROOM_COUNTERS),
    ):
        for field, help_text in family.items():
            samples = [("rooms", name, values[field]) for name, values in totals.items()]
            yield from _family(f"rooms_{field}{suffix}", kind, help_text, samples)


def _family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> Iterable[str]:
    yield f"# HELP trio_ws_{name} {help_text}\n# TYPE trio_ws_{name} {kind}\n"
    for label, value, figure in samples:
        labels = f'{{{label}="{_escape(value)}"}}' if label else ""
        yield f"trio_ws_{name}{labels} {figure}\n"


def _escape(value: object) -> str:
    return str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
