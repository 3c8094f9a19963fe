"""Conditional requests and ranges: which part of a file a request wants, if any."""

from __future__ import annotations

import re
from email.utils import mktime_tz, parsedate_tz
from typing import Final

import attrs
from multidict import CIMultiDictProxy


@attrs.frozen
class Validators:
    """What tells one state of a file from another (RFC 9110, section 8.8)."""

    etag: str
    """A strong one, in its quotes."""
    modified: int
    """Seconds since the epoch."""


@attrs.frozen
class Selection:
    """What to answer: a status, and the bytes from ``start`` to before ``stop``."""

    status: int
    start: int = 0
    stop: int = 0


def select(
    method: str, headers: CIMultiDictProxy[str], validators: Validators, size: int
) -> Selection:
    """Return what a GET or HEAD of so many bytes is to be answered with.

    200 with all, 206 with a part, 304, 412 or 416 with none. What is malformed is as good as
    absent, as RFC 9110 has it for dates, tags and ranges alike.
    """
    # The order of RFC 9110, section 13.2.2.
    if_match = headers.getall("if-match", ())
    if if_match:
        if not _lists_tag(if_match, validators.etag, weak=False):
            return Selection(412)
    else:
        since = _date(headers, "if-unmodified-since")
        if since is not None and validators.modified > since:
            return Selection(412)
    if_none_match = headers.getall("if-none-match", ())
    if if_none_match:
        if _lists_tag(if_none_match, validators.etag, weak=True):
            return Selection(304)
    else:
        since = _date(headers, "if-modified-since")
        if since is not None and validators.modified <= since:
            return Selection(304)
    # Ranges are for GET alone (section 14.2).
    if method == "GET" and "range" in headers and _is_same(headers, validators):
        return _part(headers["range"], size)
    return Selection(200, 0, size)


_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')  # section 8.8.3


def _lists_tag(lines: list[str] | tuple[str, ...], etag: str, *, weak: bool) -> bool:
    text = ",".join(lines)
    if text.strip() == "*":
        return True
    return any(tag == etag and (weak or not prefix) for prefix, tag in _TAG.findall(text))


def _date(headers: CIMultiDictProxy[str], name: str) -> int | None:
    if name not in headers:
        return None
    try:
        fields = parsedate_tz(headers[name])  # all three forms of section 5.6.7
        return None if fields is None else int(mktime_tz(fields))
    except (ValueError, TypeError, IndexError, OverflowError):  # a year of 20 digits, for one
        return None


def _is_same(headers: CIMultiDictProxy[str], validators: Validators) -> bool:
    """Whether If-Range, if there is one, names this state of the file (section 13.1.5)."""
    if "if-range" not in headers:
        return True
    if headers["if-range"].strip().startswith(('"', "W/")):
        return headers["if-range"].strip() == validators.etag
    return _date(headers, "if-range") == validators.modified


_RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def _part(text: str, size: int) -> Selection:
    """Select the part that Range asks for.

    Several at once may be answered with all (section 14.2): dozens of tiny and overlapping
    ones are an attack, and no client of static files needs more than one.
    """
    found = _RANGE.fullmatch(text.strip())
    whole = Selection(200, 0, size)
    if found is None or found[1] + found[2] == "":
        return whole
    if not found[1]:  # so many bytes from the end
        length = int(found[2])
        if length and not size:  # nothing is all there is, and cannot be told as a part
            return whole
        start, stop = max(0, size - length), size
    else:
        start = int(found[1])
        stop = min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return whole
    return Selection(206, start, stop) if start < stop else Selection(416)
