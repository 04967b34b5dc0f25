"""The models folder: nothing in it changed unnoticed, and refilled light models say something."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from models.refill import LIGHT_MODELS, refill_light

FOLDER = Path(__file__).resolve().parents[2] / "models"
MANIFEST: dict[str, Any] = tomllib.loads((FOLDER / "manifest.toml").read_text(encoding="utf-8"))
FILES: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in MANIFEST["file"]}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_the_one_of_the_manifest(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FILES[name]["sha256"]


def test_every_data_file_stands_in_the_manifest() -> None:
    here = {path.name for pattern in ("*.onnx", "*.npz") for path in FOLDER.glob(pattern)}
    assert here == set(FILES)


@pytest.mark.parametrize(
    "entry", [*MANIFEST["file"], *MANIFEST["package"]], ids=lambda e: e["name"]
)
def test_every_entry_names_its_licence_and_content(entry: dict[str, Any]) -> None:
    assert entry["licence"]
    assert entry["what"]
    assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("name", [n for n, e in FILES.items() if "accuracy_500_percent" in e])
def test_a_network_has_the_accuracy_of_the_manifest(name: str) -> None:
    data = np.load(FOLDER / "fmnist_test500.npz")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(FOLDER / name, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": data["image"]})
    correct = np.mean(np.argmax(logits, axis=1) == data["labels"])
    # u8 x s8 saturates in onnxruntime where the CPU lacks VNNI, so a QDQ model may differ there
    slack = 1.0 if "qdq" in name else 0.2
    assert 100 * correct == pytest.approx(FILES[name]["accuracy_500_percent"], abs=slack)


def test_pattern_pruned_kernels_keep_4_of_9_weights_in_8_patterns() -> None:
    model = onnx.load(FOLDER / "resnet8_pp4_fmnist.onnx")
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    kernels = [w.reshape(-1, 9) != 0 for w in weights if w.ndim == 4 and w.shape[2] == 3]
    assert len(kernels) == 7
    for masks in kernels:
        assert set(masks.sum(axis=1)) == {4}
        assert len({tuple(mask) for mask in masks}) <= 8


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_refilled_model_tells_inputs_apart(name: str) -> None:
    model = refill_light(name, logits=True)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == [model.graph.input[0].name]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(1)
    images = generator.random((2, 1, 3, 224, 224), dtype=np.float32)
    first, second = (session.run(None, {model.graph.input[0].name: image})[0] for image in images)
    assert np.isfinite(first).all()
    assert np.ptp(first) > 0.1
    assert not np.array_equal(first, second)


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (refill_light("squeezenet", seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


SMALL = [n for n in LIGHT_MODELS if n not in ("vgg19", "bvlc_alexnet", "zfnet512")]


@pytest.mark.parametrize("name", SMALL)
def test_no_constant_fill_is_left(name: str) -> None:
    model = refill_light(name)
    assert not [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert np.std(numpy_helper.to_array(weights[node.input[1]])) > 0


def test_an_unknown_light_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="squeezenet"):
        refill_light("squeezenett")
