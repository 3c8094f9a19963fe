"""What the commands have in common: exit codes, and what to say to a user who is wrong."""

from __future__ import annotations

import argparse
import contextlib
import enum
import ssl
from collections.abc import Callable
from typing import TypeVar

from .._listeners import MAX_PORT

N = TypeVar("N", int, float)


class ExitCode(enum.IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    """All went well: the connection was closed with 1000, 1001 or no code at all."""
    CLOSED = 1
    """The connection ended in another way, or the command failed."""
    USAGE = 2
    """The command line was wrong; the text says what would be right."""
    UNREACHABLE = 3
    """There was no connection: no such host, refused, TLS, too slow, ...; or none any more,
    when the user left while another one was tried."""
    REJECTED = 4
    """The server answered, but not with a WebSocket."""
    INTERRUPTED = 130
    """Ctrl-C: as a shell counts it, 128 and SIGINT."""


class UsageError(Exception):
    """What the user asked for cannot be done; the text says what to do instead."""


# Types for `argparse`, which shows what they raise.


def seconds(text: str) -> float:
    """Read a time, which may be 0 or ``inf``."""
    return _number(text, float, lambda value: value >= 0, "a number of seconds, 0 or more")


def interval(text: str) -> float:
    """Read a time between two things."""
    return _number(text, float, lambda value: value > 0, "a number of seconds above 0")


def port(text: str) -> int:
    """Read a port to listen on."""
    return _number(text, int, lambda value: 0 <= value <= MAX_PORT, f"a port: 0 to {MAX_PORT}")


def count(text: str) -> int:
    """Read how many there shall be."""
    return _number(text, int, lambda value: value >= 1, "a number from 1 upwards")


def _number(text: str, kind: type[N], fits: Callable[[N], bool], what: str) -> N:
    with contextlib.suppress(ValueError):
        if fits(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not {what}")


def split_header(text: str) -> tuple[str, str]:
    """Split ``NAME:VALUE``.

    Raises:
      UsageError: there is no colon.
    """
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"the header {text!r} is not of the form NAME:VALUE")
    return name.strip(), value.strip()


def client_context(
    cafile: str | None, certfile: str | None, keyfile: str | None
) -> ssl.SSLContext | None:
    """Return a context that trusts the authorities in a file, with a certificate to show.

    `None` if neither is given.

    Raises:
      UsageError: there are none in the files.
    """
    check_keyfile(certfile, keyfile)
    if cafile is None and certfile is None:
        return None
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"no certificates in {cafile}: {exc}") from exc
    if certfile is not None:
        load_certificate(context, certfile, keyfile)
    return context


def check_keyfile(certfile: str | None, keyfile: str | None) -> None:
    """Refuse a key without a certificate.

    Raises:
      UsageError: it is one.
    """
    if certfile is None and keyfile is not None:
        raise UsageError("--keyfile goes with --certfile")


def load_certificate(context: ssl.SSLContext, certfile: str, keyfile: str | None) -> None:
    """Let a context show a certificate.

    Raises:
      UsageError: there is none in the file, or the key is another one's.
    """
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as exc:
        raise UsageError(f"no certificate in {certfile}: {exc}") from exc
