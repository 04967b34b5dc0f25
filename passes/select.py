"""A part of a block matrix: some row groups, some outputs, some input channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Routes, Spans, UInt8

Int64 = NDArray[np.int64]


def select_groups(blocks: BlockMatrix, groups: Int64) -> BlockMatrix:
    """The row groups ``groups`` (sorted indices); route lists that nobody uses are dropped."""
    columns = np.diff(blocks.column_start)[groups]
    start = np.concatenate([[0], np.cumsum(columns)])
    index = np.arange(start[-1]) + np.repeat(blocks.column_start[groups] - start[:-1], columns)
    lists, routing = np.unique(blocks.routing[groups], return_inverse=True)
    return replace(
        blocks,
        rows=blocks.rows[groups],
        cells=blocks.cells[index],
        column_start=start,
        routing=routing.astype(np.int32),
        routes=_select_lists(blocks.routes, lists.astype(np.int64)),
        spans=Spans.empty(),
    )


def _select_lists(routes: Routes, lists: Int64) -> Routes:
    """The route lists ``lists`` in that order."""
    if len(lists) == len(routes.column_start) - 1:
        return routes
    slots = _ranges(routes.column_start[lists], routes.column_start[lists + 1])
    taken = _ranges(routes.start[slots], routes.start[slots + 1])
    return Routes(
        column_start=_starts(np.diff(routes.column_start)[lists]),
        start=_starts(np.diff(routes.start)[slots]),
        output=routes.output[taken],
        shift=routes.shift[taken],
        sign=routes.sign[taken],
    )


def select_outputs(blocks: BlockMatrix, first: int, last: int) -> BlockMatrix:
    """Only the routes to outputs first..last, renumbered from 0; columns left without one go."""
    if (first, last) == (0, blocks.outputs):
        return blocks
    routes = blocks.routes
    slot_of_route = np.repeat(np.arange(len(routes.start) - 1), np.diff(routes.start))
    kept = (routes.output >= first) & (routes.output < last)
    per_slot = np.bincount(slot_of_route[kept], minlength=len(routes.start) - 1)
    used = per_slot > 0
    cells, start = _columns_of_slots(blocks, used)
    narrowed = Routes(
        column_start=np.concatenate([[0], np.cumsum(used)])[routes.column_start],
        start=_starts(per_slot[used]),
        output=(routes.output[kept] - first).astype(np.int32),
        shift=routes.shift[kept],
        sign=routes.sign[kept],
    )
    part = replace(
        blocks,
        outputs=last - first,
        cells=cells,
        column_start=start,
        routes=narrowed,
        spans=Spans.empty(),
    )
    occupied = np.flatnonzero(np.diff(start))
    return part if len(occupied) == blocks.groups else select_groups(part, occupied)


def _columns_of_slots(blocks: BlockMatrix, used: NDArray[np.bool_]) -> tuple[UInt8, Int64]:
    """Cells of the stored columns whose route slot is used, and where each group's start."""
    slots = len(used)
    if len(blocks.routes.column_start) == 2 and blocks.columns == blocks.groups * slots:
        # one list for all groups, as in dense layers: the same columns of every group
        grouped = blocks.cells.reshape(blocks.groups, slots, *blocks.cells.shape[1:])
        cells = grouped[:, np.flatnonzero(used)].reshape(-1, *blocks.cells.shape[1:])
        return cells, np.arange(blocks.groups + 1, dtype=np.int64) * int(used.sum())
    stored = used[blocks.slot_of_column()]
    return blocks.cells[stored], np.concatenate([[0], np.cumsum(stored)])[blocks.column_start]


def input_channels(blocks: BlockMatrix, channels: int) -> tuple[int, int]:
    """(start, stop) of the input channels that the selectors touch; (0, 1) when they touch none."""
    used = blocks.rows[blocks.rows >= 0] % channels
    return (int(used.min()), int(used.max()) + 1) if len(used) else (0, 1)


def select_channels(blocks: BlockMatrix, channels: int, first: int, last: int) -> BlockMatrix:
    """The same blocks over a window that holds only input channels first..last of ``channels``."""
    if (first, last) == (0, channels):
        return blocks
    position, channel = np.divmod(blocks.rows, channels)
    rows = np.where(blocks.rows < 0, -1, position * (last - first) + channel - first)
    inputs = blocks.inputs // channels * (last - first)
    return replace(blocks, inputs=inputs, rows=rows.astype(np.int32))


def _ranges(first: Int64, last: Int64) -> Int64:
    """The integers of all ranges first[i]..last[i], one after another."""
    counts = last - first
    offsets = np.cumsum(counts) - counts
    indices: Int64 = np.arange(int(counts.sum())) + np.repeat(first - offsets, counts)
    return indices


def _starts(counts: Int64) -> Int64:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
