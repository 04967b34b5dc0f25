"""Bound: graph inputs that are weights become constants, so that crossbars can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from isa.diagnostics import Diagnostic, Findings, Location, PimError
from pimc.frontend.net import Array, Net

# operator -> inputs that are parameters of the layer, never its data
WEIGHT_INPUTS: Final[dict[str, tuple[int, ...]]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvInteger": (1, 3),
    "ConvTranspose": (1, 2),
    "GRU": (1, 2, 3),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (1,),
    "MatMulInteger": (1, 3),
    "PRelu": (1,),
    "QLinearConv": (3, 4, 5, 8),
    "QLinearMatMul": (3, 4, 5),
    "RNN": (1, 2, 3),
}
# operators that only say how a weight is stored
_STORAGE: Final = frozenset(
    ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose",
     "Unsqueeze")
)  # fmt: skip
_IR_WITH_FREE_INITIALIZERS = 4  # before, every initializer had to be an input


def with_bound(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy of a loaded model in which the inputs ``values`` are initializers.

    Floats of another width are rounded; integers have to fit. Raises PimError F208, all findings.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, findings = copy.graph, Findings()
    ports = {value.name: value for value in graph.input}
    known = {tensor.name for tensor in graph.initializer}
    for name, array in values.items():
        at = Location(node=f"input `{name}`")
        if name not in ports:
            hint = f"its inputs are {', '.join(f'`{port}`' for port in ports)}"
            problem = "is a constant of the model" if name in known else "is no input of the model"
            findings.error("F208", f"`{name}` {problem}, so it cannot be bound", at, hint)
            continue
        bound, problem = _fitted(ports[name], array)
        if problem:
            findings.error("F208", f"the values of input `{name}` {problem}", at)
            continue
        graph.input.remove(ports[name])
        for tensor in [t for t in graph.initializer if t.name == name]:
            graph.initializer.remove(tensor)  # a default, which is overruled
        graph.initializer.append(numpy_helper.from_array(bound, name))
    findings.raise_if_any()
    if values and not free_inputs(copy):
        hint = "bind the weights, and leave the data"
        raise PimError(Diagnostic("F208", "every input of the model is bound", hint=hint))
    copy.ir_version = max(copy.ir_version, _IR_WITH_FREE_INITIALIZERS)
    return copy


def _fitted(port: onnx.ValueInfoProto, array: Array) -> tuple[Array, str]:
    """The values in the type of the input, and what is wrong with them, if anything."""
    kind = port.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    except KeyError:
        return array, "would have a type that arrays do not have"
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    fits = len(sizes) == array.ndim and all(
        size in (None, found) for size, found in zip(sizes, array.shape, strict=True)
    )
    if kind.HasField("shape") and not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        return array, f"have shape {list(array.shape)}; expected [{wanted}]"
    if array.dtype == dtype or (array.dtype.kind == "f" and dtype.kind == "f"):
        return np.asarray(array, dtype), ""
    if array.dtype.kind in "biu" and np.array_equal(array.astype(dtype), array):
        return array.astype(dtype), ""
    return array, f"are {array.dtype}; expected {dtype}"


def free_inputs(model: onnx.ModelProto) -> list[str]:
    """The inputs that no initializer stands behind, in the model's order."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in known]


def late_weights(net: Net, names: Sequence[str], subject: str = "its weights are") -> str | None:
    """Why parameters of a layer are not known when it is programmed; None when they are."""
    ports = [f"`{port.tensor}`" for port in net.inputs if port.tensor in names]
    if ports:
        which = f"input{'s' * (len(ports) > 1)} {' and '.join(ports)}"
        they = "they are" if subject.endswith("are") else "it is"
        return f"{subject} {which}; bound by `--bind` {they} programmed"
    if all(net.is_constant(name) for name in names if name):
        return None
    return f"{subject} computed at run time, so they cannot be programmed into crossbars"


def weight_inputs(model: onnx.ModelProto, ranks: Mapping[str, int]) -> list[str]:
    """The free inputs that only serve as weights of layers (`WEIGHT_INPUTS`).

    ranks: axes of each input; a second operand of MatMul that is no single matrix is data.
    """
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, position))

    def is_weight(name: str, rank: int) -> bool:
        found = readers.get(name, [])
        return bool(found) and all(serves(node, position, rank) for node, position in found)

    def serves(node: onnx.NodeProto, position: int, rank: int) -> bool:
        if node.domain not in ("", "ai.onnx"):
            return False
        if node.op_type in _STORAGE:
            return position == 0 and is_weight(node.output[0], rank)
        is_matrix = node.op_type != "MatMul" or rank == 2
        return position in WEIGHT_INPUTS.get(node.op_type, ()) and is_matrix

    return [name for name in free_inputs(model) if is_weight(name, ranks.get(name, 0))]
