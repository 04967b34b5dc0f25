"""The C engine against Python's executors: the same memory, counts and errors for every program."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine import NAMES, Draft, draft, run

from isa.catalog import (
    Accumulate,
    Add,
    Const,
    Copy,
    Div,
    Elementwise,
    Fill,
    Gather,
    Load,
    Lut,
    MatMul,
    Max,
    MaxPool,
    Min,
    Mul,
    Mvm,
    Pow,
    Recv,
    Requant,
    Select,
    Send,
    Store,
    Sub,
    SumPool,
)
from isa.catalog_float import FLOAT_CLASSES
from isa.catalog_normalize import GroupNorm, LayerNorm, LogSoftmax, Moments, Softmax
from isa.matrix import BlockMatrix
from isa.operands import Affine, Region, Span
from isa.program import Channel, Loop, Matrix
from isa.target import Target, load_target
from runtime.engine import in_c
from runtime.kernel import load_extension
from runtime.streams import PythonEngine

Blocks = Callable[..., BlockMatrix]
EXTENSION = load_extension()
pytestmark = pytest.mark.skipif(EXTENSION is None, reason="the C kernel is not built")
cases = given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    level=st.integers(0, EXTENSION.best_level() if EXTENSION else 0),
)


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("ou9x8", {"adc.bits": "2"})


def sizes(d: Draft) -> tuple[int, int, int]:
    rows, columns = int(d.rng.integers(1, 4)), int(d.rng.integers(1, 6))
    return rows, columns, int(d.pick(1, 2, 3, 5, 16, 33, 600))


@cases
def test_requant_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    _, columns, channels = shape = sizes(d)
    dtype = d.pick(np.int8, np.uint8, np.int32, np.float32)
    tables = ((channels,), (1,), (1, channels), (columns, channels), (columns, 1), ())
    bias = d.table(d.integers(np.int32, d.pick(*tables)) >> d.pick(0, 8, 24))
    scale = d.rng.normal(0, 10.0 ** d.rng.integers(-9, 3), d.pick(*tables)).astype(np.float32)
    if d.pick(True, False):
        scale[...] = 0.5  # half the products are ties
    source, into = d.region(np.int32, shape), d.region(dtype, shape)
    d.values[source.name] >>= d.pick(0, 8, 16, 24)
    if dtype is np.int32 and d.pick(True, False):
        into = source
    zero = d.zero(dtype, d.pick(0, 16))
    d.body.append(Requant(into, source, bias, d.table(scale), zero))
    d.check(target, level, calls=int(into is source or not -(1 << 15) <= zero < 1 << 15))


@pytest.mark.parametrize("cls", [Add, Sub, Mul, Div, Pow, Max, Min])
@cases
def test_arithmetic_equals_python(
    target: Target, cls: type[Elementwise], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    rows, columns, channels = shape = sizes(d)
    types = [d.pick(np.int8, np.uint8, np.int32, np.float32) for _ in "ab"]
    dtype = d.pick(np.int8, np.uint8, np.int32, np.float32)
    shift = d.pick(16, 16, 0)
    zeros = [d.zero(t, shift) for t in (*types, dtype)]
    scales = [d.scale(t) for t in (*types, dtype)]
    into, a = d.region(dtype, shape), d.region(types[0], shape)
    if types[0] is dtype and d.pick(True, False):
        a = into  # in place
    b = d.region(types[1], (rows, d.pick(1, columns), d.pick(1, channels)))
    numbers = (scales[0], zeros[0], scales[1], zeros[1], scales[2], zeros[2])
    d.body.append(cls(into, a, b, *numbers))
    d.check(target, level, calls=int(any(not -(1 << 15) <= zero < 1 << 15 for zero in zeros)))


@cases
def test_lut_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8, np.int32, np.float32)
    table = d.table(d.integers(types[1], d.pick((256,), (shape[2], 256))))
    source, into = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    d.body.append(Lut(into, source, table))
    d.check(target, level)


@cases
def test_accumulate_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    d.body.append(Accumulate(d.region(np.int32, shape), d.region(np.int32, shape)))
    d.check(target, level)


@cases
def test_fill_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32, np.float32)
    d.body.append(Fill(d.region(dtype, sizes(d)), d.zero(dtype)))
    d.check(target, level)


@cases
def test_gather_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32, np.float32)
    source, into = sizes(d), sizes(d)
    index = d.rng.integers(-1, np.prod(source), np.prod(into)).astype(np.int32)
    regions = d.region(dtype, into), d.region(dtype, source)
    d.body.append(Gather(*regions, d.table(index), d.zero(dtype)))
    d.check(target, level)


@cases
def test_select_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    rows, columns, channels = shape = sizes(d)
    types = [d.pick(np.int8, np.uint8) for _ in "imab"]
    into, *operands = (
        d.region(kind, shape if at == 0 else (rows, d.pick(1, columns), d.pick(1, channels)))
        for at, kind in enumerate(types)
    )
    d.values[operands[0].name] //= 100
    if types[2] is types[0] and d.pick(True, False):
        operands[1] = into  # in place
    zeros = [int(d.integers(kind, ())) for kind in (types[2], types[3], types[0])]
    scales = [float(np.float32(s)) for s in 10.0 ** d.rng.uniform(-4, 1, 3)]
    numbers = (scales[0], zeros[0], scales[1], zeros[1], scales[2], zeros[2])
    d.body.append(Select(into, *operands, *numbers))
    d.check(target, level)


@pytest.mark.parametrize("cls", [Softmax, LogSoftmax])
@cases
def test_softmax_equals_python(
    target: Target, cls: type[Softmax | LogSoftmax], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8)
    steps = np.arange(-255, 1) * d.rng.uniform(0.01, 0.5)
    powers = d.table(np.rint(np.exp(steps) * 2**20).astype(np.int32))
    into, source = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    scales = (1 / 256,) if cls is Softmax else (float(d.rng.uniform(0.01, 0.5)), 0.05)
    d.body.append(cls(into, source, powers, *scales, zero=int(d.integers(types[0], ()))))
    d.check(target, level)


@cases
def test_layernorm_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8)
    gain, offset = (d.table(d.rng.normal(size=shape[2]).astype(np.float32)) for _ in "go")
    into, source = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    numbers = (float(np.float32(d.rng.uniform(0.1, 100))), 0.03, int(d.integers(types[0], ())))
    d.body.append(LayerNorm(into, source, gain, offset, *numbers))
    d.check(target, level)


@cases
def test_moments_equal_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    rows, columns, channels = sizes(d)
    groups = int(d.pick(1, channels, *(n for n in (2, 3, 8) if channels % n == 0)))
    into = d.region(np.int32, (1, 3, groups))
    d.body.append(Moments(into, d.region(d.pick(np.int8, np.uint8), (rows, columns, channels))))
    d.check(target, level)


def test_moments_of_more_columns_than_32_bits_hold_equal_python(target: Target) -> None:
    d = draft(0, 1)
    into, source = d.region(np.int32, (1, 3, 1)), d.region(np.uint8, (2, 50_000, 1))
    d.values[source.name][:] = 255
    d.body.append(Moments(into, source))
    d.check(target, 0)


@cases
def test_groupnorm_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    shape = sizes(d)
    types = d.pick(np.int8, np.uint8), d.pick(np.int8, np.uint8)
    into, source = d.region(types[0], shape), d.region(types[1], shape)
    if types[0] is types[1] and d.pick(True, False):
        source = into
    groups = int(d.pick(1, shape[2], *(n for n in (2, 3, 8) if shape[2] % n == 0)))
    held = d.region(np.int32, (1, 3, groups))
    values, count = d.values[held.name], int(d.pick(1, 50, 2**23))
    values[:] = d.rng.integers(0, 256, values.shape)  # S^2 below 2^16, so that a root exists
    tables = [
        d.table(d.rng.normal(size=size).astype(np.float32))
        for size in (d.pick(shape[2:], (1,), shape[1:], (1, shape[2]), (shape[1], 1)) for _ in "go")
    ]
    numbers = (count, float(np.float32(d.rng.uniform(2e5, 1e6))), 0.03)
    zero = int(d.integers(types[0], ()))
    d.body.append(GroupNorm(into, source, held, *tables, *numbers, zero))
    d.check(target, level)


@cases
def test_matmul_equals_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    rows, columns, inputs = sizes(d)
    outputs = int(d.pick(1, 5, 16, 40))
    into, a, b = (d.pick(np.int8, np.uint8) for _ in "iab")
    into = d.pick(into, into, np.float32)
    zeros = [d.zero(t) for t in (a, b, into)]
    regions = (
        d.region(into, (rows, columns, outputs)),
        d.region(a, (rows, columns, inputs)),
        d.region(b, (rows, inputs, outputs)),
    )
    scale = float(np.float32(10.0 ** d.rng.uniform(-6, -2)))
    d.body.append(MatMul(*regions, zeros[0], zeros[1], scale, zeros[2]))
    d.check(target, level)


def two_shapes(d: Draft) -> list[tuple[int, int, int]]:
    """Two shapes of as many elements."""
    rows, columns, channels = shape = sizes(d)
    others = (shape, (columns, rows, channels), (1, 1, rows * columns * channels))
    return [shape, d.pick(*others)]


@pytest.mark.parametrize("cls", [Copy, Load, Store])
@cases
def test_copies_equal_python(
    target: Target, cls: type[Copy | Load | Store], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    into, source = (d.region(dtype, shape) for shape in two_shapes(d))
    d.body.append(cls(into, source))
    d.check(target, level)


@cases
def test_messages_equal_python(target: Target, seed: int, images: int, level: int) -> None:
    d = draft(seed, images)
    dtype = d.pick(np.int8, np.uint8, np.int32)
    shapes = two_shapes(d)
    source, into = (d.region(dtype, shape) for shape in shapes)
    room = (int(d.rng.integers(1, 3)), int(np.prod(shapes[0])))
    depth = int(d.rng.integers(1, 4))
    d.channels.append(Channel("c", 0, 0, NAMES[np.dtype(dtype)], room, depth, 0))
    d.body += [Send("c", source)] * depth + [Recv(into, "c")] * depth
    d.check(target, level)


def windows(d: Draft) -> tuple[tuple[int, int, int], int, dict[str, Any]]:
    """Shape of a source, its windows, and their geometry."""
    kernel, dilation = (d.pick(1, 2, 3), d.pick(1, 2, 3)), (d.pick(1, 2), d.pick(1, 2))
    stride, count = d.pick(1, 2, 3), int(d.rng.integers(1, 12))
    rows = (kernel[0] - 1) * dilation[0] + 1
    columns = (count - 1) * stride + (kernel[1] - 1) * dilation[1] + 1 + int(d.rng.integers(2))
    channels = int(d.pick(1, 2, 3, 16, 21))
    geometry = {"kernel": kernel, "dilation": dilation, "stride": stride}
    return (rows, columns, channels), count, geometry


@pytest.mark.parametrize("cls", [MaxPool, SumPool])
@cases
def test_pools_equal_python(
    target: Target, cls: type[MaxPool | SumPool], seed: int, images: int, level: int
) -> None:
    d = draft(seed, images)
    shape, count, geometry = windows(d)
    dtype = d.pick(np.int8, np.uint8)
    into = d.region(np.int32 if cls is SumPool else dtype, (1, count, shape[2]))
    d.body.append(cls(into, d.region(dtype, shape), **geometry))
    d.check(target, level)


@pytest.mark.parametrize("path", ["auto", "table", "popcount"])
@cases
def test_products_equal_python(
    target: Target, dense_blocks: Blocks, path: str, seed: int, images: int, level: int
) -> None:
    """The ADC of 2 bits clips; at level 0 the linear product is Python's."""
    d = draft(seed, images)
    shape, count, geometry = windows(d)
    inputs = geometry["kernel"][0] * geometry["kernel"][1] * shape[2]
    weights = d.integers(np.int8, (inputs, int(d.pick(1, 5, 16, 40))))
    weights[:, 0] = d.pick(0, -1)  # nothing clips there, or often
    blocks = dense_blocks(weights.astype(np.int32), 9)
    d.matrices.append(Matrix("m", "m", (0, shape[2]), (0, blocks.outputs), blocks))
    into = d.region(np.int32, (1, count, blocks.outputs))
    source = d.region(d.pick(np.int8, np.uint8), shape)
    d.body.append(Mvm(into, "m", source, **geometry))
    with mock.patch.dict(os.environ, PIMC_PATH=path):
        d.check(target, level, calls=int(path == "auto" and level == 0))


def test_each_lowered_instruction_is_compared_here() -> None:
    compared = {Requant, Add, Sub, Mul, Max, Min, Lut, Accumulate, Fill, Copy, Load, Store}
    compared |= {Send, Recv, MaxPool, SumPool, Mvm, Gather, MatMul, Softmax, LayerNorm, Div, Pow}
    compared |= {LogSoftmax, Select}
    compared |= set(FLOAT_CLASSES)  # in test_real.py
    compared |= {Moments, GroupNorm}
    assert set(in_c()) == {cls.mnemonic for cls in compared}


def test_what_c_does_not_do_is_called_back_with_the_loop_variables(target: Target) -> None:
    d = draft(0, 2)
    d.body.append(Const(d.region(np.int8, (1, 1, 3)), d.table(np.arange(3, dtype=np.int8))))
    whole = d.region(np.int8, (4, 2, 2))
    within = replace(whole, rows=Span(Affine(0, (("y", 1),)), 1))
    d.body.append(Copy(within, replace(whole, rows=Span(Affine(1), 1))))  # may overlap
    d.check(target, 0, calls=2)


def test_nested_loops_of_any_step_run_as_in_python(target: Target) -> None:
    d = draft(1, 1)
    region = d.region(np.int8, (1, 1, 1))
    ring = Region(region.name, Span(Affine(0, (("x", 3), ("y", 1))), 1), *[Span(Affine(), 1)] * 2)
    d.buffers[0] = replace(d.buffers[0], ring=True)
    empty = Loop("x", 2, 2, (Fill(ring, 9),))
    d.body += [Loop("x", -3, 8, (Fill(ring, 5), Loop("z", 0, 2, (Fill(ring, 6),))), 4), empty]
    d.check(target, 0)


def test_streams_can_be_forced_into_python(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    d = draft(0, 1)
    d.body.append(Fill(d.region(np.int8, (1, 2, 3)), 7))
    monkeypatch.setenv("PIMC_STREAMS", "python")
    feeds = {f"in_{name}": values for name, values in d.values.items()}
    assert isinstance(run(d.program(), target, feeds, "c")[1], PythonEngine)
