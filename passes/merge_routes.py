"""Merging of routes: several routes of one column to one output that add up to one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isa.matrix import Int32, Int64, UInt8

Int8 = NDArray[np.int8]


def merge_routes(
    column: Int64, output: Int32, shift: UInt8, sign: Int8, columns: int
) -> tuple[Int64, Int32, UInt8, Int8]:
    """Routes per column, int64 [columns], and the merged routes.

    column, output: equal pairs stand together, columns in ascending order. The routes of a pair
    are replaced by a single one where their sum is a power of two: bits 6 and 7 of nine small
    two's-complement weights are equal, and ``+64 - 128`` is ``-64``. Where an offset takes away
    all that a digit adds, both go.
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
    magnitude = np.abs(coefficient)
    none, single = magnitude == 0, np.bitwise_count(magnitude) == 1
    kept = np.ones(len(column), np.bool_)
    kept[members] = ~np.repeat(single | none, count[several])
    origin = first[several[single]]
    kept[origin] = True
    shift, sign = shift.copy(), sign.copy()
    shift[origin] = np.bitwise_count(magnitude[single] - 1)
    sign[origin] = np.sign(coefficient[single])
    return np.bincount(column[kept], minlength=columns), output[kept], shift[kept], sign[kept]


def _within(counts: Int64) -> Int64:
    """0, 1, .. of each run of ``counts``."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
