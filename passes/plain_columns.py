"""Plain columns: blocks in which every weight keeps its own digit columns, rows chosen freely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int32, Int64, Routes, Spans, UInt8, pack_cells, ranges
from isa.target import Target
from passes.assemble import starts
from passes.encoding import encode, signed_bits
from passes.weights import LayerWeights

CHUNK_COLUMNS = 1 << 21  # unpacked at a time; bounds memory


@dataclass(frozen=True, eq=False)
class PlainGroups:
    """Row groups and the outputs they serve.

    rows: int32 [groups, height], -1 unused. routing: int32 [groups], the output list of each.
    outputs, start: list ``t`` serves ``outputs[start[t] : start[t+1]]``. values: int16 [sum over
    groups of their outputs, height], 0 on unused lines.
    """

    rows: Int32
    routing: Int32
    outputs: Int32
    start: Int64
    values: NDArray[np.int16]


def plain_blocks(weights: LayerWeights, target: Target, groups: PlainGroups) -> BlockMatrix:
    """The digit columns of each group's weights, output after output, and their routes.

    With an offset encoding, a last column of ones per group takes the offset away.
    """
    cell_bits, bits = target.crossbar.cell_bits, signed_bits(weights.values)
    digits = encode(weights.values[:0], cell_bits, bits)
    width, has_ones = len(digits.shift), int(digits.offset > 0)
    served = np.diff(groups.start)
    cells = _cells(groups, cell_bits, bits)
    per_group = served[groups.routing] * width
    if has_ones:
        cells = _with_ones(cells, per_group, groups.rows, cell_bits)
    per_list = np.ones(len(groups.outputs) * width, np.int64)
    output = np.repeat(groups.outputs, width)
    shift, sign = (
        np.tile(digits.shift, len(groups.outputs)),
        np.tile(digits.sign, len(groups.outputs)),
    )
    if has_ones:
        ends = groups.start[1:] * width
        per_list = np.insert(per_list, ends, served)
        at = np.repeat(ends, served)
        output = np.insert(output, at, groups.outputs)
        shift = np.insert(shift, at, digits.offset.bit_length() - 1)
        sign = np.insert(sign, at, -1)
    return BlockMatrix(
        inputs=weights.inputs,
        outputs=weights.outputs,
        cell_bits=cell_bits,
        rows=groups.rows,
        cells=cells,
        column_start=starts(per_group + has_ones),
        routing=groups.routing,
        routes=Routes(
            starts(served * width + has_ones),
            starts(per_list),
            output.astype(np.int32),
            shift.astype(np.uint8),
            sign.astype(np.int8),
        ),
        spans=Spans.empty(),
    )


def _cells(groups: PlainGroups, cell_bits: int, bits: int) -> UInt8:
    """Packed digit columns of all values, group after group."""
    served = np.diff(groups.start)[groups.routing]
    used = np.repeat(groups.rows >= 0, served, axis=0)
    parts = []
    height = groups.rows.shape[1]
    for low in range(0, max(1, len(groups.values)), CHUNK_COLUMNS // 8):
        part = slice(low, low + CHUNK_COLUMNS // 8)
        digits = encode(groups.values[part], cell_bits, bits).values  # [columns, height, digits]
        digits *= used[part][:, :, None]  # a weight of 0 has set digits in offset binary
        columns = np.ascontiguousarray(digits.transpose(0, 2, 1)).reshape(-1, height)
        parts.append(pack_cells(columns, cell_bits))
    return np.concatenate(parts)


def _with_ones(cells: UInt8, per_group: Int64, rows: Int32, cell_bits: int) -> UInt8:
    """The cells with a column of ones behind those of each group."""
    ones = pack_cells((rows >= 0).astype(np.uint8), cell_bits)
    joined = np.empty((len(cells) + len(rows), *cells.shape[1:]), np.uint8)
    first = starts(per_group + 1)[:-1]
    joined[ranges(first, per_group)] = cells
    joined[first + per_group] = ones
    return joined
