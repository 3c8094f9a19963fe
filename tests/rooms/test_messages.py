from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.rooms import START, Position


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True), st.integers(0, 10**18 - 1))
def test_a_position_is_what_its_text_says(epoch: str, offset: int) -> None:
    position = Position(epoch, offset)
    assert Position.parse(str(position)) == position


@given(st.text())
def test_a_text_is_a_position_or_a_value_error(text: str) -> None:
    try:
        position = Position.parse(text)
    except ValueError as error:
        assert len(str(error)) < 500  # noqa: PT017  # it may raise or not
    else:
        assert str(position) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "a", "a:", ":1", "a:-1", "a:01", "a:1\n", "a:\u0661", "a b:1", "a:1" + "0" * 18],
)
def test_these_are_no_positions(text: str) -> None:
    with pytest.raises(ValueError, match="no position"):
        Position.parse(text)


def test_the_start_is_no_position_that_a_peer_could_send() -> None:
    with pytest.raises(ValueError, match="no position"):
        Position.parse(str(START))
