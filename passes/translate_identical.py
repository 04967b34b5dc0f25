"""Identical translation: patterns that nearly equal another one become it (PattPIM, DAC 2020).

The procedure is that of PRAP-PIM's re-implementation (authors' code, 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes.base import Pass
from passes.translation import ZERO, Translation, Weights, to_patterns

_CHUNK_BYTES = 1 << 25  # of distances between patterns held at a time


@dataclass(frozen=True)
class TranslateIdentical(Pass[Weights, Translation]):
    """Replace patterns by stored ones at a distance below a threshold.

    Before -> after: outputs 3 and 7 hold 5,0,-2 and 5,1,-2 in one group -> both hold 5,0,-2.
    Exact: no, unless the threshold is zero (``threshold=1``: only equal patterns merge).

    threshold: the fraction t; the largest L1 distance allowed in a group is the L1 norm of its
    pattern at rank floor(outputs * t), largest first. group: input channels of a pattern.
    """

    name = "translate-identical"
    exact = False
    threshold: float = 0.5
    group: int = 1

    def run(self, unit: Weights) -> Translation:
        """The table of one layer's integer weights; apply it to get the new ones."""
        return translate_identical(unit, self.threshold, self.group)


def translate_identical(weights: Weights, threshold: float, group: int = 1) -> Translation:
    """Greedy, from the largest L1 norm down: take the nearest stored pattern or be stored.

    The zero pattern is always there to be taken. Ranks are walked one by one, for all groups at a
    time; distances are L1, in weight steps.
    """
    patterns = to_patterns(weights, group).astype(np.float32)
    groups, outputs = patterns.shape[:2]
    source = np.empty((groups, outputs), np.int32)
    span = max(1, _CHUNK_BYTES // (4 * outputs * outputs))
    for first in range(0, groups, span):
        source[first : first + span] = _merge(patterns[first : first + span], threshold)
    return Translation(source, np.zeros((groups, outputs), np.int8), group)


def _merge(patterns: NDArray[np.float32], threshold: float) -> NDArray[np.int32]:
    groups, outputs, size = patterns.shape
    norms = np.abs(patterns).sum(axis=2)
    order = np.argsort(-norms, axis=1, kind="stable")
    ranked = np.take_along_axis(patterns, order[:, :, None], axis=1)
    rank_norms = np.take_along_axis(norms, order, axis=1)
    rank = int(outputs * threshold)
    limit = rank_norms[:, rank] if rank < outputs else np.zeros(groups, np.float32)
    distance = np.zeros((groups, outputs, outputs), np.float32)
    for element in range(size):
        column = ranked[:, :, element]
        distance += np.abs(column[:, :, None] - column[:, None, :])
    stored = np.full((groups, outputs), np.float32(np.inf))  # 0 where stored, else infinite
    chosen = np.empty((groups, outputs), np.int32)
    every = np.arange(groups)
    for place in range(outputs):
        to_stored = distance[:, place] + stored
        nearest = to_stored.argmin(axis=1)
        best = to_stored[every, nearest]
        to_zero = rank_norms[:, place]
        target = np.where(to_zero <= best, ZERO, nearest)
        # the largest pattern is stored whatever its norm, unless it is zero itself
        merges = (np.minimum(to_zero, best) <= limit) if place else to_zero == 0
        chosen[:, place] = np.where(merges, target, place)
        stored[~merges, place] = 0.0
    source = np.empty_like(chosen)
    named = np.where(chosen == ZERO, ZERO, np.take_along_axis(order, np.maximum(chosen, 0), 1))
    np.put_along_axis(source, order, named.astype(np.int32), axis=1)
    return source
