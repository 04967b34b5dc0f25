"""Trained networks: exact on real images, and about as accurate as the float network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frontend.oracle import differences, run_onnx
from numpy.typing import NDArray

from models.refill import refill_light
from passes.graph import BinaryNode, MatrixNode, PoolNode
from pimc.frontend.build import FrontendOptions, Imported, import_model

MODELS = Path(__file__).resolve().parents[2] / "models"
NETWORKS = (
    "lenet5_fmnist",
    "vggs_fmnist",
    "resnet8_fmnist",
    "resnet8_pp4_fmnist",
    "lenet5_fmnist_qdq",
    "resnet8_fmnist_qdq_pc",
)


@cache
def images(file: str) -> dict[str, NDArray[Any]]:
    """Arrays `image` and `labels` of a data file."""
    return dict(np.load(MODELS / file))


@cache
def imported(name: str) -> Imported:
    calibration = {"image": images("fmnist_calib.npz")["image"]}
    return import_model(MODELS / f"{name}.onnx", calibration)


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_networks_are_exact_in_every_value(name: str) -> None:
    feeds = {"image": images("fmnist_test500.npz")["image"][:40]}
    found = differences(imported(name), feeds)
    assert {value: d for value, d in found.items() if d.largest} == {}


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_networks_keep_their_accuracy(name: str) -> None:
    data = images("fmnist_test500.npz")
    feeds = {"image": data["image"]}
    model = imported(name)
    correct = [
        np.mean(run_onnx(m, feeds)["logits"].argmax(1) == data["labels"])
        for m in (model.float_model, model.reference)
    ]
    assert correct[1] >= correct[0] - 0.005


def test_a_residual_network_needs_only_layers_additions_and_a_pool() -> None:
    kinds = [type(node) for node in imported("resnet8_fmnist").graph.nodes]
    assert kinds.count(MatrixNode) == 10
    assert kinds.count(BinaryNode) == 3
    assert kinds.count(PoolNode) == 1
    assert len(kinds) == 14


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_other_calibrations_are_exact_and_accurate_too(method: Any) -> None:
    data = images("fmnist_test500.npz")
    calibration = {"image": images("fmnist_calib.npz")["image"][:64]}
    options = FrontendOptions(calibration_method=method)
    model = import_model(MODELS / "lenet5_fmnist.onnx", calibration, options)
    found = differences(model, {"image": data["image"][:10]})
    assert max(d.largest for d in found.values()) == 0
    logits = run_onnx(model.reference, {"image": data["image"]})["logits"]
    assert np.mean(logits.argmax(1) == data["labels"]) > 0.89


@pytest.mark.parametrize("name", NETWORKS)
def test_the_reference_means_the_same_at_every_optimization_level(name: str) -> None:
    import onnxruntime

    feeds = {"image": images("fmnist_test500.npz")["image"][:100]}
    expected = run_onnx(imported(name).reference, feeds)["logits"]
    for level in ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            imported(name).reference.SerializeToString(), options
        )
        assert np.array_equal(session.run(["logits"], feeds)[0], expected), level


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_light_networks_with_random_weights_are_exact(name: str) -> None:
    model = refill_light(name)
    port = model.graph.input[0].name
    noise = np.random.default_rng(0).normal(0, 1, (2, 3, 224, 224)).astype(np.float32)
    found = import_model(model, {port: noise})
    for value, difference in differences(found, {port: noise[:1]}).items():
        assert difference.largest == 0, value


@pytest.mark.long
@pytest.mark.parametrize("name", ["inception_v1", "inception_v2", "densenet121", "resnet50"])
def test_large_light_networks_with_random_weights_are_exact(name: str) -> None:
    test_light_networks_with_random_weights_are_exact(name)
