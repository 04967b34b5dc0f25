"""Splitting of ragged layers: row groups of many widths, dealt to cores until each part fits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from isa.matrix import BlockMatrix, Int64
from isa.target import Target
from passes.graph import MatrixNode
from passes.mapping import Part
from passes.place import packed_spans
from passes.room import Room
from passes.select import input_channels, select_channels, select_groups, select_outputs

ACCUMULATOR_SHARE = 0.5  # of a core's memory that sums and results of one output row may take
RESULT_BYTES = 5  # a 32-bit sum and an 8-bit result


def split_ragged(
    node: MatrixNode, blocks: BlockMatrix, room: Room, target: Target
) -> tuple[tuple[Part, ...], ...] | None:
    """Parts of a ragged layer, [output part][row part]; None when a group outgrows a core.

    Outputs are cut only for memory: groups shared by two output parts are stored twice. Row
    groups go to parts by their first input channel, so that a part reads few channels.
    """
    channels = node.weights.shape[3] * node.groups
    count = _output_parts(node, room.columns, target)
    row_parts = -(-channels // room.channels)
    if node.groups > 1:  # a convolution group reads channels of its own
        count, row_parts = max(count, min(row_parts, node.groups)), 1
    cuts = [blocks.outputs * part // count for part in range(count + 1)]
    grid = []
    for outputs in pairwise(cuts):
        parts = _row_parts(select_outputs(blocks, *outputs), channels, outputs, row_parts, target)
        if parts is None:
            return None
        grid.append(parts)
    return tuple(grid)


def _output_parts(node: MatrixNode, columns: int, target: Target) -> int:
    """Output ranges needed so that the sums of one output row fit their share of the memory."""
    outputs, _, kernel_columns, _ = node.weights.shape
    reach = (kernel_columns - 1) * node.dilation[1] + 1
    width = (columns - reach) // node.stride[1] + 1
    room = int(ACCUMULATOR_SHARE * target.memory.core_bytes)
    return int(min(outputs, max(1, -(-outputs * width * RESULT_BYTES // max(1, room)))))


def _row_parts(
    blocks: BlockMatrix, channels: int, outputs: tuple[int, int], fewest: int, target: Target
) -> tuple[Part, ...] | None:
    """The fewest parts, cut by their operation units, that each fit a core."""
    order = _by_channel(blocks, channels)
    units = -(-np.diff(blocks.column_start)[order] // target.ou.columns)
    filled = int(packed_spans(blocks, target).crossbar.max(initial=0)) + 1
    count = max(1, min(fewest, blocks.groups), -(-filled // target.crossbars_per_core))
    while count <= max(1, blocks.groups):
        ends = np.cumsum(units)
        total = int(ends[-1]) if len(ends) else 0
        cuts = np.searchsorted(ends, np.arange(count + 1) * total // count, side="left")
        parts = [
            _part(blocks, np.sort(order[low:high]), channels, outputs, target)
            for low, high in pairwise([*cuts[:-1], blocks.groups])
            if high > low or count == 1
        ]
        if all(part.blocks.crossbars <= target.crossbars_per_core for part in parts):
            return tuple(parts)
        count += 1
    return None


def _by_channel(blocks: BlockMatrix, channels: int) -> Int64:
    """Row groups in the order of their lowest input channel."""
    channel = np.where(blocks.rows < 0, channels, blocks.rows % channels)
    return np.argsort(channel.min(axis=1, initial=channels), kind="stable")


def _part(
    blocks: BlockMatrix, groups: Int64, channels: int, outputs: tuple[int, int], target: Target
) -> Part:
    """The part of a layer that holds some row groups, placed."""
    part = blocks if len(groups) == blocks.groups else select_groups(blocks, groups)
    inputs = input_channels(part, channels)
    part = select_channels(part, channels, *inputs)
    return Part(inputs, outputs, replace(part, spans=packed_spans(part, target)))
