"""``pimc compress``: the file it writes compiles, and what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner, Result
from onnx import numpy_helper

from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
LENET = MODELS / "lenet5_fmnist.onnx"
CALIBRATION = MODELS / "fmnist_calib.npz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_channel_pruning_writes_a_smaller_model_and_tells_what_it_cost(tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    data = MODELS / "fmnist_test500.npz"
    options = ("-o", output, "--calib", CALIBRATION, "--data", data, "--json")
    result = run("compress", LENET, "channel:keep=0.65", *options)
    assert result.exit_code == 0, result.stderr
    accuracy = json.loads(result.stdout)["compression"]["accuracy"]
    assert accuracy["original"] > 0.88
    sizes = [
        sum(numpy_helper.to_array(t).size for t in onnx.load(file).graph.initializer)
        for file in (LENET, output)
    ]
    assert sizes[1] < 0.8 * sizes[0]
    compiled = run("compile", output, "--calib", CALIBRATION, "-o", tmp_path / "small.pim")
    assert compiled.exit_code == 0, compiled.stderr


def test_an_unreadable_spec_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    output = tmp_path / "x.onnx"
    result = run("compress", LENET, "patern:keep=4", "-o", output, "--calib", CALIBRATION)
    assert result.exit_code == 2
    assert "error[U950]" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "plain.npz"
    np.savez(data, image=np.zeros((2, 1, 28, 28), np.float32))
    options = ("-o", tmp_path / "x.onnx", "--calib", CALIBRATION, "--data", data)
    result = run("compress", LENET, "channel:keep=0.65", *options)
    assert "error[U951]" in result.stderr
    assert not (tmp_path / "x.onnx").exists()
