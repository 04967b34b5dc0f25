"""Pattern search: choose the shapes of kernels by the output error they leave, not by magnitude.

Block coordinate descent on the layer's least-squares problem: one group of input channels at a
time, all outputs at once, every candidate shape solved exactly while the other groups stand. The
gain of a shape is b^T (X^T X)^-1 b on its positions, the block form of the score of Optimal Brain
Surgeon; a dictionary is filled greedily with the shapes that add the most gain over all outputs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from passes.compensate import Floats, Statistics, damping, solve
from passes.pattern_prune import (
    Patterns,
    Pruned,
    Weights,
    frequent_patterns,
    group_scores,
    largest,
    mask_of,
)

MAX_CANDIDATES = 126  # all shapes of 4 of 9; of larger kernels the most frequent natural ones


def search_patterns(
    statistics: Statistics,
    weights: Weights,
    keep: int,
    group: int = 1,
    patterns: int = 8,
    sweeps: int = 3,
    shared: Patterns | None = None,
) -> Pruned:
    """Shapes with a small output error for one layer without convolution groups.

    weights: float [O, C, kernel rows, kernel columns]; C must be a multiple of ``group``.
    shared: a global dictionary to choose from; without it each group gets its own.
    The weights of the result are the given ones under the mask: solve afterwards.
    """
    outputs, channels, kernel_rows, kernel_columns = weights.shape
    positions = kernel_rows * kernel_columns
    groups = channels // group
    scores = group_scores(weights, group).reshape(-1, positions)
    every = frequent_patterns(largest(scores, keep), MAX_CANDIDATES) if shared is None else shared
    values = _dense_solution(statistics)
    wanted = statistics.right_side()[0]
    squares = statistics.squares[0] + np.diag(damping(statistics.squares[0], 1e-4))
    choice = np.zeros((outputs, groups), np.int32)
    dictionaries = np.zeros((groups, min(patterns, len(every)), positions), np.bool_)
    for sweep in range(sweeps):
        for index in range(groups):
            rows = np.arange(index * group * positions, (index + 1) * group * positions)
            block = squares[np.ix_(rows, rows)]
            right = wanted[:, rows] - values @ squares[:, rows] + values[:, rows] @ block
            if sweep == 0:
                gains, _ = _gains(block, right, np.tile(every, group))
                dictionaries[index] = every[_best_set(gains, dictionaries.shape[1])]
            gains, solutions = _gains(block, right, np.tile(dictionaries[index], group))
            choice[:, index] = gains.argmax(axis=1)
            values[:, rows] = solutions[choice[:, index], np.arange(outputs)]
        values[:, -1] += (wanted[:, -1] - values @ squares[:, -1]) / squares[-1, -1]
    mask = mask_of(dictionaries, choice, channels, group, weights.shape[2:])
    return Pruned(weights * mask, mask, dictionaries, choice)


def _dense_solution(statistics: Statistics) -> Floats:
    """The best weights [O, K + 1] while every position may hold one."""
    full = np.ones_like(statistics.original, dtype=np.bool_)
    return np.asarray(solve(statistics, statistics.original, full)[0])


def _gains(block: Floats, right: Floats, shapes: Patterns) -> tuple[Floats, Floats]:
    """How much each shape lowers each output's squared error, and its best weights.

    block: [h, h]. right: [outputs, h]. shapes: bool [n, h]. Returns [outputs, n], [n, outputs, h].
    """
    both = shapes[:, :, None] & shapes[:, None, :]
    systems = np.where(both, block, 0.0) + (~shapes)[:, :, None] * np.eye(len(block))
    targets = np.where(shapes[:, :, None], right.T[None], 0.0)
    solved: Floats = np.asarray(np.linalg.solve(systems, targets), np.float64)
    solutions = solved.transpose(0, 2, 1)
    gains: Floats = np.einsum("noh,oh->on", solutions, right)
    return gains, solutions


def _best_set(gains: Floats, size: int) -> NDArray[np.intp]:
    """Greedily, the ``size`` columns whose row-wise best sums to the most."""
    best = np.zeros(len(gains))
    left = np.ones(gains.shape[1], np.bool_)
    chosen = np.zeros(size, np.intp)
    for place in range(size):
        total = np.maximum(gains, best[:, None]).sum(axis=0)
        chosen[place] = int(np.where(left, total, -np.inf).argmax())
        left[chosen[place]] = False
        best = np.maximum(best, gains[:, chosen[place]])
    return chosen
