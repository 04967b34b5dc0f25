"""Row compression: rows of zeros go where a whole operation unit has them, and only there."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.layers import layer_of, layers, targets

from isa.target import load_target
from passes.encoding import encode, signed_bits
from passes.grouping import exact_height
from passes.row_compress import compressed_groups, row_compress
from passes.weights import LayerWeights

TARGET = load_target("ou9x8")


def test_the_rows_that_an_output_uses_share_a_group() -> None:
    values = np.zeros((1, 30, 2))
    used = [0, 4, 5, 9, 11, 17, 20, 28]
    values[0, used, 0] = 7
    values[0, 3, 1] = -1
    blocks = row_compress(layer_of(values), TARGET)
    assert [row[row >= 0].tolist() for row in blocks.rows] == [used, [3]]
    assert blocks.columns == 16


@given(st.data(), layers())
def test_it_keeps_the_rows_with_a_weight_of_every_run_of_outputs_in_order(
    data: st.DataObject, weights: LayerWeights
) -> None:
    target = data.draw(targets())
    groups = compressed_groups(weights, target)
    digits = encode(weights.values[:0], target.crossbar.cell_bits, signed_bits(weights.values))
    together = max(1, target.ou.columns // len(digits.shift))
    kept = 0
    for section in weights.values:
        for first in range(0, section.shape[1], together):
            kept += int(section[:, first : first + together].any(axis=1).sum())
    assert int((groups.rows >= 0).sum()) == kept
    assert groups.rows.shape[1] == exact_height(target)


@given(st.data(), layers())
def test_the_output_index_form_stores_no_column_of_zeros(
    data: st.DataObject, weights: LayerWeights
) -> None:
    blocks = row_compress(weights, data.draw(targets()), "output")
    assert blocks.cells.any(axis=(1, 2)).all()
