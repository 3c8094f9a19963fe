"""Static files: a folder, as responses."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import Final

import trio

from ._http_response import Response

_CHARSET: Final = {"text/html", "text/css", "text/plain", "text/javascript", "application/json"}

NOT_FOUND: Final = Response("not found\n", status=404)


class StaticFiles:
    """The files of one folder and those below it, read anew for each request.

    Raises:
      NotADirectoryError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder).resolve()
        if not self._folder.is_dir():
            raise NotADirectoryError(f"{str(self._folder)!r} is no folder to serve files from")

    async def respond(self, name: str) -> Response:
        """Return a file by its path below the folder; of a folder its ``index.html``."""
        path = await trio.to_thread.run_sync(self._find, name)
        if path is None:
            return NOT_FOUND
        try:
            body = await trio.Path(path).read_bytes()
        except OSError:  # deleted since, or not for us to read
            return NOT_FOUND
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return Response(body, content_type=_content_type(path), headers=headers)

    def _find(self, name: str) -> Path | None:
        """Links are followed, but not out of the folder."""
        if "\0" in name:
            return None
        try:
            path = (self._folder / name.lstrip("/")).resolve()
            if path.is_dir():
                path = (path / "index.html").resolve()  # which may be a link, too
            found = path.is_relative_to(self._folder) and path.is_file()
        except (OSError, RuntimeError):  # too long, locked; links in a circle (Python < 3.13)
            return None
        return path if found else None


def _content_type(path: Path) -> str:
    kind, encoding = mimetypes.guess_type(path.name)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind in _CHARSET else kind
