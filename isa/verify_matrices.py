"""Checks of matrices: arrays that fit together, selectors and routes in range, cells in place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isa.matrix import BlockMatrix
from isa.printer import quoted
from isa.program import Core, Matrix, Program
from isa.same_program import same_blocks
from isa.target import Target
from isa.verify_scope import Scope

Int64 = NDArray[np.int64]
MAX_SHIFT = 30  # of a route; sums have 32 bits


def check_matrices(scope: Scope) -> None:
    """Note everything that is wrong with the matrices of a program and their places."""
    for core in scope.distinct_cores():
        sound = [matrix for matrix in core.matrices if _check_matrix(scope, core, matrix)]
        _check_overlap(scope, core, sound)


def clipping_columns(program: Program, target: Target) -> dict[tuple[int, str], int]:
    """Stored columns whose largest sum exceeds the ADC, by (core, matrix); only where any are.

    Not an error: such a program clips, and says so in its counters.
    """
    found = {}
    for core in program.cores:
        for matrix in core.matrices:
            count = int(np.count_nonzero(matrix.blocks.largest_sums() > target.adc_max))
            if count:
                found[core.index, matrix.name] = count
    return found


def _check_matrix(scope: Scope, core: Core, matrix: Matrix) -> bool:
    """Note what is wrong with one matrix; False when its arrays cannot be used further."""
    blocks = matrix.blocks

    def error(code: str, message: str) -> None:
        text = f"matrix {quoted(matrix.name)} of core {core.index}: {message}"
        scope.declared(code, text, "matrix", core.index, matrix.name)

    broken = list(structure_problems(blocks))
    for problem in broken:
        error("V408", problem)
    if broken:
        return False
    before = len(scope.findings)
    for problem in _range_problems(blocks):
        error("V409", problem)
    for problem in (*_size_problems(matrix), *_copy_problems(scope, matrix)):
        error("V404", problem)
    target = scope.target
    if blocks.cell_bits > target.crossbar.cell_bits:
        held = target.crossbar.cell_bits
        error("V409", f"has cells of {blocks.cell_bits} bits; `{target.name}` holds {held}")
    for problem in _place_problems(blocks, target):
        error("V410", problem)
    for problem in _coverage_problems(blocks):
        error("V412", problem)
    return len(scope.findings) == before


def structure_problems(blocks: BlockMatrix) -> Iterator[str]:
    """Why the arrays of a block matrix do not fit together; nothing when they do."""
    routes, spans = blocks.routes, blocks.spans
    groups, columns, slots = len(blocks.rows), len(blocks.cells), len(routes.start) - 1
    lists = len(routes.column_start) - 1
    if blocks.rows.ndim != 2 or blocks.cells.ndim != 3:
        yield "rows have to be [groups, lines] and cells [columns, bits, bytes]"
        return
    if blocks.cells.shape[1:] != (blocks.cell_bits, -(-blocks.rows.shape[1] // 8)):
        yield (
            f"cells {list(blocks.cells.shape)} do not hold {blocks.cell_bits} bits of "
            f"{blocks.rows.shape[1]} word lines"
        )
    if not 1 <= blocks.cell_bits <= 8:
        yield f"{blocks.cell_bits} bits in a cell; 1 to 8 are possible"
    starts = (
        ("column_start", blocks.column_start, groups, columns),
        ("routes.column_start", routes.column_start, lists, slots),
        ("routes.start", routes.start, slots, len(routes.output)),
    )
    sound = True
    for name, start, length, last in starts:
        if len(start) != length + 1 or len(start) < 1 or start[0] != 0 or start[-1] != last or (
            np.diff(start) < 0
        ).any():  # fmt: skip
            yield f"{name} does not rise from 0 to {last} in {length} steps"
            sound = False
    if len({len(routes.output), len(routes.shift), len(routes.sign)}) > 1:
        yield "outputs, shifts and signs of the routes differ in number"
    if len({len(axis) for axis in vars(spans).values()}) > 1:
        yield "the arrays of the spans differ in length"
    if len(blocks.routing) != groups or not _within(blocks.routing, 0, lists):
        yield f"routing does not name one of {lists} route lists for each of {groups} groups"
    elif (
        sound
        and (np.diff(blocks.column_start) != np.diff(routes.column_start)[blocks.routing]).any()
    ):
        yield "a group has another number of columns than its route list"


def _within(values: NDArray[np.integer], low: int, stop: int) -> bool:
    return not len(values) or bool(values.min() >= low and values.max() < stop)


def _range_problems(blocks: BlockMatrix) -> Iterator[str]:
    rows, routes = blocks.rows, blocks.routes
    if not _within(rows.ravel(), -1, blocks.inputs):
        bad = rows[(rows < -1) | (rows >= blocks.inputs)][0]
        yield f"a selector names input {bad}, outside 0..{blocks.inputs}"
    if ((rows[:, :-1] < 0) & (rows[:, 1:] >= 0)).any():
        yield "an unused word line stands before a used one"
    if not _within(routes.output, 0, blocks.outputs):
        bad = routes.output[(routes.output < 0) | (routes.output >= blocks.outputs)][0]
        yield f"a route leads to output {bad}, outside 0..{blocks.outputs}"
    if not _within(routes.shift, 0, MAX_SHIFT + 1):
        yield f"a route shifts by {routes.shift.max()}; sums have 32 bits"
    if (np.abs(routes.sign) != 1).any():
        yield "the sign of a route is neither +1 nor -1"
    if _cells_on_unused_lines(blocks):
        yield "a cell on an unused word line is not 0"


def _cells_on_unused_lines(blocks: BlockMatrix) -> bool:
    used = np.packbits(blocks.rows >= 0, axis=1, bitorder="little")
    full = (used == 0xFF).all(axis=1)
    if full.all():
        return False
    columns = np.diff(blocks.column_start)
    partial = np.repeat(~full, columns)
    unused = ~np.repeat(used[~full], columns[~full], axis=0)[:, None, :]
    return bool((blocks.cells[partial] & unused).any())


def _size_problems(matrix: Matrix) -> Iterator[str]:
    blocks = matrix.blocks
    inputs = matrix.inputs[1] - matrix.inputs[0]
    outputs = matrix.outputs[1] - matrix.outputs[0]
    if inputs < 1 or blocks.inputs % inputs:
        yield f"{blocks.inputs} rows are no multiple of its {inputs} input channels"
    if outputs != blocks.outputs:
        yield f"{blocks.outputs} columns are not its {outputs} output channels"


def _copy_problems(scope: Scope, matrix: Matrix) -> Iterator[str]:
    """Why a matrix cannot be a copy of the one it names."""
    if not matrix.of:
        return
    original = scope.matrix_named(matrix.of)
    if original is None:
        yield f"is a copy of {quoted(matrix.of)}, which is not declared"
    elif (original.layer, original.inputs, original.outputs) != (
        matrix.layer,
        matrix.inputs,
        matrix.outputs,
    ):
        yield f"is a copy of {quoted(matrix.of)}, which covers another part or another layer"
    elif not same_blocks(original.blocks, matrix.blocks):
        yield f"is a copy of {quoted(matrix.of)}, but its blocks are others"


def _heights(blocks: BlockMatrix) -> Int64:
    """Word lines that each group takes, int64 [groups]."""
    heights: Int64 = (blocks.rows >= 0).sum(axis=1, dtype=np.int64)
    return heights


def _place_problems(blocks: BlockMatrix, target: Target) -> Iterator[str]:
    spans, heights = blocks.spans, _heights(blocks)
    if (tallest := int(heights.max(initial=0))) > target.ou.rows:
        yield f"a row group drives {tallest} word lines; an OU has {target.ou.rows}"
    if not len(spans.group):
        return
    if not _within(spans.group, 0, blocks.groups):
        yield f"a span names a group outside 0..{blocks.groups}"
        return
    counts = np.diff(blocks.column_start)[spans.group]
    ends = spans.first.astype(np.int64) + spans.count
    if (spans.first < 0).any() or (spans.count < 1).any() or (ends > counts).any():
        yield "a span takes columns that its group does not have"
    if not _within(spans.crossbar, 0, target.crossbars_per_core):
        bad = int(spans.crossbar.max()) if spans.crossbar.min() >= 0 else int(spans.crossbar.min())
        yield f"crossbar {bad} is outside 0..{target.crossbars_per_core} of a core"
    for name, start, size, limit in (
        ("word lines", spans.row, heights[spans.group], target.crossbar.rows),
        ("bit lines", spans.column, spans.count, target.crossbar.columns),
    ):
        stops = start.astype(np.int64) + size
        outside = np.flatnonzero((start < 0) | (stops > limit))
        if len(outside):
            first = outside[0]
            yield f"{name} {start[first]}..{stops[first]} are outside 0..{limit} of a crossbar"


def _coverage_problems(blocks: BlockMatrix) -> Iterator[str]:
    """Every stored column has one place."""
    spans = blocks.spans
    if not _within(spans.group, 0, blocks.groups):
        return  # noted already
    starts = blocks.column_start[spans.group] + spans.first
    stops = starts + spans.count
    if not _within(starts, 0, blocks.columns + 1) or not _within(stops, 0, blocks.columns + 1):
        return  # noted already
    change = np.zeros(blocks.columns + 1, np.int64)
    np.add.at(change, starts, 1)
    np.add.at(change, stops, -1)
    times = np.cumsum(change)[:-1]
    for what, bad in (("no place", times < 1), ("more than one place", times > 1)):
        if bad.any():
            column = int(np.argmax(bad))
            group = int(np.searchsorted(blocks.column_start, column, side="right")) - 1
            index = column - int(blocks.column_start[group])
            count = int(bad.sum())
            yield f"{count} stored columns have {what}, first column {index} of group {group}"


def _check_overlap(scope: Scope, core: Core, matrices: list[Matrix]) -> None:
    """No cell of the core holds two stored cells: rectangles are counted by their corners."""
    target = scope.target
    shape = (target.crossbar.rows + 1, target.crossbar.columns + 1)
    used = max((matrix.blocks.crossbars for matrix in matrices), default=0)
    change = np.zeros((used, *shape), np.int32)
    for matrix in matrices:
        spans = matrix.blocks.spans
        low = (spans.row, spans.column)
        high = (spans.row + _heights(matrix.blocks)[spans.group], spans.column + spans.count)
        for rows, columns, value in (
            (low[0], low[1], 1), (high[0], low[1], -1), (low[0], high[1], -1), (high[0], high[1], 1)
        ):  # fmt: skip
            np.add.at(change, (spans.crossbar, rows, columns), value)
    held = change.cumsum(axis=1).cumsum(axis=2)
    if (held <= 1).all():
        return
    crossbar, row, column = (int(i) for i in np.argwhere(held > 1)[0])
    names = [quoted(m.name) for m in matrices if _covers(m.blocks, crossbar, row, column)]
    message = (
        f"word line {row}, bit line {column} of crossbar {crossbar} of core {core.index} is "
        f"taken more than once, by {' and '.join(names)}"
    )
    scope.declared("V411", message, "core", None, str(core.index))


def _covers(blocks: BlockMatrix, crossbar: int, row: int, column: int) -> bool:
    spans = blocks.spans
    rows = _heights(blocks)[spans.group]
    return bool(
        (
            (spans.crossbar == crossbar)
            & (spans.row <= row) & (row < spans.row + rows)
            & (spans.column <= column) & (column < spans.column + spans.count)
        ).any()
    )  # fmt: skip
