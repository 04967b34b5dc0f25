"""Kernel reordering: kernels of one channel and pattern share a block without its zero rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from support.layers import layer_of, layers

from isa.target import load_target
from passes.kernel_reorder import kernel_reorder, reordered_groups
from passes.weights import LayerWeights

TARGET = load_target("ou9x8")


def test_kernels_of_one_pattern_stand_side_by_side() -> None:
    values = np.zeros((1, 9, 4))
    values[0, [0, 1, 4, 7], 1] = 5
    values[0, [0, 1, 4, 7], 3] = -9
    values[0, [2, 8], 0] = 3
    groups = reordered_groups(layer_of(values, 9), TARGET)
    found = {}
    for row, routing in zip(groups.rows, groups.routing, strict=True):
        served = groups.outputs[groups.start[routing] : groups.start[routing + 1]]
        found[tuple(row[row >= 0].tolist())] = served.tolist()
    assert found == {(2, 8): [0], (0, 1, 4, 7): [1, 3]}  # output 2, a kernel of zeros, is nowhere


@given(layers())
def test_every_stored_weight_of_a_kernel_is_one_that_is_not_zero(weights: LayerWeights) -> None:
    groups = reordered_groups(weights, TARGET)
    served = np.diff(groups.start)[groups.routing]
    used = np.repeat(groups.rows >= 0, served, axis=0)
    assert (groups.values[used] != 0).all()
    assert int(used.sum()) == np.count_nonzero(weights.values)


def test_a_pattern_taller_than_an_operation_unit_is_cut() -> None:
    blocks = kernel_reorder(layer_of(np.full((1, 25, 3), 2), 25), TARGET)
    assert sorted((blocks.rows >= 0).sum(axis=1).tolist()) == [7, 9, 9]
