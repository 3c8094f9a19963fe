"""The targets hold for their seeds, for what fuzzing has found, and for some changes to them."""

from __future__ import annotations

import random

import pytest
from fuzz._targets import TARGETS, seeds

FOUND = [
    # Wrong after two bytes, and the straight lane waited for the length.
    ("frames", b"\x00\x00\x88\x7f\x034=\xa0\x037\xe8"),
]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_its_seeds_and_their_neighbours(name: str) -> None:
    chance = random.Random(name)
    for seed in seeds(name):
        TARGETS[name](seed)
        for _ in range(20):
            mutant = bytearray(seed)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(mutant) + 1)
                mutant[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            TARGETS[name](bytes(mutant))


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_fuzzing_found_stays_mended(name: str, data: bytes) -> None:
    TARGETS[name](data)
