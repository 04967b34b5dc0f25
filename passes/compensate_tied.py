"""Compensation under a translation: re-solve the stored patterns with all that depends on them.

A stored pattern y serves outputs o with factors a_o (scale of the channel times 2**-shift), so the
layer's squared error is a quadratic in y with the closed minimum
``y = R^-1 sum_o a_o b_o / sum_o a_o**2``, R the squares of the group's inputs and b_o what the
other groups leave for output o. One group at a time, rounding to the integer grid at once, so
that later groups make up for the rounding too; a step that does not lower the error is not taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from passes.compensate import Floats, Statistics, damping
from passes.translation import LARGEST, ZERO, Translation, from_patterns, to_patterns

IntWeights = NDArray[np.int16]


def refit_translated(
    statistics: Statistics,
    weights: IntWeights,
    mask: NDArray[np.bool_],
    bias: Floats,
    scale: NDArray[np.float32],
    translation: Translation,
    sweeps: int = 3,
    ridge: float = 1e-3,
) -> tuple[IntWeights, Floats]:
    """Integer weights and bias with a smaller output error that obey ``translation``.

    weights: [O, C, rows, columns] as `Translation.apply` returns them; a layer without groups.
    mask: where weights may stand, same shape; a follower's positions are its source's.
    bias: [O], real. scale: [O], real value of a weight step.
    """
    patterns = to_patterns(weights, translation.group).astype(np.int64)
    supports = to_patterns(mask, translation.group)
    groups, outputs, size = patterns.shape
    columns = statistics.squares.shape[1] - 1
    wanted, squares = statistics.right_side()[0], statistics.squares[0]
    values = np.concatenate(
        [weights.reshape(outputs, -1) * scale[:, None].astype(np.float64), bias[:, None]], axis=1
    )
    step = 1 << translation.alignment()
    for _ in range(sweeps):
        for index in range(groups):
            rows = np.arange(index * size, min((index + 1) * size, columns))
            block = squares[np.ix_(rows, rows)]
            right = wanted[:, rows] - values @ squares[:, rows] + values[:, rows] @ block
            group = _Group(block, right, scale, translation.source[index], translation.shift[index])
            known = patterns[index][:, : len(rows)]
            support = supports[index][:, : len(rows)]
            solved = group.improve(known, support, step[index], ridge)
            patterns[index][:, : len(rows)] = solved
            values[:, rows] = solved * scale[:, None]
        left = wanted[:, -1] - values @ squares[:, -1]
        values[:, -1] += left / max(float(squares[-1, -1]), 1.0)
    return from_patterns(patterns, weights.shape).astype(np.int16), values[:, -1].copy()


class _Group:
    """The quadratic of one group of inputs: block [h, h], right [O, h], factors of followers."""

    def __init__(
        self,
        block: Floats,
        right: Floats,
        scale: NDArray[np.float32],
        source: NDArray[np.int32],
        shift: NDArray[np.int8],
    ) -> None:
        self.block, self.source, self.shift = block, source, shift
        followers = np.flatnonzero(source != ZERO)
        factor = scale[followers].astype(np.float64) * np.exp2(-shift[followers].astype(np.float64))
        self.pull = np.zeros_like(right)  # sum over followers of a_o * b_o, by source
        np.add.at(self.pull, source[followers], factor[:, None] * right[followers])
        self.weight = np.zeros(len(source))  # sum of a_o**2, by source
        np.add.at(self.weight, source[followers], factor**2)

    def improve(
        self,
        patterns: NDArray[np.int64],
        support: NDArray[np.bool_],
        step: NDArray[np.int64],
        ridge: float,
    ) -> NDArray[np.int64]:
        """Patterns [O, h] in integers, each stored one no worse than before."""
        stored = np.flatnonzero(self.weight > 0)
        old = patterns[stored].astype(np.float64)
        weight = self.weight[stored, None]
        slope = self.pull[stored] / weight - old @ self.block
        new = old + self._solve(support[stored], slope, ridge)
        unit = step[stored, None]
        limit = LARGEST // unit
        rounded = np.clip(np.rint(new / unit), -limit, limit) * unit
        moved = rounded - old
        # error(old + moved) - error(old), over the weight
        rise = ((moved @ self.block) * moved).sum(axis=1) - 2.0 * (moved * slope).sum(axis=1)
        result = patterns.copy()
        result[stored] = np.where((rise < 0)[:, None], rounded, old).astype(np.int64)
        follows = self.source != ZERO
        result[follows] = result[self.source[follows]] >> self.shift[follows, None]
        return result

    def _solve(self, support: NDArray[np.bool_], slope: Floats, ridge: float) -> Floats:
        """The step of each pattern on its support; equal supports share a factorization."""
        moved = np.zeros_like(slope)
        added = damping(self.block, ridge)
        shapes, members = np.unique(support, axis=0, return_inverse=True)
        for number, shape in enumerate(shapes):
            kept, rows = np.flatnonzero(shape), np.flatnonzero(members.ravel() == number)
            if kept.size:
                system = self.block[np.ix_(kept, kept)] + np.diag(added[kept])
                moved[np.ix_(rows, kept)] = np.linalg.solve(system, slope[np.ix_(rows, kept)].T).T
        return moved
