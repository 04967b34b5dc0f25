"""What an ADC gets to see: the sums of all conversions, counted by value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, fold
from isa.program import Program
from runtime.crossbar import Int32, UInt8, bit_sums, exact_pieces, linear_product


class SumHistogram:
    """An exact matrix that counts the sums of its conversions. path: "observed".

    histogram: conversions by sum, int64 [largest sum + 1].
    """

    def __init__(self, blocks: BlockMatrix) -> None:
        self.path = "observed"
        self._blocks = blocks
        self._pieces = list(exact_pieces(fold(blocks)))
        largest = int(blocks.largest_sums().max(initial=0))
        self.histogram: NDArray[np.int64] = np.zeros(largest + 1, np.int64)

    def multiply(self, u: UInt8, out: Int32) -> int:
        """Write ``u`` [windows, inputs] times the matrix to ``out``; nothing saturates."""
        linear_product(u, self._pieces, out)
        size = len(self.histogram)
        for group in range(self._blocks.groups):
            for sums in bit_sums(u, self._blocks, group):
                self.histogram += np.bincount(sums.ravel(), minlength=size)
        return 0

    def full_scale(self, percentile: float) -> float:
        """The sum that ``percentile`` percent of all conversions do not exceed; at least 1."""
        below = np.cumsum(self.histogram)
        rank = np.ceil(percentile / 100 * below[-1])
        return max(1.0, float(np.searchsorted(below, max(rank, 1.0))))


def histograms(program: Program) -> dict[int, dict[str, SumHistogram]]:
    """Every matrix as one that counts: core -> matrix name -> histogram."""
    return {
        core.index: {m.name: SumHistogram(m.blocks) for m in core.matrices}
        for core in program.cores
    }
