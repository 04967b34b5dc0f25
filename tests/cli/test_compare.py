"""``pimc compare`` on small networks: exact rows, lossy rows, accuracy, the figure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from models.refill import refill_light
from pimc.cli import main
from pimc.compare import FIGURES, scheme_names

MODELS = Path(__file__).parents[2] / "models"
LENET = MODELS / "lenet5_fmnist.onnx"
CALIBRATION = MODELS / "fmnist_calib.npz"
TEST = MODELS / "fmnist_test500.npz"
# smallest first; the last three take minutes of CPU each
LIGHT = (
    "squeezenet", "shufflenet", "inception_v1", "densenet121", "inception_v2", "resnet50",
    "bvlc_alexnet", "zfnet512", "vgg19",
)  # fmt: skip


def run(*arguments: object) -> Result:
    given = ["compare", LENET, "--calib", CALIBRATION, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in given])


def rows_of(*arguments: object) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return rows


@pytest.mark.parametrize(
    ("objective", "figure"),
    [("energy", "energy_pj"), ("latency", "time_equal_crossbars_ns"), ("area", "area_um2")],
)
def test_best_is_at_least_as_good_as_every_scheme(objective: str, figure: str) -> None:
    rows = rows_of("--optimize", objective, "--samples", 0)
    assert [row["scheme"] for row in rows] == list(scheme_names())
    assert rows[-1][figure] <= min(row[figure] for row in rows) * (1 + 1e-9)
    assert all(row["reconstructs"] is True and row["equal"] is None for row in rows)


def test_every_scheme_s_program_equals_onnxruntime() -> None:
    rows = rows_of("--samples", 3)
    assert all(row["equal"] is True and not row["lossy"] for row in rows)
    assert all(set(FIGURES) <= set(row) for row in rows)


def test_a_lossy_row_is_proved_and_run_on_what_it_leaves_of_the_weights() -> None:
    dense, prap = rows_of("--schemes", "dense,prap", "--data", TEST, "--samples", 200)
    assert prap["lossy"]
    assert prap["reconstructs"] is True
    assert prap["equal"] is True
    assert prap["stored_cells"] < 0.5 * dense["stored_cells"]
    assert prap["compression"]["stored"] < 0.5 * prap["compression"]["weights"]
    assert 0.8 < prap["accuracy"] < 1
    assert 0.8 < dense["accuracy"] < 1
    assert "compression" not in dense


def test_the_lossy_row_does_what_it_is_told() -> None:
    (prap,) = rows_of("--schemes", "prap", "--compress", "channel:keep=0.5", "--samples", 1)
    assert prap["compression"]["specs"] == ["channel:keep=0.5"]
    assert prap["compression"]["kept"] < 0.7 * prap["compression"]["weights"]


def test_a_lossy_row_asks_for_calibration_data() -> None:
    result = CliRunner().invoke(main, ["compare", str(LENET), "--schemes", "dense,prap"])
    assert result.exit_code == 2
    assert "U951" in result.stderr
    assert "--calib" in result.stderr


def test_tables_that_outgrow_the_index_memories_are_said() -> None:
    result = run("--schemes", "dense,dedup", "--samples", 0)
    assert "tables need larger index memories" in result.stdout
    dense, dedup = rows_of("--schemes", "dense,dedup", "--samples", 0)
    assert dense["tables_fit"] is True
    assert dedup["tables_fit"] is False
    assert dedup["table_bits"] > dedup["table_capacity_bits"] == 8 * 16_384


def test_unknown_schemes_are_all_named() -> None:
    result = run("--schemes", "dense,magic,wand")
    assert result.exit_code == 2
    assert "`magic`" in result.stderr
    assert "`wand`" in result.stderr


def test_the_figure_shows_every_scheme(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "bars.svg"
    result = run("--schemes", "dense,dedup", "--samples", 0, "--figure", figure)
    assert result.exit_code == 0, result.stderr
    text = figure.read_text()
    for words in ("dense", "dedup", "stored cells", "energy of an image"):
        assert f"<!-- {words}" in text
    assert list(tmp_path.iterdir()) == [figure]


def test_a_figure_of_unknown_kind_is_refused_before_the_work(tmp_path: Path) -> None:
    result = run("--figure", tmp_path / "bars.doc")
    assert result.exit_code == 2
    assert "U901" in result.stderr


def test_a_figure_without_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("--figure", tmp_path / "bars.svg")
    assert result.exit_code == 2
    assert "U904" in result.stderr
    assert "pimc[report]" in result.stderr


def assert_all_rows_hold(model: Path, *options: object) -> None:
    command = ["compare", model, *options, "--json"]
    result = CliRunner().invoke(main, [str(part) for part in command])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [row["scheme"] for row in rows] == list(scheme_names())
    assert all(row["reconstructs"] is True and row["equal"] is True for row in rows)


@pytest.mark.long
@pytest.mark.parametrize("network", ["vggs", "resnet8", "resnet8_pp4"])
def test_every_scheme_holds_on_a_trained_network(network: str) -> None:
    assert_all_rows_hold(MODELS / f"{network}_fmnist.onnx", "--calib", CALIBRATION)


@pytest.mark.long
@pytest.mark.parametrize("network", LIGHT)
def test_every_scheme_holds_on_a_light_model(network: str, tmp_path: Path) -> None:
    onnx.save(refill_light(network, logits=True), tmp_path / "model.onnx")
    assert_all_rows_hold(tmp_path / "model.onnx")
