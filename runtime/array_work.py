"""What the crossbars of one matrix do for one window: cycles, fires, reads, routes, table bits.

All of it follows from the blocks and the target alone. One bit of a window's inputs is driven at
a time; every operation unit that holds something fires once per bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64
from isa.target import Target

_PIECE = 1 << 20  # routes looked at together, so that a large layer needs no large arrays


def fire_cycles(columns: int, target: Target) -> int:
    """Cycles until a crossbar can fire again after an operation unit ``columns`` bit lines wide.

    Pipelined: the conversions, or the array's own pace. Else the sum of all stages.
    """
    conversion = -(-columns // target.adc.per_crossbar) * target.adc.conversion_cycles
    if not target.ou.pipelined:
        conversion += target.ou.fixed_latency_cycles
    return max(target.ou.min_issue_cycles, conversion)


def drain_cycles(target: Target) -> int:
    """Cycles of the last fire beyond its conversions; they overlap with nothing that follows."""
    return target.ou.fixed_latency_cycles if target.ou.pipelined else 0


@dataclass(eq=False)
class ArrayWork:
    """The work of one matrix for one window. Counts are exact; nothing depends on data."""

    blocks: BlockMatrix
    target: Target

    @cached_property
    def units(self) -> int:
        """Operation units that fire per input bit."""
        return self.blocks.blocks(self.target.ou.columns)

    @cached_property
    def crossbars(self) -> Int64:
        """Indices of the crossbars that the matrix stands in, ascending."""
        found: Int64 = np.unique(self.blocks.spans.crossbar).astype(np.int64)
        return found

    @cached_property
    def crossbar_cycles(self) -> Int64:
        """Cycles of one window on each crossbar of the core, int64 [highest crossbar + 1].

        A crossbar fires its operation units in series, for every input bit. Its routes leave
        beside the converter, one per cycle, after all bits or after each.
        """
        target, spans = self.target, self.blocks.spans
        per_width = np.array(
            [0, *(fire_cycles(width, target) for width in range(1, target.ou.columns + 1))]
        )
        full, rest = np.divmod(spans.count, target.ou.columns)
        cycles = full * per_width[-1] + per_width[rest]
        fires = self._by_crossbar(cycles)
        if target.accumulation.routing == "per-bit":
            return np.maximum(fires, self.route_cycles) * target.inputs.bits
        return np.maximum(fires * target.inputs.bits, self.route_cycles)

    @cached_property
    def route_cycles(self) -> Int64:
        """Cycles in which the routes leave each crossbar, once per window or per input bit."""
        return self._by_crossbar(self._routes_of_spans())

    @cached_property
    def mask_bits(self) -> int:
        """Bits read per window that say which groups fire, where the target skips the others."""
        per_group = {"none": 0, "group": 1, "group-bit": self.target.inputs.bits}
        return self.blocks.groups * per_group[self.target.inputs.skip]

    @cached_property
    def window_cycles(self) -> int:
        """Cycles of one window: those of the busiest crossbar."""
        return int(self.crossbar_cycles.max(initial=0))

    @cached_property
    def driven_rows(self) -> int:
        """Word lines driven per input bit, over all fires."""
        widths = -(-self.blocks.spans.count // self.target.ou.columns)
        return int((widths * self._used_rows[self.blocks.spans.group]).sum())

    @cached_property
    def cells(self) -> int:
        """Cells read per input bit: stored columns times the word lines of their group."""
        return int((np.diff(self.blocks.column_start) * self._used_rows).sum())

    @cached_property
    def conducting_cells(self) -> float:
        """Cells in the low-resistance state; one between the states counts as its share."""
        return float(self.blocks.largest_sums().sum()) / self.target.cell_max

    @cached_property
    def set_cells(self) -> int:
        """Cells that leave the high-resistance state when the matrix is programmed."""
        if self.blocks.cell_bits == 1:
            return int(self.blocks.largest_sums().sum())
        planes = np.bitwise_or.reduce(self.blocks.cells, axis=1)
        return int(np.bitwise_count(planes).sum(dtype=np.int64))

    @cached_property
    def lines_by_crossbar(self) -> Int64:
        """Word lines that each crossbar of the core uses, int64 [highest crossbar + 1]."""
        spans = self.blocks.spans
        places = np.unique(np.stack([spans.crossbar, spans.row, spans.group]), axis=1)
        return np.bincount(places[0], weights=self._used_rows[places[2]]).astype(np.int64)

    @cached_property
    def input_bytes_by_pe(self) -> Int64:
        """Input bytes that each PE takes for a window, int64 [PEs]: word lines of its groups."""
        spans = self.blocks.spans
        pe = spans.crossbar // self.target.hierarchy.crossbars_per_pe
        placed = np.unique(np.stack([pe, spans.group]), axis=1)
        return np.bincount(placed[0], weights=self._used_rows[placed[1]]).astype(np.int64)

    @cached_property
    def routes(self) -> int:
        """Routes that one window takes, over all stored columns."""
        return self.blocks.route_count()

    @cached_property
    def output_updates(self) -> int:
        """Read-add-write accesses of output registers per window.

        The routes of one operation unit to one output meet in the shift-add stage first, so
        the eight bit planes of a plainly stored weight cost one access, not eight.
        """
        return self._distinct_targets(self._units_of_columns())

    @cached_property
    def products(self) -> int:
        """Products of an input and a weight per window: per group, its inputs times its outputs."""
        lists = self.blocks.routes
        list_of_slot = np.repeat(
            np.arange(len(lists.column_start) - 1), np.diff(lists.column_start)
        )
        list_of_route = np.repeat(list_of_slot, np.diff(lists.start))
        keys = np.unique(list_of_route * np.int64(self.blocks.outputs) + lists.output)
        outputs = np.bincount(keys // self.blocks.outputs, minlength=len(lists.column_start) - 1)
        return int((self._used_rows * outputs[self.blocks.routing]).sum())

    @cached_property
    def table_bits(self) -> int:
        """Bits of selectors and routes read per window.

        Selectors of consecutive inputs and route lists that repeat one pattern for successive
        outputs need counters, not tables.
        """
        return self.selector_bits + self.route_bits

    @cached_property
    def selector_bits(self) -> int:
        blocks = self.blocks
        steps = np.diff(blocks.rows, axis=1)
        plain = ((steps == 1) | (blocks.rows[:, 1:] < 0)).all(axis=1)
        entry = max(1, (blocks.inputs - 1).bit_length())
        return int(self._used_rows[~plain].sum()) * entry

    @cached_property
    def route_bits(self) -> int:
        lists = self.blocks.routes
        entry = max(1, (self.blocks.outputs - 1).bit_length())
        entry += int(lists.shift.max(initial=0)).bit_length() + 1  # and the sign
        per_list = np.diff(lists.start[lists.column_start])
        for routing in range(len(per_list)):
            if _is_regular(self.blocks, routing):
                per_list[routing] = 0
        return int(per_list[self.blocks.routing].sum()) * entry

    @cached_property
    def _used_rows(self) -> Int64:
        """Word lines that each group uses, int64 [groups]."""
        used: Int64 = (self.blocks.rows >= 0).sum(axis=1, dtype=np.int64)
        return used

    def _by_crossbar(self, values: NDArray[np.integer]) -> Int64:
        """Sum per-span values over the spans of each crossbar."""
        return np.bincount(self.blocks.spans.crossbar, weights=values).astype(np.int64)

    def _routes_of_spans(self) -> Int64:
        """Routes that the columns of each span have, int64 [spans]."""
        blocks, spans = self.blocks, self.blocks.spans
        slot = blocks.routes.column_start[blocks.routing[spans.group]] + spans.first
        routes: Int64 = blocks.routes.start[slot + spans.count] - blocks.routes.start[slot]
        return routes

    def _units_of_columns(self) -> Int64:
        """Operation unit of each stored column, int64 [columns]."""
        spans, width = self.blocks.spans, self.target.ou.columns
        unit = np.zeros(self.blocks.columns, np.int64)
        start = self.blocks.column_start[spans.group] + spans.first
        within = np.arange(int(spans.count.sum())) - np.repeat(
            np.cumsum(spans.count) - spans.count, spans.count
        )
        first_unit = np.cumsum(-(-spans.count // width)) - -(-spans.count // width)
        column = np.repeat(start, spans.count) + within
        unit[column] = np.repeat(first_unit, spans.count) + within // width
        return unit

    def _distinct_targets(self, unit: Int64) -> int:
        """Different (operation unit, output) pairs over all routes."""
        blocks, lists = self.blocks, self.blocks.routes
        slot = blocks.slot_of_column()
        counts = np.diff(lists.start)[slot]
        before = np.concatenate([[0], np.cumsum(counts)])[blocks.column_start]
        cuts = np.searchsorted(before, np.arange(0, before[-1], _PIECE))  # a unit is in one group
        total = 0
        for low, high in pairwise(blocks.column_start[np.unique([*cuts, blocks.groups])]):
            total += _distinct_pairs(
                lists.start[slot[low:high]],
                counts[low:high],
                unit[low:high],
                lists.output,
                blocks.outputs,
            )
        return total


def _distinct_pairs(
    start: Int64, counts: Int64, unit: Int64, output: NDArray[np.int32], outputs: int
) -> int:
    """Different (unit, output) pairs of columns whose routes stand at ``start``."""
    offset = np.cumsum(counts) - counts
    route = np.repeat(start - offset, counts) + np.arange(int(counts.sum()))
    keys = np.repeat(unit, counts) * outputs + output[route]
    keys.sort()
    return int(np.count_nonzero(np.diff(keys))) + (1 if len(keys) else 0)


def _is_regular(blocks: BlockMatrix, routing: int) -> bool:
    """Whether a route list sends successive runs of columns to successive outputs, all alike."""
    lists = blocks.routes
    low, high = (int(n) for n in lists.column_start[routing : routing + 2])
    start = lists.start[low : high + 1]
    if high == low or (np.diff(start) != 1).any():
        return False
    taken = slice(int(start[0]), int(start[-1]))
    output = lists.output[taken]
    run = int(np.argmax(output != output[0])) or len(output)
    if len(output) % run:
        return False
    rows = output.reshape(-1, run)
    alike = [values[taken].reshape(-1, run) for values in (lists.shift, lists.sign)]
    successive = (rows == rows[:1, :1] + np.arange(len(rows))[:, None]).all()
    return bool(successive) and all((values == values[0]).all() for values in alike)
