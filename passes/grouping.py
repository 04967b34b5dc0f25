"""Row groups of a layer before they are stored: which rows they hold, and their columns as codes.

A column of a row group is a pattern of up to 64 cell bits; as one integer, its *code*, it can be
sorted and counted. Code bit ``r * cell_bits + p`` is bit ``p`` of the cell on word line ``r``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isa.matrix import Int32, Int64, UInt8, pack_cells
from isa.target import Target
from passes.encoding import Digits, EncodingName, encode_as, signed_bits
from passes.weights import LayerWeights

RowOrder = Literal["channel", "position", "magnitude"]
Codes = NDArray[np.unsignedinteger[Any]]
CODE_BITS = 64
CHUNK_CODES = 1 << 23  # codes made at a time; bounds memory on layers of 100 M weights


@dataclass(frozen=True, eq=False)
class RowGroups:
    """A layer cut into row groups.

    rows: int32 [groups, height], -1 for an unused word line. values: int16 [groups, height,
    outputs of a section], 0 on unused lines. first_output: int64 [groups], of the group's section.
    """

    rows: Int32
    values: NDArray[np.int16]
    first_output: Int64

    def chunks(self, digits: int) -> Iterator[RowGroups]:
        """Runs of whole groups whose columns are few enough to be coded together."""
        step = max(1, CHUNK_CODES // max(1, self.values.shape[2] * digits))
        for low in range(0, len(self.rows), step):
            part = slice(low, low + step)
            yield RowGroups(self.rows[part], self.values[part], self.first_output[part])

    def sample(self, count: int) -> RowGroups:
        """About ``count`` groups, evenly spread; all of them when there are fewer."""
        step = max(1, len(self.rows) // count)
        return RowGroups(self.rows[::step], self.values[::step], self.first_output[::step])


def exact_height(target: Target) -> int:
    """Rows of the tallest group whose column sums the ADC can tell whatever the cells hold."""
    return max(1, min(target.ou.rows, target.adc_max // target.cell_max))


def coded_height(target: Target) -> int:
    """``exact_height``, further bounded by the bits of a code; taller patterns never repeat."""
    return min(exact_height(target), CODE_BITS // target.crossbar.cell_bits)


def row_groups(weights: LayerWeights, height: int, order: RowOrder = "channel") -> RowGroups:
    """Cut every section into groups of ``height`` rows, in a chosen order of its rows."""
    rows, values, first = [], [], []
    width = weights.values.shape[2]
    for section, matrix in enumerate(weights.values):
        permutation = _permutation(matrix, weights.kernel_size, order)
        line = _lines(len(matrix), height)
        selector = np.full(-(-len(matrix) // height) * height, -1, np.int32)
        selector[line] = weights.rows[section][permutation]
        padded = np.zeros((len(selector), width), np.int16)
        padded[line] = matrix if order == "channel" else matrix[permutation]
        rows.append(selector.reshape(-1, height))
        values.append(padded.reshape(-1, height, width))
        first.append(np.full(len(rows[-1]), section * width, np.int64))
    if len(rows) == 1:
        return RowGroups(rows[0], values[0], first[0])
    return RowGroups(np.concatenate(rows), np.concatenate(values), np.concatenate(first))


def _lines(rows: int, height: int) -> Int64:
    """Word line of each row, groups laid one after another.

    As few groups as hold the rows, all of nearly equal height: a nearly empty last group would
    still take a route for every weight.
    """
    groups = -(-rows // height)
    sizes = np.diff(np.arange(groups + 1) * rows // groups)
    gap = np.arange(groups) * height - (np.cumsum(sizes) - sizes)  # unused lines before a group
    lines: Int64 = np.arange(rows) + np.repeat(gap, sizes)
    return lines


def _permutation(matrix: NDArray[np.int16], kernel_size: int, order: RowOrder) -> Int64:
    """Row order of a section, int64 [rows]; the rows come by channel, then kernel position."""
    index = np.arange(len(matrix))
    if order == "position":
        return np.lexsort((index, index % kernel_size))
    if order == "magnitude":  # rows of small weights together: their upper planes are all equal
        return np.argsort(-np.abs(matrix.astype(np.int32)).sum(axis=1), kind="stable")
    return index


@dataclass(frozen=True, eq=False)
class Coding:
    """How the weights of a layer become columns.

    table: codes of a single word line, [weights lowest..highest, digits]; the row of weight ``w``
    is ``w - lowest``. digits: shift and sign of each column of a weight, ``parts`` as in `Digits`;
    a constant last digit takes an offset away.
    """

    lowest: int
    table: Codes
    digits: Digits
    cell_bits: int

    @property
    def width(self) -> int:
        """Columns of a weight."""
        return int(self.table.shape[1])


def coding(weights: LayerWeights, encoding: EncodingName, height: int, cell_bits: int) -> Coding:
    """The columns that the weights of a layer have in an encoding."""
    low, high = int(weights.values.min(initial=0)), int(weights.values.max(initial=0))
    digits = encode_as(encoding, np.arange(low, high + 1), cell_bits, signed_bits(weights.values))
    values, shift, sign = digits.values, digits.shift, digits.sign
    if digits.offset:
        ones = np.ones((len(values), 1), np.uint8)
        values = np.concatenate([values, ones], axis=1)
        shift = np.append(shift, np.uint8(digits.offset.bit_length() - 1))
        sign = np.append(sign, np.int8(-1))
    bits = height * cell_bits
    kind = next(k for k in (np.uint16, np.uint32, np.uint64) if bits <= np.dtype(k).itemsize * 8)
    described = Digits(values[:0], shift, sign, digits.offset, digits.parts)
    return Coding(low, values.astype(kind), described, cell_bits)


def column_codes(groups: RowGroups, coded: Coding) -> Codes:
    """Codes of all columns, [groups, outputs of a section, digits]; 0: nothing to store."""
    count, height, outputs = groups.values.shape
    codes = np.zeros((count, outputs, coded.width), coded.table.dtype)
    index = groups.values.astype(np.intp) - coded.lowest
    for line in range(height):
        term = np.take(coded.table, index[:, line], axis=0)
        term <<= coded.table.dtype.type(line * coded.cell_bits)
        unused = groups.rows[:, line] < 0
        if unused.any():
            term[unused] = 0  # a weight of 0 has set digits in offset binary
        codes |= term
    return codes


def cells_of_codes(codes: Codes, height: int, cell_bits: int) -> UInt8:
    """Packed cells, as in ``BlockMatrix.cells``, of stored columns given by their codes."""
    if cell_bits == 1:
        little = np.ascontiguousarray(codes.astype(codes.dtype.newbyteorder("<")))
        packed = little.view(np.uint8).reshape(len(codes), codes.itemsize)[:, : -(-height // 8)]
        return np.ascontiguousarray(packed[:, None, :])
    shifts = (np.arange(height) * cell_bits).astype(codes.dtype)
    mask = codes.dtype.type((1 << cell_bits) - 1)
    return pack_cells(((codes[:, None] >> shifts) & mask).astype(np.uint8), cell_bits)
