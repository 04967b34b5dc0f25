"""Comparisons, truth values and choices: on the chip, and exactly what the held values say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights
from frontend.oracle import check_model, random_feeds, run_onnx
from frontend.test_operators import assert_near

import pimc
from isa.catalog import Select
from isa.program import walk
from passes.graph import BinaryNode, LogSoftmaxNode, LutNode, MoveNode, SelectNode
from pimc.frontend.build import Imported

ONE = "(float[N,4,5,3] x) => (float[N,4,5,3] y)"
TWO = "(float[N,4,5,3] x, float[N,4,5,3] z) => (float[N,4,5,3] y)"
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]

ACTIVATIONS = {
    "leaky": "c = Greater(x, zero) s = Mul(x, slope) y = Where(c, x, s)",
    "threshold": "c = LessOrEqual(x, limit) y = Where(c, zero, x)",
    "clamp": "a = Less(x, limit) b = Where(a, limit, x) d = Greater(b, one) y = Where(d, one, b)",
    "per channel": "c = Greater(x, channel) y = Where(c, x, channel)",
    "between": "a = Greater(x, slope) b = Less(x, one) c = And(a, b) y = Where(c, x, zero)",
    "outside": "a = Less(x, slope) b = Not(a) c = Xor(a, b) d = Or(c, a) y = Cast<to=1>(d)",
    "equal to a step": "r = Round(x) c = Equal(r, one) y = Cast<to=1>(c)",
    "wrapped": "y = Mod<fmod=1>(x, one)",
    "shrunk": "y = Shrink<lambd=0.4, bias=0.1>(x)",
    "no number": "c = IsNaN(x) y = Where(c, zero, x)",
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_choices_by_a_tensor_of_itself_are_one_table(case: str) -> None:
    known = {"zero": 0, "one": 1, "slope": 0.2, "limit": -0.3}
    scalars = {name: np.float32(value) for name, value in known.items()}
    model = make(ONE, ACTIVATIONS[case], channel=weights(4, 1, 1), **scalars)
    imported = check_model(model)
    assert [type(node) for node in imported.graph.nodes] == [LutNode]
    assert not imported.on_host


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("factor", [1.0, 0.37, 40.0])
def test_two_tensors_are_compared_exactly(op: str, factor: float) -> None:
    """Truth values are those of the values that both hold, equal ones among them."""
    model = make(TWO, f"k = Mul(z, factor) c = {op}(x, k) y = Cast<to=1>(c)", factor=factor)
    feeds = {name: np.round(values * 4) / 4 for name, values in random_feeds(model, 8, 0).items()}
    imported = check_model(model, feeds=feeds)
    assert not imported.on_host
    graph = imported.graph
    names = tuple(value.onnx_name for value in graph.values.values())
    held = run_onnx(imported.reference, feeds, names)
    (sub,) = (n for n in graph.nodes if isinstance(n, BinaryNode))
    left, right = (
        (held[v.onnx_name].astype(np.int32) - v.zero).astype(np.float32) * np.float32(v.scale)
        for v in (graph.values[name] for name in sub.inputs)
    )
    compare = {"Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal}
    compare |= {"Less": np.less, "LessOrEqual": np.less_equal}
    assert np.array_equal(held["y"] > 0.5, compare[op](left, right))


@pytest.mark.parametrize("op", ["And", "Or", "Xor", "Equal"])
def test_truth_values_of_two_tensors_combine_exactly(op: str) -> None:
    body = f"a = Greater(x, zero) b = Less(z, zero) c = {op}(a, b) y = Cast<to=1>(c)"
    model = make(TWO, body, zero=0.0)
    imported = check_model(model)
    assert not imported.on_host
    feeds = random_feeds(model, 3, 0)
    wanted, found = run_onnx(model, feeds)["y"], run_onnx(imported.reference, feeds)["y"]
    assert np.mean((found > 0.5) != (wanted > 0.5)) < 0.02  # a step around zero is 0.03


CHOICES = {
    "two tensors": ("c = Greater(x, z) y = Where(c, x, z)", "4,5,3"),
    "one condition a column": ("c = Greater(z, half) y = Where(c, x, k)", "1,1,3"),
    "one condition a channel": ("c = Greater(z, half) y = Where(c, x, k)", "4,1,1"),
    "one condition an image": ("c = Greater(z, half) y = Where(c, x, k)", "1,1,1"),
    "a condition for some axes": ("c = Greater(z, half) y = Where(c, k, x)", "4,1,3"),
    "a value a column": ("c = Greater(x, half) y = Where(c, x, z)", "1,1,3"),
    "a value for some axes": ("c = Greater(x, half) y = Where(c, z, x)", "1,5,3"),
    "a constant where it holds": ("c = Greater(z, half) y = Where(c, k, x)", "4,5,3"),
    "a constant where it does not": ("c = Greater(z, half) y = Where(c, x, k)", "4,5,3"),
    "a full constant": ("c = Greater(z, half) y = Where(c, x, full)", "4,5,3"),
    "constants for both": ("c = Greater(z, half) y = Where(c, full, k)", "1,5,3"),
    "not": ("c = Greater(z, half) n = Not(c) y = Where(n, x, k)", "1,5,3"),
    "compared with a full constant": ("c = Less(z, full) y = Where(c, x, k)", "4,5,3"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_between_tensors_are_selected(case: str) -> None:
    body, shape = CHOICES[case]
    signature = f"(float[N,4,5,3] x, float[N,{shape}] z) => (float[N,4,5,3] y)"
    constants = {"half": 0.2, "k": -0.7, "full": weights(4, 5, 3, scale=1)}
    imported = check_model(make(signature, body, **constants))
    assert not imported.on_host
    if case != "constants for both":
        assert any(isinstance(node, SelectNode) for node in imported.graph.nodes)
    exact = {"two tensors": 0.03}
    near(make(signature, body, **constants), imported, exact.get(case, 0.1))


def near(model: onnx.ModelProto, imported: Imported, share: float) -> None:
    """Values near the border of a comparison may fall on its other side, few of them."""
    assert_near(model, imported, share)


KNOWN = np.tril(np.ones((5, 3), bool))


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("y = Where(keep, x, z)", 1),
        ("y = Where(keep, z, k)", 1),
        ("y = Where(keep, k, x)", 1),
        ("y = Where(keep, x, full)", 2),
    ],
)
def test_a_choice_that_is_known_moves_or_masks(body: str, count: int) -> None:
    model = make(TWO, body, keep=KNOWN, k=0.5, full=weights(5, 3, scale=1))
    imported = check_model(model)
    assert not imported.on_host
    kinds = {type(node) for node in imported.graph.nodes}
    assert kinds <= {MoveNode, LutNode, BinaryNode}
    assert_near(model, imported)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_the_logarithm_of_a_softmax_equals_the_reference(axis: int) -> None:
    model = make(ONE, f"t = Mul(x, three) y = LogSoftmax<axis={axis}>(t)", three=3.0)
    imported = check_model(model)
    assert any(isinstance(node, LogSoftmaxNode) for node in imported.graph.nodes)
    assert_near(model, imported)


def test_truth_values_cross_to_the_host_and_back() -> None:
    body = """c = Greater(x, zero) n = Cast<to=7>(c) s = CumSum(n, last) m = Greater(s, two)
        a = And(m, c) w = Where(a, x, zero) y = Add(w, w)"""
    model = make(ONE, body, zero=0.0, two=np.int64(2), last=np.int64(3))
    program = pimc.compile(model)
    assert program.verify()["equal"]
    places = {entry["op_type"] for entry in program.report["placement"]["on_host"]}
    assert places == {"Cast", "CumSum", "Greater"}
    assert any(isinstance(i, Select) for core in program.program.cores for i in walk(core.body))


def test_reshaped_numbers_pick_the_same_rows() -> None:
    body = "r = Reshape(t, shape) e = Gather(table, r) y = MatMul(e, w)"
    constants = {"shape": np.array([-1, 5, 1]), "table": weights(11, 6), "w": weights(6, 4)}
    model = make("(int64[N,5] t) => (float[N,5,1,4] y)", body, **constants)
    numbers = np.random.default_rng(0).integers(0, 11, (3, 5))
    imported = check_model(model, feeds={"t": numbers})
    assert not imported.on_host
    assert_near(model, imported)


ENTRIES = {
    "a mask of numbers": ("int64", "f = Cast<to=1>(t) o = Sub(one, f) y = Add(x, o)"),
    "moved before": ("int64", "u = Unsqueeze(t, at) f = Cast<to=1>(u) y = Mul(z, f)"),
    "compared with a number": ("int64", "c = Equal(t, pad) y = Where(c, x, one)"),
    "compared with none": ("int32", "c = Greater(t, none) y = Where(c, x, one)"),
    "compared with a negative number": ("int64", "c = Less(t, low) y = Where(c, x, one)"),
    "as truth values": ("int64", "c = Cast<to=9>(t) n = Not(c) y = Where(n, x, one)"),
    "truth values": ("bool", "y = Where(t, x, one)"),
    "truth values moved": ("bool", "u = Unsqueeze(t, at) n = Not(u) y = Where(n, z, one)"),
    "truth values as floats": ("bool", "f = Cast<to=1>(t) y = Mul(x, f)"),
    "truth values combined": ("bool", "c = Greater(x, one) d = And(c, t) y = Where(d, x, one)"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_numbers_and_truth_values_of_inputs_enter_the_chip(case: str) -> None:
    kind, body = ENTRIES[case]
    rank = "N,4,1,5" if "z" in body else "N,4,5"
    signature = f"(float[N,4,5] x, float[N,4,1,5] z, {kind}[N,4,5] t) => (float[{rank}] y)"
    whole = "int32" if kind == "int32" else "int64"
    constants = {"none": np.array(0, whole), "pad": np.array(30522), "low": np.array(-7)}
    constants |= {"one": np.float32(0.6), "at": np.array([2])}
    model = make(signature, body, **constants)
    numbers = [-8, -7, -6, -1, 0, 1, 30521, 30522, 30523] if "compared" in case else [0, 1]
    feeds = {
        "x": weights(5, 4, 5, scale=1),
        "z": weights(5, 4, 1, 5, scale=1),
        "t": np.random.default_rng(0).choice(numbers, (5, 4, 5)).astype(kind),
    }
    imported = check_model(model, feeds=feeds)
    assert not imported.on_host
    wanted, found = run_onnx(model, feeds)["y"], run_onnx(imported.reference, feeds)["y"]
    share = 0.02 if case == "truth values combined" else 0
    assert np.mean(np.abs(wanted - found) > 0.05) <= share


@pytest.mark.parametrize(
    "body", ["y = Greater(x, z)", "a = Less(x, z) y = Not(a)", "a = Less(x, z) y = And(a, t)"]
)
def test_truth_values_are_outputs_as_such(body: str) -> None:
    signature = "(float[N,4,5] x, float[N,4,5] z, bool[N,4,5] t) => (bool[N,4,5] y)"
    model = make(signature, body)
    random = np.random.default_rng(0)
    feeds = {name: np.round(random.normal(0, 9, (6, 4, 5))).astype(np.float32) for name in "xz"}
    feeds["t"] = random.integers(0, 2, (6, 4, 5)).astype(bool)
    program = pimc.compile(model, calibration={**feeds, "x": feeds["x"] * 3, "z": feeds["z"] * 3})
    assert not program.report["placement"]["on_host"]
    assert program.verify(feeds)["equal"]
    found, wanted = program.run(feeds)["y"], run_onnx(model, feeds)["y"]
    assert found.dtype == np.bool_
    assert np.mean(found != wanted) < 0.05  # near misses of values that are held in 8 bits


def test_numbers_moved_for_several_readers_keep_apart() -> None:
    body = "u = Unsqueeze(t, at) a = Cast<to=1>(u) c = Greater(u, one) y = Where(c, a, half)"
    constants = {"at": np.array([1]), "one": np.array(1), "half": 0.5}
    model = make("(int64[N,5] t) => (float[N,1,5] y)", body, **constants)
    numbers = np.random.default_rng(0).integers(-4, 5, (3, 5))
    imported = check_model(model, feeds={"t": numbers})
    assert not imported.on_host
    assert_near(model, imported)


def test_numbers_that_a_quantized_model_makes_floats_stay_with_the_host() -> None:
    body = "f = Cast<to=1>(t) g = Exp(f) q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
    constants = {"s": np.float32(0.05), "z": np.int8(0)}
    model = make("(bool[N,5] t, float[N,5] x) => (float[N,5] y, float[N,5] g)", body, **constants)
    program = pimc.compile(model)
    assert program.verify()["equal"]
    assert [entry["op_type"] for entry in program.report["placement"]["on_host"]][:1] == ["Cast"]
