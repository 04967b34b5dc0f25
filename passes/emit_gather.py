"""Streams of movement by index tables: rows are kept as long as an output row draws on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isa.catalog import Copy, Fill, Gather
from isa.operands import Region
from isa.program import Shape, Statement
from passes.draft import BufferDraft
from passes.emit import Site, deliver, move_tail, take_row
from passes.graph import MoveNode

Index = NDArray[np.int32]


def emit_gather(site: Site, node: MoveNode) -> None:
    """Pick the elements of each output row by a table from the source rows it draws on.

    Of several sources each one's elements are put side by side first, then into their places.
    """
    _, columns, channels = site.value(node.output).shape
    sources = list(_sources(site, node))
    dtype = site.value(node.output).dtype
    mixed = None
    if len(sources) > 1:
        most = int((node.index >= 0).sum(axis=(1, 2)).max())
        mixed = site.draft.buffer("mix", dtype, (1, 1, most))
    out = site.draft.buffer("out", dtype, (1, columns, channels))
    tail = move_tail(site, out)
    steps = []
    for row in range(len(node.index)):
        step: list[Statement] = []
        for source in sources:
            early, late = source.arrivals(row)
            steps += early
            step += late
        if (node.index[row] < 0).all():
            step.append(Fill(out.box(), node.fill))
        elif mixed is None:
            step.append(_picked(site, node, row, sources[0], out))
        else:
            step += _mixed(site, node, row, sources, mixed)
            step.append(_placed(site, node, row, sources, mixed, out))
        steps.append([*step, *tail.apply_all(row), *deliver(site, out, row, (0, columns))])
    steps += [arrival for source in sources for arrival in source.rest()]
    site.draft.body += [*tail.setup(), *site.roll_rows(steps)]


def _sources(site: Site, node: MoveNode) -> Iterator[_Source]:
    base = 0
    for name in node.inputs:
        size = int(np.prod(site.value(name).shape))
        own = (node.index >= base) & (node.index < base + size)
        yield _Source(site, name, np.where(own, node.index - base, -1))
        base += size


class _Source:
    """One input of a move on its core. index: the elements that are its own, -1 elsewhere."""

    def __init__(self, site: Site, name: str, index: Index) -> None:
        self.feed, self.index = site.feeds[name], index
        self.reach = source_reach(index, self.feed.shape)
        height = max(last - first for first, last in self.reach)
        shape = (height, *self.feed.shape[1:])
        is_ring = height < self.feed.shape[0]
        self.ring = site.draft.buffer("rows", site.value(name).dtype, shape, ring=is_ring)
        self._taken = 0

    def arrivals(self, row: int) -> tuple[list[list[Statement]], list[Statement]]:
        """What brings in the source rows of an output row: steps of their own, and its last one.

        A single row belongs to the step of the output row, so that the two roll into one loop.
        """
        last = self.reach[row][1]
        early: list[list[Statement]] = []
        late: list[Statement] = []
        for source_row in range(self._taken, last):
            arrival = take_row(self.feed, self.ring, source_row, source_row)
            if source_row < last - 1 or last - self._taken > 1:
                early.append(arrival)
            else:
                late += arrival
        self._taken = max(self._taken, last)
        return early, late

    def rest(self) -> list[list[Statement]]:
        """Steps that take the rows nobody needs, so that the channels end empty."""
        if self.feed.tensor is not None:
            return []
        rows = range(self._taken, self.feed.shape[0])
        return [take_row(self.feed, self.ring, row, row) for row in rows]

    def held(self, row: int) -> Region:
        """The source rows that an output row draws on."""
        first, last = self.reach[row]
        return self.ring.box(first, last - first)

    def local(self, row: int) -> Index:
        """``index`` of an output row, counted from the first row of ``held``."""
        base = self.reach[row][0] * self.feed.shape[1] * self.feed.shape[2]
        return np.where(self.index[row] < 0, -1, self.index[row] - base)


def _picked(
    site: Site, node: MoveNode, row: int, source: _Source, out: BufferDraft
) -> Copy | Gather:
    """An output row out of one source: a box of it, or element by element."""
    columns, channels = out.shape[1:]
    corner = _box_corner(source.index[row], source.feed.shape)
    if corner is not None:
        at, column, channel = corner
        taken = (column, column + columns)
        return Copy(out.box(), source.ring.box(at, 1, taken, (channel, channel + channels)))
    index = site.tables.add(f"{node.name}.index", "s32", source.local(row).ravel())
    return Gather(out.box(), source.held(row), index, node.fill)


def _mixed(
    site: Site, node: MoveNode, row: int, sources: list[_Source], mixed: BufferDraft
) -> Iterator[Gather]:
    """The elements of each source that an output row takes, in its order, side by side."""
    low = 0
    for source in sources:
        taken = source.local(row)
        taken = taken[taken >= 0]
        if len(taken):
            into = mixed.box(channels=(low, low + len(taken)))
            index = site.tables.add(f"{node.name}.index", "s32", taken)
            yield Gather(into, source.held(row), index)
            low += len(taken)


def _placed(
    site: Site,
    node: MoveNode,
    row: int,
    sources: list[_Source],
    mixed: BufferDraft,
    out: BufferDraft,
) -> Gather:
    """The elements that stand side by side, each into its place."""
    index = np.full(node.index[row].size, -1, np.int32)
    low = 0
    for source in sources:
        own = np.flatnonzero(source.index[row].ravel() >= 0)
        index[own] = np.arange(low, low + len(own))
        low += len(own)
    table = site.tables.add(f"{node.name}.place", "s32", index)
    return Gather(out.box(), mixed.box(channels=(0, low)), table, node.fill)


def _box_corner(index: Index, shape: Shape) -> tuple[int, int, int] | None:
    """(row, column, channel) of the source box that an output row is, if it is one."""
    first = int(index[0, 0])
    steps = np.add.outer(np.arange(len(index)) * shape[2], np.arange(index.shape[1]))
    if first < 0 or not np.array_equal(index, first + steps):
        return None
    row, rest = divmod(first, shape[1] * shape[2])
    column, channel = divmod(rest, shape[2])
    fits = column + len(index) <= shape[1] and channel + index.shape[1] <= shape[2]
    return (row, column, channel) if fits else None


def source_reach(index: Index, shape: Shape) -> list[tuple[int, int]]:
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
