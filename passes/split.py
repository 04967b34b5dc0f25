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
from passes.graph import Graph, MatrixNode
from passes.mapping import MappedLayer, Mapping, Part
from passes.place import aligned_spans, is_regular, span_width
from passes.room import SUM_BYTES, Room, common_rooms
from passes.select import input_channels, select_channels, select_groups, select_outputs
from passes.split_ragged import split_ragged

SPARE_CORES = 1.1  # a grid may take this many times the fewest cores if it moves less data


@dataclass(frozen=True)
class Split(Pass[Mapping, Mapping]):
    """Cut layers that are wider, taller or hungrier for memory than one core.

    Before -> after: a 4608 x 512 layer -> a grid of parts, output ranges by row ranges, each at
    most one core's crossbars. The row parts of one output range add their sums along a chain.
    A ragged layer (not the grid of a dense one) is cut by row groups, see `split_ragged`.
    Exact: yes; every row group and every route goes to exactly one part. others: the same network
    for other input shapes; the parts have room in those, too.
    """

    name: ClassVar[str] = "split"
    exact: ClassVar[bool] = True
    others: tuple[Graph, ...] = ()

    def run(self, unit: Mapping) -> Mapping:
        layers: dict[str, MappedLayer] = {}
        findings: list[Diagnostic] = []
        rooms = common_rooms((unit.graph, *self.others), unit.target)
        for name, layer in unit.layers.items():
            try:
                parts = split_layer(layer, rooms[name], unit.target)
            except PimError as error:
                findings += error.diagnostics
            else:
                layers[name] = replace(layer, parts=parts)
        if findings:
            raise PimError(*findings)
        return replace(unit, layers=layers)


@dataclass(frozen=True, eq=False)
class _Piece:
    """What is cut as one grid: a layer, or one convolution group that exceeds a core.

    sections: convolution groups in it; they are only cut apart, never through. first_output: of
    the layer. positions: elements of a window in one channel. channels: most that a core can
    hold; the row parts of a plain piece, or the output parts of one of several sections, are so
    many that each reads no more.
    """

    blocks: BlockMatrix
    sections: int
    first_output: int
    positions: int
    channels: int

    @property
    def widest(self) -> int:
        """Stored columns of the widest row group."""
        return int(np.diff(self.blocks.column_start).max(initial=1))

    @property
    def row_parts(self) -> int:
        """The fewest row parts, for the sake of memory."""
        reads = self.blocks.rows.size // self.positions
        return 1 if self.sections > 1 else max(1, -(-reads // self.channels))

    @property
    def output_parts(self) -> int:
        """The fewest output parts, for the sake of memory: sections read channels of their own."""
        reads = self.blocks.inputs // self.positions
        return 1 if self.sections == 1 else min(self.sections, -(-reads // self.channels))

    def output_unit(self, target: Target) -> int:
        """Outputs that share a crossbar: cuts between output parts fall on multiples of it."""
        if self.sections > 1:
            return self.blocks.outputs // self.sections
        return max(1, span_width(target) * self.blocks.outputs // self.widest)


def split_layer(layer: MappedLayer, room: Room, target: Target) -> tuple[tuple[Part, ...], ...]:
    """Parts of one layer, [output part][row part], each of which has ``room`` in a core.

    Raises PimError M601 when even one row of crossbars of the layer needs more than one core.
    """
    node, blocks = layer.node, layer.blocks
    channels = node.weights.shape[3] * node.groups
    whole = _Piece(blocks, node.groups, 0, blocks.inputs // channels, room.channels)
    if not is_regular(blocks, target, node.groups):
        ragged = split_ragged(node, blocks, room, target)
        if ragged is None:
            raise PimError(_too_large(node, target))
        return ragged
    pieces = [whole]
    if node.groups > 1 and not _fits(whole, 1, node.groups, target):
        width = blocks.outputs // node.groups
        pieces = [
            replace(
                whole,
                blocks=select_outputs(blocks, first, first + width),
                sections=1,
                first_output=first,
            )
            for first in range(0, blocks.outputs, width)
        ]
    grid: list[tuple[Part, ...]] = []
    for piece in pieces:
        reads = channels // len(pieces)
        anywhere = replace(piece, channels=max(1, piece.blocks.rows.size))  # rows in global memory
        shape = _grid_shape(piece, reads, target) or _grid_shape(anywhere, reads, target)
        if shape is None:
            raise PimError(_too_large(node, target))
        grid += _cut(piece, shape, channels, target)
    return tuple(grid)


def _cut(
    piece: _Piece, shape: tuple[int, int], channels: int, target: Target
) -> list[tuple[Part, ...]]:
    """Cut a piece into (row parts, output parts), and place each part in its crossbars."""
    grid = []
    for first, last in pairwise(_output_cuts(piece, shape[1], target)):
        column = select_outputs(piece.blocks, first, last)
        outputs = (piece.first_output + first, piece.first_output + last)
        sections = max(1, piece.sections * (last - first) // piece.blocks.outputs)
        cuts = _row_cuts(column.groups, shape[0], target)
        chain = []
        for low, high in pairwise(cuts):
            part = column if len(cuts) == 2 else select_groups(column, np.arange(low, high))
            inputs = input_channels(part, channels)
            part = select_channels(part, channels, *inputs)
            chain.append(
                Part(inputs, outputs, replace(part, spans=aligned_spans(part, target, sections)))
            )
        grid.append(tuple(chain))
    return grid


def _grid_shape(piece: _Piece, channels: int, target: Target) -> tuple[int, int] | None:
    """(row parts, output parts) that fit, of few cores and little traffic; None if none fits."""
    tiles = 1 if piece.sections > 1 else -(-piece.blocks.groups // target.row_slots)
    units = -(-piece.blocks.outputs // piece.output_unit(target))
    shapes: list[tuple[int, int]] = []
    least = min(units, piece.output_parts)
    fewest = tiles * units + piece.row_parts
    most = max(tiles, 2 * piece.row_parts)  # cuts at whole crossbars may be far from equal
    for row_parts in range(piece.row_parts, most + 1):
        limit = max(least, min(units, int(fewest * SPARE_CORES) // row_parts))
        fitting = (n for n in range(least, limit + 1) if _fits(piece, row_parts, n, target))
        if output_parts := next(fitting, None):
            shapes.append((row_parts, output_parts))
            fewest = min(fewest, row_parts * output_parts)

    def bytes_moved(shape: tuple[int, int]) -> int:
        """Per window: the input to every output part, sums down every chain."""
        return shape[1] * channels + (shape[0] - 1) * SUM_BYTES * piece.blocks.outputs

    near = [shape for shape in shapes if shape[0] * shape[1] <= SPARE_CORES * fewest]
    return min(near, key=bytes_moved, default=None)


def _fits(piece: _Piece, row_parts: int, output_parts: int, target: Target) -> bool:
    """Whether the largest part fits a core, by the counting rule of ``aligned_spans``."""
    blocks, width = piece.blocks, span_width(target)
    units = -(-blocks.outputs // piece.output_unit(target))
    share = -(-units // output_parts)
    if piece.sections > 1:
        step = min(width, -(-piece.widest // target.ou.columns) * target.ou.columns)
        shelves = blocks.groups // piece.sections * -(-share // (width // step))
        crossbars = -(-shelves // target.row_slots) * -(-piece.widest // width)
    else:
        cuts = _row_cuts(blocks.groups, row_parts, target)
        groups = max((high - low for low, high in pairwise(cuts)), default=0)
        if row_parts > 1 and groups * target.ou.rows > piece.channels * piece.positions:
            return False
        columns = -(-piece.widest * share // units)
        crossbars = -(-groups // target.row_slots) * -(-columns // width)
    return crossbars <= target.crossbars_per_core


def _row_cuts(groups: int, count: int, target: Target) -> list[int]:
    """Boundaries of up to ``count`` nearly equal runs of row groups, at whole crossbars if any."""
    tiles = -(-groups // target.row_slots)
    unit = target.row_slots if tiles >= count else 1
    units = -(-groups // unit)
    cuts = [min(groups, unit * (units * part // count)) for part in range(count)] + [groups]
    return sorted(set(cuts)) if groups else [0, 0]


def _output_cuts(piece: _Piece, count: int, target: Target) -> list[int]:
    """Boundaries of ``count`` nearly equal output ranges."""
    outputs, unit = piece.blocks.outputs, piece.output_unit(target)
    units = -(-outputs // unit)
    return [min(outputs, unit * (units * part // count)) for part in range(count)] + [outputs]


def _too_large(node: MatrixNode, target: Target) -> Diagnostic:
    return Diagnostic(
        "M601",
        f"`{node.name}` cannot be cut into parts that fit one core: one row of its crossbars needs "
        f"more than the {target.crossbars_per_core} crossbars of {target.name}",
        at=Location(node=node.name),
        hint="a target with more crossbars per core: `--set hierarchy.crossbars_per_pe=...`",
    )
