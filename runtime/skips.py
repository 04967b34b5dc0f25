"""What a run on a target that skips zero inputs has spared, as times and prices take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isa.catalog import Mvm
from isa.matrix import Int64
from isa.program import Program
from isa.target import Target
from runtime.core_view import CoreView
from runtime.durations import spared_cycles
from runtime.input_zeros import InputZeros, Spared, counts_by_layer


@dataclass(frozen=True, eq=False)
class Skips:
    """What the run of ``images`` images has spared.

    layers: totals, by layer. cycles: of every window on the busiest crossbar, by (core, matrix)
    and by the first window of an mvm within its image; int64 [images, windows].
    """

    images: int
    layers: Mapping[str, Spared]
    cycles: Mapping[tuple[int, str], Mapping[int, Int64]]

    def spared_cycles(self, view: CoreView, i: Mvm, first_window: int) -> tuple[int, ...]:
        """By how many cycles an executed mvm was shorter, by image."""
        cycles = self.cycles[view.core.index, i.matrix][first_window]
        return tuple(spared_cycles(view, i, cycles).tolist())


def skips_of(
    program: Program, target: Target, crossbars: Mapping[int, Mapping[str, InputZeros]]
) -> Skips | None:
    """What has been spared since ``crossbars`` were made; None where the target skips nothing."""
    if target.inputs.skip == "none":
        return None
    counts = counts_by_layer(program, crossbars)
    layers = {name: found.spared(target.inputs.skip) for name, found in counts.items()}
    cycles = {
        (core, name): {first: np.concatenate(parts) for first, parts in found.cycles.items()}
        for core, matrices in crossbars.items()
        for name, found in matrices.items()
    }
    images = {len(times) for found in cycles.values() for times in found.values()}
    assert len(images) <= 1, "every mvm has seen every image"
    return Skips(images.pop() if images else 1, layers, cycles)
