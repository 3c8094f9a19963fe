"""What goes in and out of the command line: lines, JSON, and what is shown to eyes."""

from __future__ import annotations

import json

import pytest

from trio_ws import CloseInfo
from trio_ws._cli._words import (
    Close,
    Command,
    Help,
    Ping,
    as_line,
    close_as_json,
    defuse,
    for_eyes,
    message_as_json,
    parse_json,
    parse_typed,
)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("hello", "hello"),
        ("", ""),
        (" /ping", " /ping"),
        ("//ping", "/ping"),
        ("/ping", Ping()),
        ("/help", Help()),
        ("/binary 00 fF", b"\x00\xff"),
        ("/binary", b""),
        ("/close", Close()),
        ("/close 4000", Close(4000)),
        ("/close 4000  good bye ", Close(4000, "good bye")),
    ],
)
def test_a_typed_line_is_a_message_or_a_command(line: str, command: Command) -> None:
    assert parse_typed(line) == command


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/", "there is no command /: /binary, /ping, /close, /help"),
        ("/pong", "there is no command /pong"),
        ("/binary xyz", "'xyz' is no hex"),
        ("/close now", "'now' is no close code: /close 1000 bye"),
        ("/close 1006", "1006"),
        ("/close 1000 " + "x" * 200, "reason"),
    ],
)
def test_a_typed_line_that_is_no_command_is_told(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_typed(line)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ('{"type": "text", "data": "grüß"}', "grüß"),
        ('{"type": "binary", "data": "00ff"}', b"\x00\xff"),
        ('{"type": "ping"}', Ping()),
        ('{"type": "close"}', Close()),
        ('{"type": "close", "code": 4000, "reason": "bye"}', Close(4000, "bye")),
    ],
)
def test_a_line_of_json_is_a_message_or_a_command(line: str, command: Command) -> None:
    assert parse_json(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "",
        "{}",
        "[]",
        '{"type": "text"}',
        '{"type": "text", "data": 1}',
        '{"type": "binary", "data": "x"}',
        '{"type": "close", "code": "1000"}',
        '{"type": "close", "code": true}',
        '{"type": "close", "code": 1005}',
        '{"type": "close", "reason": 1}',
        '{"type": "pong"}',
    ],
)
def test_a_line_that_is_no_such_json_is_told(line: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_json(line)


def test_messages_become_lines() -> None:
    assert as_line("grüß") == "grüß"
    assert as_line(b"\x00\xff") == "00 ff"
    assert message_as_json("grüß\n") == '{"type": "text", "data": "grüß\\n"}'
    assert message_as_json(b"\x00\xff") == '{"type": "binary", "data": "00ff"}'


def test_what_json_says_of_a_message_can_be_sent_back() -> None:
    for message in ("grüß\n\x00", b"\x00\xff", "", b""):
        assert parse_json(message_as_json(message)) == message


def test_the_end_becomes_a_line() -> None:
    info = CloseInfo(4000, "bye", "remote", clean=True)
    expected = {"type": "close", "code": 4000, "reason": "bye", "clean": True}
    assert json.loads(close_as_json(info)) == expected


HELLO = "65 6c 6c 6f ff 30 31 32 33 34 35 36 37 38  .hello.012345678"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("hello", "hello"),
        ('{"a":[1,2]}', '{\n  "a": [\n    1,\n    2\n  ]\n}'),
        (' ["grüß"]', '[\n  "grüß"\n]'),
        ("{no json}", "{no json}"),
        ("[" * 100_000, "[" * 100_000),
        ("\x1b]0;title\x07\x1b[31m", "\\x1b]0;title\\x07\\x1b[31m"),
        ('{"a":"\\u001b[2J\\u009b"}', '{\n  "a": "\\u001b[2J\\x9b"\n}'),
        ("a\tb\r\nc", "a\tb\\x0d\nc"),
        (b"", "0 bytes"),
        (
            b"\x00hello\xff0123456789",
            f"17 bytes\n00000000  00 68 {HELLO}\n00000010  39{' ' * 47}9",
        ),
    ],
    ids=range(10),
)
def test_eyes_get_what_is_readable_and_harmless(message: str | bytes, shown: str) -> None:
    assert for_eyes(message) == shown


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert defuse("".join(map(chr, range(0x20)))).isprintable() is False  # line ends and tabs
    assert defuse("\x7f\x80\x9f\xa0ÿ") == "\\x7f\\x80\\x9f\xa0ÿ"
