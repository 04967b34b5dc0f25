"""Streams of data movement: concatenations received in place, everything else by index tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Copy, Fill, Gather
from isa.diagnostics import Diagnostic, Location, PimError
from isa.program import Statement
from passes.draft import BufferDraft
from passes.emit import Site, Tail, deliver, take_row
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
    tail, whole = _tail(site, out), (0, columns)
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
    tail, whole = _tail(site, out), (0, columns)
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
        corner = _taken_box(node.index[row], feed.shape)
        if corner is not None:
            at, column, channel = corner
            taken_columns = (column, column + columns)
            box = ring.box(at, 1, taken_columns, (channel, channel + channels))
            step.append(Copy(out.box(), box))
        else:
            local = node.index[row] - first * row_size
            table = np.where(node.index[row] < 0, -1, local).ravel()
            index = site.tables.add(f"{node.name}.index", "s32", table)
            source = ring.box(first, last - first)
            step.append(Gather(out.box(), source, index, node.fill))
        steps.append([*step, *tail.apply_all(row), *deliver(site, out, row, whole)])
    if feed.tensor is None:
        steps += [take_row(feed, ring, row, row) for row in range(taken, feed.shape[0])]
    site.draft.body += [*tail.setup(), *roll(steps, "y")]


def _tail(site: Site, out: BufferDraft) -> Tail:
    """The tail for a row that ``out`` holds whole: applied by the pieces that its operands are."""
    pieces = site.wiring.chunks(site.stage.output)
    return Tail(site, out, max(last - first for first, last in pieces))


def _taken_box(index: Index, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """(row, column, channel) of the source box that an output row is, if it is one."""
    first = int(index[0, 0])
    steps = np.add.outer(np.arange(len(index)) * shape[2], np.arange(index.shape[1]))
    if first < 0 or not np.array_equal(index, first + steps):
        return None
    row, rest = divmod(first, shape[1] * shape[2])
    column, channel = divmod(rest, shape[2])
    fits = column + len(index) <= shape[1] and channel + index.shape[1] <= shape[2]
    return (row, column, channel) if fits else None


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
