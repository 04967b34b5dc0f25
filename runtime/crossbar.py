"""What the blocks of a matrix do to inputs: the definition in NumPy, slow and obvious.

`block_product` is what every faster path of `runtime.paths` is tested against, and the bit-serial
path itself where there is no C kernel. `linear_product` is the one for matrices where no column
can exceed the ADC, so that the sums are linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]

INPUT_BITS = 8  # an input streams as this many single bits


def block_product(u: UInt8, matrix: BlockMatrix, adc_max: int) -> tuple[Int32, int]:
    """Product of ``u`` [windows, inputs] with the blocks, every conversion clipped at ``adc_max``.

    Returns int32 [windows, outputs] (sums wrap as the s32 accumulators do) and how many
    conversions saw a sum above ``adc_max``. The formula stands at ``isa.catalog.Mvm``.
    """
    out = np.zeros((len(u), matrix.outputs), np.int64)
    saturated = 0
    for routing in range(len(matrix.routes.column_start) - 1):
        columns = int(np.diff(matrix.routes.column_start)[routing])
        totals = np.zeros((len(u), columns), np.int64)
        for group in np.flatnonzero(matrix.routing == routing):
            sums, clipped = _group_sums(u, matrix, int(group), adc_max)
            totals += sums
            saturated += clipped
        route(totals, matrix, routing, out)
    return out.astype(np.int32), saturated


def _group_sums(
    u: UInt8, matrix: BlockMatrix, group: int, adc_max: int
) -> tuple[NDArray[np.int64], int]:
    """``sum_t 2^t * min(sum_r bit_t * cell, adc_max)``, int64 [windows, columns of the group]."""
    first, stop = (int(c) for c in matrix.column_start[group : group + 2])
    total = np.zeros((len(u), stop - first), np.int64)
    saturated = 0
    for bit, sums in enumerate(bit_sums(u, matrix, group)):
        saturated += int(np.count_nonzero(sums > adc_max))
        total += np.minimum(sums, adc_max) << bit
    return total, saturated


def bit_sums(u: UInt8, matrix: BlockMatrix, group: int) -> Iterator[NDArray[np.int64]]:
    """What the ADC sees of a row group, input bit by input bit, int64 [windows, columns]."""
    used = matrix.rows[group] >= 0
    inputs = u[:, matrix.rows[group][used]]
    first, stop = (int(c) for c in matrix.column_start[group : group + 2])
    cells = matrix.cell_values(first, stop)[:, used].astype(np.float64).T
    for bit in range(INPUT_BITS):
        # exact: far below 2^53
        yield (((inputs >> bit) & 1).astype(np.float64) @ cells).astype(np.int64)


def route(
    totals: NDArray[np.int64], matrix: BlockMatrix, routing: int, out: NDArray[np.int64]
) -> None:
    """Add the column sums [windows, columns], shifted and signed by a route list, to ``out``."""
    routes = matrix.routes
    low, high = (int(s) for s in routes.column_start[routing : routing + 2])
    start = routes.start[low : high + 1]
    taken = slice(int(start[0]), int(start[-1]))
    column = np.repeat(np.arange(high - low), np.diff(start))
    factor = routes.sign[taken].astype(np.int64) << routes.shift[taken]
    for output in np.unique(routes.output[taken]):
        mine = routes.output[taken] == output
        out[:, output] += totals[:, column[mine]] @ factor[mine]


def linear_product(u: UInt8, pieces: list[tuple[slice, NDArray[Any]]], out: Int32) -> None:
    """``out = u @ W`` through floating-point BLAS, exact by the size of ``pieces``."""
    total = np.zeros(out.shape, np.int64)
    for rows, weights in pieces:
        total += (u[:, rows].astype(weights.dtype) @ weights).astype(np.int64)
    out[...] = total


def exact_pieces(weights: Int32) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Cut ``weights`` [inputs, outputs] so that each piece's product with bytes is exact in BLAS.

    A sum of integers is exact in any order while all partial sums stay below 2^24 (float32) or
    2^53 (float64); float32 is taken wherever its pieces are not too thin.
    """
    largest = 255 * max(1, int(np.abs(weights.astype(np.int64)).max(initial=0)))
    depth = (1 << 24) // largest
    kind: np.dtype[Any] = np.dtype(np.float32)
    if depth < 64:
        kind, depth = np.dtype(np.float64), (1 << 53) // largest
    for first in range(0, len(weights), depth):
        rows = slice(first, min(first + depth, len(weights)))
        yield rows, weights[rows].astype(kind)
