"""Codecs: what is published to text or bytes, once per message."""

from __future__ import annotations

import json
from typing import Any

from .._messages import Data
from ._messages import Position, Resume


class Codec:
    """How what is published becomes what members receive.

    Text and bytes go out as they are, anything else as compact JSON. Subclass it for
    another encoding, or to tell members more than the message (`Envelope` does).
    The methods are called once per message, not once per member, and must not block.
    """

    def encode(self, data: Any) -> Data:
        """Return what was published as text or bytes.

        Called by the publisher, for `Rooms.publish_from_thread` in its thread; what it
        raises leaves `Rooms.publish`, and nothing is sent.

        Raises:
          TypeError, ValueError: JSON has no place for it.
        """
        return data if isinstance(data, (str, bytes)) else _to_json(data)

    def decode(self, payload: Data) -> Any:
        """Return what `encode` was given, for subscriptions in other processes.

        Not called for text and bytes that `encode` left as they were.
        """
        return json.loads(payload)

    def wrap(self, payload: Data, room: str, position: Position) -> Data:
        """Return what the members of a room receive for the ``payload`` that `encode` made."""
        return payload

    def greet(
        self,
        room: str,
        position: Position,
        resume: Resume,
    ) -> Data | None:
        """Return what a member receives when it has entered a room; `None` for nothing.

        It comes before what is replayed. ``position`` is where the member stands: what
        is sent after it is replayed or new. Called again, with `Resume.LOST`, if a
        distributed room has lost messages.
        """
        return None


class Envelope(Codec):
    """JSON around each message, with all that a browser page needs to resume.

    A message is ``{"room": "lobby", "position": "5f0c:17", "data": ...}``; a page keeps
    the newest position and hands it back when it reconnects (``since=``). On entering
    it is told ``{"room": "lobby", "position": "5f0c:16", "resume": "new"}``, or
    ``"complete"``, or ``"lost"`` (`Resume`).
    """

    def encode(self, data: Any) -> Data:
        """Return it as JSON, text included; bytes are refused: JSON has no place for them."""
        return _to_json(data)

    def wrap(self, payload: Data, room: str, position: Position) -> Data:
        """Put the message into its envelope; it is not encoded again."""
        return f'{{"room":{json.dumps(room)},"position":"{position}","data":{payload!s}}}'

    def greet(self, room: str, position: Position, resume: Resume) -> Data | None:
        """Tell where the member stands."""
        return _to_json({"room": room, "position": str(position), "resume": resume.value})


def _to_json(data: Any) -> str:
    # NaN is refused: browsers do not read it, and RFC 8259, section 6 forbids it.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
