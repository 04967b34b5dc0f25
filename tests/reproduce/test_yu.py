"""Yu's accounting: published bands are met, and small cases come out as counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pimc.reproduce import yu
from pimc.reproduce.result import Table

SMALL = yu.Device(size=16, ou_rows=4, ou_columns=4, cells=2)


@pytest.fixture(scope="module")
def tables() -> tuple[Table, ...]:
    return yu.tables()


@pytest.mark.parametrize("label", ["crossbars", "energy (OU steps)", f"speed, pz={0.7:g}"])
@pytest.mark.parametrize("number", [0, 1])
def test_each_claim_is_inside_its_band(tables: tuple[Table, ...], number: int, label: str) -> None:
    assert tables[number].row(label).gap == 0


def test_the_zero_share_that_speed_rests_on_is_printed(tables: tuple[Table, ...]) -> None:
    assert any("pz=0.7" in text for text in tables[0].assumptions)


def test_without_zero_skipping_there_is_no_speedup(tables: tuple[Table, ...]) -> None:
    assert all(table.row("speed without zero-skipping").ours < 1 for table in tables)


def test_every_row_is_a_reconstruction(tables: tuple[Table, ...]) -> None:
    assert {row.kind for table in tables for row in table.rows} == {"reconstructed"}


def test_dense_vgg16_takes_234_crossbars_and_ours_53() -> None:
    dense, ours = yu.account_synthetic(yu.Pruning(), yu.Device())
    assert (dense.crossbars, ours.crossbars) == (234, 53)


def test_cells_follow_from_kept_kernels_and_positions() -> None:
    dense, ours = yu.account_synthetic(yu.Pruning(4, 8, 0.48), yu.Device(), seed=3)
    assert dense.cells / ours.cells == pytest.approx(9 / (4 * 0.48), rel=1e-4)


def test_dense_account_by_hand() -> None:
    # 18 rows x 6 columns: one full crossbar of 4 OU rows, one rest of 1; 2 OUs across
    account = yu.dense_account(2, 3, windows=10, device=SMALL)
    assert account == yu.Account(2, 108, steps=10, work=100, busiest=80)


def test_reorder_account_by_hand() -> None:
    # channel 0: outputs 0 and 2 share a pattern of two, output 1 is all zero; channel 1: one of one
    supports = np.zeros((3, 2, 9), np.bool_)
    supports[0, 0, [0, 4]] = supports[2, 0, [0, 4]] = supports[1, 1, 8] = True
    account = yu.reorder_account(supports, windows=10, device=SMALL, patterns=8)
    table_bits = 3 * 2 + 2 * (3 + 2 + 1) + 8 * 9
    assert account == yu.Account(
        1, 2 * 2 * 2 + 2, steps=2, work=20, busiest=20, index_bits=table_bits
    )


def test_all_zero_kernels_cost_nothing_but_the_dictionary() -> None:
    account = yu.reorder_account(np.zeros((4, 4, 9), np.bool_), 5, SMALL, patterns=8)
    assert account == yu.Account(index_bits=72)


def test_shelves_of_mixed_heights_never_overfill_a_crossbar() -> None:
    heights = np.array([9, 9, 7, 4, 4, 4, 1])
    loads = np.array([1, 2, 4, 8, 16, 32, 64])
    # 9 | 9 + 7 | 4 + 4 + 4 + 1
    assert yu._stack(heights, loads, 16).tolist() == [1, 6, 120]


@pytest.mark.parametrize("positions", [2, 4, 6])
def test_synthetic_kernels_keep_the_asked_positions_patterns_and_share(positions: int) -> None:
    pruning = yu.Pruning(positions, 5, 0.4)
    supports = yu.synthetic_supports(20, 50, pruning, np.random.default_rng(1)).reshape(-1, 9)
    alive = supports[supports.any(axis=1)]
    assert len(alive) == 400
    assert set(alive.sum(axis=1).tolist()) == {positions}
    assert len(np.unique(alive, axis=0)) <= 5


def test_weights_of_a_real_network_are_accounted_too() -> None:
    weights = np.zeros((8, 4, 9), np.int8)
    weights[:, :, :4] = -3
    dense, ours = yu.account_network([(weights, 7), (weights, 1)], SMALL, patterns=8)
    assert dense.cells / ours.cells == 9 / 4
