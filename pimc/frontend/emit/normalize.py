"""Emit functions that normalize along an axis: softmax, layer normalization, LRN.

Each is written in whole-number sums and single float32 operations, which IEEE pins down to the
last bit: onnxruntime's own kernels add floats in an order of their own and take exponentials and
powers that nobody promises to round alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from isa.numerics import LOG_ROOTS
from pimc.frontend.emit.builder import Builder
from pimc.frontend.net import Array, Op
from pimc.frontend.norms import groups_of, is_group_norm

_LARGEST = float(np.finfo(np.float32).max)
_FLOAT, _INT32, _INT64 = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
)


class Steps:
    """Adds the nodes of one operator, named after what they do."""

    def __init__(self, build: Builder, op: Op) -> None:
        self.build, self.op = build, op

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        build, op = self.build, self.op
        result = build.unique(f"{op.output}_{op_type.lower()}")
        build.node(op_type, inputs, [result], f"{op.name}/{result}", **attributes)
        return result

    def along(self, op_type: str, source: str, axis: int) -> str:
        """A reduction that keeps its axis."""
        rank = len(self.build.net.shapes[self.op.inputs[0]])
        axes = self.build.constant(f"axis_{axis % rank}", np.array([axis % rank], np.int64))
        return self(op_type, source, axes, keepdims=1)

    def along_last(self, op_type: str, source: str) -> str:
        """A reduction of the last axis, which it keeps."""
        axes = self.build.constant("last_axis", np.array([-1], np.int64))
        return self(op_type, source, axes, keepdims=1)


def emit_softmax(build: Builder, op: Op) -> None:
    """Powers from a table by the distance to the largest integer, over their exact sum."""
    step = Steps(build, op)
    _, power, total, _ = _powers(build, op, step)
    share = step("Div", step("Cast", power, to=_FLOAT), total)
    build.quantize(share, op.output, f"{op.name}/quantize")


def _powers(build: Builder, op: Op, step: Steps) -> tuple[str, str, str, Array]:
    """Distance to the largest integer, the power of it, the sum of these as float, the table."""
    source, axis = op.inputs[0], int(op.attributes.get("axis", -1))
    powers = power_table(float(build.qparams[source].scale), build.net.shapes[source][axis])
    steps = step("Cast", build.ints[source], to=_INT32)
    distance = step("Sub", steps, step.along("ReduceMax", steps, axis))
    index = step("Add", distance, build.constant("last_power", np.int32(255)))
    power = step("Gather", build.constant(f"{op.output}_powers", powers), index, axis=0)
    total = step("Cast", step.along("ReduceSum", power, axis), to=_FLOAT)
    return distance, power, total, powers


def emit_log_softmax(build: Builder, op: Op) -> None:
    """The distance in real numbers, less the logarithm of the sum: see `isa.catalog.LogSoftmax`."""
    step = Steps(build, op)
    distance, _, total, powers = _powers(build, op, step)
    one = build.constant("one_real", np.float32(1))
    root = step("Div", total, build.constant(f"{op.output}_unit", np.float32(powers[255])))
    for _ in range(LOG_ROOTS):
        root = step("Sqrt", root)
    quotient = step("Div", step("Sub", root, one), step("Add", root, one))
    factor = build.constant("log_factor", np.float32(2 << LOG_ROOTS))
    scale = build.constant(f"{op.output}_steps", np.float32(build.qparams[op.inputs[0]].scale))
    real = step("Mul", step("Cast", distance, to=_FLOAT), scale)
    real = step("Sub", real, step("Mul", quotient, factor))
    build.quantize(real, op.output, f"{op.name}/quantize")


def power_table(scale: float, count: int) -> Array:
    """``exp(d * scale) * 2^p`` for d = -255..0 as int32, so that ``count`` of them fit 31 bits."""
    bits = min(24, 30 - max(1, count).bit_length())
    steps = np.arange(-255, 1) * scale
    return np.asarray(np.rint(np.exp(steps) * 2.0**bits), np.int32)


def emit_layer_norm(build: Builder, op: Op) -> None:
    """Over the last axis, or over the places of groups of channels."""
    if is_group_norm(build.net, op):
        emit_group_norm(build, op)
        return
    step, net, source = Steps(build, op), build.net, op.inputs[0]
    count = net.shapes[source][-1]
    real = _normalized(step, step("Cast", build.ints[source], to=_INT64), count)
    gain, offset = (per_channel(build, op, at, count) for at in (1, 2))
    real = step("Add", step("Mul", real, gain), offset)
    build.quantize(real, op.output, f"{op.name}/quantize")


def emit_group_norm(build: Builder, op: Op) -> None:
    """The elements of each group of channels as a row, normalized, and back in their places."""
    step, net, source = Steps(build, op), build.net, op.inputs[0]
    groups = groups_of(net, op)
    count = math.prod(net.shapes[source][1:]) // groups.count
    lead = -1 if source in net.batched else 1
    rows = np.array((lead, groups.count, count), np.int64)
    steps = step("Cast", build.ints[source], to=_INT64)
    steps = step("Reshape", steps, build.constant(f"{op.output}_groups", rows))
    real = step("Reshape", _normalized(step, steps, count), build.target_shape(op.output))
    gain = build.constant(f"{op.output}_gain", groups.gain)
    offset = build.constant(f"{op.output}_offset", groups.offset)
    real = step("Add", step("Mul", real, gain), offset)
    build.quantize(real, op.output, f"{op.name}/quantize")


def _normalized(step: Steps, steps: str, count: int) -> str:
    """Distance to the mean over the deviation, along the last axis, both from exact sums.

    With S and Q the sums of n integers and of their squares, ``(x - mean) / sqrt(var + eps)`` is
    ``(n x - S) / sqrt(n Q - S^2 + eps (n / scale)^2)``: scale and zero point cancel.
    """
    build, op = step.build, step.op
    scale = float(build.qparams[op.inputs[0]].scale)
    whole = float(op.attributes.get("epsilon", 1e-5)) * (count / scale) ** 2
    epsilon = np.float32(min(whole, _LARGEST))  # of a vanishing input nothing but this is left
    many = build.constant(f"count_{count}", np.int64(count))
    total = step.along_last("ReduceSum", steps)
    squares = step.along_last("ReduceSum", step("Mul", steps, steps))
    spread = step("Sub", step("Mul", squares, many), step("Mul", total, total))
    distance = step("Sub", step("Mul", steps, many), total)
    shifted = build.constant(f"{op.output}_epsilon", epsilon)
    root = step("Sqrt", step("Add", step("Cast", spread, to=_FLOAT), shifted))
    return step("Div", step("Cast", distance, to=_FLOAT), root)


def per_channel(build: Builder, op: Op, at: int, count: int, dtype: Any = np.float32) -> str:
    """Gain or offset as floats [count]; an offset that is not given is zero."""
    name = op.input(at)
    values = build.net.constant(name) if name else np.zeros(1)
    whole = np.broadcast_to(values.astype(np.float32).reshape(-1).astype(dtype), (count,))
    return build.constant(f"{op.output}_{('gain', 'offset')[at - 1]}", whole)


def emit_lrn(build: Builder, op: Op) -> None:
    """LRN as whole-number sums, one product, one addition, square roots and a quotient.

    onnxruntime's own LRN keeps a running float sum and a power that is not correctly rounded, so
    nobody could say what it computes to the last bit. Each of these steps is pinned down by IEEE
    (where beta is 0.5, 0.75 or 1), hence the same on every machine.
    """
    given = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0, **op.attributes}
    source, name = op.inputs[0], op.name
    qparams = build.qparams[source]
    size, channels = int(given["size"]), build.net.shapes[source][1]

    step = Steps(build, op)
    one = build.constant(f"{name}/one", np.float32(1))
    zero = build.parameters(source, qparams)[1]
    steps = step("DequantizeLinear", build.ints[source], one, zero)
    band = build.constant(f"{name}/neighbours", _neighbours(channels, size))
    sums = step("Conv", step("Mul", steps, steps), band)
    factor = np.float32(float(given["alpha"]) / size * float(qparams.scale) ** 2)
    norm = step("Mul", sums, build.constant(f"{name}/factor", factor))
    norm = step("Add", norm, build.constant(f"{name}/bias", np.float32(given["bias"])))
    root = _root(step, build, norm, float(np.float32(given["beta"])), name)
    real = step("Mul", steps, build.constant(f"{name}/scale", np.float32(qparams.scale)))
    build.quantize(step("Div", real, root), op.output, f"{name}/quantize")


def _neighbours(channels: int, size: int) -> Array:
    """Weights of a 1x1 convolution that adds up ``size`` neighbouring channels, as ONNX LRN."""
    distance = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    before = (size - 1) // 2
    near = (distance >= -before) & (distance <= size - 1 - before)
    return near.astype(np.float32)[:, :, None, None]


def _root(step: Steps, build: Builder, base: str, beta: float, name: str) -> str:
    """``base^beta``; the Power node where square roots cannot make it."""
    if beta == 1.0:
        return step("Identity", base)
    if beta not in (0.5, 0.75):
        return step("Pow", base, build.constant(f"{name}/beta", np.float32(beta)))
    root = step("Sqrt", base)
    return root if beta == 0.5 else step("Mul", root, step("Sqrt", root))
