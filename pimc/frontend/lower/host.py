"""Lower the nodes of a partition to a HostNode with a model of its own."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from passes.graph import HostNode, Value
from pimc.frontend.emit.builder import BATCH
from pimc.frontend.emit.host import partition_of
from pimc.frontend.lower.model import ReferenceModel, reads_of
from pimc.frontend.lower.state import Info, State, machine_order, machine_shape
from pimc.frontend.net import RAW_TYPES

IR_VERSION = 10


class Partitions:
    """The partitions of a reference model, and the tensors at their borders."""

    def __init__(self, model: ReferenceModel) -> None:
        self._model = model
        self.nodes: dict[str, list[onnx.NodeProto]] = {}
        for node in model.nodes:
            name = partition_of(node)
            if name is not None:
                self.nodes.setdefault(name, []).append(node)
        self._infos = _infos(model.proto.graph)

    def inputs(self, name: str) -> list[str]:
        """What a partition reads and does not make, constants aside."""
        nodes = self.nodes[name]
        made = {result for node in nodes for result in node.output}
        read = dict.fromkeys(source for node in nodes for source in reads_of(node))
        return [n for n in read if n not in made and not self._model.is_constant(n)]

    def outputs(self, name: str) -> list[str]:
        """What a partition makes for others."""
        wanted = {value.name for value in self._model.proto.graph.output}
        made = [result for node in self.nodes[name] for result in node.output if result]
        return [n for n in made if n in wanted or self._is_read_outside(n, name)]

    def _is_read_outside(self, tensor: str, name: str) -> bool:
        return any(partition_of(node) != name for node in self._model.readers.get(tensor, []))

    def raw_infos(self) -> dict[str, Info]:
        """Types and shapes of the border tensors, of those that are not 8-bit, too."""
        found = {}
        for name in self.nodes:
            for tensor in (*self.inputs(name), *self.outputs(name)):
                value = self._infos[tensor].type.tensor_type
                dims = value.shape.dim
                batched = bool(dims) and dims[0].dim_param == BATCH
                sizes = tuple(int(dim.dim_value) for dim in (dims[1:] if batched else dims))
                found[tensor] = Info(RAW_TYPES[value.elem_type], sizes, batched)
        return found

    def model(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """The ONNX model of a partition, for one image."""
        nodes = []
        for node in self.nodes[name]:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            del copy.metadata_props[:]
            nodes.append(copy)
        read = dict.fromkeys(source for node in nodes for source in reads_of(node))
        weights = [self._model.initializers[n] for n in read if self._model.is_constant(n)]
        sources, results = ([self._single(n) for n in names] for names in (inputs, outputs))
        graph = helper.make_graph(nodes, name, sources, results, weights)
        opsets = list(self._model.proto.opset_import)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "pimc"
        file: bytes = model.SerializeToString(deterministic=True)
        return file

    def _single(self, tensor: str) -> onnx.ValueInfoProto:
        """The declaration of a tensor, its batch being 1."""
        info = onnx.ValueInfoProto()
        info.CopyFrom(self._infos[tensor])
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param == BATCH:
                dim.dim_value = 1
        return info


def _infos(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def lower_host(state: State, model: ReferenceModel, parts: Partitions, name: str) -> None:
    """Add the HostNode of a partition, and the values that it makes."""
    inputs, outputs = parts.inputs(name), parts.outputs(name)
    values, sources = [], []
    for tensor in inputs:
        value = state.value_of(tensor)
        sources.append(_as_seen(state, tensor, value))
        # two names of one value are two tensors of the partition, each with a way of its own
        values.append(state.copy(value) if value in values else value)
    made = []
    for tensor in outputs:
        maker = model.makers[tensor]
        is_held = maker.op_type == "QuantizeLinear" and _ends(model, maker)
        qparams = model.qparams(maker.input[1], maker.input[2]) if is_held else None
        made.append(state.make(tensor, wanted_axis(state, model, tensor), qparams, tensor))
    node = HostNode(
        name,
        tuple(values),
        made[0],
        tuple(made),
        tuple(sources),
        parts.model(name, inputs, outputs),
    )
    state.nodes.append(node)


def _ends(model: ReferenceModel, quantize: onnx.NodeProto) -> bool:
    """Whether scale and zero point of a QuantizeLinear are constants."""
    return all(model.is_constant(name) for name in quantize.input[1:3]) and len(quantize.input) > 2


def wanted_axis(state: State, model: ReferenceModel, tensor: str) -> int:
    """The channel axis that those who compute with a result want."""
    rank = len(state.infos[tensor].shape)
    for node in model.readers.get(tensor, []):
        if node.op_type in ("QLinearConv", "MaxPool", "ConvInteger", "QLinearGlobalAveragePool"):
            return min(0 if state.infos[tensor].batched else 1, rank - 1)
    return max(rank - 1, 0)


def _as_seen(state: State, tensor: str, value: str) -> Value:
    """How the partition's model sees a value: as ``tensor``, whatever else it is known as."""
    held = state.held[tensor]
    axis = next(axis for axis, name in held.values.items() if name == value)
    info, rank = held.info, len(held.info.shape)
    return Value(
        name=value,
        dtype=info.dtype,
        shape=machine_shape(info.shape, axis),
        scale=None,
        zero=0,
        onnx_name=tensor,
        onnx_shape=info.shape,
        order=machine_order(rank, axis),
        batched=info.batched,
    )
