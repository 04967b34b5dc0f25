"""Programs for several input shapes through every command: chosen by samples or by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from support.shapes import image_net, images, sentences, tagger

from pimc.cli import main

SHAPES = ("--input-shape", "x=1,3,8,8", "--input-shape", "x=1,3,5,7")
SECOND = ("--input-shape", "x=1,3,5,7")


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, samples and ``net.pim`` for two shapes."""
    path = tmp_path_factory.mktemp("shapes")
    onnx.save(image_net(), path / "net.onnx")
    onnx.save(tagger(), path / "tagger.onnx")
    for name, height, width in (("first", 8, 8), ("second", 5, 7), ("none", 6, 6)):
        np.savez(path / f"{name}.npz", **images(4, height, width))
    data = ("--calib", path / "first.npz", "--calib", path / "second.npz")
    checks = ("--verify", path / "second.npz", "--verify", path / "first.npz")
    done = run("compile", path / "net.onnx", *SHAPES, *data, *checks, "-o", path / "net.pim")
    assert "programs for 2 input shapes" in done.stdout
    assert done.stdout.count("equal: largest difference from onnxruntime 0 LSB") == 2
    assert "the crossbars hold the same cells for every shape" in done.stdout
    return path


def test_json_shows_every_program(place: Path, tmp_path: Path) -> None:
    options = ("--calib", place / "first.npz", "--verify", place / "second.npz", "--json")
    done = run("compile", place / "net.onnx", *SHAPES, *options, "-o", tmp_path / "n.pim")
    report = json.loads(done.stdout)
    first, second = report["shapes"]
    assert first["input_shape"] == {"x": [1, 3, 8, 8]}
    assert second["folder"] == "shape-1"
    assert "verify" not in first
    assert second["verify"]["equal"]
    assert report["shared"]["own_bytes"] == 0 < report["shared"]["array_bytes"]
    assert (
        json.loads((tmp_path / "n.pim" / "report.json").read_text())["shapes"] == report["shapes"]
    )
    shown = json.loads(run("inspect", tmp_path / "n.pim", "--json").stdout)
    assert [part["input_shape"] for part in shown["shapes"]] == [
        part["input_shape"] for part in report["shapes"]
    ]


@pytest.mark.parametrize(
    "command",
    [("run", "--input"), ("verify", "--data"), ("simulate", "--input"), ("sweep-adc", "--data")],
)
def test_samples_choose_the_program(place: Path, command: tuple[str, str]) -> None:
    name, option = command
    for samples in ("first", "second"):
        run(name, place / "net.pim", option, place / f"{samples}.npz")
    refused = run(name, place / "net.pim", option, place / "none.npz", code=3).stderr
    for said in ("R706", "`x` [4, 3, 6, 6]", "`x=1,3,8,8`", "`x=1,3,5,7`", "--input-shape"):
        assert said in refused


def test_without_samples_a_shape_is_chosen_by_name(place: Path, tmp_path: Path) -> None:
    page = ("-o", tmp_path / "p.html")
    for command in (("run", "--fill", "random"), ("verify",), ("simulate",), ("report", *page)):
        name, *options = command
        refused = run(name, place / "net.pim", *options, code=3).stderr
        assert "C514" in refused
        assert "--input-shape x=1,3,5,7" in refused
        run(name, place / "net.pim", *options, *SECOND)
        run(name, place / "net.pim" / "shape-1", *options)
    text = (tmp_path / "p.html").read_text()
    assert "net.pim/shape-1" in text
    assert "Against the same network mapped plainly" in text
    small = run("inspect", place / "net.pim", *SECOND).stdout
    both = run("inspect", place / "net.pim").stdout
    assert small in both
    assert both.count("net.pim/shape-") == 2


def test_a_wrong_choice_is_refused(place: Path) -> None:
    program = place / "net.pim"
    wrong = (("x=1,3,9,9", 3, "R706"), ("z=1", 3, "R706"), ("x=", 2, "U901"), ("1,2", 2, "U901"))
    for text, code, said in wrong:
        assert said in run("simulate", program, "--input-shape", text, code=code).stderr
    assert "U901" in run("simulate", program, *SHAPES, code=2).stderr
    assert "R706" in run("simulate", program / "shape-0", *SECOND, code=3).stderr


def test_inputs_that_repeat_start_another_shape(place: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", **sentences(4, 4))
    np.savez(tmp_path / "long.npz", **sentences(4, 9))
    data = [o for n in ("short", "long") for o in ("--calib", tmp_path / f"{n}.npz")]
    texts = ("ids=1,4,mask=1,4", "ids=1,9", "mask=1,9")
    shapes = [option for text in texts for option in ("--input-shape", text)]
    check = ("--verify", tmp_path / "long.npz")
    done = run("compile", place / "tagger.onnx", *shapes, *data, *check, "-o", tmp_path / "t.pim")
    assert "ids=1,9,mask=1,9:\nequal" in done.stdout
    assert "ids=1,4,mask=1,4: not verified" in done.stdout
    run("run", tmp_path / "t.pim", "--fill", "random", "--input-shape", "ids=1,9")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("ids=1,4,mask=1,4", "ids=1,9"), "shape 2 and the first differ in `mask`"),
        (("ids=1,4", "ids=1,9", "mask=1,4", "mask=1,9"), "differ in `mask`"),
        (("ids=1,4,mask=1,4", "ids=1,4,mask=1,4"), "shape 2 is given twice"),
        (("ids=1,4,mask",), "cannot be read"),
    ],
)
def test_shapes_that_are_not_clear_are_refused(
    place: Path, tmp_path: Path, texts: tuple[str, ...], said: str
) -> None:
    shapes = [option for text in texts for option in ("--input-shape", text)]
    refused = run("compile", place / "tagger.onnx", *shapes, "-o", tmp_path / "t.pim", code=2)
    assert "U901" in refused.stderr
    assert said in refused.stderr


def test_a_symbolic_axis_without_a_shape_is_asked_for_by_name(place: Path, tmp_path: Path) -> None:
    refused = run("compile", place / "net.onnx", "-o", tmp_path / "n.pim", code=3).stderr
    for said in ("F205", "`x`", "`height`, `width`", "--input-shape x=1,3,?,?"):
        assert said in refused
    assert not list(tmp_path.iterdir())


def test_one_shape_leaves_the_folder_of_one_program(place: Path, tmp_path: Path) -> None:
    data = ("--calib", place / "first.npz")
    run("compile", place / "net.onnx", *SHAPES[:2], *data, "-o", tmp_path / "n.pim")
    assert {file.name for file in (tmp_path / "n.pim").iterdir()} == {
        "program.pim", "arrays.npz", "target.json", "reference.onnx", "float.onnx", "report.json"
    }  # fmt: skip


def test_several_files_of_one_shape_are_joined_or_refused(place: Path, tmp_path: Path) -> None:
    twice = ("--verify", place / "first.npz", "--verify", place / "first.npz")
    options = (*SHAPES[:2], "--calib", place / "first.npz", "-o", tmp_path / "n.pim")
    assert "8 samples" in run("compile", place / "net.onnx", *options, *twice).stdout
    wrong = ("--verify", place / "second.npz")
    assert "R703" in run("compile", place / "net.onnx", *options, *twice, *wrong, code=3).stderr


def test_schemes_are_compared_for_every_shape(place: Path) -> None:
    data = ("--data", place / "second.npz", "--calib", place / "first.npz")
    command = ("compare", place / "net.onnx", *SHAPES, *data, "--schemes", "dense,dedup")
    shown = run(*command).stdout
    for shape in ("x=1,3,8,8", "x=1,3,5,7"):
        assert f"input shape {shape}:" in shown
    first, second = json.loads(run(*command, "--json").stdout)["shapes"]
    assert second["input_shape"] == {"x": [1, 3, 5, 7]}
    assert all(row["equal"] for row in (*first["rows"], *second["rows"]))
    cells, conversions = (
        [table["rows"][0][figure] for table in (first, second)]
        for figure in ("stored_cells", "conversions")
    )
    assert cells[0] == cells[1]
    assert conversions[0] > conversions[1]


@pytest.mark.parametrize("option", ["--ablation", "--figure"])
def test_what_compares_one_shape_says_so(place: Path, option: str) -> None:
    given = (option, "bars.svg") if option == "--figure" else (option,)
    refused = run("compare", place / "net.onnx", *SHAPES, *given, code=2).stderr
    assert "one input shape, and several are given" in refused


def test_the_steps_of_an_ablation_are_compared_in_an_open_shape(place: Path) -> None:
    document = run("compare", place / "net.onnx", *SECOND, "--ablation", "--json").stdout
    assert all(step["equal"] for step in json.loads(document)["steps"])


def test_a_paper_is_reproduced_on_a_network_of_open_shape(place: Path) -> None:
    command = ("reproduce", "pattpim", "--model", place / "net.onnx")
    assert "give it with --input-shape" in run(*command, code=3).stderr
    run(*command, *SECOND)
    assert "one --model" in run(*command, *SHAPES, code=2).stderr
