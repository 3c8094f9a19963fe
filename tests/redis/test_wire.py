from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.redis._wire import (
    Presence,
    check_meta,
    pack,
    pack_occupant,
    parse,
    parse_epoch,
    parse_occupants,
)
from trio_ws.rooms import Codec, Envelope, Occupant, Position, Publication

names = st.frozensets(st.text())
publications = st.builds(
    Publication,
    st.lists(st.text(), min_size=1, unique=True).map(tuple),
    data=st.one_of(st.text(), st.binary()),
    payload=st.just(""),
    key=st.none() | st.text(),
    exclude=names,
    only=st.none() | names,
)


def travel(publication: Publication, codec: Codec) -> Publication:
    """Return what another process gets to see, after the script has added its line."""
    places = " ".join(f"e{index}:{index + 1}" for index in range(len(publication.rooms)))
    record = parse(f"M1700 {places}\n".encode() + pack(publication, "ab:7"))
    assert (record.time, record.origin, record.rooms) == (1700, "ab:7", publication.rooms)
    assert record.place(record.rooms[-1]) == record.places[-1]
    assert record.places[0] == Position("e0", 1)
    return record.publication(codec)


@given(publications)
def test_text_and_bytes_arrive_as_they_were_published(publication: Publication) -> None:
    publication.payload = publication.data
    copy = travel(publication, Codec())
    for field in ("rooms", "data", "payload", "key", "exclude", "only"):
        assert getattr(copy, field) == getattr(publication, field)
    assert not copy.waits


class Reversed(Codec):
    def encode(self, data: Any) -> bytes:
        return bytes(reversed(data))

    def decode(self, payload: Any) -> bytes:
        return bytes(reversed(payload))


@pytest.mark.parametrize(
    ("codec", "data"), [(Codec(), {"a": [1, None]}), (Envelope(), "text"), (Reversed(), b"\0\n1")]
)
def test_what_a_codec_has_encoded_is_decoded(codec: Codec, data: Any) -> None:
    publication = Publication(("a",), data, codec.encode(data))
    copy = travel(publication, codec)
    assert copy.data == data
    assert copy.payload == publication.payload
    assert type(copy.payload) is type(publication.payload)


def test_a_new_epoch_is_read() -> None:
    assert parse_epoch(b"E1700 5f0c:0\n") == "5f0c"


def test_presence_travels() -> None:
    presence = Presence("p", {"1": {"name": "Ann"}, "2": None}, ("3",), complete=True)
    assert Presence.parse(presence.pack()) == presence


def test_occupants_are_kept_by_process_and_name() -> None:
    fields = dict(
        pack_occupant(process, Occupant(name, meta))
        for process, name, meta in [("p", "1", "Ann"), ("p", "2", None), ("q", "1", [1])]
    )
    assert parse_occupants(fields) == {"p": {"1": "Ann", "2": None}, "q": {"1": [1]}}


@pytest.mark.parametrize("meta", [object(), float("nan"), {1: object()}, {(1, 2): 3}])
def test_a_meta_that_json_has_no_place_for_is_refused(meta: Any) -> None:
    with pytest.raises(TypeError, match="meta has to be told"):
        check_meta(meta)


def test_a_meta_that_json_has_a_place_for_is_fine() -> None:
    check_meta({"name": "Ann", "tags": ["a"]})
