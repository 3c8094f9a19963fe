"""Basic authentication in front of a handler, a page, or whole Routes."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar, cast

import trio

from ._http_response import Response
from ._request import Request, WebSocketRequest
from ._routes import Routes, reject

Check: TypeAlias = Callable[[str, str], "bool | Awaitable[bool]"]
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[object]])


def basic_auth(handler: _Handler, check: Check, *, realm: str = "this site") -> _Handler:
    """Ask for a user and a password before a handler is called (RFC 7617).

    ``handler`` takes WebSockets or is a page, with path parameters or without, or it is a
    `Routes` as a whole. ``check`` is called with user and password, and returns whether
    they are right; it may be async, to look them up. Compare with `secrets.compare_digest`
    (bytes: it refuses text that is not ASCII), and hash passwords in a thread
    (`trio.to_thread.run_sync`).

    Everybody else is answered 401, and browsers ask their user, showing the ``realm``. The
    handler finds the name in ``request.credentials``. Without TLS everybody on the way reads
    the password. Safari sends it for pages, but not for WebSockets (WebKit's bug 80362).

    Raises:
      ValueError: the realm holds other characters than those of ASCII that can be shown.
    """
    if not _SHOWN.fullmatch(realm):
        raise ValueError(f"a realm consists of ASCII characters that can be shown, not {realm!r}")
    quoted = re.sub(r'(["\\])', r"\\\1", realm)
    challenge = {"WWW-Authenticate": f'Basic realm="{quoted}", charset="UTF-8"'}
    refusal = Response("authentication needed\n", status=401, headers=challenge)

    async def authorize(request: Request) -> Response | None:
        await trio.lowlevel.checkpoint()
        found = request.credentials
        if found is None:
            return refusal
        verdict = check(*found)
        right = await verdict if inspect.isawaitable(verdict) else verdict
        return None if right else refusal

    if isinstance(handler, Routes):
        guarded = Routes(authorize=authorize)
        guarded.include("/", handler)
        return cast("_Handler", guarded)

    @functools.wraps(handler)
    async def ask_first(request: Request, **parameters: Any) -> object:
        answer = await authorize(request)
        if answer is None:
            return await handler(request, **parameters)
        if not isinstance(request, WebSocketRequest):
            return answer
        await reject(request, answer)
        return None

    return cast("_Handler", ask_first)


_SHOWN: Final = re.compile(r"[\x20-\x7e]*")
