"""Responses: right from the start, or refused."""

from __future__ import annotations

import http
import pickle
from pathlib import Path

import attrs
import pytest

from trio_ws._http_response import BadRequest, Response, upgrade_required


def test_text_is_utf_8_and_plain() -> None:
    response = Response("grüß")
    assert response.status == 200
    assert response.body == "grüß".encode()
    assert response.headers == (("Content-Type", "text/plain; charset=utf-8"),)


def test_the_content_type_may_be_an_argument_or_a_header_but_not_both() -> None:
    assert Response("x", content_type="text/html").headers == (("Content-Type", "text/html"),)
    assert Response("x", headers={"content-type": "a/b"}).headers == (("content-type", "a/b"),)
    with pytest.raises(ValueError, match="not both"):
        Response("x", headers={"content-type": "a/b"}, content_type="a/b")
    with pytest.raises(ValueError, match="position 0"):
        Response("x", content_type="\r\n")


@pytest.mark.parametrize("body", [b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_bytes_have_no_type_unless_it_is_said(body: bytes) -> None:
    assert Response(body).body == b"ab"
    assert type(Response(body).body) is bytes
    assert Response(body).headers == ()
    assert Response("").headers == ()


def test_a_response_is_a_frozen_value() -> None:
    response = Response("x", status=http.HTTPStatus.NOT_FOUND, headers={"A": "b"})
    assert type(response.status) is int
    assert pickle.loads(pickle.dumps(response)) == response  # noqa: S301  # our own bytes
    assert hash(response) == hash(Response("x", status=404, headers=[("A", "b")]))
    assert "<1 bytes>" in repr(response)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        response.status = 1  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 199, 600, 1000])
def test_the_status_is_one_of_a_response(status: int) -> None:
    with pytest.raises(ValueError, match="from 200 to 599"):
        Response(status=status)


@pytest.mark.parametrize("status", ["200", 200.0, True, None])
def test_the_status_is_an_int(status: object) -> None:
    with pytest.raises(TypeError, match="a status is an int"):
        Response(status=status)  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize("body", [None, 1, ["x"]])
def test_the_body_is_str_or_bytes(body: object) -> None:
    with pytest.raises(TypeError, match="a body is str or bytes"):
        Response(body)  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize("status", [204, 205, 304])
def test_some_statuses_have_no_body(status: int) -> None:
    assert Response(status=status).body == b""
    with pytest.raises(ValueError, match="has no body"):
        Response("x", status=status)


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b=c", "a\0", "\n"])
def test_a_response_cannot_be_split(value: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        Response(headers={"Location": value})


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Connection"])
def test_the_frame_is_not_the_applications(name: str) -> None:
    with pytest.raises(ValueError, match="written by trio_ws itself"):
        Response(headers={name: "1"})


def test_headers_are_found_by_their_name_in_lower_case() -> None:
    response = Response(headers={"Retry-After": "5"})
    assert response.has("retry-after")
    assert not response.has("date")


def test_a_bad_request_carries_its_answer() -> None:
    error = BadRequest(405, "a page is read", [("Allow", "GET")])
    assert (error.status, error.reason, str(error)) == (
        405,
        "a page is read",
        "405: a page is read",
    )
    assert error.response == Response("a page is read\n", status=405, headers={"Allow": "GET"})


def test_an_upgrade_that_is_required_is_named() -> None:
    error = upgrade_required()
    assert error.status == 426
    # RFC 9110, section 15.5.22, and RFC 6455, section 4.4
    assert ("Upgrade", "websocket") in error.response.headers
    assert ("Sec-WebSocket-Version", "13") in error.response.headers


# Ready made...


def test_html_is_a_page() -> None:
    response = Response.html("<p>grüß", status=404, headers={"A": "b"})
    assert (response.status, response.body) == (404, "<p>grüß".encode())
    assert response.headers == (("A", "b"), ("Content-Type", "text/html; charset=utf-8"))


def test_json_is_small_and_readable() -> None:
    response = Response.json({"grüß": [1, None, True]}, status=201, headers={"A": "b"})
    assert (response.status, response.body) == (201, '{"grüß":[1,null,true]}'.encode())
    assert response.headers == (("A", "b"), ("Content-Type", "application/json"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1j: 2}, b"x"])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Response.json(value)


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("/login?next=%2F&a=b#c", "/login?next=%2F&a=b#c"),
        ("https://example.org/grüß dich", "https://example.org/gr%C3%BC%C3%9F%20dich"),
        ("http://[::1]:8000/", "http://[::1]:8000/"),
        ("", ""),
    ],
)
def test_a_redirect_says_where(location: str, sent: str) -> None:
    response = Response.redirect(location, headers={"A": "b"})
    assert response.status == 302
    assert response.headers == (("A", "b"), ("Location", sent))
    assert response.body == b""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_has_one_of_five_statuses(status: int) -> None:
    assert Response.redirect("/", status=status).status == status


@pytest.mark.parametrize("status", [200, 300, 304, 404])
def test_what_redirects_nobody_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="a redirect has status 301"):
        Response.redirect("/", status=status)


@pytest.mark.parametrize("location", ["/\r\nX: y", "/\n", "/\r", "/\0"])
def test_a_place_that_would_split_the_response_is_refused(location: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        Response.redirect(location)


def test_a_file_is_named_and_not_yet_opened() -> None:
    response = Response.file("nowhere/a.txt", status=404, headers={"A": "b"}, content_type="c/d")
    assert response.path == Path("nowhere/a.txt")
    assert (response.status, response.body) == (404, b"")
    assert response.headers == (("A", "b"), ("Content-Type", "c/d"))
    assert response != Response(status=404, headers=response.headers)
    assert pickle.loads(pickle.dumps(response)) == response  # noqa: S301  # our own bytes


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_file_needs_a_status_with_a_body(status: int) -> None:
    with pytest.raises(ValueError, match="has no body"):
        Response.file("a.txt", status=status)
