"""Weights that are graph inputs: bound to values they are constants, which crossbars hold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import pimc
from isa.diagnostics import PimError
from pimc.frontend.bound import WEIGHT_INPUTS, free_inputs, weight_inputs, with_bound

TEXT = """<ir_version: 10, opset_import: ["": 17]>
net (float[N,3,6,6] x, float[4,3,3,3] w, float[4] b) => (float[N,4,4,4] y) {
  a = Conv (x, w, b)
  y = Relu (a)
}"""


def model(text: str = TEXT) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def values(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"x": (5, 3, 6, 6), "w": (4, 3, 3, 3), "b": (4,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def with_initializers(given: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model as an exporter would write it: the weights as initializers."""
    made = model()
    for port in [port for port in made.graph.input if port.name in given]:
        made.graph.input.remove(port)
    made.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in given.items())
    return made


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 99))
def test_a_bound_model_is_the_model_with_initializers(seed: int) -> None:
    feeds = values(seed)
    weights = {name: feeds.pop(name) for name in ("w", "b")}
    ours = pimc.compile(model(), calibration=feeds, bind=weights, host=False)
    theirs = pimc.compile(with_initializers(weights), calibration=feeds, host=False)
    assert ours.text() == theirs.text()
    assert ours.verify(feeds)["equal"]
    assert any(core.matrices for core in ours.program.cores)
    assert ours.report["bound"].keys() == weights.keys()


def test_what_is_bound_is_no_input_any_more_and_a_run_says_so() -> None:
    feeds = values()
    weights = {name: feeds[name] for name in ("w", "b")}
    program = pimc.compile(model(), calibration={"x": feeds["x"]}, bind=weights)
    assert list(program.inputs) == ["x"]
    for use in (program.run, program.verify):
        with pytest.raises(PimError, match=r"R707.*weight input `w` was bound at compile"):
            use(feeds)


def test_without_values_the_weights_stay_inputs_and_the_reason_names_the_option() -> None:
    with pytest.raises(PimError, match=r"its weights are input `w`; bound by `--bind`"):
        pimc.compile(model(), host=False)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("z", np.zeros(1), "`z` is no input of the model.*"),
        ("w", np.zeros((4, 3, 3)), r"have shape \[4, 3, 3\]; expected \[4, 3, 3, 3\]"),
        ("x", np.zeros((2, 3, 6, 7)), r"expected \[any, 3, 6, 6\]"),
        ("b", np.zeros(4, np.int64) + 2**24 + 1, "are int64; expected float32"),
        ("b", np.array(["a"] * 4), "are <U1; expected float32"),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, array: np.ndarray, said: str) -> None:
    with pytest.raises(PimError, match=f"F208.*{said}"):
        with_bound(model(), {name: array})


def test_a_constant_and_the_last_input_cannot_be_bound() -> None:
    done = with_bound(model(), {"w": values()["w"]})
    with pytest.raises(PimError, match=r"F208.*`w` is a constant of the model"):
        with_bound(done, {"w": values()["w"]})
    with pytest.raises(PimError, match="every input of the model is bound"):
        with_bound(model(), values())


def test_values_overrule_the_default_of_an_input_and_leave_the_model_alone() -> None:
    given_model = model()
    given_model.graph.initializer.append(numpy_helper.from_array(values(1)["b"], "b"))
    before = given_model.SerializeToString()
    done = with_bound(given_model, {"b": values()["b"].astype(np.float64)})
    (held,) = [numpy_helper.to_array(t) for t in done.graph.initializer if t.name == "b"]
    np.testing.assert_array_equal(held, values()["b"])
    assert held.dtype == np.float32
    assert free_inputs(done) == ["x", "w"]
    assert given_model.SerializeToString() == before


def test_weights_are_what_only_layers_read_also_behind_a_change_of_layout() -> None:
    text = """<ir_version: 10, opset_import: ["": 17]>
    net (float[N,4] x, float[3,4] w, float[4,4] s, float[2,4,4] p, float[3] b, float[N,3] d)
        => (float[N,3] y, float[N,4] z, float[2,N,4] q) {
      t = Transpose (w)
      y = Gemm (x, t, b)
      m = MatMul (x, s)
      z = MatMul (m, s)
      q = MatMul (x, p)
      e = Add (y, d)
    }"""
    net = model(text)
    ranks = {port.name: len(port.type.tensor_type.shape.dim) for port in net.graph.input}
    assert weight_inputs(net, ranks) == ["w", "s", "b"]


def test_no_operator_has_its_data_among_its_weights() -> None:
    for name, positions in WEIGHT_INPUTS.items():
        known = onnx.defs.get_schema(name).inputs
        assert 0 not in positions
        assert max(positions) < len(known)
