"""Inline matrices: row groups, places, stored columns and routes as lines of text.

A column is a binary number or a list: digit ``r`` is the cell on word line ``r`` of its group.
An ``at`` line places all columns that follow it, up to the next ``at`` line or group; with
``columns=a..b`` it places just those columns of its group. Sharing of route lists is a matter of
encoding: it is not written, and found again when the text is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix, Routes, Spans, pack_cells
from isa.syntax_tree import At, Axis, Column, Group, Node, Range, SyntaxFault, whole_numbers

MAX_LINES: Final = 4096  # word lines of a crossbar
MAX_CELL_BITS: Final = 8
_RUN: Final = 3  # consecutive numbers from which `a..b` is the shorter way to write them


def print_blocks(head: str, blocks: BlockMatrix) -> Iterator[str]:
    """The lines of an inline matrix, after its directive ``head``."""
    lines = blocks.rows.shape[1]
    lengths = ((blocks.rows >= 0) * np.arange(1, lines + 1)).max(axis=1, initial=0)
    unused = np.arange(lines) >= np.repeat(lengths, np.diff(blocks.column_start))[:, None]
    if blocks.cell_bits != 1:
        head += f" cell_bits={blocks.cell_bits}"
    if lines != lengths.max(initial=0) or (blocks.cell_values() * unused).any():
        head += f" lines={lines}"
    yield head + ":"
    slots = blocks.slot_of_column()
    for group, length in enumerate(lengths.tolist()):
        yield f"    group {selector_text(blocks.rows[group, :length].tolist())}"
        first, stop = (int(c) for c in blocks.column_start[group : group + 2])
        places = _places(blocks, group, stop - first)
        yield from places.get(-1, ())
        cells = blocks.cell_values(first, stop)
        for index in range(stop - first):
            yield from places.get(index, ())
            slot = int(slots[first + index])
            text = _cells_text(cells[index].tolist(), length, blocks.cell_bits)
            yield f"      {text}{_routes_text(blocks.routes, slot)}"


def selector_text(rows: Sequence[int]) -> str:
    """A list of numbers, runs of consecutive ones as ``a..b``."""
    parts: list[str] = []
    at = 0
    while at < len(rows):
        stop = at + 1
        while stop < len(rows) and rows[stop] == rows[stop - 1] + 1 and rows[at] >= 0:
            stop += 1
        if stop - at >= _RUN:
            parts.append(f"{rows[at]}..{rows[at] + stop - at}")
        else:
            parts += [str(row) for row in rows[at:stop]]
        at = stop
    return f"[{' '.join(parts)}]"


def _places(blocks: BlockMatrix, group: int, columns: int) -> dict[int, list[str]]:
    """Lines of a group's places by the column they stand before, -1: before all columns."""
    spans = blocks.spans
    mine = [
        (int(spans.first[s]), int(spans.count[s]), f"at x{spans.crossbar[s]}"
         f"[{spans.row[s]}, {spans.column[s]}]")
        for s in np.flatnonzero(spans.group == group)
    ]  # fmt: skip
    mine.sort(key=lambda place: place[:2])
    ends = [first + count for first, count, _ in mine]
    tiled = [first for first, _, _ in mine[1:]] == ends[:-1] and (not ends or ends[-1] == columns)
    if tiled and all(count > 0 for _, count, _ in mine):
        return {first: [f"      {text}"] for first, _, text in mine}
    return {-1: [f"      {text} columns={a}..{a + count}" for a, count, text in mine]}


def _cells_text(cells: Sequence[int], length: int, cell_bits: int) -> str:
    shown = cells if any(cells[length:]) else cells[:length]
    if cell_bits == 1 and shown:
        return "0b" + "".join(str(cell) for cell in shown)
    return f"[{' '.join(str(cell) for cell in shown)}]"


def _routes_text(routes: Routes, slot: int) -> str:
    texts = []
    for n in range(int(routes.start[slot]), int(routes.start[slot + 1])):
        shift = f"<<{routes.shift[n]}" if routes.shift[n] else ""
        texts.append(f"{'-' if routes.sign[n] < 0 else '+'}{routes.output[n]}{shift}")
    return f" -> {' '.join(texts)}" if texts else ""


RouteKey = tuple[tuple[int, int, int], ...]  # (output, shift, sign) of one column


@dataclass
class _GroupDraft:
    rows: list[int]
    cells: list[tuple[int, ...]] = field(default_factory=list)
    routes: list[RouteKey] = field(default_factory=list)
    open_place: tuple[int, int, int, int] | None = None  # crossbar, row, column, first


@dataclass
class BlocksDraft:
    """An inline matrix while its lines are read.

    lines: word lines of a group, None for as many as the longest group has.
    """

    inputs: int
    outputs: int
    cell_bits: int
    lines: int | None
    groups: list[_GroupDraft] = field(default_factory=list)
    places: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)

    def take(self, node: Group | At | Column | Node) -> None:
        """Add one line. Raises SyntaxFault E310 when it cannot stand here or holds nonsense."""
        if isinstance(node, Group):
            self._close_place()
            self.groups.append(_GroupDraft(self._selector(node)))
        elif not self.groups:
            raise SyntaxFault("E310", "expected `group [inputs]` first", node.column, node.end)
        elif isinstance(node, At):
            self._take_place(node)
        elif isinstance(node, Column):
            self._take_column(node)
        else:
            message = "expected `group`, `at` or a stored column of the matrix"
            raise SyntaxFault("E310", message, node.column, node.end)

    def finish(self) -> BlockMatrix:
        """The matrix that the lines describe."""
        self._close_place()
        longest = max((len(group.rows) for group in self.groups), default=0)
        tallest = max((len(c) for group in self.groups for c in group.cells), default=0)
        lines = max(longest, tallest) if self.lines is None else self.lines
        rows = np.full((len(self.groups), lines), -1, np.int32)
        columns = [len(group.cells) for group in self.groups]
        cells = np.zeros((sum(columns), lines), np.uint8)
        at = 0
        for index, group in enumerate(self.groups):
            rows[index, : len(group.rows)] = group.rows
            for column in group.cells:
                cells[at, : len(column)] = column
                at += 1
        routing, routes = _share_routes([tuple(group.routes) for group in self.groups])
        spans = np.array(self.places, np.int32).reshape(-1, 6).T
        return BlockMatrix(
            inputs=self.inputs,
            outputs=self.outputs,
            cell_bits=self.cell_bits,
            rows=rows,
            cells=pack_cells(cells, self.cell_bits),
            column_start=np.concatenate([[0], np.cumsum(columns)]).astype(np.int64),
            routing=routing,
            routes=routes,
            spans=Spans(*(np.ascontiguousarray(axis) for axis in spans)),
        )

    def _selector(self, node: Group) -> list[int]:
        rows = whole_numbers(node.rows)
        limit = MAX_LINES if self.lines is None else self.lines
        if len(rows) > limit:
            message = f"{len(rows)} word lines; a group has at most {limit}"
            raise SyntaxFault("E310", message, node.rows.column, node.rows.end)
        for row in rows:
            if not -1 <= row < self.inputs:
                message = f"input {row} is outside 0..{self.inputs}"
                raise SyntaxFault("E310", message, node.rows.column, node.rows.end)
        return rows

    def _take_place(self, node: At) -> None:
        crossbar = node.box.name.text
        numbers = [axis_number(axis) for axis in node.box.axes]
        is_crossbar = crossbar[:1] == "x" and crossbar[1:].isdecimal() and len(crossbar) < 8
        if not is_crossbar or len(numbers) != 2 or any(n is None for n in numbers):
            message = "expected a place like `x0[word line, bit line]`"
            raise SyntaxFault("E310", message, node.box.column, node.box.end)
        row, column = (int(number or 0) for number in numbers)
        if max(row, column) >= 1 << 31:
            raise SyntaxFault("E310", "the place is too large", node.box.column, node.box.end)
        place = (int(crossbar[1:]), row, column)
        if not node.attributes:
            self._close_place()
            self.groups[-1].open_place = (*place, len(self.groups[-1].cells))
            return
        attribute, *more = node.attributes
        value = attribute.value
        if attribute.key != "columns" or more or not isinstance(value, Range):
            message = "expected `columns=a..b` and nothing else"
            raise SyntaxFault("E310", message, attribute.column, attribute.end)
        if not 0 <= value.start <= value.stop < 1 << 31:
            message = f"`{value.start}..{value.stop}` is no range of columns"
            raise SyntaxFault("E310", message, value.column, value.end)
        group = len(self.groups) - 1
        self.places.append((group, value.start, value.stop - value.start, *place))

    def _close_place(self) -> None:
        """The columns since the last open place belong to it."""
        if self.groups and (place := self.groups[-1].open_place) is not None:
            *where, first = place
            count = len(self.groups[-1].cells) - first
            self.places.append((len(self.groups) - 1, first, count, *where))  # type: ignore[arg-type]
            self.groups[-1].open_place = None

    def _take_column(self, node: Column) -> None:
        limit = self.lines or max(len(self.groups[-1].rows), 1)
        if len(node.cells) > limit:
            message = f"{len(node.cells)} cells; the group has {limit} word lines"
            raise SyntaxFault("E310", message, node.column, node.end)
        largest = (1 << self.cell_bits) - 1
        if any(not 0 <= cell <= largest for cell in node.cells):
            message = f"a cell of {self.cell_bits} bits holds 0 to {largest}"
            hint = None if self.cell_bits > 1 else "write `cell_bits=2` for wider cells"
            raise SyntaxFault("E310", message, node.column, node.end, hint)
        for route in node.routes:
            if route.output >= self.outputs:
                message = f"output {route.output} is outside 0..{self.outputs}"
                raise SyntaxFault("E310", message, route.column, route.end)
            if route.shift > 30:
                message = f"shift {route.shift} is above 30, the sums have 32 bits"
                raise SyntaxFault("E310", message, route.column, route.end)
        self.groups[-1].cells.append(node.cells)
        self.groups[-1].routes.append(tuple((r.output, r.shift, r.sign) for r in node.routes))


def axis_number(axis: Axis) -> int | None:
    """The number of an axis that is one plain non-negative number, else None."""
    if axis.start is None or axis.stop is not None or axis.ring or axis.start.terms:
        return None
    return axis.start.constant if axis.start.constant >= 0 else None


def _share_routes(groups: list[tuple[RouteKey, ...]]) -> tuple[NDArray[np.int32], Routes]:
    """The route list of each group, equal lists stored once, and the lists."""
    lists: dict[tuple[RouteKey, ...], int] = {}
    routing = [lists.setdefault(group, len(lists)) for group in groups]
    slots = [column for columns in lists for column in columns]
    flat = [route for column in slots for route in column]
    routes = Routes(
        column_start=np.concatenate([[0], np.cumsum([len(c) for c in lists])]).astype(np.int64),
        start=np.concatenate([[0], np.cumsum([len(column) for column in slots])]).astype(np.int64),
        output=np.array([output for output, _, _ in flat], np.int32),
        shift=np.array([shift for _, shift, _ in flat], np.uint8),
        sign=np.array([sign for _, _, sign in flat], np.int8),
    )
    return np.array(routing, np.int32), routes
