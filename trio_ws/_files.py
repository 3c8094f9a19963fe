"""Files as bodies of responses: opened, judged and read in threads, in bounded pieces."""

from __future__ import annotations

import contextlib
import mimetypes
import os
import stat
from contextlib import AbstractContextManager
from email.utils import formatdate
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import trio

from ._http_conditions import Selection, Validators, select
from ._http_request import RequestHead
from ._http_response import Response
from ._streams import READ_SIZE

NOT_FOUND: Final = Response("not found\n", status=404)

_CHARSET: Final = {"text/html", "text/css", "text/plain", "text/javascript", "application/json"}


class OpenFile(AbstractContextManager["OpenFile"]):
    """An open file, and what of it is to be sent."""

    def __init__(self, descriptor: int, head: Response, selection: Selection) -> None:
        self.head: Response = head
        """All of the answer but its body."""
        self._descriptor = descriptor
        self._position = selection.start
        self._stop = selection.stop

    @property
    def length(self) -> int:
        """Bytes that are still to be read."""
        return self._stop - self._position

    async def read(self) -> bytes:
        """Return the next piece, nothing at the end.

        Raises:
          trio.BrokenResourceError: the file has become shorter in the meantime, or the disk
              is broken.
        """
        size = min(READ_SIZE, self.length)
        if not size:
            await trio.lowlevel.checkpoint()
            return b""
        read = partial(os.pread, self._descriptor, size, self._position)
        try:
            piece = await trio.to_thread.run_sync(read)
        except OSError as exc:
            raise trio.BrokenResourceError("a file could not be read") from exc
        if not piece:
            raise trio.BrokenResourceError("a file became shorter while it was sent")
        self._position += len(piece)
        return piece

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)


async def open_file(path: Path, response: Response, request: RequestHead) -> OpenFile | None:
    """Open a file that is to be a body, and find out what of it this request wants.

    `None` if there is no such file that one may read.
    """
    # Not abandoned when it is cancelled: what it opens is returned, and can be closed.
    return await trio.to_thread.run_sync(_open, path, response, request)


def _open(path: Path, response: Response, request: RequestHead) -> OpenFile | None:
    with contextlib.ExitStack() as stack:
        try:
            # O_NONBLOCK: to open a pipe that nobody writes to would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):  # a NUL in the name
            return None
        stack.callback(os.close, descriptor)
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return None
        head, selection = _judge(path, response, request, about)
        stack.pop_all()
        return OpenFile(descriptor, head, selection)


def _judge(
    path: Path, response: Response, request: RequestHead, about: os.stat_result
) -> tuple[Response, Selection]:
    """Judge the descriptor that is open: the name may belong to another file by now."""
    size = about.st_size
    headers = list(response.headers)
    if not response.has("content-type"):
        headers.append(("Content-Type", content_type_of(path)))
    if response.status != 200:
        return Response(status=response.status, headers=headers), Selection(200, 0, size)
    # As common servers have it, and the same on each machine with the same files.
    validators = Validators(f'"{about.st_mtime_ns:x}-{size:x}"', int(about.st_mtime))
    selection = select(request.method, request.headers, validators, size)
    for name, value in (
        ("ETag", validators.etag),
        ("Last-Modified", formatdate(validators.modified, usegmt=True)),
        ("Accept-Ranges", "bytes"),
    ):
        if not response.has(name.lower()):
            headers.append((name, value))
    if selection.status == 206:
        part = f"bytes {selection.start}-{selection.stop - 1}/{size}"
        headers.append(("Content-Range", part))
    elif selection.status == 416:
        headers.append(("Content-Range", f"bytes */{size}"))
    return Response(status=selection.status, headers=headers), selection


def content_type_of(path: Path) -> str:
    """Return the type that a file's name tells. Must run in a thread: it may read files."""
    kind, encoding = mimetypes.guess_type(path.name)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind in _CHARSET else kind
