"""Assembly: stored columns and routes, made group by group, become one block matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int32, Int64, Routes, Spans, UInt8
from passes.weights import LayerWeights

Int8 = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Stored:
    """Stored columns of some row groups, in group order, and their routes, in column order.

    rows: int32 [groups, height]. columns: int64 [groups]. cells: packed, [columns, cell_bits,
    bytes]. routes: int64 [columns], how many each has. output, shift, sign: one per route.
    """

    rows: Int32
    columns: Int64
    cells: UInt8
    routes: Int64
    output: Int32
    shift: UInt8
    sign: Int8


def assemble(weights: LayerWeights, cell_bits: int, parts: list[Stored]) -> BlockMatrix:
    """One block matrix, unplaced; every group has a route list of its own.

    Groups without a stored column vanish: nothing selects, fires or routes for them.
    """
    columns = np.concatenate([part.columns for part in parts])
    kept = columns > 0
    column_start = starts(columns[kept])
    routes = Routes(
        column_start=column_start,
        start=starts(np.concatenate([part.routes for part in parts])),
        output=np.concatenate([part.output for part in parts]),
        shift=np.concatenate([part.shift for part in parts]),
        sign=np.concatenate([part.sign for part in parts]),
    )
    return BlockMatrix(
        inputs=weights.inputs,
        outputs=weights.outputs,
        cell_bits=cell_bits,
        rows=np.concatenate([part.rows for part in parts])[kept],
        cells=np.concatenate([part.cells for part in parts]),
        column_start=column_start,
        routing=np.arange(int(kept.sum()), dtype=np.int32),
        routes=routes,
        spans=Spans.empty(),
    )


def starts(counts: NDArray[np.integer]) -> Int64:
    """0 and the running sums of ``counts``, int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
