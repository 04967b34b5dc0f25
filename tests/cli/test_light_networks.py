"""The refilled light networks of the onnx package at 224 x 224 equal onnxruntime everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from models.refill import refill_light
from pimc.cli import main

LARGE = ("resnet50", "inception_v1", "inception_v2", "densenet121", "bvlc_alexnet", "zfnet512")


def check(network: str, folder: Path) -> None:
    model, program = folder / "model.onnx", folder / "model.pim"
    onnx.save(refill_light(network, logits=True), model)
    options = ("-o", str(program), "--tiles", "auto", "--json")
    compiled = CliRunner().invoke(main, ["compile", str(model), *options])
    assert compiled.exit_code == 0, compiled.stderr
    assert json.loads(compiled.stdout)["reconstructs"] is True
    assert len((program / "program.pim").read_text().splitlines()) < 20_000
    verified = CliRunner().invoke(main, ["verify", str(program), "--samples", "1", "--json"])
    assert verified.exit_code == 0, verified.stderr
    assert json.loads(verified.stdout)["max_abs_diff_lsb"] == 0


@pytest.mark.parametrize("network", ["squeezenet", "shufflenet"])
def test_small_networks_equal_onnxruntime_in_every_tensor(network: str, tmp_path: Path) -> None:
    check(network, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("network", LARGE)
def test_large_networks_equal_onnxruntime_in_every_tensor(network: str, tmp_path: Path) -> None:
    check(network, tmp_path)
