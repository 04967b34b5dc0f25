"""PattPIM's statistics equal a plain, slow count, and exact reuse changes no weight."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pimc.reproduce import pattpim
from pimc.reproduce.pattpim import Layer, Unit
from pimc.reproduce.prap_model import BEAT_NS, STEP_NS

Patterns = NDArray[np.int8]


def draw_weights(seed: int, rows: int, outputs: int, values: int) -> Patterns:
    """Few values, so that patterns repeat, and some zero columns."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-values, values + 1, (rows, outputs)).astype(np.int8)
    return weights * (rng.random(outputs) < 0.9).astype(np.int8)


def keep_slowly(group: Patterns, distance: int | float) -> tuple[int, int]:
    """The procedure of the paper's re-implementation, one pattern after the other."""
    ordered = sorted(group.astype(int).tolist(), key=lambda x: -sum(map(abs, x)))
    norms = [sum(map(abs, x)) for x in ordered]
    limit = distance
    if isinstance(distance, float):
        limit = norms[min(len(norms) - 1, int(len(norms) * distance))]
    kept: list[list[int]] = []
    moved = 0
    for number, (x, norm) in enumerate(zip(ordered, norms, strict=True)):
        gaps = [norm] + [sum(abs(a - b) for a, b in zip(x, y, strict=True)) for y in kept]
        if min(gaps) <= limit and not (number == 0 and norm > 0):
            moved += min(gaps)
        else:
            kept.append(x)
    return len(kept), moved


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    outputs=st.integers(1, 40),
    height=st.sampled_from([1, 2, 7, 8, 9, 16, 17]),
    values=st.sampled_from([1, 2, 127]),
)
def test_distinct_patterns_equal_a_count_with_sets(
    seed: int, rows: int, outputs: int, height: int, values: int
) -> None:
    patterns = pattpim.group_rows(draw_weights(seed, rows, outputs, values), height)
    plain = [len({tuple(x) for x in group.tolist() if any(x)}) for group in patterns]
    assert pattpim.count_distinct(patterns).tolist() == plain


@given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(1, 40),
    distance=st.sampled_from([0, 1, 3, 8, 0.0, 0.25, 0.75, 1.0]),
    values=st.sampled_from([1, 2, 5, 127]),
)
def test_kept_patterns_equal_the_sequential_procedure(
    seed: int, outputs: int, distance: int | float, values: int
) -> None:
    patterns = pattpim.group_rows(draw_weights(seed, 11, outputs, values), 4)
    kept, moved = pattpim.keep_patterns(patterns, distance)
    plain = [keep_slowly(group, distance) for group in patterns]
    assert list(zip(kept.tolist(), moved.tolist(), strict=True)) == plain


@given(seed=st.integers(0, 2**32 - 1))
def test_distance_zero_keeps_the_distinct_patterns_and_moves_nothing(seed: int) -> None:
    patterns = pattpim.group_rows(draw_weights(seed, 24, 30, 1), 4)
    kept, moved = pattpim.keep_patterns(patterns, 0)
    assert kept.tolist() == pattpim.count_distinct(patterns).tolist()
    assert not moved.any()


def test_splitting_into_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = pattpim.group_rows(draw_weights(5, 80, 20, 3), 8)
    whole = [part.tolist() for part in pattpim.keep_patterns(patterns, 6)]
    monkeypatch.setattr(pattpim, "_PAIRS", 3 * 20**2)
    assert [part.tolist() for part in pattpim.keep_patterns(patterns, 6)] == whole


def test_row_groups_hold_the_rows_in_order_and_zeros_at_the_end() -> None:
    weights = np.arange(10, dtype=np.int8).reshape(5, 2)
    assert pattpim.group_rows(weights, 3).tolist() == [
        [[0, 2, 4], [1, 3, 5]],
        [[6, 8, 0], [7, 9, 0]],
    ]


def test_patterns_are_shared_inside_a_row_group_only() -> None:
    # rows 0-1 and 2-3 hold the same two patterns: each group stores its own
    weights = np.tile(np.array([[1, 2], [3, 4]], np.int8), (2, 1))
    assert pattpim.count_layer(Layer(weights, 1), Unit(2, 8)).stored == 4


def test_steps_by_hand() -> None:
    # 2 groups of 4 equal filters, 8 columns each: 4 OUs dense, 1 stored, 8 input bits, 10 windows
    layer = Layer(np.ones((16, 4), np.int8), 10)
    count = pattpim.count_layer(layer, Unit(8, 8))
    assert (count.dense_steps, count.steps) == (2 * 4 * 8 * 10, 2 * 1 * 8 * 10)


def test_a_skipped_pattern_saves_64_conversions_a_window() -> None:
    alone, shared = (
        pattpim.count_layer(Layer(np.array([row] * 8, np.int8), 1), Unit())
        for row in ([1, 2], [1, 1])
    )
    saved = (alone.time_ns - shared.time_ns) - BEAT_NS  # and one sum less is put aside
    assert saved == pytest.approx(64 * STEP_NS)


def test_tables_tell_each_filter_its_pattern_or_zero() -> None:
    weights = np.array([[1, 1, 2, 3, 0]], np.int8)  # three patterns and zero: two bits each
    assert pattpim.count_layer(Layer(weights, 1), Unit(1, 8)).table_bits == 5 * 2


def test_a_larger_distance_never_stores_more_on_a_trained_like_layer() -> None:
    rng = np.random.default_rng(0)
    layer = Layer(np.clip(rng.normal(0, 20, (64, 64)), -127, 127).astype(np.int8), 1)
    stored = [pattpim.count_layer(layer, Unit(), d).stored for d in (0, 32, 64, 128, 256)]
    assert stored == sorted(stored, reverse=True)


def test_sampling_every_group_is_the_whole_count() -> None:
    layer = Layer(draw_weights(2, 64, 30, 4), 3)
    assert pattpim.count_layer(layer, Unit(), 5, sampled=8) == pattpim.count_layer(
        layer, Unit(), 5, sampled=1000
    )


def test_reuse_without_repeats_costs_time_and_energy() -> None:
    weights = np.arange(-60, 60, dtype=np.int8).reshape(1, 120)
    count = pattpim.count_layer(Layer(weights[:, weights[0] != 0], 1), Unit(1, 8))
    assert count.time_ns > count.dense_time_ns
    assert count.energy_pj > count.dense_energy_pj


def test_an_all_zero_network_is_counted_and_printed() -> None:
    zeros = {"net": {"layer": Layer(np.zeros((9, 4), np.int8), 2)}}
    (table,) = pattpim.tables(zeros)
    assert table.row("exact: space saved").ours == 100
    json.dumps(table.as_json(), allow_nan=False)


def test_the_published_figures_stand_beside_each_distance() -> None:
    net = {"net": {"layer": Layer(draw_weights(1, 16, 12, 9), 2)}}
    (table,) = pattpim.tables(net, distances=(4, 0.5))
    for label in ("exact", "distance 4", "share 0.5"):
        claimed = [
            table.row(f"{label}: {what}").published
            for what in ("space saved", "energy saved", "speed")
        ]
        assert claimed == [52.95, 56.53, 1.73]


def test_every_row_is_measured() -> None:
    net = {"net": {"layer": Layer(draw_weights(1, 16, 12, 9), 2)}}
    assert {row.kind for row in pattpim.tables(net)[0].rows} == {"measured"}
