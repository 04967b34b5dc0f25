"""Replication from end to end: more cores, the same integers, a shorter interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from isa.target import load_target
from passes.replicate import POLICIES
from pimc.data import read_data
from pimc.driver import Compiled, CompileOptions, compile_model
from pimc.replication import DEFAULT_POLICY
from runtime.summary import summary

MODELS = Path(__file__).parents[2] / "models"


def compiled(policy: str, budget: int | None = None) -> Compiled:
    calibration = {"image": read_data(MODELS / "fmnist_calib.npz")["image"]}
    options = CompileOptions(replicate=policy, budget=budget)
    return compile_model(MODELS / "lenet5_fmnist.onnx", load_target("ou9x8"), calibration, options)


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
