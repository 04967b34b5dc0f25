"""Float islands of quantized networks: float32 rows on the chip, and equal to onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from frontend.makers import integers, make, weights
from frontend.oracle import check_model, random_feeds, run_onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import pimc
from isa.program import walk
from passes.graph import BinaryNode, FloatLayerNormNode, LutNode, MatrixNode, RealNode
from pimc.frontend.build import FrontendOptions, Imported
from pimc.frontend.export import IR_VERSION

F = np.float32
ON_CHIP = FrontendOptions(use_host=False)
# two inputs that the model quantizes; what is made of them is not
ROWS = "(float[N,6,8] x, float[N,6,8] z) => (float[N,A,B] y)"
QUANTIZED = """xq = QuantizeLinear(x, s, o) a = DequantizeLinear(xq, s, o)
               zq = QuantizeLinear(z, t, p) b = DequantizeLinear(zq, t, p) """
PARAMETERS: dict[str, Any] = {"s": F(0.03), "o": np.int8(-7), "t": F(0.02), "p": np.uint8(131)}


def near(mine: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Within the stated tolerance, relative to the largest magnitude."""
    other = ~((mine == theirs) | (np.isnan(mine) & np.isnan(theirs)))
    scale = np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0) or 1.0
    return bool((np.abs(mine[other] - theirs[other]) <= 1e-5 * scale).all())


def check_island(body: str, signature: str = ROWS, images: int = 3, **constants: Any) -> Imported:
    """A model is taken whole by the chip, equals its reference, and is near to the user's own."""
    model = make(signature, QUANTIZED + body, opset=20, **PARAMETERS, **constants)
    feeds = random_feeds(model, images, 0)
    found = check_model(model, feeds=feeds, options=ON_CHIP)
    assert {warning.code for warning in found.warnings} <= {"F230"}  # a divisor that rounds to 0
    for name, theirs in run_onnx(model, feeds, tuple(p.name for p in model.graph.output)).items():
        if name not in feeds:
            assert near(run_onnx(found.reference, feeds)[name], theirs), name
    return found


SHIFTED = "c = Add(a, b) "
ISLANDS = {
    "sum": "y = Add(a, b)",
    "difference": "y = Sub(a, b)",
    "product": "y = Mul(a, b)",
    "quotient": "y = Div(a, b)",
    "maximum": "y = Max(a, b)",
    "power": "m = Abs(a) y = Pow(m, b)",
    "of one tensor": "y = Mul(a, a)",
    "square": f"{SHIFTED} y = Pow(c, two)",
    "root": f"{SHIFTED} m = Abs(c) y = Sqrt(m)",
    "exponential": f"{SHIFTED} y = Exp(c)",
    "logarithm": f"{SHIFTED} m = Abs(c) n = Add(m, two) y = Log(n)",
    "tanh": f"{SHIFTED} y = Tanh(c)",
    "gelu": f"{SHIFTED} y = Gelu(c)",
    "gelu by tanh": f"{SHIFTED} y = Gelu<approximate=\"tanh\">(c)",
    "error function": f"{SHIFTED} y = Erf(c)",
    "gelu in parts": f"""{SHIFTED} h = Mul(c, root) e = Erf(h) f = Add(e, one) g = Mul(c, f)
        y = Mul(g, half)""",
    "sigmoid": f"{SHIFTED} y = Sigmoid(c)",
    "silu": f"{SHIFTED} g = Sigmoid(c) y = Mul(g, c)",
    "relu": f"{SHIFTED} y = Relu(c)",
    "leaky relu": f"{SHIFTED} y = LeakyRelu<alpha=0.2>(c)",
    "steep leaky relu": f"{SHIFTED} y = LeakyRelu<alpha=2.0>(c)",
    "hard sigmoid": f"{SHIFTED} y = HardSigmoid<alpha=0.3>(c)",
    "hard swish": f"{SHIFTED} y = HardSwish(c)",
    "clip": f"{SHIFTED} y = Clip(c, low, two)",
    "negative": f"{SHIFTED} y = Neg(c)",
    "reciprocal": f"{SHIFTED} m = Exp(c) y = Reciprocal(m)",
    "constant minus": f"{SHIFTED} y = Sub(two, c)",
    "constant over": f"{SHIFTED} m = Exp(c) y = Div(two, m)",
    "constant of a row": f"{SHIFTED} y = Mul(c, row)",
    "constant of a column": f"{SHIFTED} y = Add(c, column)",
    "constant of all": f"{SHIFTED} y = Sub(c, whole)",
    "column of a tensor": f"{SHIFTED} m = ReduceMean<keepdims=1>(c, last) y = Sub(c, m)",
    "mean": f"{SHIFTED} y = ReduceMean<keepdims=1>(c, last)",
    "sum along": f"{SHIFTED} y = ReduceSum<keepdims=1>(c, last)",
    "largest": f"{SHIFTED} y = ReduceMax<keepdims=1>(c, last)",
    "smallest": f"{SHIFTED} y = ReduceMin<keepdims=1>(c, last)",
    "softmax": f"{SHIFTED} y = Softmax(c)",
    "softmax of integers": "y = Softmax(a)",
    "softmax over rows": f"{SHIFTED} y = Softmax<axis=1>(c)",
    "normalization": f"{SHIFTED} y = LayerNormalization<axis=-1>(c, row, row)",
    "normalization of integers": "y = LayerNormalization<axis=-1>(a, row)",
    "normalization in parts": f"""{SHIFTED} m = ReduceMean<keepdims=1>(c, last) d = Sub(c, m)
        q = Pow(d, two) v = ReduceMean<keepdims=1>(q, last) e = Add(v, small) r = Sqrt(e)
        n = Div(d, r) g = Mul(n, row) y = Add(g, row)""",
    "movement": f"{SHIFTED} m = Transpose<perm=[0,2,1]>(c) y = Reshape(m, shape)",
    "padding": f"{SHIFTED} y = Pad(c, pads)",
    "concatenation": f"{SHIFTED} y = Concat<axis=1>(c, a)",
    "gelu of one tensor": """h = Mul(a, root) e = Erf(h) f = Add(e, one) g = Mul(a, f)
        y = Add(g, b)""",
}  # fmt: skip
CONSTANTS: dict[str, Any] = {
    "one": F(1), "half": F(0.5), "two": F(2), "low": F(-0.5), "small": F(1e-5), "root": F(0.7071),
    "row": weights(8), "column": weights(6, 1), "whole": weights(6, 8),
    "last": np.array([-1], np.int64), "shape": np.array([0, 6, 8], np.int64),
    "pads": np.array([0, 1, 2, 0, 0, 1], np.int64),
}  # fmt: skip


@pytest.mark.parametrize("case", ISLANDS)
def test_an_operator_on_floats_stays_float(case: str) -> None:
    found = check_island(ISLANDS[case], **CONSTANTS)
    assert found.graph.values["y"].dtype == "f32"


@pytest.mark.parametrize("case", ["sum", "root", "softmax", "normalization", "mean", "movement"])
def test_what_the_model_quantizes_behind_an_island_is_quantized_there(case: str) -> None:
    body = ISLANDS[case].replace("y =", "w =")
    body += "wq = QuantizeLinear(w, u, v) y = DequantizeLinear(wq, u, v)"
    found = check_island(body, **CONSTANTS, u=F(0.02), v=np.int8(-3))
    assert found.graph.values["y"].dtype == "s8"
    assert found.graph.values["y"].scale == pytest.approx(0.02)


def test_constants_are_joined_to_floats() -> None:
    """As the class token of a transformer is, at batch 1."""
    body = f"{SHIFTED} y = Concat<axis=1>(c, token, a, token)"
    signature = "(float[1,6,8] x, float[1,6,8] z) => (float[1,A,B] y)"
    check_island(body, signature, images=1, token=weights(1, 1, 8))


def test_a_float_input_that_is_quantized_for_one_reader_stays_float_for_the_other() -> None:
    body = """xq = QuantizeLinear(x, s, o) a = DequantizeLinear(xq, s, o) m = MatMul(a, w)
              mq = QuantizeLinear(m, s, o) n = DequantizeLinear(mq, s, o) y = Add(x, n)"""
    held = {"s": F(0.03), "o": np.int8(-7)}
    model = make("(float[N,6,8] x) => (float[N,6,8] y)", body, w=weights(8, 8), **held)
    feeds = random_feeds(model, 3, 0)
    found = check_model(model, feeds=feeds, options=ON_CHIP)
    assert found.graph.values["x"].dtype == "f32"
    kinds = [type(node) for node in found.graph.nodes]
    assert kinds == [RealNode, MatrixNode, BinaryNode]


def test_an_input_that_is_quantized_twice_stays_float() -> None:
    scales = {"s1": F(0.01), "s2": F(0.06), "z1": np.int8(3), "z2": np.int8(-9)}
    body = """q = QuantizeLinear(x, s1, z1) a = DequantizeLinear(q, s1, z1)
              r = QuantizeLinear(x, s2, z2) b = DequantizeLinear(r, s2, z2) y = Add(a, b)"""
    model = make("(float[N,6,8] x) => (float[N,6,8] y)", body, **scales)
    feeds = random_feeds(model, 3, 0)
    found = check_model(model, feeds=feeds, options=ON_CHIP)
    assert found.graph.values["x"].dtype == "f32"
    assert near(run_onnx(found.reference, feeds)["y"], run_onnx(model, feeds)["y"])


def test_a_moved_tensor_is_quantized_behind_the_movement_where_others_want_floats() -> None:
    body = f"""{SHIFTED} m = Transpose<perm=[0,2,1]>(c) q = QuantizeLinear(m, s, o)
               r = DequantizeLinear(q, s, o) k = Transpose<perm=[0,2,1]>(r) y = Add(c, k)"""
    found = check_island(body)
    assert found.graph.values["c"].dtype == "f32"


def test_parts_of_a_tensor_are_quantized_each_as_the_model_says() -> None:
    """As queries, keys and values of one product are, of which one is transposed besides."""
    scales = {"s1": F(0.01), "s2": F(0.06), "z1": np.int8(3), "z2": np.int8(-9)}
    body = f"""{SHIFTED} m = Transpose<perm=[0,2,1]>(c) u, v = Split<axis=1, num_outputs=2>(m)
               q = QuantizeLinear(u, s1, z1) d = DequantizeLinear(q, s1, z1)
               n = Transpose<perm=[0,2,1]>(v) r = QuantizeLinear(n, s2, z2)
               e = DequantizeLinear(r, s2, z2) k = Transpose<perm=[0,2,1]>(e) y = Add(d, k)"""
    found = check_island(body, **scales)
    held = {round(v.scale, 3) for v in found.graph.values.values() if v.scale is not None}
    assert {0.01, 0.06} <= held
    assert found.graph.values["c"].dtype == "f32"


def test_an_island_between_partitions_hands_floats_over() -> None:
    body = f"{SHIFTED} m = Mish(c) y = Add(m, b)"
    model = make(ROWS, QUANTIZED + body, opset=18, **PARAMETERS)
    program = pimc.compile(model)
    assert [part.name for part in program.program.partitions] == ["host0"]
    found = program.verify()
    assert found["equal"], found
    feeds = random_feeds(model, 2, 0)
    assert near(program.run(feeds)["y"], run_onnx(model, feeds)["y"])


def test_what_only_integers_compute_is_quantized_with_a_warning_and_for_nobody_else() -> None:
    """Crossbars hold no floats."""
    body = f"{SHIFTED} m = MatMul(c, w) n = Relu(m) y = Add(c, n)"
    model = make(ROWS, QUANTIZED + body, opset=18, **PARAMETERS, w=weights(8, 8))
    feeds = random_feeds(model, 3, 0)
    found = check_model(model, options=ON_CHIP, feeds=feeds)
    weights_, operand, noise = found.warnings if len(found.warnings) == 3 else (*found.warnings, 0)
    assert {weights_.code, operand.code} == {"F232"}
    assert noise == 0 or noise.code == "F221"
    messages = weights_.message + operand.message
    assert "`c_operand`, which MatMul" in messages
    assert "but not its weights" in messages
    assert found.graph.values["c"].dtype == "f32"
    assert found.graph.values["c_operand"].dtype == "s8"
    assert found.graph.values["m"].dtype == "f32"


HELD = {"w": integers(6, 6, 3, 3), "ws": np.abs(weights(6)) * F(0.01) + F(0.001)}
HELD |= {"v": integers(8, 5, seed=3), "vs": F(0.004), "zero": np.zeros(6, np.int8)}
MATRICES = {
    "convolution": "f = DequantizeLinear<axis=0>(w, ws, zero) y = Conv<pads=[1,1,1,1]>(a, f)",
    "convolution with a bias":
        "f = DequantizeLinear<axis=0>(w, ws, zero) y = Conv<strides=[2,1]>(a, f, bias)",
    "residual": "f = DequantizeLinear<axis=0>(w, ws, zero) c = Conv<pads=[1,1,1,1]>(a, f, bias) "
                "d = Add(c, b) y = Relu(d)",
    "product": "f = DequantizeLinear(v, vs) y = MatMul(a, f)",
    "product with a bias": "f = DequantizeLinear(v, vs) m = MatMul(a, f) y = Add(five, m)",
    "gelu behind a product":
        "f = DequantizeLinear(v, vs) m = MatMul(a, f) g = Sigmoid(m) y = Mul(m, g)",
    "computed product": "k = Transpose<perm=[0,1,3,2]>(b) y = MatMul(a, k)",
}  # fmt: skip


@pytest.mark.parametrize("case", MATRICES)
def test_the_sums_of_a_crossbar_may_stay_float(case: str) -> None:
    """As where QuantizeLinear only stands before matrices: additions and gates are in float32."""
    maps = "(float[N,6,8,8] x, float[N,6,8,8] z) => (float[N,A,B,C] y)"
    used = {name: value for name, value in HELD.items() if f"{name}," in MATRICES[case]
            or f"{name})" in MATRICES[case]}  # fmt: skip
    extra = {"bias": weights(6), "five": weights(5)}
    used |= {name: value for name, value in extra.items() if name in MATRICES[case]}
    found = check_island(MATRICES[case], maps, **used)
    assert found.graph.values["y"].dtype == "f32"
    program = pimc.compile(found.float_model, host=False)
    assert program.verify()["equal"]


def test_bounds_that_are_computed_send_a_clip_to_the_host() -> None:
    body = f"{SHIFTED} m = ReduceMax<keepdims=0>(z) y = Clip(c, low, m)"
    signature = "(float[1,6,8] x, float[1,6,8] z) => (float[1,A,B] y)"
    model = make(signature, QUANTIZED + body, opset=18, **PARAMETERS, low=F(-0.5))
    program = pimc.compile(model)
    assert "Clip" in {stay["op_type"] for stay in program.report["placement"]["on_host"]}
    assert program.verify()["equal"]


def test_a_model_that_quantizes_nothing_is_quantized_as_a_whole() -> None:
    model = make(ROWS, "c = Add(x, z) y = LayerNormalization<axis=-1>(c, row)", row=weights(8))
    found = check_model(model)
    assert {value.dtype for value in found.graph.values.values()} == {"s8"}


def test_a_function_of_one_quantized_tensor_is_a_table_of_floats() -> None:
    found = check_island("g = Sigmoid(a) h = Mul(g, a) y = Add(h, b)")
    table, total = found.graph.nodes
    assert isinstance(table, LutNode)
    assert isinstance(total, BinaryNode)
    assert table.table.dtype == np.float32
    assert table.table.shape == (256,)


# ------------------------------------------------------------------ quotients


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.tuples(*[st.sampled_from([np.int8, np.uint8])] * 3),
    zeros=st.tuples(*[st.integers(-128, 127)] * 3),
)
def test_a_quotient_of_integers_is_onnxruntimes_whatever_rounds_to_zero(
    seed: int, kinds: tuple[Any, Any, Any], zeros: tuple[int, int, int]
) -> None:
    """Over zero saturates, zero over zero is the smallest integer."""
    a, b = (integers(2, 3, 64, seed=seed + at, dtype=kinds[at].__name__) for at in (0, 1))
    z = [kind(zero + 128 * (kind is np.uint8)) for kind, zero in zip(kinds, zeros, strict=True)]
    b[0, 0, :4] = z[1]
    a[0, 0, :2] = z[0]
    rng = np.random.default_rng(seed)
    s, t, u = (F(value) for value in 10.0 ** rng.uniform(-3, 1, 3))
    body = """af = DequantizeLinear(a, s, za) bf = DequantizeLinear(b, t, zb) c = Div(af, bf)
              y = QuantizeLinear(c, u, zc)"""
    names = [np.dtype(kind).name for kind in kinds]
    signature = f"({names[0]}[N,3,64] a, {names[1]}[N,3,64] b) => ({names[2]}[N,3,64] y)"
    model = make(signature, body, s=s, t=t, u=u, za=z[0], zb=z[1], zc=z[2])
    found = check_model(model, feeds={"a": a, "b": b}, options=ON_CHIP)
    assert [node.op for node in found.graph.nodes if isinstance(node, BinaryNode)] == ["div"]
    feeds = {"a": a, "b": b}
    assert np.array_equal(run_onnx(model, feeds)["y"], run_onnx(found.reference, feeds)["y"])


def test_a_quotient_in_a_float_network_is_on_the_chip() -> None:
    model = make(ROWS, "e = Sigmoid(z) f = Add(e, one) y = Div(x, f)", one=F(1))
    feeds = random_feeds(model, 8, 0)
    found = pimc.compile(model, calibration=feeds, host=False).verify(feeds)
    assert found["equal"]
    assert found["float_sqnr_db"] > 25


# ------------------------------------------------------------------ a transformer block

BLOCK = """
    q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) qb = Add(q, bq) vb = Add(v, bq)
    qs = Reshape(qb, heads) ks = Reshape(k, heads) vs = Reshape(vb, heads)
    qt = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(ks)
    vt = Transpose<perm=[0,2,1,3]>(vs)
    scores = MatMul(qt, kt) scaled = Div(scores, root) masked = Add(scaled, mask)
    share = Softmax(masked) mixed = MatMul(share, vt) back = Transpose<perm=[0,2,1,3]>(mixed)
    flat = Reshape(back, rows) o = MatMul(flat, wo) ob = Add(o, bq) sum = Add(x, ob)
    mean = ReduceMean<axes=[-1]>(sum) d = Sub(sum, mean) sq = Pow(d, two)
    var = ReduceMean<axes=[-1]>(sq) ve = Add(var, small) dev = Sqrt(ve) n = Div(d, dev)
    ng = Mul(n, gain) n1 = Add(ng, bq)
    h = MatMul(n1, w1) hb = Add(h, b1) hr = Div(hb, sqrt2) er = Erf(hr) e1 = Add(er, one)
    hm = Mul(hb, e1) g = Mul(hm, half) f = MatMul(g, w2) fb = Add(f, bq) s2 = Add(n1, fb)
    y = LayerNormalization<axis=-1>(s2, gain, bq)
"""


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """A few sequences of noise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.feeds = iter([{"x": rng.normal(0, 1, (1, 9, 16)).astype(F)} for _ in range(6)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self.feeds, None)


def block() -> onnx.ModelProto:
    """Attention of two heads and a feed-forward layer, as torch writes them."""
    mask = np.where(np.tri(9), 0, -1e9).astype(F)
    return make(
        "(float[1,9,16] x) => (float[1,9,16] y)", BLOCK, ir=IR_VERSION - 2,
        wq=weights(16, 16), wk=weights(16, 16, seed=1), wv=weights(16, 16, seed=2),
        wo=weights(16, 16, seed=3), w1=weights(16, 32), w2=weights(32, 16), b1=weights(32),
        bq=weights(16), gain=weights(16) + F(1), mask=mask, root=F(8**0.5), sqrt2=F(2**0.5),
        one=F(1), half=F(0.5), two=F(2), small=F(1e-5),
        heads=np.array([1, 9, 2, 8], np.int64), rows=np.array([1, 9, 16], np.int64),
    )  # fmt: skip


def test_a_transformer_block_with_quantized_products_equals_onnxruntime(tmp_path: Path) -> None:
    onnx.save(block(), tmp_path / "block.onnx")
    quantize_static(
        tmp_path / "block.onnx", tmp_path / "quantized.onnx", Reader(),
        op_types_to_quantize=["MatMul"], activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    program = pimc.compile(tmp_path / "quantized.onnx", host=False)
    floats = {t.onnx_name for t in program.program.tensors if t.dtype == "f32"}
    assert len(floats) > 5
    assert sum(len(core.matrices) for core in program.program.cores) >= 6
    rng = np.random.default_rng(2)
    feeds = {"x": rng.normal(0, 1, (8, 9, 16)).astype(F)}
    found = program.verify(feeds)
    assert found["max_abs_diff_lsb"] == 0
    assert all(entry["max_relative_diff"] <= 1e-7 for entry in found["float_layers"])
    assert found["float_sqnr_db"] > 100  # of the user's own quantized model, in float32
    assert found["float_outputs"][0]["max_relative_diff"] < 1e-5
    kinds = {type(i).mnemonic for core in program.program.cores for i in walk(core.body)}
    assert {"fsoftmax", "flayernorm", "add"} <= kinds


def test_no_float_layer_norm_is_needed_where_the_model_quantizes_around_it() -> None:
    body = """c = Add(a, b) q = QuantizeLinear(c, u, v) d = DequantizeLinear(q, u, v)
              n = LayerNormalization<axis=-1>(d, row) r = QuantizeLinear(n, u, v)
              y = DequantizeLinear(r, u, v)"""
    found = check_island(body, row=weights(8), u=F(0.05), v=np.int8(0))
    assert not any(isinstance(node, FloatLayerNormNode) for node in found.graph.nodes)
    assert {value.dtype for value in found.graph.values.values()} <= {"s8", "u8"}
