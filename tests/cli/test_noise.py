"""Runs with noise and ADC sweeps on a real network: figures, intervals, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pimc
from isa import container
from pimc.adc_sweep import Step, fewest_bits, proved_bits
from pimc.cli import main
from pimc.data import read_data
from pimc.intervals import student, wilson
from pimc.noise import noise_report, trial_seed

MODELS = Path(__file__).parents[2] / "models"
TEST = MODELS / "fmnist_test500.npz"
NOISE = ("--device", "programming.sigma=0.05", "--device", "read.sigma=0.1")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5, compiled with every column stored once, so that NumPy is quick."""
    program = tmp_path_factory.mktemp("noise") / "lenet.pim"
    model, calibration = MODELS / "lenet5_fmnist.onnx", str(MODELS / "fmnist_calib.npz")
    pimc.compile(model, calibration=calibration, mapping="best").save(program)
    return program


def test_a_noisy_run_reports_accuracy_gaps_and_saturations(lenet: Path) -> None:
    arguments = ("verify", lenet, "--data", TEST, "--samples", 12, "--noise", *NOISE)
    result = run(*arguments, "--trials", 2, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["nonideal"] == {"programming": {"sigma": 0.05}, "read": {"sigma": 0.1}}
    assert (report["samples"], report["trials"]) == (12, 2)
    accuracy = report["accuracy"]
    low, high = accuracy["interval_images"]
    assert low < accuracy["mean"] <= high
    assert len(accuracy["trials"]) == 2
    assert all(tensor["rms_lsb"] > 0 for tensor in report["tensors"])
    assert all(0 <= layer["saturated_share"] < 0.01 for layer in report["layers"])
    assert "equal" not in report, "a noisy run proves nothing"


def test_noise_is_the_same_however_the_samples_are_batched(lenet: Path) -> None:
    loaded = container.load(lenet)
    target = loaded.target.with_nonideal({"programming.sigma": "0.05", "read.sigma": "0.1"})
    feeds = read_data(TEST, 6)
    whole = noise_report(loaded.program, target, feeds, trials=1, seed=5)
    single = noise_report(loaded.program, target, feeds, trials=1, seed=5, batch=1)
    assert single.as_json() == whole.as_json()
    two = noise_report(loaded.program, target, feeds, trials=1, seed=5, jobs=2)
    assert two.as_json() == whole.as_json()
    other = noise_report(loaded.program, target, feeds, trials=1, seed=6)
    assert other.as_json() != whole.as_json()


@pytest.mark.parametrize("kind", ["calibration", "percentile"])
def test_a_range_from_samples_is_set_by_the_first_ones(lenet: Path, kind: str) -> None:
    loaded = container.load(lenet)
    numbers = {"adc.range": kind, "adc.percentile": "99.9"}
    target = loaded.target.with_nonideal(numbers)
    report = noise_report(loaded.program, target, read_data(TEST, 4))
    assert report.same == [4], "15 codes hold every sum of nine word lines"


def test_an_ideal_device_is_refused(lenet: Path) -> None:
    result = run("verify", lenet, "--data", TEST, "--samples", 2, "--noise")
    assert result.exit_code == 3
    assert "R733" in result.stderr
    assert "--device programming.sigma=0.05" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--noise", "--device", "read.sgma=1"), 3, "T104"),
        (("--noise", "--device", "read.sigma"), 2, "U901"),
        (("--device", "read.sigma=0.1"), 2, "--device needs --noise"),
        (("--trials", "3"), 2, "--trials needs --noise"),
        (("--seed", "3"), 2, "--seed needs --noise"),
        (("--noise", "--device", 'faults.map="nowhere.npz"'), 3, "R731"),
    ],
)
def test_wrong_noise_options_are_refused(
    lenet: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    result = run("verify", lenet, "--data", TEST, "--samples", 1, *options)
    assert result.exit_code == code
    assert message in result.stderr


def test_the_sweep_finds_the_proved_and_the_measured_width(lenet: Path) -> None:
    result = run("sweep-adc", lenet, "--data", TEST, "--accuracy-loss", 1, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    steps = report["steps"]
    assert report["proved_bits"] == max(layer["bits"] for layer in report["layers"])
    assert [step["bits"] for step in steps] == list(range(report["proved_bits"], 0, -1))
    assert steps[0]["saturated_share"] == 0 < steps[-1]["saturated_share"]
    assert steps[-1]["accuracy"] < 0.7 < steps[0]["accuracy"], "one bit is not enough"
    by_bits = {step["bits"]: step["accuracy"] for step in steps}
    fewest = report["measured_bits"]
    assert by_bits[fewest] >= steps[0]["accuracy"] - 0.01 > by_bits[fewest - 1]
    text = run("sweep-adc", lenet, "--data", TEST, "--samples", 50)
    assert f"without loss, by proof: {report['proved_bits']} bits" in text.stdout


def test_the_proof_is_the_largest_sum_of_a_layer(lenet: Path) -> None:
    program = container.load(lenet).program
    for need in proved_bits(program):
        sums = [m.blocks.largest_sums().max() for m in program.matrices() if m.layer == need.layer]
        assert need.largest_sum == max(sums) < 1 << need.bits


def test_the_fewest_bits_stop_at_the_first_loss() -> None:
    steps = [Step(bits, 100, right, 0.0) for bits, right in ((4, 90), (3, 80), (2, 90), (1, 10))]
    assert fewest_bits(steps, 0.05) == 4
    assert fewest_bits(steps, 0.10) == 2


def test_intervals_are_those_of_the_tables() -> None:
    assert wilson(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert student([1.0]) is None
    assert student([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    values = [float(x) for x in range(31)]  # 30 degrees of freedom: t = 2.0423
    low, high = student(values) or (0, 0)
    half = 2.0423 * float(np.std(values, ddof=1)) / 31**0.5
    assert (low, high) == pytest.approx((15 - half, 15 + half), abs=1e-3)
    assert NormalDist().inv_cdf(0.975) < 2.0423


def test_trials_are_different_devices() -> None:
    assert trial_seed(7, 0) == 7
    assert len({trial_seed(7, trial) for trial in range(50)}) == 50
