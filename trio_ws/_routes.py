"""Routes: one port for pages and WebSockets.

A `Routes` is a handler for `serve_websocket` that picks another handler by the path.
It is no web framework: enough HTTP for the page that opens the socket.
"""

from __future__ import annotations

import inspect
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import trio

from ._files import NOT_FOUND
from ._http_response import Response, upgrade_required
from ._request import Request, WebSocketRequest
from ._server_connection import check_awaitable
from ._static import StaticFiles, with_slash

WebSocketHandler: TypeAlias = Callable[..., Awaitable[object]]
PageFunction: TypeAlias = Callable[..., Awaitable[Response]]
Authorize: TypeAlias = Callable[[Request], Awaitable[Response | None]]
"""What `Routes` ask before a page or a WebSocket: a response refuses, `None` lets in."""
_WebSocketHandler = TypeVar("_WebSocketHandler", bound=WebSocketHandler)
_PageFunction = TypeVar("_PageFunction", bound=PageFunction)

_CONVERTERS: Final[dict[str, tuple[str, str, Callable[[str], object]]]] = {
    # What each character may be, how many there may be, and what becomes of them.
    "str": (r"[^/]", "+", str),
    "int": (r"[0-9]", "{1,18}", int),  # what 64 bits hold
    "float": (r"[0-9.]", "{1,18}", float),
    "uuid": (r"[0-9a-fA-F-]", "{36}", uuid.UUID),
    "path": (r".", "+", str),
}
_PARAMETER: Final = re.compile(r"\{([^{}]*)\}")
_METHOD_NOT_ALLOWED: Final = Response(
    "method not allowed\n", status=405, headers={"Allow": "GET, HEAD"}
)


@attrs.frozen
class _Pattern:
    """A path with parameters: ``/chat/{room}``, ``/page/{n:int}``, ``/files/{rest:path}``."""

    regex: re.Pattern[str]
    converters: dict[str, Callable[[str], object]]

    def match(self, path: str) -> dict[str, object] | None:
        """Return the parameters, `None` if the path is another one."""
        found = self.regex.fullmatch(path)
        if found is None:
            return None
        try:
            return {name: self.converters[name](text) for name, text in found.groupdict().items()}
        except ValueError:  # "1.2.3", for one
            return None


@attrs.frozen
class _Found:
    handler: Callable[..., Awaitable[Any]]
    parameters: dict[str, object]
    guards: tuple[Authorize, ...] = ()

    async def refusal(self, request: Request) -> Response | None:
        """Ask all guards, the outermost first; return the first refusal."""
        await trio.lowlevel.checkpoint()
        for guard in self.guards:
            answer = await guard(request)
            if answer is not None:
                if isinstance(answer, Response):
                    return answer
                raise TypeError(
                    f"{guard!r} returned {type(answer).__name__}: return None to let somebody"
                    " in, and a Response to refuse"
                )
        return None


class Routes:
    """Handlers by path: a plain value, to be served or included in another one.

    Paths are compared after percent-decoding, in the order in which they were added.
    ``{name}`` is a segment or a part of one, ``{name:int}`` and ``{name:float}`` are numbers
    without a sign, of up to 18 characters, ``{name:uuid}`` is a `uuid.UUID` in its usual
    form, ``{name:path}`` is all that follows. Each takes as much as it can. They arrive as
    keyword arguments.

    ``authorize`` is an async function that is asked before each page and each WebSocket that
    is found here, or in what is included here: `None` lets the request in, a `Response`
    refuses it (to a WebSocket its status has to be 300 or more). It sees headers, cookies
    and path, and may wait, for a database for one.
    """

    def __init__(self, *, authorize: Authorize | None = None) -> None:
        self._guards = () if authorize is None else (authorize,)
        self._websockets: list[_Route | _Inclusion] = []
        self._pages: list[_Route | _Inclusion] = []

    def websocket(self, pattern: str) -> Callable[[_WebSocketHandler], _WebSocketHandler]:
        """Register a handler of WebSockets: ``@routes.websocket("/chat/{room}")``.

        Raises:
          ValueError: the pattern is none.
          TypeError: the handler does not take the pattern's parameters.
        """
        return self._register(self._websockets, pattern)

    def get(self, pattern: str) -> Callable[[_PageFunction], _PageFunction]:
        """Register a page, for GET and HEAD: an async function that returns a `Response`.

        Raises: as `websocket`.
        """
        return self._register(self._pages, pattern)

    def static(self, prefix: str, folder: str | os.PathLike[str]) -> None:
        """Serve the files of a folder below ``prefix``; ``index.html`` for a folder.

        Nothing outside of the folder is served, not even through links, and nothing whose
        name begins with a dot, but for ``.well-known`` (RFC 8615). Files are looked up anew
        for each request, and sent as `Response.file` does. Browsers may keep them, and ask
        whether they have changed. The prefix ``/`` takes every path: add other pages first.

        Raises:
          ValueError: the prefix does not begin with ``/``, or has parameters.
          NotADirectoryError: there is no such folder.
        """
        files = StaticFiles(folder)
        base = _check_prefix(prefix)

        async def file(request: Request, *, rest: str = "") -> Response:
            return await files.respond(request, rest)

        async def folder_itself(request: Request) -> Response:
            await trio.lowlevel.checkpoint()
            return with_slash(request)

        if base:
            self.get(base)(folder_itself)
        self.get(base + "/")(file)
        self.get(base + "/{rest:path}")(file)

    def include(self, prefix: str, other: Routes) -> None:
        """Serve all of another `Routes` below ``prefix``, also what it gets later.

        Raises:
          ValueError: the prefix does not begin with ``/``, has parameters, or ``other``
              would include itself.
          TypeError: ``other`` is no `Routes`.
        """
        base = _check_prefix(prefix)
        if not isinstance(other, Routes):
            raise TypeError(f"what is included is a Routes, not {type(other).__name__}")
        if other is self or self in other._descendants():
            raise ValueError("these Routes would include themselves")
        inclusion = _Inclusion(base, other)
        self._websockets.append(inclusion)
        self._pages.append(inclusion)

    async def __call__(self, request: WebSocketRequest) -> None:
        """Handle a request for a WebSocket: 404 if there is none at its path."""
        found = self._find_websocket(request.path)
        if found is None:
            await request.reject(404, body="there is no WebSocket here\n")
            return
        refusal = await found.refusal(request) if found.guards else None
        if refusal is not None:
            await reject(request, refusal)
            return
        handler = found.handler
        await check_awaitable(handler, handler(request, **found.parameters))

    async def respond(self, request: Request) -> Response:
        """Answer a request for a page: 404, 405, or 426 where only a WebSocket is.

        Raises:
          TypeError: the page returned something else than a `Response`.
          Whatever the page or ``authorize`` raises.

        If cancelled: there is no answer.

        Concurrency: any number of tasks.
        """
        await trio.lowlevel.checkpoint()
        found = self._find_page(request.path)
        if found is None:
            if self._find_websocket(request.path) is not None:
                return upgrade_required().response
            return NOT_FOUND
        if request.method not in ("GET", "HEAD"):
            return _METHOD_NOT_ALLOWED
        refusal = await found.refusal(request) if found.guards else None
        if refusal is not None:
            return refusal
        handler = found.handler
        response = await check_awaitable(handler, handler(request, **found.parameters))
        if not isinstance(response, Response):
            raise TypeError(
                f"{found.handler!r} returned {type(response).__name__}: a page is a Response"
            )
        return response

    def _register(self, table: list[_Route | _Inclusion], pattern: str) -> Callable[[Any], Any]:
        compiled = _compile(pattern)

        def register(handler: Any) -> Any:
            _check_parameters(handler, pattern, compiled)
            table.append(_Route(compiled, handler))
            return handler

        return register

    def _find_websocket(self, path: str) -> _Found | None:
        return self._find(path, lambda routes: routes._websockets)

    def _find_page(self, path: str) -> _Found | None:
        return self._find(path, lambda routes: routes._pages)

    def _find(
        self, path: str, table: Callable[[Routes], list[_Route | _Inclusion]]
    ) -> _Found | None:
        for entry in table(self):
            if isinstance(entry, _Route):
                parameters = entry.pattern.match(path)
                found = None if parameters is None else _Found(entry.handler, parameters)
            elif path.startswith(entry.prefix + "/"):
                found = entry.routes._find(path[len(entry.prefix) :], table)
            else:
                continue
            if found is not None:
                return attrs.evolve(found, guards=self._guards + found.guards)
        return None

    def _descendants(self) -> Iterator[Routes]:
        for entry in self._pages:
            if isinstance(entry, _Inclusion):
                yield entry.routes
                yield from entry.routes._descendants()


async def reject(request: WebSocketRequest, refusal: Response) -> None:
    """Answer a request for a WebSocket with a refusal."""
    await request.reject(refusal.status, body=refusal.body, headers=refusal.headers)


@attrs.frozen
class _Route:
    pattern: _Pattern
    handler: Callable[..., Awaitable[Any]]


@attrs.frozen(eq=False)
class _Inclusion:
    prefix: str
    routes: Routes


def _compile(pattern: str) -> _Pattern:
    """Make a pattern that is compared in linear time, whatever a client sends.

    Each parameter takes as much as what stands behind it lets it, and gives nothing back
    later on (an atomic group). So two of them cannot fight over a path of 16 KiB.
    """
    if not isinstance(pattern, str):
        raise TypeError(
            f'a pattern is a str, as in @routes.get("/"), not {type(pattern).__name__}'
        )
    if not pattern.startswith("/"):
        raise ValueError(f"the pattern {pattern!r} does not begin with a slash")
    converters: dict[str, Callable[[str], object]] = {}

    def check(text: str) -> tuple[str, str, str]:
        name, _, kind = text.partition(":")
        if not name.isidentifier() or name in converters or name == "request":
            raise ValueError(f"{name!r} in {pattern!r} cannot be the name of a parameter")
        if (kind or "str") not in _CONVERTERS:
            known = ", ".join(_CONVERTERS)
            raise ValueError(f"{kind!r} in {pattern!r} is no kind of parameter: use {known}")
        character, count, converters[name] = _CONVERTERS[kind or "str"]
        return name, character, count

    if {"{", "}"} & set(_PARAMETER.sub("", pattern)):
        raise ValueError(f"a brace in {pattern!r} has no partner")
    # Words and parameters in turn: they begin and end with a word, which may be empty.
    first, *others = _PARAMETER.split(pattern)
    parameters = [check(text) for text in others[::2]]
    words = others[1::2]
    if "" in words[:-1]:
        raise ValueError(f"two parameters in {pattern!r} touch: where would one of them end?")
    expression = re.escape(first)
    for index, ((name, character, count), word) in enumerate(zip(parameters, words, strict=True)):
        following = parameters[index + 1 : index + 2]
        ahead = f"(?={following[0][1]})" if following else ""
        expression += f"(?>(?P<{name}>{character}{count}){re.escape(word)}{ahead})"
    return _Pattern(re.compile(expression, re.DOTALL), converters)


def _check_prefix(prefix: str) -> str:
    if not prefix.startswith("/") or "{" in prefix or "}" in prefix:
        raise ValueError(f"the prefix {prefix!r} must begin with a slash and have no parameters")
    return prefix.rstrip("/")


def _check_parameters(handler: Callable[..., object], pattern: str, compiled: _Pattern) -> None:
    try:
        inspect.signature(handler).bind(None, **dict.fromkeys(compiled.converters))
    except TypeError as exc:
        raise TypeError(
            f"{handler!r} does not take the request and the parameters of {pattern!r}: {exc}"
        ) from None
