"""Masking a payload: in C and in Python the same."""

from __future__ import annotations

import os
import sys

import pytest
from websockets.speedups import apply_mask as mask_in_c

from trio_ws._masking import apply_mask, fastest_mask, mask_in_python

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 125, 126, 4095, 4096, 4097, 65_535, 300_001]


@pytest.mark.parametrize("mask", [mask_in_python, mask_in_c])
@pytest.mark.parametrize("size", SIZES)
def test_each_byte_is_masked_with_a_byte_of_the_key_in_turn(mask: object, size: int) -> None:
    payload, key = os.urandom(size), os.urandom(4)
    expected = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    assert mask(payload, key) == expected
    assert mask(expected, key) == payload


def test_what_is_compiled_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert apply_mask is mask_in_c
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    assert fastest_mask() is mask_in_python
