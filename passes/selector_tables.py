"""Selector tables: how many bits say which inputs a mapping's row groups read."""

from __future__ import annotations

import numpy as np

from isa.matrix import BlockMatrix, Int64
from passes.route_tables import bits_for


def selector_bits(blocks: BlockMatrix, kernel_size: int) -> int:
    """Bits of the cheapest selector table of a layer; a window reads all of it once.

    0 when all rows come in order, by channel or by kernel position: a counter makes them. Else
    plain row numbers, gaps between rows in channel order (SRE, papers.md 7.2), or a channel step
    and the number of a row pattern (Yu, 6.2). Groups of different widths also state their width.
    """
    used = blocks.rows >= 0
    rows = blocks.rows[used].astype(np.int64)
    if not len(rows):
        return 0
    channels = blocks.inputs // kernel_size
    by_channel = rows % channels * kernel_size + rows // channels
    columns = np.diff(blocks.column_start)
    widths = 0 if (columns == columns[0]).all() else blocks.groups * bits_for(columns.max() + 1)
    if _is_counted(rows) or _is_counted(by_channel):
        return widths
    plain = len(rows) * bits_for(blocks.inputs)
    gaps = _gap_bits(by_channel)
    patterns = _pattern_bits(blocks, by_channel, kernel_size)
    return widths + min(plain, gaps, plain if patterns is None else patterns)


def _is_counted(rows: Int64) -> bool:
    return bool((np.diff(rows) == 1).all())


def _gap_bits(rows: Int64) -> int:
    """Rows as gaps; one too wide takes dummy entries; a step back starts again from row 0."""
    gap = np.diff(rows, prepend=-1) - 1
    gap = np.where(gap < 0, rows, gap)
    widths = range(1, max(2, int(gap.max()).bit_length() + 1))
    return min(width * (len(rows) + int((gap >> width).sum())) for width in widths)


def _pattern_bits(blocks: BlockMatrix, by_channel: Int64, kernel_size: int) -> int | None:
    """Per group a pattern number and channel steps, and the patterns; None: rows cross channels."""
    heights = (blocks.rows >= 0).sum(axis=1)
    if kernel_size == 1 or kernel_size > 62 or not heights.all():
        return None
    first = np.cumsum(heights) - heights
    channel, position = np.divmod(by_channel, kernel_size)
    own = channel[first]
    if (channel != np.repeat(own, heights)).any():
        return None
    pattern = np.add.reduceat(np.int64(1) << position, first)
    count = len(np.unique(pattern))
    steps = blocks.groups + int(np.maximum(np.abs(np.diff(own, prepend=0)) - 1, 0).sum())
    return blocks.groups * bits_for(count) + steps + count * kernel_size
