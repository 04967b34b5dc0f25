"""Merging of routes: several routes of one column to one output become the fewest that add up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isa.matrix import Int32, Int64, UInt8

Int8 = NDArray[np.int8]
_SHIFTS = np.arange(18)  # of a coefficient: sums of signed powers below 2^16 stay below 2^17


def merge_routes(
    column: Int64, output: Int32, shift: UInt8, sign: Int8, columns: int
) -> tuple[Int64, Int32, UInt8, Int8]:
    """Routes per column, int64 [columns], and the merged routes.

    column, output: equal pairs stand together, columns in ascending order. The routes of a pair
    are replaced by the canonical signed digits of their sum where those are fewer: bits 6 and 7 of
    a small two's-complement weight are equal, and ``+64 - 128`` is ``-64``.
    """
    same = (column[1:] == column[:-1]) & (output[1:] == output[:-1])
    if not same.any():
        return np.bincount(column, minlength=columns), output, shift, sign
    begins = np.append(True, ~same)
    first = np.flatnonzero(begins)
    count = np.diff(np.append(first, len(column)))
    several = np.flatnonzero(count > 1)
    members = np.repeat(first[several], count[several]) + _within(count[several])
    coefficient = np.add.reduceat(
        sign[members].astype(np.int64) << shift[members],
        np.cumsum(count[several]) - count[several],
    )
    digits = _signed_digits(coefficient)  # [pairs, shifts] of -1, 0, +1
    fewer = (digits != 0).sum(axis=1) < count[several]
    pair, place = np.nonzero(digits[fewer])
    replaced = np.zeros(len(first), np.bool_)
    replaced[several[fewer]] = True
    kept = ~np.repeat(replaced, count)
    origin = first[several[fewer]][pair]
    return _joined(
        (column, output, shift, sign),
        kept,
        origin,
        (place.astype(np.uint8), digits[fewer][pair, place].astype(np.int8)),
        columns,
    )


def _joined(
    routes: tuple[Int64, Int32, UInt8, Int8],
    kept: NDArray[np.bool_],
    origin: Int64,
    new: tuple[UInt8, Int8],
    columns: int,
) -> tuple[Int64, Int32, UInt8, Int8]:
    """The kept routes and the new ones, each new one where its pair began."""
    column, output, shift, sign = routes
    index = np.concatenate([np.flatnonzero(kept), origin])
    order = np.argsort(index, kind="stable")
    index = index[order]
    return (
        np.bincount(column[index], minlength=columns),
        output[index],
        np.concatenate([shift[kept], new[0]])[order],
        np.concatenate([sign[kept], new[1]])[order],
    )


def _within(counts: Int64) -> Int64:
    """0, 1, .. of each run of ``counts``."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _signed_digits(coefficient: Int64) -> Int8:
    """Canonical signed digits, int8 [coefficients, shifts]; see ``encoding``."""
    single = coefficient[:, None]
    triple = 3 * single
    plus = (triple & ~single) >> (_SHIFTS + 1) & 1
    minus = (single & ~triple) >> (_SHIFTS + 1) & 1
    return (plus - minus).astype(np.int8)
