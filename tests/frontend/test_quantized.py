"""Models that come quantized: their integers and scales are taken as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.makers import integers, make, weights
from frontend.oracle import check_model, differences, random_feeds, run_onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from passes.graph import BinaryNode, LutNode, MatrixNode, MoveNode, PoolNode
from pimc.frontend.build import import_model

MODELS = Path(__file__).resolve().parents[2] / "models"
F = np.float32
IMAGE = "(float[N,4,6,8] x) => (float[N,C,H,W] y)"


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """A few calibration images."""

    def __init__(self) -> None:
        images = np.load(MODELS / "fmnist_calib.npz")["image"][:16]
        self.feeds = iter([{"image": image[None]} for image in images])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self.feeds, None)


TYPES = {"s8": QuantType.QInt8, "u8": QuantType.QUInt8}


@pytest.mark.parametrize("network", ["lenet5_fmnist", "resnet8_fmnist"])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize(
    ("activation", "weight", "per_channel"),
    [("s8", "s8", True), ("u8", "u8", False), ("u8", "s8", True), ("u8", "s8", False)],
)
def test_what_onnxruntimes_quantizer_writes_is_read(
    network: str, form: QuantFormat, activation: str, weight: str, per_channel: bool, tmp_path: Path
) -> None:
    target = tmp_path / "quantized.onnx"
    quantize_static(
        MODELS / f"{network}.onnx", target, Reader(), quant_format=form,
        activation_type=TYPES[activation], weight_type=TYPES[weight], per_channel=per_channel,
    )  # fmt: skip
    found = import_model(target)
    assert found.warnings == ()
    data = np.load(MODELS / "fmnist_test500.npz")
    feeds = {"image": data["image"][:20]}
    assert max(d.largest for d in differences(found, feeds).values()) == 0
    values = found.graph.values
    assert {value.dtype for value in values.values()} == {activation}
    mine = run_onnx(found.reference, feeds)["logits"]
    step = values["logits"].scale
    assert step is not None
    # the user's model rounds its additions and pools in another order
    if weight == activation:
        theirs = run_onnx(onnx.load(target), feeds)["logits"]
        assert np.abs(mine - theirs).max() <= 6 * step


def test_a_quantized_convolution_keeps_every_integer() -> None:
    held = integers(6, 4, 3, 3)
    bias = integers(6).astype(np.int32) * 40
    scales = np.abs(weights(6)) + F(0.01)
    model = make(
        "(float[N,4,6,8] x) => (float[N,6,H,W] y)",
        """q = QuantizeLinear(x, xs, xz)
           r = QLinearConv<pads=[1,1,1,1], strides=[2,1]>(q, xs, xz, w, ws, wz, ys, yz, b)
           y = DequantizeLinear(r, ys, yz)""",
        xs=F(0.02), xz=np.int8(-9), w=held, ws=scales, wz=np.zeros(6, np.int8), ys=F(0.4),
        yz=np.int8(17), b=bias,
    )  # fmt: skip
    found = check_model(model)
    (node,) = found.graph.nodes
    assert isinstance(node, MatrixNode)
    assert np.array_equal(node.weights, held.transpose(0, 2, 3, 1))
    assert np.array_equal(node.bias, bias)
    assert np.array_equal(node.scale, F(0.02) * scales / F(0.4))
    feeds = random_feeds(model, 3, 1)
    assert np.array_equal(run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"])


INTEGER = "(int8[N,4,6,8] x) => (int8[N,C,H,W] y)"


def test_integer_inputs_and_outputs_have_no_scale() -> None:
    model = make(
        INTEGER, "y = QLinearConv(x, xs, xz, w, ws, wz, ys, yz)",
        xs=F(0.02), xz=np.int8(-9), w=integers(6, 4, 1, 1), ws=F(0.01), wz=np.int8(0), ys=F(0.4),
        yz=np.int8(17),
    )  # fmt: skip
    found = check_model(model)
    assert found.graph.values["x"].scale is None
    assert found.graph.values["x"].zero == -9
    assert found.graph.values["x"].onnx_name == "x"
    assert found.graph.values["y"].scale is None
    assert found.graph.values["y"].zero == 17
    feeds = random_feeds(model, 3, 1)
    assert np.array_equal(run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"])


QOPERATORS = {
    "QLinearAdd": "y = com.microsoft.QLinearAdd(x, s, z, x, t, z, u, w)",
    "QLinearMul": "y = com.microsoft.QLinearMul(x, s, z, x, t, z, u, w)",
    "QLinearAdd of a constant": "y = com.microsoft.QLinearAdd(x, s, z, k, t, z, u, w)",
    "QLinearConcat": "y = com.microsoft.QLinearConcat<axis=1>(u, w, x, s, z, x, t, w)",
    "QLinearGlobalAveragePool": "y = com.microsoft.QLinearGlobalAveragePool(x, s, z, u, w)",
    "QLinearAveragePool":
        "y = com.microsoft.QLinearAveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x, s, z, u, w)",
    "QLinearSigmoid": "y = com.microsoft.QLinearSigmoid(x, s, z, u, w)",
    "QLinearLeakyRelu": "y = com.microsoft.QLinearLeakyRelu<alpha=0.1>(x, s, z, u, w)",
    "QLinearSoftmax": "y = com.microsoft.QLinearSoftmax<axis=1, opset=17>(x, s, z, v, z)",
    "QLinearMatMul": "y = QLinearMatMul(x, s, z, m, t, z, u, w)",
    "MaxPool": "y = MaxPool<kernel_shape=[2,2]>(x)",
    "Transpose": "y = Transpose<perm=[0,2,3,1]>(x)",
    "requantization": "f = DequantizeLinear(x, s, z) y = QuantizeLinear(f, u, w)",
    "another meaning": "f = DequantizeLinear(x, s, z) a = QuantizeLinear(f, s, z) "
                       "g = DequantizeLinear(a, t, w) y = QuantizeLinear(g, u, w)",
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("case", QOPERATORS)
def test_every_quantized_operator_is_read(case: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    middle = (info.max + info.min + 1) // 2
    kind = np.dtype(dtype).type
    body = QOPERATORS[case]
    constants = {
        "s": F(0.031), "t": F(0.047), "u": F(0.083), "v": F(1 / 256), "z": kind(middle + 3),
        "w": kind(middle - 11), "k": integers(4, 6, 8, dtype=dtype),
        "m": integers(8, 5, dtype=dtype),
    }  # fmt: skip
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: value for name, value in constants.items() if name in words}
    model = make(f"({dtype}[N,4,6,8] x) => ({dtype}[N,C,H,W] y)", body, **used)
    found = check_model(model, tolerance=1)
    feeds = random_feeds(model, 3, 1)
    mine, theirs = (run_onnx(m, feeds)["y"].astype(int) for m in (found.reference, model))
    # onnxruntime's own sums and products round differently at ties; all else is the same
    loose = ("QLinearAdd", "QLinearMul", "QLinearAveragePool", "QLinearSoftmax")
    assert np.abs(mine - theirs).max() <= int(case.startswith(loose))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integers_move_between_quantize_and_dequantize(dtype: str) -> None:
    kind = np.dtype(dtype).type
    body = """q = QuantizeLinear(x, s, z) m = MaxPool<kernel_shape=[2,2]>(q) t = Identity(m)
              r = Transpose<perm=[0,1,3,2]>(t) f = DequantizeLinear(r, s, z) y = Conv(f, w)"""
    model = make(IMAGE, body, w=weights(3, 4, 2, 2), s=F(0.02), z=kind(7))
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert kinds == [PoolNode, MoveNode, MatrixNode]


@pytest.mark.parametrize("scale", ["c = Cast<to=1>(r) y = Mul(c, k)", "y = DequantizeLinear(r, s)"])
@pytest.mark.parametrize("source", ["integers", "floats"])
def test_products_of_whole_numbers_are_scaled_in_their_weights(scale: str, source: str) -> None:
    held, is_integer = integers(6, 5), source == "integers"
    front = "" if is_integer else "q = QuantizeLinear(x, t, xz) "
    call = f"r = MatMulInteger({'x' if is_integer else 'q'}, w, xz, wz) "
    model = make(
        f"({'int8' if is_integer else 'float'}[N,6] x) => (float[N,5] y)", front + call + scale,
        w=held, xz=np.int8(-3), wz=np.int8(4),
        **({"k": np.abs(weights(5)) + F(0.01)} if "Mul" in scale else {"s": F(0.01)}),
        **({} if is_integer else {"t": F(0.02)}),
    )  # fmt: skip
    feeds = random_feeds(model, 40, 1)
    found = check_model(model, feeds=feeds)
    (node,) = found.graph.nodes
    assert isinstance(node, MatrixNode)
    assert np.array_equal(node.weights.reshape(5, 6).T, held.astype(int) - 4)
    real, mine = run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"]
    assert np.abs(real - mine).max() < 0.05 * np.abs(real).max()


def test_a_bias_added_behind_a_quantized_product_joins_it() -> None:
    bias = integers(5).astype(np.int32) * 30
    body = """q = QuantizeLinear(x, s, z) f = DequantizeLinear(q, s, z)
              w = DequantizeLinear<axis=1>(k, ws) m = MatMul(f, w) b = DequantizeLinear(c, bs)
              a = Add(m, b) p = QuantizeLinear(a, t, z) y = DequantizeLinear(p, t, z)"""
    model = make(
        "(float[N,7,6] x) => (float[N,7,5] y)", body, k=integers(6, 5), c=bias, s=F(0.02),
        z=np.int8(-4), ws=np.full(5, 0.01, F), bs=F(0.02) * F(0.01), t=F(0.3),
    )  # fmt: skip
    found = check_model(model)
    (node,) = found.graph.nodes
    assert isinstance(node, MatrixNode)
    assert np.array_equal(node.bias, bias)
    assert found.warnings == ()


def test_one_tensor_read_with_two_scales_is_two_values() -> None:
    model = make(
        "(int8[N,4,6,8] x) => (int8[N,4,6,8] y)",
        """a = DequantizeLinear(x, s, z) b = DequantizeLinear(x, t, z) c = Add(a, b)
           y = QuantizeLinear(c, u, z)""",
        s=F(0.03), t=F(0.05), u=F(0.08), z=np.int8(2),
    )  # fmt: skip
    found = check_model(model)
    feeds = random_feeds(model, 3, 1)
    assert np.array_equal(run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"])


def test_integer_outputs_that_need_a_scale_inside_are_copies() -> None:
    model = make(
        "(int8[N,4,6,8] x, int8[N,4,6,8] v) => (int8[N,4,6,8] y, int8[N,4,6,8] z)",
        """y = com.microsoft.QLinearAdd(x, s, w, v, s, w, t, w)
           z = com.microsoft.QLinearMul(y, t, w, x, s, w, s, w)""",
        s=F(0.03), t=F(0.05), w=np.int8(2),
    )  # fmt: skip
    found = check_model(model)
    kinds = [type(node) for node in found.graph.nodes]
    assert kinds.count(BinaryNode) == 2
    assert kinds.count(MoveNode) == 2
    assert [found.graph.values[name].scale for name in ("y", "z")] == [None, None]


def test_pixels_of_eight_bits_go_through_a_table() -> None:
    body = f"""f = Cast<to={onnx.TensorProto.FLOAT}>(x) d = Div(f, k) s = Sub(d, m) n = Div(s, v)
               c = Conv(n, w) y = Relu(c)"""
    model = make(
        "(uint8[N,4,6,8] x) => (float[N,6,H,W] y)", body, k=F(255), m=weights(4, 1, 1),
        v=np.abs(weights(4, 1, 1)) + F(0.1), w=weights(6, 4, 3, 3),
    )  # fmt: skip
    found = check_model(model)
    assert [type(node) for node in found.graph.nodes] == [LutNode, MatrixNode]
    assert found.graph.values["x"].dtype == "u8"


def test_relu_with_a_middle_zero_point_stays_a_table() -> None:
    body = (
        """c = Conv(x, w) r = Relu(c) q = QuantizeLinear(r, s, z) y = DequantizeLinear(q, s, z)"""
    )
    model = make(IMAGE, body, w=weights(3, 4, 1, 1), s=F(0.02), z=np.int8(0))
    found = check_model(model)
    assert [type(node) for node in found.graph.nodes] == [MatrixNode, LutNode]
    assert found.graph.nodes[1].output == "y"


def test_other_parameters_behind_a_movement_are_a_requantization() -> None:
    body = """q = QuantizeLinear(x, s, z) f = DequantizeLinear(q, s, z)
              t = Transpose<perm=[0,1,3,2]>(f) p = QuantizeLinear(t, u, z)
              g = DequantizeLinear(p, u, z) y = Conv(g, w)"""
    model = make(IMAGE, body, w=weights(3, 4, 1, 1), s=F(0.02), u=F(0.03), z=np.int8(0))
    kinds = [type(node) for node in check_model(model).graph.nodes]
    assert sorted(kinds, key=str) == sorted([MoveNode, LutNode, MatrixNode], key=str)


def test_a_partly_quantized_model_stays_float_where_no_crossbar_computes() -> None:
    body = """q = QuantizeLinear(x, s, z) f = DequantizeLinear(q, s, z) c = Conv(f, w)
              g = GlobalAveragePool(c) m = Mul(c, g) y = Relu(m)"""
    model = make(IMAGE, body, w=weights(4, 4, 1, 1), s=F(0.02), z=np.int8(0))
    found = check_model(model)
    assert isinstance(found.graph.nodes[0], MatrixNode)
    assert {found.graph.values[name].dtype for name in ("g", "m", "y")} == {"f32"}
    assert found.graph.values["x"].scale == pytest.approx(0.02)


def test_sixteen_bit_weights_are_quantized_again() -> None:
    held = integers(8, 5, dtype="int16")
    body = "w = DequantizeLinear(q, s) y = MatMul(x, w)"
    model = make("(float[N,8] x) => (float[N,5] y)", body, opset=21, ir=10, q=held, s=F(0.001))
    feeds = random_feeds(model, 8, 0)
    found = check_model(model, feeds=feeds)
    real, mine = run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"]
    assert np.linalg.norm(real - mine) < 0.02 * np.linalg.norm(real)


def test_unsigned_images_into_a_signed_network() -> None:
    """onnxruntime's layers keep the type: one lossless change of type stands behind the first."""
    body = """q = QuantizeLinear(x, s, z) f = DequantizeLinear(q, s, z) c = Conv(f, w)
              p = QuantizeLinear(c, t, u) g = DequantizeLinear(p, t, u) y = Conv(g, v)"""
    model = make(
        IMAGE, body, w=weights(3, 4, 1, 1), v=weights(2, 3, 1, 1), s=F(1 / 64), z=np.uint8(128),
        t=F(0.03), u=np.int8(5),
    )  # fmt: skip
    found = check_model(model)
    kinds = [type(node) for node in found.graph.nodes]
    assert kinds == [MatrixNode, LutNode, MatrixNode]
    table = found.graph.nodes[1]
    assert isinstance(table, LutNode)
    assert np.array_equal(table.table, np.arange(-128, 128))


def test_an_unsigned_network_stays_unsigned_where_a_crossbar_needs_integers() -> None:
    body = """q = QuantizeLinear(x, s, z) f = DequantizeLinear(q, s, z) c = Conv(f, w)
              r = Relu(c) g = GlobalAveragePool(r) h = Sigmoid(g) y = Mul(r, h)"""
    model = make(IMAGE, body, w=weights(3, 4, 1, 1), s=F(1 / 64), z=np.uint8(128))
    found = check_model(model)
    assert {value.dtype for value in found.graph.values.values()} == {"u8", "f32"}
