"""The cases whose outcome is not a plain OK, and why.

The driver fails when a case that is not named here is not OK, and when one that is
named here has another outcome than the one given.
"""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen
class Outcome:
    """What Autobahn says about a case, and why that is right."""

    behavior: str
    reason: str


_AFTER_CLOSE: Final = Outcome(
    "INFORMATIONAL",
    "256 KiB, a Close and a Ping behind it: whether the message still comes back is left open"
    " (RFC 6455, section 5.5.1). Here it does, and nothing behind the Close is looked at.",
)
_UNREGISTERED_CODE: Final = Outcome(
    "INFORMATIONAL",
    "A Close with a code above 4999, for which RFC 6455, section 7.4.2, defines nothing."
    " Here it is a violation: 1002.",
)

EXPECTED: Final = {
    "7.1.6": _AFTER_CLOSE,
    "7.13.1": _UNREGISTERED_CODE,
    "7.13.2": _UNREGISTERED_CODE,
}
"""The same in both roles."""
