"""The vocabulary: close codes, how a connection ended, what a message is made of."""

from __future__ import annotations

import array
import copy
import enum
import pickle

import attrs
import pytest

from trio_ws._messages import (
    MAX_CLOSE_REASON,
    CloseCode,
    CloseInfo,
    MessagePart,
    PreparedMessage,
    as_data,
    check_close,
)

# Close codes...


@pytest.mark.parametrize(
    "code",
    [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999],
)
def test_a_code_that_may_be_sent(code: int) -> None:
    check_close(code, "")


@pytest.mark.parametrize(
    "code",
    [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536],
)
def test_a_code_that_may_not_be_sent(code: int) -> None:
    with pytest.raises(ValueError, match=rf"close code {int(code)} may not be sent: use 1000-"):
        check_close(code, "")


def test_a_code_may_be_a_member_of_the_enum() -> None:
    check_close(CloseCode.GOING_AWAY, "")
    with pytest.raises(ValueError, match="close code 1006"):
        check_close(CloseCode.ABNORMAL, "")


@pytest.mark.parametrize("code", ["1000", 1000.0, None, True])
def test_a_code_is_an_int(code: object) -> None:
    with pytest.raises(TypeError, match=f"a close code is an int, not {type(code).__name__}"):
        check_close(code, "")


@pytest.mark.parametrize("reason", [b"bye", None, 5])
def test_a_reason_is_a_str(reason: object) -> None:
    with pytest.raises(TypeError, match=f"a close reason is a str, not {type(reason).__name__}"):
        check_close(1000, reason)


def test_a_reason_of_123_bytes_is_the_longest() -> None:
    assert MAX_CLOSE_REASON == 123
    check_close(1000, "x" + "é" * 61)
    with pytest.raises(ValueError, match="close reason of 124 bytes: 123 is the most"):
        check_close(1000, "é" * 62)


def test_a_reason_that_is_no_unicode_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        check_close(1000, "\ud800")


# How it ended...


@pytest.mark.parametrize(
    ("info", "polite", "text"),
    [
        (CloseInfo(1000, "", "remote", True), True, "closed by the peer (1000)"),
        (CloseInfo(1001, "", "local", True), True, "closed by this side (1001)"),
        (CloseInfo(1005, "", "remote", True), True, "closed by the peer (1005)"),
        (CloseInfo(1008, "no\n", "remote", True), False, r"closed by the peer (1008 'no\n')"),
        (CloseInfo(4000, "", "remote", True), False, "closed by the peer (4000)"),
        (CloseInfo(1006, "gone", "lost", False), False, "lost (1006 'gone')"),
    ],
)
def test_how_a_connection_ended(info: CloseInfo, polite: bool, text: str) -> None:
    assert info.polite is polite
    assert str(info) == text
    assert pickle.loads(pickle.dumps(info)) == info  # noqa: S301  # our own bytes


def test_how_it_ended_cannot_be_changed() -> None:
    info = CloseInfo(1000, "", "remote", clean=True)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        info.code = 1001


# Messages...


class Words(enum.StrEnum):
    HELLO = "hello"


@pytest.mark.parametrize(
    ("given", "data"),
    [
        ("text", "text"),
        (Words.HELLO, "hello"),
        (b"bytes", b"bytes"),
        (bytearray(b"bytes"), b"bytes"),
        (memoryview(b"bytes")[1:3], b"yt"),
        (memoryview(b"bytes")[::2], b"bts"),
        (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
    ],
)
def test_what_a_message_may_be_made_of(given: object, data: str | bytes) -> None:
    assert as_data(given) == data
    assert PreparedMessage(given).data == data


@pytest.mark.parametrize("given", [None, 5, ["text"], {"a": 1}, object()])
def test_what_a_message_may_not_be_made_of(given: object) -> None:
    name = type(given).__name__
    with pytest.raises(TypeError, match=f"str or bytes-like, not {name}: encode it first") as info:
        as_data(given)
    assert info.value.__suppress_context__
    with pytest.raises(TypeError, match="encode it first"):
        PreparedMessage(given)


def test_a_message_is_a_copy_of_what_may_change() -> None:
    buffer = bytearray(b"before")
    message = PreparedMessage(buffer)
    buffer[:] = b"behind"
    assert message.data == message.payload == b"before"


def test_the_payload_of_text_is_utf_8() -> None:
    message = PreparedMessage("café")
    assert message.payload == b"caf\xc3\xa9"
    assert repr(message) == "PreparedMessage(data='café')"


def test_lone_surrogates_are_no_text() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        PreparedMessage("\ud800")


def test_each_prepared_message_is_itself() -> None:
    one, two = PreparedMessage("same"), PreparedMessage("same")
    assert one != two
    assert len({one, two}) == 2


def test_parts_compare_by_value() -> None:
    part = MessagePart("a", 1, final=True)
    assert part == copy.copy(part)
    assert part != MessagePart("a", 1, final=False)
