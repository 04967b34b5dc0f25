"""Operands of the instructions that normalize over rows: what the verifier says of wrong ones."""

from __future__ import annotations

import pytest

from isa.assembly import parse_with_source
from isa.target import load_target
from isa.verify import verify

TEXT = """.pim 1
.input  x s8[2, 3, 4] of="x" shape=[4 2 3] order=[1 2 0] scale=0.5
.output y s8[2, 3, 4] of="y" shape=[4 2 3] order=[1 2 0] scale=0.5
.table  gain   f32[4] = [1 2 3 4]
.table  offset f32[1] = [0.5]
.core 0 "norm"
  .buffer rows s8[2, 3, 4]  @0x0000
  .buffer sums s32[1, 3, 2] @0x0018
  load rows, x
  fill sums
  moments sums, rows
  groupnorm rows, rows, sums, gain, offset, count=12, epsilon=0.5, scale=0.25
  store y, rows
"""
WRONG = [
    ("sums s32[1, 3, 2]", "sums s32[1, 2, 2]", "V404", "does not hold moments of `rows` [2, 3, 4]"),
    ("sums s32[1, 3, 2]", "sums s32[1, 3, 3]", "V404", "channels are groups of equal size"),
    ("sums s32[1, 3, 2]", "sums s8[1, 3, 2]", "V403", "is s8, expected s32"),
    ("offset f32[1] = [0.5]", "offset f32[2] = [1 2]", "V404", "does not broadcast to [3, 4]"),
    ("offset f32[1] = [0.5]", "offset s32[1] = [1]", "V403", "is s32, expected f32"),
    ("count=12", "count=0", "V406", "has to be in 1..8388608"),
    ("count=12", "count=8388609", "V406", "has to be in 1..8388608"),
    ("scale=0.25", "scale=0.0", "V406", "is not positive and finite"),
    ("moments sums, rows", "moments sums, sums", "V403", "is s32, expected s8 or u8"),
]


def findings(text: str) -> str:
    program, source = parse_with_source(text)
    return "\n".join(found.render() for found in verify(program, load_target("tiny"), source))


def test_sums_and_their_use_are_sound() -> None:
    assert findings(TEXT) == ""


@pytest.mark.parametrize(("old", "new", "code", "says"), WRONG)
def test_wrong_operands_are_named(old: str, new: str, code: str, says: str) -> None:
    found = findings(TEXT.replace(old, new))
    assert f"error[{code}]" in found
    assert says in found
