"""Routes: one port for pages and WebSockets, picked by the path."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from _cost import assert_cheap
from trio.testing import MockClock

from trio_ws import ConnectionRejected, Request, Response, Routes, WebSocketRequest
from trio_ws._routes import _compile
from trio_ws.testing import Connect, MemoryNetwork, open_server

Answer = tuple[int, dict[str, str], bytes]

KEY = uuid.UUID("12345678-9abc-def0-1234-56789abcdef0")


class Browser:
    """One connection, and a request after the other."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._data = b""

    async def ask(self, path: str, method: str = "GET", extra: str = "") -> Answer:
        """Return status, headers and body of the answer."""
        request = f"{method} {path} HTTP/1.1\r\nHost: server.test\r\n{extra}\r\n"
        await self._stream.send_all(request.encode())
        while b"\r\n\r\n" not in self._data:
            await self._read()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ") for line in lines)}
        size = 0 if method == "HEAD" else int(headers["content-length"])
        while len(self._data) < size:
            await self._read()
        body, self._data = self._data[:size], self._data[size:]
        return int(status.split()[1]), headers, body

    async def get(self, path: str) -> str:
        """Return a page that is there."""
        status, _, body = await self.ask(path)
        assert status == 200
        return body.decode()

    async def status(self, path: str, method: str = "GET") -> int:
        return (await self.ask(path, method))[0]

    async def _read(self) -> None:
        data = await self._stream.receive_some()
        assert data, "the server has ended the connection"
        self._data += data


@asynccontextmanager
async def browse(routes: Routes, **kwargs: Any) -> AsyncGenerator[Browser, None]:
    network = MemoryNetwork()
    async with (
        open_server(routes, network=network, **kwargs),
        await network.connect("server.test", 80) as stream,
    ):
        yield Browser(stream)


async def talk(connect: Connect, path: str) -> str:
    async with connect(path) as ws:
        return str(await ws.receive())


def page(routes: Routes, pattern: str, text: str | None = None) -> None:
    """Add a page that says what it is, or with which parameters it was called."""

    @routes.get(pattern)
    async def show(request: Request, **parameters: object) -> Response:
        return Response(repr(parameters) if text is None else text)


def socket(routes: Routes, pattern: str, text: str | None = None) -> None:
    @routes.websocket(pattern)
    async def show(request: WebSocketRequest, **parameters: object) -> None:
        async with request.accept() as ws:
            await ws.send(repr(parameters) if text is None else text)


# Patterns...


@pytest.mark.parametrize(
    ("pattern", "path", "parameters"),
    [
        ("/", "/", {}),
        ("/chat", "/chat", {}),
        ("/chat/{room}", "/chat/tea", {"room": "tea"}),
        ("/chat/{room:str}", "/chat/tea", {"room": "tea"}),
        ("/chat/{room}", "/chat/%C3%A4%20b", {"room": "ä b"}),
        ("/chat/{room}", "/chat/tea?room=x", {"room": "tea"}),
        ("/chat/{room}/", "/chat/tea/", {"room": "tea"}),
        ("/page/{n:int}", "/page/042", {"n": 42}),
        ("/page/{n:int}", "/page/" + "9" * 18, {"n": 10**18 - 1}),
        ("/{a}/{b:int}.{c}", "/x/7.html", {"a": "x", "b": 7, "c": "html"}),
        ("/files/{rest:path}", "/files/a/b/c", {"rest": "a/b/c"}),
        ("/files/{rest:path}", "/files//", {"rest": "/"}),
        ("/files/{rest:path}", "/files/a%0Ab", {"rest": "a\nb"}),
        ("/files/{rest:path}/edit", "/files/a/b/edit", {"rest": "a/b"}),
        ("/{größe}", "/7", {"größe": "7"}),
        ("/{name}.{kind}", "/a.tar.gz", {"name": "a.tar", "kind": "gz"}),
        ("/{name}.{kind}", "/a.b.", {"name": "a", "kind": "b."}),
        ("/{a}-{n:int}", "/1-2-3", {"a": "1-2", "n": 3}),
        ("/{n:int}0", "/100", {"n": 10}),
        ("/{w:int}x{h:int}.png", "/80x60.png", {"w": 80, "h": 60}),
        ("/{rest:path}-{name}", "/a-b/c-d-e", {"rest": "a-b/c-d", "name": "e"}),
        ("/{rest:path}/{name}.txt", "/a/b.txt/c.txt", {"rest": "a/b.txt", "name": "c"}),
        ("/a.b+c", "/a.b+c", {}),
        ("/{x:float}/{y:float}", "/1.5/.25", {"x": 1.5, "y": 0.25}),
        ("/{x:float}", "/7", {"x": 7.0}),
        ("/u/{key:uuid}", f"/u/{KEY}", {"key": KEY}),
        ("/u/{key:uuid}.txt", f"/u/{str(KEY).upper()}.txt", {"key": KEY}),
    ],
)
async def test_parameters_arrive_as_keyword_arguments(
    pattern: str, path: str, parameters: dict[str, object], autojump_clock: MockClock
) -> None:
    routes = Routes()
    page(routes, pattern)
    socket(routes, pattern)
    async with open_server(routes) as connect:
        assert await talk(connect, path) == repr(parameters)
    async with browse(routes) as browser:
        assert await browser.get(path) == repr(parameters)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/chat", "/chat/"),
        ("/chat", "/Chat"),
        ("/chat", "/chat/tea"),
        ("/chat", "/xchat"),
        ("/chat/{room}", "/chat/"),
        ("/chat/{room}", "/chat/a/b"),
        ("/chat/{room}", "/chat/a%2Fb"),  # decoded before it is compared
        ("/page/{n:int}", "/page/x"),
        ("/page/{n:int}", "/page/-1"),
        ("/page/{n:int}", "/page/1_0"),
        ("/page/{n:int}", "/page/%D9%A3"),  # a digit, but an Arabic one
        ("/page/{n:int}", "/page/" + "9" * 19),
        ("/files/{rest:path}", "/files/"),
        ("/a.b", "/axb"),
        ("/{x:float}", "/1.2.3"),
        ("/{x:float}", "/."),
        ("/{x:float}", "/-1"),
        ("/{x:float}", "/nan"),
        ("/{key:uuid}", f"/{KEY.hex}"),
        ("/{key:uuid}", f"/{KEY}0"),
        ("/{key:uuid}", "/" + "-" * 36),
        ("/a", "/a%0A"),
    ],
)
async def test_other_paths_are_404(pattern: str, path: str, autojump_clock: MockClock) -> None:
    routes = Routes()
    page(routes, pattern)
    socket(routes, pattern)
    async with open_server(routes) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            await talk(connect, path)
        assert (caught.value.status, caught.value.body) == (404, b"there is no WebSocket here\n")
    async with browse(routes) as browser:
        assert await browser.status(path) == 404


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "does not begin with a slash"),
        ("chat", "does not begin with a slash"),
        ("{room}", "does not begin with a slash"),
        ("/{}", "'' in '/{}' cannot be the name of a parameter"),
        ("/{a b}", "'a b' in .* cannot be the name"),
        ("/{1}", "'1' in .* cannot be the name"),
        ("/{:int}", "'' in .* cannot be the name"),
        ("/{request}", "'request' in .* cannot be the name"),
        ("/{a}/{a}", "'a' in .* cannot be the name"),
        ("/{n:real}", "'real' in .* is no kind of parameter: use str, int, float, uuid, path"),
        ("/{n: int}", "' int' in .* is no kind"),
        ("/{a", "a brace in '/{a' has no partner"),
        ("/a}", "a brace in '/a}' has no partner"),
        ("/{a}{b}", "two parameters in '/{a}{b}' touch"),
        ("/{n:int}{rest:path}/x", "touch: where would one of them end"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern: str, words: str) -> None:
    routes = Routes()
    for register in (routes.get, routes.websocket):
        with pytest.raises(ValueError, match=words):
            register(pattern)


@pytest.mark.parametrize("pattern", [None, b"/", Routes()])
def test_what_is_no_pattern_at_all_is_refused(pattern: Any) -> None:
    """Above all the handler itself, of a decorator without a pattern."""
    with pytest.raises(TypeError, match=r'a pattern is a str, as in @routes.get\("/"\)'):
        Routes().get(pattern)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/{a}-{b}", "/" + "-" * 16_000 + "/"),
        ("/{a}-{b}-{c}-{d}", "/" + "-" * 16_000 + "/"),
        ("/{a}.{b}/{c}.{d}/x", "/" + "." * 8_000 + "/" + "." * 8_000 + "/y"),
        ("/{a:path}/x/{b:path}/y", "/x" * 8_000),
        ("/{a:path}-{b}-{c:path}/y", "/" + "-/" * 8_000),
    ],
)
def test_no_path_takes_long_to_be_compared(pattern: str, path: str) -> None:
    """A request's head may have 16 KiB. Parameters that give back what they took: 1 s and more."""
    compiled = _compile(pattern)
    assert compiled.match(path) is None
    assert_cheap(lambda: compiled.match(path), 0.1)


@pytest.mark.parametrize("pattern", ["/{{a}}", "/}{a}", "/{a{b}", "/{a}/{b", "/{{/{a}"])
def test_a_brace_without_a_partner_is_refused_wherever_it_stands(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"a brace in .* has no partner"):
        Routes().get(pattern)


def test_a_handler_that_does_not_take_the_parameters_is_refused_at_once() -> None:
    routes = Routes()

    async def none() -> Response:
        return Response()

    async def only_request(request: Request) -> Response:
        return Response()

    async def other_name(request: Request, *, rooms: str) -> Response:
        return Response()

    async def one_more(request: Request, *, room: str, n: int) -> Response:
        return Response()

    for register in (routes.get, routes.websocket):
        for handler in (none, only_request, other_name, one_more):
            with pytest.raises(TypeError, match=r"does not take the request and the parameters"):
                register("/{room}")(handler)
        with pytest.raises(TypeError):
            register("/")("no function")  # type: ignore[type-var]  # that is the point


def test_routes_include_routes() -> None:
    with pytest.raises(TypeError, match="what is included is a Routes, not function"):
        Routes().include("/x", print_nothing)  # type: ignore[arg-type]


def print_nothing() -> None: ...


def test_a_decorated_handler_stays_what_it_was() -> None:
    routes = Routes()

    async def show(request: Request, room: str = "tea") -> Response:
        return Response()

    assert routes.get("/{room}")(show) is show
    assert routes.get("/")(show) is show
    assert routes.websocket("/")(show) is show


# Which one...


async def test_the_first_match_wins(autojump_clock: MockClock) -> None:
    routes = Routes()
    page(routes, "/{n:int}", "number")
    page(routes, "/new", "new")
    page(routes, "/{name}", "any")
    page(routes, "/7", "never")
    async with browse(routes) as browser:
        assert await browser.get("/7") == "number"
        assert await browser.get("/new") == "new"
        assert await browser.get("/newer") == "any"


async def test_a_page_and_a_websocket_share_a_path(autojump_clock: MockClock) -> None:
    routes = Routes()
    page(routes, "/chat", "the page")
    socket(routes, "/chat", "the socket")
    async with open_server(routes) as connect:
        assert await talk(connect, "/chat") == "the socket"
        async with await connect.network.connect("server.test", 80) as stream:
            assert await Browser(stream).get("/chat") == "the page"


async def test_a_path_with_only_a_page_has_no_websocket(autojump_clock: MockClock) -> None:
    routes = Routes()
    page(routes, "/page")
    async with open_server(routes) as connect:
        with pytest.raises(ConnectionRejected, match="404"):
            await talk(connect, "/page")


async def test_where_only_a_websocket_is_a_page_is_426(autojump_clock: MockClock) -> None:
    routes = Routes()
    socket(routes, "/chat")
    async with browse(routes) as browser:
        status, headers, _ = await browser.ask("/chat")
        assert status == 426
        assert headers["upgrade"] == "websocket"
        assert headers["sec-websocket-version"] == "13"
        assert "upgrade" in headers["connection"]
        assert await browser.status("/other") == 404


async def test_a_page_takes_get_and_head_only(autojump_clock: MockClock) -> None:
    routes = Routes()
    page(routes, "/page", "text")
    async with browse(routes) as browser:
        status, headers, body = await browser.ask("/page", "HEAD")
        assert (status, headers["content-length"], body) == (200, "4", b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"):
            status, headers, _ = await browser.ask("/page", method)
            assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert await browser.status("/other", "POST") == 404
        assert await browser.get("/page") == "text"  # all on one connection


async def test_a_page_that_is_no_response_is_500_and_the_server_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    routes = Routes()
    page(routes, "/good", "good")

    @routes.get("/text")
    async def text(request: Request) -> Response:
        return "text"  # type: ignore[return-value]  # that is the point

    @routes.get("/nothing")
    async def nothing(request: Request) -> None:  # type: ignore[type-var]  # likewise
        pass

    @routes.get("/broken")
    async def broken(request: Request) -> Response:
        raise KeyError("a secret")

    @routes.get("/plain")
    def plain(request: Request) -> Response:  # type: ignore[type-var]  # likewise
        return Response("not async")

    with caplog.at_level(logging.ERROR, "trio_ws"):
        async with browse(routes, on_handler_error="log") as browser:
            for path in ("/text", "/nothing", "/broken", "/plain"):
                status, _, body = await browser.ask(path)
                assert (status, body) == (500, b"internal error\n")
                assert await browser.get("/good") == "good"
    errors = [repr(record.exc_info and record.exc_info[1]) for record in caplog.records]
    assert len(errors) == 4
    assert "returned str: a page is a Response" in errors[0]
    assert "returned NoneType: a page is a Response" in errors[1]
    assert "is not async: write `async def`" in errors[3]
    assert errors[2] == "KeyError('a secret')"


# Including others...


async def test_included_routes_are_served_below_their_prefix(autojump_clock: MockClock) -> None:
    inner, middle, routes = Routes(), Routes(), Routes()
    page(inner, "/", "inner")
    page(inner, "/{n:int}")
    socket(inner, "/chat/{room}")
    page(middle, "/", "middle")
    middle.include("/inner", inner)
    routes.include("/middle", middle)
    async with open_server(routes) as connect:
        assert await talk(connect, "/middle/inner/chat/tea") == "{'room': 'tea'}"
    async with browse(routes) as browser:
        assert await browser.get("/middle/") == "middle"
        assert await browser.get("/middle/inner/") == "inner"
        assert await browser.get("/middle/inner/7") == "{'n': 7}"
        assert await browser.status("/middle/inner/chat/tea") == 426
        for path in ("/", "/middle", "/middle/inner", "/middleman/", "/inner/", "/middle/7"):
            assert await browser.status(path) == 404


async def test_what_is_added_later_is_included(autojump_clock: MockClock) -> None:
    inner, routes = Routes(), Routes()
    routes.include("/inner", inner)
    page(inner, "/late", "late")
    innermost = Routes()
    inner.include("/most", innermost)
    page(innermost, "/later", "later")
    async with browse(routes) as browser:
        assert await browser.get("/inner/late") == "late"
        assert await browser.get("/inner/most/later") == "later"


@pytest.mark.parametrize("prefix", ["/", "//"])
async def test_with_a_slash_as_prefix_paths_are_the_same(
    prefix: str, autojump_clock: MockClock
) -> None:
    inner, routes = Routes(), Routes()
    page(inner, "/page", "page")
    routes.include(prefix, inner)
    async with browse(routes) as browser:
        assert await browser.get("/page") == "page"


async def test_the_slash_at_the_end_of_a_prefix_does_not_count(autojump_clock: MockClock) -> None:
    inner, routes = Routes(), Routes()
    page(inner, "/page", "page")
    routes.include("/inner/", inner)
    async with browse(routes) as browser:
        assert await browser.get("/inner/page") == "page"


async def test_included_routes_have_their_place_in_the_order(autojump_clock: MockClock) -> None:
    first, second, routes = Routes(), Routes(), Routes()
    page(first, "/both", "first")
    page(second, "/both", "second")
    page(second, "/only", "second")
    page(routes, "/sub/own", "before")
    page(first, "/own", "never")
    routes.include("/sub", first)
    routes.include("/sub", second)
    page(routes, "/sub/{name}", "after")
    async with browse(routes) as browser:
        assert await browser.get("/sub/own") == "before"
        assert await browser.get("/sub/both") == "first"
        assert await browser.get("/sub/only") == "second"
        assert await browser.get("/sub/other") == "after"


async def test_the_same_routes_may_be_included_twice(autojump_clock: MockClock) -> None:
    inner, routes = Routes(), Routes()
    page(inner, "/page", "page")
    routes.include("/one", inner)
    routes.include("/two", inner)
    async with browse(routes) as browser:
        assert await browser.get("/one/page") == await browser.get("/two/page") == "page"


def test_routes_that_would_include_themselves_are_refused() -> None:
    one, two, three = Routes(), Routes(), Routes()
    page(two, "/page")
    with pytest.raises(ValueError, match="include themselves"):
        one.include("/", one)
    one.include("/two", two)
    two.include("/three", three)
    for other in (one, two):
        with pytest.raises(ValueError, match="include themselves"):
            three.include("/x", other)


@pytest.mark.parametrize("prefix", ["", "inner", "/{inner}", "/a{", "/a}"])
def test_a_prefix_that_is_none_is_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must begin with a slash and have no parameters"):
        Routes().include(prefix, Routes())
    with pytest.raises(ValueError, match="must begin with a slash and have no parameters"):
        Routes().static(prefix, tmp_path)


# Authorizing...


def asking(*, key: str, status: int = 401) -> Callable[[Request], Awaitable[Response | None]]:
    """Let those in who have the key, once somebody has looked it up."""

    async def authorize(request: Request) -> Response | None:
        await trio.sleep(1)
        if request.query.get(key):
            return None
        return Response(f"no {key}", status=status, headers={"X-Key": key})

    return authorize


async def test_who_is_not_authorized_gets_neither_page_nor_websocket(
    autojump_clock: MockClock,
) -> None:
    routes = Routes(authorize=asking(key="one"))
    page(routes, "/page", "page")
    socket(routes, "/chat", "socket")
    async with open_server(routes) as connect:
        with pytest.raises(ConnectionRejected) as caught:
            await talk(connect, "/chat")
        assert (caught.value.status, caught.value.body) == (401, b"no one")
        assert caught.value.headers["X-Key"] == "one"
        assert await talk(connect, "/chat?one=1") == "socket"
    async with browse(routes) as browser:
        status, headers, body = await browser.ask("/page")
        assert (status, headers["x-key"], body) == (401, "one", b"no one")
        assert await browser.get("/page?one=1") == "page"
        assert await browser.status("/other") == 404
        assert await browser.status("/chat") == 426


async def test_what_is_included_is_behind_both(autojump_clock: MockClock) -> None:
    routes = Routes(authorize=asking(key="one"))
    inner = Routes(authorize=asking(key="two", status=403))
    page(inner, "/page", "inner")
    socket(inner, "/chat", "socket")
    routes.include("/inner", inner)
    page(routes, "/page", "outer")
    async with open_server(routes) as connect:
        for query, status in (("", 401), ("?two=1", 401), ("?one=1", 403)):
            with pytest.raises(ConnectionRejected, match=str(status)):
                await talk(connect, "/inner/chat" + query)
        assert await talk(connect, "/inner/chat?one=1&two=1") == "socket"
    async with browse(routes) as browser:
        assert await browser.status("/inner/page?two=1") == 401
        assert await browser.status("/inner/page?one=1") == 403
        assert await browser.get("/inner/page?one=1&two=1") == "inner"
        assert await browser.get("/page?one=1") == "outer"


@pytest.mark.parametrize("answer", [True, False, "no", 0])
async def test_an_answer_that_is_none_lets_nobody_in(
    answer: object, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(request: Request) -> Response | None:
        return answer  # type: ignore[return-value]  # that is the point

    routes = Routes(authorize=authorize)
    page(routes, "/page", "page")
    socket(routes, "/chat", "socket")
    async with open_server(routes, on_handler_error="log") as connect:
        with pytest.raises(ConnectionRejected, match="500"):
            await talk(connect, "/chat")
    async with browse(routes, on_handler_error="log") as browser:
        assert await browser.status("/page") == 500
    assert "return None to let somebody in" in caplog.text


# Static files...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "web"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("home")
    (folder / "a b.txt").write_text("text")
    (folder / "sub" / "index.html").write_text("sub")
    return folder


@pytest.mark.parametrize("prefix", ["/static", "/static/", "/", "/a/b"])
async def test_a_folder_is_served_below_its_prefix(
    prefix: str, folder: Path, autojump_clock: MockClock
) -> None:
    routes = Routes()
    routes.static(prefix, folder)
    base = prefix.rstrip("/")
    async with browse(routes) as browser:
        assert await browser.get(base + "/") == "home"
        assert await browser.get(base + "/a%20b.txt") == "text"
        assert await browser.get(base + "/sub/") == "sub"
        status, headers, _ = await browser.ask(base + "/sub?x=1")
        assert (status, headers["location"]) == (301, "./sub/?x=1")
        assert await browser.status(base + "/missing") == 404
        assert await browser.status(base + "/a%20b.txt", "POST") == 405
        status, headers, _ = await browser.ask(base + "/a%20b.txt", "HEAD")
        assert (status, headers["content-length"]) == (200, "4")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/%2e%2e%2fsecret",
        "/static/..%2fsecret",
        "/static/sub/../../secret",
        "/static/%252e%252e/secret",
        "/static/..%5csecret",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/" + "a" * 300,
    ],
)
async def test_no_path_leads_out_of_the_folder(
    path: str, folder: Path, autojump_clock: MockClock
) -> None:
    routes = Routes()
    routes.static("/static", folder)
    async with browse(routes) as browser:
        assert await browser.status(path) == 404
        assert await browser.get("/static/") == "home"


async def test_a_nul_in_a_path_is_400(folder: Path, autojump_clock: MockClock) -> None:
    routes = Routes()
    routes.static("/static", folder)
    async with browse(routes) as browser:
        assert await browser.status("/static/a%00b") == 400


async def test_the_prefix_without_its_slash_leads_to_the_folder(
    folder: Path, autojump_clock: MockClock
) -> None:
    routes = Routes()
    routes.static("/a/static", folder)
    async with browse(routes) as browser:
        status, headers, _ = await browser.ask("/a/static?x=1")
        assert (status, headers["location"]) == (301, "./static/?x=1")


async def test_a_link_to_a_folder_never_leads_to_another_host(
    folder: Path, autojump_clock: MockClock
) -> None:
    """A path that begins with two slashes would name a host, if it were sent back."""
    routes = Routes()
    routes.static("/", folder)
    async with browse(routes) as browser:
        for path in ("//sub", "///sub", "http://evil.example/sub"):
            status, headers, _ = await browser.ask(path)
            assert (status, headers["location"]) == (301, "./sub/")


def test_what_is_no_folder_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(NotADirectoryError):
        Routes().static("/static", folder / "missing")
    with pytest.raises(NotADirectoryError):
        Routes().static("/static", folder / "index.html")
