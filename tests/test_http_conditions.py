"""Conditional requests and ranges (RFC 9110, sections 13 and 14), as plain values."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from _cost import assert_cheap
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from trio_ws._http_conditions import Selection, Validators, select

ETAG = '"a1-64"'
MODIFIED = 1_700_000_000
NOW = Validators(ETAG, MODIFIED)
SIZE = 100
ALL = Selection(200, 0, SIZE)

THEN = formatdate(MODIFIED, usegmt=True)
BEFORE = formatdate(MODIFIED - 1, usegmt=True)
AFTER = formatdate(MODIFIED + 1, usegmt=True)


def ask(method: str = "GET", size: int = SIZE, **headers: str | list[str]) -> Selection:
    fields: CIMultiDict[str] = CIMultiDict()
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            fields.add(name.replace("_", "-"), value)
    return select(method, CIMultiDictProxy(fields), NOW, size)


def test_without_conditions_all_is_sent() -> None:
    assert ask() == ALL
    assert ask("HEAD") == ALL


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "tags",
    [ETAG, f"W/{ETAG}", "*", " * ", f'"x", {ETAG}', f'W/"x",W/{ETAG}, "y"', ['"x"', ETAG]],
)
def test_who_has_this_state_gets_304(tags: str | list[str], method: str) -> None:
    assert ask(method, if_none_match=tags).status == 304


@pytest.mark.parametrize("tags", ['"x"', 'W/"x"', '"A1-64"', "a1-64", "", '"', '"a1-64'])
def test_who_has_another_state_gets_all(tags: str) -> None:
    assert ask(if_none_match=tags) == ALL


@pytest.mark.parametrize(
    ("date", "status"),
    [
        (BEFORE, 200),
        (THEN, 304),
        (AFTER, 304),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", 304),  # RFC 850
        ("Tue Nov 14 22:13:20 2023", 304),  # asctime
        ("yesterday", 200),
        ("", 200),
        ("Tue, 14 Nov 99999999999999999999 22:13:20 GMT", 200),
        ("Tue, 99 Foo 2023 99:99:99 GMT", 200),
    ],
)
def test_a_date_is_the_second_best_way_to_ask(date: str, status: int) -> None:
    assert ask(if_modified_since=date).status == status
    assert ask(if_modified_since=date, if_none_match='"x"') == ALL  # section 13.1.3


@pytest.mark.parametrize(
    ("tags", "status"),
    [(ETAG, 200), ("*", 200), (f'"x", {ETAG}', 200), ('"x"', 412), (f"W/{ETAG}", 412)],
)
def test_if_match_asks_for_this_very_state(tags: str, status: int) -> None:
    assert ask(if_match=tags).status == status
    assert ask(if_match=tags, if_unmodified_since=BEFORE).status == status


@pytest.mark.parametrize(("date", "status"), [(BEFORE, 412), (THEN, 200), ("soon", 200)])
def test_if_unmodified_since_asks_by_date(date: str, status: int) -> None:
    assert ask(if_unmodified_since=date).status == status


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=90-", 90, 100),
        ("bytes=90-999", 90, 100),
        ("bytes=-10", 90, 100),
        ("bytes=-999", 0, 100),
        ("Bytes= 0-1 ", 0, 2),
    ],
)
def test_a_range_is_a_part(text: str, start: int, stop: int) -> None:
    assert ask(range=text) == Selection(206, start, stop)
    assert ask("HEAD", range=text) == ALL


@pytest.mark.parametrize("text", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_end_is_416(text: str) -> None:
    assert ask(range=text) == Selection(416)


@pytest.mark.parametrize(
    "text",
    [
        "bytes=0-1,3-4",  # may be answered with all
        "bytes=" + "0-," * 1000,
        "bytes=5-4",
        "bytes=-",
        "bytes=",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "lines=0-1",
        "bytes=0-" + "9" * 30,
        "bytes=٣-٤",
        "",
    ],
)
def test_a_range_that_is_none_is_not_looked_at(text: str) -> None:
    assert ask(range=text) == ALL


def test_of_nothing_there_is_no_part() -> None:
    assert ask(size=0, range="bytes=0-") == Selection(416)
    assert ask(size=0, range="bytes=-5") == Selection(200, 0, 0)
    assert ask(size=0, range="bytes=-0") == Selection(416)


@pytest.mark.parametrize(
    ("validator", "status"),
    [
        (ETAG, 206),
        (f" {ETAG} ", 206),
        (f"W/{ETAG}", 200),
        ('"x"', 200),
        (THEN, 206),
        (BEFORE, 200),
        (AFTER, 200),
        ("never", 200),
    ],
)
def test_if_range_asks_for_a_part_of_this_state_only(validator: str, status: int) -> None:
    assert ask(range="bytes=0-0", if_range=validator).status == status


def test_who_has_all_needs_no_part() -> None:
    assert ask(range="bytes=0-0", if_none_match=ETAG).status == 304
    assert ask(range="bytes=0-0", if_match='"x"').status == 412


NAMES = ("if_match", "if_none_match", "if_modified_since", "if_unmodified_since", "if_range")


@given(
    st.dictionaries(st.sampled_from((*NAMES, "range")), st.text(st.characters(max_codepoint=255)))
)
def test_no_text_raises_anything(headers: dict[str, str]) -> None:
    selection = ask(**headers)
    assert selection.status in {200, 206, 304, 412, 416}
    assert 0 <= selection.start <= selection.stop <= SIZE


@pytest.mark.parametrize(
    "text", ['"' * 16_000, 'W/"' * 5_000, '"a",' * 4_000, "W/" * 8_000, ", " * 8_000]
)
def test_no_list_of_tags_takes_long(text: str) -> None:
    assert_cheap(lambda: ask(if_none_match=text, if_range=text, range="bytes=0-1"), 0.1)
