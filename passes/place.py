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
