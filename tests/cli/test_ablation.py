"""``pimc compare --ablation``: four steps, each on top of those before, all equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
ARGUMENTS = ["compare", str(MODELS / "lenet5_fmnist.onnx"), "--ablation", "--calib",
             str(MODELS / "fmnist_calib.npz")]  # fmt: skip


def test_on_lenet5_each_step_is_faster_than_the_one_before_and_computes_the_same() -> None:
    found = _ablation()
    times = [step["time_ns"] for step in found["steps"]]
    assert len(times) == 5
    assert times == sorted(times, reverse=True)
    assert all(step["equal"] and step["reconstructs"] for step in found["steps"])
    assert [step["ratio"] for step in found["steps"]] == [times[0] / time for time in times]
    assert found["reuse_and_pipeline"]["time"] == times[0] / times[2]


def test_the_published_figures_stand_at_the_steps_they_are_for() -> None:
    published = [step["published"] for step in _ablation()["steps"]]
    assert [paper and paper["time"] for paper in published] == [None, 1.73, 2.74, None, None]


def test_pipeline_and_copies_are_also_measured_alone_for_both_mappings() -> None:
    found = _ablation("--optimize", "latency")
    assert list(found["intervals_ns"]) == ["ou-tile", "best-latency"]
    for intervals in found["intervals_ns"].values():
        assert intervals["all"] <= min(intervals["pipelined"], intervals["replicated"])
        assert intervals["none"] >= max(intervals["pipelined"], intervals["replicated"])
    assert found["steps"][3]["time_ns"] == found["intervals_ns"]["best-latency"]["pipelined"]
    assert found["steps"][4]["time_ns"] == found["intervals_ns"]["best-latency"]["all"]


def test_the_table_says_what_the_published_figures_compare() -> None:
    result = CliRunner().invoke(main, ARGUMENTS)
    assert result.exit_code == 0, result.stderr
    assert "+ replication" in result.stdout
    assert "not like for like" in result.stdout


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--schemes", "dense"),
        ("--figure", "figure.svg"),
        ("--data", str(MODELS / "fmnist_calib.npz")),
        ("--samples", "1"),
        ("--compress", "pattern:keep=4"),
    ],
)
def test_an_option_that_the_ablation_has_no_use_for_is_refused(option: str, value: str) -> None:
    result = CliRunner().invoke(main, [*ARGUMENTS, option, value])
    assert result.exit_code == 2
    assert f"--ablation does not take {option}" in result.stderr


def _ablation(*options: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*ARGUMENTS, "--json", *options])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found
