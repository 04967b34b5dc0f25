"""Layer normalization and softmax that were written out are read back as one operator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import make, weights
from frontend.near import sqnr_db
from frontend.oracle import check_model, random_feeds

from passes.graph import LayerNormNode, SoftmaxNode
from pimc.frontend.build import import_model

SIGNATURE = "(float[N,5,4,6] x) => (float[N,5,4,6] y)"
MEAN = "m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) "
ROOT = "v = ReduceMean<axes=[-1]>(s) e = Add(v, eps) r = Sqrt(e) "
FORMS = {
    "power and division": MEAN + "s = Pow(d, two) " + ROOT + "n = Div(d, r) ",
    "product and division": MEAN + "s = Mul(d, d) " + ROOT + "n = Div(d, r) ",
    "a reciprocal": MEAN + "s = Pow(d, two) " + ROOT + "i = Reciprocal(r) n = Mul(i, d) ",
    "the last two axes": (
        "m = ReduceMean<axes=[2,3]>(x) d = Sub(x, m) s = Pow(d, two) "
        "v = ReduceMean<axes=[-2,-1]>(s) e = Add(eps, v) r = Sqrt(e) n = Div(d, r) "
    ),
}
TAILS = {
    "alone": "y = Identity(n)",
    "a gain": "y = Mul(n, gain)",
    "an offset": "y = Add(offset, n)",
    "gain and offset": "g = Mul(gain, n) y = Add(g, offset)",
}


def _model(body: str) -> onnx.ModelProto:
    known = {"two": np.float32(2), "eps": np.float32(1e-5)}
    known |= {"gain": 1 + weights(6, seed=1), "offset": weights(6, seed=2)}
    words = body.replace(",", " ").replace(")", " ").replace("(", " ").split()
    return make(SIGNATURE, body, **{name: known[name] for name in known if name in words})


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("form", FORMS)
def test_every_way_of_writing_it_out_becomes_one_instruction(form: str, tail: str) -> None:
    model = _model(FORMS[form] + TAILS[tail])
    imported = check_model(model)
    kinds = [type(node).__name__ for node in imported.graph.nodes]
    norm = "GroupNormNode" if form == "the last two axes" else "LayerNormNode"
    assert kinds.count(norm) == 1
    assert set(kinds) <= {norm, "MoveNode"}
    assert not imported.on_host
    assert sqnr_db(model, imported) > 30


def test_an_epsilon_may_be_as_small_as_exporters_write_it() -> None:
    """Rows of equal numbers have no variance: without it they would be divided by zero."""
    model = _model(FORMS["power and division"] + TAILS["gain and offset"])
    (epsilon,) = (t for t in model.graph.initializer if t.name == "eps")
    epsilon.CopyFrom(onnx.numpy_helper.from_array(np.float32(1e-12), "eps"))
    imported = import_model(model, random_feeds(model, 3, 0))
    node = next(node for node in imported.graph.nodes if isinstance(node, LayerNormNode))
    step = imported.graph.values[node.inputs[0]].scale
    assert step is not None
    assert node.epsilon == pytest.approx(1e-12 * (6 / step) ** 2)  # of sums of six steps


@pytest.mark.parametrize(
    "body",
    {
        "means over different axes": (
            MEAN + "s = Pow(d, two) v = ReduceMean<axes=[2,3]>(s) e = Add(v, eps) r = Sqrt(e) "
            "y = Div(d, r)"
        ),
        "no square": MEAN + "s = Pow(d, four) " + ROOT + "y = Div(d, r)",
        "not the last axis": (
            "m = ReduceMean<axes=[2]>(x) d = Sub(x, m) s = Pow(d, two) "
            "v = ReduceMean<axes=[2]>(s) e = Add(v, eps) r = Sqrt(e) y = Div(d, r)"
        ),
    }.values(),
)
def test_what_only_looks_like_it_stays_as_it_is(body: str) -> None:
    model = _model(body)
    if "four" in body:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(4), "four"))
    imported = import_model(model, random_feeds(model, 3, 0))
    assert not any(isinstance(node, LayerNormNode) for node in imported.graph.nodes)


def test_a_factor_for_each_row_is_no_gain() -> None:
    model = _model(FORMS["power and division"] + "y = Mul(n, rows)")
    rows = np.linspace(0.5, 2, 20, dtype=np.float32).reshape(5, 4, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(rows, "rows"))
    imported = check_model(model)
    assert sum(isinstance(node, LayerNormNode) for node in imported.graph.nodes) == 1
    assert sqnr_db(model, imported) > 30


SHIFTED = "m = ReduceMax<axes=[{axis}]>(x) s = Sub(x, m) e = Exp(s) "
TOTAL = "t = ReduceSum(e, over) y = Div(e, t)"


@pytest.mark.parametrize(
    ("body", "axis", "is_softmax"),
    [
        (SHIFTED + TOTAL, -1, True),
        (SHIFTED + TOTAL, 2, True),
        ("e = Exp(x) " + TOTAL, -1, True),
        (SHIFTED + "t = ReduceSum(e, other) y = Div(e, t)", -1, True),  # of what is shifted
        (SHIFTED + "f = Exp(x) t = ReduceSum(f, over) y = Div(e, t)", -1, False),
    ],
)
def test_a_softmax_that_was_written_out_is_one(body: str, axis: int, is_softmax: bool) -> None:
    model = make(
        "(float[N,5,6] x) => (float[N,5,6] y)", body.format(axis=axis),
        over=np.array([axis]), other=np.array([1]),
    )  # fmt: skip
    imported = import_model(model, random_feeds(model, 3, 0))
    found = any(isinstance(node, SoftmaxNode) for node in imported.graph.nodes)
    assert found == is_softmax
    if is_softmax:
        check_model(model)
        assert imported.on_host == ()
