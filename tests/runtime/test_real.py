"""The instructions on float32 rows: their formulas in scalar f64, C against Python, onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from support.engine import draft, run_one

from isa.catalog_float import (
    FUNCTIONS,
    REDUCTIONS,
    Convert,
    Erf,
    Exp,
    FloatLayerNorm,
    FloatSoftmax,
    Function,
    Log,
    Real,
    ReduceMax,
    ReduceMean,
    ReduceMin,
    ReduceSum,
    Reduction,
    Sqrt,
    Tanh,
)
from isa.operands import Region
from isa.target import Target, load_target
from runtime.kernel import load_extension
from runtime.real import normalized, softmax, total

EXTENSION = load_extension()
TYPES = (np.int8, np.uint8, np.int32, np.float32)
Row = list[float]
cases = given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    level=st.integers(0, EXTENSION.best_level() if EXTENSION else 0),
)
in_c = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("ou9x8", {"adc.bits": "2"})


# ------------------------------------------------------------------ C equals Python


@in_c
@pytest.mark.parametrize("cls", [*FUNCTIONS, *REDUCTIONS, FloatSoftmax, FloatLayerNorm])
@cases
def test_c_equals_python(target: Target, cls: Any, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = (int(d.rng.integers(1, 4)), int(d.rng.integers(1, 6)), d.pick(1, 2, 3, 16, 33, 600))
    types = d.pick(*TYPES), d.pick(*TYPES)
    zeros = [d.zero(t, d.pick(16, 16, 0)) for t in types]
    numbers = {"scale_a": d.scale(types[0]), "zero_a": zeros[0]}
    numbers |= {"scale": d.scale(types[1]), "zero": zeros[1]}
    source = d.region(types[0], shape)
    is_reduced = issubclass(cls, Reduction)
    into = d.region(types[1], (*shape[:2], 1) if is_reduced else shape)
    if not is_reduced and types[0] is types[1] and d.pick(True, False):
        into = source
    tables: tuple[str, ...] = ()
    if cls is FloatLayerNorm:
        drawn = d.rng.normal(0, 3, (2, shape[2])).astype(np.float32)
        tables = d.table(drawn[0]), d.table(drawn[1])
        numbers["epsilon"] = float(np.float32(10.0 ** d.rng.uniform(-7, 0)))
    d.body.append(cls(into, source, *tables, **numbers))
    d.check(target, level, calls=int(any(not -(1 << 15) <= zero < 1 << 15 for zero in zeros)))


# ------------------------------------------------------------------ Python equals the formula


def stegun(x: float) -> float:
    """7.1.26 of Abramowitz and Stegun."""
    t = 1 / (1 + 0.3275911 * abs(x))
    tail = 0.0
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + coefficient) * t
    return math.copysign(1 - math.exp(-x * x) * tail, x) if x else 0.0


SCALAR: dict[type[Function], Callable[[float], float]] = {
    Convert: lambda x: x,
    Exp: math.exp,
    Log: math.log,
    Sqrt: math.sqrt,
    Tanh: math.tanh,
    Erf: stegun,
}
REDUCED: dict[type[Reduction], Callable[[Row], float]] = {
    ReduceSum: sum,
    ReduceMean: lambda row: sum(row) / len(row),
    ReduceMax: max,
    ReduceMin: min,
}


NARROW = st.floats(-80, 80, width=32)
rows = st.lists(NARROW, min_size=1, max_size=40)


@pytest.fixture(params=["numpy", "c"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "c" and EXTENSION is None:
        pytest.skip("the C kernel is not built")
    monkeypatch.setenv("PIMC_KERNEL", request.param)


def one(target: Target, cls: type[Real], x: np.ndarray, **operands: Any) -> np.ndarray:
    """The f32 result of an instruction on one row [columns, channels] of any type."""
    width = 1 if issubclass(cls, Reduction) else x.shape[1]
    into = np.zeros((1, 1, x.shape[0], width), np.float32)
    instruction = cls(Region("into"), Region("x"), **operands)
    return run_one(target, instruction, {"x": x[None, None]}, into)[0, 0]


def rounded(value: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(value)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("cls", FUNCTIONS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=rows)
def test_a_function_is_rounded_once(target: Target, cls: type[Function], row: Row) -> None:
    if cls in (Log, Sqrt):
        row = [abs(x) + 1e-3 for x in row]
    x = np.array([row], np.float32)
    wanted = [rounded(SCALAR[cls](float(value))) for value in x[0]]
    assert one(target, cls, x)[0].tolist() == [float(value) for value in wanted]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("cls", REDUCTIONS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=rows)
def test_a_reduction_adds_up_in_double(target: Target, cls: type[Reduction], row: Row) -> None:
    x = np.array([row, row[::-1]], np.float32)
    wanted = [rounded(REDUCED[cls](list(map(float, line)))) for line in x]
    assert one(target, cls, x)[:, 0].tolist() == [float(value) for value in wanted]


@pytest.mark.usefixtures("kernel")
def test_functions_outside_of_their_domain_give_what_ieee_says(target: Target) -> None:
    x = np.array([[0.0, -1.0, np.inf, np.nan, 200.0]], np.float32)
    inf, nan = float("inf"), float("nan")
    expected = {
        Log: [-inf, nan, inf, nan],
        Sqrt: [0.0, nan, inf, nan],
        Exp: [1.0, rounded(math.exp(-1)), inf, nan, inf],
    }
    for cls, wanted in expected.items():
        found = one(target, cls, x)[0, : len(wanted)]
        assert np.array_equal(found, np.array(wanted, np.float32), equal_nan=True), cls


@pytest.mark.usefixtures("kernel")
def test_what_is_no_number_becomes_the_smallest_integer(target: Target) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, 1e30], np.float32)
    for dtype, wanted in (
        (np.int8, [-128, 127, -128, 1, 3, 127]),
        (np.uint8, [0, 255, 0, 1, 3, 255]),
    ):
        into = np.zeros((1, 1, 1, 6), dtype)
        convert = Convert(Region("into"), Region("x"), scale=0.5)
        found = run_one(target, convert, {"x": x[None, None, None]}, into)
        assert found.ravel().tolist() == wanted
        session = one_node("QuantizeLinear", x, scale=np.float32(0.5), zero=dtype(0))
        assert session.ravel().tolist() == wanted


# ------------------------------------------------------------------ onnxruntime


def one_node(op_type: str, x: np.ndarray, **constants: Any) -> np.ndarray:
    """onnxruntime's result of one operator on ``x`` and constants, attributes among them."""
    attributes = {k: constants.pop(k) for k in ("axis", "epsilon", "axes") if k in constants}
    inputs = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    node = helper.make_node(op_type, ["x", *constants], ["y"], **attributes)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    source = helper.make_tensor_value_info("x", kind, x.shape)
    graph = helper.make_graph([node], "g", [source], [onnx.ValueInfoProto(name="y")], inputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def near(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Within the stated tolerance, relative to the largest magnitude."""
    return bool(np.abs(found - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1e-30))


@pytest.mark.usefixtures("kernel")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_floats_are_within_1e_5_of_onnxruntimes(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, channels = int(rng.integers(1, 5)), int(rng.integers(1, 300))
    x = rng.normal(rng.normal(0, 3), 10.0 ** rng.uniform(-2, 1), (columns, channels))
    x = x.astype(np.float32)
    operators = {Exp: "Exp", Log: "Log", Sqrt: "Sqrt", Tanh: "Tanh", Erf: "Erf"}
    for cls, op_type in operators.items():
        given_ = np.abs(x) + np.float32(0.01) if cls in (Log, Sqrt) else x
        assert near(one(target, cls, given_), one_node(op_type, given_)), op_type
    reductions = {ReduceMean: "ReduceMean", ReduceMax: "ReduceMax", ReduceMin: "ReduceMin"}
    for reduction, op_type in reductions.items():
        assert near(one(target, reduction, x), one_node(op_type, x, axes=[1])), op_type
    assert near(one(target, FloatSoftmax, x), one_node("Softmax", x, axis=-1))


@given(seed=st.integers(0, 2**32 - 1))
def test_normalizations_do_not_care_in_which_order_doubles_are_added(seed: int) -> None:
    """After the rounding to f32: so onnxruntime's own order gives the same, or once in 1e8 not."""
    rng = np.random.default_rng(seed)
    x = rng.normal(rng.normal(0, 3), 2, (20, 64)).astype(np.float32).astype(np.float64)
    turned = x[:, ::-1]
    for formula in (softmax, lambda x: normalized(x, 1e-5), total):
        there, back = formula(x), formula(turned)
        back = back[:, ::-1] if back.shape == x.shape else back
        differs = there.astype(np.float32) != back.astype(np.float32)
        assert differs.sum() <= 1
