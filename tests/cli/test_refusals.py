"""Refusals: every kind of wrong input gets its message and exit code, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from pimc.cli import main

MODELS = Path(__file__).parents[2] / "models"
LENET = MODELS / "lenet5_fmnist.onnx"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Compile and expect a refusal: its message, after checking all that refusals promise."""

    def check(model: Path, *options: str, code: int = 3) -> str:
        before = sorted(tmp_path.iterdir())
        result = run("compile", model, "-o", tmp_path / "out.pim", *options)
        assert result.exit_code == code, result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert sorted(tmp_path.iterdir()) == before
        return result.stderr

    return check


def save(
    path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], **shapes
) -> Path:  # type: ignore[no-untyped-def]
    shape = shapes.pop("x")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def weight(name: str, *shape: int, fill: float = 0.5) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full(shape, fill, np.float32), name)


def test_a_truncated_file_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "cut.onnx"
    file.write_bytes(LENET.read_bytes()[:5000])
    assert "error[F201]" in refused(file)


def test_another_kind_of_file_is_refused(refused: Callable[..., str]) -> None:
    assert "error[F201]" in refused(MODELS / "train.py")


def test_a_missing_file_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no file" in refused(tmp_path / "none.onnx")


def test_all_unsupported_operators_are_named_in_one_message(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"], name="first"),
        helper.make_node("NonZero", ["a"], ["b"], name="second"),
        helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Det", ["a"], ["d"], name="third"),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    message = refused(save(tmp_path / "three.onnx", nodes, [], x=[4, 4]), "--no-host")
    for op, name in (("Hardmax", "first"), ("NonZero", "second"), ("Det", "third")):
        assert op in message
        assert name in message


def test_a_dynamic_height_is_asked_for_by_name(tmp_path: Path, refused: Callable[..., str]) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    file = save(tmp_path / "h.onnx", nodes, [weight("w", 2, 1, 3, 3)], x=["N", 1, "height", 8])
    message = refused(file)
    assert "--input-shape x=" in message
    assert "height" in message


def test_nan_weights_are_refused_by_name(tmp_path: Path, refused: Callable[..., str]) -> None:
    nodes = [helper.make_node("Conv", ["x", "kernel"], ["y"], name="conv")]
    weights = [weight("kernel", 2, 1, 3, 3, fill=float("nan"))]
    message = refused(save(tmp_path / "nan.onnx", nodes, weights, x=["N", 1, 8, 8]))
    assert "kernel" in message
    assert "NaN" in message


def test_missing_external_data_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    model = onnx.load(LENET)
    file = tmp_path / "external.onnx"
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=16)
    (tmp_path / "weights.bin").unlink()
    message = refused(file)
    assert "error[F202]" in message
    assert "weights.bin" in message


def test_a_model_too_big_for_the_target_says_what_it_needs_and_what_there_is(
    refused: Callable[..., str],
) -> None:
    message = refused(LENET, "--target", "ou9x8", "--tiles", "2", code=4)
    assert "error[M602]" in message
    assert "needs 7 cores" in message
    assert "--tiles auto" in message


def test_an_adc_too_narrow_is_refused_unless_clipping_is_asked_for(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    message = refused(LENET, "--set", "adc.bits=3", code=4)
    assert "error[M604]" in message
    assert "--allow-clipping" in message
    output = tmp_path / "clip.pim"
    result = run("compile", LENET, "--set", "adc.bits=3", "--allow-clipping", "-o", output)
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (("--set", "adc.bitz=4"), 3, "did you mean `bits`"),
        (("--set", "nonsense"), 2, "expected KEY=VALUE"),
        (("--target", "ou9x9"), 3, "ou9x8"),
        (("--tiles", "many"), 2, "auto"),
        (("--input-shape", "image=a,b"), 2, "1,3,224,224"),
        (("--mapping", "magic"), 2, "ou-tile"),
        (("--calib", "absent.npz"), 3, "no file"),
    ],
)
def test_a_wrong_option_value_says_what_was_expected(
    refused: Callable[..., str], options: tuple[str, ...], code: int, expected: str
) -> None:
    assert expected in refused(LENET, *options, code=code)


def test_samples_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    file = tmp_path / "bad.npz"
    np.savez(file, picture=np.zeros((2, 1, 28, 28), np.float32))
    message = refused(LENET, "--verify", str(file))
    assert "no input `picture`" in message
    assert "`image` is missing" in message


def test_pickled_arrays_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "pickle.npz"
    np.savez(file, image=np.array([{}], dtype=object))
    assert "error[R702]" in refused(LENET, "--calib", str(file))


def test_five_errors_in_a_program_are_five_findings(tmp_path: Path) -> None:
    text = tmp_path / "five.pim"
    text.write_text(
        ".pim 1\n.target tiny\n"
        '.input x s8[1, 1, 4] of="x" shape=[4] order=[0]\n'
        ".core 0\n"
        "  .buffer a s8[1, 1, 4] @0x0000\n"
        "  laod a, x\n"
        "  fill a, value=\n"
        "  copy a\n"
        "  fill a, valeu=3\n"
        "  lut a, a, 3\n"
    )
    result = run("asm", text, "-o", tmp_path / "five.out")
    assert result.exit_code == 3
    assert result.stderr.count("error[E3") == 5
    assert "did you mean `load`" in result.stderr
    assert not (tmp_path / "five.out").exists()


def test_an_internal_error_is_told_apart_and_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("pimc.driver.import_shapes", explode)
    result = run("compile", LENET, "-o", tmp_path / "x.pim")
    assert result.exit_code == 70
    assert "error[I999]" in result.stderr
    assert "boom" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_exits_130_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pimc.driver.import_shapes", interrupt)
    result = run("compile", LENET, "-o", tmp_path / "x.pim")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []
