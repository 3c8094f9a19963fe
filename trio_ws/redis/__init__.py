"""Rooms across processes and machines, through Redis; needs ``trio-ws[redis]``."""

try:
    __import__("coredis")  # to say what has to be installed
except ModuleNotFoundError as _exc:
    if _exc.name != "coredis":
        raise
    raise ModuleNotFoundError(
        "rooms on Redis need coredis: pip install 'trio-ws[redis]'", name="coredis"
    ) from _exc

from ._open import open_rooms as open_rooms

open_rooms.__module__ = __name__
