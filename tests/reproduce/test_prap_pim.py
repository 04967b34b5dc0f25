"""PRAP-PIM's published tables come out of the closed form, and the faults are told apart."""

from __future__ import annotations

import pytest

from pimc.reproduce import prap_pim
from pimc.reproduce.prap_model import AS_PUBLISHED, CORRECTED, DENSE, MODES, Corrections, evaluate
from pimc.reproduce.prap_networks import Network, load_networks
from pimc.reproduce.result import Table


@pytest.fixture(scope="module")
def tables() -> tuple[Table, ...]:
    return prap_pim.tables()


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    return load_networks()


def test_all_56_cells_are_within_one_percent(tables: tuple[Table, ...]) -> None:
    gaps = {row.label: abs(row.gap or 0) for row in tables[0].rows}
    assert len(gaps) == 56
    assert {label: gap for label, gap in gaps.items() if gap > 0.01} == {}


def test_the_headline_means_are_within_two_hundredths(tables: tuple[Table, ...]) -> None:
    ours = [tables[1].row(f"over ORC {what}").ours for what in ("latency", "energy")]
    assert ours == pytest.approx([1.64, 1.51], abs=0.02)


def test_the_means_over_every_rival_are_within_one_percent(tables: tuple[Table, ...]) -> None:
    claimed = [row for row in tables[1].rows if row.published is not None]
    assert len(claimed) == 14
    assert max(abs(row.gap or 0) for row in claimed) < 0.01


def test_dense_totals_are_within_a_quarter_of_a_percent(tables: tuple[Table, ...]) -> None:
    assert max(abs(row.gap or 0) for row in tables[2].rows) < 0.0025


@pytest.mark.parametrize("name", ["VGG16", "ResNet-18", "ResNet-50", "WRN"])
def test_tile_counts_are_equal(tables: tuple[Table, ...], name: str) -> None:
    assert tables[2].row(f"{name} tiles").gap == 0


def test_only_crossbars_of_256_give_the_headline(networks: dict[str, Network]) -> None:
    means = {
        size: prap_pim.mean_ratios(prap_pim.evaluate_all(networks, AS_PUBLISHED, size), "ORC")
        for size in (128, 256, 512)
    }
    near = [size for size, mean in means.items() if mean == pytest.approx((1.64, 1.51), abs=0.02)]
    assert near == [256]


def test_other_crossbar_sizes_agree_with_the_authors_simulator(tables: tuple[Table, ...]) -> None:
    assert max(abs(row.gap or 0) for row in tables[3].rows) < 0.01


def test_power_corrections_alone_give_the_preview(networks: dict[str, Network]) -> None:
    """The figures that a run of the authors' simulator with these two faults mended gave."""
    costs = prap_pim.evaluate_all(networks, Corrections(index_power=True, adder_energy=True))
    gains = [costs[n, "dense"].energy_nj / costs[n, "PRAP"].energy_nj for n in networks]
    assert gains == pytest.approx([6.6, 6.1, 4.3, 7.5], abs=0.06)
    assert prap_pim.mean_ratios(costs, "ORC")[1] == pytest.approx(1.44, abs=0.005)


def test_a_correction_of_power_changes_no_latency(networks: dict[str, Network]) -> None:
    mended = Corrections(index_power=True, adder_energy=True)
    for network in networks.values():
        before, after = (evaluate(network, MODES["PRAP"], c) for c in (AS_PUBLISHED, mended))
        assert after.latency_ns == before.latency_ns
        assert after.energy_nj > before.energy_nj


@pytest.mark.parametrize(
    ("name", "lists"),
    [
        ("VGG16", []),
        ("ResNet-18", []),
        ("ResNet-50", ["channel", "prune"]),
        ("WRN", ["joint", "similar"]),
    ],
)
def test_lists_are_corrected_only_where_they_differ(
    networks: dict[str, Network], name: str, lists: list[str]
) -> None:
    network = networks[name]
    changed = [key for key in network.keep if network.kept(key, True) != network.kept(key, False)]
    assert sorted(changed) == lists


def test_resnet50_lists_are_the_same_shares_in_another_order(networks: dict[str, Network]) -> None:
    network = networks["ResNet-50"]
    for key in ("channel", "prune"):
        assert sorted(network.corrected[key]) == sorted(network.keep[key])


def test_corrected_resnet50_prunes_shapes_of_3x3_kernels_only(
    networks: dict[str, Network],
) -> None:
    network = networks["ResNet-50"]
    pruned = zip(network.layers, network.kept("prune", True), strict=True)
    ninths = {layer.kernel for layer, share in pruned if share.denominator == 9}
    assert ninths == {3}


def test_a_stale_entry_makes_the_last_layer_of_wrn_cheaper(networks: dict[str, Network]) -> None:
    stale = evaluate(networks["WRN"], MODES["PRAP"])
    mended = evaluate(networks["WRN"], MODES["PRAP"], Corrections(lists=True))
    assert mended.latency_ns > stale.latency_ns


def test_every_mode_beats_dense_before_and_after_correction(networks: dict[str, Network]) -> None:
    for corrections in (AS_PUBLISHED, CORRECTED):
        for network in networks.values():
            dense = evaluate(network, DENSE, corrections)
            for mode in MODES.values():
                cost = evaluate(network, mode, corrections)
                assert cost.latency_ns < dense.latency_ns
                assert cost.energy_nj < dense.energy_nj


@pytest.mark.parametrize(("mode", "kilobytes"), [("ORC", 64), ("PRAP", 32), ("S", 2)])
def test_index_buffers_have_the_sizes_of_the_paper(mode: str, kilobytes: int) -> None:
    assert MODES[mode].index_kilobytes(256) == kilobytes
