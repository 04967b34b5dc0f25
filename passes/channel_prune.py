"""Channel pruning: which channels of a layer matter least, and the arrays without them.

Score as CPMC (arXiv 2011.03240): a channel's own filter norm and the matching slices of the
layers that read it. The surgery on the ONNX graph, which also has to keep residual branches in
step, is ``pimc.compress.channels``; removing a channel that is constant is exact once its value is
folded into the next bias, removing any other one is lossy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from passes.base import Pass

Weights = NDArray[Any]  # float or integer [outputs, channels, kernel rows, kernel columns]
Channels = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ChannelUse:
    """One set of channels that must be kept or dropped together.

    produced: weights whose outputs are these channels. consumed: weights whose inputs they are; a
    layer behind a flattening has several inputs a channel, all neighbours.
    """

    size: int
    produced: tuple[Weights, ...]
    consumed: tuple[Weights, ...]


@dataclass(frozen=True)
class ChannelPrune(Pass[ChannelUse, Channels]):
    """Keep the ``keep`` strongest channels of a set.

    Before -> after: 64 output channels, and 64 input channels of each consumer -> 42 of both.
    Exact: no, except for channels whose value is constant.
    """

    name = "channel-prune"
    exact = False
    keep: float = 0.65
    multiple: int = 1

    def run(self, unit: ChannelUse) -> Channels:
        """Indices of the channels that stay, ascending; their number a multiple of ``multiple``."""
        wanted = int(np.ceil(unit.size * self.keep / self.multiple)) * self.multiple
        order = np.argsort(-channel_scores(unit), kind="stable")
        return np.sort(order[: min(unit.size, max(1, wanted))])


def channel_scores(use: ChannelUse) -> NDArray[np.float64]:
    """Score of each channel, float64 [size]: mean of the normalized norms on both sides.

    Each array's norms are divided by their mean, so that no layer dominates by its scale.
    """
    own = [_normalized((w.astype(np.float64) ** 2).sum(axis=(1, 2, 3))) for w in use.produced]
    read = [_normalized(_input_power(w, use.size)) for w in use.consumed]
    sides = [np.mean(side, axis=0) for side in (own, read) if side]
    return np.asarray(np.mean(sides, axis=0)) if sides else np.ones(use.size)


def keep_outputs(array: Weights, kept: Channels) -> Weights:
    """Weights, bias or any per-channel vector with only the ``kept`` entries of axis 0."""
    return np.ascontiguousarray(array[kept])


def keep_inputs(weights: Weights, kept: Channels, size: int) -> Weights:
    """Weights with only the inputs of the ``kept`` of ``size`` channels (see `ChannelUse`)."""
    per_channel = weights.shape[1] // size
    inputs = (kept[:, None] * per_channel + np.arange(per_channel)).ravel()
    return np.ascontiguousarray(weights[:, inputs])


def folded_bias(weights: Weights, constants: NDArray[Any]) -> NDArray[np.float64]:
    """What inputs of constant value add to each output, float64 [outputs].

    weights: only the inputs to be removed, [O, n, rows, columns]. constants: [n]. Exact inside the
    image; where the window overlaps padding see `border_correction`.
    """
    return np.asarray(weights.astype(np.float64).sum(axis=(2, 3)) @ constants.astype(np.float64))


def border_correction(response: NDArray[Any], folded: NDArray[Any]) -> NDArray[Any] | None:
    """What padding takes away again from a folded constant, or None where nothing does.

    response: [O, rows, columns], the layer without bias on the constant inputs alone, padding
    included. folded: [O], from `folded_bias`. Returns an array to add, [O, rows, columns].
    """
    missing = response - folded[:, None, None]
    tolerance = 1e-6 * max(1.0, float(np.abs(folded).max(initial=0.0)))
    return missing if np.abs(missing).max(initial=0.0) > tolerance else None


def _input_power(weights: Weights, size: int) -> NDArray[np.float64]:
    power = (weights.astype(np.float64) ** 2).sum(axis=(0, 2, 3))
    return np.asarray(power.reshape(size, -1).sum(axis=1))


def _normalized(norms: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = float(np.sqrt(norms).mean())
    return np.sqrt(norms) / mean if mean else np.ones_like(norms)
