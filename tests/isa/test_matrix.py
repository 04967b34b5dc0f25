"""The block form: fold gives back the matrix that cells, selectors and routes stand for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import isa.matrix
from isa.matrix import BlockMatrix, fold, pack_cells

Blocks = Callable[..., BlockMatrix]
Dense = Callable[..., BlockMatrix]


def fold_by_definition(matrix: BlockMatrix) -> np.ndarray:
    """The sum of isa/matrix.py, route by route."""
    folded = np.zeros((matrix.inputs, matrix.outputs), np.int64)
    cells = matrix.cell_values().astype(np.int64)
    slots, groups = matrix.slot_of_column(), matrix.group_of_column()
    for column in range(matrix.columns):
        selector = matrix.rows[groups[column]]
        first, stop = matrix.routes.start[slots[column] : slots[column] + 2]
        for route in range(first, stop):
            factor = int(matrix.routes.sign[route]) << int(matrix.routes.shift[route])
            for line, row in enumerate(selector):
                if row >= 0:
                    folded[row, matrix.routes.output[route]] += factor * cells[column, line]
    return folded


@given(
    seed=st.integers(0, 2**32 - 1),
    lines=st.sampled_from([2, 3, 8, 9, 16, 17, 128]),
    cell_bits=st.sampled_from([1, 2, 3]),
    shared=st.booleans(),
)
def test_fold_is_the_sum_over_routes(
    random_blocks: Blocks, seed: int, lines: int, cell_bits: int, shared: bool
) -> None:
    matrix = random_blocks(seed, lines=lines, cell_bits=cell_bits, shared=shared)
    assert np.array_equal(fold(matrix), fold_by_definition(matrix))


@given(seed=st.integers(0, 2**32 - 1), lines=st.integers(2, 16))
def test_fold_of_a_dense_tiling_is_the_weights(dense_blocks: Dense, seed: int, lines: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, rng.integers(1, 40, 2))
    assert np.array_equal(fold(dense_blocks(weights, lines)), weights)


@pytest.mark.parametrize("routes", [1, 7, 100])
def test_fold_is_the_same_in_pieces(
    random_blocks: Blocks, monkeypatch: pytest.MonkeyPatch, routes: int
) -> None:
    monkeypatch.setattr(isa.matrix, "FOLDED_AT_ONCE", routes)
    for seed in range(20):
        matrix = random_blocks(seed, lines=9, cell_bits=1 + seed % 2, shared=bool(seed % 3))
        assert np.array_equal(fold(matrix), fold_by_definition(matrix))


def test_fold_adds_where_two_groups_drive_the_same_input(random_blocks: Blocks) -> None:
    matrix = random_blocks(5, groups=2, lines=4)
    rows = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    doubled = replace(matrix, rows=rows)
    assert np.array_equal(fold(doubled), fold_by_definition(doubled))


def test_fold_is_exact_beyond_float32(dense_blocks: Dense) -> None:
    matrix = dense_blocks(np.ones((9, 3), np.int64), 9)
    shift = np.full_like(matrix.routes.shift, 20)
    shifted = replace(matrix, routes=replace(matrix.routes, shift=shift))
    assert np.array_equal(fold(shifted), fold_by_definition(shifted))


def test_fold_notices_every_single_flipped_cell(dense_blocks: Dense) -> None:
    weights = np.arange(-9, 9).reshape(9, 2)
    matrix = dense_blocks(weights, 9)
    for column in range(matrix.columns):
        for line in range(9):
            cells = matrix.cells.copy()
            cells[column, 0, line // 8] ^= 1 << (line % 8)
            assert not np.array_equal(fold(replace(matrix, cells=cells)), weights)


@pytest.mark.parametrize("cell_bits", [1, 2, 4, 8])
def test_packed_cells_unpack_to_themselves(cell_bits: int) -> None:
    rng = np.random.default_rng(cell_bits)
    values = rng.integers(0, 1 << cell_bits, (50, 11), dtype=np.uint8)
    matrix = BlockMatrix(
        11,
        1,
        cell_bits,
        np.arange(11, dtype=np.int32)[None],
        pack_cells(values, cell_bits),
        np.array([0, 50]),
        np.zeros(1, np.int32),
        None,  # type: ignore[arg-type]  # no route is looked at
        None,  # type: ignore[arg-type]
    )
    assert np.array_equal(matrix.cell_values(), values)
    assert np.array_equal(matrix.largest_sums(), values.sum(axis=1))


def test_fold_of_a_large_layer_is_quick(dense_blocks: Dense) -> None:
    rng = np.random.default_rng(0)
    matrix = dense_blocks(rng.integers(-128, 128, (2304, 256)), 9)
    start = time.process_time()
    fold(matrix)
    assert time.process_time() - start < 2.0, "seconds; it takes 0.05 on an idle machine"
