"""Where Redis is: a URL, and how to open a stream to what it names."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import anyio
import attrs
from anyio.abc import ByteStream

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

FORMS: Final = (
    "redis://[user:password@]host[:port][/db], rediss://... (TLS), unix:///path[?db=1]"
    " or redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]"
)


@attrs.frozen(kw_only=True)
class Address:
    """What a URL says."""

    hosts: tuple[tuple[str, int], ...] = ()
    """One server, or any number of Sentinels."""
    path: str | None = None
    """The Unix socket, instead of a host."""
    service: str | None = None
    """What the Sentinels call the primary."""
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    db: int = 0
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return hosts if self.service is None else f"{self.service} at {hosts}"

    @classmethod
    def parse(cls, url: str, ssl_context: ssl.SSLContext | None = None) -> Address:
        """Read a URL.

        Raises:
          TypeError: it is no string.
          ValueError: it is no URL of Redis; the message shows none of it, for it may hold
              a password.
        """
        if not isinstance(url, str):
            raise TypeError(f"the URL of Redis is a str, not {type(url).__name__}")
        try:
            return _parse(urlsplit(url), ssl_context)
        except ValueError as exc:
            raise ValueError(f"that is no URL of Redis ({exc}); it looks like {FORMS}") from None

    async def connect(self, location: tuple[str, int] | None) -> ByteStream:
        """Open a stream to a server, or to the socket that the URL names.

        Raises: `OSError` and `ssl.SSLError`.
        """
        if location is None:
            assert self.path is not None
            return await anyio.connect_unix(self.path)
        host, port = location
        if self.ssl_context is None:
            return await anyio.connect_tcp(host, port)
        return await anyio.connect_tcp(
            host, port, tls=True, ssl_context=self.ssl_context, tls_standard_compatible=False
        )


def _parse(url: SplitResult, context: ssl.SSLContext | None) -> Address:
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    db = query.pop("db", None)
    if query or url.fragment:
        raise ValueError("it may have nothing behind a ? but db=")
    credentials, _, place = url.netloc.rpartition("@")
    username, _, password = map(unquote, credentials.partition(":"))
    hosts: tuple[tuple[str, int], ...] = ()
    service = None
    match url.scheme:
        case "redis" | "rediss":
            if url.scheme == "rediss":
                context = context or ssl.create_default_context()
            hosts = (_host(place, PORT),)
            db = url.path.strip("/") or db
        case "redis+sentinel":
            hosts = tuple(_host(each, SENTINEL_PORT) for each in place.split(","))
            service, _, path_db = url.path.strip("/").partition("/")
            if not service:
                raise ValueError("it names no service")
            db = path_db or db
        case "unix":
            if not url.path.strip("/"):
                raise ValueError("it has no path")
        case scheme:
            raise ValueError(f"its scheme is {scheme!r}")
    return Address(
        hosts=hosts,
        path=None if hosts else unquote(url.path),
        service=service,
        username=username or None,
        password=password or None,
        db=int(db or 0),
        ssl_context=context,
    )


def _host(place: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname:
        raise ValueError("it has no host")
    return parts.hostname, parts.port or default_port
