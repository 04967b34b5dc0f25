"""The schedule: a graph's program, run on the machine, gives the graph's integers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import GraphBuilder, evaluate

from isa.diagnostics import PimError
from isa.program import Program
from isa.target import Target, load_target
from isa.verify import verify
from passes.graph import Graph
from passes.ou_tile import OuTile
from passes.queues import SLACK
from passes.schedule import Schedule
from passes.split import Split
from runtime.machine import Machine

TARGETS = ("ou9x8", "tiny", "isaac", "sre16x16", "prap8x8")


def compiled(graph: Graph, target: Target) -> tuple[Program, Target]:
    mapping = Split().run(OuTile(target).run(graph))
    program = Schedule(grow=True).run(mapping)
    return program, target.with_mesh(len(program.cores))


def assert_equal(builder: GraphBuilder, target: Target, *outputs: str) -> Program:
    """The program verifies, and all its tensors are those of the interpreter."""
    graph = builder.graph(*outputs)
    program, grown = compiled(graph, target)
    assert verify(program, grown) == []
    feeds = builder.feed(2)
    wanted = evaluate(graph, feeds)
    names = {tensor.onnx_name: tensor.name for tensor in program.tensors}
    result = Machine(program, grown).run({names["x"]: feeds["x"]}, trace=True)
    for name in outputs:
        np.testing.assert_array_equal(result.outputs[names[name]], wanted[name])
    for onnx_name, name in names.items():
        if name in result.tensors:
            found = result.tensors[name].reshape(wanted[onnx_name].shape)
            np.testing.assert_array_equal(found, wanted[onnx_name])
    return program


def residual_network(seed: int) -> tuple[GraphBuilder, str]:
    b = GraphBuilder(seed, (13, 14, 3))
    a = b.conv("x", 24, (3, 3), pads=(1, 1, 1, 1))
    c = b.lut(b.conv(a, 24, (3, 3), pads=(1, 1, 1, 1)), per_channel=True)
    s = b.binary("add", c, a)
    left = b.conv(s, 32, (3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    right = b.conv(s, 16, (1, 1), stride=(2, 2))
    joined = b.concat(left, right)
    shape = b.values[joined].shape
    index = np.arange(np.prod(shape)).reshape(*shape[:2], 6, 8)
    shuffled = b.move(joined, index.transpose(0, 1, 3, 2).reshape(shape))
    deep = b.conv(shuffled, 48, (5, 5), pads=(2, 2, 2, 2), groups=48)
    pooled = b.pool("max", deep, (3, 3), (2, 2), (1, 1, 1, 1))
    gate = b.pool("sum", pooled, b.values[pooled].shape[:2])
    gated = b.binary("mul", pooled, gate)
    return b, b.conv(gated, 10, b.values[gated].shape[:2])


@pytest.mark.parametrize("name", TARGETS)
def test_a_residual_network_computes_the_same_integers_on_every_target(name: str) -> None:
    builder, output = residual_network(0)
    assert_equal(builder, load_target(name), output)


@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    groups=st.sampled_from([1, 1, 2, 6]),
    outputs=st.sampled_from([6, 12, 30]),
    dtype=st.sampled_from(["s8", "u8"]),
    target=st.sampled_from(["ou9x8", "tiny"]),
    seed=st.integers(0, 99),
)
def test_any_convolution_streams_right(  # type: ignore[no-untyped-def]
    kernel, stride, dilation, pads, groups, outputs, dtype, target, seed
) -> None:
    b = GraphBuilder(seed, (9, 10, 6), dtype)
    y = b.conv("x", outputs, kernel, stride, dilation, pads, groups)
    z = b.conv(y, 8, (1, 1))
    assert_equal(b, load_target(target), z)


@given(
    op=st.sampled_from(["max", "sum"]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    seed=st.integers(0, 99),
)
def test_any_pool_streams_right(op, kernel, stride, pads, seed) -> None:  # type: ignore[no-untyped-def]
    pads = tuple(min(p, k - 1) for p, k in zip(pads, (*kernel, *kernel), strict=True))
    b = GraphBuilder(seed, (8, 9, 5))
    assert_equal(b, load_target("ou9x8"), b.pool(op, b.lut("x"), kernel, stride, pads))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concatenation_streams_along_every_axis(axis: int) -> None:
    b = GraphBuilder(3, (4, 5, 6))
    joined = b.concat(b.conv("x", 6), b.lut("x"), b.conv("x", 6), axis=axis)
    assert_equal(b, load_target("ou9x8"), b.conv(joined, 7))


@pytest.mark.parametrize(
    "index",
    [
        np.arange(4 * 5 * 6).reshape(4, 5, 6).transpose(2, 1, 0),  # rows and channels change place
        np.arange(4 * 5 * 6).reshape(4, 5, 6)[::-1],  # last row first
        np.arange(4 * 5 * 6).reshape(4, 5, 6).repeat(2, axis=0).repeat(2, axis=1),  # nearest
        np.arange(4 * 5 * 6).reshape(4, 5, 6)[1:3, 1:4, 2:5],  # slice
        np.arange(4 * 5 * 6).reshape(1, 1, 120),  # flatten
        np.pad(np.arange(4 * 5 * 6).reshape(4, 5, 6), 1, constant_values=-1),
        np.where(np.arange(120).reshape(4, 5, 6) % 7 == 0, -1, np.arange(120).reshape(4, 5, 6)),
    ],
)
def test_any_movement_puts_every_element_in_its_place(index: np.ndarray) -> None:
    b = GraphBuilder(5, (4, 5, 6))
    moved = b.move(b.conv("x", 6), index, fill=-5)
    assert_equal(b, load_target("ou9x8"), b.lut(moved))


@given(seed=st.integers(0, 99), gaps=st.booleans())
def test_any_mix_of_two_values_puts_every_element_in_its_place(seed: int, gaps: bool) -> None:
    b = GraphBuilder(seed, (4, 5, 3))
    first, second = b.conv("x", 4), b.lut("x")
    size = 4 * 5 * 4 + 4 * 5 * 3
    index = b.random.integers(-1 if gaps else 0, size, (3, 6, 5))
    y = b.mix(index, first, second)
    assert_equal(b, load_target("ou9x8"), y)


def test_two_values_interleave_column_by_column() -> None:
    b = GraphBuilder(5, (4, 6, 3))
    first, second = b.conv("x", 3), b.lut("x")
    whole = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    y = b.mix(whole.transpose(1, 2, 0, 3).reshape(4, 12, 3), first, second)
    program = assert_equal(b, load_target("ou9x8"), y)
    assert max(buffer.shape[0] for core in program.cores for buffer in core.buffers) == 1


def test_operands_broadcast_and_constants_add() -> None:
    b = GraphBuilder(8, (6, 5, 4))
    y = b.conv("x", 4)
    gate = b.pool("sum", y, (6, 5))
    row = b.constant("add", y, (1, 5, 4))
    full = b.constant("mul", row, (6, 5, 4))
    one = b.constant("sub", full, (1, 1, 4))
    assert_equal(b, load_target("ou9x8"), b.binary("mul", one, gate))


def test_a_table_that_changes_the_type_does_not_work_in_place() -> None:
    b = GraphBuilder(14, (4, 5, 3))
    y = b.conv("x", 6)
    b.values[y] = dataclasses.replace(b.values[y], dtype="u8", zero=100)
    assert_equal(b, load_target("ou9x8"), b.lut(y))


def test_an_input_may_be_an_output_and_two_outputs_may_share_a_trunk() -> None:
    b = GraphBuilder(9, (6, 5, 4))
    trunk = b.conv("x", 8, (3, 3))
    assert_equal(b, load_target("ou9x8"), trunk, b.conv(trunk, 3), b.lut(trunk))


def test_a_layer_taller_and_wider_than_a_core_is_split_and_adds_up() -> None:
    b = GraphBuilder(10, (5, 6, 40))
    target = load_target("tiny")
    y = b.conv("x", 70, (3, 3), pads=(1, 1, 1, 1))
    graph = b.graph(y)
    parts = Split().run(OuTile(target).run(graph)).layers["Conv_0"].parts
    assert len(parts) > 1
    assert len(parts[0]) > 1
    assert_equal(b, target, y)


def test_a_depthwise_layer_whose_rows_exceed_a_core_is_cut_by_channels() -> None:
    b = GraphBuilder(14, (6, 8, 192))
    small = load_target("ou9x8", {"memory.core_bytes": "12288"})
    y = b.conv("x", 192, (5, 5), pads=(2, 2, 2, 2), groups=192)
    parts = Split().run(OuTile(small).run(b.graph(y))).layers["Conv_0"].parts
    assert [chain[0].inputs for chain in parts] == [chain[0].outputs for chain in parts]
    assert len(parts) > 1
    assert_equal(b, small, y)


def test_queues_hold_just_what_a_skip_connection_needs() -> None:
    b = GraphBuilder(11, (20, 6, 4))
    trunk = b.conv("x", 4, (1, 1))
    deep = trunk
    for _ in range(3):
        deep = b.conv(deep, 4, (3, 3), pads=(1, 1, 1, 1))
    program = assert_equal(b, load_target("ou9x8"), b.binary("add", deep, trunk))
    depths = sorted(channel.depth for channel in program.channels)
    assert depths[-1] == 3 + 1 + SLACK  # each of the three 3x3 layers waits for one row more
    assert depths[0] <= 1 + SLACK


def test_queues_that_do_not_fit_a_core_stand_in_global_memory() -> None:
    b = GraphBuilder(12, (30, 30, 8))
    trunk = b.conv("x", 8)
    gate = b.pool("sum", trunk, (30, 30))
    y = b.binary("mul", trunk, gate)  # the whole map waits for the gate
    small = load_target("ou9x8", {"memory.core_bytes": "4096"})
    program = assert_equal(b, small, y)
    assert any(channel.address is None for channel in program.channels)


def test_a_model_that_needs_more_cores_is_refused_with_both_numbers() -> None:
    builder, output = residual_network(1)
    target = load_target("ou9x8").with_cores(4)
    mapping = Split().run(OuTile(target).run(builder.graph(output)))
    with pytest.raises(PimError, match=r"M602.*needs 11 cores"):
        Schedule().run(mapping)


def test_rows_that_a_move_cannot_keep_stand_in_global_memory() -> None:
    b = GraphBuilder(13, (4, 64, 64))
    y = b.move("x", np.arange(4 * 64 * 64).reshape(4, 64, 64)[::-1])
    small = load_target("ou9x8", {"memory.core_bytes": "8192"})
    program = assert_equal(b, small, y)
    places = {buffer.name: buffer.address for core in program.cores for buffer in core.buffers}
    assert places == {"rows": None, "out": 0}  # the largest ones go, and no more than must


def test_the_same_graph_gives_the_same_program() -> None:
    programs = [compiled(residual_network(2)[0].graph("v11"), load_target("tiny"))[0] for _ in "ab"]
    assert programs[0].channels == programs[1].channels
    for one, other in zip(programs[0].cores, programs[1].cores, strict=True):
        assert (one.body, one.buffers) == (other.body, other.buffers)
        assert dataclasses.astuple(one)[:2] == dataclasses.astuple(other)[:2]
