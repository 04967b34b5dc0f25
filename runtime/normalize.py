"""Executors of the vector unit that normalize: along the channels, and groups of them."""

from __future__ import annotations

import numpy as np

from isa.catalog_normalize import GroupNorm, LayerNorm, LogSoftmax, Lrn, Moments, Softmax
from isa.numerics import LOG_ROOTS, Float32, quantize
from runtime.binding import Action, Binder, executes
from runtime.regions import Array

LOW_BITS = 24  # of a sum of squares, in its second word


@executes(Softmax)
def softmax(bind: Binder, i: Softmax) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype
    powers = bind.tables[i.powers]

    def action() -> bool:
        steps = read().astype(np.int32)
        steps -= steps.max(axis=-1, keepdims=True)
        steps += 255
        power = powers[steps]
        total = power.sum(axis=-1, keepdims=True, dtype=np.int32)
        real = power.astype(np.float32) / total.astype(np.float32)
        write(quantize(real, i.scale, i.zero, dtype))
        return True

    return action


@executes(LogSoftmax)
def logsoftmax(bind: Binder, i: LogSoftmax) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype
    powers, scale = bind.tables[i.powers], np.float32(i.scale_a)

    def action() -> bool:
        steps = read().astype(np.int32)
        steps -= steps.max(axis=-1, keepdims=True)
        total = powers[steps + 255].sum(axis=-1, keepdims=True, dtype=np.int32)
        root = total.astype(np.float32) / powers[255].astype(np.float32)
        for _ in range(LOG_ROOTS):
            root = np.sqrt(root)
        one, factor = np.float32(1), np.float32(2 << LOG_ROOTS)
        real = steps.astype(np.float32) * scale - factor * ((root - one) / (root + one))
        write(quantize(real, i.scale, i.zero, dtype))
        return True

    return action


@executes(LayerNorm)
def layernorm(bind: Binder, i: LayerNorm) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype
    gain, offset = bind.tables[i.gain], bind.tables[i.offset]
    epsilon = np.float32(i.epsilon)

    def action() -> bool:
        steps = read().astype(np.int64)
        count = steps.shape[-1]
        total = steps.sum(axis=-1, keepdims=True)
        squares = np.square(steps).sum(axis=-1, keepdims=True)
        spread = (count * squares - total * total).astype(np.float32)
        real = (count * steps - total).astype(np.float32)
        real /= np.sqrt(spread + epsilon)
        real *= gain
        real += offset
        write(quantize(real, i.scale, i.zero, dtype))
        return True

    return action


@executes(Moments)
def moments(bind: Binder, i: Moments) -> Action:
    into = bind.box(i.into)
    before, read, write = into.reader(), bind.box(i.source).reader(), into.writer()
    groups = into.shape[2]

    def action() -> bool:
        steps = read().astype(np.int64)
        steps = steps.reshape(len(steps), -1, groups, steps.shape[3] // groups)
        total, squares = _sums(before())
        total = total + steps.sum(axis=(1, 3))
        squares = squares + np.square(steps).sum(axis=(1, 3))
        words = (total, squares >> LOW_BITS, squares & (1 << LOW_BITS) - 1)
        write(np.stack(words, axis=1)[:, None].astype(np.int32))
        return True

    return action


def _sums(held: Array) -> tuple[Array, Array]:
    """Sums and sums of squares, int64 [images, groups]."""
    total, high, low = (held[:, 0, column].astype(np.int64) for column in range(3))
    return total, (high << LOW_BITS) + low


@executes(GroupNorm)
def groupnorm(bind: Binder, i: GroupNorm) -> Action:
    into = bind.box(i.into)
    read, write, dtype = bind.box(i.source).reader(), into.writer(), into.dtype
    held = bind.box(i.moments)
    sums, size = held.reader(), into.shape[2] // held.shape[2]
    gain, offset = bind.tables[i.gain], bind.tables[i.offset]
    epsilon = np.float32(i.epsilon)

    def action() -> bool:
        total, squares = _sums(sums())
        spread = (i.count * squares - total * total).astype(np.float32)
        root, total = (
            np.repeat(each, size, axis=1)[:, None, None]
            for each in (np.sqrt(spread + epsilon), total)
        )
        real = (i.count * read().astype(np.int64) - total).astype(np.float32)
        real /= root
        real *= gain
        real += offset
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
