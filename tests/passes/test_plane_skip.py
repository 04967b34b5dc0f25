"""Plane skip: a digit column of zeros is not stored; all others are, each for one output."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.layers import layer_of, layers, targets

from isa.target import load_target
from passes.plane_skip import plane_skip
from passes.weights import LayerWeights


@pytest.mark.parametrize(("largest", "planes"), [(1, 1), (31, 5), (127, 7)])
def test_small_weights_leave_their_upper_planes_out(largest: int, planes: int) -> None:
    blocks = plane_skip(layer_of(np.full((1, 9, 1), largest)), load_target("ou9x8"))
    assert blocks.columns == planes


@given(st.data(), layers())
def test_every_column_holds_a_digit_and_has_one_route(
    data: st.DataObject, weights: LayerWeights
) -> None:
    blocks = plane_skip(weights, data.draw(targets()))
    assert blocks.cells.any(axis=(1, 2)).all()
    assert blocks.route_count() == blocks.columns
