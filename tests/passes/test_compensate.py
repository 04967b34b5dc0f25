"""Least squares after masking: never worse, exact where it can be, and honest about the error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.compensate import Statistics, from_sections, solve, support_of, to_sections
from passes.compensate_tied import Refit, refit_translated
from passes.pattern_prune import prune_local
from passes.pattern_search import search_patterns
from passes.translate_similar import shape_after, translate_similar
from passes.translation import quantize_rows

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def layer(seed: int, outputs: int = 6, channels: int = 4, sections: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(outputs, channels // sections, 3, 3)), rng.normal(size=outputs)


def inputs(seed: int, count: int, sections: int, size: int) -> Array:
    """Correlated, so that the weights that stay can make up for those that go."""
    rng = np.random.default_rng(seed + 1)
    mixed = rng.normal(size=(sections, count, size)) @ rng.normal(size=(sections, size, size))
    return mixed + 0.5


def measured(seed: int, weights: Array, bias: Array, sections: int = 1) -> tuple[Statistics, Array]:
    """Statistics whose targets are another layer's outputs, and the columns."""
    start = to_sections(weights, bias, sections)
    columns = inputs(seed, 300, sections, start.shape[2] - 1)
    rng = np.random.default_rng(seed + 2)
    aim = start + 0.1 * rng.normal(size=start.shape)
    statistics = Statistics.empty(start)
    for part in np.array_split(np.arange(300), 3):
        statistics.add(columns[:, part], outputs_of(columns[:, part], aim))
    return statistics, columns


def outputs_of(columns: Array, weights: Array) -> Array:
    found = columns @ weights[:, :, :-1].transpose(0, 2, 1) + weights[:, None, :, -1]
    return found.transpose(1, 0, 2).reshape(columns.shape[1], -1)


@given(seed=st.integers(0, 999), sections=st.sampled_from([1, 2, 4]), ridge=st.floats(0, 1))
def test_least_squares_never_increases_the_error_on_its_inputs(
    seed: int, sections: int, ridge: float
) -> None:
    weights, bias = layer(seed, outputs=8, sections=sections)
    statistics, _ = measured(seed, weights, bias, sections)
    pruned = prune_local(weights, 4)
    start = to_sections(pruned.weights, bias, sections)
    solved = solve(statistics, start, support_of(pruned.mask, sections), ridge)
    before, after = statistics.squared_error(start), statistics.squared_error(solved)
    assert (after <= before).all()


@given(seed=st.integers(0, 99))
def test_solved_weights_stand_on_the_support_only(seed: int) -> None:
    weights, bias = layer(seed)
    statistics, _ = measured(seed, weights, bias)
    pruned = prune_local(weights, 4)
    start = to_sections(pruned.weights, bias, 1)
    solved = solve(statistics, start, support_of(pruned.mask, 1))
    found, _ = from_sections(solved, weights.shape)
    assert not found[~pruned.mask].any()


def test_without_ridge_the_solution_is_that_of_lstsq() -> None:
    weights, bias = layer(7, outputs=1)
    statistics, columns = measured(7, weights, bias)
    pruned = prune_local(weights, 4)
    support = support_of(pruned.mask, 1)
    solved = solve(statistics, to_sections(pruned.weights, bias, 1), support, ridge=0.0)
    kept = support[0, 0]
    joined = np.concatenate([columns[0], np.ones((300, 1))], axis=1)
    rng = np.random.default_rng(9)
    aim = to_sections(weights, bias, 1) + 0.1 * rng.normal(size=(1, 1, 37))
    expected = np.linalg.lstsq(joined[:, kept], outputs_of(columns, aim)[:, 0], rcond=None)[0]
    assert np.allclose(solved[0, 0, kept], expected, atol=1e-3)


@given(seed=st.integers(0, 99), sections=st.sampled_from([1, 4]))
def test_the_reported_error_is_the_error_of_the_outputs(seed: int, sections: int) -> None:
    weights, bias = layer(seed, outputs=8, sections=sections)
    start = to_sections(weights, bias, sections)
    columns = inputs(seed, 200, sections, start.shape[2] - 1)
    statistics = Statistics.empty(start)
    statistics.add(columns, outputs_of(columns, start))
    other = start * 0.9
    left = outputs_of(columns, other) - outputs_of(columns, start)
    expected = np.sqrt((left**2).sum() / (outputs_of(columns, start) ** 2).sum())
    assert statistics.relative_error(other) == pytest.approx(float(expected), rel=1e-4)
    assert statistics.relative_error(start) < 1e-5


def test_inputs_that_never_fire_keep_their_weights() -> None:
    weights, bias = layer(1)
    start = to_sections(weights, bias, 1)
    columns = inputs(1, 100, 1, 36)
    columns[:, :, 5] = 0.0
    statistics = Statistics.empty(start)
    statistics.add(columns, outputs_of(columns, start * 1.1))
    solved = solve(statistics, start, np.ones(start.shape, np.bool_))
    assert np.allclose(solved[0, :, 5], start[0, :, 5])


@pytest.mark.parametrize("group", [1, 2])
def test_searched_patterns_leave_less_error_than_the_largest_weights(group: int) -> None:
    weights, bias = layer(11, outputs=32, channels=8)
    statistics, _ = measured(11, weights, bias)
    errors = []
    for pruned in (
        prune_local(weights, 4, group),
        search_patterns(statistics, weights, 4, group),
    ):
        start = to_sections(pruned.weights, bias, 1)
        solved = solve(statistics, start, support_of(pruned.mask, 1))
        errors.append(statistics.relative_error(solved))
        assert set(pruned.mask.sum(axis=(2, 3)).ravel()) == {4}
    assert errors[1] < errors[0]


@given(seed=st.integers(0, 99), keep=st.floats(0.1, 0.9), joint=st.booleans())
def test_a_refit_obeys_its_table_and_never_increases_the_error(
    seed: int, keep: float, joint: bool
) -> None:
    weights, bias = layer(seed, outputs=16, channels=5)  # the last group is half empty
    statistics, _ = measured(seed, weights, bias)
    pruned = prune_local(weights, 4, group=2)
    integers, scale = quantize_rows(pruned.weights)
    full = np.rint(weights / scale[:, None, None, None]) if joint else None
    table = translate_similar(integers, keep, 2, full)
    start = Refit(table.apply(integers), bias, table, shape_after(pruned.mask, table))
    refit = refit_translated(statistics, start, scale, max_shift=3)

    def error(unit: Refit) -> float:
        real = unit.weights * scale[:, None, None, None].astype(np.float64)
        return statistics.relative_error(to_sections(real, unit.bias, 1))

    assert np.array_equal(refit.translation.apply(refit.weights), refit.weights)
    assert np.array_equal(refit.translation.kept, table.kept)
    assert not refit.weights[~refit.mask].any()
    assert np.abs(refit.weights).max() <= 127
    assert error(refit) <= error(start) * (1 + 1e-9)
