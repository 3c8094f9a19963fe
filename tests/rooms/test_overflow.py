from __future__ import annotations

import math

import pytest

from trio_ws.rooms import Overflow
from trio_ws.rooms._overflow import Terms


def test_no_limit_has_two_names() -> None:
    assert Terms(None, math.inf, Overflow.WAIT, None) == Terms(math.inf, None, Overflow.WAIT, None)


@pytest.mark.parametrize("buffer", [0, -1, 0.5, math.nan])
def test_a_queue_holds_at_least_one_message(buffer: float) -> None:
    with pytest.raises(ValueError, match="buffer"):
        Terms(buffer, 1, Overflow.WAIT, None)


def test_terms_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError, match="buffer"):
        Terms("64", 1, Overflow.WAIT, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="buffer_bytes"):
        Terms(64, True, Overflow.WAIT, None)
    with pytest.raises(TypeError, match=r"overflow is one of Overflow .*, not 'wait'"):
        Terms(64, 1, "wait", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transform is a function of a RoomMessage, not 'upper'"):
        Terms(64, 1, Overflow.WAIT, "upper")  # type: ignore[arg-type]
