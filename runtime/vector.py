"""Executors of the vector unit: requantization, tables, arithmetic, products, pooling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isa.catalog import (
    Accumulate,
    Add,
    Div,
    Elementwise,
    Lookup,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Pow,
    Requant,
    Select,
    Sub,
    SumPool,
)
from isa.diagnostics import Diagnostic, PimError
from isa.numerics import Float32, dequantize, limits, quantize, requantize
from runtime.binding import Action, Binder, executes
from runtime.regions import Array

SPREAD_ELEMENTS = 4096  # up to here a table per channel is spread over the row: longer inner loops


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
    if bind.box(i.source).elements <= SPREAD_ELEMENTS:
        shape = bind.box(i.source).shape
        bias, scale = (np.broadcast_to(table, shape).copy() for table in (bias, scale))

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


@executes(Lookup)
def lookup(bind: Binder, i: Lookup) -> Action:
    into = bind.box(i.into)
    read, write = bind.box(i.source).reader(), into.writer()
    table, shape = bind.tables[i.table], into.shape
    rows = len(table)

    def action() -> bool:
        numbers = read()
        wrong = (numbers < -rows) | (numbers >= rows)
        if wrong.any():
            raise PimError(_no_such_row(i, int(numbers[wrong][0]), rows))
        write(table[numbers].reshape(len(numbers), *shape))
        return True

    return action


def _no_such_row(i: Lookup, number: int, rows: int) -> Diagnostic:
    return Diagnostic(
        "R714",
        f"`{i.source.name}` holds {number}, but table `{i.table}` has {rows} rows",
        hint=f"give numbers from {-rows} to {rows - 1}",
    )


def _power(a: Float32, b: Float32, out: Float32) -> None:
    np.copyto(out, np.power(a.astype(np.float64), b), casting="same_kind")


_BINARY: dict[type[Elementwise], Callable[..., object]] = {
    Add: np.add,
    Sub: np.subtract,
    Mul: np.multiply,
    Div: np.divide,
    Pow: _power,
    Max: np.maximum,
    Min: np.minimum,
}


@executes(*_BINARY)
def binary(bind: Binder, i: Elementwise) -> Action:
    """``a op b`` on real values; each operation rounds to float32 on its own."""
    into = bind.box(i.into)
    left, right, write = bind.box(i.a).reader(), bind.box(i.b).reader(), into.writer()
    operation, dtype = _BINARY[type(i)], into.dtype

    def action() -> bool:
        a = dequantize(left(), i.scale_a, i.zero_a)
        b = dequantize(right(), i.scale_b, i.zero_b)
        with np.errstate(all="ignore"):
            operation(a, b, out=a)
            held = quantize(a, i.scale, i.zero, dtype)
        write(held)
        return True

    return action


@executes(Select)
def select(bind: Binder, i: Select) -> Action:
    into = bind.box(i.into)
    mask, left, right = (bind.box(operand).reader() for operand in (i.mask, i.a, i.b))
    write, dtype = into.writer(), into.dtype

    def action() -> bool:
        a = dequantize(left(), i.scale_a, i.zero_a)
        b = dequantize(right(), i.scale_b, i.zero_b)
        write(quantize(np.where(mask() != 0, a, b), i.scale, i.zero, dtype))
        return True

    return action


@executes(MatMul)
def matmul(bind: Binder, i: MatMul) -> Action:
    """Whole numbers in float64, which BLAS multiplies: exact, as |sums| stay below 2^53."""
    into = bind.box(i.into)
    left, right, write = bind.box(i.a).reader(), bind.box(i.b).reader(), into.writer()
    none = np.zeros(1, np.int32)
    scale, dtype = np.full(1, i.scale, np.float32), into.dtype

    def action() -> bool:
        a = left().astype(np.float64) - i.zero_a
        b = right().astype(np.float64) - i.zero_b
        sums = np.matmul(a, b).astype(np.int32)
        write(requantize(sums, none, scale, i.zero, dtype))
        return True

    return action


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
