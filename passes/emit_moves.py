"""Streams of data movement: concatenations received in place, everything else by index tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Fill
from isa.program import Statement
from passes.emit import Site, deliver, move_tail
from passes.emit_gather import emit_gather
from passes.graph import MoveNode
from passes.roll import roll

Index = NDArray[np.int32]


@dataclass(frozen=True)
class Box:
    """Where the rows of one source land, each whole, in boxes of output rows.

    rows: the output row of each source row, never falling. columns, channels: where its box
    starts there.
    """

    source: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    channels: tuple[int, ...]


def emit_move(site: Site) -> None:
    """Write the stream of a stage whose head is a MoveNode."""
    node = site.stage.head
    if not isinstance(node, MoveNode):
        raise TypeError(f"{node.name} is not a move")
    boxes = whole_row_boxes(site, node)
    if boxes is not None:
        _emit_boxes(site, node, boxes)
    else:
        emit_gather(site, node)


def whole_row_boxes(site: Site, node: MoveNode) -> list[Box] | None:
    """The move as whole source rows put side by side, or None when it is not that simple."""
    boxes, base = [], 0
    for name in node.inputs:
        shape = site.value(name).shape
        box = _source_box(node.index, name, base, shape)
        if box is None:
            return None
        boxes.append(box)
        base += int(np.prod(shape))
    return boxes


def _source_box(index: Index, name: str, base: int, shape: tuple[int, int, int]) -> Box | None:
    """Every element of a source taken once, row by row, in its own order."""
    rows, columns, channels = shape
    size = rows * columns * channels
    used = (index >= base) & (index < base + size)
    if int(used.sum()) != size:
        return None
    found = np.empty((size, 3), np.int64)
    found[index[used] - base] = np.argwhere(used)
    place = found.reshape(*shape, 3)
    corner = place[:, 0, 0]
    steps = np.stack(np.meshgrid(np.arange(columns), np.arange(channels), indexing="ij"), axis=-1)
    is_box = np.array_equal(place[..., 1:], corner[:, None, None, 1:] + steps)
    is_row = np.array_equal(place[..., 0], np.broadcast_to(corner[:, None, None, 0], shape))
    if not is_box or not is_row or (np.diff(corner[:, 0]) < 0).any():
        return None
    at_rows, at_columns, at_channels = (tuple(line.tolist()) for line in corner.T)
    return Box(name, at_rows, at_columns, at_channels)


def _emit_boxes(site: Site, node: MoveNode, boxes: list[Box]) -> None:
    rows, columns, channels = site.value(node.output).shape
    has_gaps = bool((node.index < 0).any())
    out = site.draft.buffer("out", site.value(node.output).dtype, (1, columns, channels))
    tail, whole = move_tail(site, out), (0, columns)
    steps = []
    for row in range(rows):
        step: list[Statement] = []
        if has_gaps:  # again for each row: the tail works in place, on the gaps too
            step.append(Fill(out.box(), node.fill))
        for box in boxes:
            for at in (source_row for source_row, to in enumerate(box.rows) if to == row):
                feed = site.feeds[box.source]
                step += roll(feed.receive(out, 0, at, box.columns[at], box.channels[at]), "x")
        steps.append([*step, *tail.apply_all(row), *deliver(site, out, row, whole)])
    site.draft.body += [*tail.setup(), *site.roll_rows(steps)]
