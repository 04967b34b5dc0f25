"""Expand: operators written exactly as simpler ones, which the machine has.

A transposed convolution becomes a convolution with one output channel per phase of the stride and
a shuffle; a reduction over any axes becomes a global pool over their product; layer normalization
over several axes becomes one over their product; a recurrent layer becomes cells of one direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pimc.frontend.emit.pool import reduced_axes, spatial_axes
from pimc.frontend.net import Array, Net, Op, Quantized
from pimc.frontend.recurrent import write_recurrent
from pimc.frontend.writer import Writer

_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceSum": "GlobalAveragePool"}
_POOLS |= {"ReduceMax": "GlobalMaxPool", "ReduceMin": "GlobalMaxPool"}


def expand(net: Net) -> None:
    """Rewrite ``net`` in place; what does not fit a rewrite stays for the checks to refuse."""
    ops: list[Op] = []
    for op in net.ops:
        rewrite = None if op.domain else _REWRITES.get(op.op_type)
        results = [name for name in op.outputs if name]
        known = all(name in net.shapes for name in (*op.inputs[:1], *results))
        written = rewrite(Writer(net, op)) if rewrite and known else None
        ops += written or [op]
    net.ops = ops


# ---------------------------------------------------------------------- transposed convolution
def _conv_transpose(write: Writer) -> list[Op] | None:
    """Output ``s * q + r`` of an axis is phase ``r`` of an ordinary convolution at place ``q``.

    Phase ``r`` uses every s-th weight from the r-th on, in reverse. The phases are output
    channels of one convolution; a shuffle lays them side by side and the pads are cut off.
    """
    net, op = write.net, write.op
    weights = net.quantized.get(op.inputs[1])
    if weights is None and op.inputs[1] not in net.constants:
        return None
    bias = net.constant(op.input(2)) if net.is_constant(op.input(2)) else None
    if (op.input(2) and bias is None) or len(write.shape()) not in (3, 4):
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


# ---------------------------------------------------------------------- reductions
def _reduction(write: Writer) -> list[Op] | None:
    """Over any axes but the batch: the reduced ones last, as one, under a global pool."""
    net, op, shape = write.net, write.op, write.shape()
    axes = reduced_axes(op, net)
    is_pool = op.op_type in ("ReduceMean", "ReduceMax") and spatial_axes(op, net)
    if axes is None or is_pool or not axes or 0 in axes:
        return None
    kept = [axis for axis in range(1, len(shape)) if axis not in axes]
    order = [0, *kept, *sorted(axes)]
    rows = math.prod(shape[axis] for axis in kept)
    count = math.prod(shape[axis] for axis in axes)
    source = op.inputs[0]
    if order != sorted(order):
        source = write.add("Transpose", (source,), [shape[a] for a in order], "order", perm=order)
    source = write.reshape(source, (shape[0], rows, count), "flatten")
    if op.op_type == "ReduceMin":
        source = write.add("Neg", (source,), (shape[0], rows, count), "negative")
    pooled = write.add(_POOLS[op.op_type], (source,), (shape[0], rows, 1))
    if op.op_type == "ReduceMin":
        pooled = write.add("Neg", (pooled,), (shape[0], rows, 1), "positive")
    if op.op_type == "ReduceSum":
        factor = write.constant("count", np.array(count, np.float32))
        pooled = write.add("Mul", (pooled, factor), (shape[0], rows, 1), "sum")
    write.reshape(pooled, None, "unflatten")
    return write.ops


# ---------------------------------------------------------------------- normalization
def _layer_norm(write: Writer) -> list[Op] | None:
    """Over several trailing axes: one axis that is their product."""
    net, op, shape = write.net, write.op, write.shape()
    axis = int(op.attributes.get("axis", -1)) % len(shape)
    constants = [name for name in op.inputs[1:] if name]
    if not 0 < axis < len(shape) - 1 or not all(net.is_constant(name) for name in constants):
        return None
    rows = (*shape[:axis], math.prod(shape[axis:]))
    flat = write.reshape(op.inputs[0], rows, "flatten")
    names = [
        write.constant(
            f"parameter{at}", np.broadcast_to(net.constant(name), shape[axis:]).reshape(-1)
        )
        for at, name in enumerate(constants)
    ]
    attributes = {**op.attributes, "axis": -1}
    normed = write.add("LayerNormalization", (flat, *names), rows, **attributes)
    write.reshape(normed, None, "unflatten")
    return write.ops


_REWRITES: dict[str, Callable[[Writer], list[Op] | None]] = {
    "ConvTranspose": _conv_transpose,
    "LayerNormalization": _layer_norm,
    **dict.fromkeys(_POOLS, _reduction),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), write_recurrent),
}
