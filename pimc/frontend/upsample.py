"""Upsample: what makes more places of fewer, as a convolution with an output channel per phase.

Output ``s * q + r`` of an axis is phase ``r`` of an ordinary convolution at place ``q``; a shuffle
lays the phases side by side. So run transposed convolutions and linear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pimc.frontend.net import Array, Op, Quantized
from pimc.frontend.writer import Writer

_MOST_PHASES = 64  # of an interpolation; each is a set of weights per channel
_CENTERED = frozenset(("half_pixel", "pytorch_half_pixel"))


def conv_transpose(write: Writer) -> list[Op] | None:
    """Output ``s * q + r`` of an axis is phase ``r`` of an ordinary convolution at place ``q``.

    Phase ``r`` uses every s-th weight from the r-th on, in reverse. The phases are output
    channels of one convolution; a shuffle lays them side by side and the pads are cut off.
    """
    net, op = write.net, write.op
    weights = net.quantized.get(op.inputs[1])
    if weights is None and op.inputs[1] not in net.constants:
        return None
    bias = net.constant(op.input(2)) if net.is_constant(op.input(2)) else None
    if (op.input(2) and bias is None) or len(write.shape()) not in (3, 4, 5):
        return None
    sizes, outputs = write.shape()[2:], net.shapes[op.output][2:]
    axes = len(sizes)
    strides = list(op.attributes.get("strides") or [1] * axes)
    begins, kernel = _transposed_pads(op, net.shapes[op.inputs[1]][2:], sizes, outputs)
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    places = [
        max((b + out - 1) // s + 1, size)
        for b, out, s, size in zip(begins, outputs, strides, sizes, strict=True)
    ]
    group, phases = int(op.attributes.get("group", 1)), math.prod(strides)
    name = _phase_weights(write, weights, strides, taps, group)
    inputs = [op.inputs[0], name]
    if bias is not None:
        inputs.append(write.constant("bias", np.repeat(bias.reshape(-1), phases)))
    ends = [places[a] - sizes[a] for a in range(axes)]
    channels = net.shapes[op.output][1]
    conv = write.add(
        "Conv",
        inputs,
        (write.shape()[0], channels * phases, *places),
        group=group,
        pads=[*(t - 1 for t in taps), *ends],
        kernel_shape=taps,
    )
    _shuffle(write, conv, strides, places, begins)
    return write.ops


def _transposed_pads(
    op: Op, kernel: Sequence[int], sizes: Sequence[int], outputs: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Pads before each axis, and the kernel with its dilation spread out."""
    axes = len(sizes)
    given = op.attributes
    strides = given.get("strides") or [1] * axes
    dilations = given.get("dilations") or [1] * axes
    extra = given.get("output_padding") or [0] * axes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if given.get("auto_pad", "NOTSET") == "NOTSET" and not given.get("output_shape"):
        return list(given.get("pads") or [0] * 2 * axes)[:axes], reach
    begins = []
    for axis in range(axes):
        whole = strides[axis] * (sizes[axis] - 1) + extra[axis] + reach[axis]
        total = max(whole - outputs[axis], 0)
        is_upper = given.get("auto_pad") == "SAME_UPPER"
        begins.append(total // 2 if is_upper else total - total // 2)
    return begins, reach


def _phase_weights(
    write: Writer, held: Quantized | None, strides: list[int], taps: list[int], group: int
) -> str:
    """Weights [outputs * phases, channels / group, *taps] as a constant, integers kept."""
    net, op = write.net, write.op
    arrange = _Phases(strides, taps, op.attributes.get("dilations") or [1] * len(taps), group)
    if held is None:
        return write.constant("weights", arrange(net.constants[op.inputs[1]], 0))
    if held.axis is not None or held.zero.size != 1:
        return write.constant("weights", arrange(held.real(), 0))
    name = net.fresh(f"{op.output}_weights")
    values = arrange(held.values, held.zero.reshape(()))
    net.quantized[name], net.shapes[name] = replace(held, values=values), values.shape
    return name


class _Phases:
    """Rearranges the weights [C, M / group, *kernel] of a transposed convolution by phases."""

    def __init__(
        self, strides: Sequence[int], taps: Sequence[int], dilations: Sequence[int], group: int
    ) -> None:
        self.strides, self.taps, self.dilations, self.group = strides, taps, dilations, group

    def __call__(self, weights: Array, zero: Any) -> Array:
        axes = len(self.taps)
        inputs, width = weights.shape[0] // self.group, weights.shape[1]
        padded = np.full(
            (*weights.shape[:2], *(t * s for t, s in zip(self.taps, self.strides, strict=True))),
            zero,
            weights.dtype,
        )
        spread = tuple(slice(0, (k - 1) * d + 1, d) for k, d in
                       zip(weights.shape[2:], self.dilations, strict=True))  # fmt: skip
        padded[(slice(None), slice(None), *spread)] = weights
        split = [n for t, s in zip(self.taps, self.strides, strict=True) for n in (t, s)]
        parts = padded.reshape(self.group, inputs, width, *split)
        taps, phases = range(3, 3 + 2 * axes, 2), range(4, 3 + 2 * axes, 2)
        parts = np.flip(parts, tuple(taps)).transpose(0, 2, *phases, 1, *taps)
        return np.ascontiguousarray(parts.reshape(-1, inputs, *self.taps))


def _shuffle(
    write: Writer, source: str, strides: list[int], places: list[int], begins: list[int]
) -> None:
    """Lay the phases side by side, and cut off what lies before and behind the output."""
    net, axes = write.net, len(strides)
    outputs = net.shapes[write.op.output]
    whole = [p * s for p, s in zip(places, strides, strict=True)]
    if math.prod(strides) > 1:
        order = [0, 1, *(n for a in range(axes) for n in (2 + axes + a, 2 + a))]
        split = [*outputs[:2], *strides, *places]
        parts = write.reshape(source, split, "phases")
        shape = [split[axis] for axis in order]
        turned = write.add("Transpose", (parts,), shape, "interleave", perm=order)
        source = write.reshape(turned, (*outputs[:2], *whole), "shuffle")
    numbers = [begins, [b + n for b, n in zip(begins, outputs[2:], strict=True)]]
    cuts = [np.array(line, np.int64) for line in (*numbers, range(2, 2 + axes))]
    names = [write.constant(f"cut{at}", cut) for at, cut in enumerate(cuts)]
    write.add("Slice", (source, *names), None, "cut")


def interpolate(write: Writer) -> list[Op] | None:
    """A linear Resize by whole factors: three taps of each axis; from single elements, copies."""
    net, op = write.net, write.op
    shape, result = write.shape(), net.shapes[op.output]
    if op.attributes.get("mode") != "linear" or op.attributes.get("antialias"):
        return None
    if len(shape) not in (3, 4, 5) or shape[:2] != result[:2]:
        return None
    if any(name and not net.is_constant(name) for name in op.inputs[1:]):
        return None
    resized = [axis for axis in range(2, len(shape)) if result[axis] != shape[axis]]
    if resized and all(shape[axis] == 1 for axis in resized):
        write.add("Expand", (op.inputs[0], write.constant("shape", np.array(result))), None)
        return write.ops
    centered = op.attributes.get("coordinate_transformation_mode", "half_pixel")
    if centered not in _CENTERED | {"asymmetric"}:
        return None
    if any(large % small for large, small in zip(result, shape, strict=True)):
        return None
    factors = [large // small for large, small in zip(result[2:], shape[2:], strict=True)]
    if not 1 < math.prod(factors) <= _MOST_PHASES:
        return None
    _interpolate(write, factors, centered in _CENTERED)
    return write.ops


def _interpolate(write: Writer, factors: list[int], is_centered: bool) -> None:
    shape = write.shape()
    channels, places = shape[1], list(shape[2:])
    taps = [3 if factor > 1 else 1 for factor in factors]
    reach = [tap // 2 for tap in taps]
    pads = write.constant("pads", np.array([0, 0, *reach] * 2, np.int64))
    padded = [size + 2 * pad for size, pad in zip(places, reach, strict=True)]
    source = write.add(
        "Pad", (write.op.inputs[0], pads), (*shape[:2], *padded), "border", mode="edge"
    )
    filters = _linear_taps(factors[0], is_centered)
    for factor in factors[1:]:  # phases and taps of all axes
        other = _linear_taps(factor, is_centered)
        filters = np.einsum("p...,qt->pq...t", filters, other).reshape(
            -1, *filters.shape[1:], other.shape[1]
        )
    weights = np.tile(filters.astype(np.float32)[:, None], (channels, *[1] * filters.ndim))
    conv = write.add(
        "Conv",
        (source, write.constant("weights", weights)),
        (shape[0], len(weights), *places),
        "phases_of",
        group=channels,
        kernel_shape=taps,
    )
    _shuffle(write, conv, factors, places, [0] * len(factors))


def _linear_taps(factor: int, is_centered: bool) -> Array:
    """Weights [phases, taps] of the places before, at and behind; [1, 1] where nothing changes."""
    if factor == 1:
        return np.ones((1, 1))
    ahead = (np.arange(factor) + 0.5 * is_centered) / factor - 0.5 * is_centered
    taps = np.zeros((factor, 3))
    taps[:, 0], taps[:, 2] = np.maximum(-ahead, 0), np.maximum(ahead, 0)
    taps[:, 1] = 1 - np.abs(ahead)
    return taps
