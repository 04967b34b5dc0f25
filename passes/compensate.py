"""Compensation: re-solve the weights that pruning left, by least squares on the real inputs.

Layer by layer and in closed form: no gradient, no labels. The statistics of a layer are small
(K x K for K window elements), whatever the number of calibration images. Optimal Brain Surgeon
(Hassibi & Stork 1993) is the same solution for one removed weight; layer-wise reconstruction on
the inputs of the already compressed network is that of He et al., ICCV 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[Any]
_DEAD = 1e-9  # of the mean diagonal: keeps a system with inputs that never fire solvable


@dataclass(eq=False)
class Statistics:
    """What least squares needs to know of a layer's inputs X and of its target outputs.

    sections: convolution groups S (1 for most layers, the channels for a depthwise layer). The
    residual E is target - X @ original: what the original weights leave on the new inputs. It is
    zero up to rounding while no earlier layer has changed, so small errors keep their digits.

    original: [S, Og, K + 1], weights of each section with the bias last. squares: X^T X,
    [S, K + 1, K + 1]. products: X^T E, [S, K + 1, Og]. residual: sum of E**2, [S, Og].
    target: sum of target**2, [S, Og].
    """

    original: Floats
    squares: Floats
    products: Floats
    residual: Floats
    target: Floats
    samples: int = 0

    @classmethod
    def empty(cls, original: Floats) -> Statistics:
        """No samples yet. original: [S, Og, K + 1]."""
        sections, outputs, size = original.shape
        return cls(
            original,
            np.zeros((sections, size, size)),
            np.zeros((sections, size, outputs)),
            np.zeros((sections, outputs)),
            np.zeros((sections, outputs)),
        )

    def add(self, columns: Array, targets: Array) -> None:
        """Add windows. columns: [S, windows, K], without the ones; targets: [windows, S * Og]."""
        sections, windows, size = columns.shape
        wanted = targets.astype(np.float32).reshape(windows, sections, -1)
        joined = np.ones((windows, size + 1), np.float32)  # of a chunk; sums over chunks in 64 bits
        for section, part in enumerate(columns):  # plain 2-D products: BLAS takes the symmetry
            joined[:, :size] = part
            left = wanted[:, section] - joined @ self.original[section].T.astype(np.float32)
            self.squares[section] += joined.T @ joined
            self.products[section] += joined.T @ left
            self.residual[section] += (left.astype(np.float64) ** 2).sum(axis=0)
        self.target += (wanted.astype(np.float64) ** 2).sum(axis=0)
        self.samples += windows

    def squared_error(self, weights: Floats) -> Floats:
        """Sum of squared output errors, [S, Og], of ``weights`` [S, Og, K + 1]."""
        change = weights - self.original
        cross = (change * self.products.transpose(0, 2, 1)).sum(axis=2)
        own = ((change @ self.squares) * change).sum(axis=2)
        error: Floats = np.maximum(self.residual - 2.0 * cross + own, 0.0)
        return error

    def relative_error(self, weights: Floats) -> float:
        """RMS of the output error over RMS of the target, of the whole layer; 0.1 is 20 dB."""
        total = float(self.target.sum())
        error = float(self.squared_error(weights).sum())
        return float(np.sqrt(error / total)) if total else float(np.sqrt(error))

    def right_side(self) -> Floats:
        """X^T target, [S, Og, K + 1]."""
        return self.products.transpose(0, 2, 1) + self.original @ self.squares


def damping(squares: Floats, ridge: float) -> Floats:
    """What ridge adds to the diagonal of ``squares`` [K, K]: in proportion to each input's power.

    A vanishing rest of the mean keeps inputs that never fire from making the system singular.
    """
    power = np.diag(squares)
    return ridge * power + _DEAD * max(float(power.mean()), 1e-30)


def solve(
    statistics: Statistics,
    weights: Floats,
    support: NDArray[np.bool_],
    ridge: float = 1e-3,
) -> Floats:
    """The weights on ``support`` with the least squared output error; zero elsewhere.

    weights: the starting point [S, Og, K + 1], zero outside ``support`` (same shape). ridge pulls
    towards it, not towards zero, so the error on the calibration inputs never rises. Outputs with
    the same support share one factorization.
    """
    start = np.where(support, weights, 0.0)
    gradient = statistics.right_side() - start @ statistics.squares
    solved = start.copy()
    for section, squares in enumerate(statistics.squares):
        added = damping(squares, ridge)
        supports, members = np.unique(support[section], axis=0, return_inverse=True)
        for number, shape in enumerate(supports):
            kept = np.flatnonzero(shape)
            rows = np.flatnonzero(members.ravel() == number)
            if not kept.size:
                continue
            system = squares[np.ix_(kept, kept)] + np.diag(added[kept])
            step = np.linalg.solve(system, gradient[section][np.ix_(rows, kept)].T)
            solved[section][np.ix_(rows, kept)] += step.T
    worse = statistics.squared_error(solved) > statistics.squared_error(start)
    solved[worse] = start[worse]  # rounding may do that where nothing was to be gained
    return solved


def to_sections(weights: Array, bias: Array, sections: int) -> Floats:
    """[S, Og, K + 1] of weights [O, C / S, kernel rows, kernel columns] and bias [O]."""
    outputs = weights.shape[0]
    flat = weights.reshape(outputs, -1).astype(np.float64)
    joined = np.concatenate([flat, bias.astype(np.float64)[:, None]], axis=1)
    return joined.reshape(sections, outputs // sections, -1)


def from_sections(solved: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Weights of ``shape`` [O, C / S, kernel rows, kernel columns] and bias [O]."""
    flat = solved.reshape(shape[0], -1)
    return flat[:, :-1].reshape(shape), flat[:, -1].copy()


def support_of(mask: NDArray[np.bool_], sections: int, fit_bias: bool = True) -> NDArray[np.bool_]:
    """The support [S, Og, K + 1] of a mask [O, C / S, kernel rows, kernel columns]."""
    outputs = mask.shape[0]
    with_bias = np.full((outputs, 1), fit_bias)
    joined = np.concatenate([mask.reshape(outputs, -1), with_bias], axis=1)
    return joined.reshape(sections, outputs // sections, -1)
