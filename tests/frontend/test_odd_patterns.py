"""Odd networks of what quantizers, optimizers and exporters write, found by drawing random ones."""

from __future__ import annotations

import numpy as np
import pytest
from frontend.makers import make, weights
from frontend.test_odd_graphs import check

import pimc
from isa.diagnostics import PimError


def test_quantized_weights_that_are_only_joined_are_constants() -> None:
    model = make(
        "(float[N,4] x) => (float[A,B] y)",
        "w = DequantizeLinear<axis=1>(q, s, z) w2 = Concat<axis=1>(w, w) y = MatMul(x, w2)",
        q=np.arange(-12, 8, dtype=np.int8).reshape(4, 5),
        s=np.linspace(0.01, 0.02, 5, dtype=np.float32),
        z=np.zeros(5, np.int8),
    )
    check(model)


def test_integers_of_unknown_shape_that_are_compared_are_refused() -> None:
    """The weights are an output, too, of which the model says no shape."""
    pair = "s, z"
    model = make(
        "(int8[N,1,6,4] x) => (bool[A,B,C,D] y, int8[E,F,G,H] w)",
        f"a = QLinearConv(x, {pair}, w, {pair}, {pair}) y = Equal(a, a)",
        w=np.full((1, 1, 1, 1), 104, np.int8),
        s=0.05,
        z=np.int8(3),
    )
    with pytest.raises(PimError) as refused:
        pimc.compile(model)
    assert {found.code for found in refused.value.diagnostics} <= {"F205", "F211"}


def test_a_shape_that_holds_all_images_behind_a_1_joins_them() -> None:
    """Three images of 15 elements become one of 45, which no single image is."""
    shape = np.array([1, 3, 5, 3])
    check(make("(float[3,3,5,1] x) => (float[A,B,C,D] y)", "y = Reshape(x, s)", s=shape))


def test_an_output_of_whole_numbers_that_are_constants_is_refused() -> None:
    """The host would make them by operators without inputs."""
    model = make(
        "(float[2,3,4,1] x) => (int64[A] t, float[B,C,D,E] y)",
        "s = Shape(x) a = Slice(s, c0, c1) t = Concat<axis=0>(a, c2) y = Expand(x, s)",
        opset=10, c0=np.array([0]), c1=np.array([2]), c2=np.array([1, 1]),
    )  # fmt: skip
    with pytest.raises(PimError, match="F214"):
        pimc.compile(model)


def test_nodes_out_of_order_of_an_unknown_type_are_refused() -> None:
    model = make("(float[N,4] x) => (float[A,4] y)", "a = Relu(x) y = Relu(a)")
    model.graph.node.reverse()
    check(model)
    model.graph.value_info.add(name="a").type.tensor_type.elem_type = 1 << 20
    with pytest.raises(PimError, match="F204"):
        pimc.compile(model)


def test_a_number_of_each_image_is_added_to_one_made_of_all() -> None:
    """The product is over the batch, the addend has no axis but the batch."""
    model = make(
        "(float[N] x) => (float[A] y)",
        "p = MatMul(x, w) y = Sum(p, x, x)",
        w=np.full((1, 1), 0.4, np.float32),
    )
    check(model)


def test_integers_made_of_float_rows_keep_the_scale_that_the_model_gives_them() -> None:
    """The input stays float32 for the host; the output is its integers, without a scale."""
    check(
        make(
            "(float[N,4,3] x) => (uint8[A,B,C] q, uint8[D,E,F] r)",
            "h = GatherElements<axis=2>(x, i) r = QuantizeLinear(h, s, z)"
            " q = QuantizeLinear(x, s, z)",
            i=np.array([[[0, 1], [2, 0], [1, 1], [0, 0]]]),
            s=0.05,
            z=np.uint8(0),
        )
    )


def test_one_image_of_two_is_no_image_of_a_batch() -> None:
    ends = {"b": np.array([-2]), "e": np.array([1]), "a": np.array([0])}
    model = make("(float[2,5,9] x) => (float[A,B,C] y)", "y = Slice(x, b, e, a)", **ends)
    x = np.random.default_rng(0).normal(0, 1, (2, 5, 9)).astype(np.float32)
    program = check(model)
    np.testing.assert_allclose(program.run({"x": x[None]})["y"], x[None, :1], atol=0.05)


def test_a_choice_whose_result_is_always_0_has_a_range() -> None:
    model = make("(float[N,3] x) => (float[A,B] y)", "y = Where(c, x, z)", z=0.0,
                 c=np.zeros((1, 3), bool))  # fmt: skip
    check(model)


def test_integers_that_the_host_moves_keep_their_type() -> None:
    """A part without elements is nothing for the chip."""
    model = make(
        "(uint8[1,4,4,2] x) => (uint8[A,B,C,D] a)", "a, b = Split<axis=2>(x, s)",
        s=np.array([4, 0]),
    )  # fmt: skip
    x = np.arange(32, dtype=np.uint8).reshape(1, 4, 4, 2) * 8
    assert np.array_equal(check(model).run({"x": x})["a"], x)


def test_a_choice_by_a_test_of_itself_is_a_table_into_floats() -> None:
    model = make(
        "(float[N,6] x) => (float[A,B] y)",
        "a = QuantizeLinear(x, s, z) r = DequantizeLinear(a, s, z)"
        " c = Greater(r, low) y = Where(c, r, low)",
        s=0.05,
        z=np.int8(0),
        low=0.0,
    )
    check(model)


@pytest.mark.parametrize("mode", ["SAME_LOWER", "SAME_UPPER"])
def test_same_pads_of_a_transposed_convolution_leave_no_room_for_output_padding(mode: str) -> None:
    model = make(
        "(float[N,2,6,3] x) => (float[A,B,C,D] y)",
        f'y = ConvTranspose<auto_pad="{mode}", strides=[3,2], output_padding=[2,1]>(x, w)',
        w=weights(2, 2, 3, 3),
    )
    program = check(model)
    assert program.run({"x": np.zeros((1, 2, 6, 3), np.float32)})["y"].shape == (1, 2, 18, 6)


def test_truth_values_that_are_moved_for_several_readers_are_moved_by_name() -> None:
    """Each reader gets a movement of its own."""
    ends = {"b": np.array([1]), "e": np.array([4]), "a": np.array([2])}
    model = make(
        "(bool[N,4,7] x) => (bool[A,B,C] y, float[D,E,F] z)",
        "s = Slice(x, b, e, a) y = Or(s, t) f = Cast<to=1>(s) z = Mul(f, half)",
        t=np.array([[[False], [True], [False], [False]]]),
        half=0.5,
        **ends,
    )
    check(model)


def test_a_mask_without_elements_masks_nothing() -> None:
    model = make(
        "(float[1,4] x) => (float[A,B] z, float[C,D] y)",
        "n, z = Split<axis=1>(x, s) a = Add(n, m) y = Softmax<axis=-1>(a)",
        s=np.array([0, 4]),
        m=np.zeros((1, 0), np.float32),
    )
    with pytest.raises(PimError) as refused:  # an output without elements
        pimc.compile(model)
    assert {found.code for found in refused.value.diagnostics} <= {"F205", "F211"}
