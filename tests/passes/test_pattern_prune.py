"""Pattern pruning: shapes come from dictionaries, as PRAP-PIM and PatDNN define them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.pattern_prune import (
    PatternPrune,
    frequent_patterns,
    global_dictionary,
    kept_kernels,
    prune_global,
    prune_inputs,
    prune_local,
)

Weights = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def draw(seed: int, outputs: int = 24, channels: int = 6, kernel: int = 3) -> Weights:
    return np.random.default_rng(seed).normal(size=(outputs, channels, kernel, kernel))


def shapes_of(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> set[tuple[bool, ...]]:
    flat = mask.reshape(-1, mask.shape[2] * mask.shape[3])
    return {tuple(row) for row in flat.tolist()}


@given(
    seed=st.integers(0, 999),
    keep=st.sampled_from([2, 4, 8]),
    group=st.sampled_from([1, 2, 4]),
    channels=st.integers(1, 9),
)
def test_every_kernel_has_a_shape_of_its_groups_dictionary(
    seed: int, keep: int, group: int, channels: int
) -> None:
    pruned = prune_local(draw(seed, channels=channels), keep, group)
    for channel in range(channels):
        known = {tuple(p) for p in pruned.dictionaries[channel // group].tolist() if any(p)}
        assert len(known) <= 8
        assert shapes_of(pruned.mask[:, channel : channel + 1]) <= known


@given(seed=st.integers(0, 999))
def test_channels_of_a_group_share_the_shape(seed: int) -> None:
    mask = prune_local(draw(seed, channels=8), keep=4, group=2).mask
    assert np.array_equal(mask[:, 0::2], mask[:, 1::2])


@given(seed=st.integers(0, 999), keep=st.integers(1, 9))
def test_every_kernel_keeps_exactly_keep_positions(seed: int, keep: int) -> None:
    pruned = prune_local(draw(seed), keep)
    assert set(pruned.mask.sum(axis=(2, 3)).ravel()) == {keep}
    assert pruned.kept == keep / 9


def test_weights_are_untouched_inside_the_mask_and_zero_outside() -> None:
    weights = draw(3)
    pruned = prune_local(weights, 4)
    assert np.array_equal(pruned.weights[pruned.mask], weights[pruned.mask])
    assert not pruned.weights[~pruned.mask].any()


def test_integers_stay_integers() -> None:
    weights = np.rint(draw(1) * 40).astype(np.int16)
    assert PatternPrune().run(weights).weights.dtype == np.int16


@given(seed=st.integers(0, 99))
def test_a_choice_keeps_at_least_as_much_as_any_other_entry_would(seed: int) -> None:
    weights = draw(seed, outputs=12, channels=2)
    pruned = prune_local(weights, 4)
    size = np.abs(weights).reshape(12, 2, 9)
    for group in range(2):
        possible = size[:, group] @ pruned.dictionaries[group].T
        assert np.allclose((size * pruned.mask.reshape(12, 2, 9))[:, group].sum(1), possible.max(1))


def test_a_layer_that_has_the_patterns_already_is_left_alone() -> None:
    once = prune_local(draw(5), 4)
    again = prune_local(once.weights, 4)
    assert np.array_equal(again.weights, once.weights)


def test_the_dictionary_holds_the_most_frequent_candidates_first() -> None:
    rows = np.array([[1, 0], [0, 1], [0, 1]], np.bool_)
    assert frequent_patterns(rows, 1).tolist() == [[False, True]]


def test_a_global_dictionary_serves_all_layers_and_keeps_the_centre() -> None:
    layers = [draw(1), draw(2, channels=3)]
    known = global_dictionary(layers, keep=4)
    assert known.shape == (8, 9)
    assert known[:, 4].all()
    for layer in layers:
        assert shapes_of(prune_global(layer, known).mask) <= {tuple(p) for p in known.tolist()}


def test_connectivity_keeps_the_kernels_of_largest_norm() -> None:
    weights = draw(4)
    kept = kept_kernels(weights, 3.6)
    norms = (weights**2).sum(axis=(2, 3))
    assert kept.sum() == int(np.ceil(24 * 6 / 3.6))
    assert norms[kept].min() >= norms[~kept].max()


def test_connectivity_and_patterns_together_give_the_published_rate() -> None:
    pruned = PatternPrune(dictionary="global", connectivity=3.6).run(draw(0, 72, 72))
    assert 1 / pruned.kept == pytest.approx(9 / 4 * 3.6, rel=1e-3)


@given(seed=st.integers(0, 99), channels=st.sampled_from([16, 32, 40]))
def test_every_output_keeps_the_same_inputs(seed: int, channels: int) -> None:
    weights = draw(seed, channels=channels, kernel=1)
    pruned = prune_inputs(weights, group=16, keep=8)
    assert (pruned.mask == pruned.mask[:1]).all()
    for first in range(0, channels - channels % 16, 16):
        assert pruned.mask[0, first : first + 16].sum() == 8
