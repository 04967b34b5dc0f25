"""Each vector, memory and pooling instruction against its formula in scalar Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine import run_one

from isa.catalog import (
    Accumulate,
    Add,
    Const,
    Copy,
    Fill,
    Gather,
    Load,
    Lookup,
    Lut,
    MatMul,
    MaxPool,
    Mul,
    Requant,
    Select,
    Store,
    Sub,
    SumPool,
)
from isa.catalog_normalize import GroupNorm, LayerNorm, LogSoftmax, Lrn, Moments, Softmax
from isa.diagnostics import PimError
from isa.operands import Affine, Region, Span, region
from isa.program import Buffer, Core, Loop, Program, Tensor
from isa.target import Target, load_target
from runtime.machine import Machine

seeds = given(seed=st.integers(0, 2**32 - 1))
f32 = np.float32


@pytest.fixture(scope="module")
def target() -> Target:
    return load_target("tiny")


@pytest.fixture(scope="module", autouse=True, params=["numpy", "auto"])
def kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both the executors in Python and the operations in C have to give what the formula says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIMC_KERNEL", request.param)
        yield


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def sat(value: Any, dtype: Any) -> int:
    info = np.iinfo(dtype)
    return int(min(max(float(value), info.min), info.max))


@seeds
def test_requant_clamps_after_rounding_half_to_even(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype = rng.choice([np.int8, np.uint8])
    sums = random(rng, (2, 1, 3, 4), np.int32) >> int(rng.integers(0, 24))
    bias, scale = random(rng, (4,), np.int32) >> 16, rng.uniform(0, 0.01, 4).astype(f32)
    scale[0] = 0.5  # half the products are ties
    zero = sat(rng.integers(-128, 256), dtype)
    out = run_one(
        target,
        Requant(Region("into"), Region("s"), "bias", "scale", zero),
        {"s": sums},
        np.zeros(sums.shape, dtype),
        {"bias": bias, "scale": scale},
    )
    for index in np.ndindex(*sums.shape):
        total = (int(sums[index]) + int(bias[index[-1]]) + 2**31) % 2**32 - 2**31
        product = f32(total) * scale[index[-1]]
        assert out[index] == sat(np.rint(product) + f32(zero), dtype)


@pytest.mark.parametrize("cls", [Add, Sub, Mul])
@seeds
def test_arithmetic_rounds_each_operation(
    target: Target, cls: type[Add | Sub | Mul], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    dtype = rng.choice([np.int8, np.uint8])
    a = random(rng, (2, 1, 5, 6), np.int8)
    b = random(rng, (2, 1, int(rng.choice([1, 5])), int(rng.choice([1, 6]))), np.uint8)
    scale_a, scale_b, scale = (float(f32(s)) for s in rng.uniform(0.001, 0.2, 3))
    zero_a, zero_b, zero = int(rng.integers(-128, 128)), int(rng.integers(0, 256)), 7
    i = cls(Region("into"), Region("a"), Region("b"), scale_a, zero_a, scale_b, zero_b, scale, zero)
    out = run_one(target, i, {"a": a, "b": b}, np.zeros(a.shape, dtype))
    combine = {Add: f32.__add__, Sub: f32.__sub__, Mul: f32.__mul__}[cls]
    wide = np.broadcast_to(b, a.shape)
    for index in np.ndindex(*a.shape):
        left = f32(int(a[index]) - zero_a) * f32(scale_a)
        right = f32(int(wide[index]) - zero_b) * f32(scale_b)
        value = combine(left, right) / f32(scale)
        assert out[index] == sat(np.rint(value) + f32(zero), dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
@seeds
def test_lut_looks_up_from_the_smallest_value(
    target: Target, dtype: Any, per_channel: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = random(rng, (2, 1, 4, 3), dtype)
    table = random(rng, (3, 256) if per_channel else (256,), np.uint8)
    i = Lut(Region("into"), Region("x"), "t")
    out = run_one(target, i, {"x": x}, np.zeros(x.shape, np.uint8), {"t": table})
    for index in np.ndindex(*x.shape):
        place = int(x[index]) - np.iinfo(dtype).min
        assert out[index] == (table[index[-1], place] if per_channel else table[place])


@pytest.mark.parametrize("cls", [MaxPool, SumPool])
@seeds
def test_pools_reduce_their_windows(
    target: Target, cls: type[MaxPool | SumPool], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kernel = tuple(int(n) for n in rng.integers(1, 4, 2))
    dilation = tuple(int(n) for n in rng.integers(1, 3, 2))
    stride, windows = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    height = (kernel[0] - 1) * dilation[0] + 1
    width = (windows - 1) * stride + (kernel[1] - 1) * dilation[1] + 1
    x = random(rng, (2, height, width, 3), np.int8)
    kind = np.int8 if cls is MaxPool else np.int32
    i = cls(Region("into"), Region("x"), kernel, stride, dilation)  # type: ignore[arg-type]
    out = run_one(target, i, {"x": x}, np.zeros((2, 1, windows, 3), kind))
    for n, _, w, c in np.ndindex(*out.shape):
        box = x[n, :: dilation[0], w * stride :: dilation[1], c][:, : kernel[1]]
        assert out[n, 0, w, c] == (box.max() if cls is MaxPool else box.astype(int).sum())


@seeds
def test_softmax_is_that_of_float32_within_one_step(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = random(rng, (2, 1, 3, 10), np.int8)
    powers = np.rint(np.exp(np.arange(-255, 1) * 0.05) * 2**24).astype(np.int32)
    i = Softmax(Region("into"), Region("x"), "powers", 1 / 256, -128)
    out = run_one(target, i, {"x": x}, np.zeros(x.shape, np.int8), {"powers": powers})
    real = np.exp(x * 0.05)
    expected = np.rint(real / real.sum(axis=-1, keepdims=True) * 256) - 128
    assert np.abs(out - np.clip(expected, -128, 127)).max() <= 1
    assert len(np.unique(out)) > 3


@seeds
def test_the_logarithm_of_a_softmax_is_that_of_float64_within_one_step(
    target: Target, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    classes, spread, dtype = int(rng.choice([1, 10, 3000])), rng.uniform(0.001, 0.2), np.int8
    x = random(rng, (2, 1, 3, classes), dtype) // int(rng.choice([1, 20, 100]))
    powers = np.rint(np.exp(np.arange(-255, 1) * spread) * 2**18).astype(np.int32)
    real = (x - x.max(axis=-1, keepdims=True).astype(int)) * float(f32(spread))
    real -= np.log(np.exp(real).sum(axis=-1, keepdims=True))
    scale = max(-real.min() / 255, 0.002)  # finer than the 8-bit result of any network
    i = LogSoftmax(Region("into"), Region("x"), "powers", spread, scale, 127)
    out = run_one(target, i, {"x": x}, np.zeros(x.shape, dtype), {"powers": powers})
    assert np.abs(out - np.clip(np.rint(real / scale) + 127, -128, 127)).max() <= 1


@seeds
def test_select_takes_what_the_mask_says(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype, kinds = rng.choice([np.int8, np.uint8]), rng.choice([np.int8, np.uint8], 3)
    shapes = [(2, 1, int(rng.choice([1, 5])), int(rng.choice([1, 6]))) for _ in kinds]
    mask, a, b = (random(rng, shape, kind) for shape, kind in zip(shapes, kinds, strict=True))
    mask //= 100  # often 0
    scales, zeros = [float(f32(s)) for s in rng.uniform(0.01, 0.2, 3)], (3, 90, 7)
    numbers = (scales[0], zeros[0], scales[1], zeros[1], scales[2], zeros[2])
    i = Select(Region("into"), Region("mask"), Region("a"), Region("b"), *numbers)
    into = np.zeros((2, 1, 5, 6), dtype)
    out = run_one(target, i, {"mask": mask, "a": a, "b": b}, into)
    chosen, left, right = (np.broadcast_to(values, into.shape) for values in (mask, a, b))
    for index in np.ndindex(*into.shape):
        if chosen[index]:
            value = f32(int(left[index]) - zeros[0]) * f32(scales[0])
        else:
            value = f32(int(right[index]) - zeros[1]) * f32(scales[1])
        assert out[index] == sat(np.rint(value / f32(scales[2])) + 7, dtype)


@seeds
def test_layer_normalization_is_that_of_float64_within_one_step(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = random(rng, (2, 1, 3, 40), np.int8)
    tables = {name: rng.normal(size=40).astype(np.float32) for name in ("gain", "offset")}
    epsilon = 1e-3 * (40 / 0.05) ** 2
    i = LayerNorm(Region("into"), Region("x"), "gain", "offset", epsilon, 0.03, 4)
    out = run_one(target, i, {"x": x}, np.zeros(x.shape, np.int8), tables)
    real = (x.astype(float) - 7) * 0.05
    real -= real.mean(axis=-1, keepdims=True)
    real /= np.sqrt((real**2).mean(axis=-1, keepdims=True) + 1e-3)
    expected = np.rint((real * tables["gain"] + tables["offset"]) / 0.03) + 4
    assert np.abs(out - np.clip(expected, -128, 127)).max() <= 1
    assert len(np.unique(out)) > 3


@seeds
def test_groups_are_normalized_as_in_float64_within_one_step(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = random(rng, (2, 5, 7, 6), np.int8)
    held = np.zeros((2, 1, 3, 2), np.int32)
    for rows in (x[:, :2], x[:, 2:]):  # sums go on from one instruction to the next
        i = Moments(Region("into"), Region("x"))
        held = run_one(target, i, {"x": rows}, held)
    groups = x.astype(np.int64).reshape(2, 35, 2, 3)
    assert (held[:, 0, 0] == groups.sum(axis=(1, 3))).all()
    squares = (groups**2).sum(axis=(1, 3))
    assert (held[:, 0, 1] == squares // 2**24).all()
    assert (held[:, 0, 2] == squares % 2**24).all()
    tables = {name: rng.normal(size=6).astype(np.float32) for name in ("gain", "offset")}
    epsilon = 1e-3 * (105 / 0.05) ** 2
    i = GroupNorm(Region("into"), Region("x"), Region("sums"), "gain", "offset", 105, epsilon,
                  0.03, 4)  # fmt: skip
    out = run_one(target, i, {"x": x, "sums": held}, np.zeros(x.shape, np.int8), tables)
    real = (groups - 7) * 0.05
    real -= real.mean(axis=(1, 3), keepdims=True)
    real /= np.sqrt((real**2).mean(axis=(1, 3), keepdims=True) + 1e-3)
    expected = np.rint((real.reshape(x.shape) * tables["gain"] + tables["offset"]) / 0.03) + 4
    assert np.abs(out - np.clip(expected, -128, 127)).max() <= 1
    assert len(np.unique(out)) > 3


def test_a_lookup_picks_rows_and_refuses_numbers_beyond_the_table(target: Target) -> None:
    rng = np.random.default_rng(0)
    table = random(rng, (7, 4), np.int8)
    numbers = np.array([[0, 6, -1], [3, -7, 2]], np.int32).reshape(2, 1, 1, 3)
    i = Lookup(Region("into"), Region("numbers"), "table")
    into = np.zeros((2, 1, 3, 4), np.int8)
    out = run_one(target, i, {"numbers": numbers}, into, {"table": table})
    assert (out[:, 0] == table[numbers[:, 0, 0]]).all()
    with pytest.raises(PimError, match=r"R714.*holds 7, but table `table` has 7 rows"):
        run_one(target, i, {"numbers": numbers + 1}, into, {"table": table})


@seeds
def test_a_product_multiplies_each_row_of_two_matrices(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random(rng, (2, 3, 4, 5), np.int8), random(rng, (2, 3, 5, 6), np.uint8)
    i = MatMul(Region("into"), Region("a"), Region("b"), -3, 120, 0.01, 2)
    out = run_one(target, i, {"a": a, "b": b}, np.zeros((2, 3, 4, 6), np.int8))
    sums = np.einsum("nrwk,nrko->nrwo", a.astype(int) + 3, b.astype(int) - 120)
    expected = np.rint(sums.astype(np.float32) * np.float32(0.01)) + 2
    assert (out == np.clip(expected, -128, 127)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_lrn_sums_over_neighbouring_channels(target: Target, size: int) -> None:
    rng = np.random.default_rng(size)
    x = random(rng, (2, 1, 3, 7), np.int8)
    i = Lrn(Region("into"), Region("x"), size, 0.5 / size * 0.1**2, 0.75, 1.5, 0.1, 3, 0.02, -5)
    out = run_one(target, i, {"x": x}, np.zeros(x.shape, np.int8))
    real = (x.astype(float) - 3) * 0.1
    for index in np.ndindex(*x.shape):
        *place, c = index
        low, high = max(0, c - (size - 1) // 2), min(7, c + size // 2 + 1)
        norm = 1.5 + 0.5 / size * (real[(*place, slice(low, high))] ** 2).sum()
        assert abs(out[index] - sat(np.rint(real[index] * norm**-0.75 / 0.02) - 5, np.int8)) <= 1


@seeds
def test_accumulate_adds_in_s32(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (random(rng, (2, 1, 3, 4), np.int32) for _ in range(2))
    out = run_one(target, Accumulate(Region("into"), Region("b")), {"b": b}, a)
    expected = (a.astype(np.int64) + b + 2**31) % 2**32 - 2**31
    assert np.array_equal(out, expected)


@seeds
def test_gather_takes_elements_and_fills_gaps(target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = random(rng, (2, 2, 3, 4), np.int8)
    index = rng.integers(-1, 24, 15).astype(np.int32)
    i = Gather(Region("into"), Region("x"), "i", -9)
    out = run_one(target, i, {"x": x}, np.zeros((2, 1, 5, 3), np.int8), {"i": index})
    for n in range(2):
        flat = [-9 if k < 0 else x[n].ravel()[k] for k in index]
        assert out[n].ravel().tolist() == flat


def test_copy_keeps_row_major_order_between_shapes(target: Target) -> None:
    x = np.arange(24, dtype=np.int8).reshape(1, 2, 3, 4)
    out = run_one(
        target, Copy(Region("into"), Region("x")), {"x": x}, np.zeros((1, 1, 4, 6), np.int8)
    )
    assert out.ravel().tolist() == list(range(24))


def test_copy_within_a_buffer_takes_all_values_first(target: Target) -> None:
    x = np.arange(6, dtype=np.int8).reshape(1, 1, 6, 1)
    i = Copy(region("into", 0, columns=(1, 6)), region("into", 0, columns=(0, 5)))
    assert run_one(target, i, {}, x).ravel().tolist() == [0, 0, 1, 2, 3, 4]


def test_fill_and_const_write_their_region_only(target: Target) -> None:
    x = np.zeros((2, 2, 3, 2), np.int8)
    out = run_one(target, Fill(region("into", 1, columns=(1, 3)), -4), {}, x)
    expected = np.zeros_like(x)
    expected[:, 1, 1:3] = -4
    assert np.array_equal(out, expected)
    table = np.arange(4, dtype=np.int8)
    out = run_one(target, Const(region("into", 0, columns=(0, 2)), "t"), {}, x, {"t": table})
    expected = np.zeros_like(x)
    expected[:, 0, :2] = table.reshape(2, 2)
    assert np.array_equal(out, expected)


def test_padding_keeps_its_fill_and_is_refilled_before_each_run(target: Target) -> None:
    row = Buffer("row", "u8", (1, 4, 1), 0, fill=9)
    inner = region("row", 0, columns=(1, 3))
    body = (
        Load(inner, Region("x")),
        Store(Region("y"), Region("row")),
        Fill(Region("row"), 0),
    )
    shape = (1, 2, 1)
    program = Program(
        "tiny",
        "",
        (
            Tensor("input", "x", "u8", shape, "x", shape, (0, 1, 2)),
            Tensor("output", "y", "u8", (1, 4, 1), "y", (1, 4, 1), (0, 1, 2)),
        ),
        cores=(Core(0, "", (), (row,), body),),
    )
    machine = Machine(program, target)
    for _ in range(2):
        out = machine.run({"x": np.full((1, *shape), 5, np.uint8)}).outputs["y"]
        assert out.ravel().tolist() == [9, 5, 5, 9]


@given(depth=st.integers(2, 5), taken=st.integers(1, 2), step=st.integers(1, 2))
def test_rings_of_any_depth_give_absolute_rows(
    target: Target, depth: int, taken: int, step: int
) -> None:
    """Rows enter one by one; ``taken`` of them are read at once, across the seam of the ring."""
    rows = 9
    y = Affine(0, (("y", 1),))
    body = (
        Loop("y", 0, taken - 1, (Load(Region("ring", Span(y)), Region("x", Span(y))),)),
        Loop(
            "y",
            0,
            rows - taken + 1,
            (
                Load(Region("ring", Span(y + (taken - 1))), Region("x", Span(y + (taken - 1)))),
                MaxPool(Region("top"), Region("ring", Span(y, taken)), (taken, 1), step),
                Store(Region("y", Span(y)), Region("top")),
            ),
        ),
    )
    out_rows, windows = rows - taken + 1, len(range(0, 4, step))
    program = Program(
        "tiny",
        "",
        (
            Tensor("input", "x", "s8", (rows, 4, 2), "x", (rows, 4, 2), (0, 1, 2)),
            Tensor("output", "y", "s8", (out_rows, windows, 2), "y", (1,), (0,)),
        ),
        cores=(
            Core(
                0,
                "",
                (),
                (
                    Buffer("ring", "s8", (depth, 4, 2), 0, ring=True),
                    Buffer("top", "s8", (1, windows, 2), 64),
                ),
                body,
            ),
        ),
    )
    x = random(np.random.default_rng(depth), (2, rows, 4, 2), np.int8)
    out = Machine(program, target).run({"x": x}).outputs["y"]
    both = np.maximum(x[:, :out_rows], x[:, taken - 1 :])
    assert np.array_equal(out, both[:, :, ::step])
