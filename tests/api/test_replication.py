"""Replication from end to end: more cores, the same integers, a shorter interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from isa.program import Program
from isa.target import load_target
from passes.replicate import POLICIES
from pimc.data import read_data
from pimc.driver import Compiled, CompileOptions, compile_model
from pimc.replication import DEFAULT_POLICY
from runtime.summary import summary

MODELS = Path(__file__).parents[2] / "models"


def compiled(policy: str, budget: int | None = None, network: str = "lenet5_fmnist") -> Compiled:
    calibration = {"image": read_data(MODELS / "fmnist_calib.npz")["image"]}
    options = CompileOptions(replicate=policy, budget=budget)
    target = load_target("ou9x8")
    return compile_model(MODELS / f"{network}.onnx", target, calibration, options)


@pytest.fixture(scope="module")
def single() -> dict[str, float]:
    done = compiled(DEFAULT_POLICY)
    return summary(done.program, done.target, 4)


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"none"}))
def test_every_policy_shortens_the_interval_and_computes_the_same(
    policy: str, single: dict[str, float]
) -> None:
    from pimc.check import verify_program

    done = compiled(policy)
    found = summary(done.program, done.target, 4)
    assert found["interval_ns"] < 0.7 * single["interval_ns"]
    assert found["interval_ns"] <= 1.1 * found["bound_interval_ns"]
    feeds = read_data(MODELS / "fmnist_test500.npz", 5)
    checked = verify_program(done.program, done.target, done.reference, None, feeds, per_layer=True)
    assert checked.is_equal
    assert len(checked.layers) >= 6


@pytest.mark.parametrize("network", ["resnet8_fmnist", "vggs_fmnist"])
@pytest.mark.parametrize("policy", ["min-max", "isaac"])
def test_copies_of_deeper_networks_equal_the_reference_in_all_that_travels(
    network: str, policy: str
) -> None:
    from pimc.check import verify_program

    done = compiled(policy, network=network)
    found = summary(done.program, done.target, 8)
    assert found["interval_ns"] <= 1.1 * found["bound_interval_ns"]
    feeds = read_data(MODELS / "fmnist_test500.npz", 3)
    checked = verify_program(done.program, done.target, done.reference, None, feeds, per_layer=True)
    travel = {channel.carries[0] for channel in done.program.channels if channel.carries}
    assert checked.is_equal
    assert len(checked.layers) == len(travel)


def test_a_row_from_the_wrong_copy_is_found_where_not_all_rows_travel() -> None:
    from pimc.check import verify_program

    done = compiled("isaac", network="vggs_fmnist")
    partial = partly_carried(done.program)
    first, *others = [c for c in done.program.channels if c.carries and c.carries[0] in partial]
    other = next(
        c
        for c in others
        if (c.carries, c.target) == (first.carries, first.target)
        and c.rows != first.rows
        and len(range(*c.rows)) == len(range(*first.rows))
    )
    swapped = {first.name: other.rows, other.name: first.rows}
    channels = tuple(replace(c, rows=swapped.get(c.name, c.rows)) for c in done.program.channels)
    feeds = read_data(MODELS / "fmnist_test500.npz", 3)
    checked = [
        verify_program(program, done.target, done.reference, None, feeds, per_layer=True)
        for program in (done.program, replace(done.program, channels=channels))
    ]
    assert [found.is_equal for found in checked] == [True, False]


def partly_carried(program: Program) -> set[str]:
    """Tensors of which some row stands on no channel, such as the last one of a pool's input."""
    tensors = {tensor.name: tensor for tensor in program.tensors}
    rows: dict[str, set[int]] = {}
    for channel in program.channels:
        if channel.carries:
            tensor = tensors[channel.carries[0]]
            rows.setdefault(tensor.name, set()).update(channel.rows_of(tensor))
    return {name for name, held in rows.items() if len(held) < tensors[name].shape[0]}


def test_min_max_is_no_slower_than_the_other_policies() -> None:
    intervals = {}
    for policy in POLICIES:
        done = compiled(policy)
        intervals[policy] = summary(done.program, done.target, 4)["bound_interval_ns"]
    assert intervals["min-max"] == min(intervals.values())


def test_copies_stay_within_their_budget() -> None:
    target = load_target("ou9x8")
    done = compiled("min-max", 12 * target.crossbars_per_core)
    assert 7 < len(done.program.cores) <= 12
    programmed = summary(done.program, done.target, 1)["programming"]["energy_pj"]
    once = compiled("none")
    assert programmed > summary(once.program, once.target, 1)["programming"]["energy_pj"]
