"""Translation tables: which weight patterns of a layer stand for others, and by which shift.

A weight pattern is what one output holds in one group of input channels. A translated pattern is
the source's times a power of two, so the hardware reads the source's partial sum instead of firing
the columns again (PattPIM, DAC 2020; PRAP-PIM, 2023). Everything here works on *integer* weights:
equal integers are equal cells, whatever the scales of the two output channels are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[Any]  # float or integer [outputs, channels, kernel rows, kernel columns]
ZERO = -1
LARGEST = 127  # symmetric 8-bit weights: -127..127


@dataclass(frozen=True, eq=False)
class Translation:
    """source: int32 [groups, outputs]; the output whose pattern is used: itself when it is kept,
    ``ZERO`` when the pattern is all zero. shift: int8 [groups, outputs], 0..max: the pattern is
    the source's, shifted right by that many bits. A source is always kept, so no chains arise.
    group: input channels of a pattern.
    """

    source: NDArray[np.int32]
    shift: NDArray[np.int8]
    group: int

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which patterns are stored, bool [groups, outputs]."""
        return np.asarray(self.source == np.arange(self.source.shape[1]))

    @property
    def kept_share(self) -> float:
        """Stored patterns over all patterns."""
        return float(self.kept.mean()) if self.source.size else 1.0

    def alignment(self) -> NDArray[np.int64]:
        """Low bits that each stored pattern leaves empty: its followers' largest shift."""
        groups, outputs = self.source.shape
        used = np.zeros((groups, outputs), np.int64)
        followed = np.nonzero(self.source != ZERO)
        np.maximum.at(used, (followed[0], self.source[followed]), self.shift[followed])
        return used

    def apply(self, weights: Weights) -> NDArray[np.int16]:
        """Integer weights in which each translated pattern is its source, shifted.

        Stored patterns are first rounded to multiples of 2**alignment, so that every shift is
        exact in integers: rounding costs them less than their followers' distance.
        """
        patterns = to_patterns(weights, self.group)
        step = (1 << self.alignment())[:, :, None]
        stored = np.rint(patterns / step).astype(np.int64)
        stored = np.clip(stored, -(LARGEST // step), LARGEST // step) * step
        index = np.maximum(self.source, 0)
        moved = np.take_along_axis(stored, index[:, :, None].astype(np.int64), axis=1)
        moved >>= self.shift[:, :, None].astype(np.int64)
        moved[self.source == ZERO] = 0
        return from_patterns(moved, weights.shape).astype(np.int16)


def to_patterns(weights: Weights, group: int) -> Weights:
    """[groups, outputs, group * positions]; channels are padded with zeros to whole groups."""
    outputs, channels = weights.shape[:2]
    flat = weights.reshape(outputs, channels, -1)
    flat = np.pad(flat, ((0, 0), (0, -channels % group), (0, 0)))
    return flat.reshape(outputs, -1, group * flat.shape[2]).transpose(1, 0, 2)


def from_patterns(patterns: Weights, shape: tuple[int, ...]) -> Weights:
    """The inverse of `to_patterns` for weights of ``shape``."""
    outputs, channels = shape[:2]
    positions = int(np.prod(shape[2:]))
    flat = patterns.transpose(1, 0, 2).reshape(outputs, -1, positions)
    return np.ascontiguousarray(flat[:, :channels].reshape(shape))


def quantize_rows(weights: Weights) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Symmetric 8-bit integers of each output channel, and the scales float32 [outputs].

    A channel's largest magnitude becomes 127. An all-zero channel has scale 1.
    """
    peak = np.abs(weights).reshape(len(weights), -1).max(axis=1).astype(np.float32)
    scale = np.where(peak > 0, peak / np.float32(LARGEST), np.float32(1.0)).astype(np.float32)
    steps = np.rint(weights / scale.reshape(-1, 1, 1, 1)).astype(np.int16)
    return np.clip(steps, -LARGEST, LARGEST), scale
