"""Similar translation: patterns become a power of two times a stored one (PRAP-PIM, 2023).

PRAP-PIM computes on int8 weights with eight more fraction bits. Here weights stay int8: stored
patterns are rounded so that their followers' shifts are exact (`Translation.apply`), and shifts
are limited, because a pattern below 1/8 of its source is well replaced by zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes.base import Pass
from passes.translation import ZERO, Translation, Weights, from_patterns, to_patterns


@dataclass(frozen=True)
class TranslateSimilar(Pass[Weights, Translation]):
    """Keep the largest patterns of each group; each other one becomes a shifted copy, or zero.

    Before -> after: 8,-4,0 and 5,-2,1 in one group -> 8,-4,0 and 4,-2,0 (the first, shifted by 1).
    Exact: no. Bounded only by the data: compensate afterwards and report what it cost.

    keep: fraction of the outputs whose patterns are stored. group: input channels of a pattern.
    joint: a follower takes over the shape of its source, too (needs the unpruned weights).
    """

    name = "translate-similar"
    exact = False
    keep: float = 0.25
    group: int = 1
    joint: bool = False
    max_shift: int = 3

    def run(self, unit: Weights, full: Weights | None = None) -> Translation:
        """The table of one layer's integer weights. full: the weights before pruning."""
        before = (unit if full is None else full) if self.joint else None
        return translate_similar(unit, self.keep, self.group, before, self.max_shift)


def translate_similar(
    weights: Weights,
    keep: float,
    group: int = 1,
    full: Weights | None = None,
    max_shift: int = 3,
) -> Translation:
    """For each pattern below rank floor(outputs * keep) of L1 norm, the nearest shifted stored one.

    The shift is the rounded log2 of the ratio of L1 norms, 0..max_shift; the error is the L1
    distance, against the L1 norm itself for the zero pattern. full: weights before pruning, for
    the joint form: a follower is masked by its source's shape before it is compared.
    """
    patterns = to_patterns(weights, group).astype(np.float32)
    before = None if full is None else to_patterns(full, group).astype(np.float32)
    groups, outputs, _ = patterns.shape
    stored_count = max(1, int(outputs * keep))
    source = np.empty((groups, outputs), np.int32)
    shift = np.zeros((groups, outputs), np.int8)
    for index in range(groups):
        own = patterns[index]
        norms = np.abs(own).sum(axis=1)
        order = np.argsort(-norms, kind="stable")
        stored, others = order[:stored_count], order[stored_count:]
        source[index, stored] = np.where(norms[stored] > 0, stored, ZERO)
        free = own[others] if before is None else before[index][others]
        chosen, shifts, error = _nearest(own[stored], free, before is not None, max_shift)
        to_zero = norms[others] <= error
        source[index, others] = np.where(to_zero, ZERO, stored[chosen])
        shift[index, others] = np.where(to_zero, 0, shifts)
    return Translation(source, shift, group)


def _nearest(
    stored: NDArray[np.float32], others: NDArray[np.float32], joint: bool, max_shift: int
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
    """Of each other pattern: the best stored one, its shift, the L1 distance. [others] each."""
    candidates = np.broadcast_to(others[:, None], (len(others), *stored.shape))
    if joint:
        candidates = candidates * (stored != 0)
    size = np.abs(candidates).sum(axis=2)
    stored_size = np.abs(stored).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = -np.rint(np.log2(size / stored_size))
    shifts = np.clip(np.nan_to_num(exponent, nan=0.0), 0, max_shift).astype(np.int64)
    scaled = stored * np.exp2(-shifts)[:, :, None].astype(np.float32)
    error = np.abs(scaled - candidates).sum(axis=2)
    error[:, stored_size == 0] = np.inf
    chosen = error.argmin(axis=1)
    every = np.arange(len(others))
    return chosen, shifts[every, chosen], error[every, chosen]


def shape_after(mask: NDArray[np.bool_], translation: Translation) -> NDArray[np.bool_]:
    """The joint form's mask: a follower has the shape of its source. [O, C, rows, columns]."""
    shapes = to_patterns(mask, translation.group)
    index = np.maximum(translation.source, 0)[:, :, None].astype(np.int64)
    moved = np.take_along_axis(shapes, index, axis=1)
    moved[translation.source == ZERO] = False
    return from_patterns(moved, mask.shape)
