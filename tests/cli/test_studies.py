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


def test_simulate_counts_the_zeros_of_real_inputs_and_prices_the_array_by_them(
    tmp_path: Path,
) -> None:
    program = tmp_path / "lenet.pim"
    assert run("compile", LENET, "--calib", CALIBRATION, "-o", program).exit_code == 0
    real = ("--input", CALIBRATION, "--samples", 4)
    plain = json.loads(run("simulate", program, "--json").stdout)
    found = json.loads(run("simulate", program, *real, "--json").stdout)
    assert "input_zeros" not in plain
    assert found["input_zeros"].keys() == {
        layer["name"] for layer in found["layers"] if layer["macs"]
    }
    for layer in found["input_zeros"].values():
        assert 0 < layer["one_bits_share"] < 0.5
        assert 0 <= layer["group"]["share"] <= layer["group-bit"]["share"] <= 1
        assert layer["group-bit"]["share"] > 0
    assert found["energy_pj"]["array"] < plain["energy_pj"]["array"]
    assert found["energy_pj"]["adc"] == plain["energy_pj"]["adc"]  # no skip is taken
    assert found["interval_ns"] == plain["interval_ns"]
    assert "not skipped in the figures" in run("simulate", program, *real).stdout


def test_samples_without_input_are_refused(tmp_path: Path) -> None:
    result = run("simulate", tmp_path, "--samples", 3)
    assert result.exit_code == 2
    assert "--samples needs --input" in result.stderr


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
