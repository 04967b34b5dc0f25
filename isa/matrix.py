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

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]


FOLDED_AT_ONCE = 1 << 18  # routes and sums; keeps the working set of a fold within the cache
EXACT_BITS = 53  # integers below 2^53 are float64 numbers


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
    folded = np.zeros(matrix.inputs * matrix.outputs, np.int32)
    lists = _RouteLists(matrix.routes)
    sizes = (lists.extent + lists.routes)[matrix.routing]
    ends = np.cumsum(sizes)
    low = 0
    while low < matrix.groups:
        room = ends[low] - sizes[low] + FOLDED_AT_ONCE
        high = max(low + 1, int(np.searchsorted(ends, room, side="right")))
        _fold_groups(matrix, lists, low, high, folded)
        low = high
    return folded.reshape(matrix.inputs, matrix.outputs)


class _RouteLists:
    """Of each route list, int64 [lists]: its routes, and the range of outputs they lead to."""

    def __init__(self, routes: Routes) -> None:
        ends = routes.start[routes.column_start]
        self.routes = np.diff(ends)
        self.lowest = np.zeros(len(self.routes), np.int64)
        self.extent = np.zeros(len(self.routes), np.int64)
        used = np.flatnonzero(self.routes)
        if len(used):
            self.lowest[used] = np.minimum.reduceat(routes.output, ends[used])
            highest = np.maximum.reduceat(routes.output, ends[used])
            self.extent[used] = highest + 1 - self.lowest[used]


def _fold_groups(
    matrix: BlockMatrix, lists: _RouteLists, low: int, high: int, folded: Int32
) -> None:
    """Add the row groups low..high to ``folded``, [inputs * outputs].

    Each group has one sum per word line and output in its range. Word lines are summed several
    at a time, as digits of one float64, which is exact below 2^53.
    """
    routes, routing = matrix.routes, matrix.routing[low:high]
    columns = np.diff(matrix.column_start[low : high + 1])
    slot = ranges(routes.column_start[routing], columns)
    per_column = routes.start[slot + 1] - routes.start[slot]
    column = np.repeat(np.arange(len(slot)), per_column)
    taken = ranges(routes.start[slot], per_column)
    extent = lists.extent[routing]
    base = np.cumsum(extent) - extent - lists.lowest[routing]
    pair = routes.output[taken] + np.repeat(base, lists.routes[routing])
    factor = np.ldexp(routes.sign[taken].astype(np.float64), routes.shift[taken].astype(np.int32))
    reach = int(np.bincount(pair, np.abs(factor)).max(initial=0)) << matrix.cell_bits
    bits = min(64, reach.bit_length() + 1)
    cells = matrix.cells[matrix.column_start[low] : matrix.column_start[high]]
    place = np.arange(int(extent.sum())) - np.repeat(base, extent)
    height = matrix.rows.shape[1]
    for first in range(0, height, max(1, EXACT_BITS // bits)):
        lines = range(first, min(height, first + max(1, EXACT_BITS // bits)))
        weights = _line_sums(cells, lines, bits)[column] * factor
        sums = np.bincount(pair, weights, len(place)).astype(np.int64)
        for line in lines:
            digit = sums << (64 - bits) >> (64 - bits)
            sums = (sums - digit) >> bits
            row = np.repeat(matrix.rows[low:high, line].astype(np.int64), extent)
            some = np.flatnonzero((digit != 0) & (row >= 0))
            index = row[some] * matrix.outputs + place[some]
            np.add.at(folded, index, digit[some].astype(np.int32))


def _line_sums(cells: UInt8, lines: range, bits: int) -> NDArray[np.float64]:
    """Per column the cells on ``lines`` as digits of ``bits`` bits, float64 [columns]."""
    weights = np.zeros(8 * cells.shape[2])
    weights[lines.start : lines.stop] = np.ldexp(1.0, bits * np.arange(len(lines)))
    patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    sums = np.zeros(len(cells))
    for byte, weight in enumerate(weights.reshape(-1, 8)):
        if weight.any():
            table = patterns @ weight
            for plane in range(cells.shape[1]):
                sums += table[cells[:, plane, byte]] * (1 << plane)
    return sums


def ranges(first: Int64, counts: Int64) -> Int64:
    """The integers first[i] .. first[i] + counts[i] of every i, one after another."""
    offsets = np.cumsum(counts) - counts
    indices: Int64 = np.arange(int(counts.sum())) + np.repeat(first - offsets, counts)
    return indices
