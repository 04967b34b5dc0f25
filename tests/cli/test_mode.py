"""``--mode latency``: one image is out sooner; what the user chose himself stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pimc.cli import main

LENET = Path(__file__).parents[2] / "models" / "lenet5_fmnist.onnx"


def run(*arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(main, [*(str(argument) for argument in arguments), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    ("options", "mapping"),
    [
        (("--mode", "throughput"), "ou-tile"),
        (("--mode", "latency"), "best-latency"),
        (("--mode", "latency", "--mapping", "plane-skip"), "plane-skip"),
        (("--mode", "latency", "--optimize", "energy"), "best"),
    ],
)
def test_a_mode_chooses_the_mapping_that_the_user_did_not(
    options: tuple[str, ...], mapping: str, tmp_path: Path
) -> None:
    assert run("compile", LENET, *options, "-o", tmp_path / "x.pim")["mapping"] == mapping


def test_latency_mode_has_the_first_image_out_sooner(tmp_path: Path) -> None:
    latency = {}
    for mode in ("throughput", "latency"):
        run("compile", LENET, "--mode", mode, "-o", tmp_path / mode)
        latency[mode] = run("simulate", tmp_path / mode, "--images", 1)["latency_ns"]
    assert latency["latency"] < latency["throughput"]
