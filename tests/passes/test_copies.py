"""Copies of layers that take turns at output rows compute the same integers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import GraphBuilder, evaluate

from isa.assembly import data_arrays, parse_program, print_program, same_program
from isa.program import Program
from isa.target import Target, load_target
from isa.verify import verify
from passes.graph import Graph
from passes.ou_tile import OuTile
from passes.schedule import Schedule
from passes.split import Split
from passes.stages import fuse, may_replicate
from passes.wiring import progressions
from runtime.machine import Machine
from runtime.timing import simulate


def compiled(graph: Graph, target: Target, copies: dict[str, int]) -> tuple[Program, Target]:
    mapping = Split().run(OuTile(target).run(graph))
    program = Schedule(grow=True, copies=copies).run(mapping)
    return program, target.with_mesh(len(program.cores))


def check(builder: GraphBuilder, target: Target, copies: dict[str, int], output: str) -> Program:
    """The program verifies, survives its text, and computes the graph's integers."""
    graph = builder.graph(output)
    program, grown = compiled(graph, target, copies)
    assert verify(program, grown) == []
    program = parse_program(print_program(program), data_arrays(program))
    feeds = builder.feed(2)
    wanted = evaluate(graph, feeds)
    names = {tensor.onnx_name: tensor.name for tensor in program.tensors}
    result = Machine(program, grown).run({names["x"]: feeds["x"]}, trace=True)
    for onnx_name, name in names.items():
        for values, shown in (result.seen()[name],) if name in result.seen() else ():
            expected = wanted[onnx_name].reshape(values.shape)
            np.testing.assert_array_equal(values[shown], expected[shown])
    assert names[output] in result.outputs
    return program


def heads(graph: Graph) -> list[str]:
    return [head.name for head, _ in fuse(graph) if may_replicate(graph, head)]


@settings(max_examples=30)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    copies=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_copies_of_convolutions_compute_the_same_integers(  # type: ignore[no-untyped-def]
    kernel, stride, dilation, pads, copies, seed
) -> None:
    b = GraphBuilder(seed, (11, 9, 5))
    first = b.conv("x", 6, (3, 3), pads=(1, 1, 1, 1))
    second = b.conv(first, 7, kernel, (stride, 1), (dilation, 1), pads)
    y = b.conv(second, 4, (1, 1))
    graph = b.graph(y)
    check(b, load_target("ou9x8"), dict(zip(heads(graph), copies, strict=True)), y)


@settings(max_examples=10)
@given(st.lists(st.integers(1, 4), min_size=12, max_size=12), st.integers(0, 99))
def test_any_copies_of_a_residual_network_compute_the_same_integers(
    copies: list[int], seed: int
) -> None:
    b = GraphBuilder(seed, (12, 10, 3))
    a = b.conv("x", 8, (3, 3), pads=(1, 1, 1, 1))
    c = b.lut(b.conv(a, 8, (3, 3), pads=(1, 1, 1, 1)), per_channel=True)
    s = b.binary("add", c, a)
    p = b.pool("max", s, (3, 3), (2, 2), (1, 1, 1, 1))
    left, right = b.conv(p, 6), b.lut(p)
    joined = b.concat(left, right)
    gate = b.pool("sum", joined, b.values[joined].shape[:2])
    y = b.binary("mul", joined, gate)
    graph = b.graph(y)
    names = heads(graph)
    check(b, load_target("ou9x8"), dict(zip(names, copies, strict=False)), y)


def test_parts_of_a_large_layer_are_copied_together() -> None:
    b = GraphBuilder(10, (6, 6, 40))
    y = b.conv("x", 70, (3, 3), pads=(1, 1, 1, 1))
    program = check(b, load_target("tiny"), {"Conv_0": 3}, y)
    originals = [matrix for matrix in program.matrices() if not matrix.of]
    assert len(list(program.matrices())) == 3 * len(originals)
    assert len(originals) > 2


def test_copies_share_the_arrays_of_their_original() -> None:
    b = GraphBuilder(3, (8, 8, 6))
    y = b.conv("x", 8, (3, 3))
    one, four = (compiled(b.graph(y), load_target("ou9x8"), {"Conv_0": n})[0] for n in (1, 4))
    sizes = [
        sum(array.nbytes for array in data_arrays(program).values()) for program in (one, four)
    ]
    assert sizes[0] == sizes[1]
    assert same_program(parse_program(print_program(four), data_arrays(four)), four)


def test_rows_that_travel_are_compared_where_others_do_not() -> None:
    b = GraphBuilder(5, (7, 7, 3))
    inner = b.conv("x", 4, (3, 3), pads=(1, 1, 1, 1))
    y = b.pool("max", inner, (2, 2), (2, 2))  # row 6 is under no window
    copies = dict(zip(heads(b.graph(y)), (2, 3), strict=True))
    program, target = compiled(b.graph(y), load_target("ou9x8"), copies)
    feeds = b.feed(2)
    name = next(tensor.name for tensor in program.tensors if tensor.role == "inner")
    result = Machine(program, target).run({"x": feeds["x"]}, trace=True)
    values, shown = result.seen()[name]
    assert [bool(row.all()) for row in shown[0]] == [True] * 6 + [False]
    expected = evaluate(b.graph(y), feeds)[inner]
    np.testing.assert_array_equal(values[shown], expected[shown])
    split = Machine(program, target).run({"x": feeds["x"]}, trace=True, jobs=2)
    np.testing.assert_array_equal(split.seen()[name][1], shown)


def test_a_copy_with_a_cell_of_its_own_is_found() -> None:
    b = GraphBuilder(3, (8, 8, 6))
    y = b.conv("x", 8, (3, 3))
    program, target = compiled(b.graph(y), load_target("ou9x8"), {"Conv_0": 3})
    core = program.cores[-1]
    (copy,) = core.matrices
    cells = copy.blocks.cells.copy()
    cells.flat[np.flatnonzero(cells)[0]] -= 1
    wrong = replace(core, matrices=(replace(copy, blocks=replace(copy.blocks, cells=cells)),))
    assert verify(program, target) == []
    (finding,) = verify(replace(program, cores=(*program.cores[:-1], wrong)), target)
    assert finding.code == "V404"
    assert "its blocks are others" in finding.message


@pytest.mark.parametrize("copies", [2, 4])
def test_a_bottleneck_of_n_copies_is_nearly_n_times_as_fast(copies: int) -> None:
    b = GraphBuilder(4, (32, 32, 16))
    y = b.conv(b.conv("x", 16, (3, 3), pads=(1, 1, 1, 1)), 32, (3, 3), pads=(1, 1, 1, 1))
    intervals = []
    for count in (1, copies):
        program, target = compiled(
            b.graph(y), load_target("ou9x8"), {"Conv_0": count, "Conv_1": count}
        )
        intervals.append(simulate(program, target, 6).interval)
    assert intervals[0] / intervals[1] > 0.9 * copies


@given(
    made=st.tuples(st.integers(0, 4), st.integers(1, 5)),
    copies=st.integers(1, 5),
    stride=st.integers(1, 3),
    reach=st.integers(1, 5),
)
def test_progressions_share_no_row_and_miss_none(
    made: tuple[int, int], copies: int, stride: int, reach: int
) -> None:
    rows = range(made[0], 40, made[1])
    needed = [range(line, 40, copies * stride) for line in range(reach)]
    found = [row for part in progressions(rows, needed) for row in part]
    assert sorted(found) == sorted(set(rows).intersection(*[set().union(*needed)]))
