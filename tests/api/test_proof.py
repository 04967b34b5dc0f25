"""The proof of a compile notices each single changed cell, selector, route, shift and sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isa.diagnostics import PimError
from isa.matrix import BlockMatrix
from isa.program import Program
from isa.target import load_target
from passes.graph import Graph, MatrixNode, Value
from passes.manager import run_passes
from passes.pipelines import MAPPINGS, pipeline
from pimc.proof import check_conversions, check_reconstruction

TARGET = load_target("tiny")


def small_graph() -> Graph:
    """A grouped convolution, 3x3, 4 -> 6 channels in 2 groups."""
    values = {
        "x": Value("x", "s8", (5, 5, 4), 0.1, 3, "x", (4, 5, 5), (1, 2, 0)),
        "y": Value("y", "s8", (3, 3, 6), 0.1, 0, "y", (6, 3, 3), (1, 2, 0)),
    }
    weights = np.random.default_rng(2).integers(-128, 128, (6, 3, 3, 2)).astype(np.int16)
    weights[0, 0, 0, 0] = -128
    scale = np.full(1, 1e-3, np.float32)
    node = MatrixNode("conv", ("x",), "y", weights, np.zeros(6, np.int32), scale, groups=2)
    return Graph(("x",), ("y",), (node,), values)


GRAPH = small_graph()
PROGRAMS = {
    mapping: run_passes(GRAPH, pipeline(TARGET, mapping, grow=True))
    for mapping in MAPPINGS
    if not mapping.startswith("best-")  # other choices among the same schemes
}
Change = Callable[[BlockMatrix, int], BlockMatrix]


def flip_cell(blocks: BlockMatrix, choice: int) -> BlockMatrix:
    group = blocks.group_of_column()
    used = np.argwhere(blocks.rows[group] >= 0)  # (column, word line)
    column, line = used[choice % len(used)]
    cells = blocks.cells.copy()
    cells[column, choice % blocks.cell_bits, line // 8] ^= np.uint8(1 << (line % 8))
    return replace(blocks, cells=cells)


def change_selector(blocks: BlockMatrix, choice: int) -> BlockMatrix:
    rows = blocks.rows.copy()
    group, line = np.argwhere(rows >= 0)[choice % int((rows >= 0).sum())]
    rows[group, line] = (rows[group, line] + 1) % blocks.inputs
    return replace(blocks, rows=rows)


def change_route(blocks: BlockMatrix, choice: int) -> BlockMatrix:
    output = blocks.routes.output.copy()
    at = choice % len(output)
    output[at] = (output[at] + 1) % blocks.outputs
    return replace(blocks, routes=replace(blocks.routes, output=output))


def change_shift(blocks: BlockMatrix, choice: int) -> BlockMatrix:
    shift = blocks.routes.shift.copy()
    shift[choice % len(shift)] += 1
    return replace(blocks, routes=replace(blocks.routes, shift=shift))


def change_sign(blocks: BlockMatrix, choice: int) -> BlockMatrix:
    sign = blocks.routes.sign.copy()
    sign[choice % len(sign)] *= -1
    return replace(blocks, routes=replace(blocks.routes, sign=sign))


def is_visible(before: BlockMatrix, after: BlockMatrix) -> bool:
    """Whether a change says anything: a column of zeros may go wherever it likes."""
    from isa.matrix import fold

    return bool((fold(before) != fold(after)).any())


def changed(program: Program, change: Change, choice: int) -> tuple[Program, bool]:
    """The program with one of its matrices changed, and whether that matters."""
    holders = [at for at, core in enumerate(program.cores) if core.matrices]
    at = holders[choice % len(holders)]
    core = program.cores[at]
    matrix = core.matrices[0]
    blocks = change(matrix.blocks, choice)
    new = replace(core, matrices=(replace(matrix, blocks=blocks), *core.matrices[1:]))
    cores = (*program.cores[:at], new, *program.cores[at + 1 :])
    return replace(program, cores=cores), is_visible(matrix.blocks, blocks)


@pytest.mark.parametrize("mapping", PROGRAMS)
def test_every_mapping_gives_the_weights_back(mapping: str) -> None:
    check_reconstruction(PROGRAMS[mapping], GRAPH)


@pytest.mark.parametrize(
    "change", [flip_cell, change_selector, change_route, change_shift, change_sign]
)
@pytest.mark.parametrize("mapping", PROGRAMS)
@settings(max_examples=40)
@given(choice=st.integers(0, 10**6))
def test_one_changed_entry_is_noticed(change: Change, mapping: str, choice: int) -> None:
    program, matters = changed(PROGRAMS[mapping], change, choice)
    if not matters:
        check_reconstruction(program, GRAPH)
        return
    with pytest.raises(PimError, match="X801") as caught:
        check_reconstruction(program, GRAPH)
    assert "`conv`" in caught.value.diagnostics[0].message


@pytest.mark.parametrize("mapping", PROGRAMS)
def test_a_flipped_cell_with_a_route_always_matters(mapping: str) -> None:
    program = PROGRAMS[mapping]
    seen = [changed(program, flip_cell, choice)[1] for choice in range(300)]
    assert sum(seen) > 200


def test_a_layer_that_is_missing_or_unknown_is_named() -> None:
    program = PROGRAMS["ou-tile"]
    bare = replace(program, cores=tuple(replace(core, matrices=()) for core in program.cores))
    with pytest.raises(PimError, match="stands only in the model"):
        check_reconstruction(bare, GRAPH)
    with pytest.raises(PimError, match="stands only in the program"):
        check_reconstruction(program, replace(GRAPH, nodes=()))


def test_a_part_that_is_programmed_twice_is_noticed() -> None:
    program = PROGRAMS["ou-tile"]
    at = next(at for at, core in enumerate(program.cores) if core.matrices)
    core = program.cores[at]
    double = replace(core, matrices=core.matrices * 2)
    cores = (*program.cores[:at], double, *program.cores[at + 1 :])
    with pytest.raises(PimError, match="X801"):
        check_reconstruction(replace(program, cores=cores), GRAPH)


def test_conversions_that_can_clip_are_counted_by_layer() -> None:
    program = PROGRAMS["ou-tile"]
    check_conversions(program, TARGET)
    narrow = TARGET.model_copy(update={"adc": TARGET.adc.model_copy(update={"bits": 1})})
    with pytest.raises(PimError, match="1-bit ADC") as caught:
        check_conversions(program, narrow)
    (finding,) = caught.value.diagnostics
    assert finding.code == "M604"
    columns = sum(int((matrix.blocks.largest_sums() > 1).sum()) for matrix in program.matrices())
    assert f"`conv`: {columns} stored columns" in finding.message
