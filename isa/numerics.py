"""Number formulas that the compiler's proofs and the machine must share to the last bit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float32 = NDArray[np.float32]
# error function: Abramowitz and Stegun, 7.1.26, off by 1.5e-7 at most
ERF_SLOPE = 0.3275911
ERF_POLYNOMIAL = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
LOG_ROOTS = 10  # square roots in the logarithm of `isa.catalog.LogSoftmax`


@cache
def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest value of an integer type."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


@cache
def _real_limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The same, of the values that float32 holds: 2^31 itself is no s32."""
    low, high = limits(dtype)
    whole = np.float32(high)
    return low, high if int(whole) == high else int(np.nextafter(whole, np.float32(0)))


@cache
def _scalar(value: float) -> Float32:
    """``value`` as a float32 array without axes, which ufuncs take quicker than a number."""
    return np.array(value, np.float32)


def requantize(
    sums: NDArray[np.int32],
    bias: NDArray[np.int32],
    scale: Float32,
    zero: int,
    dtype: np.dtype[Any],
) -> Float32:
    """``sat(rint(f32(sums + bias) * scale) + zero)`` as whole numbers in float32.

    Into float32 it is the product alone, and the zero point has no meaning.
    sums: any shape; bias and scale broadcast to it. dtype: the integer type to saturate to.
    As onnxruntime's MLAS kernel: the s32 sum wraps, the product is clamped before it is rounded
    half to even, and the zero point is added last, so no value ever leaves the range.
    """
    real = np.add(sums, bias, dtype=np.int32).astype(np.float32)
    real *= scale
    if dtype.kind == "f":
        return real
    low, high = _real_limits(dtype)
    np.maximum(real, _scalar(low - zero), out=real)  # the two are quicker than np.clip
    np.minimum(real, _scalar(high - zero), out=real)
    np.rint(real, out=real)
    if zero:
        real += _scalar(zero)
        if dtype.itemsize > 1:  # where float32 has no whole numbers, the sum may round upwards
            np.minimum(real, _scalar(high), out=real)
    return real


def dequantize(values: Array, scale: float, zero: int) -> Float32:
    """``f32(values - zero) * scale``, the product rounded in float32; float32 as it is, a copy."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.itemsize > 1:
        values = values.astype(np.int32) - np.int32(zero)
        zero = 0
    real = values.astype(np.float32)  # exact: 8-bit values, or rounded once as f32(...) demands
    if zero:
        real -= _scalar(zero)
    real *= _scalar(scale)
    return real


def quantize(real: Float32, scale: float, zero: int, dtype: np.dtype[Any]) -> Float32:
    """``sat(rint(real / scale) + zero)`` as whole numbers in float32; overwrites ``real``.

    Into float32 it is ``real`` as it is. What is no number becomes the smallest integer, as
    onnxruntime's QuantizeLinear has it.
    """
    if dtype.kind == "f":
        return real
    low, high = _real_limits(dtype)
    np.divide(real, _scalar(scale), out=real)
    np.rint(real, out=real)
    if zero:
        real += _scalar(zero)
    np.fmax(real, _scalar(low), out=real)
    np.minimum(real, _scalar(high), out=real)
    return real
