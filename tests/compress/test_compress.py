"""Compression of trained networks: the sums add up, the accuracy comes back, integers survive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from isa.diagnostics import PimError
from passes.graph import MatrixNode
from pimc.compress import Compressed, Labelled, compress, parse_compression
from pimc.compress.layers import find_layers, read_layer
from pimc.compress.runner import Runner
from pimc.frontend.build import import_model
from pimc.frontend.normalize import normalize

MODELS = Path(__file__).resolve().parents[2] / "models"
Data = dict[str, np.ndarray[Any, Any]]


def load(name: str) -> onnx.ModelProto:
    return onnx.load(MODELS / name)


def images(count: int = 160) -> Data:
    with np.load(MODELS / "fmnist_train1000.npz") as data:
        return {"image": data["image"][:count]}


def labelled() -> Labelled:
    with np.load(MODELS / "fmnist_test500.npz") as data:
        return Labelled({"image": data["image"]}, data["labels"])


def compressed(*specs: str, count: int = 160, model: str = "resnet8_fmnist.onnx") -> Compressed:
    return compress(load(model), images(count), [parse_compression(s) for s in specs], labelled())


@pytest.fixture(scope="module")
def pruned() -> Compressed:
    return compressed("pattern:keep=4,patterns=8")


@pytest.fixture(scope="module")
def translated() -> Compressed:
    return compressed("pattern:keep=4,group=2", "similar:t=0.75/0.5,group=2,joint=yes")


def test_a_pruned_network_keeps_its_accuracy_without_training(pruned: Compressed) -> None:
    accuracy = pruned.report.accuracy
    assert accuracy is not None
    assert accuracy.images == 500
    assert accuracy.original > 0.92
    assert accuracy.uncompensated < 0.6
    assert accuracy.compressed > 0.85


def test_the_report_counts_what_the_model_holds(pruned: Compressed) -> None:
    layers = find_layers(pruned.model)
    assert [layer.name for layer in layers] == [entry.name for entry in pruned.report.layers]
    for layer, entry in zip(layers, pruned.report.layers, strict=True):
        weights, _ = read_layer(pruned.model, layer)
        assert np.count_nonzero(weights) == entry.kept == entry.stored
        assert weights.size == entry.weights
    assert pruned.report.kept == sum(entry.kept for entry in pruned.report.layers)
    assert pruned.report.as_json()["weights"] == 77072


def test_every_kernel_of_a_channel_has_one_of_eight_shapes(pruned: Compressed) -> None:
    for layer in find_layers(pruned.model)[1:]:
        if layer.positions == 9:
            weights, _ = read_layer(pruned.model, layer)
            for channel in range(weights.shape[1]):
                shapes = {tuple(k) for k in (weights[:, channel] != 0).reshape(-1, 9).tolist()}
                assert len(shapes) <= 8


def test_compensation_lowers_the_error_of_every_layer(pruned: Compressed) -> None:
    for entry in pruned.report.layers:
        assert (entry.error_before is None) == (entry.error_after is None)
        if entry.error_before is not None and entry.error_after is not None:
            assert entry.error_after <= entry.error_before


def test_layers_before_the_first_pruned_one_are_untouched(pruned: Compressed) -> None:
    before, after = load("resnet8_fmnist.onnx"), pruned.model
    first = find_layers(after)[0]
    assert pruned.report.layers[0].error_after is None
    assert np.array_equal(read_layer(before, first)[0], read_layer(after, first)[0])


def test_zero_weights_and_shapes_survive_quantization(pruned: Compressed) -> None:
    graph = import_model(pruned.model, images(16)).graph
    held = {node.name: node.weights for node in graph.nodes if isinstance(node, MatrixNode)}
    layers = find_layers(pruned.model)
    assert len(layers) == len(held)
    for layer in layers:
        real, _ = read_layer(pruned.model, layer)
        assert not held[layer.name].transpose(0, 3, 1, 2)[real == 0].any()


def test_translated_integers_survive_quantization(translated: Compressed) -> None:
    graph = import_model(translated.model, images(16)).graph
    held = {node.name: node.weights for node in graph.nodes if isinstance(node, MatrixNode)}
    names = {layer.weight: layer.name for layer in find_layers(load("resnet8_fmnist.onnx"))}
    assert len(translated.grids) == 8
    for weight, grid in translated.grids.items():
        assert np.array_equal(held[names[weight]].transpose(0, 3, 1, 2), grid.integers)


def test_the_model_with_integer_weights_computes_what_the_report_says(
    translated: Compressed,
) -> None:
    onnx.checker.check_model(translated.model)
    test = labelled()
    logits = Runner(translated.model, ["logits"]).all(test.data)["logits"]
    assert translated.report.accuracy is not None
    assert np.mean(logits.argmax(axis=1) == test.labels) == translated.report.accuracy.compressed


def test_stored_weights_are_fewer_than_kept_ones(translated: Compressed) -> None:
    report = translated.report
    assert report.stored < 0.65 * report.kept < report.weights
    assert report.accuracy is not None
    assert report.accuracy.compressed > 0.8 > report.accuracy.uncompensated


def test_a_normalized_model_gives_the_same_result(pruned: Compressed) -> None:
    model = normalize(load("resnet8_fmnist.onnx")).model
    done = compress(model, images(), [parse_compression("pattern:keep=4,patterns=8")])
    errors = [layer.error_after for layer in done.report.layers]
    known = [layer.error_after for layer in pruned.report.layers]
    for one, other in zip(errors, known, strict=True):
        assert one == (other if other is None else pytest.approx(other, rel=1e-2))


def test_channels_go_and_accuracy_comes_back() -> None:
    report = compressed("channel:keep=0.65").report
    assert report.channels_removed > 0
    assert report.kept < 0.5 * report.weights
    assert report.accuracy is not None
    assert report.accuracy.compressed > 0.8 > report.accuracy.uncompensated


def test_choosing_by_error_leaves_less_error_than_choosing_by_magnitude() -> None:
    one = compressed("pattern:keep=2", count=32)
    other = compressed("pattern:keep=2,choose=error", count=32)
    assert other.report.layers[1].error_after is not None
    assert one.report.layers[1].error_after is not None
    assert other.report.layers[1].error_after < one.report.layers[1].error_after


ANY_KERNEL = (
    "inputs:keep=8,group=16,first=yes",
    "identical:t=0.5",
    "similar:t=0.5",
    "channel:keep=0.9",
)
THREE_BY_THREE = ("pattern:dictionary=global,connectivity=3.6", "pattern:keep=8/4/2")


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        *(("lenet5_fmnist.onnx", spec) for spec in ANY_KERNEL),  # its kernels are 5x5
        *(("vggs_fmnist.onnx", spec) for spec in (*ANY_KERNEL, *THREE_BY_THREE)),
    ],
)
def test_every_compression_runs_on_other_networks(model: str, spec: str) -> None:
    done = compressed(spec, model=model, count=24)
    onnx.checker.check_model(done.model)
    assert done.report.stored < done.report.weights


def test_without_compensation_weights_are_masked_only() -> None:
    model = load("vggs_fmnist.onnx")
    done = compress(model, images(8), [parse_compression("pattern")], compensate=False)
    for layer in find_layers(model):
        before, after = read_layer(model, layer)[0], read_layer(done.model, layer)[0]
        assert np.array_equal(after[after != 0], before[after != 0])


def test_a_model_without_such_layers_is_refused() -> None:
    with pytest.raises(PimError) as caught:
        compress(load("lenet5_fmnist.onnx"), images(8), [parse_compression("pattern")])
    assert caught.value.diagnostics[0].code == "U952"


def test_a_model_without_float32_weights_is_refused() -> None:
    model = load("lenet5_fmnist.onnx")
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    data = {name: array.astype(np.float16) for name, array in images(8).items()}
    with pytest.raises(PimError, match="float32 weights") as caught:
        compress(model, data, [parse_compression("channel:keep=0.65")])
    assert caught.value.diagnostics[0].code == "U952"


def test_labels_that_do_not_fit_are_refused() -> None:
    test = labelled()
    with pytest.raises(PimError) as caught:
        compress(
            load("vggs_fmnist.onnx"),
            images(8),
            [parse_compression("pattern")],
            Labelled(test.data, test.labels[:7]),
        )
    assert caught.value.diagnostics[0].code == "U951"
