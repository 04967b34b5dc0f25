"""Emit pools: MaxPool on integers, the global average as its own operator, other averages as sums.

An average over a window is ``sat(rint(f32(sum) * scale) + zero)`` with an exact integer sum, so it
is written as a depthwise ConvInteger of ones, a float32 product and a QuantizeLinear of scale 1:
AveragePool itself adds in float32, in an order that onnxruntime does not promise.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pimc.frontend.emit.builder import Builder
from pimc.frontend.emit.windows import Windows, windows_of
from pimc.frontend.net import MICROSOFT, NUMPY_TYPES, Net, Op

_FACTORS = (2.0**-32, 2.0**8)  # of an average that QLinearGlobalAveragePool computes


def emit_max_pool(build: Builder, op: Op) -> None:
    """MaxPool on the integers; padding never wins."""
    windows = windows_of(build.net, op, tuple(op.attributes["kernel_shape"]))
    build.node(
        "MaxPool",
        [build.ints[op.inputs[0]]],
        [build.hold(op.output)],
        op.name,
        kernel_shape=windows.kernel,
        strides=windows.strides,
        dilations=windows.dilations,
        pads=windows.pads,
        ceil_mode=op.attributes.get("ceil_mode", 0),
    )


def emit_global_max(build: Builder, op: Op) -> None:
    """GlobalMaxPool, or ReduceMax over the spatial axes: one window over everything."""
    net = build.net
    kernel = net.shapes[op.inputs[0]][2:]
    source, output = build.ints[op.inputs[0]], build.hold(op.output)
    if len(net.shapes[op.output]) == len(net.shapes[op.inputs[0]]):
        build.node("MaxPool", [source], [output], op.name, kernel_shape=kernel)
        return
    pooled = build.unique(f"{op.output}_pooled")
    _declare_pooled(build, op, pooled)
    build.node("MaxPool", [source], [pooled], op.name, kernel_shape=kernel)
    build.node("Reshape", [pooled, build.target_shape(op.output)], [output], f"{op.name}/squeeze")


def emit_global_average(build: Builder, op: Op) -> None:
    """GlobalAveragePool, or ReduceMean over the spatial axes."""
    net = build.net
    output = build.hold(op.output)
    keeps = len(net.shapes[op.output]) == len(net.shapes[op.inputs[0]])
    pooled = output if keeps else build.unique(f"{op.output}_pooled")
    kernel = net.shapes[op.inputs[0]][2:]
    x, y = build.qparams[op.inputs[0]], build.qparams[op.output]
    if _FACTORS[0] <= x.scale / (y.scale * np.float32(math.prod(kernel))) < _FACTORS[1]:
        parameters = (*build.scale_and_zero(op.inputs[0]), *build.scale_and_zero(op.output))
        inputs = [build.ints[op.inputs[0]], *parameters]
        kind = "QLinearGlobalAveragePool"
        build.node(kind, inputs, [pooled], op.name, MICROSOFT, channels_last=0)
    else:  # numbers that cancel out have averages much smaller than their steps
        _emit_average(build, op, kernel, pooled)
    if not keeps:
        _declare_pooled(build, op, pooled)
        shape = build.target_shape(op.output)
        build.node("Reshape", [pooled, shape], [output], f"{op.name}/squeeze")


def _declare_pooled(build: Builder, op: Op, name: str) -> None:
    """The pooled tensor before its spatial axes are dropped."""
    net = build.net
    shape = net.shapes[op.inputs[0]]
    whole = net.fresh(f"{op.output}_pooled")
    net.shapes[whole] = (*shape[:2], *(1 for _ in shape[2:]))
    if op.inputs[0] in net.batched:
        net.batched.add(whole)
    dtype = build.qparams[op.output].dtype
    build.declare(name, whole, {"s8": onnx.TensorProto.INT8, "u8": onnx.TensorProto.UINT8}[dtype])


def emit_average_pool(build: Builder, op: Op) -> None:
    """AveragePool as an integer sum times 1 / count, where border windows may count less."""
    _emit_average(build, op, tuple(op.attributes["kernel_shape"]), build.hold(op.output))


def _emit_average(build: Builder, op: Op, kernel: tuple[int, ...], output: str) -> None:
    net = build.net
    x, y = build.qparams[op.inputs[0]], build.qparams[op.output]
    windows = windows_of(net, op, kernel)
    counts, pads = average_counts(net, op, windows)
    scale = (np.float64(x.scale) / (np.float64(y.scale) * counts)).astype(np.float32)
    if np.all(scale == scale.flat[0]):
        scale = scale.reshape(-1)[:1].reshape(())
    channels = net.shapes[op.inputs[0]][1]
    ones = np.ones((channels, 1, *windows.kernel), NUMPY_TYPES[x.dtype])
    sums, floats, real = (build.unique(f"{op.output}_{end}") for end in ("sum", "float", "steps"))
    zero = build.scale_and_zero(op.inputs[0])[1]
    build.node(
        "ConvInteger",
        [build.ints[op.inputs[0]], build.constant(f"{op.output}_ones", ones), zero],
        [sums],
        op.name,
        kernel_shape=windows.kernel,
        strides=windows.strides,
        dilations=windows.dilations,
        pads=pads,
        group=channels,
    )
    build.node("Cast", [sums], [floats], f"{op.name}/cast", to=onnx.TensorProto.FLOAT)
    factor = build.constant(f"{op.output}_factor", scale)
    build.node("Mul", [floats, factor], [real], f"{op.name}/divide")
    one = build.constant("unit_scale", np.float32(1))
    inputs = [real, one, build.scale_and_zero(op.output)[1]]
    build.node("QuantizeLinear", inputs, [output], f"{op.name}/quantize")


def average_counts(
    net: Net, op: Op, windows: Windows
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """How many elements each window divides by, [1, 1, *output], and pads for whole windows.

    With ceil_mode the last window may reach beyond the padding: the end pads grow to hold it,
    but those elements never count.
    """
    axes = len(windows.kernel)
    sizes = net.shapes[op.inputs[0]][2:]
    outputs = net.shapes[op.output][2:] or (1,) * axes  # of a reduction that drops its axes
    counts_padding = bool(op.attributes.get("count_include_pad", 0))
    counts: NDArray[np.float64] = np.ones((1, 1))
    ends = []
    for axis in range(axes):
        begin, end = windows.pads[axis], windows.pads[axis + axes]
        needed = (outputs[axis] - 1) * windows.strides[axis] + windows.reach[axis]
        ends.append(max(needed - sizes[axis] - begin, 0))
        line = np.zeros(begin + sizes[axis] + max(end, ends[axis]))
        line[begin : begin + sizes[axis]] = 1
        if counts_padding:
            line[: begin + sizes[axis] + end] = 1
        views = sliding_window_view(line, windows.reach[axis])
        along = views[:: windows.strides[axis], :: windows.dilations[axis]].sum(axis=1)
        counts = np.multiply.outer(counts, along[: outputs[axis]])
    whole = counts.reshape(1, 1, *outputs)
    return np.maximum(whole, 1), (*windows.pads[:axes], *ends)


def spatial_axes(op: Op, net: Net) -> bool:
    """Whether a reduction is over exactly the axes behind batch and channel."""
    rank = len(net.shapes[op.inputs[0]])
    return rank > 2 and reduced_axes(op, net) == set(range(2, rank))


def reduced_axes(op: Op, net: Net) -> set[int] | None:
    """The axes of a reduction; None when they are computed at run time."""
    rank = len(net.shapes[op.inputs[0]])
    axes = op.attributes.get("axes")
    if axes is None and op.input(1):
        if not net.is_constant(op.input(1)):
            return None
        axes = net.constant(op.input(1)).reshape(-1).tolist()
    if not axes:
        return set() if op.attributes.get("noop_with_empty_axes") else set(range(rank))
    return {int(axis) % rank for axis in axes}
