"""``pimc simulate`` and ``pimc reproduce`` on a small network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
LENET = MODELS / "lenet5_fmnist.onnx"
CALIBRATION = MODELS / "fmnist_calib.npz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_simulate_reports_time_energy_and_area_and_writes_a_trace(tmp_path: Path) -> None:
    program, trace = tmp_path / "lenet.pim", tmp_path / "trace.json"
    assert run("compile", LENET, "--calib", CALIBRATION, "-o", program).exit_code == 0
    result = run("simulate", program, "--images", 4, "--trace", trace, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    for name in (
        "images", "interval_ns", "bound_interval_ns", "latency_ns", "energy_pj", "area_mm2",
        "utilization", "layers",
    ):  # fmt: skip
        assert name in found
    assert found["bound_interval_ns"] <= found["interval_ns"] <= 1.1 * found["bound_interval_ns"]
    assert json.loads(trace.read_text())["traceEvents"]


@pytest.mark.parametrize("paper", ["prap-pim", "yu"])
def test_reproduce_prints_published_and_own_figures(paper: str) -> None:
    result = run("reproduce", paper)
    assert result.exit_code == 0, result.stderr
    assert "published" in result.stdout


def test_reproducing_pattpim_asks_for_real_weights_and_measures_them() -> None:
    assert run("reproduce", "pattpim").exit_code == 2
    result = run("reproduce", "pattpim", "--model", LENET)
    assert result.exit_code == 0, result.stderr
    assert "measured" in result.stdout
