"""Graph: walk a reference model in order and lower every node by a table of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import onnx

from passes.graph import (
    BinaryNode,
    CellNode,
    FloatLayerNormNode,
    Graph,
    GroupNormNode,
    HostNode,
    LayerNormNode,
    LogSoftmaxNode,
    LrnNode,
    Node,
    RealNode,
    SelectNode,
    SoftmaxNode,
    Value,
)
from pimc.frontend.emit.host import partition_of
from pimc.frontend.lower.host import Partitions, lower_host
from pimc.frontend.lower.matrix import is_scaled, lower_conv, lower_gemm, lower_matmul
from pimc.frontend.lower.model import ReferenceModel
from pimc.frontend.lower.moves import MOVE_OPS, lower_move
from pimc.frontend.lower.pool import lower_global_average, lower_max_pool
from pimc.frontend.lower.recurrent import lower_recurrent, lower_sums
from pimc.frontend.lower.state import Info, State, graph_infos, machine_order
from pimc.frontend.lower.tables import make_tables
from pimc.frontend.lower.vector import find_region, lower_float, lower_quantize

_LOWERINGS: dict[str, Callable[[State, ReferenceModel, onnx.NodeProto], None]] = {
    **dict.fromkeys(MOVE_OPS, lower_move),
    "QLinearConv": lower_conv,
    "QGemm": lower_gemm,
    "QLinearMatMul": lower_matmul,
    "QLinearGlobalAveragePool": lower_global_average,
    "MaxPool": lower_max_pool,
    "MatMulInteger": lower_sums,
    "Scan": lower_recurrent,
}
_FIRST_AXIS = frozenset(("QLinearConv", "MaxPool", "ConvInteger", "QLinearGlobalAveragePool"))
# round to the scale of the result
_SCALED = BinaryNode | SelectNode | SoftmaxNode | LogSoftmaxNode | LrnNode
_SCALED |= LayerNormNode | GroupNormNode | RealNode | FloatLayerNormNode
_LAST_AXIS = frozenset(("MatMulInteger", "QGemm", "QLinearMatMul"))


def lower(reference: onnx.ModelProto) -> Graph:
    """The Graph that means exactly what onnxruntime computes on ``reference``.

    reference: as `pimc.frontend.emit` writes it. Value.onnx_name names its integer tensors.
    """
    model = ReferenceModel(reference)
    parts = Partitions(model)
    state = State(graph_infos(reference) | parts.raw_infos())
    regions = {}
    for node in model.nodes:
        if _may_be_table(state, model, node):
            region = find_region(model, state, node)
            if region is not None:
                regions[region.output] = region
    tables = make_tables(list(regions.values()), model.initializers, list(reference.opset_import))
    inputs = _lower_inputs(state, model)
    lowered: set[str] = set()
    for node in model.nodes:
        part = partition_of(node)
        if part is not None:
            if part not in lowered:
                lower_host(state, model, parts, part)
            lowered.add(part)
        elif node.op_type == "QuantizeLinear":
            is_made = node.input[0] in model.makers or node.input[0] in state.held
            if is_made and node.output[0] in state.infos:
                lower_quantize(state, model, node, regions, tables)
        elif node.op_type == "MatMulInteger" and is_scaled(state, model, node):
            pass  # lowered with the product that makes a row of it
        elif node.op_type in _LOWERINGS and node.output[0] not in regions:
            _LOWERINGS[node.op_type](state, model, node)
        elif _is_float_row(state, node):
            lower_float(state, model, node, regions, tables)
    outputs = _lower_outputs(state, model, inputs)
    return _with_output_names(state.graph(inputs, outputs), model)


def _may_be_table(state: State, model: ReferenceModel, node: onnx.NodeProto) -> bool:
    """Whether a node could end an element-wise region."""
    if partition_of(node) is not None:
        return False
    if node.op_type == "QuantizeLinear":
        return node.output[0] in state.infos and node.input[0] in model.makers
    is_made = node.op_type not in _LOWERINGS or node.op_type == "Where"  # by a test, not by a mask
    return _is_float_row(state, node) and is_made


def _is_float_row(state: State, node: onnx.NodeProto) -> bool:
    info = state.infos.get(node.output[0])
    return info is not None and info.dtype == "f32"


def _lower_inputs(state: State, model: ReferenceModel) -> list[str]:
    """Values of the graph inputs: what their QuantizeLinear makes, or integers as they come."""
    names = []
    for port in model.proto.graph.input:
        if port.name in state.infos:  # integers, or floats, as they are
            axis = _wanted_axis(state, model, port.name, port.name)
            name = state.make(port.name, axis, None, port.name)
            if state.infos[port.name].dtype != "f32":
                state.leave_open(name, zero=True, scale=False)  # the host hands in integers
        else:
            node = model.readers[port.name][0]
            qparams = model.qparams(node.input[1], node.input[2])
            tensor = node.output[0]
            axis = _wanted_axis(state, model, tensor, tensor)
            name = state.make(tensor, axis, qparams, port.name)
        names.append(name)
    return names


def _wanted_axis(state: State, model: ReferenceModel, tensor: str, name: str) -> int:
    """The channel axis that the consumers of an input want, so that the host lays it out so."""
    rank = len(state.infos[tensor].shape)
    is_unbatched = 0 if state.infos[tensor].batched else 1
    for node in model.readers.get(name, []):
        if partition_of(node) is not None:
            continue
        if node.op_type in _FIRST_AXIS:
            return min(is_unbatched, max(rank - 1, 0))
        if node.op_type in _LAST_AXIS:
            return max(rank - 1, 0)
        output = node.output[0]
        if node.op_type == "Reshape" and output not in state.infos:
            is_product = name == tensor  # its rows; else groups of channels, to be normalized
            return max(rank - 1, 0) if is_product else min(is_unbatched, max(rank - 1, 0))
        is_same = (
            output not in state.infos or state.infos[output].shape == state.infos[tensor].shape
        )
        if is_same and node.op_type not in MOVE_OPS:
            return _wanted_axis(state, model, tensor, output)
    return state.default_axis(tensor)


def _lower_outputs(state: State, model: ReferenceModel, inputs: list[str]) -> list[str]:
    """One value of its own for each output of the model, never an input itself."""
    taken = set(inputs)
    # what a partition hands over in the shape of its own tensor
    hosted = {name for node in state.nodes if isinstance(node, HostNode) for name in node.results}
    names = []
    for port in model.proto.graph.output:
        node = model.makers[port.name]
        is_raw = partition_of(node) is not None
        if not is_raw and node.op_type not in ("Cast", "DequantizeLinear", "Identity"):
            raise ValueError(f"output `{port.name}` is made by {node.op_type}")
        tensor = port.name if is_raw else node.input[0]
        name = state.value_of(tensor)
        axis = next(axis for axis, held in state.held[tensor].values.items() if held == name)
        is_real = node.op_type == "DequantizeLinear" and not is_raw
        if is_real:
            name = state.with_qparams(name, model.qparams(node.input[1], node.input[2]))
        is_other = name in hosted and not _is_seen_as(state.values[name], state.infos[tensor])
        is_other |= name in taken or (not is_real and not is_raw and _needs_scale(state, name))
        if is_other:
            name = state.copy(name, port.name)
        if not is_real:  # the model hands out the integers themselves
            state.values[name] = replace(state.values[name], scale=None)
        # the same integers may carry another shape: what the host sees is the output's own tensor
        info = state.infos[tensor]
        state.values[name] = replace(
            state.values[name],
            onnx_name=tensor,
            onnx_shape=info.shape,
            order=machine_order(len(info.shape), axis),
            batched=info.batched,
        )
        taken.add(name)
        names.append(name)
    return names


def _is_seen_as(value: Value, info: Info) -> bool:
    return value.onnx_shape == info.shape and value.batched == info.batched


def _needs_scale(state: State, name: str) -> bool:
    """Whether the scale of a value is part of what some node computes."""
    return state.values[name].dtype != "f32" and any(
        name in node.inputs or (name == node.output and isinstance(node, _SCALED))
        for node in state.nodes
    )


def _with_output_names(graph: Graph, model: ReferenceModel) -> Graph:
    """Name the output values as the model names its outputs."""
    wanted = [port.name for port in model.proto.graph.output]
    renamed = dict(zip(graph.outputs, wanted, strict=True))
    others = set(graph.values) - set(renamed)
    for name in others & set(wanted):  # an inner value in the way gives up its name
        renamed[name] = next(
            free for at in count(1) if (free := f"{name}_{at}") not in others | set(wanted)
        )
    values = {
        renamed.get(n, n): replace(v, name=renamed.get(n, n)) for n, v in graph.values.items()
    }
    nodes = tuple(
        replace(
            node,
            inputs=tuple(renamed.get(name, name) for name in node.inputs),
            output=renamed.get(node.output, node.output),
            **_renamed_results(node, renamed),
        )
        for node in graph.nodes
    )
    return Graph(graph.inputs, tuple(wanted), nodes, values)


def _renamed_results(node: Node, names: dict[str, str]) -> dict[str, Any]:
    if isinstance(node, HostNode):
        return {"outputs": tuple(names.get(name, name) for name in node.outputs)}
    if isinstance(node, CellNode):
        slices = {row: (names.get(name, name), at) for row, (name, at) in node.slices.items()}
        kept = {
            row: (names.get(first, first) if isinstance(first, str) else first, following)
            for row, (first, following) in node.kept.items()
        }
        made = {names.get(name, name): row for name, row in node.made.items()}
        return {"slices": slices, "kept": kept, "made": made}
    return {}
