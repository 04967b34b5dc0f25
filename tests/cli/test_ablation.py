"""``pimc compare --ablation``: four steps, each on top of those before, all equal."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
ARGUMENTS = ["compare", str(MODELS / "lenet5_fmnist.onnx"), "--ablation", "--calib",
             str(MODELS / "fmnist_calib.npz")]  # fmt: skip


def test_each_step_is_faster_than_the_one_before_and_computes_the_same() -> None:
    result = CliRunner().invoke(main, [*ARGUMENTS, "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    times = [step["time_ns"] for step in found["steps"]]
    assert len(times) == 5
    assert times == sorted(times, reverse=True)
    assert all(step["equal"] for step in found["steps"])
    own = found["reuse_and_pipeline"]
    assert own["time"] == times[0] / times[2]
    assert found["published"] == {"time": 2.74, "energy_saved": 0.72, "crossbars_saved": 0.70}


def test_the_table_says_what_the_published_figures_compare() -> None:
    result = CliRunner().invoke(main, ARGUMENTS)
    assert result.exit_code == 0, result.stderr
    assert "+ replication" in result.stdout
    assert "not like for like" in result.stdout
