"""Executors of the vector unit: requantization, tables, arithmetic, pooling, normalization."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isa.catalog import (
    Accumulate,
    Add,
    Lrn,
    Lut,
    MaxPool,
    Mul,
    Requant,
    Softmax,
    Sub,
    SumPool,
)
from isa.numerics import Float32, dequantize, limits, quantize, requantize
from runtime.binding import Action, Binder, executes
from runtime.regions import Array


@executes(Accumulate)
def accumulate(bind: Binder, i: Accumulate) -> Action:
    source, into = bind.box(i.source), bind.box(i.into)
    read, before, write = source.reader(), into.reader(), into.writer()

    def action() -> bool:
        write(np.add(before(), read(), dtype=np.int32))
        return True

    return action


@executes(Requant)
def requant(bind: Binder, i: Requant) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype
    bias, scale = bind.tables[i.bias], bind.tables[i.scale]

    def action() -> bool:
        write(requantize(read(), bias, scale, i.zero, dtype))
        return True

    return action


@executes(Lut)
def lut(bind: Binder, i: Lut) -> Action:
    source = bind.box(i.source)
    read, write = source.reader(), bind.box(i.into).writer()
    table = bind.tables[i.table]
    first = limits(source.dtype)[0]
    if table.ndim == 1:
        # reorder once, so that the byte pattern itself is the index
        table = np.roll(table, first)
        offset = np.zeros(1, np.intp)
    else:
        table = np.roll(table, first, axis=1).ravel()
        offset = np.arange(source.shape[2], dtype=np.intp) * 256

    def action() -> bool:
        index = read().view(np.uint8) + offset
        write(table[index])
        return True

    return action


_BINARY = {Add: np.add, Sub: np.subtract, Mul: np.multiply}


def _binary(bind: Binder, i: Add | Sub | Mul) -> Action:
    """``a (+, -, *) b`` on real values; each operation rounds to float32 on its own."""
    into = bind.box(i.into)
    left, right, write = bind.box(i.a).reader(), bind.box(i.b).reader(), into.writer()
    operation, dtype = _BINARY[type(i)], into.dtype

    def action() -> bool:
        a = dequantize(left(), i.scale_a, i.zero_a)
        b = dequantize(right(), i.scale_b, i.zero_b)
        operation(a, b, out=a)
        write(quantize(a, i.scale, i.zero, dtype))
        return True

    return action


@executes(Add)
def add(bind: Binder, i: Add) -> Action:
    return _binary(bind, i)


@executes(Sub)
def sub(bind: Binder, i: Sub) -> Action:
    return _binary(bind, i)


@executes(Mul)
def mul(bind: Binder, i: Mul) -> Action:
    return _binary(bind, i)


def _pool(
    bind: Binder, i: MaxPool | SumPool, reduce: Callable[[Array, Array], Array], wide: bool
) -> Action:
    """Reduce windows by rows first, then by columns: kernel rows + columns calls, not products."""
    source, into = bind.box(i.source), bind.box(i.into)
    read, write = source.reader(), into.writer()
    windows = into.shape[1]
    columns = [
        slice(first, first + (windows - 1) * i.stride + 1, i.stride)
        for first in range(0, i.kernel[1] * i.dilation[1], i.dilation[1])
    ]
    rows = range(0, i.kernel[0] * i.dilation[0], i.dilation[0])

    def action() -> bool:
        values = read()
        tall = values[:, 0].astype(np.int32 if wide else values.dtype)
        for row in rows[1:]:
            reduce(tall, values[:, row])
        total = tall[:, columns[0]].copy()
        for column in columns[1:]:
            reduce(total, tall[:, column])
        write(total[:, None])
        return True

    return action


def _maximum(total: Array, values: Array) -> Array:
    found: Array = np.maximum(total, values, out=total)
    return found


def _sum(total: Array, values: Array) -> Array:
    found: Array = np.add(total, values, out=total, dtype=np.int32)
    return found


@executes(MaxPool)
def maxpool(bind: Binder, i: MaxPool) -> Action:
    return _pool(bind, i, _maximum, wide=False)


@executes(SumPool)
def sumpool(bind: Binder, i: SumPool) -> Action:
    return _pool(bind, i, _sum, wide=True)


@executes(Softmax)
def softmax(bind: Binder, i: Softmax) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype

    def action() -> bool:
        real = dequantize(read(), i.scale_a, 0)
        real -= real.max(axis=-1, keepdims=True)
        np.exp(real, out=real)
        real /= real.sum(axis=-1, keepdims=True, dtype=np.float32)
        write(quantize(real, i.scale, i.zero, dtype))
        return True

    return action


@executes(Lrn)
def lrn(bind: Binder, i: Lrn) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype

    def action() -> bool:
        steps = read().astype(np.float32) - np.float32(i.zero_a)
        norm = _neighbour_sums(steps * steps, i.size)  # exact: whole numbers below 2^24
        norm *= np.float32(i.factor)
        norm += np.float32(i.bias)
        real = steps * np.float32(i.scale_a)
        real /= _power(norm, i.beta)
        write(quantize(real, i.scale, i.zero, dtype))
        return True

    return action


def _power(base: Float32, exponent: float) -> Float32:
    """``base^exponent`` in float32; of square roots, which IEEE pins down, where possible."""
    if exponent == 1.0:
        return base
    root = np.sqrt(base)
    if exponent == 0.5:
        return root
    if exponent == 0.75:
        product: Float32 = root * np.sqrt(root)
        return product
    result: Float32 = np.power(base, np.float32(exponent))
    return result


def _neighbour_sums(squares: Float32, size: int) -> Float32:
    """Sums over ``size`` neighbouring channels, floor((size-1)/2) before, rest after."""
    channels = squares.shape[-1]
    before = (size - 1) // 2
    after = size - 1 - before
    total = np.zeros_like(squares)
    for step in range(-min(before, channels - 1), min(after, channels - 1) + 1):
        low, high = max(0, -step), min(channels, channels - step)
        total[..., low:high] += squares[..., low + step : high + step]
    return total
