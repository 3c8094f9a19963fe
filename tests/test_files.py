"""Files as bodies: opened, judged and read in threads, in bounded pieces."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from _helpers import descriptors
from trio.testing import MockClock

from trio_ws._files import OpenFile, content_type_of, open_file
from trio_ws._http_conditions import Selection
from trio_ws._http_request import RequestHead, parse_request
from trio_ws._http_response import Response
from trio_ws._streams import READ_SIZE

MODIFIED = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "page.txt"
    page.write_bytes(b"0123456789")
    os.utime(page, (MODIFIED, MODIFIED))
    return page


def ask(*lines: str, method: str = "GET") -> RequestHead:
    headers = [line.encode().lower().split(b": ") for line in ("Host: test", *lines)]
    return parse_request(method.encode(), b"/", b"1.1", [(name, value) for name, value in headers])


async def open_(path: Path, *lines: str, **response: object) -> OpenFile:
    file = await open_file(path, Response.file(path, **response), ask(*lines))  # type: ignore[arg-type]
    assert file is not None
    return file


async def content(file: OpenFile) -> list[bytes]:
    pieces = []
    while piece := await file.read():
        pieces.append(piece)
    return pieces


async def test_a_file_comes_with_its_type_tag_and_date(page: Path) -> None:
    with await open_(page) as file:
        assert (file.head.status, file.length) == (200, 10)
        assert dict(file.head.headers) == {
            "Content-Type": "text/plain; charset=utf-8",
            "ETag": f'"{MODIFIED * 10**9:x}-a"',
            "Last-Modified": DATE,
            "Accept-Ranges": "bytes",
        }
        assert await content(file) == [b"0123456789"]


async def test_what_the_application_has_said_stands(page: Path) -> None:
    said = {"ETag": '"mine"', "X-One": "1"}
    with await open_(page, headers=said, content_type="a/b") as file:
        headers = dict(file.head.headers)
    assert headers.items() > said.items()
    assert headers["Content-Type"] == "a/b"


async def test_a_part_is_told_and_read(page: Path) -> None:
    with await open_(page, "Range: bytes=2-4") as file:
        assert (file.head.status, file.length) == (206, 3)
        assert dict(file.head.headers)["Content-Range"] == "bytes 2-4/10"
        assert await content(file) == [b"234"]


async def test_a_part_that_is_not_there_is_told(page: Path) -> None:
    with await open_(page, "Range: bytes=10-") as file:
        assert (file.head.status, file.length) == (416, 0)
        assert dict(file.head.headers)["Content-Range"] == "bytes */10"
        assert await content(file) == []


async def test_who_has_it_already_gets_nothing(page: Path) -> None:
    with await open_(page, f"If-Modified-Since: {DATE}") as file:
        assert (file.head.status, file.length) == (304, 0)
        assert dict(file.head.headers)["Last-Modified"] == DATE
        assert await content(file) == []


async def test_another_status_knows_no_conditions(page: Path) -> None:
    with await open_(page, "Range: bytes=2-4", "If-None-Match: *", status=404) as file:
        assert (file.head.status, file.length) == (404, 10)
        assert dict(file.head.headers) == {"Content-Type": "text/plain; charset=utf-8"}
        assert await content(file) == [b"0123456789"]


async def test_a_file_that_changes_gets_another_tag(page: Path) -> None:
    with await open_(page) as file:
        old = file.head.headers
    os.utime(page, ns=(0, MODIFIED * 10**9 + 1))
    with await open_(page) as file:
        assert dict(file.head.headers)["ETag"] != dict(old)["ETag"]
        assert dict(file.head.headers)["Last-Modified"] == dict(old)["Last-Modified"]


async def test_a_large_file_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    data = os.urandom(3 * READ_SIZE + 1)
    (tmp_path / "big").write_bytes(data)
    with await open_(tmp_path / "big", f"Range: bytes=1-{3 * READ_SIZE}") as file:
        pieces = await content(file)
    assert [len(piece) for piece in pieces] == [READ_SIZE] * 3
    assert b"".join(pieces) == data[1:]


async def test_a_file_that_is_replaced_is_sent_as_it_was(page: Path) -> None:
    other = page.with_name("other.txt")
    await trio.Path(other).write_text("another")
    with await open_(page) as file:
        await trio.Path(other).replace(page)
        assert await content(file) == [b"0123456789"]


async def test_what_grows_is_sent_as_far_as_it_was_announced(page: Path) -> None:
    with await open_(page) as file, page.open("ab") as more:
        more.write(b"more")
        more.flush()
        assert await content(file) == [b"0123456789"]


async def test_what_shrinks_cannot_be_sent_to_its_end(page: Path) -> None:
    with await open_(page) as file:
        os.truncate(page, 3)
        assert await file.read() == b"012"
        with pytest.raises(trio.BrokenResourceError, match="became shorter"):
            await file.read()


async def test_what_cannot_be_read_cannot_be_sent() -> None:
    reading, writing = os.pipe()  # stands for a broken disk: a pipe has no positions
    os.close(writing)
    with (
        OpenFile(reading, Response(), Selection(200, 0, 1)) as file,
        pytest.raises(trio.BrokenResourceError, match="could not be read"),
    ):
        await file.read()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["nothing", "folder", "pipe", "dangling"],
)
async def test_what_is_no_file_is_none(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "it"
    make(path)
    assert await open_file(path, Response.file(path), ask()) is None
    assert descriptors(path) == 0


async def test_a_name_with_a_nul_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a\0b"
    assert await open_file(path, Response.file(path), ask()) is None


async def test_a_file_is_closed_behind_its_block(page: Path) -> None:
    file = await open_(page)
    assert descriptors(page) == 1
    with pytest.raises(ValueError, match="oops"), file:
        raise ValueError("oops")
    assert descriptors(page) == 0


async def test_cancelling_the_opening_leaves_nothing_open(page: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_file(page, Response.file(page), ask())
    assert scope.cancelled_caught
    assert descriptors(page) == 0


async def test_each_read_is_a_checkpoint(page: Path, autojump_clock: MockClock) -> None:
    with await open_(page) as file:
        for _ in range(2):  # the second finds the end
            with trio.testing.assert_checkpoints():
                await file.read()


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.png", "image/png"),
        ("a.svg", "image/svg+xml"),
        ("a.txt.gz", "application/octet-stream"),  # not to be unpacked on the way
        ("a.no-such-kind", "application/octet-stream"),
        ("README", "application/octet-stream"),
    ],
)
def test_the_name_decides_on_type_and_charset(name: str, content_type: str) -> None:
    found = content_type_of(Path(name))
    if found == "application/javascript":  # so it was until Python 3.12
        found = "text/javascript; charset=utf-8"
    assert found == content_type
