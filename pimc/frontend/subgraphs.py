"""Subgraphs: what the bodies of If, Loop and Scan read from the graphs around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx
from onnx import helper


def read_names(inputs: Iterable[str], attributes: Iterable[Any]) -> Iterator[str]:
    """The tensors that a node reads, those that its subgraphs take from around them included."""
    yield from (name for name in inputs if name)
    for value in attributes:
        for graph in value if isinstance(value, list) else [value]:
            if isinstance(graph, onnx.GraphProto):
                yield from captured(graph)


def captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a subgraph reads from the graphs around it."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        attributes = [helper.get_attribute_value(a) for a in node.attribute]
        yield from (name for name in read_names(node.input, attributes) if name not in own)
        own.update(node.output)
    yield from (value.name for value in graph.output if value.name not in own)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """An attribute in whose subgraphs the tensors from around have other names."""
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    if not isinstance(value, onnx.GraphProto):
        return value
    copy = onnx.GraphProto()
    copy.CopyFrom(value)
    own = {v.name for v in copy.input} | {t.name for t in copy.initializer}
    own |= {name for node in copy.node for name in node.output}
    taken = {old: new for old, new in names.items() if old not in own}
    for node in copy.node:
        node.input[:] = [taken.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                attribute.g.CopyFrom(renamed(attribute.g, taken))
            for graph in attribute.graphs:
                graph.CopyFrom(renamed(graph, taken))
    for output in copy.output:
        output.name = taken.get(output.name, output.name)
    return copy


def close(graph: onnx.GraphProto) -> None:
    """Let a subgraph make its outputs itself: onnxruntime refuses one handed through from around.

    Removing operators that change nothing can leave such an output behind.
    """
    made = {name for node in graph.node for name in node.output}
    made |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for output in graph.output:
        if output.name not in made:
            inner = f"{output.name}_inside"
            graph.node.append(helper.make_node("Identity", [output.name], [inner]))
            output.name = inner
    for node in graph.node:
        for attribute in node.attribute:
            for deeper in (attribute.g, *attribute.graphs):
                close(deeper)
