"""``pimc compress``: the file it writes compiles, and what cannot be is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner, Result
from onnx import numpy_helper

import pimc
from pimc.cli import main
from pimc.compress.report import top1
from pimc.compress.runner import Runner

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


def test_compile_compresses_where_asked_and_says_so(tmp_path: Path) -> None:
    model, calibration = MODELS / "resnet8_fmnist.onnx", MODELS / "fmnist_calib.npz"
    options = ["--calib", calibration, "-o", tmp_path / "p.pim", "--compress", "channel:keep=0.5"]
    verify = ["--verify", MODELS / "fmnist_test500.npz", "--samples", 100]
    command = [str(part) for part in ("compile", model, *options, *verify)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    assert "LOSSY: channel:keep=0.5 left" in result.stdout
    report = json.loads((tmp_path / "p.pim" / "report.json").read_text())
    assert report["compression"]["kept"] < 0.5 * report["compression"]["weights"]
    assert report["verify"]["equal"] is True
    with np.load(MODELS / "fmnist_test500.npz") as test:
        given, labels = {"image": test["image"][:100]}, test["labels"][:100]
    logits = Runner(onnx.load(model), ["logits"]).all(given)["logits"]
    assert report["verify"]["float_accuracy"] == top1(logits, labels)  # of the model as given
    assert report["verify"]["accuracy"] < report["verify"]["float_accuracy"]


def test_compile_without_compression_does_not_mention_it(tmp_path: Path) -> None:
    model, calibration = MODELS / "lenet5_fmnist.onnx", MODELS / "fmnist_calib.npz"
    options = ["--calib", calibration, "-o", tmp_path / "p.pim", "--json"]
    result = CliRunner().invoke(main, [str(part) for part in ("compile", model, *options)])
    assert "compression" not in json.loads(result.stdout)


def test_compressing_without_calibration_data_is_refused(tmp_path: Path) -> None:
    model = str(MODELS / "lenet5_fmnist.onnx")
    options = ["-o", str(tmp_path / "p.pim"), "--compress", "pattern:keep=4"]
    result = CliRunner().invoke(main, ["compile", model, *options])
    assert result.exit_code == 2
    assert "U951" in result.stderr
    assert "--calib" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_python_face_compresses_where_asked() -> None:
    program = pimc.compile(LENET, calibration=CALIBRATION, compress=["channel:keep=0.5"])
    done = program.report["compression"]
    assert done["kept"] < 0.6 * done["weights"]
    assert program.verify(CALIBRATION)["equal"] is True
