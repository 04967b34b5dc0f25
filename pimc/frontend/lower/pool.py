"""Lower pools: MaxPool, QLinearGlobalAveragePool, and sums written as ConvInteger of ones."""

from __future__ import annotations

import math

import numpy as np
import onnx

from passes.graph import PoolNode
from pimc.frontend.lower.model import ReferenceModel, attributes
from pimc.frontend.lower.state import State
from pimc.frontend.net import QParams


def lower_max_pool(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """The end pads are what the given output size needs, so ceil_mode is no case of its own."""
    given = attributes(node)
    kernel = tuple(given["kernel_shape"])
    axes = len(kernel)
    source = state.value_of(node.input[0], len(state.infos[node.input[0]].shape) - axes - 1)
    qparams = state.held[node.input[0]].qparams
    output = node.output[0]
    info = state.infos[output]
    name = state.make(output, len(info.shape) - axes - 1, qparams)
    sizes = state.infos[node.input[0]].shape[-axes:]
    strides = tuple(given.get("strides") or (1,) * axes)
    dilations = tuple(given.get("dilations") or (1,) * axes)
    begins = tuple(given.get("pads") or (0,) * axes)[:axes]
    ends = tuple(
        max((out - 1) * s + (k - 1) * d + 1 - size - begin, 0)
        for out, s, k, d, size, begin in zip(
            info.shape[-axes:], strides, kernel, dilations, sizes, begins, strict=True
        )
    )
    state.nodes.append(
        PoolNode(
            node.name, (source,), name, "max",
            _pair(kernel), _pair(strides), _pair(dilations), _pads(begins, ends),
        )
    )  # fmt: skip


def lower_global_average(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """One window over all rows and columns; scale = x_scale / (y_scale * count) in float32."""
    x = model.qparams(node.input[1], node.input[2])
    y = model.qparams(node.input[3], node.input[4])
    shape = state.infos[node.input[0]].shape
    is_last = bool(attributes(node).get("channels_last", 0))
    rank = len(shape)
    start = 0 if state.infos[node.input[0]].batched else 1
    axis = rank - 1 if is_last else start
    source = state.with_zero(state.value_of(node.input[0], axis), x)
    name = state.make(node.output[0], axis, y)
    rows, columns, _ = state.values[source].shape
    count = np.float32(rows * columns)
    state.nodes.append(
        PoolNode(
            node.name, (source,), name, "sum", (rows, columns),
            bias=np.array([-x.zero * rows * columns], np.int32),
            scale=np.asarray([x.scale / (y.scale * count)], np.float32),
        )
    )  # fmt: skip


def lower_window_sum(
    state: State, model: ReferenceModel, quantize: onnx.NodeProto, node: onnx.NodeProto
) -> None:
    """ConvInteger of ones, Cast, Mul, QuantizeLinear: an average pool."""
    product = model.makers[quantize.input[0]]
    given = attributes(node)
    kernel = tuple(given["kernel_shape"])
    axes = len(kernel)
    zero = int(model.array(node.input[2]).reshape(()))
    held = state.held[node.input[0]]
    axis = len(held.info.shape) - axes - 1
    source = state.value_of(node.input[0], axis)
    source = state.with_zero(source, held.qparams or QParams(np.float32(1), zero, held.info.dtype))
    y = model.qparams(quantize.input[1], quantize.input[2])
    output = quantize.output[0]
    name = state.make(output, axis, y)
    state.held[output].qparams = None  # its scale of 1 is none: the sum is scaled before
    state.leave_open(name, zero=False, scale=True)
    factor = model.array(product.input[1])
    scale = factor.reshape(1) if factor.size == 1 else factor.reshape(-1, factor.shape[-1], 1)
    pads = tuple(given["pads"])
    state.nodes.append(
        PoolNode(
            node.name, (source,), name, "sum",
            _pair(kernel), _pair(tuple(given["strides"])), _pair(tuple(given["dilations"])),
            _pads(pads[:axes], pads[axes:]),
            bias=np.array([-zero * math.prod(kernel)], np.int32),
            scale=np.asarray(scale, np.float32),
        )
    )  # fmt: skip


def _pair(given: tuple[int, ...]) -> tuple[int, int]:
    return (1, given[0]) if len(given) == 1 else (given[0], given[1])


def _pads(begins: tuple[int, ...], ends: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(begins) == 1:
        return (0, begins[0], 0, ends[0])
    return (begins[0], begins[1], ends[0], ends[1])
