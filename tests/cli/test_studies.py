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


def test_simulate_takes_the_skips_of_a_chip_that_skips(tmp_path: Path) -> None:
    program = tmp_path / "lenet.pim"
    assert run("compile", LENET, "--calib", CALIBRATION, "-o", program).exit_code == 0
    real, skip = ("--input", CALIBRATION, "--samples", 4), ("--set", "inputs.skip=group-bit")
    plain = json.loads(run("simulate", program, *real, "--json").stdout)
    found = json.loads(run("simulate", program, *real, *skip, "--json").stdout)
    assert plain["input_skip"] == {"target": "none", "taken": False}
    assert found["input_skip"] == {"target": "group-bit", "taken": True}
    assert found["target_sha256"] != plain["target_sha256"]
    for key in ("interval_ns", "latency_ns"):
        assert found[key] < plain[key]
    energies = ("adc", "accumulation", "array")
    assert all(found["energy_pj"][key] < plain["energy_pj"][key] for key in energies)
    for key in ("network", "vector", "control"):
        assert found["energy_pj"][key] == plain["energy_pj"][key]
    for layer in found["layers"]:
        spared = found["input_zeros"].get(layer["name"], {"group-bit": {"fires_skipped": 0}})
        assert 4 * layer["fires_skipped"] == spared["group-bit"]["fires_skipped"]
    assert "inputs.skip = group-bit: skipped" in run("simulate", program, *real, *skip).stdout
    without = run("simulate", program, *skip)
    assert "no skip is taken" in without.stdout
    taken_none = json.loads(run("simulate", program, *skip, "--json").stdout)
    assert taken_none["input_skip"] == {"target": "group-bit", "taken": False}
    assert taken_none["interval_ns"] == plain["interval_ns"]


def test_simulate_takes_changed_numbers_of_the_target_unless_the_program_forbids_them(
    tmp_path: Path,
) -> None:
    program = tmp_path / "lenet.pim"
    assert run("compile", LENET, "--calib", CALIBRATION, "-o", program).exit_code == 0
    plain = json.loads(run("simulate", program, "--json").stdout)
    serial = run("simulate", program, "--set", "ou.pipelined=false", "--json")
    assert json.loads(serial.stdout)["interval_ns"] > 1.5 * plain["interval_ns"]
    for change, code in (("input.skip=group", "T104"), ("crossbar.rows=32", "V410")):
        refused = run("simulate", program, "--set", change)
        assert refused.exit_code == 3
        assert code in refused.stderr


def test_run_and_verify_count_the_skipped_fires_of_each_layer(tmp_path: Path) -> None:
    program = tmp_path / "lenet.pim"
    compiled = ("compile", LENET, "--calib", CALIBRATION, "-o", program)
    assert run(*compiled, "--set", "inputs.skip=group-bit").exit_code == 0
    samples = ("--samples", 4, "--json")
    ran = json.loads(run("run", program, "--input", CALIBRATION, *samples).stdout)
    jobs = run("run", program, "--input", CALIBRATION, "--jobs", 2, *samples).stdout
    verified = json.loads(run("verify", program, "--data", CALIBRATION, *samples).stdout)
    simulated = json.loads(run("simulate", program, "--input", CALIBRATION, *samples).stdout)
    assert verified["equal"]
    assert ran["counters"] == verified["counters"] == json.loads(jobs)["counters"]
    for name, zeros in simulated["input_zeros"].items():
        layer = ran["counters"]["layers"][name]
        assert layer["ou_fires"] == zeros["fires"]
        assert layer["fires_skipped"] == zeros["group-bit"]["fires_skipped"]
    assert ran["counters"]["total"]["fires_skipped"] > 0


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
