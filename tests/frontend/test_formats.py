"""Networks in the forms that converters and quantizers write: other floats, 4 bits, tables."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from frontend.makers import integers, make, weights
from frontend.oracle import check_model, run_onnx
from onnx import TensorProto, helper, numpy_helper

import pimc
from isa.diagnostics import PimError
from passes.graph import LookupNode, MatrixNode
from pimc.frontend.build import import_model
from pimc.frontend.load import load_model

F = np.float32
WIDTHS = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "bfloat16": ml_dtypes.bfloat16,
}


def _network() -> onnx.ModelProto:
    """A convolution, a table, constants that clip and scale, and a product."""
    return make(
        "(float[N,3,6,6] x) => (float[N,5] y)",
        """c = Conv<pads=[1,1,1,1]>(x, w, b)
           s = Sigmoid(c)
           t = Mul(c, s)
           u = Clip(t, low, high)
           f = Flatten(u)
           z = Constant<value = float[1] {0.5}>()
           g = Mul(f, z)
           y = Gemm(g, v)""",
        opset=21, w=weights(4, 3, 3, 3), b=weights(4), low=F(-1), high=F(2), v=weights(144, 5),
    )  # fmt: skip


def _retyped(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """A float32 model with ports and constants of another type, as converters write it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = [a.t for node in copy.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in (*copy.graph.initializer, *constants):
        values = numpy_helper.to_array(tensor).astype(WIDTHS[kind])
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(WIDTHS[kind]))
    return copy


@pytest.mark.parametrize("kind", ["float16", "double", "bfloat16"])
def test_a_network_in_other_floats_is_read_as_float32(kind: str) -> None:
    model = _retyped(_network(), kind)
    exact = _retyped(model, "float")  # the same numbers in float32
    samples = weights(6, 3, 6, 6, scale=1.0).astype(WIDTHS[kind])
    program = pimc.compile(model, calibration={"x": samples})
    twin = pimc.compile(exact, calibration={"x": samples.astype(F)})
    assert [w["code"] for w in program.report["warnings"]] == ["F226"]
    assert f"computes in {kind}" in program.report["warnings"][0]["message"]
    assert twin.report["warnings"] == []
    result, expected = program.run({"x": samples})["y"], twin.run({"x": samples.astype(F)})["y"]
    assert result.dtype == (F if kind == "bfloat16" else WIDTHS[kind])
    np.testing.assert_array_equal(result, expected.astype(result.dtype))
    found = program.verify({"x": samples})
    assert found["equal"]
    assert found["float_sqnr_db"] > 30
    if kind == "float16":
        theirs = run_onnx(model, {"x": samples})["y"].astype(F)
        ours = run_onnx(exact, {"x": samples.astype(F)})["y"]
        assert np.abs(theirs - ours).max() <= 2**-9 * np.abs(ours).max()
    else:  # onnxruntime has no such convolution
        assert f"cannot run it in {kind}, so that is float32" in found["float_error"]


def test_sizes_that_an_exporter_computes_in_double_stay_right() -> None:
    model = make(
        "(float[N,2,100,4] x) => (float[N,2,M,4] y)",
        """s = Shape<start=2, end=3>(x)
           d = Cast<to=11>(s)
           p = Mul(d, f)
           e = Cast<to=7>(p)
           y = Slice(x, zero, e, axis)""",
        zero=np.array([0]), axis=np.array([2]),
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.29), "f"))
    found = import_model(model, {"x": weights(2, 2, 100, 4)})
    assert found.graph.values[found.graph.outputs[0]].onnx_shape[-2] == 28  # float32 says 29
    assert [w.code for w in found.warnings] == []


def test_doubles_beyond_float32_become_its_largest_number() -> None:
    model = make("(double[N,4] x) => (double[N,4] y)", "m = Max(x, low) y = Relu(m)")
    low = numpy_helper.from_array(np.full(4, np.finfo(np.float64).min), "low")
    model.graph.initializer.append(low)
    check_model(model, feeds={"x": weights(5, 4)})


def test_casts_at_the_end_of_the_file_are_sorted() -> None:
    model = make("(float[N,4] x) => (float[N,4] y)", "a = Relu(x) b = Neg(a) y = Relu(b)")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [node.output[0] for node in load_model(model).graph.node] == ["a", "b", "y"]


def test_a_circle_is_not_sorted() -> None:
    model = make("(float[N,4] x) => (float[N,4] y)", "y = Relu(x)")
    model.graph.node.append(helper.make_node("Add", ["x", "b"], ["a"], "one"))
    model.graph.node.append(helper.make_node("Neg", ["a"], ["b"], "two"))
    with pytest.raises(PimError, match="topologically sorted"):
        load_model(model)


@pytest.mark.parametrize("kind", ["int4", "uint4"])
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_weights_of_four_bits_keep_their_integers(kind: str, domain: str) -> None:
    low = -8 if kind == "int4" else 0
    values = (integers(12, 6).astype(np.int64) % 16 + low).astype(getattr(ml_dtypes, kind))
    model = make(
        "(float[N,12] x) => (float[N,6] y)",
        """q = QuantizeLinear(x, xs, xz)
           d = DequantizeLinear(q, xs, xz)
           w = DequantizeLinear<axis=1>(v, ws, wz)
           y = MatMul(d, w)""",
        opset=21, xs=F(0.02), xz=np.int8(3), v=values, ws=np.abs(weights(6)) + F(0.01),
        wz=np.full(6, low + 7, getattr(ml_dtypes, kind)),
    )  # fmt: skip
    model.graph.node[2].domain = domain
    found = import_model(model, {"x": weights(8, 12, scale=1.0)})
    node = next(n for n in found.graph.nodes if isinstance(n, MatrixNode))
    expected = (values.astype(np.int64) - low - 7).T.reshape(node.weights.shape)
    np.testing.assert_array_equal(node.weights, expected)


def _table(body: str, **constants: Any) -> onnx.ModelProto:
    return make(
        "(int64[N,5] t) => (float[N,5,8] y)", body, opset=21, values=integers(20, 8),
        s=F(0.03), z=np.int8(4), w=weights(8, 8), **constants,
    )  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        "e = DequantizeLinear(values, s, z) r = Gather(e, t) y = MatMul(r, w)",
        "q = Gather(values, t) r = DequantizeLinear(q, s, z) y = MatMul(r, w)",
        """q = Gather(values, t) m = Transpose<perm=[0,2,1]>(q) u = Transpose<perm=[0,2,1]>(m)
           r = DequantizeLinear(u, s, z) y = MatMul(r, w)""",
        """q = Gather(values, t) r = com.microsoft.QLinearAdd(q, s, z, q, s, z, s, z)
           d = DequantizeLinear(r, s, z) y = MatMul(d, w)""",
    ],
)
def test_rows_of_a_quantized_table_are_its_integers(body: str) -> None:
    model = _table(body)
    tokens = np.random.default_rng(0).integers(0, 20, (6, 5))
    found = check_model(model, feeds={"t": tokens})
    node = next(n for n in found.graph.nodes if isinstance(n, LookupNode))
    np.testing.assert_array_equal(node.table, integers(20, 8))
    assert found.on_host == ()


def test_quantized_constants_that_are_moved_by_constants_are_folded() -> None:
    model = _table(
        """e = DequantizeLinear(values, s, z) p = Slice(e, a, b) k = Concat<axis=0>(p, p)
           r = Gather(k, t) y = MatMul(r, w)""",
        a=np.array([2]), b=np.array([18]),
    )  # fmt: skip
    tokens = np.random.default_rng(0).integers(0, 20, (6, 5))
    found = check_model(model, feeds={"t": tokens})
    assert found.on_host == ()


def test_the_product_of_two_quantized_tensors_is_on_the_chip() -> None:
    model = make(
        "(float[N,4,6] x) => (float[N,4,4] y)",
        """q = QuantizeLinear(x, s, z)
           t = Transpose<perm=[0,2,1]>(q)
           p = QLinearMatMul(q, s, z, t, s, z, u, z)
           y = DequantizeLinear(p, u, z)""",
        s=F(0.02), z=np.uint8(120), u=F(0.1),
    )  # fmt: skip
    found = check_model(model, feeds={"x": weights(5, 4, 6, scale=1.0)})
    assert found.on_host == ()


@pytest.mark.parametrize("kind", ["int16", "uint16", "uint32", "int32", "uint64", "int64", "bool"])
def test_whole_numbers_enter_and_leave_in_their_own_type(kind: str) -> None:
    own = TensorProto.DataType.Value(kind.upper())
    model = make(
        f"({kind}[N,4] x) => (float[N,3] y, {kind}[N,4] z)",
        f"c = Cast<to=1>(x) y = MatMul(c, w) z = Cast<to={own}>(c)",
        w=weights(4, 3),
    )
    values = np.random.default_rng(0).integers(0, 2, (6, 4)).astype(kind)
    program = pimc.compile(model, calibration={"x": values})
    assert program.verify({"x": values})["equal"]
    found = program.run({"x": values})
    assert {name: array.dtype.name for name, array in found.items()} == {"y": "float32", "z": kind}
    np.testing.assert_array_equal(found["z"], values)
    assert program.report["placement"]["mac_share"]["crossbars"] == 1


@pytest.mark.parametrize("kind", ["uint16", "int16"])
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_activations_of_16_bits_are_held_in_8_over_the_same_range(kind: str, domain: str) -> None:
    zero = 30000 if kind == "uint16" else -2768
    model = make(
        "(float[N,4,6] x) => (float[N,6,3] y)",
        """q = QuantizeLinear(x, s, z) t = Transpose<perm=[0,2,1]>(q)
           d = DequantizeLinear(t, s, z) y = MatMul(d, w)""",
        opset=21, s=F(0.0001), z=np.array(zero, kind), w=weights(4, 3),
    )  # fmt: skip
    for node in model.graph.node:
        if node.op_type.endswith("Linear"):
            node.domain = domain
    found = check_model(model)
    assert found.warnings[0].code == "F229"
    assert found.on_host == ()
    value = found.graph.values[found.graph.inputs[0]]
    assert value.scale == F(0.0001) * F(257)
    assert value.dtype == ("u8" if kind == "uint16" else "s8")
    low = (np.iinfo("uint8" if kind == "uint16" else "int8").min - value.zero) * value.scale
    assert abs(low - (np.iinfo(kind).min - zero) * 0.0001) <= value.scale / 2


def test_16_bits_that_somebody_computes_with_stay() -> None:
    model = make(
        "(float[N,4] x) => (float[N,4] y)",
        """q = QuantizeLinear(x, s, z) c = Cast<to=6>(q) a = Add(c, c) f = Cast<to=1>(a)
           d = DequantizeLinear(q, s, z) y = Add(f, d)""",
        opset=21, s=F(0.001), z=np.uint16(30000),
    )  # fmt: skip
    found = import_model(model, {"x": weights(5, 4)})
    assert "F229" not in [warning.code for warning in found.warnings]
    assert {stay.op_type for stay in found.on_host} >= {"QuantizeLinear", "DequantizeLinear"}


def test_weights_with_scales_for_blocks_are_taken_as_floats_and_said_to_be() -> None:
    model = make(
        "(float[N,8] x) => (float[N,6] y)",
        "w = DequantizeLinear<axis=0, block_size=4>(v, s) y = MatMul(x, w)", opset=21,
        v=integers(8, 6), s=np.abs(weights(2, 6)) + F(0.01),
    )  # fmt: skip
    found = check_model(model)
    (warning,) = found.warnings
    assert warning.code == "F224"
    assert "1 constants such as `v`" in warning.message


def test_multiplications_on_the_host_count_in_any_domain() -> None:
    model = make(
        "(uint8[1,3,6,6] x, uint8[4,3,3,3] w) => (int32[1,4,4,4] y)", "y = ConvInteger(x, w)",
        opset=17,
    )  # fmt: skip
    stays = import_model(model).on_host
    assert {stay.op_type: stay.macs for stay in stays}["ConvInteger"] == 4 * 4 * 4 * 27
