"""Estimate: the closed form of a dense layer to the digit, and sums of parts for all schemes."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.layers import every_scheme, layer_of, layers, targets

from isa.target import Target, load_target
from passes.estimate import MappingCost, estimate
from passes.ou_tile import ou_tile
from passes.pattern_dedup import pattern_dedup
from passes.place import place
from passes.prices import prices
from passes.weights import LayerWeights

Shape = tuple[int, int, int]  # rows, outputs, windows


def _conv(inputs: int, outputs: int, side: int, kernel: int = 3) -> Shape:
    return inputs * kernel * kernel, outputs, side * side


LENET = [_conv(3, 6, 28, 5), _conv(6, 16, 10, 5), _conv(16, 120, 1, 5), (120, 84, 1), (84, 10, 1)]
VGG8 = [
    _conv(3, 128, 32), _conv(128, 128, 32), _conv(128, 256, 16), _conv(256, 256, 16),
    _conv(256, 512, 8), _conv(512, 512, 8), _conv(512, 1024, 2), (1024, 10, 1),
]  # fmt: skip
VGG16 = [
    _conv(3, 64, 32), _conv(64, 64, 32), _conv(64, 128, 16), _conv(128, 128, 16),
    _conv(128, 256, 8), *[_conv(256, 256, 8)] * 2, _conv(256, 512, 4), *[_conv(512, 512, 4)] * 2,
    *[_conv(512, 512, 2)] * 3, (2048, 10, 1),
]  # fmt: skip
RESNET18 = [
    _conv(3, 64, 32), *[_conv(64, 64, 16)] * 4, *[_conv(64, 128, 8)] * 2,
    *[_conv(128, 128, 8)] * 3, *[_conv(128, 256, 4)] * 2, *[_conv(256, 256, 4)] * 3,
    *[_conv(256, 512, 2)] * 2, *[_conv(512, 512, 2)] * 3, (2048, 512, 1), (512, 10, 1),
]  # fmt: skip


def test_a_full_fire_costs_the_sum_of_its_parts() -> None:
    target = load_target("ou9x8")
    price = prices(target)
    fire = 9 * price.row + 72 * price.cell + 8 * price.conversion
    assert round(fire, 3) == 2.280
    assert fire == pytest.approx(2.27951, rel=5e-4)  # from rounded events; cost-models.md, 7.1
    assert price.accumulate == pytest.approx(0.0417 + 24 * (0.077 + 0.117) / 16)


@pytest.mark.parametrize(
    ("network", "crossbars", "fires_m", "core_uj", "time_ms", "slowest_ms"),
    [
        (LENET, 42, 0.610, 1.39, 3.482, 2.26),
        (VGG8, 4721, 556.8, 1269, 22.56, 12.23),
        (VGG16, 7457, 278.4, 634.7, 23.99, 12.23),
        (RESNET18, 6953, 136.7, 311.7, 19.89, 3.06),
    ],
    ids=["lenet", "vgg8", "vgg16", "resnet18"],
)
def test_dense_layers_cost_what_the_closed_form_says(
    network: list[Shape],
    crossbars: int,
    fires_m: float,
    core_uj: float,
    time_ms: float,
    slowest_ms: float,
) -> None:
    target = load_target("ou9x8")
    costs = [_dense(shape, target) for shape in network]
    assert sum(cost.crossbars for cost in costs) == crossbars
    assert sum(cost.ou_fires for cost in costs) / 1e6 == _printed(fires_m)
    assert sum(cost.time_ns for cost in costs) / 1e6 == _printed(time_ms)
    assert round(max(cost.time_ns for cost in costs) / 1e6, 2) == round(slowest_ms, 2)
    assert not any(cost.table_bits for cost in costs)
    # the closed form drives all 9 word lines of a partly filled unit; here only the used ones
    assert sum(cost.ou_fires for cost in costs) * 2.27951e-6 == _printed(core_uj)
    fire_uj = sum(cost.fire_pj for cost in costs) / 1e6
    assert 0.96 * core_uj < fire_uj <= 1.0005 * core_uj + 0.005


def _printed(value: float) -> object:
    """Equal as far as the table prints it."""
    return pytest.approx(value, rel=9e-4)


def _dense(shape: Shape, target: Target) -> MappingCost:
    rows, outputs, windows = shape
    weights = layer_of(np.zeros((1, rows, outputs), np.int16))
    return estimate(ou_tile(weights, target), windows, target)


@given(st.data(), layers())
def test_costs_are_not_negative_and_add_up(data: st.DataObject, weights: LayerWeights) -> None:
    target = data.draw(targets())
    for name, blocks in every_scheme(weights, target).items():
        cost = estimate(blocks, 5, target, kernel_size=weights.kernel_size)
        assert all(value >= 0 for value in asdict(cost).values() if not isinstance(value, str))
        parts = cost.fire_pj + cost.index_pj + cost.combine_pj + cost.accumulate_pj
        assert cost.energy_pj == parts, name
        assert cost.conversions == 5 * 8 * blocks.columns
        assert cost.route_adds == 5 * blocks.route_count()
        assert cost.stored_columns == blocks.columns
        assert (cost + cost).energy_pj == pytest.approx(2 * cost.energy_pj)


@given(layers())
def test_nothing_but_a_dense_layer_goes_without_tables(weights: LayerWeights) -> None:
    target = load_target("ou9x8")
    found = every_scheme(weights, target)
    assert estimate(found["dense"], 3, target, kernel_size=weights.kernel_size).table_bits == 0
    dedup = found["dedup"]
    if dedup.route_count() > dedup.columns:
        assert estimate(dedup, 3, target, kernel_size=weights.kernel_size).route_bits > 0


def test_a_table_read_is_charged_per_window_or_per_bit() -> None:
    rng = np.random.default_rng(0)
    weights = layer_of(rng.integers(-128, 128, (1, 90, 64)))
    target = load_target("ou9x8")
    per_bit = load_target("ou9x8", {"accumulation.routing": '"per-bit"'})
    blocks = pattern_dedup(weights, target)
    once, often = estimate(blocks, 10, target), estimate(blocks, 10, per_bit)
    assert often.route_adds == 8 * once.route_adds
    assert often.fire_pj == once.fire_pj
    assert often.index_pj > 4 * once.index_pj


def test_more_crossbars_never_take_more_time() -> None:
    rng = np.random.default_rng(0)
    blocks = pattern_dedup(layer_of(rng.integers(-128, 128, (1, 900, 64))), load_target("ou9x8"))
    times = [
        estimate(blocks, 100, load_target("ou9x8"), crossbars=count).time_equal_crossbars_ns
        for count in (40, 80, 160, 320)
    ]
    assert times == sorted(times, reverse=True)


def test_repeated_filters_share_one_combination() -> None:
    rng = np.random.default_rng(0)
    few = rng.integers(-128, 128, (1, 90, 8))
    weights = layer_of(np.tile(few, 16))
    target = load_target("ou9x8")
    shared = estimate(pattern_dedup(weights, target), 10, target)
    assert shared.form == "shared"
    rng.shuffle(weights.values, axis=1)
    mixed = layer_of(rng.permuted(weights.values, axis=2))
    assert shared.energy_pj < 0.7 * estimate(pattern_dedup(mixed, target), 10, target).energy_pj


def test_placed_and_unplaced_blocks_cost_the_same() -> None:
    target = load_target("ou9x8")
    rng = np.random.default_rng(0)
    blocks = pattern_dedup(layer_of(rng.integers(-9, 10, (1, 90, 64))), target)
    placed = replace(blocks, spans=place(blocks, target))
    assert estimate(placed, 10, target) == estimate(blocks, 10, target)
