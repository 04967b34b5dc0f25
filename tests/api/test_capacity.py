"""Capacity: tables and streams beyond the memories of their cores are said, and charged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from support.layers import every_scheme, layers

from isa.catalog import Fill
from isa.program import Buffer, Core, Loop, Program
from isa.target import Target, load_target
from isa.verify import verify
from passes.estimate import estimate, table_bits
from passes.graph import Graph, MatrixNode, Value
from passes.manager import run_passes
from passes.pipelines import pipeline
from passes.place import place
from passes.weights import LayerWeights
from pimc.capacity import fit_tables, instruction_count, instruction_warnings, memory_warnings
from runtime.area import area_mm2, whole_chip

TARGET = load_target("ou9x8")


def graph() -> Graph:
    """A 1x1 convolution of 40 to 90 channels."""
    values = {
        "x": Value("x", "s8", (2, 2, 40), 0.1, 3, "x", (40, 2, 2), (1, 2, 0)),
        "y": Value("y", "s8", (2, 2, 90), 0.1, 0, "y", (90, 2, 2), (1, 2, 0)),
    }
    weights = np.random.default_rng(2).integers(-128, 128, (90, 1, 1, 40)).astype(np.int16)
    scale = np.full(1, 1e-3, np.float32)
    node = MatrixNode("fc", ("x",), "y", weights, np.zeros(90, np.int32), scale)
    return Graph(("x",), ("y",), (node,), values)


def made(mapping: str, target: Target) -> Program:
    return run_passes(graph(), pipeline(target, mapping, grow=True))


def with_index_bytes(size: int) -> Target:
    return load_target("ou9x8", {"memory.index_bytes": str(size)})


def needed_bits(program: Program) -> int:
    return max(
        sum(table_bits(matrix.blocks, TARGET) for matrix in core.matrices) for core in program.cores
    )


def test_tables_that_fit_change_nothing() -> None:
    program = made("pattern-dedup", TARGET)
    assert fit_tables(program, graph(), TARGET) == (program, TARGET, [])


def test_tables_that_do_not_fit_name_the_core_and_both_numbers() -> None:
    small = with_index_bytes(512)
    program = made("pattern-dedup", small)
    grown_program, grown, (warning,) = fit_tables(program, graph(), small)
    assert warning.code == "M606"
    assert warning.severity == "warning"
    assert f"needs {needed_bits(program):,} bits and has 4,096" in warning.message
    assert "core 0" in warning.message
    assert warning.hint is not None
    assert f"memory.index_bytes={grown.memory.index_bytes}" in warning.hint
    assert 8 * grown.memory.index_bytes >= needed_bits(program) > 4 * grown.memory.index_bytes
    assert verify(grown_program, grown) == []
    assert fit_tables(grown_program, graph(), grown)[2] == []


def test_the_exact_size_fits_and_one_byte_less_does_not() -> None:
    program = made("pattern-dedup", TARGET)
    exact = -(-needed_bits(program) // 8)
    assert not fit_tables(program, graph(), with_index_bytes(exact))[2]
    assert fit_tables(program, graph(), with_index_bytes(exact - 1))[2]


def test_larger_index_memories_take_and_leak_as_much_more() -> None:
    grown = TARGET.with_index_bytes(40_000)
    assert grown.memory.index_bytes == 4 * TARGET.memory.index_bytes
    before, after = TARGET.components["index_memory"], grown.components["index_memory"]
    assert after.area_um2 == 4 * before.area_um2
    assert after.static_mw == 4 * before.static_mw
    added = area_mm2(grown, whole_chip(grown)) - area_mm2(TARGET, whole_chip(TARGET))
    assert added == pytest.approx(3 * before.area_um2 * TARGET.cores / 1e6)
    assert "16384" in grown.sources["memory.index_bytes"]
    assert TARGET.with_index_bytes(100) is TARGET


def test_a_dense_program_needs_no_index_memory() -> None:
    none = with_index_bytes(0)
    assert fit_tables(made("ou-tile", none), graph(), none)[2] == []


@given(layers())
def test_the_smallest_tables_are_never_larger_than_the_priced_ones(weights: LayerWeights) -> None:
    for blocks in every_scheme(weights, TARGET).values():
        placed = replace(blocks, spans=place(blocks, TARGET, len(weights.values)))
        cost = estimate(placed, 3, TARGET, kernel_size=weights.kernel_size)
        assert table_bits(placed, TARGET, weights.kernel_size) <= cost.table_bits


def test_a_long_stream_names_its_core_and_both_numbers() -> None:
    fill = Fill.__new__(Fill)
    body = (Loop("y", 0, 3, (fill,) * 9),) * 2 + (fill,)
    assert instruction_count(body) == 21
    program = replace(made("ou-tile", TARGET), cores=(Core(7, "fc", (), (), body),))
    tight = load_target("ou9x8", {"memory.instruction_bytes": "160"})
    (warning,) = instruction_warnings(program, tight)
    assert warning.code == "M607"
    assert "core 7 has 21 instructions; its memory holds 20" in warning.message
    assert not instruction_warnings(
        program, load_target("ou9x8", {"memory.instruction_bytes": "168"})
    )


def test_rows_in_global_memory_are_named_with_the_memory_that_would_hold_them() -> None:
    inside, outside = Buffer("out", "s8", (1, 8, 8), 0), Buffer("rows", "s8", (40, 64, 32), None)
    turn, plain = Core(7, "turn", (), (inside, outside), ()), Core(8, "fc", (), (inside,), ())
    program = replace(made("ou-tile", TARGET), cores=(turn, plain))
    (warning,) = memory_warnings(program, TARGET)
    assert (warning.code, warning.severity) == ("M609", "warning")
    assert "rows of 1 stages" in warning.message
    assert "81,920 bytes in all, most of them those of `turn`" in warning.message
    assert warning.hint is not None
    assert "memory.core_bytes=131072" in warning.hint
    assert not memory_warnings(replace(program, cores=(plain,)), TARGET)
