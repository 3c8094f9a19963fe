"""from_asgi: an ASGI application as a handler of ours.

Each request is a call of the application, which asks with ``receive()`` and answers with
``send()``; here these are made of what a `WebSocketRequest`, a `WebSocket` and an HTTP exchange
offer. Applications may call both from any of their tasks, so the WebSocket's block
is held open by a task of its own, in a nursery around the call.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

import attrs
import trio

from .._connection import close_code_for
from .._errors import ConnectionClosed
from .._http_response import Response
from .._messages import CloseCode
from .._request import Acceptance, Request, WebSocketRequest
from .._server_connection import BeginPage, WaitGone, WritePage
from .._websocket import WebSocket
from ._types import Application, Event, Scope

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.4"}
_FRAMING: Final = frozenset({b"connection", b"content-length", b"date", b"transfer-encoding"})
"""Headers that our server writes itself: a length is handed over apart from them."""


class HostedApplication:
    """A handler that lets an ASGI application answer: what `from_asgi` returns."""

    def __init__(self, app: Application, state: MutableMapping[str, Any]) -> None:
        self._app = app
        self._state = state

    async def __call__(self, request: WebSocketRequest) -> None:
        """Let the application have a request for a WebSocket."""
        scope = _scope(request, "websocket", self._state)
        scope["subprotocols"] = list(request.subprotocols)
        scope["extensions"] = {"websocket.http.response": {}}
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            events = _WebSocketEvents(request, nursery)
            try:
                await self._app(scope, events.receive, events.send)
            except Exception as exc:  # noqa: BLE001  # kept out of the nursery, and raised below
                error = exc
            events.end(error)
        if error is not None:
            raise error

    async def respond(self, request: Request) -> Response | _PageEvents:
        """Let the application have a request for a page; it runs while the answer is sent.

        Raises: nothing; what the application raises comes out of the sending.

        If cancelled: the application does not run.

        Concurrency: any number of tasks.
        """
        await trio.lowlevel.checkpoint()
        if "expect" in request.headers:  # the body waits for us, and we did not wait for it
            return Response("send the body at once\n", status=417)
        scope = _scope(request, "http", self._state)
        scope["method"] = request.method
        return _PageEvents(self._app, scope, request.body)


def from_asgi(
    app: Application, *, state: MutableMapping[str, Any] | None = None
) -> HostedApplication:
    """Make a handler of an ASGI application, for `serve_websocket` and its like.

    The application gets the scopes ``websocket`` and ``http``, with the extension
    ``websocket.http.response``; ``state`` is what its lifespan has filled (`serve_asgi` runs
    that, here it is up to you). It must run on trio.

    Our server's rules come first: origins, limits, handshakes that are none. The bodies of
    requests have up to 16 KiB, answers may have any length. An application that raises is
    a handler that fails: 500, or Close 1011.

    Raises:
      TypeError: this is no application.
    """
    if not callable(app):
        raise TypeError(f"an ASGI application is an async function, not {type(app).__name__}")
    return HostedApplication(app, {} if state is None else state)


def _scope(request: Request, kind: str, state: MutableMapping[str, Any]) -> Scope:
    path, _, query = request.target.partition("?")
    scheme = "ws" if kind == "websocket" else "http"
    return {
        "type": kind,
        "asgi": dict(_VERSIONS),
        "http_version": request._head.http_version,
        "scheme": scheme + "s" if request.secure else scheme,
        "path": request.path,
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in request.headers.items()
        ],
        "client": _host_and_port(request.remote_address),
        "server": _host_and_port(request.local_address),
        "state": dict(state),
    }


def _host_and_port(address: Any) -> tuple[str, int | None] | None:
    if isinstance(address, tuple):
        return address[0], address[1]
    return (address, None) if address else None


def _decode(event: Event) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in event.get("headers", ())
        if name.lower() not in _FRAMING
    ]


# WebSockets...


class _WebSocketEvents:
    """``receive`` and ``send`` of a WebSocket."""

    def __init__(self, request: WebSocketRequest, nursery: trio.Nursery) -> None:
        self._request = request
        self._nursery = nursery
        self._ws: WebSocket | None = None
        self._greeted = False
        self._answered = trio.Event()
        self._over = trio.Event()
        self._denial: Event | None = None
        self._denial_body = bytearray()

    def end(self, error: Exception | None) -> None:
        """Close the WebSocket, if there is one: the application has returned, or failed."""
        if self._ws is not None and error is not None:
            self._ws._connection.begin_close(close_code_for(error), "", by_user=True)
        self._over.set()

    async def receive(self) -> Event:
        await trio.lowlevel.checkpoint()
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        await self._answered.wait()
        if self._ws is None:
            return _disconnect(CloseCode.ABNORMAL, "")
        try:
            message = await self._ws.receive()
        except (ConnectionClosed, trio.ClosedResourceError):
            assert self._ws.close_info is not None
            return _disconnect(self._ws.close_info.code, self._ws.close_info.reason)
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def send(self, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        kind = event["type"]
        if self._ws is not None and kind == "websocket.send":
            await self._send_message(self._ws, event)
        elif self._ws is not None and kind == "websocket.close":
            await self._ws.aclose(event.get("code", 1000), event.get("reason") or "")
        elif self._ws is None and kind == "websocket.accept":
            await self._accept(event)
        elif self._ws is None and kind == "websocket.close":
            await self._request.reject(403)
            self._answered.set()
        elif self._ws is None and kind == "websocket.http.response.start":
            self._denial = event
        elif self._denial is not None and kind == "websocket.http.response.body":
            await self._deny(self._denial, event)
        else:
            when = "before" if self._ws is None else "behind"
            raise RuntimeError(f"ASGI: {kind} {when} the WebSocket has been accepted")

    async def _send_message(self, ws: WebSocket, event: Event) -> None:
        text = event.get("text")
        try:
            await ws.send(event["bytes"] if text is None else text)
        except (ConnectionClosed, trio.ClosedResourceError) as exc:
            raise BrokenPipeError("the WebSocket is closed") from exc

    async def _accept(self, event: Event) -> None:
        acceptance = self._request.accept(event.get("subprotocol"), headers=_decode(event))
        self._ws = await self._nursery.start(self.stay, acceptance)
        self._answered.set()

    async def stay(
        self, acceptance: Acceptance, *, task_status: trio.TaskStatus[WebSocket]
    ) -> None:
        """Hold the WebSocket's block open while the application runs."""
        async with acceptance as ws:
            task_status.started(ws)
            await self._over.wait()

    async def _deny(self, start: Event, event: Event) -> None:
        await trio.lowlevel.checkpoint()
        self._denial_body += event.get("body", b"")
        if not event.get("more_body", False):
            body = bytes(self._denial_body)
            await self._request.reject(start["status"], body=body, headers=_decode(start))
            self._answered.set()


def _disconnect(code: int, reason: str) -> Event:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


# Pages...


@attrs.define(eq=False)
class _PageEvents:
    """``receive`` and ``send`` of a request for a page, and the answer that comes of them."""

    _app: Application
    _scope: Scope
    _body: bytes
    _asked: bool = False
    _start: Event | None = None
    _begun: bool = False
    _ended: bool = False  # the answer
    _gone: bool = False  # the client
    _watched: bool = False  # whether it goes
    _over: trio.Event = attrs.field(factory=trio.Event)  # whichever is first

    async def answer(self, begin: BeginPage, write: WritePage, wait_gone: WaitGone) -> None:
        """Let the application answer.

        Raises: what it raises; `RuntimeError` if it does not answer in full;
        `trio.BrokenResourceError` if the client has gone before.
        """

        async def receive() -> Event:
            return await self._receive(wait_gone)

        async def send(event: Event) -> None:
            try:
                await self._send(event, begin, write)
            except trio.BrokenResourceError as exc:
                self._over.set()
                raise BrokenPipeError("the client has gone") from exc

        try:
            await self._app(self._scope, receive, send)
        except BrokenPipeError as exc:
            if isinstance(exc.__cause__, trio.BrokenResourceError):
                raise exc.__cause__ from None  # no error of the application
            raise
        if not self._ended:
            if self._gone:
                raise trio.BrokenResourceError("the client has gone")
            raise RuntimeError("the ASGI application has returned in the middle of its answer")

    async def _receive(self, wait_gone: WaitGone) -> Event:
        await trio.lowlevel.checkpoint()
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if self._watched:
            await self._over.wait()
        else:
            self._watched = True
            try:
                await self._wait_over(wait_gone)
            finally:
                self._watched = False
        return {"type": "http.disconnect"}

    async def _wait_over(self, wait_gone: WaitGone) -> None:
        async def watch() -> None:
            await wait_gone()
            self._gone = True
            self._over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self._over.wait()
            nursery.cancel_scope.cancel()

    async def _send(self, event: Event, begin: BeginPage, write: WritePage) -> None:
        await trio.lowlevel.checkpoint()
        kind = event["type"]
        if kind == "http.response.start" and self._start is None:
            self._start = event
        elif kind == "http.response.body" and self._start is not None:
            if not self._begun:
                self._begun = True
                await begin(*_head(self._start))
            await write(event.get("body", b""))
            if not event.get("more_body", False):
                self._ended = True
                self._over.set()
        else:
            raise RuntimeError(f"ASGI: {kind} does not fit here")


def _head(start: Event) -> tuple[Response, int | None]:
    lengths = [
        int(value) for name, value in start.get("headers", ()) if name.lower() == b"content-length"
    ]
    head = Response(status=start["status"], headers=_decode(start))
    return head, lengths[0] if lengths else None
