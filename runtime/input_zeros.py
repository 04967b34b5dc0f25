"""What zero inputs spare: operation units of a real run whose inputs are zero, counted.

An operation unit whose word lines all carry 0 adds nothing, so that skipping it is exact. `group`
skips it where all its inputs are zero, `group-bit` input bit by input bit; a target says which
it does. What counts is ``u``, the bytes that reach the word lines (see ``isa.catalog.Mvm``): an s8
value of -128 is a zero there. Routes are taken whether fires are skipped or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64
from isa.program import Program
from isa.target import Target
from isa.target_model import Skip
from runtime.analog import Place
from runtime.array_work import ArrayWork, fire_cycles
from runtime.crossbar import INPUT_BITS, Int32, UInt8
from runtime.kernel import Kernel, choose_kernel
from runtime.paths import Crossbars

_PIECE_BYTES = 1 << 22  # selected inputs looked at together
ALL_BITS = (1 << INPUT_BITS) - 1
FIRST = Place()


@dataclass
class Spared:
    """Totals of one way to skip.

    lines_skipped: word lines not driven. crossbar_cycles: of the busiest crossbar, over windows.
    """

    fires_skipped: int = 0
    conversions_skipped: int = 0
    lines_skipped: int = 0
    crossbar_cycles: int = 0

    def add(self, other: Spared) -> None:
        for item in fields(self):
            value = getattr(self, item.name) + getattr(other, item.name)
            setattr(self, item.name, value)


@dataclass
class ZeroCounts:
    """What a layer's inputs were like, over all its windows and matrices.

    fires, crossbar_cycles: without skips. one_bits of driven_bits: both counted per stored column.
    """

    fires: int = 0
    crossbar_cycles: int = 0
    one_bits: int = 0
    driven_bits: int = 0
    group: Spared = field(default_factory=Spared)
    group_bit: Spared = field(default_factory=Spared)

    @property
    def ones(self) -> float:
        """Share of one bits among the input bits that drive cells."""
        return self.one_bits / self.driven_bits if self.driven_bits else 0.0

    def add(self, other: ZeroCounts) -> None:
        self.fires += other.fires
        self.crossbar_cycles += other.crossbar_cycles
        self.one_bits += other.one_bits
        self.driven_bits += other.driven_bits
        self.group.add(other.group)
        self.group_bit.add(other.group_bit)

    def spared(self, skip: Skip) -> Spared:
        """What one way to skip spares."""
        return {"none": Spared(), "group": self.group, "group-bit": self.group_bit}[skip]

    def as_json(self) -> dict[str, object]:
        """Counts, and shares of all fires."""
        return {
            "fires": self.fires,
            "crossbar_cycles": self.crossbar_cycles,
            "one_bits_share": self.ones,
            "group": self._as_json(self.group),
            "group-bit": self._as_json(self.group_bit),
        }

    def _as_json(self, spared: Spared) -> dict[str, object]:
        share = spared.fires_skipped / self.fires if self.fires else 0.0
        return {
            "fires_skipped": spared.fires_skipped,
            "share": share,
            "conversions_skipped": spared.conversions_skipped,
            "word_lines_skipped": spared.lines_skipped,
            "crossbar_cycles": spared.crossbar_cycles,
        }


class InputZeros:
    """An exact matrix that counts the zeros among its inputs; values and path are `Crossbars`'s.

    cycles: where ``keeps_times`` and the target skips, those of each window on the busiest
    crossbar, by the first window of a product within its image; [images, windows], in order.
    """

    def __init__(
        self,
        blocks: BlockMatrix,
        target: Target,
        kernel: Kernel,
        name: str,
        keeps_times: bool = False,
    ) -> None:
        self._exact = Crossbars(blocks, target.adc_max, kernel, name)
        self.path = self._exact.path
        self.counts = ZeroCounts()
        self.cycles: dict[int, list[Int64]] = {}
        self._skip = target.inputs.skip
        self._keeps_times = keeps_times and self._skip != "none"
        self._lines = blocks.rows
        self._used_lines: Int64 = (blocks.rows >= 0).sum(axis=1, dtype=np.int64)
        self._columns: Int64 = np.diff(blocks.column_start).astype(np.int64)
        self._units, self._cycles = _work_of_groups(blocks, target)
        work = ArrayWork(blocks, target)
        self._full_cycles, self._route_cycles = work.window_cycles, work.route_cycles
        self._routes_per_bit = target.accumulation.routing == "per-bit"

    def multiply(self, u: UInt8, out: Int32, place: Place = FIRST) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; return the saturations.

        place: which windows of which images these are.
        """
        step = max(1, _PIECE_BYTES // max(1, self._lines.size))
        found = [self._count(u[first : first + step]) for first in range(0, len(u), step)]
        if self._keeps_times:
            times = np.concatenate(found).reshape(-1, place.windows)
            self.cycles.setdefault(place.window, []).append(times)
        return self._exact.multiply(u, out)

    def _count(self, u: UInt8) -> Int64:
        """Add some windows to the counts; cycles of each with the target's skips."""
        unused = np.zeros((len(u), 1), np.uint8)  # where a selector is -1: no word line, no bit
        driven = np.concatenate([u, unused], axis=1)[:, self._lines]
        ones = np.bitwise_count(driven).sum(axis=(0, 2), dtype=np.int64)
        planes = np.bitwise_or.reduce(driven, axis=2)  # [windows, groups]
        counts, bits = self.counts, INPUT_BITS * len(u)
        counts.fires += bits * int(self._units.sum())
        counts.crossbar_cycles += len(u) * self._full_cycles
        counts.one_bits += int(ones @ self._columns)
        counts.driven_bits += bits * int(self._used_lines @ self._columns)
        times = {
            "group": self._spare(np.where(planes > 0, ALL_BITS, 0), counts.group),
            "group-bit": self._spare(planes, counts.group_bit),
        }
        return times.get(self._skip, np.zeros(0, np.int64))

    def _spare(self, fired: NDArray[np.integer], spared: Spared) -> Int64:
        """Add to ``spared``; return the cycles of each window.

        fired: one bit for each input bit with which a group fires, [windows, groups].
        """
        counts = np.bitwise_count(fired).astype(np.int64)
        idle = (INPUT_BITS - counts).sum(axis=0)
        if self._routes_per_bit:
            steps = (fired[:, None] >> np.arange(INPUT_BITS)[:, None]) & 1
        else:
            steps = counts[:, None]
        cycles = steps.astype(np.float64) @ self._cycles  # exact: far below 2^53
        cycles = np.maximum(cycles, self._route_cycles).sum(axis=1)
        times: Int64 = cycles.max(axis=1, initial=0).astype(np.int64)
        lines = self._units * self._used_lines
        fires, conversions, lines_skipped = (
            int(idle @ each) for each in (self._units, self._columns, lines)
        )
        spared.add(Spared(fires, conversions, lines_skipped, int(times.sum())))
        return times


def _work_of_groups(blocks: BlockMatrix, target: Target) -> tuple[Int64, NDArray[np.float64]]:
    """Operation units of every group, and its cycles per input bit, [groups, crossbars]."""
    spans, width = blocks.spans, target.ou.columns
    full, rest = np.divmod(spans.count, width)
    units: Int64 = np.zeros(blocks.groups, np.int64)
    np.add.at(units, spans.group, full + (rest > 0))
    per_width = np.array([0, *(fire_cycles(columns, target) for columns in range(1, width + 1))])
    cycles = np.zeros((blocks.groups, int(spans.crossbar.max(initial=-1)) + 1))
    np.add.at(cycles, (spans.group, spans.crossbar), full * per_width[-1] + per_width[rest])
    return units, cycles


def counting_crossbars(
    program: Program, target: Target, keeps_times: bool = False
) -> dict[int, dict[str, InputZeros]]:
    """Every matrix as one that counts: core -> matrix name. Raises PimError R720."""
    kernel = choose_kernel()
    return {
        core.index: {
            m.name: InputZeros(m.blocks, target, kernel, m.name, keeps_times) for m in core.matrices
        }
        for core in program.cores
    }


def fires_skipped(
    program: Program, target: Target, crossbars: Mapping[int, Mapping[str, object]]
) -> dict[str, int]:
    """Fires that the target has skipped in all runs so far, by layer; none of other crossbars."""
    layers: dict[str, int] = {}
    for core in program.cores:
        for matrix in core.matrices:
            found = crossbars[core.index][matrix.name]
            if isinstance(found, InputZeros):
                count = found.counts.spared(target.inputs.skip).fires_skipped
                layers[matrix.layer] = layers.get(matrix.layer, 0) + count
    return layers


def counts_by_layer(
    program: Program, crossbars: Mapping[int, Mapping[str, InputZeros]]
) -> dict[str, ZeroCounts]:
    """The counts of all runs so far, by layer."""
    layers: dict[str, ZeroCounts] = {}
    for core in program.cores:
        for matrix in core.matrices:
            found = crossbars[core.index][matrix.name].counts
            layers.setdefault(matrix.layer, ZeroCounts()).add(found)
    return layers
