"""Weights: 8-bit integers per output channel, and a 32-bit bias in the scale of the sums."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pimc.frontend.net import NUMPY_TYPES, Array, Quantized

_BIAS_LIMIT = 2.0**29  # leaves room for the products beside the bias in 32 bits


@dataclass(frozen=True, eq=False)
class Layer:
    """Integer weights and bias of one Conv, Gemm or MatMul; bias in units of x_scale * scale."""

    weights: Quantized
    bias: NDArray[np.int32] | None


def quantize_layer(
    weights: Array, bias: Array | None, x_scale: np.float32, axis: int, per_channel: bool
) -> Layer:
    """Symmetric int8 weights in -127..127, one scale per output channel (``axis``) or one in all.

    The scale of a channel whose bias would not fit 32 bits is widened until it does.
    """
    real = weights.astype(np.float64)
    others = tuple(at for at in range(real.ndim) if at != axis)
    largest = np.abs(real).max(axis=others, initial=0.0)
    offset = np.zeros(largest.shape) if bias is None else bias.astype(np.float64).reshape(-1)
    offset = np.broadcast_to(offset, largest.shape)
    scale = np.maximum(largest / 127.0, np.abs(offset) / (float(x_scale) * _BIAS_LIMIT))
    if not per_channel:
        scale = np.max(scale, keepdims=True)
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1.0).astype(np.float32)
    shape = [1] * real.ndim
    shape[axis] = scale.size
    steps = np.clip(np.rint(real / scale.astype(np.float64).reshape(shape)), -127, 127)
    one = scale.reshape(()) if not per_channel else scale
    held = Quantized(
        np.ascontiguousarray(steps.astype(np.int8)),
        one,
        np.zeros(one.shape, np.int8),
        axis if per_channel else None,
    )
    integers = None if bias is None else quantize_bias(offset, x_scale, held)
    return Layer(held, integers)


def matching(weights: Quantized, dtype: str) -> Quantized:
    """The same weights in the integer type of the activations, values and zero points moved.

    onnxruntime has no kernel for s8 x u8, and its u8 x s8 saturates 16-bit sums on processors
    without VNNI; equal types are exact everywhere.
    """
    wanted = NUMPY_TYPES[dtype]
    if weights.values.dtype == wanted:
        return weights
    step = 128 if dtype == "u8" else -128
    values, zero = (
        (array.astype(np.int16) + step).astype(wanted) for array in (weights.values, weights.zero)
    )
    return replace(weights, values=values, zero=zero)


def quantize_bias(bias: Array, x_scale: np.float32, weights: Quantized) -> NDArray[np.int32]:
    """The bias in units of x_scale * weight scale, saturated to 32 bits."""
    unit = np.float64(x_scale) * weights.scale.astype(np.float64)
    limits = np.iinfo(np.int32)
    steps = np.rint(bias.astype(np.float64).reshape(-1) / unit)
    return np.clip(steps, limits.min, limits.max).astype(np.int32)


def largest_sum(weights: Quantized, bias: NDArray[np.int32] | None, axis: int) -> float:
    """An upper bound of \\|sum\\| over all 8-bit inputs, to prove that 32 bits are enough."""
    centred = weights.values.astype(np.int64) - weights.spread(weights.zero).astype(np.int64)
    others = tuple(at for at in range(centred.ndim) if at != axis)
    sums = np.abs(centred).sum(axis=others) * 255
    if bias is not None:
        sums = sums + np.abs(bias.astype(np.int64))
    return float(sums.max(initial=0))
