"""``--bind``: values of inputs that are weights, from npz and npy files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from pimc.cli import main

TEXT = """<ir_version: 10, opset_import: ["": 17]>
net (float[N,4,width] x, float[6,4,3] w, float[6] b) => (float[N,6,last] y) {
  a = Conv (x, w, b)
  y = Relu (a)
}"""


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, its weights and samples in files, and the compiled program."""
    path, rng = tmp_path_factory.mktemp("bind"), np.random.default_rng(0)
    onnx.save(onnx.parser.parse_model(TEXT), path / "net.onnx")
    w, b, x = (rng.normal(size=s).astype(np.float32) for s in ((6, 4, 3), (6,), (5, 4, 8)))
    np.savez(path / "weights.npz", w=w, b=b)
    np.save(path / "w.npy", w)
    np.save(path / "b.npy", b)
    np.savez(path / "x.npz", x=x)
    np.savez(path / "all.npz", x=x, w=w)
    run("compile", *options(path), "--bind", path / "weights.npz", "-o", path / "net.pim")
    return path


def options(place: Path) -> tuple[object, ...]:
    data = ("--calib", place / "x.npz", "--verify", place / "x.npz", "--no-host")
    return (place / "net.onnx", "--input-shape", "x=1,4,8", *data)


def test_arrays_of_one_file_and_files_of_one_array_give_the_same_program(
    place: Path, tmp_path: Path
) -> None:
    bind = ("--bind", f"w={place / 'w.npy'}", "--bind", f"b={place / 'b.npy'}")
    done = run("compile", *options(place), *bind, "-o", tmp_path / "n.pim")
    assert "bound: `w` [6, 4, 3], `b` [6]; no inputs of the program any more" in done.stdout
    assert "equal: largest difference from onnxruntime 0 LSB" in done.stdout
    for name in ("program.pim", "arrays.npz", "reference.onnx", "float.onnx"):
        assert (tmp_path / "n.pim" / name).read_bytes() == (place / "net.pim" / name).read_bytes()
    report = json.loads((tmp_path / "n.pim" / "report.json").read_text())
    assert report["bound"]["w"]["shape"] == [6, 4, 3]
    assert str(place / "w.npy") in report["inputs"]


@pytest.mark.parametrize("command", [("run", "--input"), ("verify", "--data"),
                                     ("simulate", "--input"), ("sweep-adc", "--data")])  # fmt: skip
def test_samples_of_a_bound_input_are_refused_with_the_reason(
    place: Path, command: tuple[str, str]
) -> None:
    name, option = command
    refused = run(name, place / "net.pim", option, place / "all.npz", code=3).stderr
    assert "R707" in refused
    assert "weight input `w` was bound at compile" in refused
    run(name, place / "net.pim", option, place / "x.npz")


def test_bound_weights_serve_several_input_shapes(place: Path, tmp_path: Path) -> None:
    shapes = ("--input-shape", "x=1,4,12")
    bind = ("--bind", place / "weights.npz", "-o", tmp_path / "n.pim")
    done = run("compile", *options(place), *shapes, *bind).stdout
    assert "the crossbars hold the same cells for every shape" in done
    refused = run("run", tmp_path / "n.pim", "--input", place / "all.npz", code=3).stderr
    assert "R707" in refused


def test_without_bind_the_refusal_names_it(place: Path, tmp_path: Path) -> None:
    refused = run("compile", place / "net.onnx", "--input-shape", "x=1,4,8", "--no-host",
                  "-o", tmp_path / "n.pim", code=3).stderr  # fmt: skip
    assert "its weights are input `w`; bound by `--bind` they are programmed" in refused


@pytest.mark.parametrize(
    ("texts", "code", "said"),
    [
        (("none.npz",), 3, "R702"),
        (("w=none.npy",), 3, "R702"),
        (("w={}/weights.npz",), 3, "no readable npy file"),
        (("{}/w.npy",), 3, "no readable npz file"),
        (("{}/weights.npz", "w={}/w.npy"), 2, "`w` twice"),
        (("b={}/w.npy",), 3, "F208"),
        (("{}/all.npz", "b={}/b.npy"), 3, "every input of the model is bound"),
    ],
)
def test_what_cannot_be_bound_is_refused(
    place: Path, tmp_path: Path, texts: tuple[str, ...], code: int, said: str
) -> None:
    bind = [option for text in texts for option in ("--bind", text.format(place))]
    shape = ("--input-shape", "x=1,4,8")
    place_of = ("-o", tmp_path / "n.pim")
    assert said in run("compile", place / "net.onnx", *shape, *bind, *place_of, code=code).stderr
    assert not list(tmp_path.iterdir())


def test_schemes_are_compared_on_bound_weights(place: Path) -> None:
    options = ("--input-shape", "x=1,4,8", "--bind", place / "weights.npz", "--data",
               place / "x.npz", "--schemes", "dense,dedup", "--json")  # fmt: skip
    document = json.loads(run("compare", place / "net.onnx", *options).stdout)
    assert all(row["equal"] and row["stored_cells"] for row in document["rows"])
    assert str(place / "weights.npz") in document["inputs"]


def test_weights_are_bound_before_they_are_compressed(place: Path, tmp_path: Path) -> None:
    options = ("--calib", place / "x.npz", "-o", tmp_path / "small.onnx")
    run("compress", place / "net.onnx", "channel:keep=0.5", *options, "--bind",
        place / "weights.npz")  # fmt: skip
    assert [port.name for port in onnx.load(tmp_path / "small.onnx").graph.input] == ["x"]


def test_the_weights_of_a_recurrent_layer_are_asked_for_by_name(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 17]>
    net (float[5,1,3] x, float[1,16,3] w, float[1,16,4] r) => (float[5,1,1,4] y) {
      y = LSTM <hidden_size=4> (x, w, r)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    refused = run("compile", tmp_path / "net.onnx", "--no-host", "-o", tmp_path / "n.pim", code=3)
    assert "its weights are inputs `w` and `r`; bound by `--bind`" in refused.stderr
