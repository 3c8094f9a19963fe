r"""What travels through Redis, as bytes.

::

    M<time> <epoch>:<offset> ...\n<header>\n<payload>   a message, with its places in its rooms
    E<time> <epoch>:0\n                                 a room begins a new epoch
    P<json>                                             who has come and gone

The first line is written by the scripts, all else by the sender.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from .._messages import Data
from ..rooms import Codec, Occupant, Position, Publication


@attrs.frozen
class Record:
    """A message, as it comes from Redis."""

    time: int
    origin: str
    """Who sent it, and as which of its messages."""
    rooms: tuple[str, ...]
    places: tuple[Position, ...]
    """Its place in each of the rooms."""
    header: dict[str, Any] = attrs.field(repr=False)
    payload: bytes = attrs.field(repr=False)
    shared: tuple[tuple[str, Position], ...] = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda self: _share(self.rooms, self.places), takes_self=True),
    )
    """Its places with their rooms, if there are several; the same tuple for all of them."""

    def place(self, room: str) -> Position:
        """Return its place in one of its rooms."""
        return self.places[self.rooms.index(room)]

    def publication(self, codec: Codec) -> Publication:
        """Return what was published, as far as other processes can tell.

        Raises: what the codec's ``decode`` raises.
        """
        header = self.header
        form = header["f"]
        payload: Data = self.payload if form in {"b", "B"} else self.payload.decode()
        only = header.get("o")
        return Publication(
            self.rooms,
            codec.decode(payload) if form in {"S", "B"} else payload,
            payload,
            key=header.get("k"),
            exclude=frozenset(header.get("x", ())),
            only=None if only is None else frozenset(only),
        )


def _share(
    rooms: tuple[str, ...], places: tuple[Position, ...]
) -> tuple[tuple[str, Position], ...]:
    return tuple(zip(rooms, places, strict=True)) if len(rooms) > 1 else ()


def pack(publication: Publication, origin: str) -> bytes:
    """Return the header and the payload of a message.

    Raises:
      UnicodeEncodeError: the text holds lone surrogates.
    """
    payload = publication.payload
    form = "s" if isinstance(payload, str) else "b"
    if payload is not publication.data:
        form = form.upper()  # the codec has encoded it
    header: dict[str, Any] = {"i": origin, "f": form, "r": publication.rooms}
    if publication.key is not None:
        header["k"] = publication.key
    if publication.exclude:
        header["x"] = sorted(publication.exclude)
    if publication.only is not None:
        header["o"] = sorted(publication.only)
    data = payload.encode() if isinstance(payload, str) else payload
    return _to_json(header) + b"\n" + data


def parse(data: bytes) -> Record:
    """Read a message, as `publish.lua` has sent or kept it."""
    stamp, header_line, payload = data.split(b"\n", 2)
    time, *places = stamp[1:].decode().split(" ")
    header = json.loads(header_line)
    return Record(
        int(time),
        header["i"],
        tuple(header["r"]),
        tuple(Position.parse(place) for place in places),
        header,
        payload,
    )


def parse_epoch(data: bytes) -> str:
    """Read which epoch a room begins."""
    return Position.parse(data.split()[1].decode()).epoch


@attrs.frozen
class Presence:
    """Who has come and gone in a room, as one process tells the others."""

    process: str
    came: dict[str, Any] = attrs.field(factory=dict)
    """Their metas, by `Occupant.id`."""
    left: tuple[str, ...] = ()
    complete: bool = False
    """Whether nobody but those who came is there of this process."""

    def pack(self) -> bytes:
        """Return it as it travels."""
        said = {"p": self.process, "+": self.came, "-": self.left, "c": self.complete}
        return b"P" + _to_json(said)

    @classmethod
    def parse(cls, data: bytes) -> Presence:
        """Read what `pack` has written."""
        said = json.loads(data[1:])
        return cls(said["p"], said["+"], tuple(said["-"]), said["c"])


def pack_occupant(process: str, occupant: Occupant) -> tuple[bytes, bytes]:
    """Return the field and the value that presence keeps of somebody."""
    return f"{process} {occupant.id}".encode(), _to_json(occupant.meta)


def parse_occupants(fields: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return the metas of a room's occupants, by process and `Occupant.id`."""
    found: dict[str, dict[str, Any]] = {}
    for field, value in fields.items():
        process, _, name = field.decode().partition(" ")
        found.setdefault(process, {})[name] = json.loads(value)
    return found


def check_meta(meta: Any) -> None:
    """Check that other processes can be told of a ``meta``.

    Raises:
      TypeError: JSON has no place for it.
    """
    try:
        _to_json(meta)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"meta has to be told to other processes, as JSON: {exc}") from exc


def _to_json(value: Any) -> bytes:
    # ASCII: the names of rooms may hold what UTF-8 has no place for.
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
