"""Layers: the Conv, Gemm and MatMul nodes of a float ONNX model that compression can work on.

All of them are seen as convolutions: weights [O, C / groups, kernel rows, kernel columns], bias
[O]; a fully connected layer has a 1x1 kernel, a 1-D convolution a kernel of one row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
_WINDOW_BYTES = 1 << 26  # of unfolded inputs held at a time


@dataclass(frozen=True)
class MatrixLayer:
    """One node with constant weights. Two numbers each: (rows, columns); pads: top, left, bottom,
    right. weight_first: the ONNX weight has the outputs on axis 0 (Conv, Gemm with transB).
    """

    name: str
    op_type: str
    index: int
    source: str
    output: str
    weight: str
    bias: str
    shape: tuple[int, int, int, int]
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    auto_pad: str = "NOTSET"
    spatial: int = 0
    weight_first: bool = True

    @property
    def positions(self) -> int:
        return self.shape[2] * self.shape[3]

    @property
    def can_have_bias(self) -> bool:
        """MatMul has no bias input; Conv and Gemm get one when they have none."""
        return self.op_type != "MatMul"


def find_layers(model: onnx.ModelProto) -> list[MatrixLayer]:
    """Layers in the order of the graph, which is topological.

    Left out, and so never changed: weights that are no initializer, are shared or are an output of
    several nodes; 3-D convolutions; Gemm with transA, or alpha or beta other than 1.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    found = []
    for index, node in enumerate(model.graph.node):
        weight = node.input[1] if len(node.input) > 1 else ""
        bias = node.input[2] if len(node.input) > 2 else ""
        if weight not in constants or uses[weight] != 1 or node.input[0] in constants:
            continue
        if constants[weight].data_type != onnx.TensorProto.FLOAT:
            continue
        if bias and (bias not in constants or uses[bias] != 1):
            continue
        layer = _layer(index, node, tuple(constants[weight].dims), bias, constants)
        if layer is not None:
            found.append(layer)
    return found


def _layer(
    index: int,
    node: onnx.NodeProto,
    dims: tuple[int, ...],
    bias: str,
    constants: dict[str, onnx.TensorProto],
) -> MatrixLayer | None:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    common = {
        "name": node.name or node.output[0],
        "op_type": node.op_type,
        "index": index,
        "source": node.input[0],
        "output": node.output[0],
        "weight": node.input[1],
        "bias": bias,
    }
    if node.op_type == "Conv" and len(dims) in (3, 4):
        return _convolution(common, attributes, dims)
    if node.op_type == "Gemm":
        plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
        outputs = dims[0] if attributes.get("transB") else dims[1]
        vector = not bias or tuple(constants[bias].dims) in ((outputs,), (1, outputs))
        if not plain or attributes.get("transA") or not vector:
            return None
        return _dense(common, dims, bool(attributes.get("transB")))
    if node.op_type == "MatMul" and len(dims) == 2:
        return _dense(common, dims, False)
    return None


def _dense(common: dict[str, Any], dims: tuple[int, ...], weight_first: bool) -> MatrixLayer:
    outputs, inputs = dims if weight_first else dims[::-1]
    return MatrixLayer(**common, shape=(outputs, inputs, 1, 1), weight_first=weight_first)


def _convolution(
    common: dict[str, Any], attributes: dict[str, Any], dims: tuple[int, ...]
) -> MatrixLayer:
    spatial = len(dims) - 2
    lift = 2 - spatial  # a 1-D convolution works on one row
    pads = list(attributes.get("pads", [0] * 2 * spatial))
    begin, end = [0] * lift + pads[:spatial], [0] * lift + pads[spatial:]
    stride = [1] * lift + list(attributes.get("strides", [1] * spatial))
    dilation = [1] * lift + list(attributes.get("dilations", [1] * spatial))
    kernel = [1] * lift + list(dims[2:])
    return MatrixLayer(
        **common,
        shape=(dims[0], dims[1], kernel[0], kernel[1]),
        groups=int(attributes.get("group", 1)),
        stride=(stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        pads=(begin[0], begin[1], end[0], end[1]),
        auto_pad=attributes.get("auto_pad", b"NOTSET").decode(),
        spatial=spatial,
    )


def read_layer(model: onnx.ModelProto, layer: MatrixLayer) -> tuple[Array, Array]:
    """float64 weights [O, C / groups, kernel rows, kernel columns] and bias [O]."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    held = numpy_helper.to_array(constants[layer.weight]).astype(np.float64)
    weights = (held if layer.weight_first else held.T).reshape(layer.shape)
    bias = np.zeros(layer.shape[0])
    if layer.bias:
        bias = numpy_helper.to_array(constants[layer.bias]).astype(np.float64).reshape(-1)
    return weights, bias


def write_layer(model: onnx.ModelProto, layer: MatrixLayer, weights: Array, bias: Array) -> None:
    """Put weights and bias into the model, as float32; a missing bias is added when it is not 0."""
    held = onnx_weights(layer, weights).astype(np.float32)
    replace_tensor(model, layer.weight, held)
    write_bias(model, layer, bias)


def write_bias(model: onnx.ModelProto, layer: MatrixLayer, bias: Array) -> None:
    """Put a bias [O] into the model; the node gets a bias input when it has none."""
    if layer.bias:
        dims = next(t.dims for t in model.graph.initializer if t.name == layer.bias)
        shape = (1, len(bias)) if len(dims) == 2 else (len(bias),)
        replace_tensor(model, layer.bias, bias.astype(np.float32).reshape(shape))
    elif layer.can_have_bias and np.any(bias):
        node = model.graph.node[layer.index]
        name = f"{layer.weight}_bias"
        del node.input[2:]
        node.input.append(name)
        replace_tensor(model, name, bias.astype(np.float32))


def onnx_weights(layer: MatrixLayer, weights: Array) -> Array:
    """``weights`` in the axes of the ONNX node."""
    outputs = weights.shape[0]
    if layer.op_type == "Conv":
        return weights[:, :, 0] if layer.spatial == 1 else weights
    flat = weights.reshape(outputs, -1)
    return flat if layer.weight_first else np.ascontiguousarray(flat.T)


def replace_tensor(model: onnx.ModelProto, name: str, values: Array) -> None:
    """Set an initializer, or add it."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
            return
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))


def windows(layer: MatrixLayer, inputs: Array, targets: Array) -> Iterator[tuple[Array, Array]]:
    """Chunks of unfolded inputs [groups, windows, K] and of targets [windows, O].

    inputs, targets: tensors of the layer with the images on axis 0. A window's elements are in
    (channel, kernel row, kernel column) order, as in the weights.
    """
    if layer.op_type != "Conv":
        flat = inputs.reshape(1, -1, inputs.shape[-1])
        yield flat, targets.reshape(-1, targets.shape[-1])
        return
    images = inputs[:, :, None] if layer.spatial == 1 else inputs
    wanted = targets[:, :, None] if layer.spatial == 1 else targets
    rows, columns = wanted.shape[2:]
    view = _window_view(layer, images)[:, :, :rows, :columns]
    count, channels = view.shape[:2]
    size = channels // layer.groups * layer.positions
    span = max(1, _WINDOW_BYTES // (8 * count * columns * size * layer.groups))
    for first in range(0, rows, span):
        part = view[:, :, first : first + span].transpose(1, 0, 2, 3, 4, 5)
        part = part.reshape(layer.groups, channels // layer.groups, -1, layer.positions)
        unfolded = part.transpose(0, 2, 1, 3).reshape(layer.groups, -1, size)
        aim = wanted[:, :, first : first + span].transpose(0, 2, 3, 1)
        yield unfolded, aim.reshape(-1, wanted.shape[1])


def _window_view(layer: MatrixLayer, images: Array) -> Array:
    """[images, channels, rows, columns, kernel rows, kernel columns], a view of padded inputs."""
    top, left, bottom, right = _pads(layer, images.shape[2], images.shape[3])
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (down, across), (apart, aside) = layer.stride, layer.dilation
    reach = ((layer.shape[2] - 1) * apart + 1, (layer.shape[3] - 1) * aside + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return view[:, :, ::down, ::across, ::apart, ::aside]


def _pads(layer: MatrixLayer, rows: int, columns: int) -> tuple[int, int, int, int]:
    if layer.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        return layer.pads if layer.auto_pad == "NOTSET" else (0, 0, 0, 0)
    before, after = [], []
    for axis, size in enumerate((rows, columns)):
        reach = (layer.shape[2 + axis] - 1) * layer.dilation[axis] + 1
        outputs = -(-size // layer.stride[axis])
        total = max(0, (outputs - 1) * layer.stride[axis] + reach - size)
        half = total // 2
        upper = layer.auto_pad == "SAME_UPPER"
        before.append(half if upper else total - half)
        after.append(total - half if upper else half)
    return before[0], before[1], after[0], after[1]
