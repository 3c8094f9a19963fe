"""What goes in and out of ``trio-ws connect``: lines, JSON, and commands."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Final, TypeAlias

import attrs

from .._messages import CloseInfo, check_close


@attrs.frozen
class Ping:
    """Ask how long the way there and back is."""


@attrs.frozen
class Close:
    """Say goodbye."""

    code: int = 1000
    reason: str = ""


@attrs.frozen
class Help:
    """Tell what can be typed."""


Command: TypeAlias = "str | bytes | Ping | Close | Help"
"""A message to be sent, or something else to be done."""

HELP: Final = """\
a line      is sent as text; begin it with // to send a slash
/binary HEX is sent as bytes
/ping       asks how long the way there and back is
/close [CODE [REASON]]
            closes the connection, as Ctrl-D does
/help       shows this"""


def parse_typed(line: str) -> Command:
    """Read what somebody has typed at a terminal.

    Raises:
      ValueError: it is no command; the text says what is.
    """
    if not line.startswith("/"):
        return _check_text(line)
    if line.startswith("//"):
        return _check_text(line[1:])
    word, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    if word == "binary":
        return _parse_hex(rest)
    if word == "close":
        code, _, reason = rest.partition(" ")
        if not re.fullmatch(r"[0-9]*", code, re.ASCII):
            raise ValueError(f"{code!r} is no close code: /close 1000 bye")
        return _make_close(int(code or 1000), reason.strip())
    plain: dict[str, Command] = {"ping": Ping(), "help": Help()}
    if word not in plain:
        raise ValueError(f"there is no command /{word}: /binary, /ping, /close, /help")
    return plain[word]


def parse_json(line: str) -> Command:
    """Read a line of JSON: ``{"type": "text", "data": "..."}`` and so on.

    Raises:
      TypeError, ValueError: it is none of those that are known; the text says which are.
    """
    match json.loads(line):
        case {"type": "text", "data": str(text)}:
            return _check_text(text)
        case {"type": "binary", "data": str(text)}:
            return _parse_hex(text)
        case {"type": "ping"}:
            return Ping()
        case {"type": "close", **more}:
            return _make_close(more.get("code", 1000), more.get("reason", ""))
        case _:
            pass
    raise ValueError(
        'a line is {"type": "text", "data": "..."}, "binary" with data in hex, "ping", or'
        ' "close" with code and reason'
    )


def _check_text(text: str) -> str:
    text.encode()  # JSON can name half a character, and a terminal send half of one
    return text


def _make_close(code: Any, reason: Any) -> Close:
    check_close(code, reason)
    return Close(code, reason)


def _parse_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r} is no hex: two digits a byte, as in 00 ff") from None


# What comes...


def as_line(message: str | bytes) -> str:
    """Return a message as a line for pipes: text as it is, bytes as hex."""
    return message if isinstance(message, str) else message.hex(" ")


def as_json(kind: str, **more: Any) -> str:
    """Return something that has happened as a line of JSON."""
    return json.dumps({"type": kind, **more}, ensure_ascii=False)


def message_as_json(message: str | bytes) -> str:
    """Return a message as a line of JSON: bytes as hex."""
    if isinstance(message, str):
        return as_json("text", data=message)
    return as_json("binary", data=message.hex())


def close_as_json(info: CloseInfo) -> str:
    """Return the end of a connection as a line of JSON."""
    return as_json("close", code=info.code, reason=info.reason, clean=info.clean)


def say_outage(error: Exception, seconds: float) -> str:
    """Return why there is no connection, and when another one is tried."""
    return f"{defuse(str(error))}; next attempt in {seconds:.1f} s"


def for_eyes(message: str | bytes) -> str:
    """Return a message for a terminal: JSON indented, bytes as hex with their text beside.

    What could command the terminal is shown, and not sent there.
    """
    if isinstance(message, bytes):
        return _dump(message)
    if message.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError, RecursionError):
            message = json.dumps(json.loads(message), ensure_ascii=False, indent=2)
    return defuse(message)


def defuse(text: str) -> str:
    """Replace control characters, but for line ends and tabs, by what they are called."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _dump(data: bytes) -> str:
    lines = [f"{len(data)} bytes"]
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):47}  {text}")
    return "\n".join(lines)
