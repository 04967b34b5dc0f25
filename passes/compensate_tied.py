"""Compensation under a translation: re-solve the stored patterns with all that depends on them.

A stored pattern y serves outputs o with factors a_o (scale of the channel times 2**-shift), so the
layer's squared error is a quadratic in y with the closed minimum
``y = R^-1 sum_o a_o b_o / sum_o a_o**2``, R the squares of the group's inputs and b_o what the
other groups leave for output o. One group at a time: followers choose their source and shift anew
in the same metric (a vector quantizer whose distance is the output error), stored patterns are
solved and rounded to the integer grid at once, so that later groups make up for the rounding, too.
A step that does not lower the error is not taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from passes.compensate import Floats, Statistics, damping
from passes.translation import LARGEST, ZERO, Translation, to_patterns

IntWeights = NDArray[np.int16]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Refit:
    """Integer weights [O, C, rows, columns] that obey ``translation``, bias [O], and the mask of
    the positions that may hold a weight.
    """

    weights: IntWeights
    bias: Floats
    translation: Translation
    mask: Mask


def refit_translated(
    statistics: Statistics,
    start: Refit,
    scale: NDArray[np.float32],
    reassign: bool = True,
    max_shift: int = 0,
    sweeps: int = 3,
    ridge: float = 1e-3,
) -> Refit:
    """A refit of ``start`` with no larger output error; a layer without convolution groups.

    start: weights as `Translation.apply` returns them; a follower's positions are its source's.
    scale: [O], real value of a weight step. reassign: followers may choose another source, with
    shifts 0..max_shift; which patterns are stored stays as it is.
    """
    outputs = len(start.weights)
    columns = statistics.squares.shape[1] - 1
    wanted, squares = statistics.right_side()[0], statistics.squares[0]
    step = scale[:, None].astype(np.float64)
    real = start.weights.reshape(outputs, -1) * step
    values = np.concatenate([real, start.bias[:, None]], axis=1)
    tables = _tables(start, columns)
    size = tables[0].patterns.shape[1]
    for _ in range(sweeps):
        for index, old in enumerate(tables):
            rows = np.arange(index * size, min((index + 1) * size, columns))
            quadratic = _quadratic(squares, wanted, values, rows, scale, ridge)
            tables[index] = quadratic.improve(old, reassign, max_shift)
            values[:, rows] = tables[index].patterns * step
        left = wanted[:, -1] - values @ squares[:, -1]
        values[:, -1] += left / max(float(squares[-1, -1]), 1.0)
    weights = np.concatenate([table.patterns for table in tables], axis=1)
    source = np.stack([table.source for table in tables])
    shift = np.stack([table.shift for table in tables])
    return Refit(
        weights.astype(np.int16).reshape(start.weights.shape),
        values[:, -1].copy(),
        Translation(source, shift, start.translation.group),
        np.concatenate([table.mask for table in tables], axis=1).reshape(start.mask.shape),
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """One group of inputs: integer patterns and mask [O, h], source and shift [O]."""

    patterns: NDArray[np.int64]
    mask: Mask
    source: NDArray[np.int32]
    shift: NDArray[np.int8]

    @property
    def stored(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.source == np.arange(len(self.source)))


def _tables(start: Refit, columns: int) -> list[_Table]:
    """One table per group; the last one may be narrower, where channels do not fill it."""
    patterns = to_patterns(start.weights, start.translation.group).astype(np.int64)
    masks = to_patterns(start.mask, start.translation.group)
    size = patterns.shape[2]
    parts = zip(patterns, masks, start.translation.source, start.translation.shift, strict=True)
    return [
        _Table(values[:, : columns - i * size], mask[:, : columns - i * size], source, shift)
        for i, (values, mask, source, shift) in enumerate(parts)
    ]


@dataclass(frozen=True, eq=False)
class _Quadratic:
    """The squared error of one group: sum over outputs of w R w - 2 w b, w in real units.

    block: R [h, h]. right: b [O, h]. scale: [O].
    """

    block: Floats
    right: Floats
    scale: Floats
    ridge: float

    def improve(self, old: _Table, reassign: bool, max_shift: int) -> _Table:
        """The best of ``old``, the same table solved anew, and another table solved anew."""
        tables = [old, self._solved(old)]
        if reassign and old.stored.size:
            tables.append(self._solved(self._reassigned(old, max_shift)))
        return min(tables, key=self._cost)

    def _cost(self, table: _Table) -> float:
        real = table.patterns * self.scale[:, None]
        return float((real * (real @ self.block - 2.0 * self.right)).sum())

    def _reassigned(self, old: _Table, max_shift: int) -> _Table:
        """Every follower takes the stored pattern and shift, or zero, that cost its output least.

        Stored patterns stay as they are: the table is consistent again after `_solved`.
        """
        stored = old.stored
        others = np.setdiff1d(np.arange(len(old.source)), stored)
        values = old.patterns[stored].astype(np.float64)
        own = ((values @ self.block) * values).sum(axis=1)
        cross = self.right[others] @ values.T
        factor = self.scale[others, None] * np.exp2(-np.arange(max_shift + 1.0))
        cost = factor[:, :, None] ** 2 * own - 2.0 * factor[:, :, None] * cross[:, None]
        best = cost.reshape(len(others), -1).argmin(axis=1)
        is_zero = cost.reshape(len(others), -1).min(axis=1, initial=np.inf) >= 0
        source, shift = old.source.copy(), old.shift.copy()
        source[others] = np.where(is_zero, ZERO, stored[best % len(stored)])
        shift[others] = np.where(is_zero, 0, best // len(stored))
        mask = old.mask[np.maximum(source, 0)] & (source != ZERO)[:, None]
        return _Table(old.patterns, mask, source, shift)

    def _solved(self, table: _Table) -> _Table:
        """Stored patterns at their minimum, on the grid that their followers' shifts need."""
        stored, source = table.stored, table.source
        follows = np.flatnonzero(source != ZERO)
        shift = table.shift[follows].astype(np.int64)
        factor = self.scale[follows] * np.exp2(-shift.astype(np.float64))
        pull, weight = np.zeros_like(self.right), np.zeros(len(source))
        np.add.at(pull, source[follows], factor[:, None] * self.right[follows])
        np.add.at(weight, source[follows], factor**2)
        align = np.zeros(len(source), np.int64)
        np.maximum.at(align, source[follows], shift)
        old = table.patterns[stored].astype(np.float64)
        slope = pull[stored] / weight[stored, None] - old @ self.block
        unit = 1 << align[stored, None]
        limit = LARGEST // unit
        new = (old + self._step(table.mask[stored], slope)) / unit
        result = np.zeros_like(table.patterns)
        result[stored] = np.clip(np.rint(new), -limit, limit).astype(np.int64) * unit
        result[follows] = result[source[follows]] >> shift[:, None]
        return _Table(result, table.mask, source, table.shift)

    def _step(self, support: Mask, slope: Floats) -> Floats:
        """The way to each minimum on its support; equal supports share a factorization."""
        moved = np.zeros_like(slope)
        added = damping(self.block, self.ridge)
        shapes, members = np.unique(support, axis=0, return_inverse=True)
        for number, shape in enumerate(shapes):
            kept, rows = np.flatnonzero(shape), np.flatnonzero(members.ravel() == number)
            if kept.size:
                system = self.block[np.ix_(kept, kept)] + np.diag(added[kept])
                moved[np.ix_(rows, kept)] = np.linalg.solve(system, slope[np.ix_(rows, kept)].T).T
        return moved


def _quadratic(
    squares: Floats,
    wanted: Floats,
    values: Floats,
    rows: NDArray[np.intp],
    scale: NDArray[np.float32],
    ridge: float,
) -> _Quadratic:
    """The error as a function of the weights of ``rows`` alone; all others stand."""
    block = squares[np.ix_(rows, rows)]
    right = wanted[:, rows] - values @ squares[:, rows] + values[:, rows] @ block
    return _Quadratic(block, right, scale.astype(np.float64), ridge)
