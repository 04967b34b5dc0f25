"""Placement of stored columns in crossbars: which word lines and bit lines each run takes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Spans
from isa.target import Target

Int64 = NDArray[np.int64]


def span_width(target: Target) -> int:
    """Bit lines of a crossbar that whole operation units can use."""
    return target.column_slots * target.ou.columns


def cut_spans(blocks: BlockMatrix, target: Target) -> tuple[Int64, Int64, Int64]:
    """Cut each group's columns into runs no wider than a crossbar: (group, tile, count)."""
    width = span_width(target)
    columns = np.diff(blocks.column_start)
    tiles = -(-columns // width)
    group = np.repeat(np.arange(blocks.groups), tiles)
    tile = np.arange(len(group)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
    return group, tile, np.minimum(width, columns[group] - tile * width)


def aligned_spans(blocks: BlockMatrix, target: Target, sections: int = 1) -> Spans:
    """The regular placement of a dense layer: crossbar tiles of (row groups x columns).

    Column tile by column tile, row groups one under another, a new crossbar for each tile, as
    the closed form of an OU-tiled layer counts them: ceil(groups / row slots) * ceil(columns /
    width). Runs of different sections (convolution groups; the same number of row groups each)
    are narrow and share their word lines side by side.
    """
    group, tile, count = cut_spans(blocks, target)
    order = np.lexsort((group, tile))
    group, tile, count = group[order], tile[order], count[order]
    per_section = blocks.groups // sections
    step = -(-np.maximum.reduceat(count, _first(tile))[tile] // target.ou.columns)
    step = step * target.ou.columns
    abreast = np.minimum(sections, span_width(target) // step)
    section, level = group // per_section, group % per_section
    shelf = level * -(-sections // abreast) + section // abreast
    shelves = np.maximum.reduceat(shelf, _first(tile)) + 1
    crossbars = -(-shelves // target.row_slots)
    base = np.concatenate([[0], np.cumsum(crossbars)])[tile]
    return Spans(
        group=group.astype(np.int32),
        first=(tile * span_width(target)).astype(np.int32),
        count=count.astype(np.int32),
        crossbar=(base + shelf // target.row_slots).astype(np.int32),
        row=(shelf % target.row_slots * target.ou.rows).astype(np.int32),
        column=(section % abreast * step).astype(np.int32),
    )


def _first(tile: Int64) -> Int64:
    """Index of the first entry of each value of a sorted array that counts from 0."""
    return np.flatnonzero(np.diff(tile, prepend=-1))


def is_regular(blocks: BlockMatrix, target: Target, sections: int = 1) -> bool:
    """Whether a layer is the grid of a dense one: full row groups, each of all its outputs.

    The groups of a convolution group share a route list, unless columns are flipped one by one.
    """
    columns = np.diff(blocks.column_start)
    lists = len(blocks.routes.column_start) - 1
    return (
        blocks.rows.shape[1] == target.ou.rows
        and blocks.groups % sections == 0
        and blocks.groups > 0
        and (lists <= sections or target.weights.flip_columns)
        and int(np.ptp(columns)) <= 1  # a column of ones, maybe, in some convolution groups
        and bool((columns >= blocks.outputs // sections).all())
    )


def place(blocks: BlockMatrix, target: Target, sections: int = 1) -> Spans:
    """Places for all columns of a layer: the regular grid where it is one, else shelves."""
    if is_regular(blocks, target, sections):
        return aligned_spans(blocks, target, sections)
    return packed_spans(blocks, target)


def packed_spans(blocks: BlockMatrix, target: Target, crossbars: int | None = None) -> Spans:
    """Shelf packing of ragged groups, tallest first, cut only between operation units.

    Groups of one height follow each other on shelves of that height, left to right; where a shelf
    ends, the rest of the group goes on at the start of the next one. Shelves are dealt to
    ``crossbars`` crossbars (by default as few as hold them) so that each fires about as often.
    """
    lines = target.ou.columns
    heights = (blocks.rows >= 0).sum(axis=1)
    columns = np.diff(blocks.column_start)
    units = -(-columns // lines)
    order = np.argsort(-heights, kind="stable")
    order = order[units[order] > 0]
    classes, first = np.unique(-heights[order], return_index=True)
    if not len(order):
        return Spans.empty()
    totals = np.add.reduceat(units[order], first)
    needed = _next_fit(-(-totals // target.column_slots), -classes, target)[0][-1] + 1
    used = max(int(needed), crossbars or 0)
    shelves = _shelves(totals, -classes, used, target)
    group, begin, count, shelf, slot = _lay_out(units[order], first, totals, shelves)
    crossbar, row = _deal(shelves, -classes, used, target)
    group = order[group]
    return Spans(
        group=group.astype(np.int32),
        first=(begin * lines).astype(np.int32),
        count=np.minimum(count * lines, columns[group] - begin * lines).astype(np.int32),
        crossbar=crossbar[shelf].astype(np.int32),
        row=row[shelf].astype(np.int32),
        column=(slot * lines).astype(np.int32),
    )


def _shelves(totals: Int64, heights: Int64, crossbars: int, target: Target) -> Int64:
    """Shelves of each height, int64 [heights].

    As many on each crossbar, where it has the word lines for that, so that all are filled alike;
    short of that, for the most frequent height alone, or just as few as hold everything.
    """
    fewest: Int64 = -(-totals // target.column_slots)
    alike = np.minimum(-(-fewest // crossbars) * crossbars, totals)
    main = np.where(totals == totals.max(), alike, fewest)
    for shelves in (alike, main):
        if (-(-shelves // crossbars) * heights).sum() <= target.crossbar.rows:
            return shelves
    return fewest


def _lay_out(
    units: Int64, first: Int64, totals: Int64, shelves: Int64
) -> tuple[Int64, Int64, Int64, Int64, Int64]:
    """Cut runs of operation units at the ends of shelves.

    units: of each group, heights one after another, the first group of each at ``first``.
    Returns of each span: index of the group, first unit in it, units, shelf, first slot.
    """
    sizes = np.concatenate([_equal_shares(t, s) for t, s in zip(totals, shelves, strict=True)])
    group_ends, shelf_ends = np.cumsum(units), np.cumsum(sizes)
    ends = np.union1d(group_ends, shelf_ends)
    begins = np.concatenate([[0], ends[:-1]])
    group = np.searchsorted(group_ends, begins, side="right")
    shelf = np.searchsorted(shelf_ends, begins, side="right")
    return (
        group,
        begins - (group_ends - units)[group],
        ends - begins,
        shelf,
        begins - (shelf_ends - sizes)[shelf],
    )


def _equal_shares(total: int, shares: int) -> Int64:
    """``total`` in ``shares`` nearly equal whole parts."""
    return np.diff(np.arange(shares + 1) * total // shares)


def _deal(shelves: Int64, heights: Int64, crossbars: int, target: Target) -> tuple[Int64, Int64]:
    """Crossbar and first word line of every shelf.

    Dealt back and forth over the crossbars, tallest first; where that needs more word lines than
    a crossbar has, the shelves fill one crossbar after another.
    """
    height = np.repeat(heights, shelves)
    index = np.arange(len(height))
    lap, seat = np.divmod(index, crossbars)
    crossbar = np.where(lap % 2 == 0, seat, crossbars - 1 - seat)
    order = np.lexsort((index, crossbar))
    above = np.cumsum(height[order]) - height[order]
    owner = crossbar[order]
    is_first = np.diff(owner, prepend=-1) != 0
    row = np.empty_like(height)
    row[order] = above - above[is_first][np.cumsum(is_first) - 1]
    if (row + height <= target.crossbar.rows).all():
        return crossbar, row
    return _next_fit(shelves, heights, target)


def _next_fit(shelves: Int64, heights: Int64, target: Target) -> tuple[Int64, Int64]:
    """Crossbar and first word line of every shelf, one crossbar filled after another."""
    crossbar, line = 0, 0
    crossbars, rows = [], []
    for count, height in zip(shelves.tolist(), heights.tolist(), strict=True):
        room = (target.crossbar.rows - line) // height
        per_crossbar = target.crossbar.rows // height
        later = np.maximum(np.arange(count) - room, 0)
        is_here = np.arange(count) < room
        crossbars.append(np.where(is_here, crossbar, crossbar + 1 + later // per_crossbar))
        rows.append(
            np.where(is_here, line + np.arange(count) * height, later % per_crossbar * height)
        )
        crossbar, line = int(crossbars[-1][-1]), int(rows[-1][-1]) + height
    return np.concatenate(crossbars), np.concatenate(rows)
