"""Zero inputs: what is counted as skipped adds nothing, and counting changes no value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.timed import random_program

from isa.matrix import BlockMatrix
from isa.target import load_target
from passes.place import packed_spans
from runtime.array_work import ArrayWork
from runtime.crossbar import bit_sums, block_product, route
from runtime.input_zeros import InputZeros, ZeroCounts, counting_crossbars, counts_by_layer
from runtime.kernel import Kernel, choose_kernel
from runtime.machine import Machine
from runtime.paths import Crossbars

Blocks = Callable[..., BlockMatrix]
TARGET = load_target("tiny")
SEEDS = st.integers(0, 10_000)


def placed(blocks: BlockMatrix) -> BlockMatrix:
    return replace(blocks, spans=packed_spans(blocks, TARGET))


def sparse_inputs(seed: int, windows: int, inputs: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 16, (windows, inputs), dtype=np.uint8)
    u[rng.random(u.shape) < 0.8] = 0
    return u


def counted(blocks: BlockMatrix, u: np.ndarray) -> tuple[np.ndarray, ZeroCounts]:
    crossbars = InputZeros(blocks, TARGET, choose_kernel(), "m")
    out = np.empty((len(u), blocks.outputs), np.int32)
    crossbars.multiply(u, out)
    return out, crossbars.counts


def one_by_one(blocks: BlockMatrix, u: np.ndarray) -> tuple[int, int, int]:
    """All fires, and those without any input, or without the bit at hand: fire by fire."""
    fires = group = group_bit = 0
    spans, width = blocks.spans, TARGET.ou.columns
    for window in u:
        for g, columns in zip(spans.group, spans.count, strict=True):
            inputs = window[blocks.rows[g][blocks.rows[g] >= 0]]
            for _ in range(0, int(columns), width):
                for bit in range(8):
                    fires += 1
                    group += not inputs.any()
                    group_bit += not ((inputs >> bit) & 1).any()
    return fires, group, group_bit


@given(seed=SEEDS)
def test_skipped_fires_are_those_whose_inputs_are_all_zero(
    seed: int, random_blocks: Blocks
) -> None:
    blocks = placed(random_blocks(seed, lines=TARGET.ou.rows))
    u = sparse_inputs(seed, 3, blocks.inputs)
    _, counts = counted(blocks, u)
    found = (counts.fires, counts.group.fires_skipped, counts.group_bit.fires_skipped)
    assert found == one_by_one(blocks, u)


@given(seed=SEEDS)
def test_a_product_without_the_skipped_fires_is_the_same(seed: int, random_blocks: Blocks) -> None:
    blocks = placed(random_blocks(seed, lines=TARGET.ou.rows))
    u = sparse_inputs(seed, 4, blocks.inputs)
    sums = np.zeros((4, blocks.outputs), np.int64)
    for group in range(blocks.groups):
        inputs = u[:, blocks.rows[group][blocks.rows[group] >= 0]]
        first, stop = blocks.column_start[group : group + 2]
        total = np.zeros((4, stop - first), np.int64)
        for bit, column_sums in enumerate(bit_sums(u, blocks, group)):
            fires = ((inputs >> bit) & 1).any(axis=1)
            total[fires] += np.minimum(column_sums[fires], TARGET.adc_max) << bit
        route(total, blocks, int(blocks.routing[group]), sums)
    out, _ = counted(blocks, u)
    assert np.array_equal(sums.astype(np.int32), out)


@given(seed=SEEDS)
def test_both_routing_orders_give_the_same_integers(seed: int, random_blocks: Blocks) -> None:
    blocks = random_blocks(seed)
    u = np.random.default_rng(seed).integers(0, 256, (3, blocks.inputs), dtype=np.uint8)
    per_bit = np.zeros((3, blocks.outputs), np.int64)
    for group in range(blocks.groups):
        for bit, column_sums in enumerate(bit_sums(u, blocks, group)):
            term = np.minimum(column_sums, TARGET.adc_max) << bit
            route(term, blocks, int(blocks.routing[group]), per_bit)
    after_bits, _ = block_product(u, blocks, TARGET.adc_max)
    assert np.array_equal(per_bit.astype(np.int32), after_bits)


@pytest.mark.parametrize(("value", "share"), [(0, 1.0), (255, 0.0)])
def test_all_zeros_skip_every_fire_and_all_ones_none(
    value: int, share: float, dense_blocks: Blocks
) -> None:
    blocks = placed(dense_blocks(np.full((20, 3), 5), TARGET.ou.rows))
    _, counts = counted(blocks, np.full((2, 20), value, np.uint8))
    assert counts.group.fires_skipped == share * counts.fires
    assert counts.group_bit.fires_skipped == share * counts.fires
    assert counts.ones == 1 - share
    without_skips = 2 * 8 * int(_fire_cycles_of(blocks).max())
    assert counts.crossbar_cycles == without_skips
    routes = 2 * int(ArrayWork(blocks, TARGET).route_cycles.max())  # taken all the same
    assert counts.group_bit.crossbar_cycles == (routes if share else without_skips)


def _fire_cycles_of(blocks: BlockMatrix) -> np.ndarray:
    """Cycles of each crossbar per input bit; a dense matrix has fewer routes than that."""
    return ArrayWork(blocks, TARGET).crossbar_cycles // TARGET.inputs.bits


def test_counting_changes_no_saturated_value(random_blocks: Blocks) -> None:
    blocks = placed(random_blocks(7, lines=TARGET.ou.rows))
    u = np.full((5, blocks.inputs), 255, np.uint8)
    plain = np.empty((5, blocks.outputs), np.int32)
    narrow = load_target("tiny", {"adc.bits": "1"})
    clipped = Crossbars(blocks, narrow.adc_max, Kernel(None, 0, "auto")).multiply(u, plain)
    counting = InputZeros(blocks, narrow, Kernel(None, 0, "auto"), "m")
    found = np.empty_like(plain)
    assert counting.multiply(u, found) == clipped > 0
    assert np.array_equal(found, plain)


@given(seed=st.integers(0, 300))
def test_counts_of_a_run_cover_all_fires_and_leave_the_outputs(seed: int) -> None:
    program = random_program(seed)
    rng = np.random.default_rng(seed)
    inputs = {
        t.name: rng.integers(-128, 128, (2, *t.shape)).astype(np.int8)
        for t in program.tensors
        if t.role == "input"
    }
    crossbars = counting_crossbars(program, TARGET)
    found = Machine(program, TARGET, crossbars).run(inputs)
    plain = Machine(program, TARGET).run(inputs)
    for name, values in plain.outputs.items():
        assert np.array_equal(found.outputs[name], values)
    for name, counts in counts_by_layer(program, crossbars).items():
        assert counts.fires == plain.counters.layers[name].ou_fires
        skipped = counts.group.fires_skipped, counts.group_bit.fires_skipped
        assert 0 <= skipped[0] <= skipped[1] <= counts.fires
