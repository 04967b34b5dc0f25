"""Pattern pruning: every kernel keeps a few positions, in one of a few shapes per dictionary.

Two published forms. Local dictionary: PRAP-PIM (High-Confidence Computing 2023), shape pruning of
the authors' code: one dictionary for each group of input channels, L1 scores. Global dictionary:
PatDNN (ASPLOS 2020, arXiv 2001.00138), section 4: one dictionary for the network, the centre is
always a candidate's, L2 scores, and connectivity pruning removes whole kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from passes.base import Pass

Weights = NDArray[Any]  # float or integer [outputs, channels, kernel rows, kernel columns]
Mask = NDArray[np.bool_]
Patterns = NDArray[np.bool_]  # [patterns, kernel rows * kernel columns]


@dataclass(frozen=True, eq=False)
class Pruned:
    """Weights after pruning, and the shapes that were chosen.

    weights: as given, zero outside ``mask`` (bool, same shape). dictionaries: bool
    [groups, patterns, positions], unused entries empty; one entry serves all groups when it is
    global. choice: int32 [outputs, groups], the entry of each output's kernels in that group.
    """

    weights: Weights
    mask: Mask
    dictionaries: NDArray[np.bool_]
    choice: NDArray[np.int32]

    @property
    def kept(self) -> float:
        """Fraction of the positions that are left."""
        return float(self.mask.mean()) if self.mask.size else 1.0


@dataclass(frozen=True)
class PatternPrune(Pass[Weights, Pruned]):
    """Hold every kernel of a layer to ``keep`` positions in one of ``patterns`` shapes.

    Before -> after: 3x3 kernels with 9 weights -> with 4, and at most 8 different shapes among the
    kernels of a channel group (local) or of the network (global).
    Exact: no. Weights are dropped; compensate afterwards and report what it cost.

    keep: positions a kernel keeps. group: neighbouring input channels that share dictionary and
    shape (PRAP: 8 / keep, so that they fill an operation unit of 8 rows). connectivity: with a
    global dictionary, keep ceil(kernels / connectivity) kernels of a layer (PatDNN: 3.6).
    """

    name = "pattern-prune"
    exact = False
    keep: int = 4
    patterns: int = 8
    group: int = 1
    dictionary: Literal["local", "global"] = "local"
    connectivity: float = 1.0

    def run(self, unit: Weights, shared: Patterns | None = None) -> Pruned:
        """Prune one layer. ``shared``: the global dictionary; made from this layer when absent."""
        if self.dictionary == "local":
            return prune_local(unit, self.keep, self.group, self.patterns)
        known = global_dictionary([unit], self.keep, self.patterns) if shared is None else shared
        return prune_global(unit, known, self.group, self.connectivity)


def prune_local(weights: Weights, keep: int, group: int = 1, patterns: int = 8) -> Pruned:
    """Shapes from one dictionary for each group of ``group`` input channels (PRAP-PIM).

    A candidate is the shape of the ``keep`` largest summed magnitudes of an output's kernels in
    the group; the ``patterns`` most frequent ones make the dictionary; each output takes the entry
    that keeps the most magnitude. Ties go to the shape of the smaller bit code.
    """
    outputs, channels = weights.shape[:2]
    scores = group_scores(weights, group)
    groups, positions = scores.shape[1:]
    dictionaries = np.zeros((groups, patterns, positions), np.bool_)
    choice = np.zeros((outputs, groups), np.int32)
    for index in range(groups):
        found = frequent_patterns(largest(scores[:, index], keep), patterns)
        dictionaries[index, : len(found)] = found
        choice[:, index] = (scores[:, index] @ found.T).argmax(axis=1)
    mask = mask_of(dictionaries, choice, channels, group, weights.shape[2:])
    return Pruned(weights * mask, mask, dictionaries, choice)


def prune_global(
    weights: Weights, dictionary: Patterns, group: int = 1, connectivity: float = 1.0
) -> Pruned:
    """Shapes from one given dictionary by largest kept L2; then the weakest kernels go (PatDNN).

    connectivity: 1 keeps all kernels; 3.6 keeps ceil(kernels / 3.6) of largest L2.
    """
    channels = weights.shape[1]
    scores = group_scores(weights, group, power=2)
    choice = (scores @ dictionary.T.astype(np.float64)).argmax(axis=2).astype(np.int32)
    groups = scores.shape[1]
    dictionaries = np.broadcast_to(dictionary, (groups, *dictionary.shape))
    mask = mask_of(dictionaries, choice, channels, group, weights.shape[2:])
    if connectivity > 1.0:
        mask &= kept_kernels(weights * mask, connectivity)[:, :, None, None]
    return Pruned(weights * mask, mask, dictionary[None], choice)


def global_dictionary(layers: Iterable[Weights], keep: int, patterns: int = 8) -> Patterns:
    """The shapes most frequent among the natural patterns of all kernels of a network (PatDNN).

    The natural pattern of a kernel is its centre and the ``keep - 1`` largest other weights; a
    kernel of even size has no centre and takes the ``keep`` largest.
    """
    natural = []
    for weights in layers:
        scores = group_scores(weights, 1, power=2).reshape(-1, weights.shape[2] * weights.shape[3])
        if weights.shape[2] % 2 and weights.shape[3] % 2:
            scores[:, scores.shape[1] // 2] = np.inf
        natural.append(largest(scores, keep))
    return frequent_patterns(np.concatenate(natural), patterns)


def kept_kernels(weights: Weights, ratio: float) -> NDArray[np.bool_]:
    """Which kernels stay, bool [outputs, channels]: ceil(kernels / ratio) of largest L2."""
    norms = (weights.astype(np.float64) ** 2).sum(axis=(2, 3))
    kept = np.zeros(norms.size, np.bool_)
    kept[np.argsort(-norms.ravel(), kind="stable")[: int(np.ceil(norms.size / ratio))]] = True
    return kept.reshape(norms.shape)


def prune_inputs(weights: Weights, group: int = 16, keep: int = 8) -> Pruned:
    """Fully connected and 1x1 layers: of each ``group`` inputs, the ``keep`` strongest stay.

    Strength is the sum of magnitudes over all outputs, so every output keeps the same inputs
    (PRAP-PIM, shape mode of layers without a kernel).
    """
    outputs, channels = weights.shape[:2]
    strength = np.abs(weights.astype(np.float64)).sum(axis=(0, 2, 3))
    padded = np.pad(strength, (0, -channels % group), constant_values=-1.0)
    patterns = largest(padded.reshape(-1, group), keep)
    mask = np.broadcast_to(patterns.ravel()[:channels, None, None], weights.shape).copy()
    choice = np.zeros((outputs, len(patterns)), np.int32)
    return Pruned(weights * mask, mask, patterns[:, None], choice)


def group_scores(weights: Weights, group: int, power: int = 1) -> NDArray[np.float64]:
    """Summed |w|**power of each position, float64 [outputs, groups, positions]."""
    outputs, channels, kernel_rows, kernel_columns = weights.shape
    size = np.abs(weights.astype(np.float64)).reshape(outputs, channels, -1) ** power
    size = np.pad(size, ((0, 0), (0, -channels % group), (0, 0)))
    grouped = size.reshape(outputs, -1, group, kernel_rows * kernel_columns)
    return np.asarray(grouped.sum(axis=2))


def largest(scores: NDArray[np.float64], keep: int) -> Patterns:
    """The shape of the ``keep`` largest scores of each row; ties go to the first position."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :keep]
    shape = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(shape, order, True, axis=-1)
    return shape


def frequent_patterns(candidates: Patterns, patterns: int) -> Patterns:
    """The most frequent rows of ``candidates``, at most ``patterns``, most frequent first."""
    found, counts = np.unique(candidates, axis=0, return_counts=True)
    return found[np.argsort(-counts, kind="stable")[:patterns]]


def mask_of(
    dictionaries: NDArray[np.bool_],
    choice: NDArray[np.int32],
    channels: int,
    group: int,
    kernel: tuple[int, ...],
) -> Mask:
    """The mask [outputs, channels, *kernel] of chosen dictionary entries."""
    groups = np.arange(choice.shape[1])
    shapes = dictionaries[groups, choice]  # [outputs, groups, positions]
    full = np.repeat(shapes, group, axis=1)[:, :channels]
    return np.ascontiguousarray(full.reshape(choice.shape[0], channels, *kernel))
