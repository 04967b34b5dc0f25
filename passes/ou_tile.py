"""OU tiling: cut a layer matrix into blocks that one step can fire, all of it, nothing saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Int32, Routes, Spans, UInt8, pack_cells
from isa.target import Target
from passes.base import Pass
from passes.encoding import Digits, encode, signed_bits
from passes.graph import Graph, MatrixNode
from passes.mapping import MappedLayer, Mapping
from passes.weights import LayerWeights, layer_weights

CHUNK_CELLS = 1 << 24  # cells unpacked at a time; bounds memory on layers of 100 M weights


@dataclass(frozen=True)
class OuTile(Pass[Graph, Mapping]):
    """Store every weight: each row group takes ``ou.rows`` neighbouring rows of all outputs.

    Before -> after: rows 0..8 of a layer -> one row group, whose columns are the digits of
    output 0, then those of output 1, and so on; all groups share one route list.
    Exact: yes. A digit column whose sum could exceed the ADC is stored flipped (``largest cell -
    cell``) where the target allows it, and a column of ones in the same group restores it
    (ISAAC's encoding).
    """

    name: ClassVar[str] = "ou-tile"
    exact: ClassVar[bool] = True
    target: Target

    def run(self, unit: Graph) -> Mapping:
        layers = {
            node.name: MappedLayer(node, ou_tile(layer_weights(node), self.target))
            for node in unit.nodes
            if isinstance(node, MatrixNode)
        }
        return Mapping(unit, self.target, layers)


def ou_tile(weights: LayerWeights, target: Target) -> BlockMatrix:
    """The dense blocks of one layer; see ``OuTile``."""
    bits = signed_bits(weights.values)
    tiles = [_tile_section(weights, index, target, bits) for index in range(len(weights.rows))]
    lists = np.cumsum([0, *(tile.lists for tile in tiles)])
    routes = [
        _routes(tile, first_output)
        for tile, first_output in zip(
            tiles, range(0, weights.outputs, weights.values.shape[2]), strict=True
        )
    ]
    return BlockMatrix(
        inputs=weights.inputs,
        outputs=weights.outputs,
        cell_bits=target.crossbar.cell_bits,
        rows=np.concatenate([tile.rows for tile in tiles]),
        cells=np.concatenate([tile.cells for tile in tiles]),
        column_start=_starts([tile.columns for tile in tiles]),
        routing=np.concatenate(
            [tile.routing + np.int32(first) for tile, first in zip(tiles, lists[:-1], strict=True)]
        ),
        routes=join_routes(routes),
        spans=Spans.empty(),
    )


@dataclass(frozen=True, eq=False)
class _Tile:
    """One section: groups, packed cells, and which digit columns of which group are flipped."""

    rows: Int32
    cells: UInt8
    columns: NDArray[np.int64]
    routing: Int32
    flipped: NDArray[np.bool_]  # [lists, outputs * digits]
    digits: Digits
    has_ones: bool

    @property
    def lists(self) -> int:
        return len(self.flipped)


def _tile_section(weights: LayerWeights, index: int, target: Target, bits: int) -> _Tile:
    """Cut section ``index`` into row groups and code its weights as cells."""
    height, cell_bits = target.ou.rows, target.crossbar.cell_bits
    rows = group_rows(weights.rows[index], height)
    values = weights.values[index]
    digits = encode(values[:0], cell_bits, bits)
    per_group = values.shape[1] * len(digits.shift)
    step = max(1, CHUNK_CELLS // (per_group * height))
    cells, flips = [], []
    for low in range(0, len(rows), step):
        chunk = _group_cells(values[low * height : (low + step) * height], height, cell_bits, bits)
        flips.append(_flip(chunk, rows[low : low + step], target))
        cells.append(chunk)
    flipped = np.concatenate(flips)
    has_ones = bool(flipped.any()) or digits.offset > 0
    routing = np.arange(len(rows), dtype=np.int32)
    if not flipped.any():
        flipped, routing = flipped[:1], np.zeros(len(rows), np.int32)
    packed = _pack(cells, rows, has_ones, cell_bits)
    columns = np.full(len(rows), per_group + has_ones, np.int64)
    return _Tile(rows, packed, columns, routing, flipped, digits, has_ones)


def group_rows(rows: Int32, height: int) -> Int32:
    """Cut a row order into groups of ``height``, int32 [groups, height], padded with -1."""
    padded = np.full(-(-len(rows) // height) * height, -1, np.int32)
    padded[: len(rows)] = rows
    return padded.reshape(-1, height)


def _group_cells(values: NDArray[np.int16], height: int, cell_bits: int, bits: int) -> UInt8:
    """Digits of whole row groups, uint8 [groups, outputs * digits, height]."""
    digits = encode(values, cell_bits, bits).values
    groups = -(-len(values) // height)
    padded = np.zeros((groups * height, *digits.shape[1:]), np.uint8)
    padded[: len(values)] = digits
    grouped = padded.reshape(groups, height, -1)
    return np.ascontiguousarray(grouped.transpose(0, 2, 1))


def _flip(cells: UInt8, rows: Int32, target: Target) -> NDArray[np.bool_]:
    """Flip, in place, the columns that could exceed the ADC; bool [groups, columns]."""
    if not target.weights.flip_columns:
        return np.zeros(cells.shape[:2], np.bool_)
    largest = (1 << target.crossbar.cell_bits) - 1
    flipped: NDArray[np.bool_] = cells.sum(axis=2, dtype=np.int64) > target.adc_max
    used = (rows >= 0)[:, None, :]
    np.copyto(cells, largest - cells, where=flipped[:, :, None] & used)
    return flipped


def _pack(cells: list[UInt8], rows: Int32, has_ones: bool, cell_bits: int) -> UInt8:
    """Packed cells of all groups, with a column of ones behind each group where needed."""
    packed, low = [], 0
    for chunk in cells:
        if has_ones:
            used = (rows[low : low + len(chunk)] >= 0).astype(np.uint8)
            chunk = np.concatenate([chunk, used[:, None, :]], axis=1)
        packed.append(pack_cells(chunk.reshape(-1, chunk.shape[2]), cell_bits))
        low += len(chunk)
    return np.concatenate(packed)


def _routes(tile: _Tile, first_output: int) -> Routes:
    """Route lists of a section: digit columns to their output, the ones column to all."""
    digits, lists = tile.digits, tile.lists
    count = tile.flipped.shape[1]
    outputs = first_output + np.repeat(np.arange(count // len(digits.shift)), len(digits.shift))
    shift = np.resize(digits.shift, count)
    sign = np.resize(digits.sign, count)
    parts = []
    for flipped in tile.flipped:
        own = (outputs, shift, np.where(flipped, -sign, sign), np.arange(count))
        parts.append([own, *_ones_routes(tile, flipped, outputs, shift, sign)])
    columns = count + tile.has_ones
    return Routes(
        column_start=np.arange(lists + 1, dtype=np.int64) * columns,
        start=_starts([_routes_per_column(part, columns) for part in parts]),
        output=np.concatenate([piece[0] for part in parts for piece in part]).astype(np.int32),
        shift=np.concatenate([piece[1] for part in parts for piece in part]).astype(np.uint8),
        sign=np.concatenate([piece[2] for part in parts for piece in part]).astype(np.int8),
    )


_Piece = tuple[NDArray[np.integer], ...]  # output, shift, sign, column of each route


def _ones_routes(
    tile: _Tile,
    flipped: NDArray[np.bool_],
    outputs: NDArray[np.int64],
    shift: UInt8,
    sign: NDArray[np.int8],
) -> list[_Piece]:
    """Routes of the column of ones: minus the offset, plus ``largest cell`` per flipped column."""
    column = len(outputs)
    pieces: list[_Piece] = []
    if tile.digits.offset:
        targets = np.unique(outputs)
        place = np.full(len(targets), tile.digits.offset.bit_length() - 1)
        pieces.append((targets, place, np.full(len(targets), -1), np.full(len(targets), column)))
    if flipped.any():
        width = int(tile.digits.shift[1]) if len(tile.digits.shift) > 1 else 1
        to, low, way = outputs[flipped], shift[flipped], sign[flipped]
        at = np.full(len(to), column)
        pieces += [(to, low + width, way, at), (to, low, -way, at)]  # 2^width - 1, largest cell
    return pieces


def _routes_per_column(part: list[_Piece], columns: int) -> NDArray[np.int64]:
    return np.bincount(np.concatenate([piece[3] for piece in part]), minlength=columns)


def _starts(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """0 and the running sums of all counts, int64 [n + 1]."""
    flat = np.concatenate(counts)
    return np.concatenate([[0], np.cumsum(flat)]).astype(np.int64)


def join_routes(lists: list[Routes]) -> Routes:
    """Route lists one after another."""
    if len(lists) == 1:
        return lists[0]
    slots = np.cumsum([0, *(len(one.start) - 1 for one in lists)])
    routes = np.cumsum([0, *(len(one.output) for one in lists)])
    return Routes(
        column_start=_joined([one.column_start for one in lists], slots),
        start=_joined([one.start for one in lists], routes),
        output=np.concatenate([one.output for one in lists]),
        shift=np.concatenate([one.shift for one in lists]),
        sign=np.concatenate([one.sign for one in lists]),
    )


def _joined(starts: list[NDArray[np.int64]], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate start arrays whose entries count from their own list's offset."""
    shifted = [start[:-1] + offset for start, offset in zip(starts, offsets[:-1], strict=True)]
    return np.concatenate([*shifted, offsets[-1:]]).astype(np.int64)
