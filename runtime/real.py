"""Executors of the instructions on float32 rows: f64 inside, rounded once to f32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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
from isa.numerics import ERF_POLYNOMIAL, ERF_SLOPE, dequantize, quantize
from runtime.binding import Action, Binder, executes

Double = NDArray[np.float64]
Formula = Callable[[Double], Double]  # [..., C] -> the same shape, or one channel


def total(values: Double) -> Double:
    """The sum over the last axis, from its first element to its last; keeps the axis."""
    sums: Double = np.add.accumulate(values, axis=-1)
    return sums[..., -1:]


def erf(x: Double) -> Double:
    """The error function as `isa.catalog_float.Erf` defines it."""
    t = 1.0 / (1.0 + ERF_SLOPE * np.abs(x))
    tail = np.zeros_like(t)
    for coefficient in reversed(ERF_POLYNOMIAL):
        tail = (tail + coefficient) * t
    value: Double = np.sign(x) * (1.0 - np.exp(-x * x) * tail)
    return value


def softmax(x: Double) -> Double:
    """Exponentials of the distance to the largest, over their sum."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    share: Double = powers / total(powers)
    return share


def normalized(x: Double, epsilon: float) -> Double:
    """Distance to the mean over the deviation."""
    count = x.shape[-1]
    distance = x - total(x) / count
    ratio: Double = distance / np.sqrt(total(distance * distance) / count + epsilon)
    return ratio


_FUNCTIONS: dict[type[Function], Formula] = {
    Convert: lambda x: x,
    Exp: np.exp,
    Log: np.log,
    Sqrt: np.sqrt,
    Tanh: np.tanh,
    Erf: erf,
}
_REDUCTIONS: dict[type[Reduction], Formula] = {
    ReduceSum: total,
    ReduceMean: lambda x: total(x) / x.shape[-1],
    ReduceMax: lambda x: x.max(axis=-1, keepdims=True),
    ReduceMin: lambda x: x.min(axis=-1, keepdims=True),
}


@executes(*FUNCTIONS)
def function(bind: Binder, i: Function) -> Action:
    return _action(bind, i, _FUNCTIONS[type(i)])


@executes(*REDUCTIONS)
def reduction(bind: Binder, i: Reduction) -> Action:
    return _action(bind, i, _REDUCTIONS[type(i)])


@executes(FloatSoftmax)
def float_softmax(bind: Binder, i: FloatSoftmax) -> Action:
    return _action(bind, i, softmax)


@executes(FloatLayerNorm)
def float_layer_norm(bind: Binder, i: FloatLayerNorm) -> Action:
    gain, offset = (bind.tables[name].astype(np.float64) for name in (i.gain, i.offset))
    epsilon = float(np.float32(i.epsilon))
    return _action(bind, i, lambda x: normalized(x, epsilon) * gain + offset)


def _action(bind: Binder, i: Real | FloatLayerNorm, formula: Formula) -> Action:
    """Real values in, the formula in f64, rounded to f32, held in the type of the destination."""
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype

    def action() -> bool:
        x = dequantize(read(), i.scale_a, i.zero_a).astype(np.float64)
        with np.errstate(all="ignore"):
            y = formula(x).astype(np.float32)
            held = quantize(y, i.scale, i.zero, dtype)
        write(held)
        return True

    return action
