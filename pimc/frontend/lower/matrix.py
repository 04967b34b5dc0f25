"""Lower QLinearConv, QGemm and QLinearMatMul to MatrixNodes, other products to ProductNodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from passes.graph import MatrixNode, ProductNode
from pimc.frontend.lower.model import ReferenceModel, attributes
from pimc.frontend.lower.state import State
from pimc.frontend.net import Array, IntArray, QParams


def lower_conv(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """A convolution; one of one spatial axis becomes one of height 1."""
    x = model.qparams(node.input[1], node.input[2])
    y = model.qparams(node.input[6], node.input[7])
    scale = requant_scale(x, model.array(node.input[4]), y)
    bias = model.array(node.input[8]) if len(node.input) > 8 else None
    weights = centred(model.array(node.input[3]), model.array(node.input[5]), 0)
    _add_conv(state, node, x, weights, bias, scale, node.output[0], y)


def _add_conv(
    state: State,
    node: onnx.NodeProto,
    x: QParams,
    weights: IntArray,
    bias: Array | None,
    scale: NDArray[np.float32],
    output: str,
    y: QParams | None,
) -> None:
    """The MatrixNode of a convolution; its geometry stands in ``node``."""
    given = attributes(node)
    axes, outputs = weights.ndim - 2, len(weights)
    if axes == 1:
        weights = weights[:, :, None, :]
    axis = len(state.infos[node.input[0]].shape) - axes - 1
    source = state.with_zero(state.value_of(node.input[0], axis), x)
    pads = list(given.get("pads") or [0] * 2 * axes)
    top, left, bottom, right = (0, pads[0], 0, pads[1]) if axes == 1 else pads
    name = state.make(output, axis, y)
    state.nodes.append(
        MatrixNode(
            node.name,
            (source,),
            name,
            np.ascontiguousarray(weights.transpose(0, 2, 3, 1)),
            bias_of(bias, outputs),
            scale,
            groups=int(given.get("group", 1)),
            stride=_pair(given.get("strides"), axes),
            dilation=_pair(given.get("dilations"), axes),
            pads=(top, left, bottom, right),
        )
    )


def lower_gemm(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """QGemm with weights [inputs, outputs], as the frontend writes it."""
    y = model.qparams(node.input[7], node.input[8])
    bias = model.array(node.input[6]) if node.input[6] else None
    _lower_product(state, model, node, y, bias)


def lower_matmul(state: State, model: ReferenceModel, node: onnx.NodeProto) -> None:
    """QLinearMatMul of any number of rows with constant weights."""
    y = model.qparams(node.input[6], node.input[7])
    _lower_product(state, model, node, y, None)


def _lower_product(
    state: State, model: ReferenceModel, node: onnx.NodeProto, y: QParams, bias: Array | None
) -> None:
    x = model.qparams(node.input[1], node.input[2])
    weights = centred(model.array(node.input[3]), model.array(node.input[5]), 1)
    tensor, output = node.input[0], node.output[0]
    if output not in state.infos:  # rows of many positions: the Reshapes around carry the shape
        tensor = model.makers[tensor].input[0]
        reshape = model.sole_reader(output)
        assert reshape is not None, "the frontend writes a Reshape behind a QGemm of many rows"
        output = reshape.output[0]
    source, kernel = _vector_source(state, tensor, x, weights)
    name = state.make(output, max(len(state.infos[output].shape) - 1, 0), y)
    scale = requant_scale(x, model.array(node.input[4]), y)
    outputs = weights.shape[1]
    state.nodes.append(
        MatrixNode(node.name, (source,), name, kernel, bias_of(bias, outputs), scale)
    )


def _vector_source(
    state: State, tensor: str, x: QParams, weights: IntArray
) -> tuple[str, IntArray]:
    """The value that a product reads, and the weights [outputs, rows, columns, channels] for it.

    A vector that is a permutation of one whole value (a flattened image) is never laid out: the
    kernel covers the value and the permutation goes into the weights.
    """
    info = state.infos[tensor]
    inputs = weights.shape[0]
    if np.prod(info.shape[:-1]) == 1:
        index, sources = state.locate(state.elements(tensor).reshape(-1))
        if len(sources) == 1 and np.array_equal(np.sort(index), np.arange(inputs)):
            shape = state.values[sources[0]].shape
            if np.prod(shape) == inputs:
                value = state.with_zero(sources[0], x)
                placed = np.empty_like(weights)
                placed[index] = weights
                return value, np.ascontiguousarray(placed.T).reshape(-1, *shape)
    value = state.with_zero(state.value_of(tensor, max(len(info.shape) - 1, 0)), x)
    return value, np.ascontiguousarray(weights.T).reshape(-1, 1, 1, inputs)


def lower_scaled_sums(state: State, model: ReferenceModel, scaled: onnx.NodeProto) -> None:
    """ConvInteger or MatMulInteger, perhaps a bias, Cast, Mul: a float32 row."""
    node = sums_of(model, scaled)
    if node.op_type == "MatMul":
        lower_computed_product(state, model, scaled, node, scaled.output[0], None)
        return
    before = model.makers[model.makers[scaled.input[0]].input[0]]
    bias = model.array(before.input[1]) if before is not node else None
    tensor, output = node.input[0], scaled.output[0]
    info, zero = state.infos[tensor], int(model.array(node.input[2]).reshape(()))
    held = state.held[tensor].qparams or QParams(np.float32(1), zero, info.dtype)
    x = replace(held, zero=zero)
    scale = np.atleast_1d(model.array(scaled.input[1])).reshape(-1)
    is_conv = node.op_type == "ConvInteger"
    weights = centred(model.array(node.input[1]), model.array(node.input[3]), 0 if is_conv else 1)
    if is_conv:
        _add_conv(state, node, x, weights, bias, scale, output, None)
        return
    source, kernel = _vector_source(state, tensor, x, weights)
    name = state.make(output, max(len(state.infos[output].shape) - 1, 0), None)
    sums = bias_of(bias, weights.shape[1])
    state.nodes.append(MatrixNode(scaled.name, (source,), name, kernel, sums, scale))


def sums_of(model: ReferenceModel, scaled: onnx.NodeProto) -> onnx.NodeProto:
    """The product of integers whose sums a Mul scales, behind a Cast and perhaps a bias."""
    node = model.makers[model.makers[scaled.input[0]].input[0]]
    return model.makers[node.input[0]] if node.op_type == "Add" else node


def is_scaled(state: State, model: ReferenceModel, product: onnx.NodeProto) -> bool:
    """Whether the sums of an integer product become a float32 row."""
    node = product
    while node.op_type in (product.op_type, "Add", "Cast"):
        node = model.readers[node.output[0]][0]
    return node.op_type == "Mul" and node.output[0] in state.infos


def lower_computed_product(
    state: State,
    model: ReferenceModel,
    scaled: onnx.NodeProto,
    node: onnx.NodeProto,
    output: str,
    y: QParams | None,
) -> None:
    """MatMul of 32-bit integers, Cast, Mul: both operands are computed."""
    sources = []
    for name in node.input:
        centred = model.makers[name]
        tensor = model.makers[centred.input[0]].input[0]
        info = state.infos[tensor]
        zero = int(model.array(centred.input[1]))
        held = state.held[tensor].qparams or QParams(np.float32(1), zero, info.dtype)
        value = state.value_of(tensor, len(info.shape) - 1)
        sources.append(state.with_zero(value, replace(held, zero=zero)))
    if sources[0] == sources[1]:
        sources[1] = state.copy(sources[1])
    name = state.make(output, len(state.infos[output].shape) - 1, y)
    if y is not None:
        state.held[output].qparams = None  # its scale of 1 is none: the sum is scaled before
        state.leave_open(name, zero=False, scale=True)
    scale = float(model.array(scaled.input[1]))
    state.nodes.append(ProductNode(node.name, (sources[0], sources[1]), name, scale))


def requant_scale(x: QParams, w_scale: Array, y: QParams) -> NDArray[np.float32]:
    """x_scale * w_scale / y_scale in float32, in onnxruntime's order."""
    product = x.scale * np.atleast_1d(w_scale).astype(np.float32)
    return np.asarray(product / y.scale, np.float32)


def centred(values: Array, zero: Array, axis: int) -> IntArray:
    """Weights minus their zero point; int8 where that holds them."""
    shape = [1] * values.ndim
    if zero.size > 1:
        shape[axis] = zero.size
    centred = values.astype(np.int16) - zero.astype(np.int16).reshape(shape)
    fits = centred.min(initial=0) >= -128 and centred.max(initial=0) <= 127
    return np.asarray(centred, np.int8 if fits else np.int16)


def bias_of(bias: Array | None, outputs: int) -> NDArray[np.int32]:
    return np.zeros(outputs, np.int32) if bias is None else bias.astype(np.int32).reshape(-1)


def _pair(given: list[int] | None, axes: int) -> tuple[int, int]:
    """Stride or dilation by row and column."""
    if not given:
        return (1, 1)
    return (1, given[0]) if axes == 1 else (given[0], given[1])
