"""Narrow: activations that a model quantizes to 16 bits are held in 8, over the same range.

The chip's activations have 8 bits. Left as they are, such tensors would go to the host and back
between all layers, only to be rounded to 8 bits in front of the next crossbar.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from pimc.frontend.net import MICROSOFT
from pimc.frontend.regions import MOVES
from pimc.frontend.spelling import Spelling

_NARROW = {ir.DataType.UINT16: ir.DataType.UINT8, ir.DataType.INT16: ir.DataType.INT8}
_FEWER = 257  # of 65,536 steps, for each of 256
_STEPS = ("QuantizeLinear", "DequantizeLinear")


def narrow(model: ir.Model) -> int:
    """Rewrite Q, DQ and what moves integers between them, in place; how many tensors those are.

    None where anything else computes with 16-bit integers, or where a scale is no constant.
    """
    wide = [value for value in _computed(model.graph) if value.dtype in _NARROW]
    nodes = {id(node): node for value in wide for node in _around(value)}
    if not all(_is_understood(node) for node in nodes.values()):
        return 0
    if any(value.is_graph_input() or value.is_graph_output() for value in wide):
        return 0
    for value in wide:
        assert value.dtype is not None
        value.dtype = _NARROW[value.dtype]
    steps = [node for node in nodes.values() if node.op_type in _STEPS]
    for node in steps:
        _coarsen(Spelling(node))
    return sum(node.op_type == "QuantizeLinear" for node in steps)


def _computed(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from node.outputs


def _around(value: ir.Value) -> list[ir.Node]:
    maker = value.producer()
    return [*([] if maker is None else [maker]), *(use.node for use in value.uses())]


def _is_understood(node: ir.Node) -> bool:
    if node.op_type in MOVES | {"Concat", "Identity"} and not node.domain:
        return all(value is None or value.const_value is None for value in node.inputs[:1])
    if node.op_type not in _STEPS or node.domain not in ("", MICROSOFT) or len(node.inputs) < 3:
        return False
    constants = [None if value is None else value.const_value for value in node.inputs[1:3]]
    return all(held is not None and held.size == 1 for held in constants)


def _coarsen(write: Spelling) -> None:
    """Give a Q or DQ the scale and the zero point of 8 bits."""
    scale, zero = write.array(1), write.array(2)
    assert scale is not None
    assert zero is not None
    first = int(np.iinfo(zero.dtype).min)  # 0, or half of the steps below it
    point = np.rint((zero.astype(np.int64) - first) / _FEWER)
    own = np.array(point - 128, np.int8) if first else np.array(point, np.uint8)
    write.node.replace_input_with(1, write.held("scale", (scale * _FEWER).astype(np.float32)))
    write.node.replace_input_with(2, write.held("zero_point", own))
    write.node.attributes.pop("output_dtype", None)
