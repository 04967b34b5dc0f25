"""Pattern de-duplication: equal columns of a row group are stored once and routed many times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64, ranges
from isa.target import Target
from passes.assemble import Stored, assemble, starts
from passes.base import Pass
from passes.encoding import EncodingName, plain_encoding
from passes.graph import Graph
from passes.grouping import (
    Codes,
    Coding,
    RowGroups,
    RowOrder,
    cells_of_codes,
    coded_height,
    coding,
    column_codes,
    row_groups,
)
from passes.mapping import Mapping, map_layers
from passes.merge_routes import merge_routes
from passes.weights import LayerWeights

Granularity = Literal["filter", "column", "none"]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class DedupPlan:
    """The choices of pattern de-duplication; None: the target's plain one, the tallest group.

    granularity "none" stores every pattern for each of its outputs, but no column of zeros.
    """

    granularity: Granularity = "column"
    encoding: EncodingName | None = None
    height: int | None = None
    order: RowOrder = "channel"

    def coding(self, weights: LayerWeights, target: Target) -> tuple[int, Coding]:
        """Rows of a group, and the columns that weights become."""
        height = min(self.height or target.ou.rows, coded_height(target))
        cell_bits = target.crossbar.cell_bits
        encoding = self.encoding or plain_encoding(cell_bits)
        if self.encoding is None and encoding == "offset" and self.granularity != "column":
            encoding = "sign-magnitude"  # an offset would add a column of ones to every pattern
        return height, coding(weights, encoding, height, cell_bits)


@dataclass(frozen=True)
class PatternDedup(Pass[Graph, Mapping]):
    """Keep one copy of each pattern of a row group.

    Before -> after, granularity "filter" (PattPIM, DAC 2020): filters 0, 3 and 7 have the same 9
    weights in a group -> filter 0's columns are stored, and their sum goes to three outputs.
    Granularity "column": every distinct non-zero bit column of the group is stored once, and its
    sum goes, shifted and signed, wherever a digit of a weight needs it.
    Exact: yes. A sum is reused only inside one row group and one window, because it contains that
    group's inputs (papers.md, section 12).
    """

    name: ClassVar[str] = "pattern-dedup"
    exact: ClassVar[bool] = True
    target: Target
    plan: DedupPlan = DedupPlan()

    def run(self, unit: Graph) -> Mapping:
        return map_layers(
            unit, self.target, lambda weights: pattern_dedup(weights, self.target, self.plan)
        )


def pattern_dedup(
    weights: LayerWeights,
    target: Target,
    plan: DedupPlan | None = None,
    sample: int | None = None,
) -> BlockMatrix:
    """The de-duplicated blocks of one layer; see ``PatternDedup``.

    sample: only about so many of the row groups, evenly spread, to estimate what all would cost.
    """
    plan = plan or DedupPlan()
    height, coded = plan.coding(weights, target)
    groups = row_groups(weights, height, plan.order)
    if sample is not None:
        groups = groups.sample(sample)
    parts = []
    for chunk in groups.chunks(coded.width):
        codes = column_codes(chunk, coded)
        if plan.granularity == "column":
            parts.append(_distinct_columns(chunk, codes, coded))
        else:
            parts.append(_distinct_filters(chunk, codes, coded, plan.granularity == "filter"))
    return assemble(weights, coded.cell_bits, parts)


def _distinct_columns(groups: RowGroups, codes: Codes, coded: Coding) -> Stored:
    """Each distinct non-zero code of a group once, with a route for every use of it."""
    count, outputs, width = codes.shape
    flat = codes.reshape(count, outputs * width)
    order = np.argsort(flat, axis=1, kind="stable")  # a radix sort for codes of 16 bits
    ordered = np.take_along_axis(flat, order, axis=1)
    used = ordered != 0
    is_first = used.copy()
    is_first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    column = np.cumsum(is_first, dtype=np.int64)[used.ravel()] - 1
    output, digit = np.divmod(order[used].astype(np.int32), np.int32(width))
    columns = is_first.sum(axis=1)
    per_group = used.sum(axis=1)
    if groups.first_output.any():
        output += np.repeat(groups.first_output, per_group).astype(np.int32)
    merged = merge_routes(
        column, output, coded.digits.shift[digit], coded.digits.sign[digit], int(columns.sum())
    )
    cells = cells_of_codes(ordered[is_first], groups.rows.shape[1], coded.cell_bits)
    return Stored(groups.rows, columns, cells, *merged)


def _distinct_filters(groups: RowGroups, codes: Codes, coded: Coding, merge: bool) -> Stored:
    """Each distinct filter slice of a group once, all its non-zero digit columns side by side.

    With an encoding of two parts, positive and negative slices are entries of one pool.
    """
    count, outputs, width = codes.shape
    parts = coded.digits.parts
    entries = outputs * parts
    patterns = codes.reshape(count, entries, width // parts)
    order, is_first = _equal_runs(patterns, merge)
    stored = patterns[np.nonzero(is_first)[0], order[is_first]]  # [units, digits of a part]
    uses = np.diff(np.append(np.flatnonzero(is_first), is_first.size))
    output, part = np.divmod(order.ravel(), parts)
    output = output + np.repeat(groups.first_output, entries)
    return _filter_columns(groups, coded, stored, uses, is_first, (output, part))


def _filter_columns(
    groups: RowGroups,
    coded: Coding,
    stored: Codes,
    uses: Int64,
    is_first: NDArray[np.bool_],
    entry: tuple[Int64, Int64],
) -> Stored:
    """The non-zero columns of each stored slice, and their routes to all uses of the slice.

    uses: entries of each stored slice, which follow one another in ``entry`` (output, part).
    """
    set_digits = stored != 0
    unit, digit = np.nonzero(set_digits)
    group_of_unit = np.nonzero(is_first)[0]
    columns = np.bincount(group_of_unit, set_digits.sum(axis=1), len(groups.rows))
    per_column = uses[unit]
    taken = ranges(starts(uses)[unit], per_column)
    digit_of_route = np.repeat(digit, per_column)
    output, part = entry
    return Stored(
        rows=groups.rows,
        columns=columns.astype(np.int64),
        cells=cells_of_codes(stored[set_digits], groups.rows.shape[1], coded.cell_bits),
        routes=per_column,
        output=output[taken].astype(np.int32),
        shift=coded.digits.shift[digit_of_route],
        sign=coded.digits.sign[part[taken] * set_digits.shape[1] + digit_of_route],
    )


def _equal_runs(patterns: Codes, merge: bool) -> tuple[Int64, NDArray[np.bool_]]:
    """An order of each group's entries that puts equal ones together, and where a run begins.

    patterns: [groups, entries, digits]. Without ``merge`` the order is kept, all entries differ.
    Entries are ordered by a 64-bit hash; a run ends where the patterns themselves differ, so that
    a collision costs a repeat and never a wrong weight.
    """
    count, entries, digits = patterns.shape
    if not merge:
        order = np.broadcast_to(np.arange(entries), (count, entries))
        return order, np.ones((count, entries), np.bool_)
    key = np.zeros((count, entries), np.uint64)
    for digit in range(digits):
        key = (key ^ patterns[:, :, digit]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    order = np.argsort(key, axis=1, kind="stable")
    ordered = np.take_along_axis(patterns, order[:, :, None], axis=1)
    is_first = np.ones((count, entries), np.bool_)
    is_first[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=2)
    return order, is_first
