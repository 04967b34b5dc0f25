"""Estimate: what a mapping of one layer costs, every fire, conversion, route and table bit charged.

One window streams its inputs bit by bit; each operation unit fires once per input bit. Sums leave
to their outputs after the last bit, or after each one where the target routes per bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64
from isa.target import Target
from passes.place import packed_spans, place
from passes.prices import Prices, prices
from passes.route_tables import RouteTable, route_tables
from passes.selector_tables import selector_bits


@dataclass(frozen=True)
class MappingCost:
    """Cost of a layer over all windows of one image, or the sum over layers.

    stored_columns, stored_cells, crossbars: what is held. ou_fires, conversions, route_adds:
    events, counted as the runtime counts them. accumulates: additions to outputs' accumulators.
    selector_bits, route_bits, side_buffer_bits: sizes of tables and buffers. form: of the route
    tables (`passes.route_tables`). The `_pj` fields are the groups of the energy: fires with
    everything up to the shift-add over the input bits; index bits read; combining sums in
    registers and through the side buffer; adding to accumulators. time_ns: all windows one after
    another, crossbars side by side. time_equal_crossbars_ns: the same on a given number of them.
    """

    stored_columns: int = 0
    stored_cells: int = 0
    crossbars: int = 0
    ou_fires: int = 0
    conversions: int = 0
    route_adds: int = 0
    accumulates: int = 0
    selector_bits: int = 0
    route_bits: int = 0
    side_buffer_bits: int = 0
    form: str = ""
    fire_pj: float = 0.0
    index_pj: float = 0.0
    combine_pj: float = 0.0
    accumulate_pj: float = 0.0
    crossbar_area_um2: float = 0.0
    table_area_um2: float = 0.0
    time_ns: float = 0.0
    time_equal_crossbars_ns: float = 0.0

    @property
    def table_bits(self) -> int:
        """Bits of all index tables."""
        return self.selector_bits + self.route_bits

    @property
    def energy_pj(self) -> float:
        """Energy of all groups."""
        return self.fire_pj + self.index_pj + self.combine_pj + self.accumulate_pj

    @property
    def area_um2(self) -> float:
        """Crossbars with their share of the chip, and tables and side buffers by their bits."""
        return self.crossbar_area_um2 + self.table_area_um2

    def __add__(self, other: MappingCost) -> MappingCost:
        sums = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name != "form"
        }
        return MappingCost(form=self.form if self.form == other.form else "mixed", **sums)


def estimate(
    blocks: BlockMatrix,
    windows: int,
    target: Target,
    *,
    kernel_size: int = 1,
    sections: int = 1,
    crossbars: int | None = None,
    objective: str = "energy",
) -> MappingCost:
    """Cost of a layer's blocks, placed or not, over ``windows`` windows.

    kernel_size, sections: of the layer (kernel positions, convolution groups), for regular
    selectors and places. crossbars: for ``time_equal_crossbars_ns``, by default the layer's own.
    objective: "energy", "latency" or "area", which decides the form of the route tables.
    """
    spans = blocks.spans if len(blocks.spans.group) else place(blocks, target, sections)
    blocks = replace(blocks, spans=spans)
    selector = selector_bits(blocks, kernel_size)
    options = [
        _cost(blocks, windows, target, table, selector)
        for table in route_tables(blocks.routes, blocks.routing.astype(np.int64), blocks.outputs)
        if _fits_side_buffer(blocks, table, target)
    ]
    cost, table = min(options, key=lambda option: objective_value(option[0], objective))
    equal = _time_on(blocks, windows, target, table, crossbars or cost.crossbars)
    return replace(cost, time_equal_crossbars_ns=equal)


def table_bits(blocks: BlockMatrix, target: Target, kernel_size: int = 1) -> int:
    """Bits of the smallest tables that hold the selectors and routes of placed blocks."""
    tables = route_tables(blocks.routes, blocks.routing.astype(np.int64), blocks.outputs)
    fitting = (table for table in tables if _fits_side_buffer(blocks, table, target))
    return selector_bits(blocks, kernel_size) + min(table.stored_bits for table in fitting)


def objective_value(cost: MappingCost, objective: str) -> tuple[float, float]:
    """What an objective minimizes, and what decides between equals."""
    time = cost.time_equal_crossbars_ns or cost.time_ns
    if objective == "latency":
        return time, cost.energy_pj
    if objective == "area":
        return cost.area_um2, cost.energy_pj
    return cost.energy_pj, time


def _cost(
    blocks: BlockMatrix, windows: int, target: Target, table: RouteTable, selector: int
) -> tuple[MappingCost, RouteTable]:
    """Cost with one form of the route tables."""
    price = prices(target)
    bits = target.inputs.bits
    rounds = windows * (bits if target.accumulation.routing == "per-bit" else 1)
    heights, columns = (blocks.rows >= 0).sum(axis=1), np.diff(blocks.column_start)
    units = blocks.blocks(target.ou.columns)
    buffer = _side_buffer_bits(blocks, table, target)
    sum_bits = _sum_bits(blocks, target)
    crossbar_area = blocks.crossbars * price.crossbar_area
    cost = MappingCost(
        stored_columns=blocks.columns,
        stored_cells=int((heights * columns).sum()),
        crossbars=blocks.crossbars,
        ou_fires=windows * bits * units,
        conversions=windows * bits * blocks.columns,
        route_adds=rounds * blocks.route_count(),
        accumulates=rounds * table.accumulates,
        selector_bits=selector,
        route_bits=table.stored_bits,
        side_buffer_bits=buffer,
        form=table.form,
        fire_pj=windows * bits * _fire_pj(blocks, target, price),
        index_pj=(windows * selector + rounds * table.read_bits) * price.index_bit,
        combine_pj=rounds
        * (
            table.local_adds * price.local_add
            + table.buffer_writes * sum_bits * price.buffer_write_bit
            + table.buffer_reads * sum_bits * price.buffer_read_bit
        ),
        accumulate_pj=rounds * table.accumulates * price.accumulate,
        crossbar_area_um2=crossbar_area,
        table_area_um2=(selector + table.stored_bits + buffer) * price.bit_area,
        time_ns=windows * _busiest(blocks, target, table) * target.cycle_ns,
    )
    return cost, table


def _fire_pj(blocks: BlockMatrix, target: Target, price: Prices) -> float:
    """Energy of firing every operation unit once: driven rows, read cells, conversions."""
    heights = (blocks.rows >= 0).sum(axis=1)
    columns = np.diff(blocks.column_start)
    spans = blocks.spans
    driven = (heights[spans.group] * -(-spans.count // target.ou.columns)).sum()
    cells = (heights * columns).sum()
    return float(driven * price.row + cells * price.cell + columns.sum() * price.conversion)


def _sum_bits(blocks: BlockMatrix, target: Target) -> int:
    """Bits of a column's sum when it leaves for its outputs."""
    largest = int(blocks.rows.shape[1]) * ((1 << blocks.cell_bits) - 1)
    if target.accumulation.routing == "after-bits":
        largest *= (1 << target.inputs.bits) - 1
    return int(largest).bit_length()


def _side_buffer_bits(blocks: BlockMatrix, table: RouteTable, target: Target) -> int:
    """Sums that wait for their readers, the largest group's, in every crossbar."""
    if not table.buffer_writes:
        return 0
    largest = int(np.diff(blocks.column_start).max(initial=0))
    return largest * _sum_bits(blocks, target) * blocks.crossbars


def _fits_side_buffer(blocks: BlockMatrix, table: RouteTable, target: Target) -> bool:
    room = 8 * target.memory.side_buffer_bytes * max(1, blocks.crossbars)
    return _side_buffer_bits(blocks, table, target) <= room


def span_cycles(count: NDArray[np.integer], target: Target) -> Int64:
    """Cycles in which a crossbar fires all units of spans of ``count`` columns once."""
    width = target.ou.columns
    full, rest = np.divmod(count.astype(np.int64), width)
    each = np.array([_fire_cycles(columns, target) for columns in range(width + 1)])
    return np.asarray(full * each[width] + each[rest])


def _fire_cycles(columns: int, target: Target) -> int:
    """Cycles from one fire of a crossbar to the next: its conversions, or the array's own pace."""
    if not columns:
        return 0
    convert = -(-columns // target.adc.per_crossbar) * target.adc.conversion_cycles
    if target.ou.pipelined:
        return max(target.ou.min_issue_cycles, convert)
    return max(target.ou.min_issue_cycles, target.ou.fixed_latency_cycles + convert)


def _busiest(blocks: BlockMatrix, target: Target, table: RouteTable) -> float:
    """Cycles of the busiest crossbar per window.

    It steps through the entries of its route tables, one a cycle, beside the ADC: the slower of
    the two counts. A group's entries are shared out over its spans by their columns.
    """
    spans, bits = blocks.spans, target.inputs.bits
    if not len(spans.group):
        return 0.0
    columns = np.diff(blocks.column_start)
    fires = np.bincount(spans.crossbar, span_cycles(spans.count, target) * bits)
    share = table.cycles[spans.group] * (spans.count / columns[spans.group])
    per_bit = target.accumulation.routing == "per-bit"
    entries = np.bincount(spans.crossbar, share * (bits if per_bit else 1))
    return float(np.maximum(fires, entries).max())


def _time_on(
    blocks: BlockMatrix, windows: int, target: Target, table: RouteTable, crossbars: int
) -> float:
    """Time on a number of crossbars: the best of fewer, widely spread and more, dense copies."""
    needed = packed_spans(blocks, target)
    least = int(needed.crossbar.max(initial=-1)) + 1
    if not least:
        return 0.0
    most = max(1, min(windows, crossbars // least))
    counts = {1, most} | {1 << step for step in range(most.bit_length())} | {most * 3 // 4}
    counts |= set(range(1, min(most, 12) + 1))
    best = np.inf
    for copies in counts - {0}:
        each = max(least, crossbars // copies)
        placed = replace(blocks, spans=packed_spans(blocks, target, each))
        turns = -(-windows // copies)
        best = min(best, turns * _busiest(placed, target, table) * target.cycle_ns)
    return best
