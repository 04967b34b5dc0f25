"""What zero inputs would spare: operation units of a real run whose inputs are zero, counted.

An operation unit whose word lines all carry 0 adds nothing, so that skipping it is exact. `group`
skips it where all its inputs are zero, `group-bit` input bit by input bit. What counts is ``u``,
the bytes that reach the word lines (see ``isa.catalog.Mvm``): an s8 value of -128 is a zero there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64
from isa.program import Program
from isa.target import Target
from runtime.array_work import fire_cycles
from runtime.crossbar import INPUT_BITS, Int32, UInt8
from runtime.kernel import Kernel, choose_kernel
from runtime.paths import Crossbars

_PIECE_BYTES = 1 << 22  # selected inputs looked at together


@dataclass
class Spared:
    """Totals of one way to skip. crossbar_cycles: fires of the busiest crossbar, over windows."""

    fires_skipped: int = 0
    conversions_skipped: int = 0
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
            "crossbar_cycles": spared.crossbar_cycles,
        }


class InputZeros:
    """An exact matrix that counts the zeros among its inputs; values and path are `Crossbars`'s."""

    def __init__(self, blocks: BlockMatrix, target: Target, kernel: Kernel, name: str) -> None:
        self._exact = Crossbars(blocks, target.adc_max, kernel, name)
        self.path = self._exact.path
        self.counts = ZeroCounts()
        self._lines = blocks.rows
        self._columns: Int64 = np.diff(blocks.column_start).astype(np.int64)
        self._units, self._cycles = _work_of_groups(blocks, target)

    def multiply(self, u: UInt8, out: Int32) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; return the saturations."""
        step = max(1, _PIECE_BYTES // max(1, self._lines.size))
        for first in range(0, len(u), step):
            self._count(u[first : first + step])
        return self._exact.multiply(u, out)

    def _count(self, u: UInt8) -> None:
        """Add some windows to the counts."""
        unused = np.zeros((len(u), 1), np.uint8)  # where a selector is -1: no word line, no bit
        driven = np.concatenate([u, unused], axis=1)[:, self._lines]
        ones = np.bitwise_count(driven).sum(axis=(0, 2), dtype=np.int64)
        planes = np.bitwise_count(np.bitwise_or.reduce(driven, axis=2))  # [windows, groups]
        lines = (self._lines >= 0).sum(axis=1, dtype=np.int64)
        counts, bits = self.counts, INPUT_BITS * len(u)
        counts.fires += bits * int(self._units.sum())
        counts.crossbar_cycles += bits * int(self._cycles.sum(axis=0).max(initial=0))
        counts.one_bits += int(ones @ self._columns)
        counts.driven_bits += bits * int(lines @ self._columns)
        counts.group.add(self._spared(np.where(planes > 0, INPUT_BITS, 0)))
        counts.group_bit.add(self._spared(planes))

    def _spared(self, fired: NDArray[np.integer]) -> Spared:
        """fired: input bits for which a group fires, [windows, groups]."""
        idle = (INPUT_BITS - fired.astype(np.int64)).sum(axis=0)
        cycles = fired.astype(np.float64) @ self._cycles  # exact: far below 2^53
        busiest = cycles.max(axis=1, initial=0).sum()
        return Spared(int(idle @ self._units), int(idle @ self._columns), int(busiest))


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


def counting_crossbars(program: Program, target: Target) -> dict[int, dict[str, InputZeros]]:
    """Every matrix as one that counts: core -> matrix name. Raises PimError R720."""
    kernel = choose_kernel()
    return {
        core.index: {m.name: InputZeros(m.blocks, target, kernel, m.name) for m in core.matrices}
        for core in program.cores
    }


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
