"""Model: a reference model with what the lowering asks of it: constants, makers, readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pimc.frontend.net import DTYPE_NAMES, Array, QParams
from pimc.frontend.subgraphs import read_names


class ReferenceModel:
    """Index over the nodes of a reference model."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self._arrays: dict[str, Array] = {}
        self.nodes = list(proto.graph.node)
        self.makers: dict[str, onnx.NodeProto] = {
            name: node for node in self.nodes for name in node.output
        }
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads_of(node)):
                self.readers.setdefault(name, []).append(node)

    def is_constant(self, name: str) -> bool:
        return name in self.initializers

    def array(self, name: str) -> Array:
        """The values of an initializer."""
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self.initializers[name])
        return self._arrays[name]

    def qparams(self, scale: str, zero: str) -> QParams:
        """Per-tensor scale and zero point from their initializers."""
        point = self.array(zero)
        return QParams(
            np.float32(self.array(scale).reshape(())),
            int(point.reshape(())),
            DTYPE_NAMES[point.dtype],
        )

    def sole_reader(self, name: str) -> onnx.NodeProto | None:
        """The only node that reads a tensor, None when there are more or the model outputs it."""
        readers = self.readers.get(name, [])
        is_output = any(value.name == name for value in self.proto.graph.output)
        return readers[0] if len(readers) == 1 and not is_output else None


def reads_of(node: onnx.NodeProto) -> list[str]:
    """The tensors that a node reads, those that its subgraphs take from around it included."""
    return list(read_names(node.input, map(helper.get_attribute_value, node.attribute)))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes by name; strings are text."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}
