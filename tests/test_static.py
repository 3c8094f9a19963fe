"""Static files: what is in the folder is served, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio.testing

from trio_ws._files import NOT_FOUND
from trio_ws._http_request import parse_request
from trio_ws._http_response import Response
from trio_ws._request import Request
from trio_ws._static import StaticFiles


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


async def respond(folder: Path | str, name: str, target: str | None = None) -> Response:
    """Ask for a file below the folder, which is served at the root."""
    target = "/" + name if target is None else target
    plain = target.encode("ascii", "ignore").replace(b"\0", b"")
    head = parse_request(b"GET", plain, b"1.1", [(b"host", b"test")])
    stream, _ = trio.testing.memory_stream_pair()
    return await StaticFiles(folder).respond(Request(head, stream), name)


async def found(folder: Path | str, name: str) -> Path:
    """Return the file that is served."""
    response = await respond(folder, name)
    assert response.path is not None, response
    return response.path


async def test_a_file_is_served_to_be_kept_but_checked(folder: Path) -> None:
    response = await respond(folder, "sub/page.txt")
    assert response.path == folder / "sub" / "page.txt"
    assert response.status == 200
    assert dict(response.headers) == {
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }


@pytest.mark.parametrize(
    ("name", "file"),
    [("", "index.html"), ("index.html", "index.html"), ("sub/", "sub/index.html")],
)
async def test_of_a_folder_its_index_is_served(folder: Path, name: str, file: str) -> None:
    assert await found(folder, name) == folder / file


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("/sub", "./sub/"),
        ("/static/sub?a=/b?c", "./sub/?a=/b?c"),
        ("//sub", "./sub/"),
        ("/%73ub", "./%73ub/"),
    ],
)
async def test_a_folder_without_its_slash_is_redirected(
    folder: Path, target: str, place: str
) -> None:
    response = await respond(folder, "sub", target)
    assert response.status == 301
    assert dict(response.headers) == {"Cache-Control": "no-cache", "Location": place}


async def test_a_file_is_looked_up_anew_for_each_request(folder: Path) -> None:
    assert await respond(folder, "new.txt") == NOT_FOUND
    (folder / "new.txt").write_text("1")
    assert await found(folder, "new.txt") == folder / "new.txt"


@pytest.mark.parametrize(
    "name",
    [
        "missing.txt",
        "missing/page.txt",
        "index.html/page.txt",
        "index.html/",
        "empty",
        "empty/",
        "sub/page.txt\0.html",
        "\0",
        "a" * 300,
        "x/" * 3000,
    ],
)
async def test_what_is_not_there_is_404(folder: Path, name: str) -> None:
    assert await respond(folder, name) == NOT_FOUND


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
        ".well-known/../../secret.txt",
        "..\\secret.txt",
        "%2e%2e/secret.txt",  # decoding was done before, once
        "....//secret.txt",
    ],
)
async def test_no_dots_lead_out_of_the_folder(folder: Path, name: str) -> None:
    assert await respond(folder, name) == NOT_FOUND


@pytest.mark.parametrize(
    "name", [".env", ".git/config", "sub/.htpasswd", "sub/.well-known/x", ".well-known/.x"]
)
async def test_what_begins_with_a_dot_is_not_published(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("secret")
    assert await respond(folder, name) == NOT_FOUND


async def test_well_known_is_published(folder: Path) -> None:
    (folder / ".well-known").mkdir()
    (folder / ".well-known" / "security.txt").write_text("Contact: us")
    name = ".well-known/security.txt"
    assert await found(folder, name) == folder / name


async def test_an_absolute_path_is_one_below_the_folder(folder: Path) -> None:
    secret = str(folder.parent / "secret.txt")
    for slashes in ("", "/", "//"):
        assert await respond(folder, slashes + secret) == NOT_FOUND
    assert await found(folder, "//sub/page.txt") == folder / "sub" / "page.txt"


async def test_a_neighbour_whose_name_begins_alike_is_outside(folder: Path) -> None:
    (folder.parent / "web-private").mkdir()
    (folder.parent / "web-private" / "page.txt").write_text("private")
    (folder / "link").symlink_to(folder.parent / "web-private")
    assert await respond(folder, "../web-private/page.txt") == NOT_FOUND
    assert await respond(folder, "link/page.txt") == NOT_FOUND


async def test_links_are_followed_inside_of_the_folder_only(folder: Path) -> None:
    (folder / "inside.txt").symlink_to(folder / "sub" / "page.txt")
    (folder / "outside.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "up").symlink_to(folder.parent)
    assert await found(folder, "inside.txt") == folder / "sub" / "page.txt"
    assert await respond(folder, "outside.txt") == NOT_FOUND
    assert await respond(folder, "up/secret.txt") == NOT_FOUND
    assert await found(folder, "up/web/sub/page.txt") == folder / "sub" / "page.txt"  # in again


async def test_an_index_that_is_a_link_out_of_the_folder_is_not_served(folder: Path) -> None:
    (folder / "empty" / "index.html").symlink_to(folder.parent / "secret.txt")
    assert await respond(folder, "empty/") == NOT_FOUND
    assert await respond(folder, "empty") == NOT_FOUND


async def test_an_index_that_is_a_link_inside_of_the_folder_is_served(folder: Path) -> None:
    (folder / "empty" / "index.html").symlink_to(folder / "sub" / "page.txt")
    assert await found(folder, "empty/") == folder / "sub" / "page.txt"


async def test_links_in_a_circle_are_404(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    assert await respond(folder, "one") == NOT_FOUND


async def test_a_pipe_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert await respond(folder, "pipe") == NOT_FOUND


async def test_the_folder_may_be_given_by_a_link_or_a_relative_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    for given in (link, "web", str(folder), "web/sub/.."):
        assert await found(given, "sub/page.txt") == folder / "sub" / "page.txt"


async def test_a_folder_that_is_locked_is_404(folder: Path) -> None:
    locked = folder / "locked"
    locked.mkdir()
    (locked / "page.txt").write_text("page")
    locked.chmod(0)
    try:
        if os.access(locked, os.X_OK):
            pytest.skip("nothing is locked to this user")
        for name in ("locked/page.txt", "locked"):
            assert await respond(folder, name) == NOT_FOUND
    finally:
        locked.chmod(0o700)  # so that it can be removed


@pytest.mark.parametrize("name", ["missing", "index.html"])
def test_what_is_no_folder_is_refused_at_once(folder: Path, name: str) -> None:
    with pytest.raises(NotADirectoryError, match="no folder to serve files from"):
        StaticFiles(folder / name)
