"""Emit a partition: its float operators as they are, its 8-bit borders by Q and DQ."""

from __future__ import annotations

from dataclasses import replace

import onnx

from pimc.frontend.cells import float_nodes, is_cell
from pimc.frontend.emit.builder import Builder
from pimc.frontend.net import Op
from pimc.frontend.partitions import body_of

MARK = "pimc.partition"  # key of a node's metadata: the partition that it belongs to


def emit_host(build: Builder, part: Op) -> None:
    """Write the operators of a partition, and mark every node of it."""
    net, start = build.net, len(build.nodes)
    names: dict[str, str] = {}
    for name in part.inputs:
        if net.is_constant(name):
            names[name] = build.constant(name, net.constant(name))
        else:
            held = build.raw.get(name) or build.reals.get(name)
            names[name] = held or build.read(name, f"{part.name}/{name}")
    for op in body_of(part):
        for name in op.outputs:
            if name:
                names[name] = _name(build, name)
        _write(build, op, names)
        for name in net.qparams.keys() & set(op.outputs):  # rounded, as the model says
            build.qparams.setdefault(name, net.qparams[name])
            build.quantize(names[name], name, f"{part.name}/{name}/quantize")
            names[name] = build.dequantize(name, f"{part.name}/{name}")
    for name in part.outputs:
        if name in net.reals:
            build.finish(names[name], name, part.name)
        elif name in net.raw:
            _hand_out(build, name, names[name])
        elif name not in build.ints:
            build.write(names[name], name, f"{part.name}/{name}/quantize")
    for node in build.nodes[start:]:
        node.metadata_props.add(key=MARK, value=part.name)


def _write(build: Builder, op: Op, names: dict[str, str]) -> None:
    """One operator of a partition, its tensors called ``names``."""
    op = replace(op.reading(names), outputs=tuple(names.get(name, name) for name in op.outputs))
    if is_cell(op):
        build.nodes += float_nodes(op)
        return
    if op.op_type == "MatMul" and len(op.inputs) == 3:  # it has taken up a bias
        product = build.unique(f"{op.output}_product")
        build.node("MatMul", op.inputs[:2], [product], f"{op.name}/product")
        build.node("Add", [product, op.inputs[2]], op.outputs, op.name)
        return
    build.node(op.op_type, op.inputs, op.outputs, op.name, op.domain, **op.attributes)


def _name(build: Builder, tensor: str) -> str:
    """What a result is called: as the model's output where it is one and stays what it is."""
    if tensor in build.net.raw:
        for port in build.net.outputs:
            if port.tensor == tensor:
                return port.name
    return build.unique(f"{tensor}_real")


def _hand_out(build: Builder, tensor: str, name: str) -> None:
    net = build.net
    build.raw[tensor] = name
    build.declare(name, tensor, net.types.get(tensor, onnx.TensorProto.FLOAT))
    for port in net.outputs:
        if port.tensor == tensor and port.name != name:
            build.node("Identity", [name], [port.name], f"{port.name}/identity")


def partition_of(node: onnx.NodeProto) -> str | None:
    """The partition that a node of a reference model belongs to."""
    return next((entry.value for entry in node.metadata_props if entry.key == MARK), None)
