"""Weight encodings: how a signed integer becomes cell values, shifts and signs.

An encoding is data: digits below ``2^cell_bits``, a shift and a sign for each, and an offset::

    weight = sum over digits p: sign[p] * 2^shift[p] * digit[p]  -  offset

A non-zero offset is the same for every weight of a row group, so one stored column of ones per
group, routed with a minus sign, takes it away exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Digits:
    """Weights taken apart.

    values: uint8 [..., digits], below ``2^cell_bits``. shift: uint8 [digits]. sign: int8
    [digits], +1 or -1. offset: what the digits count too much, per weight.
    """

    values: NDArray[np.uint8]
    shift: NDArray[np.uint8]
    sign: NDArray[np.int8]
    offset: int = 0


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


def encode(weights: NDArray[np.integer], cell_bits: int, bits: int | None = None) -> Digits:
    """The plain encoding of a target: two's complement on 1-bit cells, else offset binary.

    A two's-complement top digit wider than one bit would need two meanings in one cell.
    """
    width = signed_bits(weights) if bits is None else bits
    if cell_bits == 1:
        return twos_complement(weights, width)
    return offset_binary(weights, width, cell_bits)
