"""Precision: a network in float16, bfloat16 or double, read as the float32 network it is close to.

The machine computes with integers whose scales are float32, so that the width of the floats in
between is a detail of the file. Constants that were folded before keep the width they had then:
sizes that an exporter computes in double come out as it meant them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from isa.diagnostics import Diagnostic
from pimc.frontend.net import Array

NAMES = {
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
    ir.DataType.DOUBLE: "double",
}
_LARGEST = np.finfo(np.float32).max
_TYPE_ATTRIBUTES = frozenset(("to", "dtype", "output_dtype", "stash_type"))


def read_as_float32(model: ir.Model) -> tuple[str, ...]:
    """Give every float tensor of another width the type float32, in place.

    Values beyond its range become its largest numbers; infinities stay. Returns the names of the
    types that were there.
    """
    found = dict.fromkeys(
        NAMES[value.dtype] for value in _values(model.graph) if value.dtype in NAMES
    )
    for value in _values(model.graph):
        _retype(value)
    for node in model.graph.all_nodes():
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.INT and name in _TYPE_ATTRIBUTES:
                if ir.DataType(attribute.as_int()) in NAMES:
                    node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
            elif attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                if tensor.dtype in NAMES:
                    node.attributes[name] = ir.AttrTensor(name, _rounded(tensor))
    return tuple(found)


def width_warning(widths: Sequence[str]) -> Diagnostic:
    """F226: what the network was, and what it is read as."""
    return Diagnostic(
        "F226",
        f"the model computes in {' and '.join(widths)}; it is read as the float32 network that "
        "this is close to, and its inputs and outputs keep their types",
        hint="verify says how far the program is from onnxruntime on the model as it was given",
        severity="warning",
    )


def in_float32(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model read as float32, and the names of the types that it was in."""
    graph = ir.from_proto(model)
    widths = read_as_float32(graph)
    return (ir.to_proto(graph) if widths else model), widths


def elements_of(model: onnx.ModelProto) -> dict[str, np.dtype[np.generic]]:
    """Element type of the outputs of a model that are tensors, by name.

    float32 for bfloat16, which numpy does not have and no npz file can hold.
    """
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    found = {
        name: onnx.helper.tensor_dtype_to_np_dtype(kind) for name, kind in kinds.items() if kind
    }
    single = np.dtype(np.float32)
    return {name: dtype if dtype.isbuiltin == 1 else single for name, dtype in found.items()}


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    for part in (graph, *graph.subgraphs()):
        yield from (*part.inputs, *part.initializers.values())
        for node in part:
            yield from node.outputs


def _retype(value: ir.Value) -> None:
    if value.dtype in NAMES:
        value.dtype = ir.DataType.FLOAT
    if value.const_value is not None and value.const_value.dtype in NAMES:
        value.const_value = _rounded(value.const_value)


def _rounded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    values: Array = tensor.numpy().astype(np.float64)
    bounded = np.where(np.isfinite(values), np.clip(values, -_LARGEST, _LARGEST), values)
    return ir.tensor(bounded.astype(np.float32), name=tensor.name)
