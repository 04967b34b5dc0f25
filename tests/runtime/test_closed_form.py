"""The closed form: golden values of cost-models.md 7.2, and agreement with a compiled program."""

from __future__ import annotations

import pytest
from support.networks import LENET, RESNET18, VGG8, VGG16, compiled, lenet

from isa.target import load_target
from runtime.closed_form import DenseLayer, fire_energy_pj
from runtime.cost import Cost, price_program
from runtime.timeline import Timeline
from runtime.timing import simulate


def four_digits(value: float) -> str:
    return f"{value:.4g}"


@pytest.mark.parametrize(
    ("layers", "crossbars", "fires_m", "energy_uj", "sum_ms", "slowest_ms"),
    [
        (LENET, 42, "0.6097", "1.39", "3.482", "2.258"),
        (VGG8, 4721, "556.8", "1269", "22.56", "12.23"),
        (VGG16, 7457, "278.4", "634.7", "23.99", "12.23"),
        (RESNET18, 6953, "136.7", "311.7", "19.89", "3.058"),
    ],
    ids=["lenet", "vgg8", "vgg16", "resnet18"],
)
def test_dense_networks_have_their_golden_values(  # type: ignore[no-untyped-def]
    layers: tuple[DenseLayer, ...], crossbars, fires_m, energy_uj, sum_ms, slowest_ms
) -> None:
    target = load_target("ou9x8")
    times = [layer.cycles(target) * target.cycle_ns * 1e-6 for layer in layers]
    assert sum(layer.crossbars(target) for layer in layers) == crossbars
    assert four_digits(sum(layer.fires(target) for layer in layers) / 1e6) == fires_m
    energy = sum(layer.core_energy_pj(target) for layer in layers) * 1e-6
    assert four_digits(energy) == energy_uj
    assert four_digits(sum(times)) == sum_ms
    assert four_digits(max(times)) == slowest_ms


@pytest.mark.parametrize(
    ("changes", "pj"),
    [
        ({}, 2.280),
        ({"ou.rows": "8"}, 2.230),
        ({"ou.rows": "16", "ou.columns": "16", "crossbar.cell_bits": "2", "adc.bits": "6"}, 10.26),
    ],
)
def test_a_fire_costs_what_the_reference_says(changes: dict[str, str], pj: float) -> None:
    assert fire_energy_pj(load_target("ou9x8", changes)) == pytest.approx(pj, rel=1e-3)


@pytest.fixture(scope="module")
def lenet_run() -> tuple[Cost, Timeline]:
    program, target = compiled(*lenet(), load_target("ou9x8"))
    return price_program(program, target), simulate(program, target, images=3)


def test_a_compiled_lenet_fires_as_often_as_the_closed_form_says(
    lenet_run: tuple[Cost, Timeline],
) -> None:
    cost, _ = lenet_run
    weighted = [layer for layer in cost.layers.values() if layer.fires]
    assert [layer.fires for layer in weighted] == [d.fires(cost.target) for d in LENET]
    assert [layer.crossbars for layer in weighted] == [d.crossbars(cost.target) for d in LENET]
    assert [layer.macs for layer in weighted] == [d.rows * d.outputs * d.windows for d in LENET]


def test_a_compiled_lenet_is_busy_as_long_as_the_closed_form_says(
    lenet_run: tuple[Cost, Timeline],
) -> None:
    cost, timeline = lenet_run
    busy = [u.busy // 3 for u in timeline.all_units() if u.kind == "matrix"]
    assert busy == [layer.cycles(cost.target) for layer in LENET]
    assert timeline.interval == pytest.approx(max(busy), rel=1e-3)


def test_a_compiled_lenet_pays_for_its_fires_what_the_closed_form_says(
    lenet_run: tuple[Cost, Timeline],
) -> None:
    cost, _ = lenet_run
    weighted = [layer for layer in cost.layers.values() if layer.fires]
    prices, bits = cost.prices, cost.target.inputs.bits
    for layer, dense in zip(weighted, LENET, strict=True):
        groups = cost.groups(layer)
        adding = layer.events["adc_conversion"] * prices["shift_add"].energy_pj
        found = groups["adc"] + groups["array"] + adding
        # the last group is not full, and the cells that conduct are counted, not half of them
        assert found == pytest.approx(dense.core_energy_pj(cost.target), rel=0.03)
        assert layer.events["adc_conversion"] == layer.fires * cost.target.ou.columns
        rows = dense.windows * bits * dense.rows * dense.units_across(cost.target)
        assert layer.events["word_line_drive"] == rows
