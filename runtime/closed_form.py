"""Crossbars, fires, energy and time of a dense layer in closed form: what counts must agree with.

A layer of ``rows`` inputs and ``outputs`` outputs, one copy, full operation units, one bit of the
inputs at a time; its crossbars work side by side, the operation units of one in series.
Source: cost-models.md, section 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from isa.target import Target
from runtime.array_work import fire_cycles
from runtime.events import ONES_SHARE


@dataclass(frozen=True)
class DenseLayer:
    """rows: inputs of a window (channels times kernel). windows: output positions of an image."""

    rows: int
    outputs: int
    windows: int

    def groups(self, target: Target) -> int:
        """Row groups."""
        return -(-self.rows // target.ou.rows)

    def units_across(self, target: Target) -> int:
        """Operation units side by side in a row group."""
        planes = -(-target.weights.bits // target.crossbar.cell_bits)
        return -(-self.outputs * planes // target.ou.columns)

    def crossbars(self, target: Target) -> int:
        down = -(-self.groups(target) // target.row_slots)
        return down * -(-self.units_across(target) // target.column_slots)

    def fires(self, target: Target) -> int:
        """Operation units fired for an image."""
        steps = self.windows * target.inputs.bits
        return steps * self.groups(target) * self.units_across(target)

    def core_energy_pj(self, target: Target) -> float:
        """Energy of all fires of an image, without moving inputs and outputs."""
        return self.fires(target) * fire_energy_pj(target)

    def cycles(self, target: Target) -> int:
        """Cycles of an image on the busiest crossbar."""
        in_series = min(target.row_slots, self.groups(target))
        in_series *= min(target.column_slots, self.units_across(target))
        steps = self.windows * target.inputs.bits
        return steps * in_series * fire_cycles(target.ou.columns, target)


def fire_energy_pj(target: Target) -> float:
    """Energy of one full operation unit: drivers, row selection, array, conversions, shift-add.

    Half of the input bits are ones and half of the cells conduct. The sample-and-hold, 0.02 %
    of a 9x8 fire, is left out as in the table of section 7.1.
    """
    events, ou = target.events, target.ou
    cells = ou.rows * ou.columns * ONES_SHARE / 2
    array = cells * (events.cell_read_lrs.energy_pj + events.cell_read_hrs.energy_pj)
    rows = ou.rows * (events.word_line_drive.energy_pj + events.row_select.energy_pj)
    columns = ou.columns * (target.adc_energy_pj + events.shift_add.energy_pj)
    return rows + array + columns
