"""Operators of com.microsoft are written out in ONNX's own and mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from frontend.makers import integers, make, weights
from frontend.oracle import check_model, run_onnx
from numpy.typing import NDArray
from onnx import helper

from passes.graph import MatrixNode
from pimc.frontend.build import import_model
from pimc.frontend.load import load_model
from pimc.frontend.normalize import normalize

F = np.float32
ROWS = "(float[1,5,8] x) => (float[1,5,C] y)"
IMAGE = "(float[1,4,6,6] x) => (float[1,C,H,W] y)"
GAINS = {"g": weights(8, seed=1) + 1, "o": weights(8, seed=2)}
QKV = {"w": weights(8, 24), "b": weights(24)}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{
        f"FusedConv {kind}": (
            IMAGE,
            f"""y = com.microsoft.FusedConv<pads=[1,1,1,1], strides=[2,2], activation="{kind}"
                {parameters}>(x, w, b)""",
            {"w": weights(6, 4, 3, 3), "b": weights(6)},
        )
        for kind, parameters in (
            ("Relu", ""),
            ("Tanh", ""),
            ("Sigmoid", ""),
            ("LeakyRelu", ", activation_params=[0.125]"),
            ("Clip", ", activation_params=[-0.5, 0.5]"),
            ("HardSigmoid", ", activation_params=[0.25, 0.5]"),
        )
    },
    "FusedConv with a sum": (
        IMAGE,
        "y = com.microsoft.FusedConv<activation='Relu'>(x, w, b, x)".replace("'", '"'),
        {"w": weights(4, 4, 1, 1), "b": weights(4)},
    ),
    "FusedGemm": (
        "(float[1,8] x) => (float[1,3] y)",
        'y = com.microsoft.FusedGemm<transB=1, alpha=0.5, activation="LeakyRelu", '
        "activation_alpha=0.125>(x, w, b)",
        {"w": weights(3, 8), "b": weights(3)},
    ),
    "FusedMatMul": (
        ROWS,
        "y = com.microsoft.FusedMatMul<alpha=0.25, transB=1>(x, x)",
        {},
    ),
    "FusedMatMul of weights": (
        ROWS,
        "t = Transpose<perm=[0,2,1]>(x) y = com.microsoft.FusedMatMul<transA=1, transB=1>(t, w)",
        {"w": weights(3, 8)},
    ),
    "Gelu": (ROWS, "y = com.microsoft.Gelu(x)", {}),
    "BiasGelu": (ROWS, "y = com.microsoft.BiasGelu(x, b)", {"b": weights(8)}),
    "FastGelu": (ROWS, "y = com.microsoft.FastGelu(x, b)", {"b": weights(8)}),
    "QuickGelu": (ROWS, "y = com.microsoft.QuickGelu<alpha=1.5>(x)", {}),
    "SkipLayerNormalization": (
        ROWS,
        """a = Relu(x)
           n, m, v, s = com.microsoft.SkipLayerNormalization<epsilon=0.001>(x, a, g, o, b)
           y = Add(n, s)""",
        GAINS | {"b": weights(8)},
    ),
    "SkipLayerNormalization without offset": (
        ROWS,
        "a = Relu(x) y = com.microsoft.SkipLayerNormalization(x, a, g)",
        {"g": GAINS["g"]},
    ),
    "NhwcMaxPool": (
        "(float[1,6,6,4] x) => (uint8[1,3,3,4] y)",
        """q = QuantizeLinear(x, s, z)
           y = com.microsoft.NhwcMaxPool<kernel_shape=[2,2], strides=[2,2]>(q)""",
        {"s": F(0.02), "z": np.uint8(128)},
    ),
    "Attention": (ROWS, "y = com.microsoft.Attention<num_heads=2>(x, w, b)", QKV),
    "Attention that does not look ahead": (
        ROWS,
        "y = com.microsoft.Attention<num_heads=4, unidirectional=1, scale=0.5>(x, w, b)",
        QKV,
    ),
    "Attention with a mask": (
        ROWS,
        "y = com.microsoft.Attention<num_heads=2>(x, w, b, mask)",
        QKV | {"mask": np.array([[1, 1, 1, 0, 0]], np.int32)},
    ),
    "Attention with a bias of its products": (
        ROWS,
        "y = com.microsoft.Attention<num_heads=2>(x, w, b, , , r)",
        QKV | {"r": weights(1, 2, 5, 5)},
    ),
    "Attention of other sizes": (
        ROWS,
        "y = com.microsoft.Attention<num_heads=2, qkv_hidden_sizes=[4,4,6]>(x, w, b)",
        {"w": weights(8, 14), "b": weights(14)},
    ),
    "MultiHeadAttention": (
        ROWS,
        """k = Relu(x) v = Tanh(x)
           y = com.microsoft.MultiHeadAttention<num_heads=2>(x, k, v, b)""",
        {"b": weights(24)},
    ),
    "MultiHeadAttention of other keys": (
        "(float[1,5,8] x, float[1,7,8] k) => (float[1,5,8] y)",
        "y = com.microsoft.MultiHeadAttention<num_heads=4>(x, k, k)",
        {},
    ),
    "EmbedLayerNormalization": (
        "(int32[1,5] t) => (float[1,5,8] y)",
        "y, m = com.microsoft.EmbedLayerNormalization(t, k, words, places, kinds, g, o)",
        GAINS | {"words": weights(9, 8), "places": weights(6, 8), "kinds": weights(2, 8),
                 "k": np.array([[0, 0, 1, 1, 1]], np.int32)},
    ),
    "EmbedLayerNormalization with its sum": (
        "(int32[1,5] t) => (float[1,5,8] y)",
        """n, m, s = com.microsoft.EmbedLayerNormalization(t, , words, places, , g, o)
           y = Add(n, s)""",
        GAINS | {"words": weights(9, 8), "places": weights(6, 8)},
    ),
    "MatMulIntegerToFloat": (
        ROWS,
        """q = QuantizeLinear(x, s, z)
           y = com.microsoft.MatMulIntegerToFloat(q, w, s, c, z, p, b)""",
        {"s": F(0.02), "z": np.uint8(120), "w": integers(8, 3, dtype="uint8"),
         "c": np.abs(weights(3)) / 10, "p": np.array([120, 128, 7], np.uint8), "b": weights(3)},
    ),
    "QAttention": (
        ROWS,
        """q = QuantizeLinear(x, s, z)
           y = com.microsoft.QAttention<num_heads=2>(q, w, b, s, c, , z, p)""",
        {"s": F(0.02), "z": np.uint8(120), "w": integers(8, 24), "c": F(0.004),
         "p": np.int8(3), "b": weights(24)},
    ),
}  # fmt: skip


def _feeds(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    for port in model.graph.input:
        shape = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
        is_float = port.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        drawn = random.normal(0, 1, shape) if is_float else random.integers(0, 9, shape)
        feeds[port.name] = drawn.astype(F if is_float else np.int32)
    return feeds


@pytest.mark.parametrize("case", CASES)
def test_operators_of_onnxruntime_are_written_out(case: str) -> None:
    signature, body, constants = CASES[case]
    model = make(signature, body, opset=20, **constants)
    written = normalize(load_model(model)).model
    assert {node.domain for node in written.graph.node} <= {"", "ai.onnx"}
    feeds = _feeds(model)
    expected, found = run_onnx(model, feeds)["y"], run_onnx(written, feeds)["y"]
    # their exponentials and error functions are approximations
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    imported = check_model(model, feeds=feeds)
    assert imported.on_host == ()


@pytest.mark.parametrize(
    "body",
    [
        # lengths instead of a mask; states of earlier places; averages that are read
        "y = com.microsoft.Attention<num_heads=2>(x, w, b, lengths)",
        "y, p = com.microsoft.Attention<num_heads=2>(x, w, b) z = Relu(p)",
        """s, m = com.microsoft.SkipLayerNormalization(x, x, g) y = Add(s, m)""",
        'y = com.microsoft.FusedConv<activation="Swish">(x, w)',
    ],
)
def test_what_is_not_understood_is_left_as_it_is(body: str) -> None:
    signature = ROWS.replace("y)", "y, float[2,1,2,5,4] z)") if "z =" in body else ROWS
    constants = QKV | {"lengths": np.array([3], np.int32), "g": GAINS["g"]}
    model = make(signature, body, opset=20, **constants)
    written = normalize(load_model(model)).model
    assert "com.microsoft" in {node.domain for node in written.graph.node}


# ---------------------------------------------------------------------- dynamic quantization
def _dynamic(kind: str) -> tuple[onnx.ModelProto, NDArray[Any]]:
    """A product as onnxruntime's dynamic quantizer writes it, and its weights less zero point."""
    is_conv = kind == "ConvInteger"
    values = integers(3, 4, 3, 3, dtype="uint8") if is_conv else integers(8, 3, dtype="uint8")
    attributes = "<pads=[1,1,1,1]>" if is_conv else ""
    model = make(
        IMAGE if is_conv else ROWS,
        f"""q, s, z = DynamicQuantizeLinear(x)
            r = {kind}{attributes}(q, w, z, wz)
            c = Cast<to=1>(r)
            f = Mul(s, ws)
            m = Mul(c, f)
            y = Add(m, b)""",
        opset=17, w=values, wz=np.uint8(117), ws=F(0.01),
        b=weights(1, 3, 1, 1) if is_conv else weights(3),
    )  # fmt: skip
    return model, values.astype(np.int64) - 117


@pytest.mark.parametrize("kind", ["MatMulInteger", "ConvInteger"])
def test_dynamic_quantization_keeps_the_weights_and_fixes_the_scale(kind: str) -> None:
    model, expected = _dynamic(kind)
    feeds = {"x": weights(8, 4, 6, 6, scale=1.0) if kind[0] == "C" else weights(8, 5, 8, scale=1.0)}
    found = check_model(model, feeds=feeds)
    (warning,) = found.warnings
    assert warning.code == "F228"
    assert warning.message.startswith("1 layers find a new scale")
    assert found.on_host == ()
    (node,) = (n for n in found.graph.nodes if isinstance(n, MatrixNode))
    wanted = expected if expected.ndim == 4 else expected.T[:, None, None]
    ours = node.weights.transpose(0, 3, 1, 2) if expected.ndim == 4 else node.weights
    np.testing.assert_array_equal(ours.reshape(-1), wanted.reshape(-1))
    theirs = np.concatenate([run_onnx(model, {"x": x[None]})["y"] for x in feeds["x"]])
    mine = run_onnx(found.reference, feeds)["y"]
    assert np.abs(mine - theirs).max() < 0.03 * np.abs(theirs).max()


def test_a_dynamic_scale_that_somebody_else_reads_stays() -> None:
    model, _ = _dynamic("MatMulInteger")
    model.graph.output.append(helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, []))
    written = normalize(load_model(model)).model
    assert "DynamicQuantizeLinear" in {node.op_type for node in written.graph.node}


def test_the_product_with_a_dynamic_scale_in_one_operator() -> None:
    model = make(
        ROWS, "y = com.microsoft.DynamicQuantizeMatMul(x, w, ws, wz, b)", opset=17,
        w=integers(8, 3), ws=np.abs(weights(3)) / 10 + F(0.01), wz=np.zeros(3, np.int8),
        b=weights(3),
    )  # fmt: skip
    found = check_model(model, feeds={"x": weights(8, 5, 8, scale=1.0)})
    assert [warning.code for warning in found.warnings] == ["F228"]
    (node,) = (n for n in found.graph.nodes if isinstance(n, MatrixNode))
    np.testing.assert_array_equal(node.weights.reshape(3, 8), integers(8, 3).T)


def test_a_recurrent_layer_with_dynamic_scales() -> None:
    model = make(
        "(float[4,1,6] x) => (float[4,1,1,5] y)",
        """y, h, c = com.microsoft.DynamicQuantizeLSTM<hidden_size=5>
                  (x, w, r, b, , , , , ws, wz, rs, rz)""",
        opset=17, w=integers(1, 6, 20), r=integers(1, 5, 20), b=weights(1, 40),
        ws=np.array([0.003], F), wz=np.array([1], np.int8), rs=np.array([0.004], F),
        rz=np.array([-2], np.int8),
    )  # fmt: skip
    found = import_model(model, {"x": weights(8, 4, 1, 6, scale=1.0)})
    assert [warning.code for warning in found.warnings] == ["F228"]
    assert found.on_host == ()
    x = weights(4, 1, 6, scale=1.0)
    mine, theirs = run_onnx(found.reference, {"x": x})["y"], run_onnx(model, {"x": x})["y"]
    assert np.abs(mine - theirs).max() < 0.05


# ---------------------------------------------------------------------- few bits, layouts
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
def test_weights_of_a_few_bits_per_block_are_written_out(bits: int, is_symmetric: bool) -> None:
    rows, outputs, block = 40, 6, 16
    blocks = 3
    random = np.random.default_rng(bits)
    packed = random.integers(0, 256, (outputs, blocks, block * bits // 8), np.uint8)
    constants: dict[str, Any] = {"w": packed, "s": np.abs(weights(outputs, blocks)) + F(0.01)}
    zero = ""
    if not is_symmetric:
        zero = ", z"
        constants["z"] = random.integers(0, 256, (outputs, -(-blocks * bits // 8)), np.uint8)
    body = f"""y = com.microsoft.MatMulNBits
               <K={rows}, N={outputs}, bits={bits}, block_size={block}>(x, w, s{zero})"""
    model = make("(float[1,5,40] x) => (float[1,5,6] y)", body, opset=17, **constants)
    normalized = normalize(load_model(model))
    assert [note.code for note in normalized.notes] == ["F224"]
    feeds = {"x": weights(1, 5, 40, scale=1.0)}
    expected = run_onnx(model, feeds)["y"]
    found = run_onnx(normalized.model, feeds)["y"]
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("is_last", [0, 1])
@pytest.mark.parametrize("kind", ["QLinearConv", "QLinearAveragePool", "QLinearGlobalAveragePool"])
def test_quantized_operators_with_channels_last_are_turned_around(kind: str, is_last: int) -> None:
    scales = "s, z"
    body = {
        "QLinearConv": f"com.microsoft.{kind}<pads=[1,1,1,1], channels_last={is_last}>"
        f"(q, {scales}, w, ws, wz, t, z, b)",
        "QLinearAveragePool": f"com.microsoft.{kind}<kernel_shape=[2,2], strides=[2,2], "
        f"channels_last={is_last}>(q, {scales}, t, z)",
        "QLinearGlobalAveragePool": f"com.microsoft.{kind}<channels_last={is_last}>"
        f"(q, {scales}, t, z)",
    }[kind]
    sizes = (6, 6, 4) if is_last else (4, 6, 6)
    model = make(
        f"(float[1,{sizes[0]},{sizes[1]},{sizes[2]}] x) => (float[1,A,B,C] y)",
        f"q = QuantizeLinear(x, s, z) r = {body} y = DequantizeLinear(r, t, z)",
        opset=17, s=F(0.02), t=F(0.05), z=np.uint8(120), w=integers(3, 4, 3, 3, dtype="uint8"),
        ws=F(0.01), wz=np.uint8(130), b=integers(3).astype(np.int32) * 20,
    )  # fmt: skip
    found = check_model(model, feeds={"x": weights(5, *sizes, scale=1.0)})
    assert found.on_host == ()
    x = weights(1, *sizes, scale=1.0)
    mine, theirs = run_onnx(found.reference, {"x": x})["y"], run_onnx(model, {"x": x})["y"]
    steps = np.abs(np.rint((mine - theirs) / F(0.05)))
    assert steps.max() <= (0 if kind == "QLinearConv" else 1)
