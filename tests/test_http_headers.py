"""Where a head ends, what a list holds, and what may be sent."""

from __future__ import annotations

import math

import pytest
from _cost import assert_cheap
from multidict import CIMultiDict

from trio_ws._http_headers import (
    FRAMING_HEADERS,
    HANDSHAKE_HEADERS,
    PROTOCOL,
    HeadBuffer,
    HeadTooLarge,
    accept_token,
    check_headers,
    parse_list,
)

# Heads...


def buffer_of(data: bytes, limit: float = math.inf) -> HeadBuffer:
    buffer = HeadBuffer(limit)
    buffer.data += data
    return buffer


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_a_head_ends_with_a_blank_line(end: bytes) -> None:
    buffer = buffer_of(b"a" + end + b"behind")
    assert buffer.cut_head() == b"a" + end
    assert buffer.data == b"behind"


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_a_head_may_come_byte_by_byte(end: bytes) -> None:
    buffer = HeadBuffer(math.inf)
    head = b"a\r\nb" + end
    for index in range(len(head) - 1):
        buffer.data += head[index : index + 1]
        assert buffer.cut_head() is None
    buffer.data += head[-1:]
    assert buffer.cut_head() == head


def test_heads_are_cut_one_at_a_time() -> None:
    buffer = buffer_of(b"a\n\nb\n\n")
    assert buffer.cut_head() == b"a\n\n"
    assert buffer.cut_head() == b"b\n\n"
    assert buffer.cut_head() is None


def test_the_limit_counts_every_byte_of_the_head_and_none_behind_it() -> None:
    assert buffer_of(b"a\r\n\r\n" + b"x" * 100, 5).cut_head() == b"a\r\n\r\n"
    with pytest.raises(HeadTooLarge):
        buffer_of(b"a\r\n\r\n", 4).cut_head()
    with pytest.raises(HeadTooLarge):
        buffer_of(b"abcde", 4).cut_head()
    assert buffer_of(b"abcd", 4).cut_head() is None


def test_a_first_line_over_the_limit_is_told_apart() -> None:
    with pytest.raises(HeadTooLarge) as line:
        buffer_of(b"abcd\n\n", 4).cut_head()
    assert line.value.first_line
    with pytest.raises(HeadTooLarge) as headers:
        buffer_of(b"abc\nd", 4).cut_head()
    assert not headers.value.first_line


def test_what_was_taken_too_much_can_be_put_back() -> None:
    buffer = buffer_of(b"abc\n")
    assert buffer.cut_head() is None
    assert buffer.take(2) == b"ab"
    buffer.put_back(b"x\n\n")
    assert buffer.cut_head() == b"x\n\n"
    assert buffer.take(10) == b"c\n"


def test_a_head_that_trickles_in_costs_linear_time() -> None:
    def trickle() -> None:
        buffer = HeadBuffer(math.inf)
        for _ in range(100_000):
            buffer.data += b"x"
            assert buffer.cut_head() is None

    assert_cheap(trickle, 2)  # it is 0.05 s; quadratic, it is 20 s


# Lists...


def test_a_list_goes_over_lines_and_skips_empty_elements() -> None:
    assert parse_list(["a, b", "", " ,,\tc ,"]) == ["a", "b", "c"]
    assert parse_list([]) == []


@pytest.mark.parametrize("value", ['"a', "a b", "a;b", "a=b", "\xe4", 'a, "b, c"', "a/b", "(a)"])
def test_an_element_that_is_no_token_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse_list([value])


def test_an_element_of_upgrade_may_have_a_version() -> None:
    assert parse_list(["h2c, HTTP/2.0"], PROTOCOL) == ["h2c", "HTTP/2.0"]
    for value in ("a/", "/b", "a/b/c", "a b"):
        with pytest.raises(ValueError, match="malformed"):
            parse_list([value], PROTOCOL)


# Headers from the application...


def test_headers_are_a_mapping_or_pairs() -> None:
    expected = (("X-A", "1"), ("X-B", "2"))
    assert check_headers({"X-A": "1", "X-B": "2"}, FRAMING_HEADERS) == expected
    assert check_headers([("X-A", "1"), ("X-B", "2")], FRAMING_HEADERS) == expected
    assert check_headers((["X-A", "1"], ["X-B", "2"]), FRAMING_HEADERS) == expected  # type: ignore[arg-type]  # lists do no harm
    assert check_headers((), FRAMING_HEADERS) == ()


def test_a_multi_dict_keeps_its_repeated_names() -> None:
    headers = CIMultiDict([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert check_headers(headers, FRAMING_HEADERS) == (
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    )


def test_values_lose_the_blanks_around_them_and_keep_latin_1() -> None:
    assert check_headers([("X", " \tä b\t")], FRAMING_HEADERS) == (("X", "ä b"),)


@pytest.mark.parametrize("char", ["\r", "\n", "\0", "\r\n", "\x1b", "\x7f", "\u0100", "\ud800"])
def test_a_value_cannot_begin_a_header_of_its_own(char: str) -> None:
    with pytest.raises(ValueError, match="position 6: control characters") as caught:
        check_headers([("X-A", f"secret{char}Set-Cookie: a=b")], FRAMING_HEADERS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\r\n", "a\0", "a\n", " a", '"a"'])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="is no header name"):
        check_headers([(name, "1")], FRAMING_HEADERS)


@pytest.mark.parametrize("name", ["Content-Length", "TRANSFER-ENCODING", "connection"])
def test_framing_is_not_the_applications(name: str) -> None:
    for reserved in (FRAMING_HEADERS, HANDSHAKE_HEADERS):
        with pytest.raises(ValueError, match="written by trio_ws itself"):
            check_headers({name: "1"}, reserved)


@pytest.mark.parametrize("name", ["Upgrade", "Sec-WebSocket-Accept", "sec-websocket-protocol"])
def test_the_handshake_is_not_the_applications(name: str) -> None:
    assert check_headers({name: "1"}, FRAMING_HEADERS) == ((name, "1"),)
    with pytest.raises(ValueError, match="written by trio_ws itself"):
        check_headers({name: "1"}, HANDSHAKE_HEADERS)


@pytest.mark.parametrize(
    "headers",
    ["X: y", b"Y: z", ["ab"], [("X",)], [("X", "y", "z")], [("X", 1)], [(b"X", b"y")], [None]],
)
def test_headers_of_another_shape_are_a_type_error(headers: object) -> None:
    with pytest.raises(TypeError):
        check_headers(headers, FRAMING_HEADERS)  # type: ignore[arg-type]  # that is the test


def test_the_accept_token_is_the_one_of_the_rfc() -> None:
    # RFC 6455, section 1.3
    assert accept_token("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
