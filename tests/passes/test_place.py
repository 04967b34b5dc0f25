"""Placement and splitting of ragged layers: nothing overlaps, nothing is lost, loads are even."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.layers import every_scheme, layers, occupancy, plans, targets

from isa.matrix import fold
from isa.target import load_target
from passes.graph import MatrixNode
from passes.mapping import MappedLayer
from passes.pattern_dedup import pattern_dedup
from passes.place import packed_spans, place
from passes.room import Room
from passes.split import split_layer
from passes.weights import LayerWeights, layer_weights


@given(st.data(), layers())
def test_no_cell_is_taken_twice(data: st.DataObject, weights: LayerWeights) -> None:
    target = data.draw(targets())
    for name, blocks in every_scheme(weights, target).items():
        spans = place(blocks, target, len(weights.values))
        placed = replace(blocks, spans=spans)
        assert spans.count.sum() == blocks.columns, name
        assert occupancy(placed, target).max(initial=0) <= 1, name


@given(st.data(), layers(), st.integers(1, 9))
def test_an_operation_unit_belongs_to_one_group(
    data: st.DataObject, weights: LayerWeights, crossbars: int
) -> None:
    target = data.draw(targets())
    blocks = pattern_dedup(weights, target, data.draw(plans(target)))
    spans = packed_spans(blocks, target, crossbars)
    assert not (spans.column % target.ou.columns).any()
    assert not (spans.first % target.ou.columns).any()
    placed = replace(blocks, spans=spans)
    assert occupancy(placed, target).max(initial=0) <= 1
    assert spans.count.sum() == blocks.columns


def test_equal_groups_fill_crossbars_alike() -> None:
    target = load_target("ou9x8")
    rng = np.random.default_rng(0)
    weights = layer_weights(_node(rng.integers(-128, 128, (64, 3, 3, 64))))
    spans = packed_spans(pattern_dedup(weights, target), target, 20)
    units = np.bincount(spans.crossbar, -(-spans.count // target.ou.columns))
    assert len(units) == 20
    assert units.max() <= units.mean() + 14  # at most one unit more on each shelf


@given(st.data())
def test_parts_add_up_to_the_layer_and_fit_their_cores(data: st.DataObject) -> None:
    target = load_target("tiny", {"hierarchy.crossbars_per_pe": "2", "hierarchy.pes_per_core": "1"})
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 16)))
    sections, kernel = data.draw(st.sampled_from((1, 2))), data.draw(st.sampled_from((1, 3)))
    channels, outputs = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 30)) * sections
    values = rng.integers(-128, 128, (outputs, kernel, kernel, channels))
    values[rng.random(values.shape) < data.draw(st.sampled_from((0.0, 0.5, 1.0)))] = 0
    node = _node(values, sections)
    weights = layer_weights(node)
    for name, blocks in every_scheme(weights, target).items():
        total = np.zeros((kernel * kernel, channels * sections, outputs), np.int64)
        for row in split_layer(MappedLayer(node, blocks), Room(8, 24, 32768), target):
            for part in row:
                assert part.blocks.crossbars <= target.crossbars_per_core, name
                width = part.inputs[1] - part.inputs[0]
                held = fold(part.blocks).reshape(kernel * kernel, width, -1)
                total[:, slice(*part.inputs), slice(*part.outputs)] += held
        assert (total.reshape(-1, outputs) == weights.matrix()).all(), name


def _node(weights: NDArray[Any], sections: int = 1) -> MatrixNode:
    return MatrixNode(
        "layer",
        ("in",),
        "out",
        weights=weights.astype(np.int16),
        bias=np.zeros(len(weights), np.int32),
        scale=np.ones(1, np.float32),
        groups=sections,
    )
