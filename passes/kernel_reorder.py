"""Kernel reordering: kernels of one channel with the same support share a block (Yu 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int64, ranges
from isa.target import Target
from passes.assemble import starts
from passes.base import Pass
from passes.graph import Graph
from passes.grouping import exact_height
from passes.mapping import Mapping, map_layers
from passes.plain_columns import PlainGroups, plain_blocks
from passes.shared_columns import shared_blocks
from passes.weights import LayerWeights

MAX_KERNEL = 62  # positions whose pattern fits one integer


@dataclass(frozen=True)
class KernelReorder(Pass[Graph, Mapping]):
    """Store kernels by (input channel, pattern of non-zero positions), without their zero rows.

    Before -> after: in channel 3, kernels 1, 5 and 8 have weights at positions 0, 1, 4 and 7 only
    -> one row group of these 4 rows holds the three kernels side by side. An all-zero kernel is
    in no group and costs nothing (papers.md, 6.1). Where kernels have one position (1x1
    convolutions, fully connected layers), ``ou.rows`` neighbouring channels count as a kernel.
    Exact: yes. A removed row is 0 in all kernels of its block; an index tells their outputs.
    shared: store equal columns of a block once.
    """

    name: ClassVar[str] = "kernel-reorder"
    exact: ClassVar[bool] = True
    target: Target
    shared: bool = False

    def run(self, unit: Graph) -> Mapping:
        return map_layers(
            unit, self.target, lambda weights: kernel_reorder(weights, self.target, self.shared)
        )


def kernel_reorder(weights: LayerWeights, target: Target, shared: bool = False) -> BlockMatrix:
    """The reordered blocks of one layer; see ``KernelReorder``."""
    make = shared_blocks if shared else plain_blocks
    return make(weights, target, reordered_groups(weights, target))


def reordered_groups(weights: LayerWeights, target: Target) -> PlainGroups:
    """The row groups of all (channel, pattern) blocks, and the weights that they keep."""
    height = exact_height(target)
    positions = weights.kernel_size if 1 < weights.kernel_size <= MAX_KERNEL else 0
    rows, values = _kernels(weights, positions or min(height, MAX_KERNEL))
    support = _support(values)  # [kernels' rows of all sections, outputs of a section]
    order = np.argsort(support, axis=1, kind="stable")
    ordered = np.take_along_axis(support, order, axis=1)
    is_first = ordered != 0
    is_first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    band, column = np.nonzero(ordered)
    kernel = order[band, column]
    run = np.cumsum(is_first[band, column]) - 1
    served = np.bincount(run, minlength=0)
    bands, pattern = np.nonzero(is_first)[0], ordered[is_first]
    width = weights.values.shape[2]
    section = band // (len(values) // len(weights.values))
    return _blocks(
        rows[bands],
        pattern,
        starts(served),
        values.transpose(0, 2, 1)[band, kernel],
        (section * width + kernel).astype(np.int32),
        height,
    )


def _kernels(weights: LayerWeights, positions: int) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """Rows [bands, positions] and values [bands, positions, outputs]; a band holds one channel."""
    sections, count, width = weights.values.shape
    bands = -(-count // positions)
    rows = np.full((sections, bands * positions), -1, np.int32)
    rows[:, :count] = weights.rows
    values = np.zeros((sections, bands * positions, width), np.int16)
    values[:, :count] = weights.values
    return rows.reshape(-1, positions), values.reshape(-1, positions, width)


def _support(values: NDArray[np.int16]) -> Int64:
    """Bit p is set where a kernel is not 0 at position p, int64 [bands, outputs]."""
    support = np.zeros((values.shape[0], values.shape[2]), np.int64)
    for position in range(values.shape[1]):
        support |= (values[:, position] != 0).astype(np.int64) << position
    return support


def _blocks(
    rows: NDArray[np.int32],
    pattern: Int64,
    start: Int64,
    kernels: NDArray[np.int16],
    outputs: NDArray[np.int32],
    height: int,
) -> PlainGroups:
    """Row groups of blocks; a block of more than ``height`` rows becomes several.

    rows: [blocks, positions] of their bands. pattern: [blocks]. Block ``b`` serves the kernels
    ``start[b] .. start[b+1]``, [kernels, positions], of ``outputs``.
    """
    positions = rows.shape[1]
    is_set = (pattern[:, None] >> np.arange(positions)) & 1 == 1
    line = np.cumsum(is_set, axis=1) - 1
    tiles = -(-is_set.sum(axis=1) // height)
    first = np.cumsum(tiles) - tiles
    block, position = np.nonzero(is_set)
    group, place = first[block] + line[block, position] // height, line[block, position] % height
    selector = np.full((int(tiles.sum()), height), -1, np.int32)
    selector[group, place] = rows[block, position]
    source = np.full(selector.shape, positions, np.int64)  # one past the end: a 0
    source[group, place] = position
    routing = np.repeat(np.arange(len(pattern)), tiles)
    served = np.diff(start)[routing]
    padded = np.concatenate([kernels, np.zeros((len(kernels), 1), np.int16)], axis=1)
    taken = ranges(start[routing], served)
    values = np.take_along_axis(padded[taken], np.repeat(source, served, axis=0), axis=1)
    return PlainGroups(selector, routing.astype(np.int32), outputs, start, values)
