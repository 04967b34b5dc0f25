"""Export: write a Net back as a float ONNX model, for calibration and for a look with a viewer."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper, numpy_helper

from pimc.frontend.cells import float_nodes, is_cell
from pimc.frontend.net import INT_NAMES, MICROSOFT, Net, Op
from pimc.frontend.partitions import body_of, is_host

IR_VERSION = 10


def float_model(net: Net, extra_outputs: Iterable[str] = ()) -> onnx.ModelProto:
    """The float meaning of a net at batch 1; quantized constants become floats.

    extra_outputs: tensors that become outputs beside the net's own.
    """
    nodes = [node for op in net.ops for node in _nodes(op)]
    inputs = [
        helper.make_tensor_value_info(
            p.tensor,
            p.elem_type if p.tensor in net.numbers else onnx.TensorProto.FLOAT,
            net.shapes[p.tensor],
        )
        for p in net.inputs
    ]
    names = dict.fromkeys([*(p.tensor for p in net.outputs), *extra_outputs])
    outputs = [_info(net, name) for name in names]
    used = {name for op in net.ops for name in op.reads}
    initializers = [numpy_helper.from_array(v, n) for n, v in net.constants.items() if n in used]
    initializers += [
        numpy_helper.from_array(v.real(), n) for n, v in net.quantized.items() if n in used
    ]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    known = {value.name for value in (*inputs, *outputs)}
    known |= {op.output for op in net.ops if op.op_type == "QuantizeLinear"}  # integers for once
    graph.value_info.extend(
        _info(net, name) for op in net.ops for name in op.outputs if name and name not in known
    )
    return helper.make_model(graph, opset_imports=opsets_of(net), ir_version=IR_VERSION)


def partition_model(net: Net, part: Op) -> onnx.ModelProto:
    """The float operators of a partition as a model of their own, at batch 1."""
    inputs = [
        helper.make_tensor_value_info(
            name, net.types.get(name, onnx.TensorProto.FLOAT), net.shapes[name]
        )
        for name in part.inputs
        if not net.is_constant(name)
    ]
    constants = [n for n in part.inputs if net.is_constant(n)]
    weights = [numpy_helper.from_array(net.constant(name), name) for name in constants]
    outputs = [onnx.ValueInfoProto(name=name) for name in part.outputs]
    graph = helper.make_graph(_nodes(part), part.name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=opsets_of(net), ir_version=IR_VERSION)


def opsets_of(net: Net) -> list[onnx.OperatorSetIdProto]:
    """The operator sets that the nodes of a net belong to."""
    return [
        helper.make_opsetid(domain, version)
        for domain, version in {"": net.opset, MICROSOFT: 1, **net.domains}.items()
    ]


def _info(net: Net, name: str) -> onnx.ValueInfoProto:
    """8-bit integers of the model stand for floats, but where the host has them as they are."""
    kind = net.types.get(name, onnx.TensorProto.FLOAT)
    if kind in INT_NAMES and name not in net.raw:
        kind = onnx.TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, net.shapes[name])


def _nodes(op: Op) -> list[onnx.NodeProto]:
    """One node; two for a MatMul that has taken up a bias; those of a partition, or of a cell."""
    if is_host(op):
        return [node for inner in body_of(op) for node in _nodes(inner)]
    if is_cell(op):
        return float_nodes(op)
    if op.op_type == "MatMul" and len(op.inputs) == 3:
        product = f"{op.output}/product"
        return [
            helper.make_node("MatMul", op.inputs[:2], [product], f"{op.name}/product"),
            helper.make_node("Add", [product, op.inputs[2]], op.outputs, op.name),
        ]
    attributes = {k: v for k, v in op.attributes.items() if v is not None}
    return [
        helper.make_node(op.op_type, op.inputs, op.outputs, op.name, domain=op.domain, **attributes)
    ]
