"""What a server answers over HTTP: a response, or the refusal of a request."""

from __future__ import annotations

from typing import Final

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

    def has(self, name: str) -> bool:
        """Whether there is a header of that name, given in lower case."""
        return any(name == found.lower() for found, _ in self.headers)


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
