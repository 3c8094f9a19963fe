"""Static files: a folder, as responses."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from ._files import NOT_FOUND
from ._http_response import Response
from ._request import Request


class StaticFiles:
    """The files of one folder and those below it, looked up anew for each request.

    Raises:
      NotADirectoryError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).resolve()
        if not self._folder.is_dir():
            raise NotADirectoryError(f"{str(self._folder)!r} is no folder to serve files from")

    async def respond(self, request: Request, name: str) -> Response:
        """Return a file by its path below the folder; of a folder its ``index.html``."""
        found = await trio.to_thread.run_sync(self._find, name)
        if found is None:
            return NOT_FOUND
        if found is self._folder:
            return with_slash(request)
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return Response.file(found, headers=headers)

    def _find(self, name: str) -> Path | None:
        """Return the file that a name means; the folder itself if the name lacks a slash.

        Links are followed, but not out of the folder.
        """
        if "\0" in name or _is_hidden(name):
            return None
        as_folder = not name or name.endswith("/")
        try:
            path = (self._folder / name.lstrip("/")).resolve()
            is_folder = path.is_dir()
            file = (path / "index.html").resolve() if is_folder else path  # may be a link
            if not (path.is_relative_to(self._folder) and file.is_relative_to(self._folder)):
                return None
            if not file.is_file() or (as_folder and not is_folder):
                return None
        except (OSError, RuntimeError):  # too long, locked; links in a circle (Python < 3.13)
            return None
        return file if as_folder or not is_folder else self._folder


def _is_hidden(name: str) -> bool:
    """Whether a name leads to what nobody meant to publish: ``.git``, ``.env``, or upwards."""
    parts = [part for part in name.split("/") if part]
    if parts[:1] == [".well-known"]:  # RFC 8615
        del parts[0]
    return any(part.startswith(".") for part in parts)


def with_slash(request: Request) -> Response:
    """Send a browser to the folder, or the links of its page would lead beside it.

    The place is relative: it cannot lead to another host, nor lose what a proxy in front
    has taken off the path.
    """
    path, mark, query = request.target.partition("?")
    place = "./" + path.rpartition("/")[2] + "/" + mark + query
    return Response.redirect(place, status=301, headers={"Cache-Control": "no-cache"})
