from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.rooms import Codec, Envelope, Position, Resume

POSITION = Position("5f0c", 17)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_text_and_bytes_stay_as_they_are() -> None:
    text, data = "é", b"\xff"
    assert Codec().encode(text) is text
    assert Codec().encode(data) is data


@given(JSON)
def test_what_json_can_say_comes_back(data: Any) -> None:
    assert Codec().decode(Codec().encode(data)) == data


def test_json_is_compact_and_not_escaped() -> None:
    assert Codec().encode({"wörd": [1, 2]}) == '{"wörd":[1,2]}'


@pytest.mark.parametrize("codec", [Codec(), Envelope()])
def test_what_json_cannot_say_is_refused(codec: Codec) -> None:
    with pytest.raises(TypeError):
        codec.encode(object())
    with pytest.raises(ValueError, match="JSON"):
        codec.encode(math.nan)  # a browser's JSON.parse would not take it


def test_the_plain_codec_adds_nothing() -> None:
    payload = "hello"
    assert Codec().wrap(payload, "lobby", POSITION) is payload
    assert Codec().greet("lobby", POSITION, Resume.LOST) is None


@given(JSON | st.text(), st.text())
def test_an_envelope_is_json_with_room_and_position(data: Any, room: str) -> None:
    envelope = Envelope()
    text = envelope.wrap(envelope.encode(data), room, POSITION)
    assert json.loads(text) == {"room": room, "position": "5f0c:17", "data": data}


def test_an_envelope_has_no_place_for_bytes() -> None:
    with pytest.raises(TypeError):
        Envelope().encode(b"\0")


@pytest.mark.parametrize("resume", Resume)
def test_an_envelope_greets_with_the_position(resume: Resume) -> None:
    greeting = Envelope().greet("lobby", POSITION, resume)
    assert greeting is not None
    assert json.loads(greeting) == {
        "room": "lobby",
        "position": "5f0c:17",
        "resume": resume.value,
    }
