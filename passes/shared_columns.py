"""Shared columns: row groups chosen by another scheme, each distinct column of a group once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64, ranges
from isa.target import Target
from passes.assemble import Stored, assemble
from passes.encoding import plain_encoding
from passes.grouping import CHUNK_CODES, CODE_BITS, Codes, Coding, cells_of_codes, coding
from passes.merge_routes import merge_routes
from passes.plain_columns import PlainGroups, plain_blocks
from passes.weights import LayerWeights


def shared_blocks(weights: LayerWeights, target: Target, groups: PlainGroups) -> BlockMatrix:
    """`plain_blocks` with each distinct non-zero column of a group stored once.

    Columns taller than a code can say (64 bits) hardly ever repeat and are all stored.
    """
    coded = _coding(weights, target, groups)
    if coded is None:
        return plain_blocks(weights, target, groups)
    cell_bits = coded.cell_bits
    parts = [_distinct(groups, low, high, coded) for low, high in _chunks(groups, coded.width)]
    return assemble(weights, cell_bits, parts)


def distinct_columns(weights: LayerWeights, target: Target, groups: PlainGroups) -> int:
    """At least so many columns `shared_blocks` stores; in little memory, no routes are made."""
    coded = _coding(weights, target, groups)
    if coded is None:
        return 0
    chunks = _chunks(groups, coded.width)
    return sum(int(_digits(groups, low, high, coded).is_first.sum()) for low, high in chunks)


def _coding(weights: LayerWeights, target: Target, groups: PlainGroups) -> Coding | None:
    height, cell_bits = groups.rows.shape[1], target.crossbar.cell_bits
    if height * cell_bits > CODE_BITS or not len(groups.rows):
        return None
    return coding(weights, plain_encoding(cell_bits), height, cell_bits)


def _chunks(groups: PlainGroups, width: int) -> Iterator[tuple[int, int]]:
    """Runs of whole groups whose columns are few enough to be coded together."""
    ends = np.cumsum(np.diff(groups.start)[groups.routing]) * width
    low = 0
    while low < len(ends):
        room = (ends[low - 1] if low else 0) + CHUNK_CODES
        high = max(low + 1, int(np.searchsorted(ends, room, side="right")))
        yield low, high
        low = high


@dataclass(frozen=True, eq=False)
class _Digits:
    """Non-zero digit columns of some groups, equal ones of a group together.

    group, code, is_first, entry, digit: of each; an entry is an output of a group.
    """

    group: Int64
    code: Codes
    is_first: NDArray[np.bool_]
    entry: Int64
    digit: Int64


def _digits(groups: PlainGroups, low: int, high: int, coded: Coding) -> _Digits:
    """The digit columns of the groups low..high, in order."""
    rows = groups.rows[low:high]
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
    return _Digits(group, code, is_first, entry, digit)


def _distinct(groups: PlainGroups, low: int, high: int, coded: Coding) -> Stored:
    """The distinct columns of the groups low..high, with a route for every use."""
    rows, routing = groups.rows[low:high], groups.routing[low:high]
    d = _digits(groups, low, high, coded)
    output = groups.outputs[ranges(groups.start[routing], np.diff(groups.start)[routing])]
    merged = merge_routes(
        np.cumsum(d.is_first) - 1,
        output[d.entry],
        coded.digits.shift[d.digit],
        coded.digits.sign[d.digit],
        int(d.is_first.sum()),
    )
    columns = np.bincount(d.group[d.is_first], minlength=len(rows))
    cells = cells_of_codes(d.code[d.is_first], rows.shape[1], coded.cell_bits)
    return Stored(rows, columns.astype(np.int64), cells, *merged)
