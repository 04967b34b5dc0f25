"""State of the lowering: values, nodes, and where every element of every integer tensor stands.

Movement is not lowered operator by operator. Each tensor knows, element by element, which element
of which machine value it is; moving elements only rearranges these numbers, and a MoveNode is
made when something computes with the result (or never, when the order is already right).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from isa.diagnostics import Diagnostic, Location, PimError
from isa.program import Shape
from passes.graph import Graph, LutNode, MoveNode, Node, Value
from pimc.frontend.emit.builder import BATCH, FLOAT_SUFFIX, SUFFIX
from pimc.frontend.net import NUMBER_TYPES, NUMPY_TYPES, QParams

Elements = NDArray[np.int64]
CONSTANT = -1024  # element number of integer constant c: CONSTANT - c
_IMAGE_RANK = 3  # channels, rows, columns
_UNKNOWN = QParams(np.float32(1), 0)


@dataclass(frozen=True)
class Info:
    """An integer tensor of the reference: shape without a batch axis, whether it had one."""

    dtype: str
    shape: tuple[int, ...]
    batched: bool


@dataclass(eq=False)
class Held:
    """Where an integer tensor stands.

    values: machine values that hold all of it, by channel axis. elements: number of each element
    (see `State.number`), in ONNX order; None until something moves the tensor.
    """

    name: str
    info: Info
    qparams: QParams | None
    values: dict[int, str]
    elements: Elements | None = None


def machine_order(rank: int, axis: int) -> tuple[int, ...]:
    """Axes of a tensor as the machine stores it: the channel axis last, the others in order."""
    return (*(a for a in range(rank) if a != axis), axis) if rank else ()


def machine_shape(shape: tuple[int, ...], axis: int) -> Shape:
    """[rows, columns, channels] of a tensor whose channels are ``axis``."""
    sizes = [shape[a] for a in machine_order(len(shape), axis)]
    sizes = [1] * (3 - len(sizes)) + sizes
    return math.prod(sizes[:-2]), sizes[-2], sizes[-1]


class State:
    """Everything that the lowering of one reference model collects."""

    def __init__(self, infos: dict[str, Info]) -> None:
        self.infos = infos
        self.held: dict[str, Held] = {}
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self._starts: dict[str, int] = {}  # value -> number of its first element, ascending
        self._named: dict[int, str] = {}  # and back
        self._next = 0
        self._open_zero: set[str] = set()
        self._open_scale: set[str] = set()

    # ------------------------------------------------------------------ values
    def unique(self, wish: str) -> str:
        """A value name that is not taken."""
        name, number = wish, 1
        while name in self.values:
            name, number = f"{wish}_{number}", number + 1
        return name

    def new_value(
        self, tensor: str, axis: int, qparams: QParams | None, name: str | None = None
    ) -> Value:
        """Add a value that holds all of ``tensor`` with its channels on ``axis``."""
        info = self.infos[tensor]
        known = qparams or replace(_UNKNOWN, dtype=info.dtype)
        rank = len(info.shape)
        suffix = FLOAT_SUFFIX if info.dtype == "f32" else SUFFIX
        value = Value(
            name=self.unique(name or tensor.removesuffix(suffix)),
            dtype=info.dtype,
            shape=machine_shape(info.shape, axis),
            scale=None if qparams is None else float(qparams.scale),
            zero=known.zero,
            onnx_name=tensor,
            onnx_shape=info.shape,
            order=machine_order(rank, axis),
            batched=info.batched,
        )
        self.values[value.name] = value
        if qparams is None and info.dtype != "f32":
            self.leave_open(value.name, zero=True, scale=True)
        return value

    def make(self, tensor: str, axis: int, qparams: QParams | None, name: str | None = None) -> str:
        """Add the value of a tensor that a node computes; return its name."""
        value = self.new_value(tensor, axis, qparams, name)
        self.held[tensor] = Held(tensor, self.infos[tensor], qparams, {axis: value.name})
        return value.name

    def default_axis(self, tensor: str) -> int:
        """The channel axis of a tensor that nobody has an opinion about."""
        rank = len(self.infos[tensor].shape)
        return 0 if rank == 3 else max(rank - 1, 0)

    # ------------------------------------------------------------------ elements
    def elements(self, tensor: str) -> Elements:
        """The number of every element of a tensor, in the tensor's own order."""
        held = self.held[tensor]
        if held.elements is None:
            axis, value = next(iter(held.values.items()))
            shape = held.info.shape
            order = machine_order(len(shape), axis)
            stored = self._numbers(value).reshape([shape[a] for a in order])
            held.elements = stored.transpose(np.argsort(order)) if order else stored.reshape(())
        return held.elements

    def _numbers(self, value: str) -> Elements:
        size = math.prod(self.values[value].shape)
        if value not in self._starts:
            self._starts[value] = self._next
            self._named[self._next] = value
            self._next += size
        start = self._starts[value]
        return np.arange(start, start + size)

    def moved(self, tensor: str, elements: Elements, qparams: QParams | None) -> None:
        """Declare a tensor that consists of elements of others (and of constants)."""
        info = self.infos[tensor]
        self.held[tensor] = Held(tensor, info, qparams, {}, elements.reshape(info.shape))

    def alias(self, tensor: str, source: str) -> None:
        """Declare a tensor that is another one."""
        held = self.held[source]
        self.held[tensor] = replace(held, name=tensor, values=held.values)

    # ------------------------------------------------------------------ use
    def value_of(self, tensor: str, axis: int | None = None) -> str:
        """The value with a tensor's integers, channels on ``axis`` (None: as it is); may move."""
        held = self.held[tensor]
        if axis is None:
            axis = self._easiest_axis(held)
        if axis not in held.values:
            shape = held.info.shape
            order = machine_order(len(shape), axis)
            elements = self.elements(tensor)
            stored = elements.transpose(order) if order else elements
            held.values[axis] = self._materialize(held, axis, stored.reshape(-1))
        return held.values[axis]

    def axis_of(self, value: str, tensor: str) -> int:
        """The channel axis with which a value holds a tensor."""
        for axis, name in self.held[tensor].values.items():
            if name == value:
                return axis
        return self.default_axis(tensor)

    def _easiest_axis(self, held: Held) -> int:
        """An axis that needs no movement when there is one."""
        if held.values:
            return next(iter(held.values))
        rank = len(held.info.shape)
        default = self.default_axis(held.name)
        elements = self.elements(held.name)
        axes: list[int] = [default, max(rank - 1, 0), 0, *range(rank)]
        for axis in dict.fromkeys(axes):
            order = machine_order(rank, axis)
            stored = (elements.transpose(order) if order else elements).reshape(-1)
            if self._same_value(machine_shape(held.info.shape, axis), stored):
                return axis
        if rank > _IMAGE_RANK:  # what lies side by side in its source is most easily moved so
            return next((axis for axis in axes if _is_side_by_side(elements, axis)), default)
        return default

    def _same_value(self, shape: Shape, stored: Elements) -> str | None:
        """The value that already has these elements in this order and shape."""
        first = int(stored[0])
        name = self._named.get(first)
        if name is None or self.values[name].shape != shape:
            return None
        return name if np.array_equal(stored, np.arange(first, first + stored.size)) else None

    def _materialize(self, held: Held, axis: int, stored: Elements) -> str:
        same = self._same_value(machine_shape(held.info.shape, axis), stored)
        if same is not None:
            return same
        index, sources = self.locate(stored)
        fills = np.unique(stored[index < 0])
        if len(fills) > 1:
            raise PimError(
                Diagnostic(
                    "F211",
                    f"tensor `{held.name}` mixes {len(fills)} different constants with data",
                    Location(node=f"tensor `{held.name}`"),
                    "a movement may fill with one constant only",
                )
            )
        fill = int(CONSTANT - fills[0]) if len(fills) else 0
        value = self.new_value(held.name, axis, held.qparams)
        node = MoveNode(f"{value.name}/move", sources, value.name, index.reshape(value.shape), fill)
        self.nodes.append(node)
        return value.name

    def locate(self, stored: Elements) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Index of each element into the values that occur, laid end to end; -1 for a constant."""
        starts = np.fromiter(self._named, np.int64, len(self._named))
        owner = np.searchsorted(starts, stored, side="right") - 1
        index = np.full(stored.shape, -1, np.int32)
        sources: list[str] = []
        offset = 0
        for at in np.unique(owner[stored >= 0]):
            inside = (owner == at) & (stored >= 0)
            index[inside] = stored[inside] - starts[at] + offset
            sources.append(self._named[int(starts[at])])
            offset += math.prod(self.values[sources[-1]].shape)
        return index, tuple(sources)

    def with_zero(self, name: str, qparams: QParams) -> str:
        """A value with the integers of ``name`` and the zero point that a consumer needs.

        What the value does not know yet it takes over from its first consumer.
        """
        value = self.values[name]
        if name in self._open_zero:
            value = replace(value, zero=qparams.zero)
            self._open_zero.discard(name)
        if name in self._open_scale and value.zero == qparams.zero:
            value = replace(value, scale=float(qparams.scale))
            self._open_scale.discard(name)
        self.values[name] = value
        return name if value.zero == qparams.zero else self._reinterpreted(value, qparams)

    def with_qparams(self, name: str, qparams: QParams) -> str:
        """A value with the integers of ``name``, and this scale and zero point."""
        name = self.with_zero(name, qparams)
        value = self.values[name]
        is_same = value.scale == float(qparams.scale)
        return name if is_same else self._reinterpreted(value, qparams)

    def _reinterpreted(self, value: Value, qparams: QParams) -> str:
        """A copy of a value's integers that means something else: a value has one meaning."""
        copy = replace(
            value,
            name=self.unique(f"{value.name}_as_{qparams.zero}"),
            scale=float(qparams.scale),
            zero=qparams.zero,
        )
        self.values[copy.name] = copy
        low, high = qparams.limits
        table = np.arange(low, high + 1).astype(NUMPY_TYPES[qparams.dtype])
        self.nodes.append(LutNode(f"{copy.name}/reinterpret", (value.name,), copy.name, table))
        return copy.name

    def copy(self, name: str, wish: str | None = None) -> str:
        """A second value with the same integers, where one cannot serve twice."""
        value = replace(self.values[name], name=self.unique(wish or name))
        self.values[value.name] = value
        index = np.arange(math.prod(value.shape), dtype=np.int32).reshape(value.shape)
        self.nodes.append(MoveNode(f"{value.name}/copy", (name,), value.name, index))
        return value.name

    def leave_open(self, name: str, zero: bool, scale: bool) -> None:
        """Say whether the first consumer of a value may tell its zero point and its scale."""
        for is_open, names in ((zero, self._open_zero), (scale, self._open_scale)):
            if is_open:
                names.add(name)
            else:
                names.discard(name)

    def graph(self, inputs: list[str], outputs: list[str]) -> Graph:
        """The finished graph, without nodes and values that no output needs."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.results):
                kept.append(node)
                needed.update(node.inputs)
        kept.reverse()
        names = [*inputs, *(name for node in kept for name in node.results)]
        values = {name: self.values[name] for name in names}
        return Graph(tuple(inputs), tuple(outputs), tuple(kept), values)


def _is_side_by_side(elements: Elements, axis: int) -> bool:
    """Whether most steps along an axis lead to the next element of a value."""
    steps = np.diff(elements, axis=axis) == 1
    return bool(steps.size and 2 * np.count_nonzero(steps) > steps.size)


def graph_infos(model: onnx.ModelProto) -> dict[str, Info]:
    """Types and shapes of the 8-bit tensors and float32 rows that a model declares, and of its
    row numbers.

    A float input is a row of floats unless it is read once, to be quantized; a float output has one
    inside.
    """
    names = {onnx.TensorProto.INT8: "s8", onnx.TensorProto.UINT8: "u8"}
    graph = model.graph
    numbers = {value.name for value in graph.input}
    reads = Counter(name for node in graph.node for name in node.input)
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    only_quantized = {name for name in quantized if reads[name] == 1}
    ports = (numbers & only_quantized) | {value.name for value in graph.output}
    found: dict[str, Info] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        is_number = value.name in numbers and tensor.elem_type in NUMBER_TYPES
        is_float = value.name not in ports and tensor.elem_type == onnx.TensorProto.FLOAT
        if tensor.elem_type not in names and not is_number and not is_float:
            continue
        sizes = tensor.shape.dim
        batched = bool(sizes) and sizes[0].dim_param == BATCH
        fixed = tuple(int(dim.dim_value) for dim in (sizes[1:] if batched else sizes))
        dtype = "f32" if is_float else names.get(tensor.elem_type, "s32")
        found[value.name] = Info(dtype, fixed, batched)
    return found
