"""Replication: the min-max choice is the optimum, and nothing exceeds the budget."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.replicate import POLICIES, Load, crossbars_used, initiation_interval, min_max

loads = st.lists(
    st.builds(Load, st.integers(1, 6), st.integers(1, 9), st.integers(1, 5)),
    min_size=1,
    max_size=4,
)


@given(loads, st.integers(0, 60))
def test_min_max_is_as_fast_as_the_best_of_all_choices(layers: list[Load], budget: int) -> None:
    single = crossbars_used(layers, [1] * len(layers))
    fitting = [
        initiation_interval(layers, copies)
        for copies in product(*[range(1, load.rounds + 1) for load in layers])
        if crossbars_used(layers, copies) <= max(budget, single)
    ]
    assert initiation_interval(layers, min_max(layers, budget)) == min(fitting)


@given(loads, st.integers(0, 60), st.sampled_from(sorted(POLICIES)))
def test_no_policy_exceeds_the_budget_unless_one_copy_each_does(
    layers: list[Load], budget: int, policy: str
) -> None:
    copies = POLICIES[policy](layers, budget)
    assert all(1 <= count <= load.rounds for count, load in zip(copies, layers, strict=True))
    single = crossbars_used(layers, [1] * len(layers))
    assert crossbars_used(layers, copies) <= max(budget, single)


@given(loads, st.integers(0, 60), st.sampled_from(sorted(POLICIES)))
def test_no_policy_is_faster_than_min_max(layers: list[Load], budget: int, policy: str) -> None:
    best = initiation_interval(layers, min_max(layers, budget))
    assert best <= initiation_interval(layers, POLICIES[policy](layers, budget))


def test_the_budget_goes_to_the_layer_with_the_most_work() -> None:
    layers = [Load(112, 10, 2), Load(56, 10, 2), Load(1, 10, 40)]
    assert min_max(layers, 50) == (3, 2, 1)
    assert initiation_interval(layers, (3, 2, 1)) == 380


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_network_without_weight_layers_needs_no_copies(policy: str) -> None:
    assert POLICIES[policy]([], 10) == ()
