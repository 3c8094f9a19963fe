"""Static files: what is in the folder is served, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_ws._http_response import Response
from trio_ws._static import NOT_FOUND, StaticFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to serve, beside a file that is nobody's business."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "web"
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "index.html").write_text("<p>home")
    (folder / "sub" / "index.html").write_text("<p>sub")
    (folder / "sub" / "page.txt").write_text("page")
    return folder


def headers_of(response: Response) -> dict[str, str]:
    return dict(response.headers)


async def test_a_file_is_served_with_its_bytes_and_headers(folder: Path) -> None:
    response = await StaticFiles(folder).respond("sub/page.txt")
    assert (response.status, response.body) == (200, b"page")
    assert headers_of(response) == {
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Type": "text/plain; charset=utf-8",
    }


@pytest.mark.parametrize(
    ("name", "body"),
    [("", b"<p>home"), ("index.html", b"<p>home"), ("sub", b"<p>sub"), ("sub/", b"<p>sub")],
)
async def test_of_a_folder_its_index_is_served(folder: Path, name: str, body: bytes) -> None:
    response = await StaticFiles(folder).respond(name)
    assert (response.status, response.body) == (200, body)
    assert headers_of(response)["Content-Type"] == "text/html; charset=utf-8"


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
async def test_the_name_decides_on_type_and_charset(
    folder: Path, name: str, content_type: str
) -> None:
    (folder / name).write_bytes(b"x")
    response = await StaticFiles(folder).respond(name)
    found = headers_of(response)["Content-Type"]
    if found == "application/javascript":  # so it was until Python 3.12
        found = "text/javascript; charset=utf-8"
    assert found == content_type


async def test_a_file_is_read_anew_for_each_request(folder: Path) -> None:
    files = StaticFiles(folder)
    assert (await files.respond("new.txt")).status == 404
    (folder / "new.txt").write_text("1")
    assert (await files.respond("new.txt")).body == b"1"
    (folder / "new.txt").write_text("2")
    assert (await files.respond("new.txt")).body == b"2"


@pytest.mark.parametrize(
    "name",
    [
        "missing.txt",
        "missing/page.txt",
        "index.html/page.txt",
        "empty",
        "empty/",
        "sub/page.txt\0.html",
        "\0",
        "a" * 300,
        "x/" * 3000,
    ],
)
async def test_what_is_not_there_is_404(folder: Path, name: str) -> None:
    assert await StaticFiles(folder).respond(name) == NOT_FOUND


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../",
        "../secret.txt",
        "/../secret.txt",
        "sub/../../secret.txt",
        "missing/../../secret.txt",
        "../web/../secret.txt",
        "..\\secret.txt",
        "%2e%2e/secret.txt",  # decoding was done before, once
        "....//secret.txt",
    ],
)
async def test_no_dots_lead_out_of_the_folder(folder: Path, name: str) -> None:
    assert await StaticFiles(folder).respond(name) == NOT_FOUND


async def test_an_absolute_path_is_one_below_the_folder(folder: Path) -> None:
    files = StaticFiles(folder)
    secret = str(folder.parent / "secret.txt")
    for slashes in ("", "/", "//"):
        assert await files.respond(slashes + secret) == NOT_FOUND
    assert (await files.respond("//sub/page.txt")).body == b"page"


async def test_a_neighbour_whose_name_begins_alike_is_outside(folder: Path) -> None:
    (folder.parent / "web-private").mkdir()
    (folder.parent / "web-private" / "page.txt").write_text("private")
    assert await StaticFiles(folder).respond("../web-private/page.txt") == NOT_FOUND


async def test_links_are_followed_inside_of_the_folder_only(folder: Path) -> None:
    (folder / "inside.txt").symlink_to(folder / "sub" / "page.txt")
    (folder / "outside.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "up").symlink_to(folder.parent)
    files = StaticFiles(folder)
    assert (await files.respond("inside.txt")).body == b"page"
    assert await files.respond("outside.txt") == NOT_FOUND
    assert await files.respond("up/secret.txt") == NOT_FOUND
    assert (await files.respond("up/web/sub/page.txt")).body == b"page"  # and in again


async def test_an_index_that_is_a_link_out_of_the_folder_is_not_served(folder: Path) -> None:
    (folder / "empty" / "index.html").symlink_to(folder.parent / "secret.txt")
    assert await StaticFiles(folder).respond("empty/") == NOT_FOUND


async def test_an_index_that_is_a_link_inside_of_the_folder_is_served(folder: Path) -> None:
    (folder / "empty" / "index.html").symlink_to(folder / "sub" / "page.txt")
    assert (await StaticFiles(folder).respond("empty/")).body == b"page"


async def test_links_in_a_circle_are_404(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    assert await StaticFiles(folder).respond("one") == NOT_FOUND


async def test_the_folder_may_be_given_by_a_link_or_a_relative_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    for given in (link, "web", str(folder), "web/sub/.."):
        assert (await StaticFiles(given).respond("sub/page.txt")).body == b"page"


async def test_a_file_that_goes_before_it_is_read_is_404(folder: Path) -> None:
    class Unlucky(StaticFiles):
        def _find(self, name: str) -> Path | None:
            path = super()._find(name)
            assert path is not None
            path.unlink()
            return path

    assert await Unlucky(folder).respond("sub/page.txt") == NOT_FOUND


async def test_what_cannot_be_read_is_404(folder: Path) -> None:
    locked, page = folder / "locked", folder / "sub" / "page.txt"
    locked.mkdir()
    (locked / "page.txt").write_text("page")
    locked.chmod(0)
    page.chmod(0)
    try:
        try:
            page.read_bytes()
        except PermissionError:
            pass
        else:
            pytest.skip("nothing is locked to this user")
        for name in ("sub/page.txt", "locked/page.txt", "locked"):
            assert await StaticFiles(folder).respond(name) == NOT_FOUND
    finally:
        locked.chmod(0o700)  # so that it can be removed


@pytest.mark.parametrize("name", ["missing", "index.html"])
def test_what_is_no_folder_is_refused_at_once(folder: Path, name: str) -> None:
    with pytest.raises(NotADirectoryError, match="no folder to serve files from"):
        StaticFiles(folder / name)
