"""Inputs, outputs, batches, unused parts: the shape of a model around its operators."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights
from frontend.oracle import check_model, differences, random_feeds, run_onnx

from passes.graph import LutNode, MatrixNode, MoveNode
from pimc.frontend.build import FrontendOptions, Imported, import_model

TWO = "(float[N,6] a, float[N,6] b) => (float[N,4] s, float[N,4] d)"


def outputs_of(found: Imported, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return run_onnx(found.reference, feeds)


def test_two_inputs_and_two_outputs_keep_their_names_and_order() -> None:
    body = "p = MatMul(a, w) q = MatMul(b, w) s = Add(p, q) d = Sub(p, q)"
    found = check_model(make(TWO, body, w=weights(6, 4)))
    assert found.graph.inputs == ("a", "b")
    assert found.graph.outputs == ("s", "d")
    assert [value.name for value in found.reference.graph.input] == ["a", "b"]
    assert [value.name for value in found.reference.graph.output] == ["s", "d"]


def test_an_output_that_is_also_an_inner_tensor() -> None:
    body = "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)"
    signature = "(float[N,6] x) => (float[N,5] y, float[N,5] r, float[N,5] h)"
    found = check_model(make(signature, body, w=weights(6, 5), v=weights(5, 5)))
    assert set(found.graph.outputs) == {"y", "r", "h"}
    assert [type(node) for node in found.graph.nodes] == [MatrixNode, LutNode, MatrixNode]


def test_an_output_that_is_directly_an_input() -> None:
    model = make("(float[N,6] x) => (float[N,6] y, float[N,4] z)",
                 "y = Identity(x) z = MatMul(x, w)", w=weights(6, 4))  # fmt: skip
    found = check_model(model)
    assert found.graph.inputs == ("x",)
    assert found.graph.outputs == ("y", "z")
    assert any(isinstance(node, MoveNode) and node.output == "y" for node in found.graph.nodes)


def test_one_tensor_that_is_output_twice() -> None:
    signature = "(float[N,6] x) => (float[N,4] y, float[N,4] z)"
    found = check_model(make(signature, "h = MatMul(x, w) y = Relu(h) z = Identity(y)",
                             w=weights(6, 4)))  # fmt: skip
    assert found.graph.outputs == ("y", "z")


def test_an_output_in_another_layout_is_described_as_such() -> None:
    signature = "(float[N,4,5,3] x) => (float[N,5,3,6] y)"
    body = "c = Conv(x, w) y = Transpose<perm=[0,2,3,1]>(c)"
    found = check_model(make(signature, body, w=weights(6, 4, 1, 1)))
    value = found.graph.values["y"]
    assert [type(node) for node in found.graph.nodes] == [MatrixNode]
    assert (value.onnx_shape, value.order, value.shape) == ((5, 3, 6), (0, 1, 2), (5, 3, 6))


def test_a_scalar_output() -> None:
    body = "g = GlobalAveragePool(x) c = Conv(g, w) y = Reshape(c, shape)"
    model = make("(float[N,4,5,3] x) => (float[N] y)", body, w=weights(1, 4, 1, 1),
                 shape=np.array([-1]))  # fmt: skip
    found = check_model(model)
    assert found.graph.values["y"].shape == (1, 1, 1)
    assert found.graph.values["y"].onnx_shape == ()


def test_a_vector_without_batch_axis() -> None:
    model = make("(float[6] x) => (float[4] y)", "h = MatMul(x, w) y = Add(h, b)",
                 w=weights(6, 4), b=weights(4))  # fmt: skip
    feeds = {"x": weights(1, 6)}
    found = import_model(model, feeds)
    assert not found.graph.values["x"].batched
    assert all(d.largest == 0 for d in differences(found, {"x": feeds["x"][0]}).values())


@pytest.mark.parametrize("first", ["mixed", "a"])
def test_a_batch_that_was_moved_away_meets_one_that_was_not(first: str) -> None:
    second = {"mixed": "a", "a": "mixed"}[first]
    body = f"""swapped = Transpose<perm=[1,0,2]>(x) h = MatMul(swapped, w)
               mixed = Transpose<perm=[1,2,0]>(h) a = Transpose<perm=[0,2,1]>(x)
               s = Sub({first}, {second}) y = Conv(s, v)"""
    signature = "(float[N,5,6] x) => (float[1,4,5] y)"
    check_model(make(signature, body, w=weights(6, 6), v=weights(4, 6, 1)), images=1)


def test_unused_nodes_inputs_and_outputs_disappear() -> None:
    body = "y = MatMul(x, w) u = Relu(y) v = Exp(u) t, s = Split<axis=1>(x, parts) z = Relu(t)"
    model = make("(float[N,6] x) => (float[N,4] y, float[N,2] z)", body, w=weights(6, 4),
                 parts=np.array([2, 4]))  # fmt: skip
    found = check_model(model)
    assert {node.output for node in found.graph.nodes} <= {"y", "z", "t"}


@pytest.mark.parametrize("batch", ["N", "1", "5", ""])
def test_any_leading_batch_is_an_outer_loop(batch: str) -> None:
    body = """c = Conv(x, w) p = MaxPool<kernel_shape=[2,2]>(c) f = Flatten(p) y = Gemm(f, v)"""
    model = make(f"(float[{batch or -1},4,5,3] x) => (float[M,6] y)", body, w=weights(5, 4, 2, 2),
                 v=weights(15, 6))  # fmt: skip
    found = check_model(model, images=5 if batch == "5" else 3)
    assert all(value.batched for value in found.graph.values.values())
    assert found.graph.values["x"].shape == (5, 3, 4)


def test_a_batched_reference_equals_one_run_for_each_image() -> None:
    body = """t = Transpose<perm=[0,2,1]>(x) m = MatMul(t, w) a = Add(m, b) r = Relu(a)
              u = Transpose<perm=[0,2,1]>(r) f = Reshape(u, shape) y = Gemm(f, v)"""
    model = make(
        "(float[N,6,5] x) => (float[N,3] y)", body, w=weights(6, 4), b=weights(4),
        shape=np.array([0, 20]), v=weights(20, 3),
    )  # fmt: skip
    found = check_model(model)
    feeds = random_feeds(model, 4, 7)
    whole = outputs_of(found, feeds)["y"]
    for at in range(4):
        alone = outputs_of(found, {"x": feeds["x"][at : at + 1]})["y"]
        assert np.array_equal(alone[0], whole[at])


def test_a_fixed_leading_axis_that_is_no_batch_stays_one() -> None:
    """Rows that mix are not images, whatever their number."""
    body = "t = Transpose(x) h = MatMul(t, w) r = Relu(h) y = Transpose(r)"
    model = make("(float[4,6] x) => (float[5,6] y)", body, w=weights(4, 5))
    feeds = {"x": weights(1, 4, 6)}
    found = import_model(model, feeds)
    assert not found.graph.values["x"].batched
    assert all(d.largest == 0 for d in differences(found, {"x": feeds["x"][0]}).values())


def test_a_batch_that_moves_to_another_axis_is_run_one_by_one() -> None:
    body = "m = MatMul(x, w) y = Transpose<perm=[1,0,2]>(m)"
    model = make("(float[N,5,6] x) => (float[5,N,4] y)", body, w=weights(6, 4))
    feeds = random_feeds(model, 1, 0)
    found = check_model(model, feeds=feeds)
    assert not found.graph.values["y"].batched


def test_shapes_for_dynamic_axes_are_taken_from_the_options() -> None:
    model = make("(float[N,4,H,W] x) => (float[N,3,A,B] y)", "y = Conv(x, w)",
                 w=weights(3, 4, 3, 3))  # fmt: skip
    options = FrontendOptions(input_shapes={"x": (1, 4, 8, 6)})
    feeds = {"x": weights(3, 4, 8, 6)}
    found = check_model(model, feeds=feeds, options=options)
    assert found.graph.values["y"].shape == (6, 4, 3)


def test_shape_arithmetic_vanishes() -> None:
    body = """s = Shape(x) n = Gather(s, zero) u = Unsqueeze(n, axes) k = Concat<axis=0>(u, rest)
              r = Reshape(x, k) y = MatMul(r, w)"""
    model = make("(float[N,4,6] x) => (float[N,5] y)", body, zero=np.array(0),
                 axes=np.array([0]), rest=np.array([24]), w=weights(24, 5))  # fmt: skip
    found = check_model(model)
    assert [type(node) for node in found.graph.nodes] == [MatrixNode]


def test_names_that_collide_with_those_of_the_reference() -> None:
    body = "x_quantized = MatMul(x, w) x_scale = Relu(x_quantized) y = MatMul(x_scale, w)"
    check_model(make("(float[N,5] x) => (float[N,5] y)", body, w=weights(5, 5)))


def test_every_value_names_a_tensor_of_the_reference() -> None:
    body = "h = MatMul(x, w) s = Sigmoid(h) m = Mul(s, h) y = Concat<axis=1>(m, x)"
    found = check_model(make("(float[N,5] x) => (float[N,10] y)", body, w=weights(5, 5)))
    declared = {value.name for value in found.reference.graph.value_info}
    assert {value.onnx_name for value in found.graph.values.values()} <= declared
    onnx.checker.check_model(found.reference)


def test_the_model_itself_is_never_changed() -> None:
    model = make(TWO, "p = MatMul(a, w) q = MatMul(b, w) s = Add(p, q) d = Sub(p, q)",
                 opset=13, w=weights(6, 4))  # fmt: skip
    before = model.SerializeToString()
    found = import_model(model, random_feeds(model, 2, 0))
    assert model.SerializeToString() == before
    assert found.float_model.SerializeToString() == before


def test_a_slice_of_the_batch_is_no_slice_of_an_image() -> None:
    body = "y = Slice(x, first, last, axes)"
    constants = {
        name: np.array(values) for name, values in
        {"first": [0], "last": [3], "axes": [0]}.items()
    }  # fmt: skip
    fixed = make("(float[20,10,5] x) => (float[3,10,5] y)", body, **constants)
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 20, 10, 5)).astype(np.float32)}
    assert import_model(fixed, feeds).graph.values["y"].onnx_shape == (3, 10, 5)


def test_windows_that_mix_the_batch_may_be_added_to_what_did_not() -> None:
    body = (
        "w = Reshape(x, windows) a = MatMul(w, m) f = Relu(a) b = Reshape(f, whole) "
        "s = Add(x, b) t = Sub(b, x) y = Concat<axis=3>(s, t)"
    )
    constants = {
        "windows": np.array([-1, 4, 5]),
        "whole": np.array([-1, 4, 4, 5]),
        "m": weights(5, 5),
    }
    check_model(make("(float[1,4,4,5] x) => (float[1,4,4,10] y)", body, **constants), images=1)


@pytest.mark.parametrize("body", ["y = Flatten<axis=0>(r)", "y = Reshape(r, all)"])
def test_a_fixed_batch_that_is_flattened_into_one_row_is_no_batch(body: str) -> None:
    all_in_one = np.array([1, -1], np.int64)
    model = make("(float[2,3,4] x) => (float[1,24] y)", f"r = Relu(x) {body}", all=all_in_one)
    feeds = {"x": np.random.default_rng(0).normal(size=(8, 2, 3, 4)).astype(np.float32)}
    found = import_model(model, feeds)
    assert found.graph.values["y"].onnx_shape == (1, 24)
    y = run_onnx(found.reference, {"x": feeds["x"][0]})["y"]
    np.testing.assert_allclose(y, np.maximum(feeds["x"][0].reshape(1, 24), 0), atol=0.02)


def test_a_fixed_batch_whose_images_meet_on_the_way_is_no_batch() -> None:
    body = "r = Relu(x) f = Flatten<axis=0>(r) m = ReduceMean<axes=[1]>(f) y = Sub(r, m)"
    feeds = {"x": np.random.default_rng(0).normal(size=(8, 3, 4)).astype(np.float32)}
    found = import_model(make("(float[3,4] x) => (float[3,4] y)", body), feeds)
    assert found.graph.values["y"].onnx_shape == (3, 4)
    y = run_onnx(found.reference, {"x": feeds["x"][0]})["y"]
    positive = np.maximum(feeds["x"][0], 0)
    np.testing.assert_allclose(y, positive - positive.mean(), atol=0.03)


def test_nodes_that_stand_in_several_tables_keep_names_of_their_own() -> None:
    body = (
        "s = Sigmoid(x) s_1 = Tanh(x) a = Clip(s, zero, half) b = Clip(s, half) "
        "c = Clip(s_1, zero, half) d = Clip(s_1, half)"
    )
    signature = "(float[N,4] x) => (float[N,4] a, float[N,4] b, float[N,4] c, float[N,4] d)"
    model = make(signature, body, zero=0.0, half=0.5)
    for node in model.graph.node:
        node.name = node.output[0]
    imported = check_model(model)
    names = [node.name for node in imported.reference.graph.node]
    assert len(names) == len(set(names))
