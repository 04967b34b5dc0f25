"""Random layers, every mapping scheme, and a count of what stands where in the crossbars."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from isa.matrix import BlockMatrix
from isa.target import Target, load_target
from passes.best import SCHEMES
from passes.encoding import encodings_for
from passes.grouping import RowOrder
from passes.pattern_dedup import DedupPlan, Granularity
from passes.weights import LayerWeights

ORDERS: tuple[RowOrder, ...] = ("channel", "position", "magnitude")
GRANULARITIES: tuple[Granularity, ...] = ("filter", "column", "none")
RANGES = ((-128, 127), (0, 127), (-4, 4), (-128, -128), (0, 0), (-255, 255))


def small_target(ou_rows: int, ou_columns: int, cell_bits: int, **overrides: str) -> Target:
    """``ou9x8`` with another operation unit, an ADC that is always exact, and ``a__b`` for a.b."""
    settings = {
        "ou.rows": str(ou_rows),
        "ou.columns": str(ou_columns),
        "crossbar.cell_bits": str(cell_bits),
        "adc.bits": "6",
    }
    settings |= {key.replace("__", "."): value for key, value in overrides.items()}
    return load_target("ou9x8", settings)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    """Operation units of 2x2 to 16x16, cells of 1 and 2 bits."""
    return small_target(
        draw(st.integers(2, 16)), draw(st.integers(2, 16)), draw(st.sampled_from((1, 2)))
    )


@st.composite
def layers(draw: st.DrawFn, groups: bool = True) -> LayerWeights:
    """Weights with zeros, repeats and extremes; one to three convolution groups."""
    sections = draw(st.sampled_from((1, 1, 3) if groups else (1,)))
    kernel = draw(st.sampled_from((1, 4, 9, 25)))
    channels, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 20))
    low, high = draw(st.sampled_from(RANGES))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    values = rng.integers(low, high + 1, (sections, channels * kernel, outputs)).astype(np.int16)
    values[rng.random(values.shape) < draw(st.sampled_from((0.0, 0.6)))] = 0
    if draw(st.booleans()):
        values[:, :, outputs // 2 :] = values[:, :, : outputs - outputs // 2]  # repeated filters
    return layer_of(values, kernel)


def layer_of(values: np.ndarray[Any, Any], kernel: int = 1) -> LayerWeights:
    """A layer of the sections ``values`` [sections, channels * kernel, outputs]."""
    sections, count, _ = values.shape
    channels = count // kernel
    channel, position = np.divmod(np.arange(count), kernel)
    rows = position * channels * sections + channel + np.arange(sections)[:, None] * channels
    return LayerWeights(count * sections, kernel, rows.astype(np.int32), values.astype(np.int16))


def every_scheme(weights: LayerWeights, target: Target) -> dict[str, BlockMatrix]:
    """The blocks that each scheme makes of a layer."""
    return {name: scheme(weights, target) for name, scheme in SCHEMES.items()}


@st.composite
def plans(draw: st.DrawFn, target: Target) -> DedupPlan:
    """Any plan of pattern de-duplication that a target allows."""
    return DedupPlan(
        draw(st.sampled_from(GRANULARITIES)),
        draw(st.sampled_from(encodings_for(target.crossbar.cell_bits))),
        draw(st.integers(1, target.ou.rows)),
        draw(st.sampled_from(ORDERS)),
    )


def occupancy(blocks: BlockMatrix, target: Target) -> np.ndarray[Any, Any]:
    """How many stored cells stand on each place, [crossbars, word lines, bit lines]."""
    spans = blocks.spans
    heights = (blocks.rows >= 0).sum(axis=1)[spans.group]
    taken = np.zeros((blocks.crossbars, target.crossbar.rows, target.crossbar.columns), np.int64)
    for crossbar, row, height, column, count in zip(
        spans.crossbar, spans.row, heights, spans.column, spans.count, strict=True
    ):
        assert row + height <= target.crossbar.rows
        assert column + count <= target.crossbar.columns
        taken[crossbar, row : row + height, column : column + count] += 1
    return taken
