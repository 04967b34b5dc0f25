"""Layers: unfolded windows times weights are what onnxruntime computes, for every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from pimc.compress.layers import find_layers, read_layer, windows, write_layer
from pimc.compress.runner import Runner

CONVS = [
    "Conv<pads=[1,1,1,1]>",
    "Conv<pads=[0,2,1,0],strides=[2,1]>",
    "Conv<dilations=[2,1],pads=[2,0,2,0]>",
    'Conv<auto_pad="SAME_UPPER",strides=[2,2]>',
    'Conv<auto_pad="SAME_LOWER",strides=[2,2]>',
    'Conv<auto_pad="VALID">',
    "Conv",
]


def parse(body: str, shapes: str, inputs: str) -> onnx.ModelProto:
    head = '<ir_version: 8, opset_import: ["": 17]>'
    ports = f"(float[{inputs}] x, {shapes}) => (float[] y)"
    model = onnx.parser.parse_model(f"{head} net {ports} {{ {body} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model)


def with_weights(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Turn every input but the first into a random initializer."""
    rng = np.random.default_rng(seed)
    for value in list(model.graph.input)[1:]:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=dims).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    return model


def check(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    data: dict[str, Any] = {"x": np.random.default_rng(5).normal(size=shape).astype(np.float32)}
    layer = find_layers(model)[0]
    wanted = Runner(model, [layer.output]).all(data)[layer.output]
    weights, bias = read_layer(model, layer)
    flat = weights.reshape(layer.groups, -1, int(np.prod(weights.shape[1:])))
    seen = 0
    for columns, targets in windows(layer, data["x"], wanted):
        found = (columns @ flat.transpose(0, 2, 1)).transpose(1, 0, 2).reshape(len(targets), -1)
        assert np.abs(found + bias - targets).max() < 1e-4
        seen += targets.size
    assert seen == wanted.size


@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_windows_times_weights_are_the_convolution(conv: str, groups: int) -> None:
    head, _, options = conv.partition("<")
    options = f"<group={groups},{options}" if options else f"<group={groups}>"
    shapes = f"float[8,{4 // groups},3,2] w, float[8] b"
    check(with_weights(parse(f"y = {head}{options}(x, w, b)", shapes, "N,4,9,7"), 1), (3, 4, 9, 7))


def test_a_one_dimensional_convolution_is_one_row() -> None:
    body = "y = Conv<pads=[2,1],strides=[2]>(x, w, b)"
    check(with_weights(parse(body, "float[5,4,3] w, float[5] b", "N,4,20"), 2), (3, 4, 20))


@pytest.mark.parametrize(
    ("body", "shapes"),
    [
        ("y = Gemm<transB=1>(x, w, b)", "float[5,6] w, float[5] b"),
        ("y = Gemm(x, w, b)", "float[6,5] w, float[1,5] b"),
        ("y = Gemm(x, w)", "float[6,5] w"),
        ("y = MatMul(x, w)", "float[6,5] w"),
    ],
)
def test_dense_layers_are_convolutions_of_one_position(body: str, shapes: str) -> None:
    model = with_weights(parse(body, shapes, "N,6"), 3)
    check(model, (4, 6))
    layer = find_layers(model)[0]
    weights, bias = read_layer(model, layer)
    write_layer(model, layer, 2 * weights, bias + (1 if layer.can_have_bias else 0))
    onnx.checker.check_model(model)
    again = read_layer(model, find_layers(model)[0])
    assert np.array_equal(again[0], 2 * weights)
    assert np.allclose(again[1], bias + layer.can_have_bias)


@pytest.mark.parametrize(
    ("body", "shapes"),
    [
        ("y = Gemm<alpha=2.0>(x, w)", "float[6,5] w"),
        ("y = MatMul(x, v)\n v = Identity(w)", "float[6,5] w"),
        ("z = MatMul(x, w)\n y = MatMul(z, w)", "float[6,6] w"),
    ],
)
def test_other_uses_of_weights_are_left_alone(body: str, shapes: str) -> None:
    assert find_layers(with_weights(parse(body, shapes, "N,6"), 4)) == []
