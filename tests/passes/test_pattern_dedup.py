"""Schemes: whatever they store, share or leave out, the blocks stand for the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.layers import every_scheme, layer_of, layers, plans, small_target, targets

from isa.matrix import fold
from isa.target import load_target
from isa.verify_matrices import structure_problems
from passes.encoding import ENCODINGS, EncodingName, encode_as, encodings_for
from passes.pattern_dedup import DedupPlan, pattern_dedup
from passes.weights import LayerWeights


@given(st.data(), layers())
def test_every_plan_stores_the_same_weights(data: st.DataObject, weights: LayerWeights) -> None:
    target = data.draw(targets())
    blocks = pattern_dedup(weights, target, data.draw(plans(target)))
    assert not list(structure_problems(blocks))
    assert (fold(blocks) == weights.matrix()).all()


@given(st.data(), layers())
def test_every_scheme_stores_the_same_weights(data: st.DataObject, weights: LayerWeights) -> None:
    for name, blocks in every_scheme(weights, data.draw(targets())).items():
        assert not list(structure_problems(blocks)), name
        assert (fold(blocks) == weights.matrix()).all(), name


@given(layers(groups=False), st.integers(0, 10_000))
def test_one_hot_weights_reach_their_own_output_only(weights: LayerWeights, place: int) -> None:
    single = np.zeros(weights.values.size, np.int16)
    single[place % single.size] = -93
    lone = LayerWeights(
        weights.inputs, weights.kernel_size, weights.rows, single.reshape(weights.values.shape)
    )
    for name, blocks in every_scheme(lone, small_target(9, 8, 1)).items():
        assert (fold(blocks) == lone.matrix()).all(), name


@given(st.data(), layers())
def test_no_column_of_a_group_is_stored_twice(data: st.DataObject, weights: LayerWeights) -> None:
    blocks = pattern_dedup(weights, data.draw(targets()))
    for first, last in zip(blocks.column_start[:-1], blocks.column_start[1:], strict=True):
        columns = blocks.cells[first:last].reshape(last - first, -1)
        assert columns.any(axis=1).all()
        assert len(np.unique(columns, axis=0)) == len(columns)


def test_layers_of_zeros_store_nothing() -> None:
    weights = layer_of(np.zeros((1, 18, 40)), kernel=9)
    found = every_scheme(weights, load_target("ou9x8"))
    assert {name for name, blocks in found.items() if blocks.columns} == {"dense"}


def test_kernels_of_zeros_cost_nothing() -> None:
    rng = np.random.default_rng(3)
    kept = rng.integers(1, 100, (1, 36, 10))
    padded = np.zeros((1, 36, 30))
    padded[:, :, ::3] = kept
    target = load_target("ou9x8")
    alone = every_scheme(layer_of(kept, 9), target)
    among = every_scheme(layer_of(padded, 9), target)
    for name in set(alone) - {"dense"}:
        assert alone[name].columns == among[name].columns, name


def test_equal_filters_are_stored_once() -> None:
    column = np.arange(-4, 5).reshape(1, 9, 1)
    twelve = pattern_dedup(layer_of(np.repeat(column, 12, 2)), load_target("ou9x8"))
    one = pattern_dedup(layer_of(column), load_target("ou9x8"))
    assert twelve.columns == one.columns
    assert twelve.route_count() == 12 * one.route_count()


def test_opposite_filters_share_a_pool_in_sign_magnitude() -> None:
    column = np.array([3, -5, 0, 7, 2, -1, 9, 0, 4]).reshape(1, 9, 1)
    pair = layer_of(np.concatenate([column, -column], axis=2))
    plan = DedupPlan("filter", "sign-magnitude")
    target = load_target("ou9x8")
    single = pattern_dedup(layer_of(column), target, plan)
    assert pattern_dedup(pair, target, plan).columns == single.columns


def test_equal_upper_planes_take_one_route() -> None:
    small = layer_of(np.full((1, 9, 1), -1))  # eight planes of ones: 127 - 128
    blocks = pattern_dedup(small, load_target("ou9x8"))
    assert (blocks.columns, blocks.route_count()) == (1, 1)
    assert (fold(blocks) == -1).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_gives_every_weight_back(encoding: EncodingName) -> None:
    weights = np.arange(-128, 128)
    for cell_bits in (1, 2):
        if encoding not in encodings_for(cell_bits):
            continue
        digits = encode_as(encoding, weights, cell_bits)
        factor = digits.sign.astype(np.int64) << digits.shift
        assert (digits.values @ factor - digits.offset == weights).all()
        assert digits.values.max() < 1 << cell_bits


def test_canonical_signed_digits_have_no_neighbours() -> None:
    weights = np.arange(-128, 128)
    digits = encode_as("csd", weights, 1).values
    either = digits[:, :8] | digits[:, 8:]
    assert not (either[:, 1:] & either[:, :-1]).any()
    assert either.sum() < encode_as("sign-magnitude", weights, 1).values.sum()
