"""Prices of what a mapping does, derived from the events and components of a target."""

from __future__ import annotations

import re
from dataclasses import dataclass

from isa.target import Target
from isa.target_model import Event

_SIZE = re.compile(r"(\d+) (bits|bytes)\b")
ACTIVE_SHARE = 0.25  # half the cells are set, half the input bits: a static estimate of a read


@dataclass(frozen=True)
class Prices:
    """Energies in pJ, areas in um2.

    row: one driven and selected word line. cell: one cell of a fire, on average. conversion: one
    column sampled, converted and added with its input bit's shift. index_bit: read from a table.
    local_add: one shift-add in the registers behind the ADC. accumulate: one addition to an
    accumulator of an output, read and written. buffer_read_bit, buffer_write_bit: side buffer.
    crossbar_area: with its share of PE, core and router, index memory aside. bit_area: of an
    index table, 0 where the target has no index memory.
    """

    row: float
    cell: float
    conversion: float
    index_bit: float
    local_add: float
    accumulate: float
    buffer_read_bit: float
    buffer_write_bit: float
    crossbar_area: float
    bit_area: float


def prices(target: Target) -> Prices:
    """Prices on a target; prices of memories are per bit, whatever the width of an access."""
    e = target.events
    width = target.accumulation.bits
    return Prices(
        row=e.word_line_drive.energy_pj + e.row_select.energy_pj,
        cell=ACTIVE_SHARE * (e.cell_read_lrs.energy_pj + e.cell_read_hrs.energy_pj),
        conversion=e.sample_hold.energy_pj + target.adc_energy_pj + e.shift_add.energy_pj,
        index_bit=_per_bit(e.index_read, 1),
        local_add=e.shift_add.energy_pj,
        accumulate=e.shift_add.energy_pj
        + width * (_per_bit(e.output_read, width) + _per_bit(e.output_write, width)),
        buffer_read_bit=_per_bit(e.side_buffer_read, width),
        buffer_write_bit=_per_bit(e.side_buffer_write, width),
        crossbar_area=_crossbar_area(target),
        bit_area=_bit_area(target),
    )


def _per_bit(event: Event, width: int) -> float:
    """Energy of a bit, from an event such as "256 bits"; one event per ``width`` bits if unsaid."""
    size = _SIZE.search(event.per)
    bits = int(size[1]) * (8 if size[2] == "bytes" else 1) if size else width
    return event.energy_pj / bits


def _crossbar_area(target: Target) -> float:
    crossbar, h = target.crossbar, target.hierarchy
    per_core = 1.0 / target.crossbars_per_core
    parts_per_crossbar = {
        "cell": float(crossbar.rows * crossbar.columns),
        "row": float(crossbar.rows),
        "column": float(crossbar.columns),
        "crossbar": 1.0,
        "pe": 1.0 / h.crossbars_per_pe,
        "core": per_core,
        "router": per_core / h.concentration,
        "chip": 1.0 / target.crossbars,
    }
    area = target.adc.per_crossbar * target.adc_area_um2
    for name, component in target.components.items():
        if name != "index_memory":
            area += component.area_um2 * parts_per_crossbar[component.per]
    return area


def _bit_area(target: Target) -> float:
    memory = target.components.get("index_memory")
    bits = 8 * target.memory.index_bytes
    return memory.area_um2 / bits if memory is not None and bits else 0.0
