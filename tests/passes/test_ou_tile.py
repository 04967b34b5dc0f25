"""OU tiling: everything is stored, in neighbouring rows; flipped columns are restored exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.layers import layer_of, layers, small_target, targets

from isa.matrix import fold
from passes.encoding import encode, signed_bits
from passes.ou_tile import ou_tile
from passes.weights import LayerWeights


@given(st.data(), layers())
def test_a_dense_layer_takes_all_digits_of_all_outputs_in_every_group(
    data: st.DataObject, weights: LayerWeights
) -> None:
    target = data.draw(targets())
    sections, rows, outputs = weights.values.shape
    digits = encode(weights.values[:0], target.crossbar.cell_bits, signed_bits(weights.values))
    groups = sections * -(-rows // target.ou.rows)
    blocks = ou_tile(weights, target)
    assert blocks.groups == groups
    assert blocks.columns == groups * (outputs * len(digits.shift) + (digits.offset > 0))


@given(st.integers(0, 10_000), st.sampled_from((1, 2)))
def test_flipped_columns_fit_an_adc_of_one_bit_less_and_give_the_weights_back(
    seed: int, cell_bits: int
) -> None:
    target = small_target(8, 8, cell_bits, weights__flip_columns="true", adc__bits="3")
    if cell_bits == 2:
        target = small_target(8, 8, 2, weights__flip_columns="true", adc__bits="4")
    weights = layer_of(np.random.default_rng(seed).integers(-128, 128, (1, 21, 5)))
    blocks = ou_tile(weights, target)
    assert (fold(blocks) == weights.matrix()).all()
    ones = blocks.cell_values().min(axis=1) >= 1
    assert blocks.largest_sums()[~ones].max() <= target.adc_max
