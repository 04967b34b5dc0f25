"""Odd networks, found by drawing random ones: each compiles, and is what the user's model is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights

import pimc
from isa.diagnostics import PimError
from pimc.frontend.build import FrontendOptions, import_model

F = np.float32
S8, U8 = np.int8(3), np.uint8(3)


def check(model: onnx.ModelProto, sqnr_db: float = 20.0) -> pimc.CompiledProgram:
    """The program of a model: equal to its reference, and near to the model as it was given."""
    program = pimc.compile(model)
    found = program.verify()
    assert found["equal"], found
    assert "float_error" not in found
    for output in found["float_outputs"]:
        assert output["sqnr_db"] is None or output["sqnr_db"] >= sqnr_db, output
    return program


def test_a_partition_without_inputs_gives_its_result_for_every_image() -> None:
    model = make(
        "(int32[3,2] x) => (bool[A,B,C] b, int64 n)",
        "a = Gather(t, x) b = IsNaN(a) n = Size(b)",
        t=weights(4, 2),
    )
    found = check(model).run({"x": np.zeros((5, 3, 2), np.int32)})
    assert np.array_equal(found["n"], np.full(5, 12))


def test_numbers_may_be_read_by_the_host_and_pick_rows_on_the_chip() -> None:
    check(
        make(
            "(int32[2] x) => (int32[A,B] y, float[A,C] z)",
            "y = Flatten<axis=1>(x) z = Gather(t, x)",
            t=weights(4, 6),
        )
    )


def test_a_softmax_over_the_batch_stays_on_the_host() -> None:
    model = make("(float[1,3,4,4] x) => (float[A,B,C,D] y)", "c = Relu(x) y = Softmax<axis=0>(c)")
    assert check(model).report["placement"]["on_host"][0]["op_type"] == "Softmax"


def test_a_tensor_that_is_joined_twice_is_quantized_once() -> None:
    check(
        make(
            "(float[N,2,3] x, float[N,2,3] z) => (float[N,A,B] y)",
            "a = Sigmoid(x) y = Concat<axis=1>(a, z, a, z)",
        )
    )


def test_inputs_of_different_leading_sizes_have_no_batch_in_common() -> None:
    check(make("(float[1,4] x, float[3,3] z) => (float[A,B] y)", "y = Add(x, x)"))


def test_wanted_shapes_of_different_leading_sizes_have_no_batch_in_common() -> None:
    model = make("(float[N,4] x, float[M,4] z) => (float[A,B] y)",
                 "t = Transpose<perm=[1,0]>(z) y = MatMul(x, t)")  # fmt: skip
    options = FrontendOptions(input_shapes={"x": (1, 4), "z": (3, 4)})
    found = import_model(model, options=options)
    assert [found.graph.values[name].onnx_shape for name in ("x", "z")] == [(4,), (3, 4)]


def test_only_a_model_that_runs_at_batch_one_is_cut_into_images() -> None:
    model = make(
        "(float[3,4] x) => (bool[A,B,C] y)",
        "a = Reshape(x, s) y = Greater(a, zero)",
        s=np.array([3, 2, 2]),
        zero=F(0),
    )
    check(model)


@pytest.mark.parametrize(
    "body",
    [
        "q = QuantizeLinear(x, s, z) i = Cast<to=6>(q) y = Cast<to=1>(i)",
        "q = QuantizeLinear(x, s, z) b = Add(q, q) y = Cast<to=1>(b)",
        "q = QuantizeLinear(x, s, z) b = Concat<axis=1>(q, c) y = DequantizeLinear(b, s, z)",
        "q = QuantizeLinear(x, s, z) b = Pad(q, p) y = DequantizeLinear(b, s, z)",
        "q = QuantizeLinear(x, s, z) b = Pad(q, p, c0) y = DequantizeLinear(b, s, z)",
        "q = QuantizeLinear(x, s, z) r = Relu(q) y = DequantizeLinear(r, s, z)",
        "q = QuantizeLinear(x, s, z) m = Min(q, c0) y = DequantizeLinear(m, s, z)",
        "h = Cast<to=3>(x) y = DequantizeLinear(h, s, z)",
        "h = Cast<to=3>(x) v = DequantizeLinear(h, s, z) y = MatMul(v, w)",
    ],
)
def test_integers_of_a_model_keep_their_meaning(body: str) -> None:
    """8-bit tensors are whole numbers to operators that compute with them."""
    model = make(
        "(float[1,4] x) => (float[A,B] y)", body, s=F(0.05), z=S8, w=weights(4, 3),
        c=np.array([[-100, 0, 90]], np.int8), c0=np.int8(-7), p=np.array([0, 1, 0, 2]),
    )  # fmt: skip
    check(model)


def test_a_constant_beside_any_number_of_images() -> None:
    check(make("(float[1,4] x) => (float[A,B] y)", "y = Concat<axis=1>(x, c)", c=weights(1, 3)))


def test_two_names_of_one_tensor_go_to_the_host_by_two_ways() -> None:
    check(
        make(
            "(float[2] x) => (float[2] y, float[2] z)",
            "a = Sigmoid(x) b = Tile(a, one) y = Pow(b, a) z = Add(y, x)",
            one=np.array([1]),
        )
    )


def test_a_sum_of_one_tensor_is_that_tensor_whoever_reads_it() -> None:
    check(
        make(
            "(float[N,4] x) => (float[N,4] y, float[N,4] w)",
            "a = Sum(x) b = Max(a) c = Min(b) y = Relu(c) q = QuantizeLinear(b, s, z) "
            "w = DequantizeLinear(q, s, z)",
            s=F(0.05),
            z=S8,
        )
    )


def test_a_constant_over_the_batch_is_no_operand_of_the_chip() -> None:
    model = make("(float[1,5] x) => (float[A,5] y)", "a = Relu(x) y = Add(a, c)", c=weights(6, 5))
    assert check(model).report["placement"]["on_host"][0]["op_type"] == "Add"


def test_whole_numbers_are_reduced_on_the_host() -> None:
    check(
        make(
            "(int64[N,3,4] x) => (int64[N,C] y, float[N,3,4] z)",
            "y = ReduceMean<axes=[2], keepdims=0>(x) z = Cast<to=1>(x)",
        )
    )


@pytest.mark.parametrize("op", ["Split<axis=0>(t, parts)", "Split<axis=1>(t, halves)"])
def test_bytes_without_a_scale_are_moved_anywhere(op: str) -> None:
    model = make(
        "(int8[2,3,4] x) => (int8[A,B,C] y)", f"t = Transpose<perm=[0,2,1]>(x) y, z = {op}",
        parts=np.array([1, 1]), halves=np.array([2, 2]),
    )  # fmt: skip
    check(model)


def test_moved_integers_and_those_they_were_moved_from_are_read_differently() -> None:
    check(
        make(
            "(int8[N,4,2] x) => (float[N,2,4] y, float[N,4,2] z)",
            "t = Transpose<perm=[0,2,1]>(x) y = DequantizeLinear(t, a, o) "
            "z = DequantizeLinear(x, b, o)",
            a=F(0.2),
            b=F(0.1),
            o=S8,
        )
    )


def test_interpolated_bytes_are_cut_as_the_host_cuts_them() -> None:
    mode = 'mode="linear", coordinate_transformation_mode="asymmetric"'
    model = make(
        "(int8[1,1,4,4] x) => (int8[A,B,C,D] y)", f"y = Resize<{mode}>(x, , scales)",
        scales=np.array([1, 1, 2, 2], F),
    )  # fmt: skip
    check(model)


@pytest.mark.parametrize("op", ["Mul(r, c)", "Sub(c, r)", "Div(r, c)", "Max(r, c)", "Pow(r, two)"])
def test_a_constant_may_be_wider_than_the_tensor(op: str) -> None:
    model = make(
        "(float[N,2,3,1] x) => (float[A,B,C,D] y)", f"r = Relu(x) y = {op}",
        c=np.array([0.5, 1, 1.5, 2]), two=np.array([[2, 2, 2, 2]], F),
    )  # fmt: skip
    assert check(model).report["placement"]["on_host"] == []


def test_a_convolution_of_no_channels_is_refused_and_not_tried() -> None:
    """onnxruntime would never come back from it."""
    model = make(
        "(float[1,2,4,8] x) => (float[A,B,C,D] y)", "a = Slice(x, z, z, one) y = Conv(a, w)",
        z=np.array([0]), one=np.array([1]), w=np.zeros((3, 0, 1, 1)),
    )  # fmt: skip
    with pytest.raises(PimError, match="has no elements"):
        pimc.compile(model)


def test_a_product_with_a_bias_may_stay_on_the_host() -> None:
    model = make(
        "(float[1,2] x) => (float[A,B] y, float[1,2] z)",
        "z = Relu(x) a = Slice(x, none, none, one) m = MatMul(a, w) y = Add(m, c)",
        none=np.array([0]), one=np.array([1]), w=np.zeros((0, 5)), c=weights(5),
    )  # fmt: skip
    assert np.array_equal(check(model).run({"x": np.ones((1, 2), F)})["y"][0], weights(5))


def test_a_cut_through_the_batch_that_leaves_nothing_is_refused() -> None:
    """Of one image the slice is all there is."""
    model = make(
        "(float[N] x) => (float[A] y)",
        "a = Sigmoid(x) y = Slice(a, last, one, zero, one)",
        last=np.array([-1]), one=np.array([1]), zero=np.array([0]),
    )  # fmt: skip
    with pytest.raises(PimError, match=r"F205.*batch do not stay apart"):
        pimc.compile(model)


def test_sums_of_bytes_wrap() -> None:
    model = make("(uint8[N,6] x) => (uint8[N,6] y)", "y = Add(x, x)")
    x = np.arange(252, dtype=np.uint8).reshape(-1, 6)
    assert np.array_equal(check(model).run({"x": x})["y"], x + x)


def test_a_quantized_layer_of_integers_from_the_host() -> None:
    model = make(
        "(int32[N,2,5,7] x) => (uint8[N,2,5,7] y)",
        "q = Cast<to=2>(x) y = QLinearConv(q, s, z, w, t, o, s, z)",
        s=F(0.05), z=U8, t=F(0.02), o=np.int8(0), w=np.array([[[[7]], [[-40]]]] * 2, np.int8),
    )  # fmt: skip
    check(model)


def test_what_the_model_rounds_is_rounded_on_the_host_too() -> None:
    """Steps of 1/2 between two sorts: the first one is rounded, although all is on the host."""
    model = make(
        "(float[N,4] x) => (float[N,4] y)",
        "a, i = TopK(x, k) q = QuantizeLinear(a, s, z) r = DequantizeLinear(q, s, z) "
        "y, j = TopK(r, k)",
        k=np.array([4]), s=F(0.5), z=S8,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(F)
    y = check(model).run({"x": x})["y"]
    assert np.array_equal(y * 2, np.rint(y * 2))


def test_integers_that_the_host_makes_are_an_output_beside_their_floats() -> None:
    check(
        make(
            "(float[N,3,4,4] x) => (int8[A,B,C] q, float[A,B,C] y)",
            "a = ReduceMax<axes=[0], keepdims=0>(x) q = QuantizeLinear(a, s, z) "
            "y = DequantizeLinear(q, s, z)",
            opset=13,
            s=F(0.05),
            z=S8,
        )
    )


def test_integers_read_in_two_ways() -> None:
    check(
        make(
            "(float[N,4] x) => (float[N,4] y, float[N,4] z)",
            "a = Sigmoid(x) q = QuantizeLinear(a, s, o) y = DequantizeLinear(q, s, o) "
            "z = Cast<to=1>(q)",
            s=F(0.01),
            o=np.int8(100),
        )
    )


def test_a_tensor_is_not_rounded_for_those_who_read_it_before_its_quantization() -> None:
    """Scale 0.001 saturates the quantized way; the other one keeps its range."""
    check(
        make(
            "(float[N,4] x) => (float[N,4] y, float[N,4] z)",
            "a = Tanh(x) q = QuantizeLinear(a, s, o) y = DequantizeLinear(q, s, o) z = Neg(a)",
            s=F(0.001),
            o=S8,
        )
    )


@pytest.mark.parametrize("move", ["Unsqueeze(a, one)", "Squeeze(a, front)", "Reshape(a, flat)"])
def test_an_output_may_be_what_the_host_made_in_another_shape(move: str) -> None:
    check(
        make(
            "(float[1,3,4] x) => (float[A,B,C] a, float[D,E] y)",
            f"a = Hardmax<axis=2>(x) y = {move}",
            k=np.array(1),
            one=np.array([1]),
            front=np.array([0]),
            flat=np.array([1, 12]),
        )
    )


def test_integers_of_what_the_host_leaves_as_floats_are_an_output_beside_them() -> None:
    check(
        make(
            "(float[N,4] x) => (int8[A,B] q, float[A,B] y)",
            "a, i = TopK(x, k) q = QuantizeLinear(a, s, z) y = Clip(a, low, high)",
            k=np.array([4]),
            s=F(0.05),
            z=np.int8(3),
            low=0.1,
            high=0.9,
        )
    )
