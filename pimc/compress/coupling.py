"""Coupling: which tensors of a network share one set of channels, so that it shrinks as a whole.

A layer makes a new set; activations, pools and flattenings hand theirs on; an addition joins the
sets of its operands, so a residual chain keeps the same channels in all its branches. A set that
an input, an output or an unknown operator touches is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pimc.compress.layers import MatrixLayer, find_layers

_ACTIVATIONS = frozenset(
    ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "HardSigmoid", "Elu", "Selu")
)
_POOLS = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
_KEEP_CHANNELS = _ACTIVATIONS | _POOLS | {"Softplus", "Gelu", "Identity", "Dropout"}
_JOIN = frozenset(("Add", "Sub", "Mul", "Sum", "Max", "Min"))


@dataclass(eq=False)
class ChannelSet:
    """Layers around one set of channels.

    produced: layers whose outputs they are. depthwise: convolutions that filter each channel by
    itself. consumed: layers whose inputs they are. reshaped: constant shapes of Reshape nodes that
    count them.
    """

    size: int
    produced: list[MatrixLayer] = field(default_factory=list)
    depthwise: list[MatrixLayer] = field(default_factory=list)
    consumed: list[MatrixLayer] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)


class _Union:
    """Disjoint sets of tensor names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        while (parent := self._parent.setdefault(name, name)) != name:
            self._parent[name] = name = self._parent[parent]
        return name

    def join(self, one: str, other: str) -> None:
        self._parent[self.find(one)] = self.find(other)


def channel_sets(model: onnx.ModelProto) -> list[ChannelSet]:
    """The sets that may shrink: made by layers alone, and read by at least one layer."""
    layers = {layer.index: layer for layer in find_layers(model)}
    constants = {t.name: t for t in model.graph.initializer}
    tensors, frozen = _Union(), {v.name for v in (*model.graph.input, *model.graph.output)}
    reshapes: list[tuple[str, str]] = []
    for index, node in enumerate(model.graph.node):
        layer = layers.get(index)
        if layer is not None and _is_full(layer):
            continue  # a new set; the input's set ends here
        inputs = [name for name in node.input if name and name not in constants]
        passes_on = layer is not None and _is_depthwise(layer)
        passes_on = passes_on or _hands_on(node, constants)
        if not passes_on:
            frozen.update((*inputs, *node.output))
            continue
        if node.op_type == "Reshape":
            reshapes.append((node.output[0], node.input[1]))
        for name in inputs:
            tensors.join(name, node.output[0])
    return _gather(list(layers.values()), tensors, frozen, reshapes)


def _gather(
    layers: list[MatrixLayer],
    tensors: _Union,
    frozen: set[str],
    reshapes: list[tuple[str, str]],
) -> list[ChannelSet]:
    stuck = {tensors.find(name) for name in frozen}
    sets: dict[str, ChannelSet] = {}
    for layer in filter(_is_full, layers):
        made = tensors.find(layer.output)
        sets.setdefault(made, ChannelSet(layer.shape[0])).produced.append(layer)
    for layer in layers:
        read = sets.get(tensors.find(layer.source))
        if read is None:
            continue
        if _is_full(layer):
            read.consumed.append(layer)
        elif _is_depthwise(layer):
            read.depthwise.append(layer)
    for output, shape in reshapes:
        if (known := sets.get(tensors.find(output))) is not None:
            known.reshaped.append(shape)
    return [
        found
        for root, found in sets.items()
        if root not in stuck and found.consumed and _agrees(found)
    ]


def _agrees(found: ChannelSet) -> bool:
    """Whether all layers around a set count the same channels (an addition may broadcast)."""
    made = all(layer.shape[0] == found.size for layer in (*found.produced, *found.depthwise))
    return made and all(layer.shape[1] % found.size == 0 for layer in found.consumed)


def _is_full(layer: MatrixLayer) -> bool:
    return layer.groups == 1 and layer.op_type in ("Conv", "Gemm")


def _is_depthwise(layer: MatrixLayer) -> bool:
    return layer.groups > 1 and layer.groups == layer.shape[0] and layer.shape[1] == 1


def _hands_on(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether the output of a node has its inputs' channels on axis 1, one for one."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in _KEEP_CHANNELS:
        return True
    if node.op_type in _JOIN:
        return all(name not in constants or not constants[name].dims for name in node.input)
    if node.op_type == "Flatten":
        return bool(attributes.get("axis", 1) == 1)
    if node.op_type == "ReduceMean":
        axes = attributes.get("axes")
        if axes is None and len(node.input) > 1 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        return bool(axes) and all(axis >= 2 for axis in axes or ())
    if node.op_type == "Reshape" and node.input[1] in constants:
        shape = numpy_helper.to_array(constants[node.input[1]])
        return len(shape) == 2 and int(shape[0]) in (0, 1, -1)
    return False


def shrink_reshape(model: onnx.ModelProto, name: str, before: int, after: int) -> None:
    """Count fewer channels in the constant shape of a Reshape to [images, features]."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    shape = numpy_helper.to_array(tensor).copy()
    if shape[1] > 0:
        shape[1] = shape[1] // before * after
        tensor.CopyFrom(numpy_helper.from_array(shape.astype(np.int64), name))
