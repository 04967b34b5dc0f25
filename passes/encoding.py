"""Weight encodings: how a signed integer becomes cell values, shifts and signs.

An encoding is data: digits below ``2^cell_bits``, a shift and a sign for each, and an offset::

    weight = sum over digits p: sign[p] * 2^shift[p] * digit[p]  -  offset

A non-zero offset is the same for every weight of a row group, so one stored column of ones per
group, routed with a minus sign, takes it away exactly. The first half of the digits of an encoding
of two parts makes the positive part of a weight, the second half the negative one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

EncodingName = Literal["twos-complement", "offset", "differential", "sign-magnitude", "csd"]
ENCODINGS: Final[tuple[EncodingName, ...]] = get_args(EncodingName)


@dataclass(frozen=True, eq=False)
class Digits:
    """Weights taken apart.

    values: uint8 [..., digits], below ``2^cell_bits``. shift: uint8 [digits]. sign: int8
    [digits], +1 or -1. offset: what the digits count too much, per weight. parts: 2 when the two
    halves of the digits are the same patterns with opposite signs, which may share storage.
    """

    values: NDArray[np.uint8]
    shift: NDArray[np.uint8]
    sign: NDArray[np.int8]
    offset: int = 0
    parts: int = 1


def signed_bits(weights: NDArray[np.integer]) -> int:
    """Bits of the smallest two's-complement format, at least 8, that holds all the weights."""
    low, high = int(weights.min(initial=0)), int(weights.max(initial=0))
    return max(8, 1 + max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()))


def twos_complement(weights: NDArray[np.integer], bits: int) -> Digits:
    """One-bit digits; the top one counts negatively. Exact for ``bits``-bit weights."""
    shift = np.arange(bits, dtype=np.uint8)
    values = (weights.astype(np.int16)[..., None] >> shift.astype(np.int16)) & 1
    sign = np.where(shift == bits - 1, -1, 1).astype(np.int8)
    return Digits(values.astype(np.uint8), shift, sign)


def offset_binary(weights: NDArray[np.integer], bits: int, cell_bits: int) -> Digits:
    """Digits of ``weight + 2^(bits-1)``, ``cell_bits`` wide (ISAAC's biased form)."""
    offset = 1 << (bits - 1)
    shift = np.arange(0, bits, cell_bits, dtype=np.uint8)
    biased = (weights.astype(np.int32) + offset)[..., None] >> shift.astype(np.int32)
    values = (biased & ((1 << cell_bits) - 1)).astype(np.uint8)
    return Digits(values, shift, np.ones(len(shift), np.int8), offset)


def differential(weights: NDArray[np.integer], bits: int, cell_bits: int) -> Digits:
    """The positive and the negative part of a weight as columns of their own, always together."""
    shift = np.arange(0, bits - (weights.min(initial=0) > -1 << (bits - 1)), cell_bits)
    wide = weights.astype(np.int32)[..., None]
    parts = np.concatenate([np.maximum(wide, 0) >> shift, np.maximum(-wide, 0) >> shift], axis=-1)
    values = (parts & ((1 << cell_bits) - 1)).astype(np.uint8)
    sign = np.repeat(np.array([1, -1], np.int8), len(shift))
    return Digits(values, np.tile(shift, 2).astype(np.uint8), sign)


def sign_magnitude(weights: NDArray[np.integer], bits: int, cell_bits: int) -> Digits:
    """``differential`` whose two parts share one pool of patterns: the sign is in the route."""
    digits = differential(weights, bits, cell_bits)
    return Digits(digits.values, digits.shift, digits.sign, parts=2)


def canonical_signed_digits(weights: NDArray[np.integer], bits: int) -> Digits:
    """One-bit digits +1, 0, -1 with no two neighbours set: the fewest non-zero digits there are.

    With ``w3 = 3 w``, digit p is +1 where bit p+1 of ``w3`` but not of ``w`` is set, -1 the other
    way round (Reitwiesner 1960). Exact for ``bits``-bit weights.
    """
    shift = np.arange(bits)
    single = weights.astype(np.int32)[..., None]
    triple = 3 * single
    plus = (triple & ~single) >> (shift + 1) & 1
    minus = (single & ~triple) >> (shift + 1) & 1
    values = np.concatenate([plus, minus], axis=-1).astype(np.uint8)
    sign = np.repeat(np.array([1, -1], np.int8), bits)
    return Digits(values, np.tile(shift, 2).astype(np.uint8), sign, parts=2)


def encodings_for(cell_bits: int) -> tuple[EncodingName, ...]:
    """Encodings that cells of ``cell_bits`` bits can hold.

    Two's complement and signed digits give single bits a sign of their own, so they need 1-bit
    cells.
    """
    if cell_bits == 1:
        return ENCODINGS
    return ("offset", "differential", "sign-magnitude")


def encode_as(
    name: EncodingName, weights: NDArray[np.integer], cell_bits: int, bits: int | None = None
) -> Digits:
    """Digits of ``weights`` in a named encoding; ``bits``: their two's-complement width."""
    width = signed_bits(weights) if bits is None else bits
    assert name in encodings_for(cell_bits), f"{name} on {cell_bits}-bit cells"
    if name == "twos-complement":
        return twos_complement(weights, width)
    if name == "offset":
        return offset_binary(weights, width, cell_bits)
    if name == "differential":
        return differential(weights, width, cell_bits)
    if name == "sign-magnitude":
        return sign_magnitude(weights, width, cell_bits)
    return canonical_signed_digits(weights, width)


def plain_encoding(cell_bits: int) -> EncodingName:
    """The encoding of a dense layer: two's complement on 1-bit cells, else offset binary.

    A two's-complement top digit wider than one bit would need two meanings in one cell.
    """
    return "twos-complement" if cell_bits == 1 else "offset"


def encode(weights: NDArray[np.integer], cell_bits: int, bits: int | None = None) -> Digits:
    """Digits in the plain encoding of a target."""
    return encode_as(plain_encoding(cell_bits), weights, cell_bits, bits)
