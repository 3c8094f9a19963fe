"""What a server answers over HTTP: a response, or the refusal of a request."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs

from ._http_headers import FRAMING_HEADERS, Headers, check_headers

WITHOUT_BODY: Final = frozenset({204, 205, 304})
"""RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5."""


def _size(body: bytes) -> str:
    return f"<{len(body)} bytes>"


@attrs.frozen(init=False)
class Response:
    """An HTTP response with its whole body.

    ``body`` as `str` is sent as UTF-8, and is plain text unless ``content_type`` (or a
    header) says otherwise: ``"text/html; charset=utf-8"``. ``headers`` is a mapping,
    or pairs of name and value. Length, date and what concerns the connection are added.

    Raises:
      TypeError: a value is of the wrong type.
      ValueError: the status is not from 200 to 599, or allows no body; a header is
          illegal, or is one of those that are added.
    """

    body: bytes = attrs.field(repr=_size)
    status: int
    headers: tuple[tuple[str, str], ...]
    """With Content-Type, if there is one."""
    path: Path | None = None
    """The file that is sent as the body, if one is: see `file`."""

    def __init__(
        self,
        body: str | bytes = b"",
        *,
        status: int = 200,
        headers: Headers = (),
        content_type: str | None = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"a status is an int, not {type(status).__name__}")
        if not 200 <= status <= 599:
            raise ValueError(f"the status of a response is from 200 to 599, not {status}")
        if not isinstance(body, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a body is str or bytes, not {type(body).__name__}")
        content = body.encode() if isinstance(body, str) else bytes(body)
        if content and status in WITHOUT_BODY:
            raise ValueError(f"a response with status {status} has no body")

        fields = check_headers(headers, FRAMING_HEADERS)
        typed = any(name.lower() == "content-type" for name, _ in fields)
        if typed and content_type is not None:
            raise ValueError("give content_type or a header Content-Type, not both")
        if content_type is None and isinstance(body, str) and content and not typed:
            content_type = "text/plain; charset=utf-8"
        if content_type is not None:
            fields += check_headers([("Content-Type", content_type)], frozenset())
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it
            content, int(status), fields
        )

    @classmethod
    def html(cls, text: str, *, status: int = 200, headers: Headers = ()) -> Response:
        """Make a web page."""
        content_type = "text/html; charset=utf-8"
        return Response(text, status=status, headers=headers, content_type=content_type)

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: Headers = ()) -> Response:
        """Make a response of what `json.dumps` takes.

        Raises:
          TypeError, ValueError: the value is no JSON: of another type, NaN, infinite, ...
        """
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        content_type = "application/json"
        return Response(text, status=status, headers=headers, content_type=content_type)

    @classmethod
    def redirect(cls, location: str, *, status: int = 302, headers: Headers = ()) -> Response:
        """Send the client to another place: a URL, or a path with or without a host.

        Characters beyond ASCII are percent-encoded. A place that a client may choose has to
        be checked by you, or your site lends its good name to others.

        Raises:
          ValueError: the status is none of 301, 302, 303, 307, 308, or the place cannot be
              written into a header.
        """
        if status not in _REDIRECTS:
            raise ValueError(f"a redirect has status 301, 302, 303, 307 or 308, not {status}")
        target = ("Location", quote(location, safe=_SAFE_IN_LOCATION))
        return Response(status=status, headers=(*check_headers(headers, frozenset()), target))

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        *,
        status: int = 200,
        headers: Headers = (),
        content_type: str | None = None,
    ) -> Response:
        """Send a file, piece by piece, when it is the response's turn.

        It is opened then, in a thread: one that is not there, is no regular file or may not
        be read is answered 404. The name decides on the type, if you do not. Links are
        followed. With status 200 there is an ETag and a Last-Modified, and conditions and a
        range in the request are heeded (RFC 9110, sections 13 and 14).
        """
        if status in WITHOUT_BODY:
            raise ValueError(f"a response with status {status} has no body")
        response = Response(status=status, headers=headers, content_type=content_type)
        object.__setattr__(response, "path", Path(path))  # frozen from here on
        return response

    def has(self, name: str) -> bool:
        """Whether there is a header of that name, given in lower case."""
        return any(name == found.lower() for found, _ in self.headers)


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})  # RFC 9110, section 15.4
# The delimiters of RFC 3986, and the percent sign of what is encoded already. Spaces are
# encoded; control characters are not, so that check_headers refuses them.
_SAFE_IN_LOCATION: Final = "/?:@!$&'()*+,;=-._~%[]#\r\n\0"


class BadRequest(Exception):
    """A request that is refused; ``response`` is what to answer.

    ``reason`` is told to the peer and to the log: it never repeats the peer's bytes.
    """

    def __init__(self, status: int, reason: str, headers: Headers = ()) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        self.response = Response(f"{reason}\n", status=status, headers=headers)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


def upgrade_required(reason: str = "a WebSocket is served here, over HTTP/1.1") -> BadRequest:
    """Make the refusal of a request that is not the upgrade that it has to be."""
    return BadRequest(426, reason, [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")])
