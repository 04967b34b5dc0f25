"""Streams of data movement: concatenations received in place, everything else by index tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Fill, Gather
from isa.diagnostics import Diagnostic, Location, PimError
from isa.program import Statement
from passes.emit import Site, Tail, deliver, take_row
from passes.graph import MoveNode
from passes.roll import roll

Index = NDArray[np.int32]


@dataclass(frozen=True)
class Box:
    """Rows of one source that land whole in one box of the output.

    rows: for each output row the source row that it holds, or -1. column, channel: where.
    """

    source: str
    rows: tuple[int, ...]
    column: int
    channel: int


def emit_move(site: Site) -> None:
    """Write the stream of a stage whose head is a MoveNode.

    Raises PimError M605 when several inputs are mixed in a way that is not a concatenation.
    """
    node = site.stage.head
    if not isinstance(node, MoveNode):
        raise TypeError(f"{node.name} is not a move")
    boxes = whole_row_boxes(site, node)
    if boxes is not None:
        _emit_boxes(site, node, boxes)
    elif len(node.inputs) == 1:
        _emit_gather(site, node)
    else:
        raise PimError(
            Diagnostic(
                "M605",
                f"`{node.name}` mixes the elements of {len(node.inputs)} inputs within a row",
                at=Location(node=node.name),
                hint="concatenate along the channels, the columns or the rows and transpose after",
            )
        )


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
    rows, columns, channels = shape
    size = rows * columns * channels
    used = (index >= base) & (index < base + size)
    if int(used.sum()) != size:
        return None
    at_rows = np.flatnonzero(used.any(axis=(1, 2)))
    if len(at_rows) != rows:
        return None
    column = int(np.flatnonzero(used[at_rows[0]].any(axis=1))[0])
    channel = int(np.flatnonzero(used[at_rows[0]].any(axis=0))[0])
    held = index[at_rows, column : column + columns, channel : channel + channels]
    expected = base + np.arange(size, dtype=np.int64).reshape(shape)
    if held.shape != shape or not np.array_equal(held, expected):
        return None
    source_row = np.full(len(index), -1)
    source_row[at_rows] = np.arange(rows)
    return Box(name, tuple(source_row.tolist()), column, channel)


def _emit_boxes(site: Site, node: MoveNode, boxes: list[Box]) -> None:
    rows, columns, channels = site.value(node.output).shape
    has_gaps = bool((node.index < 0).any())
    out = site.draft.buffer("out", site.value(node.output).dtype, (1, columns, channels))
    tail, whole = Tail(site, out), (0, columns)
    steps = []
    for row in range(rows):
        step: list[Statement] = []
        landing = [box for box in boxes if box.rows[row] >= 0]
        if has_gaps:  # again for each row: the tail works in place, on the gaps too
            step.append(Fill(out.box(), node.fill))
        for box in landing:
            feed = site.feeds[box.source]
            pieces = feed.receive(out, 0, box.rows[row], box.column, box.channel)
            step += roll(pieces, "x")
        steps.append([*step, *tail.apply(row, whole), *deliver(site, out, row, whole)])
    site.draft.body += [*tail.setup(), *roll(steps, "y")]


def _emit_gather(site: Site, node: MoveNode) -> None:
    """Keep the source rows that an output row draws on, and pick its elements by a table."""
    name = node.inputs[0]
    feed = site.feeds[name]
    _, columns, channels = site.value(node.output).shape
    reach = source_reach(node.index, feed.shape)
    height = max(last - first for first, last in reach)
    ring = site.draft.buffer(
        "rows", site.value(name).dtype, (height, *feed.shape[1:]), ring=height < feed.shape[0]
    )
    out = site.draft.buffer("out", site.value(node.output).dtype, (1, columns, channels))
    tail, whole = Tail(site, out), (0, columns)
    steps, taken = [], 0
    row_size = feed.shape[1] * feed.shape[2]
    for row, (first, last) in enumerate(reach):
        step: list[Statement] = []
        for source_row in range(taken, last):
            arrival = take_row(feed, ring, source_row, source_row)
            if source_row < last - 1 or last - taken > 1:
                steps.append(arrival)
            else:
                step += arrival
        taken = max(taken, last)
        local = node.index[row] - first * row_size
        table = np.where(node.index[row] < 0, -1, local).ravel()
        index = site.tables.add(f"{node.name}.index", "s32", table)
        source = ring.box(first, last - first)
        step.append(Gather(out.box(), source, index, node.fill))
        steps.append([*step, *tail.apply(row, whole), *deliver(site, out, row, whole)])
    if feed.tensor is None:
        steps += [take_row(feed, ring, row, row) for row in range(taken, feed.shape[0])]
    site.draft.body += [*tail.setup(), *roll(steps, "y")]


def source_reach(index: Index, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """(first, stop) of the source rows of each output row; both never fall.

    When a later output row reaches back, earlier rows keep the older source rows too.
    """
    row_size = shape[1] * shape[2]
    flat = index.reshape(len(index), -1)
    rows = np.where(flat < 0, -1, flat // row_size)
    last = np.maximum.accumulate(np.maximum(rows.max(axis=1), 0)) + 1
    lowest = np.where(flat < 0, shape[0], flat // row_size).min(axis=1)
    first = np.minimum.accumulate(lowest[::-1])[::-1]
    first = np.minimum(first, last - 1)
    return [(int(a), int(b)) for a, b in zip(first, last, strict=True)]
