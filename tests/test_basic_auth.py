"""Basic authentication in front of a handler, a page, or whole Routes."""

from __future__ import annotations

import base64
import inspect

import pytest
import trio
import trio.testing
from _site import get, serve, upgrade
from trio.testing import MockClock

from trio_ws import Request, Response, Routes, WebSocketRequest, basic_auth

CHALLENGE = 'Basic realm="this site", charset="UTF-8"'


def login(user: str, password: str) -> str:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"Authorization: Basic {token}"


ANN = login("ann", "päss:word")


def check(user: str, password: str) -> bool:
    return (user, password) == ("ann", "päss:word")


async def look_up(user: str, password: str) -> bool:
    await trio.sleep(1)
    return check(user, password)


async def handler(request: WebSocketRequest, *, room: str = "none") -> None:
    assert request.credentials == ("ann", "päss:word")
    async with request.accept(headers={"X-Room": room}):
        pass


async def page(request: Request, *, n: int = 0) -> Response:
    assert request.credentials is not None
    return Response(f"{request.credentials[0]} {n}")


@pytest.mark.parametrize("check_", [check, look_up])
async def test_a_handler_is_called_for_those_who_are_known(
    check_: object, autojump_clock: MockClock
) -> None:
    async with serve(basic_auth(handler, check_)) as site:  # type: ignore[arg-type]
        visitor = site.visit()
        for header in ("X: y", login("ann", "wrong"), login("bob", "päss:word")):
            answer = await visitor.ask(upgrade("/", header))
            assert (answer.status, answer.body) == (401, b"authentication needed\n")
            assert answer.headers["WWW-Authenticate"] == CHALLENGE
        assert (await visitor.ask(upgrade("/", ANN))).status == 101
        assert site.server.statistics().rejected == {401: 3}


async def test_pages_and_parameters_pass_through(autojump_clock: MockClock) -> None:
    routes = Routes()
    routes.get("/page/{n:int}")(basic_auth(page, look_up))
    routes.websocket("/chat/{room}")(basic_auth(handler, look_up))

    @routes.get("/open")
    async def open_(request: Request) -> Response:
        return Response("come in")

    async with serve(routes) as site:
        visitor = site.visit()
        answer = await visitor.ask(get("/page/7"))
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, CHALLENGE)
        assert (await visitor.ask(get("/page/7", ANN))).body == b"ann 7"
        assert (await visitor.ask(get("/open"))).body == b"come in"
        assert (await visitor.ask(upgrade("/chat/tea"))).status == 401
        answer = await visitor.ask(upgrade("/chat/tea", ANN))
        assert (answer.status, answer.headers["X-Room"]) == (101, "tea")


async def test_whole_routes_stay_routes(autojump_clock: MockClock) -> None:
    inner = Routes()
    inner.get("/page")(page)
    inner.websocket("/chat")(handler)
    guarded = basic_auth(inner, check)
    assert isinstance(guarded, Routes)
    async with serve(guarded) as site:
        visitor = site.visit()
        assert (await visitor.ask(get("/page"))).status == 401
        assert (await visitor.ask(get("/page", ANN))).body == b"ann 0"
        assert (await visitor.ask(get("/chat", ANN))).status == 426
        assert (await visitor.ask(upgrade("/chat"))).status == 401
        assert (await visitor.ask(upgrade("/chat", ANN))).status == 101


async def test_whoever_cannot_check_lets_nobody_in(autojump_clock: MockClock) -> None:
    def broken(user: str, password: str) -> bool:
        raise KeyError(user)

    async with serve(basic_auth(handler, broken)) as site:
        assert (await site.visit().ask(upgrade("/", ANN))).status == 500


def test_what_is_wrapped_keeps_its_name_and_signature() -> None:
    wrapped = basic_auth(handler, check)
    assert wrapped.__name__ == "handler"
    assert inspect.signature(wrapped) == inspect.signature(handler)
    with pytest.raises(TypeError, match="does not take the request and the parameters"):
        Routes().websocket("/{unknown}")(wrapped)


async def test_the_realm_is_quoted(autojump_clock: MockClock) -> None:
    async with serve(basic_auth(handler, check, realm='the "\\" site')) as site:
        answer = await site.visit().ask(upgrade())
        expected = 'Basic realm="the \\"\\\\\\" site", charset="UTF-8"'
        assert answer.headers["WWW-Authenticate"] == expected


@pytest.mark.parametrize("realm", ["a\r\nX: y", "a\0", "grüß", "\t"])
def test_a_realm_that_cannot_be_shown_is_refused(realm: str) -> None:
    with pytest.raises(ValueError, match="ASCII characters that can be shown"):
        basic_auth(handler, check, realm=realm)


async def test_being_cancelled_while_it_checks_lets_nobody_in(
    autojump_clock: MockClock,
) -> None:
    async def for_ever(user: str, password: str) -> bool:
        await trio.sleep_forever()

    async with serve(basic_auth(handler, for_ever)) as site:
        visitor = site.visit()
        await visitor.send(upgrade("/", ANN))
        await trio.testing.wait_all_tasks_blocked()
        site.scope.cancel()
        assert b"101" not in await visitor.until_eof()
