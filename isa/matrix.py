"""OU blocks: the one form in which every mapping scheme stores a weight matrix.

A *row group* drives up to R word lines: its selector says which input each of them carries. Its
*stored columns* are what the bit lines hold. A *route* adds a column's sum, shifted and signed,
to one output. So::

    W[k, o] = sum over groups g, stored columns j of g, routes (o, shift, sign) of j:
              sign * 2^shift * cells[j, r]        for k = rows[g, r]

Dense tiling, row compression, kernel reordering and exact de-duplication only make other groups,
columns and routes; the sum proves them all. *Spans* place columns in crossbars: consecutive
stored columns of one group, side by side on the word lines that start at a crossbar row. An
operation unit fires OU-columns of a span at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]


FOLDED_AT_ONCE = 1 << 20  # elements; keeps the working set of a fold within the cache


@dataclass(frozen=True, eq=False)
class Routes:
    """Route lists. Groups with the same routes share one list (a dense layer has just one).

    List ``t`` serves ``column_start[t+1] - column_start[t]`` columns; column ``i`` of it, slot
    ``n = column_start[t] + i``, has the routes ``start[n] .. start[n+1]``.

    column_start: int64 [lists + 1]. start: int64 [slots + 1]. output: int32 [routes].
    shift: uint8 [routes]. sign: int8 [routes], +1 or -1.
    """

    column_start: Int64
    start: Int64
    output: Int32
    shift: UInt8
    sign: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Spans:
    """Where stored columns stand, one entry per run of neighbouring columns; all int32 [spans].

    group; first: index of the run's first column within its group; count: columns; crossbar:
    index within the core; row, column: the first word line and bit line.
    """

    group: Int32
    first: Int32
    count: Int32
    crossbar: Int32
    row: Int32
    column: Int32

    @staticmethod
    def empty() -> Spans:
        return Spans(*(np.zeros(0, np.int32) for _ in fields(Spans)))


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """An integer matrix [inputs, outputs] as row groups, stored columns, routes and places.

    rows: int32 [groups, R], -1 for an unused word line (only at the end of a row).
    cells: uint8 [columns, cell_bits, ceil(R / 8)]: bit ``r % 8`` of byte ``r // 8`` of plane
    ``p`` is bit ``p`` of the cell on word line ``r``. column_start: int64 [groups + 1], the
    stored columns of each group. routing: int32 [groups], the route list of each group.
    """

    inputs: int
    outputs: int
    cell_bits: int
    rows: Int32
    cells: UInt8
    column_start: Int64
    routing: Int32
    routes: Routes
    spans: Spans

    @property
    def groups(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> int:
        """Stored columns."""
        return len(self.cells)

    @property
    def crossbars(self) -> int:
        return int(self.spans.crossbar.max()) + 1 if len(self.spans.crossbar) else 0

    def blocks(self, ou_columns: int) -> int:
        """Operation units that hold something, ``ou_columns`` bit lines wide."""
        return int((-(-self.spans.count // ou_columns)).sum())

    def group_of_column(self) -> Int32:
        """Row group of each stored column, int32 [columns]."""
        return np.repeat(np.arange(self.groups, dtype=np.int32), np.diff(self.column_start))

    def slot_of_column(self) -> Int64:
        """Route slot of each stored column, int64 [columns]."""
        offset = self.routes.column_start[self.routing] - self.column_start[:-1]
        return np.arange(self.columns) + np.repeat(offset, np.diff(self.column_start))

    def route_count(self) -> int:
        """Routes that one window takes, over all stored columns."""
        per_list = self.routes.start[self.routes.column_start]
        return int(np.diff(per_list)[self.routing].sum())

    def cell_values(self, start: int = 0, stop: int | None = None) -> UInt8:
        """Cells of stored columns start..stop as numbers, uint8 [columns, R]."""
        planes = np.unpackbits(self.cells[start:stop], axis=2, bitorder="little")
        weights = (1 << np.arange(self.cell_bits)).astype(np.uint8)
        values: UInt8 = np.tensordot(planes, weights, axes=(1, 0)).astype(np.uint8)
        return values[:, : self.rows.shape[1]]

    def largest_sums(self) -> Int64:
        """Largest sum that each stored column can give to the ADC in one step, int64 [columns]."""
        counts = np.bitwise_count(self.cells).sum(axis=2, dtype=np.int64)
        sums: Int64 = counts @ (1 << np.arange(self.cell_bits))
        return sums


def pack_cells(values: UInt8, cell_bits: int) -> UInt8:
    """Pack cell values, uint8 [columns, R], into the layout of ``BlockMatrix.cells``."""
    shifts = np.arange(cell_bits, dtype=np.uint8)[:, None]
    planes = (values[:, None, :] >> shifts) & 1
    return np.packbits(planes, axis=2, bitorder="little")


def fold(matrix: BlockMatrix) -> Int32:
    """The integer matrix that the cells, selectors and routes stand for, int32 [inputs, outputs].

    This is the left side of the proof of every compile: it looks at nothing but the blocks.
    """
    folded = np.zeros((matrix.inputs, matrix.outputs), np.int32)
    order = np.argsort(matrix.routing, kind="stable")
    bounds = np.flatnonzero(np.diff(matrix.routing[order], prepend=-1, append=-1))
    for first, last in pairwise(bounds):
        _fold_groups(matrix, order[first:last], folded)
    return folded


def _fold_groups(matrix: BlockMatrix, groups: Int64, folded: Int32) -> None:
    """Add the row groups ``groups``, which share one route list, to ``folded``."""
    column, output, factor = _route_list(matrix, int(matrix.routing[groups[0]]))
    if not len(column):
        return
    bounds = np.flatnonzero(np.diff(output, prepend=-1, append=-1))
    outputs = output[bounds[:-1]]
    if len(groups) > 1 and len(np.unique(np.diff(bounds))) == 1:
        shape = (len(outputs), -1)
        _fold_regular(matrix, groups, outputs, column.reshape(shape), factor.reshape(shape), folded)
        return
    lines = len(groups) * matrix.rows.shape[1]
    sums = np.empty((lines, len(outputs)), np.int32)
    # few outputs at a time: the dense coefficients stay small although the routes are sparse
    step = max(16, (1 << 17) // lines)
    for low in range(0, len(outputs), step):
        high = min(low + step, len(outputs))
        part = slice(bounds[low], bounds[high])
        kind = _exact_float(matrix, factor[part], bounds[low : high + 1] - bounds[low])
        present = np.bincount(column[part]) > 0
        used = np.flatnonzero(present)
        coefficients = np.zeros((len(used), high - low), kind)
        row = (np.cumsum(present) - 1)[column[part]]
        place = np.repeat(np.arange(high - low), np.diff(bounds[low : high + 1]))
        np.add.at(coefficients.ravel(), row * (high - low) + place, factor[part].astype(kind))
        cells = _cells_by_line(matrix, matrix.column_start[groups][:, None] + used, kind)
        sums[:, low:high] = (cells.reshape(lines, -1) @ coefficients).astype(np.int64)
    _add_rows(folded, matrix.rows[groups].ravel(), outputs, sums)


def _fold_regular(
    matrix: BlockMatrix,
    groups: Int64,
    outputs: Int32,
    column: Int64,
    factor: Int64,
    folded: Int32,
) -> None:
    """Add groups whose every output has the same number of routes, as dense layers have.

    column, factor: [outputs, routes], of each output. One route of all outputs at a time.
    """
    height = matrix.rows.shape[1]
    step = max(1, FOLDED_AT_ONCE // (height * len(outputs)))
    for low in range(0, len(groups), step):
        chunk = groups[low : low + step]
        sums = np.zeros((len(chunk), height, len(outputs)), np.int32)
        for route in range(column.shape[1]):
            index = matrix.column_start[chunk][:, None] + column[:, route]
            sums += _cells_by_line(matrix, index, np.int32) * factor[:, route].astype(np.int32)
        selector = matrix.rows[chunk].ravel()
        _add_rows(folded, selector, outputs, sums.reshape(-1, len(outputs)))


def _route_list(matrix: BlockMatrix, routing: int) -> tuple[Int64, Int32, Int64]:
    """Column within the group, output and signed factor of each route of a list, by output."""
    routes = matrix.routes
    low, high = routes.column_start[routing : routing + 2]
    start = routes.start[low : high + 1]
    taken = slice(start[0], start[-1])
    key = routes.output[taken].astype(np.min_scalar_type(matrix.outputs))
    order = np.argsort(key, kind="stable")  # a radix sort for up to 65,536 outputs
    column = np.repeat(np.arange(high - low), np.diff(start))
    factor = routes.sign[taken].astype(np.int64) << routes.shift[taken]
    return column[order], routes.output[taken][order], factor[order]


def _exact_float(matrix: BlockMatrix, factor: Int64, bounds: Int64) -> type[np.floating[Any]]:
    """float32 where every partial sum of every output stays below 2^24, else float64."""
    largest = int(np.add.reduceat(np.abs(factor), bounds[:-1]).max()) * (
        (1 << matrix.cell_bits) - 1
    )
    return np.float32 if largest < 1 << 24 else np.float64


def _cells_by_line(matrix: BlockMatrix, index: Int64, kind: type[np.number[Any]]) -> NDArray[Any]:
    """Cell values of the stored columns ``index`` [groups, columns], as [groups, R, columns]."""
    packed = np.ascontiguousarray(np.moveaxis(matrix.cells[index], (2, 3), (0, 1)))
    values = np.zeros((index.shape[0], matrix.rows.shape[1], index.shape[1]), kind)
    for line in range(matrix.rows.shape[1]):
        bits = (packed[:, line // 8] >> np.uint8(line % 8)) & 1
        for plane in range(matrix.cell_bits):
            values[:, line] += bits[plane] << np.uint8(plane)
    return values


def _add_rows(folded: Int32, selector: Int32, outputs: Int32, sums: Int32) -> None:
    """``folded[selector[i], outputs] += sums[i]`` for every used word line ``i``."""
    used = np.flatnonzero(selector >= 0)
    rows = selector[used]
    sums = sums[used] if len(used) < len(selector) else sums
    together = outputs[-1] - outputs[0] + 1 == len(outputs)  # a slice is far quicker than a list
    if len(np.unique(rows)) < len(rows):
        np.add.at(folded, (rows[:, None], outputs[None, :]), sums)
    elif together:
        folded[rows, outputs[0] : outputs[-1] + 1] += sums
    else:
        folded[rows[:, None], outputs[None, :]] += sums
