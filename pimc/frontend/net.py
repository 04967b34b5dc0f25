"""Net: a normalized ONNX graph with quantization beside its tensors, the frontend's working form.

Operators keep their float meaning. A tensor with ``qparams`` is known to be held as 8-bit
integers; a ``Quantized`` constant keeps the integers of the user's model. So a float model, a QDQ
model and a QOperator model differ only in how much of that is filled in, and one writer makes
``reference.onnx`` from all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

from isa.diagnostics import Findings
from pimc.frontend.subgraphs import close, read_names, renamed

Array = NDArray[Any]
IntArray = NDArray[np.integer[Any]]
NUMPY_TYPES = {"s8": np.dtype(np.int8), "u8": np.dtype(np.uint8)}
DTYPE_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items()}
ONNX_TYPES: dict[str, int] = {"s8": onnx.TensorProto.INT8, "u8": onnx.TensorProto.UINT8}
INT_NAMES = {elem_type: name for name, elem_type in ONNX_TYPES.items()}
NUMBER_TYPES = (  # 32 bits on the machine
    onnx.TensorProto.BOOL,
    onnx.TensorProto.INT16,
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT16,
    onnx.TensorProto.UINT32,
    onnx.TensorProto.UINT64,
)
RAW_TYPES: dict[
    int, str
] = {  # what crosses the border of a partition as it is -> its type on the machine
    onnx.TensorProto.FLOAT: "f32",
    **dict.fromkeys(NUMBER_TYPES, "s32"),
    onnx.TensorProto.INT8: "s8",
    onnx.TensorProto.UINT8: "u8",
}
MICROSOFT = "com.microsoft"
LAYOUT = "com.microsoft.nchwc"  # operators on blocks of channels
_OWN_DOMAINS = ("", "ai.onnx", MICROSOFT)
OPSET = 21  # the newest one that all converters reached in the trials; newer models stay as is


@dataclass(frozen=True)
class QParams:
    """How a tensor is held in 8 bits: real value = (integer - zero) * scale."""

    scale: np.float32
    zero: int
    dtype: str = "s8"

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer."""
        info = np.iinfo(NUMPY_TYPES[self.dtype])
        return int(info.min), int(info.max)

    @property
    def zero_point(self) -> NDArray[np.integer[Any]]:
        """The zero point as a scalar array of the tensor's own type."""
        return np.array(self.zero, NUMPY_TYPES[self.dtype])

    def retyped(self, dtype: str) -> QParams:
        """The same real values in the other 8-bit type: integers and zero point move by 128."""
        step = {"s8": -128, "u8": 128}[dtype]
        return self if dtype == self.dtype else QParams(self.scale, self.zero + step, dtype)

    def quantize(self, values: ArrayLike) -> IntArray:
        """Integers of float values, as QuantizeLinear: float32, round half to even, saturate."""
        low, high = self.limits
        steps = np.rint(np.asarray(values, np.float32) / self.scale)
        return np.asarray(np.clip(steps + self.zero, low, high), NUMPY_TYPES[self.dtype])


@dataclass(frozen=True, eq=False)
class Quantized:
    """A constant held as integers (int8, uint8; int32 for a bias).

    scale: float32 [] or [n] along ``axis``; zero: of the type of ``values``, shaped as scale.
    """

    values: IntArray
    scale: NDArray[np.float32]
    zero: IntArray
    axis: int | None = None

    def spread(self, parameter: Array) -> Array:
        """``scale`` or ``zero``, shaped so that it broadcasts over ``values``."""
        if self.axis is None or parameter.ndim == 0:
            return parameter.reshape(())
        shape = [1] * self.values.ndim
        shape[self.axis] = parameter.size
        return parameter.reshape(shape)

    def real(self) -> NDArray[np.float32]:
        """The float values, as DequantizeLinear computes them."""
        steps = self.values.astype(np.int64) - self.spread(self.zero).astype(np.int64)
        return steps.astype(np.float32) * self.spread(self.scale)


@dataclass(frozen=True, eq=False)
class Op:
    """One operator. inputs: tensor names, empty for an absent optional one."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""

    @property
    def output(self) -> str:
        return self.outputs[0]

    def input(self, position: int) -> str:
        """The name at a position, empty where the optional input is absent."""
        return self.inputs[position] if position < len(self.inputs) else ""

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensors that it reads, each once; what its subgraphs take from around them, too."""
        return tuple(dict.fromkeys(read_names(self.inputs, self.attributes.values())))

    def reading(self, names: Mapping[str, str]) -> Op:
        """The same operator that reads other tensors instead."""
        if names.keys().isdisjoint(self.reads):
            return self
        attributes = {key: renamed(value, names) for key, value in self.attributes.items()}
        inputs = tuple(names.get(name, name) for name in self.inputs)
        return replace(self, inputs=inputs, attributes=attributes)


@dataclass(frozen=True)
class Port:
    """An input or output of the model: its public name, the tensor behind it, its ONNX type."""

    name: str
    tensor: str
    elem_type: int = onnx.TensorProto.FLOAT


@dataclass(eq=False)
class Net:
    """Operators in topological order, and what is known of their tensors.

    shapes: full ONNX shapes with batch 1. types: ONNX element types. batched: tensors whose
    axis 0 is the batch. raw: tensors that only the host touches, which no quantization changes.
    is_quantized: whether the model quantizes tensors itself; then reals are those that it leaves
    float32 and that stay so on the chip, and operands the integers that are made of such ones for
    a crossbar or a product, by its label.
    domains: versions of the operator sets besides ONNX's own. notes: warnings for the user.
    """

    opset: int
    inputs: list[Port]
    outputs: list[Port]
    ops: list[Op]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, int]
    quantized: dict[str, Quantized] = field(default_factory=dict)
    qparams: dict[str, QParams] = field(default_factory=dict)
    batched: set[str] = field(default_factory=set)
    raw: set[str] = field(default_factory=set)
    is_quantized: bool = False
    reals: set[str] = field(default_factory=set)
    operands: dict[str, str] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    notes: Findings = field(default_factory=Findings)

    @property
    def numbers(self) -> set[str]:
        """Inputs that hold whole numbers to count by, such as tokens, and no quantities."""
        return {port.tensor for port in self.inputs if port.elem_type in NUMBER_TYPES}

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known at compile time, as floats, integers or 8-bit integers."""
        return name in self.constants or name in self.quantized

    def constant(self, name: str) -> Array:
        """The value of a constant; a quantized one as floats."""
        return self.constants[name] if name in self.constants else self.quantized[name].real()

    def producers(self) -> dict[str, Op]:
        return {name: op for op in self.ops for name in op.outputs if name}

    def consumers(self) -> dict[str, list[Op]]:
        """Operators that read each tensor, each once."""
        found: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in op.reads:
                found.setdefault(name, []).append(op)
        return found

    def output_tensors(self) -> set[str]:
        return {port.tensor for port in self.outputs}

    def fresh(self, wish: str) -> str:
        """A tensor name that nothing uses yet."""
        used, name, number = self._names(), wish, 1
        while name in used:
            name, number = f"{wish}_{number}", number + 1
        return name

    def _names(self) -> set[str]:
        found = {*self.constants, *self.quantized, *self.shapes}
        found |= {port.name for port in (*self.inputs, *self.outputs)}
        return found.union(*(op.outputs for op in self.ops))

    def add_like(self, name: str, model: str) -> None:
        """Declare a new tensor with the type of another, and its shape where that is known."""
        self.types[name] = self.types[model]
        if model in self.shapes:
            self.shapes[name] = self.shapes[model]

    def rename_inputs(self, names: dict[str, str]) -> None:
        """Let operators and outputs read other tensors instead."""
        self.ops = [op.reading(names) for op in self.ops]
        self.outputs = [replace(p, tensor=names.get(p.tensor, p.tensor)) for p in self.outputs]

    def remove_unused(self) -> None:
        """Drop operators and constants that no output depends on."""
        needed, kept = self.output_tensors(), []
        for op in reversed(self.ops):
            if needed.intersection(op.outputs):
                kept.append(op)
                needed.update(op.reads)
        self.ops = kept[::-1]
        self.constants = {name: v for name, v in self.constants.items() if name in needed}
        self.quantized = {name: v for name, v in self.quantized.items() if name in needed}


def build_net(
    model: onnx.ModelProto, output_names: Sequence[str], batched_inputs: frozenset[str]
) -> Net:
    """The Net of a normalized model; nothing is interpreted yet."""
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    inputs = [
        Port(v.name, v.name, v.type.tensor_type.elem_type)
        for v in graph.input
        if v.name not in constants
    ]
    outputs = [
        Port(name, v.name, v.type.tensor_type.elem_type)
        for name, v in zip(output_names, graph.output, strict=True)
    ]
    shapes: dict[str, tuple[int, ...]] = {name: v.shape for name, v in constants.items()}
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        types.setdefault(value.name, tensor.elem_type)
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes.setdefault(value.name, tuple(d.dim_value for d in tensor.shape.dim))
    opset = next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), OPSET)
    ops = [_op(node) for node in graph.node]
    net = Net(opset, inputs, outputs, ops, constants, shapes, types, batched=set(batched_inputs))
    net.domains = {e.domain: e.version for e in model.opset_import if e.domain not in _OWN_DOMAINS}
    return net


def _op(node: onnx.NodeProto) -> Op:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            close(graph)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return Op(
        node.name or node.output[0],
        node.op_type,
        tuple(node.input),
        tuple(node.output),
        {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()},
        "" if node.domain == "ai.onnx" else node.domain,
    )


def used_inputs(op: Op) -> Iterator[str]:
    """The inputs that are there."""
    return (name for name in op.inputs if name)
