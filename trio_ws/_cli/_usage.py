"""What the commands have in common: exit codes, and what to say to a user who is wrong."""

from __future__ import annotations

import enum
import ssl


class ExitCode(enum.IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    """All went well: the connection was closed with 1000, 1001 or no code at all."""
    CLOSED = 1
    """The connection ended in another way, or the command failed."""
    USAGE = 2
    """The command line was wrong; the text says what would be right."""
    UNREACHABLE = 3
    """There was no connection: no such host, refused, TLS, too slow, ..."""
    REJECTED = 4
    """The server answered, but not with a WebSocket."""
    INTERRUPTED = 130
    """Ctrl-C: as a shell counts it, 128 and SIGINT."""


class UsageError(Exception):
    """What the user asked for cannot be done; the text says what to do instead."""


def split_header(text: str) -> tuple[str, str]:
    """Split ``NAME:VALUE``.

    Raises:
      UsageError: there is no colon.
    """
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"the header {text!r} is not of the form NAME:VALUE")
    return name.strip(), value.strip()


def client_context(cafile: str | None) -> ssl.SSLContext | None:
    """Return a context that trusts the authorities in a file, if one is given.

    Raises:
      UsageError: there are none in it.
    """
    if cafile is None:
        return None
    try:
        return ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"no certificates in {cafile}: {exc}") from exc
