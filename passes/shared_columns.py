"""Shared columns: row groups chosen by another scheme, each distinct column of a group once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isa.matrix import BlockMatrix, ranges
from isa.target import Target
from passes.assemble import Stored, assemble
from passes.encoding import plain_encoding
from passes.grouping import CHUNK_CODES, CODE_BITS, Coding, cells_of_codes, coding
from passes.merge_routes import merge_routes
from passes.plain_columns import PlainGroups, plain_blocks
from passes.weights import LayerWeights


def shared_blocks(weights: LayerWeights, target: Target, groups: PlainGroups) -> BlockMatrix:
    """`plain_blocks` with each distinct non-zero column of a group stored once.

    Columns taller than a code can say (64 bits) hardly ever repeat and are all stored.
    """
    height, cell_bits = groups.rows.shape[1], target.crossbar.cell_bits
    if height * cell_bits > CODE_BITS or not len(groups.rows):
        return plain_blocks(weights, target, groups)
    coded = coding(weights, plain_encoding(cell_bits), height, cell_bits)
    parts = [_distinct(groups, low, high, coded) for low, high in _chunks(groups, coded.width)]
    return assemble(weights, cell_bits, parts)


def _chunks(groups: PlainGroups, width: int) -> Iterator[tuple[int, int]]:
    """Runs of whole groups whose columns are few enough to be coded together."""
    ends = np.cumsum(np.diff(groups.start)[groups.routing]) * width
    low = 0
    while low < len(ends):
        room = (ends[low - 1] if low else 0) + CHUNK_CODES
        high = max(low + 1, int(np.searchsorted(ends, room, side="right")))
        yield low, high
        low = high


def _distinct(groups: PlainGroups, low: int, high: int, coded: Coding) -> Stored:
    """The distinct columns of the groups low..high, with a route for every use."""
    rows, routing = groups.rows[low:high], groups.routing[low:high]
    served = np.diff(groups.start)[groups.routing]
    first = int(served[:low].sum())
    owner = np.repeat(np.arange(high - low), served[low:high])
    index = groups.values[first : first + len(owner)].astype(np.intp) - coded.lowest
    codes = np.zeros((len(owner), coded.width), coded.table.dtype)
    for line in range(rows.shape[1]):
        term = np.take(coded.table, index[:, line], axis=0)
        term <<= coded.table.dtype.type(line * coded.cell_bits)
        term[rows[owner, line] < 0] = 0  # a weight of 0 has set digits in offset binary
        codes |= term
    entry, digit = np.nonzero(codes)
    order = np.lexsort((codes[entry, digit], owner[entry]))  # stable: uses stay in output order
    entry, digit = entry[order], digit[order]
    code, group = codes[entry, digit], owner[entry]
    is_first = np.ones(len(code), np.bool_)
    is_first[1:] = (code[1:] != code[:-1]) | (group[1:] != group[:-1])
    output = groups.outputs[ranges(groups.start[routing], served[low:high])]
    merged = merge_routes(
        np.cumsum(is_first) - 1,
        output[entry],
        coded.digits.shift[digit],
        coded.digits.sign[digit],
        int(is_first.sum()),
    )
    columns = np.bincount(group[is_first], minlength=len(rows))
    cells = cells_of_codes(code[is_first], rows.shape[1], coded.cell_bits)
    return Stored(rows, columns.astype(np.int64), cells, *merged)
