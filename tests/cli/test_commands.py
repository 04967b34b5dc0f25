"""The commands on real networks: what they print, what they write, how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import pimc
from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
CALIBRATION = MODELS / "fmnist_calib.npz"
LENET = MODELS / "lenet5_fmnist.onnx"
TEST = MODELS / "fmnist_test500.npz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5, compiled."""
    program = tmp_path_factory.mktemp("lenet") / "lenet.pim"
    model = MODELS / "lenet5_fmnist.onnx"
    result = run("compile", model, "--calib", CALIBRATION, "-o", program)
    assert result.exit_code == 0, result.stderr
    return program


@pytest.mark.parametrize("target", ["ou9x8", "tiny"])
@pytest.mark.parametrize(
    "network",
    [
        "lenet5_fmnist",
        "vggs_fmnist",
        "resnet8_fmnist",
        "resnet8_pp4_fmnist",
        "lenet5_fmnist_qdq",
        "resnet8_fmnist_qdq_pc",
    ],
)
def test_every_trained_network_equals_onnxruntime_on_real_images(
    network: str, target: str, tmp_path: Path
) -> None:
    model = MODELS / f"{network}.onnx"
    output = tmp_path / "x.pim"
    options = ("--target", target, "--tiles", "auto", "--calib", CALIBRATION, "--verify", TEST)
    result = run("compile", model, *options, "-o", output, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    found = report["verify"]
    assert report["reconstructs"] is True
    assert found["equal"] is True
    assert found["samples"] == 500
    assert {layer["max_abs_diff_lsb"] for layer in found["layers"]} == {0}
    assert found["accuracy"] == found["reference_accuracy"]
    assert abs(found["accuracy"] - found["float_accuracy"]) <= 0.005


def test_the_report_has_the_names_that_others_read(lenet: Path) -> None:
    report = json.loads((lenet / "report.json").read_text())
    for name in (
        "reconstructs", "crossbars", "cores", "dense_columns", "stored_columns", "ou_blocks",
        "host_mac_share", "instructions", "compile_s",
    ):  # fmt: skip
        assert name in report
    assert report["crossbars"] == 42  # reference/cost-models.md 7.2
    assert report["stored_columns"] == report["dense_columns"]


def test_lenet_fits_on_two_screens(lenet: Path) -> None:
    assert len((lenet / "program.pim").read_text().splitlines()) <= 120


def test_verify_compares_a_saved_program(lenet: Path) -> None:
    result = run("verify", lenet, "--data", TEST, "--samples", 20, "--per-layer", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["equal"] is True
    assert len(found["layers"]) == 7
    assert found["samples"] == 20


def test_verify_notices_a_changed_number_in_the_text(lenet: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken.pim"
    shutil.copytree(lenet, broken)
    text = (broken / "program.pim").read_text()
    zero = next(line for line in text.splitlines() if "requant" in line).rsplit("zero=", 1)[1]
    (broken / "program.pim").write_text(text.replace(f"zero={zero}", f"zero={int(zero) + 1}", 1))
    result = run("verify", broken, "--data", TEST, "--samples", 5)
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout


def test_run_writes_the_outputs_of_the_samples(lenet: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    result = run("run", lenet, "--input", TEST, "--samples", 7, "--output", output)
    assert result.exit_code == 0
    with np.load(output) as arrays, np.load(TEST) as data:
        assert arrays["logits"].shape == (7, 10)
        expected = pimc.load(lenet).run({"image": data["image"][:7]})["logits"]
        np.testing.assert_array_equal(arrays["logits"], expected)


@pytest.mark.parametrize("section", ["code", "layers", "blocks", "memory"])
def test_inspect_shows_every_section_of_one_layer(lenet: Path, section: str) -> None:
    names = [row["layer"] for row in json.loads(run("inspect", lenet, "--json").stdout)["layers"]]
    result = run("inspect", lenet, "--section", section, "--layer", names[0])
    assert result.exit_code == 0
    assert result.stdout
    if section != "blocks":
        assert names[0] in result.stdout
    assert f'"{names[1]}"' not in result.stdout


def test_inspecting_an_unknown_layer_names_the_known_ones(lenet: Path) -> None:
    result = run("inspect", lenet, "--layer", "none")
    assert result.exit_code == 2
    assert "Conv" in result.stderr


HAND_WRITTEN = """\
.pim 1
.target tiny
.input  x s8[1, 1, 2] of="x" shape=[2] order=[0]
.output y s32[1, 1, 1] of="y" shape=[1] order=[0]
.core 0
  .matrix w[2, 1] inputs=0..2 outputs=0..1 cell_bits=2 lines=2:
    group [0 1]
      at x0[0, 0]
      [2 1] -> +0
  .buffer rows s8[1, 1, 2] @0x0000
  .buffer acc s32[1, 1, 1] @0x0004
  load rows, x
  mvm acc, w, rows
  store y, acc
"""


def test_a_program_written_by_hand_assembles_and_runs(tmp_path: Path) -> None:
    text = tmp_path / "hand.pim"
    text.write_text(HAND_WRITTEN)
    folder = tmp_path / "hand.out"
    result = run("asm", text, "--target", "tiny", "-o", folder)
    assert result.exit_code == 0, result.stderr
    outputs = pimc.load(folder).run({"x": np.array([[1, 2], [-128, 5]], np.int8)})
    wanted = [[2 * (1 + 128) + (2 + 128)], [2 * 0 + (5 + 128)]]  # inputs stream as x + 128
    np.testing.assert_array_equal(outputs["y"], wanted)


def test_fmt_is_idempotent_and_check_says_when_it_would_change(tmp_path: Path) -> None:
    text = tmp_path / "hand.pim"
    text.write_text(HAND_WRITTEN)
    assert run("fmt", text, "--check").exit_code == 1
    assert run("fmt", text).exit_code == 0
    formatted = text.read_text()
    assert run("fmt", text, "--check").exit_code == 0
    assert run("fmt", text).exit_code == 0
    assert text.read_text() == formatted


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("targets", "list"), "ou9x8"),
        (("targets", "show", "tiny"), "[crossbar]"),
        (("targets", "schema"), "properties"),
        (("ops",), "BatchNormalization"),
        (("explain", "M602"), "--tiles auto"),
        (("doctor",), "onnxruntime"),
    ],
)
def test_what_pimc_knows_it_tells(arguments: tuple[str, ...], expected: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert expected in result.stdout


def test_help_imports_neither_onnx_nor_onnxruntime_nor_numpy() -> None:
    script = (
        "import sys\nfrom pimc.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "loaded = {'onnx', 'onnxruntime', 'numpy', 'rich', 'lark', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_python_face_compiles_runs_verifies_saves_and_loads(tmp_path: Path) -> None:
    with np.load(CALIBRATION) as data:
        samples = {"image": data["image"]}
    program = pimc.compile(MODELS / "lenet5_fmnist.onnx", calibration=samples)
    assert program.inputs == {"image": (1, 28, 28)}
    assert program.report["reconstructs"] is True
    assert ".core 0" in program.text()
    outputs = program.run({"image": samples["image"][:3]})
    assert program.verify({"image": samples["image"][:3]})["equal"] is True
    program.save(tmp_path / "p.pim")
    again = pimc.load(tmp_path / "p.pim")
    assert again.text() == program.text()
    np.testing.assert_array_equal(
        again({"image": samples["image"][:3]})["logits"], outputs["logits"]
    )


def test_optimize_names_the_mapping(tmp_path: Path) -> None:
    for objective, mapping in (("energy", "best"), ("latency", "best-latency")):
        options = ("--calib", CALIBRATION, "-o", tmp_path / "p.pim", "--json")
        result = run("compile", LENET, *options, "--optimize", objective)
        assert json.loads(result.stdout)["mapping"] == mapping
    clash = run("compile", LENET, "--mapping", "ou-tile", "--optimize", "area")
    assert clash.exit_code == 2
    assert "--optimize chooses the mapping" in clash.stderr
