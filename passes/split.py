"""Split: give every layer cores, by output channels and by rows of its matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np

from isa.diagnostics import Diagnostic, Location, PimError
from isa.matrix import BlockMatrix
from isa.target import Target
from passes.base import Pass
from passes.graph import MatrixNode
from passes.mapping import MappedLayer, Mapping, Part
from passes.place import aligned_spans, span_width
from passes.select import input_channels, select_channels, select_groups, select_outputs

Range = tuple[int, int]
WINDOW_SHARE = 0.75  # of a core's memory that a layer's input rows may take; the rest: queues


@dataclass(frozen=True)
class Split(Pass[Mapping, Mapping]):
    """Cut layers that are wider, taller or hungrier for memory than one core.

    Before -> after: a 4608 x 512 layer -> a grid of parts, output ranges by row ranges, each at
    most one core's crossbars. The row parts of one output range add their sums along a chain.
    Exact: yes; every row group and every route goes to exactly one part.
    """

    name: ClassVar[str] = "split"
    exact: ClassVar[bool] = True

    def run(self, unit: Mapping) -> Mapping:
        layers: dict[str, MappedLayer] = {}
        findings: list[Diagnostic] = []
        for name, layer in unit.layers.items():
            rows = unit.graph.values[layer.node.inputs[0]].shape[1]
            try:
                parts = split_layer(layer, rows, unit.target)
            except PimError as error:
                findings += error.diagnostics
            else:
                layers[name] = replace(layer, parts=parts)
        if findings:
            raise PimError(*findings)
        return replace(unit, layers=layers)


def split_layer(layer: MappedLayer, columns: int, target: Target) -> tuple[tuple[Part, ...], ...]:
    """Parts of one layer, [output part][row part]; ``columns``: width of the input tensor.

    Raises PimError M601 when even a single crossbar of the layer needs more than one core.
    """
    node, blocks = layer.node, layer.blocks
    outputs, channels = blocks.outputs, node.weights.shape[3] * node.groups
    best: tuple[int, int, int] | None = None
    wanted_rows = max(1, _memory_parts(node, columns, target))
    for row_parts in range(wanted_rows, _row_tiles(layer, target) + wanted_rows):
        for output_parts in _output_counts(layer, row_parts, target, best):
            cores = row_parts * output_parts
            if best is None or cores < best[0]:
                best = (cores, row_parts, output_parts)
            break
    if best is None:
        raise PimError(_too_large(node, target))
    _, row_parts, output_parts = best
    grid = []
    for first, last in pairwise(_output_cuts(layer, output_parts, target)):
        column = select_outputs(blocks, first, last)
        grid.append(tuple(_row_parts(column, layer, row_parts, channels, (first, last), target)))
    assert grid[-1][-1].outputs[1] == outputs
    return tuple(grid)


def _row_parts(
    blocks: BlockMatrix,
    layer: MappedLayer,
    count: int,
    channels: int,
    outputs: Range,
    target: Target,
) -> list[Part]:
    """Cut the row groups of ``blocks`` into ``count`` runs of whole crossbars, and place them."""
    parts = []
    cuts = _row_cuts(blocks.groups, count, target)
    for low, high in pairwise(cuts):
        part = blocks if len(cuts) == 2 else select_groups(blocks, np.arange(low, high))
        inputs = input_channels(part, channels)
        part = select_channels(part, channels, *inputs)
        sections = _sections(layer, outputs) if len(cuts) == 2 else 1
        parts.append(
            Part(inputs, outputs, replace(part, spans=aligned_spans(part, target, sections)))
        )
    return parts


def _sections(layer: MappedLayer, outputs: Range) -> int:
    """Convolution groups whose outputs lie in a range."""
    return max(1, layer.node.groups * (outputs[1] - outputs[0]) // layer.blocks.outputs)


def _row_tiles(layer: MappedLayer, target: Target) -> int:
    """Crossbars that the row groups of one convolution group fill, one under another."""
    if layer.node.groups > 1:
        return 1
    return -(-layer.blocks.groups // target.row_slots)


def _memory_parts(node: MatrixNode, columns: int, target: Target) -> int:
    """Row parts needed so that the window rows of a part fit its share of a core's memory."""
    if node.groups > 1:
        return 1
    _, kernel_rows, _, per_group = node.weights.shape
    rows = (kernel_rows - 1) * node.dilation[0] + 1
    width = columns + node.pads[1] + node.pads[3]
    return int(-(-rows * width * per_group // int(WINDOW_SHARE * target.memory.core_bytes)))


def _row_cuts(groups: int, count: int, target: Target) -> list[int]:
    """Boundaries of ``count`` nearly equal runs of row groups, at whole crossbars if possible."""
    tiles = -(-groups // target.row_slots)
    unit = target.row_slots if tiles >= count else 1
    units = -(-groups // unit)
    return [min(groups, unit * (units * part // count)) for part in range(count)] + [groups]


def _output_unit(layer: MappedLayer, target: Target) -> int:
    """Outputs that share a crossbar: cuts between output parts fall on multiples of it."""
    outputs = layer.blocks.outputs
    if layer.node.groups > 1:
        return outputs // layer.node.groups
    columns = max(1, int(np.diff(layer.blocks.column_start).max(initial=1)))
    return max(1, span_width(target) * outputs // columns)


def _output_cuts(layer: MappedLayer, count: int, target: Target) -> list[int]:
    """Boundaries of ``count`` nearly equal output ranges."""
    outputs, unit = layer.blocks.outputs, _output_unit(layer, target)
    units = -(-outputs // unit)
    return [min(outputs, unit * (units * part // count)) for part in range(count)] + [outputs]


def _output_counts(
    layer: MappedLayer, row_parts: int, target: Target, best: tuple[int, int, int] | None
) -> list[int]:
    """The smallest number of output parts with which ``row_parts`` row parts fit a core each."""
    units = -(-layer.blocks.outputs // _output_unit(layer, target))
    limit = units if best is None else min(units, -(-best[0] // row_parts))
    for count in range(1, limit + 1):
        if _largest_part(layer, row_parts, count, target) <= target.crossbars_per_core:
            return [count]
    return []


def _largest_part(layer: MappedLayer, row_parts: int, output_parts: int, target: Target) -> int:
    """Crossbars of the largest part, by the counting rule of ``aligned_spans``."""
    blocks, sections = layer.blocks, layer.node.groups
    units = -(-blocks.outputs // _output_unit(layer, target))
    share = -(-units // output_parts) / units
    if sections > 1:
        per_section = blocks.groups // sections
        width = int(np.diff(blocks.column_start).max())
        step = min(span_width(target), -(-width // target.ou.columns) * target.ou.columns)
        abreast = max(1, span_width(target) // step)
        shelves = per_section * -(-int(np.ceil(sections * share)) // abreast)
        return -(-shelves // target.row_slots) * -(-width // span_width(target))
    columns = int(np.ceil(int(np.diff(blocks.column_start).max(initial=0)) * share))
    groups = max(high - low for low, high in pairwise(_row_cuts(blocks.groups, row_parts, target)))
    return -(-groups // target.row_slots) * -(-columns // span_width(target))


def _too_large(node: MatrixNode, target: Target) -> Diagnostic:
    return Diagnostic(
        "M601",
        f"`{node.name}` cannot be cut into parts that fit one core: one input row block needs "
        f"more than the {target.crossbars_per_core} crossbars of {target.name} or more than "
        f"{target.memory.core_bytes} bytes of its memory",
        at=Location(node=node.name),
        hint="choose a target with more crossbars or memory per core "
        "(`--set hierarchy.crossbars_per_pe=...`, `--set memory.core_bytes=...`)",
    )
