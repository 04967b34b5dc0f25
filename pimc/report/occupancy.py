"""The occupancy map: which cells of which crossbar are programmed, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix
from pimc.report.sheet import Sheet

WIDTH: Final = 1080
LABEL, BELOW, BESIDE = 16, 12, 22  # pixels above, below and beside a layer
HEIGHT: Final = 760  # wanted at most; decides how large a crossbar is drawn
SIZES: Final = (128, 96, 72, 56, 44, 34, 26, 20, 15, 12, 10, 8, 7, 6, 5, 4)
_CHARACTER: Final = 6.6  # pixels of a label's letter
MAX_BOXES: Final = 24_000  # more would make the page too large

Ints = NDArray[np.int64]


class Boxes(NamedTuple):
    """Boxes of programmed cells, all int64 [boxes]: crossbar, and in cells place and size."""

    crossbar: Ints
    column: Ints
    row: Ints
    width: Ints
    height: Ints


@dataclass(frozen=True)
class CorePart:
    """The crossbars of one layer on one core. tiles, cells: SVG paths."""

    title: str
    tiles: str
    cells: str


@dataclass(frozen=True)
class OccupancyRow:
    """A layer. x, y: of its label. characters: that its label has room for."""

    name: str
    number: int
    x: int
    y: int
    characters: int
    crossbars: int
    parts: list[CorePart]


@dataclass(frozen=True)
class Occupancy:
    """is_exact: every cell is drawn where it stands; else a crossbar is filled as far as its
    share of programmed cells goes. size: of a crossbar, in pixels."""

    is_exact: bool
    size: int
    width: int
    height: int
    rows: list[OccupancyRow]


@dataclass(frozen=True)
class _Held:
    """What one matrix stores. crossbars: their indices. filled: cells of each of them."""

    core: int
    crossbars: Ints
    filled: Ints
    boxes: Boxes


def occupancy(sheet: Sheet) -> Occupancy:
    """The map of all layers that store something, in the order in which they start."""
    held: dict[str, list[_Held]] = {}
    for core in sheet.program.cores:
        for matrix in core.matrices:
            held.setdefault(matrix.layer, []).append(_held(core.index, matrix.blocks))
    is_exact = sum(len(h.boxes.row) for hs in held.values() for h in hs) <= MAX_BOXES
    names = [name for name in sheet.layer_names if name in held]
    counts = [sum(len(h.crossbars) for h in held[name]) for name in names]
    labels = [min(len(name), 24) for name in names]
    layouts = (_Layout.make(size, counts, labels) for size in SIZES)
    layout = next((one for one in layouts if one.height <= HEIGHT), None)
    layout = layout or _Layout.make(SIZES[-1], counts, labels)
    crossbar = sheet.target.crossbar
    draw = _Drawing(layout.size, crossbar.rows, crossbar.columns, is_exact)
    rows = []
    for name, count, (x, y, width) in zip(names, counts, layout.places, strict=True):
        parts = draw.parts(held[name], x, y + LABEL, max(1, width // _pitch(layout.size)))
        number, room = sheet.layer_names.index(name), int((width + BESIDE // 2) / _CHARACTER)
        rows.append(OccupancyRow(name, number, x, y, room, count, parts))
    return Occupancy(is_exact, layout.size, WIDTH, layout.height, rows)


def _pitch(size: int) -> int:
    """Pixels from crossbar to crossbar."""
    return size + (2 if size > 10 else 1)


@dataclass(frozen=True)
class _Layout:
    """Layers as blocks, left to right as long as a line has room. places: x, y, width of each."""

    size: int
    height: int
    places: list[tuple[int, int, int]]

    @staticmethod
    def make(size: int, counts: list[int], labels: list[int]) -> _Layout:
        """counts: crossbars of each layer. labels: letters that its label would like."""
        pitch = _pitch(size)
        x = y = line = 0
        places = []
        for count, letters in zip(counts, labels, strict=True):
            width = max(min(count, WIDTH // pitch) * pitch, int(letters * _CHARACTER))
            across = max(1, width // pitch)
            height = LABEL + -(-count // across) * pitch + BELOW
            if x and x + width > WIDTH:
                x, y, line = 0, y + line, 0
            places.append((x, y, width))
            x, line = x + width + BESIDE, max(line, height)
        return _Layout(size, y + line, places)


def _held(core: int, blocks: BlockMatrix) -> _Held:
    spans = blocks.spans
    heights = (blocks.rows >= 0).sum(axis=1)[spans.group]
    found = (spans.crossbar, spans.column, spans.row, spans.count, heights)
    boxes = Boxes(*(values.astype(np.int64) for values in found))
    crossbars, index = np.unique(boxes.crossbar, return_inverse=True)
    filled = np.bincount(index, weights=boxes.width * boxes.height, minlength=len(crossbars))
    return _Held(core, crossbars, filled.astype(np.int64), merge(boxes))


def merge(boxes: Boxes) -> Boxes:
    """Join boxes that touch: first those of one width above each other, then side by side."""
    crossbar, column, row, width, height = _join(*boxes)
    crossbar, row, column, height, width = _join(crossbar, row, column, height, width)
    return Boxes(crossbar, column, row, width, height)


def _join(
    crossbar: Ints, across: Ints, along: Ints, breadth: Ints, length: Ints
) -> tuple[Ints, ...]:
    """Join boxes of one ``across`` and ``breadth`` that follow each other on ``along``."""
    order = np.lexsort((along, breadth, across, crossbar))
    crossbar, across, along, breadth, length = (
        values[order] for values in (crossbar, across, along, breadth, length)
    )
    same = (np.diff(crossbar) == 0) & (np.diff(across) == 0) & (np.diff(breadth) == 0)
    follows = same & (along[:-1] + length[:-1] == along[1:])
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    total = np.add.reduceat(length, first) if len(first) and len(length) else length
    return crossbar[first], across[first], along[first], breadth[first], total


@dataclass(frozen=True)
class _Drawing:
    """Turns what is held into paths. size: pixels of a crossbar of ``rows`` by ``columns``."""

    size: int
    rows: int
    columns: int
    is_exact: bool

    def parts(self, held: list[_Held], left: int, top: int, across: int) -> list[CorePart]:
        """The crossbars of one layer, ``across`` side by side, core after core."""
        pitch = _pitch(self.size)
        parts, before = [], 0
        for item in held:
            place = np.arange(before, before + len(item.crossbars))
            x, y = left + place % across * pitch, top + place // across * pitch
            before += len(place)
            side = self.size
            tiles = "".join(
                f"M{a} {b}h{side}v{side}h-{side}z"
                for a, b in zip(x.tolist(), y.tolist(), strict=True)
            )
            share = item.filled.sum() / (len(place) * self.rows * self.columns)
            title = f"core {item.core}: {len(place)} crossbars, {share:.1%} of their cells"
            parts.append(CorePart(title, tiles, self._cells(item, x, y)))
        return parts

    def _cells(self, item: _Held, x: Ints, y: Ints) -> str:
        """The programmed cells of a matrix; x, y: of its crossbars."""
        boxes = item.boxes
        if not self.is_exact:
            height = np.maximum(1, item.filled // self.columns)
            full = np.full(len(x), self.columns)
            boxes = Boxes(item.crossbars, 0 * full, self.rows - height, full, height)
        tile = np.searchsorted(item.crossbars, boxes.crossbar)
        across, down = self.size / self.columns, self.size / self.rows
        numbers = np.stack(
            [
                x[tile] + boxes.column * across,
                y[tile] + boxes.row * down,
                boxes.width * across,
                boxes.height * down,
            ],
            axis=1,
        ).round(2)
        return "".join(f"M{a:g} {b:g}h{w:g}v{h:g}h{-w:g}z" for a, b, w, h in numbers.tolist())
