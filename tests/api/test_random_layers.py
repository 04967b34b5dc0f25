"""Random quantized layers, extreme weights included: the program is onnxruntime, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import pimc
from runtime.kernel import load_extension

sizes = st.integers(1, 3)


def constant(name: str, values: Any, dtype: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def extreme(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """int8 weights with many -128, 127 and 0 among them."""
    values = generator.integers(-128, 128, shape)
    corner = generator.choice([-128, 127, 0], shape)
    return np.where(generator.random(shape) < 0.3, corner, values)


def conv_model(seed: int, groups: int, per_group: int, outputs: int, **attributes: Any) -> bytes:
    """A QLinearConv between int8 tensors, its scale small enough to saturate sometimes."""
    g = np.random.default_rng(seed)
    kernel = attributes["kernel_shape"]
    weights = extreme(g, (outputs * groups, per_group, *kernel))
    scales = g.uniform(0.2, 3.0, outputs * groups) / (60 * np.sqrt(weights[0].size))
    tensors = [
        constant("x_scale", 0.5, np.float32),
        constant("x_zero", g.integers(-128, 128), np.int8),
        constant("w", weights, np.int8),
        constant("w_scale", scales, np.float32),
        constant("w_zero", np.zeros(outputs * groups), np.int8),
        constant("y_scale", 0.5, np.float32),
        constant("y_zero", g.integers(-128, 128), np.int8),
        constant("bias", g.integers(-5000, 5000, outputs * groups), np.int32),
    ]
    names = [tensor.name for tensor in tensors]
    node = helper.make_node("QLinearConv", ["x", *names], ["y"], group=groups, **attributes)
    return model_bytes(node, tensors, ["N", groups * per_group, 8, 9], [None] * 4)


def model_bytes(
    node: onnx.NodeProto, tensors: list[onnx.TensorProto], x: list[Any], y: list[Any]
) -> bytes:
    graph = helper.make_graph(
        [node],
        "random",
        [helper.make_tensor_value_info("x", TensorProto.INT8, x)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, y)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17)]
    serialized: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=8
    ).SerializeToString()
    return serialized


@pytest.fixture(scope="module", autouse=True)
def streams() -> Iterator[None]:
    """What is compiled runs in C as a whole, or the test fails; without a C kernel in Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIMC_STREAMS", "auto" if load_extension() is None else "c")
        yield


def assert_equal(model: bytes, target: str, seed: int, shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(seed).integers(-128, 128, (3, *shape)).astype(np.int8)
    found = pimc.compile(model, target=target).verify({"x": samples})
    assert found["equal"] is True
    assert found["max_abs_diff_lsb"] == 0


@settings(max_examples=15)
@given(
    seed=st.integers(0, 9999),
    groups=st.sampled_from([1, 1, 2, 3]),
    per_group=sizes,
    outputs=sizes,
    kernel=st.tuples(sizes, sizes),
    strides=st.tuples(sizes, sizes),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    target=st.sampled_from(["ou9x8", "sre16x16"]),
)
def test_any_quantized_convolution_equals_onnxruntime(  # type: ignore[no-untyped-def]
    seed, groups, per_group, outputs, kernel, strides, dilations, pads, target
) -> None:
    model = conv_model(
        seed, groups, per_group, outputs,
        kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads,
    )  # fmt: skip
    assert_equal(model, target, seed, (groups * per_group, 8, 9))


@settings(max_examples=10)
@given(
    seed=st.integers(0, 9999),
    inputs=st.integers(1, 150),
    outputs=st.integers(1, 40),
    target=st.sampled_from(["ou9x8", "isaac"]),
)
def test_any_quantized_matrix_product_equals_onnxruntime(
    seed: int, inputs: int, outputs: int, target: str
) -> None:
    g = np.random.default_rng(seed)
    tensors = [
        constant("x_scale", 0.1, np.float32),
        constant("x_zero", g.integers(-128, 128), np.int8),
        constant("w", extreme(g, (inputs, outputs)), np.int8),
        constant("w_scale", g.uniform(0.2, 3) / (60 * np.sqrt(inputs)), np.float32),
        constant("w_zero", 0, np.int8),
        constant("y_scale", 0.1, np.float32),
        constant("y_zero", g.integers(-128, 128), np.int8),
    ]
    names = [tensor.name for tensor in tensors]
    node = helper.make_node("QLinearMatMul", ["x", *names], ["y"])
    assert_equal(model_bytes(node, tensors, ["N", inputs], [None, None]), target, seed, (inputs,))
