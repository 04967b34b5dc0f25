"""A word where the steps of 8 bits are too coarse, and none where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights

from isa.diagnostics import Diagnostic
from pimc.data import read_data
from pimc.frontend.build import FrontendOptions, import_model

MODELS = Path(__file__).parents[2] / "models"


def words(model: onnx.ModelProto, x: np.ndarray, **options: str) -> dict[str, Diagnostic]:
    found = import_model(model, {"x": x}, FrontendOptions(**options)).warnings
    return {note.code: note for note in found if note.code in ("F230", "F231")}


def spread(outlier: float, width: int = 100) -> np.ndarray:
    """Numbers of 0.05..1, and one of another size."""
    x = np.random.default_rng(3).uniform(0.05, 1, (4, 3, width)).astype(np.float32)
    x[0, 0, 0] = outlier
    return x


DIVISIONS = [
    make("(float[N,3,100] x) => (float[N,A,B] y)", "p = MatMul(x, w) y = Div(x, p)",
         w=np.eye(100)),
    make("(float[N,3,100] x) => (float[N,A,B] y)", "p = MatMul(x, w) y = Reciprocal(p)",
         w=np.eye(100)),
]  # fmt: skip


@pytest.mark.parametrize("model", DIVISIONS)
def test_a_divisor_that_rounds_to_0_is_named_with_its_range_and_share(
    model: onnx.ModelProto,
) -> None:
    found = words(model, spread(100.0))["F230"]
    assert "divides by `p` (range 0..100, held in steps of 0.3922), and 15." in found.message
    assert "quotients are infinite" in found.message
    assert "--calib-method percentile" in (found.hint or "")
    assert "F230" not in words(model, spread(1.0))


def test_zeros_of_the_network_itself_are_no_finding() -> None:
    x = spread(1.0)
    x[:, :, 50:] = 0
    assert not words(DIVISIONS[0], x)


def test_a_range_that_is_made_by_few_outliers_is_named() -> None:
    model = make("(float[N,3,100] x) => (float[N,A,B] y)", "y = MatMul(x, w)", w=weights(100, 5))
    found = words(model, spread(1000.0))["F231"]
    assert "99.9% of the elements of `x` that are not 0 (range 0..1000" in found.message
    assert not words(model, spread(100.0))


def test_what_the_word_says_helps() -> None:
    model = make(
        "(float[N,3,18000] x) => (float[N,A,B] y)", "y = MatMul(x, w)", w=weights(18_000, 1)
    )
    x = spread(1000.0, 18_000)
    assert "F231" in words(model, x)
    assert "F231" not in words(model, x, calibration_method="percentile")


def test_trained_networks_on_their_data_get_no_such_word() -> None:
    data = read_data(MODELS / "fmnist_calib.npz", 16)
    for name in ("lenet5", "resnet8"):
        model = onnx.load(MODELS / f"{name}_fmnist.onnx")
        notes = import_model(model, {"image": data["image"]}).warnings
        assert {note.code for note in notes}.isdisjoint({"F230", "F231"})
