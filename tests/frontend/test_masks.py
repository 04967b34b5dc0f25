"""Masks of attention: their value means nothing, and costs the scores no steps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend.makers import Floats, make, weights
from frontend.near import sqnr_db
from frontend.oracle import check_model

from isa.diagnostics import PimError
from pimc.frontend.build import Imported

STEPS = 6
SIGNATURE = "(float[N,6,8] x) => (float[N,6,8] y)"
SCORES = "q = MatMul(x, a) k = MatMul(x, b) t = Transpose<perm=[0,2,1]>(k) s = MatMul(q, t) "
PRODUCT = "y = MatMul(p, x)"
CAUSAL = np.tril(np.ones((STEPS, STEPS), bool))
LOWEST = float(np.finfo(np.float32).min)
MASKS = {
    "a sum with minus infinity": ("m = Add(s, mask) p = Softmax<axis=-1>(m) ", -np.inf),
    "a sum with the lowest float": ("m = Add(mask, s) p = Softmax<axis=-1>(m) ", LOWEST),
    "a sum with -100": ("m = Add(s, mask) p = Softmax<axis=-1>(m) ", -100.0),
    "a choice of minus infinity": ("m = Where(keep, s, low) p = Softmax<axis=-1>(m) ", -np.inf),
    "a choice of the lowest": ("m = Where(drop, low, s) p = Softmax<axis=-1>(m) ", LOWEST),
    "and a test for NaN": (
        "m = Where(keep, s, low) u = Softmax<axis=-1>(m) i = IsNaN(u) p = Where(i, zero, u) ",
        -np.inf,
    ),
}


def _attention(body: str, low: float, keep: np.ndarray = CAUSAL) -> onnx.ModelProto:
    mask = np.where(keep, np.float32(0), np.float32(low)).astype(np.float32)
    known = {"mask": mask, "keep": keep, "drop": ~keep, "low": np.float32(low), "zero": 0.0}
    used = {name: value for name, value in known.items() if name in body.replace("(", " ")}
    matrices = {"a": weights(8, 8, seed=1, scale=1), "b": weights(8, 8, seed=2, scale=1)}
    return make(SIGNATURE, SCORES + body + PRODUCT, **matrices, **used)


def _samples(count: int = 64) -> dict[str, Floats]:
    return {"x": weights(count, STEPS, 8, seed=5, scale=1)}


@pytest.mark.parametrize("case", MASKS)
def test_a_mask_leaves_the_scores_their_steps(case: str) -> None:
    body, low = MASKS[case]
    model = _attention(body, low)
    imported = check_model(model, feeds=_samples())
    assert not imported.on_host
    unmasked = check_model(_attention("p = Softmax<axis=-1>(s) ", low), feeds=_samples())
    plain = _attention("p = Softmax<axis=-1>(s) ", low)
    assert sqnr_db(model, imported, _samples()) > sqnr_db(plain, unmasked, _samples()) - 3


def test_a_mask_that_comes_with_the_inputs_leaves_the_scores_their_steps() -> None:
    body = "i = Sub(one, keep) l = Mul(i, low) m = Add(s, l) p = Softmax<axis=-1>(m) "
    signature = "(float[N,6,8] x, float[N,1,6] keep) => (float[N,6,8] y)"
    matrices = {"a": weights(8, 8, seed=1, scale=1), "b": weights(8, 8, seed=2, scale=1)}
    model = make(signature, SCORES + body + PRODUCT, one=1.0, low=LOWEST, **matrices)
    samples = _samples() | {"keep": np.ones((64, 1, STEPS), np.float32)}
    samples["keep"][::2, :, 4:] = 0
    imported = check_model(model, feeds=samples)
    assert sqnr_db(model, imported, samples) > 20


COMPUTED = {
    "a choice of minus infinity": ("c = Greater(keep, half) m = Where(c, s, low) ", -np.inf),
    "a choice of the lowest": ("c = Less(keep, half) m = Where(c, low, s) ", LOWEST),
    "a sum with a choice of constants": (
        "c = Less(keep, half) w = Where(c, low, zero) m = Add(s, w) ",
        -np.inf,
    ),
    "a sum behind a choice": (
        "c = Less(keep, half) w = Where(c, low, s) m = Add(w, mask) ",
        -1e9,
    ),
}


@pytest.mark.parametrize("case", COMPUTED)
def test_a_mask_that_is_computed_leaves_the_scores_their_steps(case: str) -> None:
    body, low = COMPUTED[case]
    signature = "(float[N,6,8] x, float[N,1,6] keep) => (float[N,6,8] y)"
    constants = {"a": weights(8, 8, seed=1, scale=1), "b": weights(8, 8, seed=2, scale=1)}
    mask = np.where(CAUSAL, np.float32(0), np.float32(LOWEST))
    known = {"mask": mask, "low": np.float32(low), "half": 0.5, "zero": 0.0}
    constants |= {name: value for name, value in known.items() if name in body}
    model = make(signature, SCORES + body + "p = Softmax<axis=-1>(m) " + PRODUCT, **constants)
    samples = _samples() | {"keep": np.ones((64, 1, STEPS), np.float32)}
    samples["keep"][::2, :, 4:] = 0
    imported = check_model(model, feeds=samples)
    assert not imported.on_host
    assert not imported.warnings
    assert sqnr_db(model, imported, samples) > 20


def _chosen(reduced: str) -> Imported:
    signature = "(float[N,6,8] x, float[N,6,1] keep) => (float[N,1,8] y)"
    body = f"c = Greater(keep, half) m = Where(c, x, low) y = {reduced}<axes=[1]>(m)"
    model = make(signature, body, half=0.5, low=-1e9)
    samples = _samples() | {"keep": np.ones((64, STEPS, 1), np.float32)}
    samples["keep"][::2, 4:] = 0
    return check_model(model, feeds=samples)


def test_what_a_maximum_leaves_out_costs_the_others_no_steps() -> None:
    imported = _chosen("ReduceMax")
    assert not imported.warnings
    assert imported.graph.values["y"].scale < 0.05


def test_a_constant_that_takes_all_steps_is_told() -> None:
    (warning,) = _chosen("ReduceMean").warnings
    assert warning.code == "F227"
    assert "that leaves `x`, from -" in warning.message


def test_layers_that_share_a_mask_raise_it_each_for_themselves() -> None:
    body = (
        "m = Add(s, mask) p = Softmax<axis=-1>(m) z = MatMul(p, x) w = Mul(s, ten) "
        "n = Add(w, mask) o = Softmax<axis=-1>(n) v = MatMul(o, x) y = Add(z, v)"
    )
    mask = np.where(CAUSAL, np.float32(0), np.float32(LOWEST))
    matrices = {"a": weights(8, 8, seed=1, scale=1), "b": weights(8, 8, seed=2, scale=1)}
    model = make(SIGNATURE, SCORES + body, mask=mask, ten=np.float32([10]), **matrices)
    imported = check_model(model, feeds=_samples())
    assert sqnr_db(model, imported, _samples()) > 20


def test_a_bias_that_leaves_nothing_out_is_not_touched() -> None:
    bias = weights(STEPS, STEPS, seed=3, scale=1)
    body = "m = Add(s, bias) p = Softmax<axis=-1>(m) "
    matrices = {"a": weights(8, 8, seed=1, scale=1), "b": weights(8, 8, seed=2, scale=1)}
    model = make(SIGNATURE, SCORES + body + PRODUCT, bias=bias, **matrices)
    imported = check_model(model, feeds=_samples())
    assert sqnr_db(model, imported, _samples()) > 20


def test_a_row_without_anything_to_look_at_is_refused() -> None:
    keep = CAUSAL.copy()
    keep[2] = False
    with pytest.raises(PimError) as caught:
        check_model(_attention(MASKS["a sum with minus infinity"][0], -np.inf, keep))
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {"F222"}
