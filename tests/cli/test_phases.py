"""``--phases auto``: a model on a chip too small for it, through every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pimc
from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
RESNET8 = MODELS / "resnet8_fmnist.onnx"
TEST = MODELS / "fmnist_test500.npz"
OPTIONS = ("--calib", str(MODELS / "fmnist_calib.npz"), "--tiles", "4", "--phases", "auto")


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phases") / "net.pim"
    check = ("--verify", TEST, "--samples", 20)
    result = run("compile", RESNET8, *OPTIONS, *check, "-o", path)
    assert "runs in 4 phases" in result.stderr
    assert "equal: largest difference from onnxruntime 0 LSB over 11 tensors" in result.stdout
    return path


def test_a_chip_too_small_without_phases_hints_at_them(tmp_path: Path) -> None:
    found = run("compile", RESNET8, *OPTIONS[:4], "-o", tmp_path / "x.pim", code=4)
    assert "--phases auto" in found.stderr
    assert not (tmp_path / "x.pim").exists()


def test_phases_and_a_growing_chip_exclude_each_other(tmp_path: Path) -> None:
    options = ("--tiles", "auto", "--phases", "auto", "-o", tmp_path / "x.pim")
    assert "--phases auto" in run("compile", RESNET8, *options, code=2).stderr


def test_phases_are_not_used_where_the_model_fits(tmp_path: Path) -> None:
    path = tmp_path / "x.pim"
    found = json.loads(
        run("compile", RESNET8, *OPTIONS[:2], *OPTIONS[4:], "-o", path, "--json").stdout
    )
    assert found["phases"] == 1
    assert (path / "program.pim").is_file()


def test_verify_run_and_simulate_take_phases(folder: Path) -> None:
    found = json.loads(run("verify", folder, "--samples", 3, "--json").stdout)
    assert (found["equal"], len(found["layers"])) == (True, 11)
    assert "logits" in run("run", folder, "--fill", "random").stdout
    one, eight = (
        json.loads(run("simulate", folder, "--images", n, "--json").stdout) for n in (1, 8)
    )
    assert len(one["phases"]) == 4
    assert one["interval_ns"] == one["latency_ns"] > eight["interval_ns"]
    assert one["energy_pj"]["programming"] == pytest.approx(8 * eight["energy_pj"]["programming"])
    assert "4 phases; a batch of 8 images writes all weights once" in run("simulate", folder).stdout


def test_commands_for_one_program_take_a_phase(folder: Path) -> None:
    assert "C510" in run("inspect", folder, code=3).stderr
    assert ".core" in run("inspect", folder / "phase-1", "--section", "code").stdout
    for option in (("--trace", "t.json"), ("--set", "inputs.skip=group")):
        assert "give one phase" in run("simulate", folder, *option, code=2).stderr


def test_the_python_face_gives_the_same_in_phases_and_whole(folder: Path) -> None:
    data = dict(np.load(TEST))
    feeds = {"image": data["image"][:5]}
    calibration = {"image": np.load(MODELS / "fmnist_calib.npz")["image"]}
    parts = pimc.compile(RESNET8, calibration=calibration, tiles=4, phases="auto")
    whole = pimc.compile(RESNET8, calibration=calibration)
    for held in (parts, pimc.load(folder)):
        np.testing.assert_array_equal(held.run(feeds)["logits"], whole.run(feeds)["logits"])
    assert parts.text().count(".pim 1") == 4
    assert parts.verify(feeds)["equal"]
