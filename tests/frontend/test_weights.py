"""Weights in every disguise: constant folding happens before anybody asks what is constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend.makers import Floats, integers, make, weights
from frontend.oracle import check_model, random_feeds, run_onnx
from onnx import TensorProto, helper, numpy_helper

from passes.graph import MatrixNode
from pimc.frontend.build import Imported, import_model

SIGNATURE = "(float[N,6] x) => (float[N,5] y)"


def matrix(imported: Imported) -> MatrixNode:
    (node,) = imported.graph.nodes
    assert isinstance(node, MatrixNode)
    return node


def expected() -> Imported:
    return check_model(make(SIGNATURE, "y = MatMul(x, w)", w=weights(6, 5)))


def test_identity_and_transpose_of_an_initializer() -> None:
    body = "t = Identity(u) w = Transpose(t) y = MatMul(x, w)"
    found = check_model(make(SIGNATURE, body, u=np.ascontiguousarray(weights(6, 5).T)))
    assert np.array_equal(matrix(found).weights, matrix(expected()).weights)


def test_a_constant_node() -> None:
    model = make(SIGNATURE, "y = MatMul(x, w)")
    tensor = numpy_helper.from_array(weights(6, 5))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    assert np.array_equal(matrix(check_model(model)).weights, matrix(expected()).weights)


def test_an_initializer_that_is_also_an_input() -> None:
    model = make("(float[N,6] x, float[6,5] w) => (float[N,5] y)", "y = MatMul(x, w)",
                 opset=9, ir=3, w=weights(6, 5))  # fmt: skip
    found = check_model(model)
    assert found.graph.inputs == ("x",)
    assert np.array_equal(matrix(found).weights, matrix(expected()).weights)


def test_unsqueeze_of_an_initializer() -> None:
    body = "w = Unsqueeze(u, axes) y = Conv(x, w)"
    model = make("(float[N,4,9] x) => (float[N,6,L] y)", body, u=weights(6, 4),
                 axes=np.array([2]))  # fmt: skip
    check_model(model)


def test_constant_of_shape() -> None:
    model = make(SIGNATURE, "y = MatMul(x, w)")
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.02])
    node = helper.make_node("ConstantOfShape", ["shape"], ["w"], value=value)
    model.graph.node.insert(0, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([6, 5]), "shape"))
    assert np.all(matrix(check_model(model)).weights == 127)


def test_integers_through_cast_and_mul() -> None:
    held = np.clip(integers(6, 5), -127, 127)
    held[0] = 127  # each output uses the whole range, so the integers come back
    body = f"f = Cast<to={TensorProto.FLOAT}>(q) w = Mul(f, s) y = MatMul(x, w)"
    found = check_model(make(SIGNATURE, body, q=held, s=np.float32(0.01)))
    assert np.array_equal(matrix(found).weights.reshape(5, 6).T, held)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_dequantized_integers_are_kept(axis: int | None) -> None:
    """-128 included; scales along the inputs instead of the outputs are folded and quantized."""
    held = integers(6, 5)
    held[0, 0] = -128
    count = () if axis is None else held.shape[axis : axis + 1]
    scale = np.abs(weights(*count)) + np.float32(0.01)
    attribute = "" if axis is None else f"<axis={axis}>"
    body = f"w = DequantizeLinear{attribute}(q, s) y = MatMul(x, w)"
    found = check_model(make(SIGNATURE, body, q=held, s=scale))
    assert [note.code for note in found.warnings] == (["F224"] if axis == 0 else [])
    if axis != 0:
        assert np.array_equal(matrix(found).weights.reshape(5, 6).T, held)


@pytest.mark.parametrize("move", ["Transpose", "Reshape"])
def test_moved_dequantized_integers_are_kept(move: str) -> None:
    held = integers(5, 6)
    extra = ", shape" if move == "Reshape" else ""
    constants = {"shape": np.array([6, 5])} if move == "Reshape" else {}
    body = f"f = DequantizeLinear(q, s) w = {move}(f{extra}) y = MatMul(x, w)"
    found = check_model(make(SIGNATURE, body, q=held, s=np.float32(0.02), **constants))
    wanted = held.reshape(6, 5) if move == "Reshape" else held.T
    assert np.array_equal(matrix(found).weights.reshape(5, 6).T, wanted)


def test_a_constant_through_quantize_and_dequantize() -> None:
    body = "q = QuantizeLinear(u, s, z) w = DequantizeLinear(q, s, z) y = MatMul(x, w)"
    model = make(SIGNATURE, body, u=weights(6, 5), s=np.float32(0.004), z=np.int8(0))
    wanted = np.clip(np.rint(weights(6, 5) / np.float32(0.004)), -128, 127)
    assert np.array_equal(matrix(check_model(model)).weights.reshape(5, 6).T, wanted)


def test_unsigned_weights_lose_their_zero_point() -> None:
    held = integers(6, 5, dtype="uint8")
    body = "w = DequantizeLinear(q, s, z) y = MatMul(x, w)"
    model = make(SIGNATURE, body, q=held, s=np.float32(0.02), z=np.uint8(131))
    found = check_model(model)
    assert np.array_equal(matrix(found).weights.reshape(5, 6).T, held.astype(np.int16) - 131)


def test_weights_in_an_external_data_file(tmp_path: Path) -> None:
    model = make(SIGNATURE, "y = MatMul(x, w)", w=weights(6, 5))
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data",
        size_threshold=0,
    )  # fmt: skip
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    feeds = random_feeds(model, 3, 0)
    found = import_model(tmp_path / "m.onnx", feeds)
    assert np.array_equal(matrix(found).weights, matrix(expected()).weights)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_nodes_share_one_weight() -> None:
    body = "h = MatMul(x, w) r = Relu(h) y = MatMul(r, w)"
    model = make("(float[N,5] x) => (float[N,5] y)", body, w=weights(5, 5))
    found = check_model(model)
    first, second = found.graph.nodes
    assert isinstance(first, MatrixNode)
    assert isinstance(second, MatrixNode)
    assert np.array_equal(first.weights, second.weights)
    names = [tensor.name for tensor in found.reference.graph.initializer]
    assert len([name for name in names if name.startswith("w_quantized")]) == 1


@pytest.mark.parametrize("kind", ["zero", "equal", "repeated", "sparse", "tiny", "one channel"])
def test_special_kernels(kind: str) -> None:
    kernel = weights(6, 4, 3, 3)
    if kind == "zero":
        kernel[:] = 0
    elif kind == "equal":
        kernel[:] = 0.02
    elif kind == "repeated":
        kernel[:] = kernel[:1]
    elif kind == "sparse":
        kernel[:, :, [0, 0, 1, 2, 2], [0, 2, 1, 0, 2]] = 0
    elif kind == "tiny":
        kernel *= np.float32(1e-30)
    else:
        kernel[1:] = 0
    signature = "(float[N,4,6,6] x) => (float[N,6,H,W] y)"
    check_model(make(signature, "y = Conv(x, w, b)", w=kernel, b=weights(6)))


def test_a_bias_far_beyond_the_weights_still_fits_32_bits() -> None:
    model = make(
        SIGNATURE, "y = Gemm(x, w, b)", w=weights(6, 5, scale=1e-6), b=weights(5, scale=1e4)
    )
    feeds = random_feeds(model, 3, 0)
    found = check_model(model, feeds=feeds)
    real, held = run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"]
    assert np.abs(real - held).max() <= 0.01 * np.abs(real).max()


def test_weights_stay_within_127() -> None:
    node = matrix(expected())
    assert isinstance(node, MatrixNode)
    assert node.weights.dtype == np.int8
    largest = np.abs(node.weights.astype(int)).reshape(5, -1).max(1)
    assert np.all(largest == 127)  # per channel, and never -128


def relative_error(model: onnx.ModelProto, feeds: dict[str, Floats]) -> float:
    real = run_onnx(model, feeds)["y"]
    held = run_onnx(import_model(model, feeds).reference, feeds)["y"]
    return float(np.linalg.norm(real - held) / np.linalg.norm(real))


def test_quantization_is_close_to_the_float_model() -> None:
    model = make(
        "(float[N,4,9,9] x) => (float[N,6,H,W] y)",
        "a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) y = Conv(r, v)",
        w=weights(8, 4, 3, 3), b=weights(8), v=weights(6, 8, 3, 3),
    )  # fmt: skip
    assert relative_error(model, random_feeds(model, 8, 0)) < 0.02


def test_constants_that_only_onnxruntime_can_compute_are_folded() -> None:
    body = "g = GatherElements<axis=1>(table, index) y = Add(x, g)"
    constants = {"table": weights(3, 4), "index": np.array([[0, 3], [1, 1], [2, 0]])}
    imported = check_model(make("(float[N,3,2] x) => (float[N,3,2] y)", body, **constants))
    assert len(imported.graph.nodes) == 1
