"""Random graphs for the passes, and what they mean: a plain NumPy interpreter, window by window."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from passes.graph import (
    BinaryNode,
    Graph,
    LutNode,
    MatrixNode,
    MoveNode,
    Node,
    PoolNode,
    Value,
)

Ints = NDArray[np.integer[Any]]
F32 = np.float32


def evaluate(graph: Graph, inputs: dict[str, Ints]) -> dict[str, Ints]:
    """Every value of a graph, int8 or uint8 [images, rows, columns, channels] by name."""
    found = dict(inputs)
    for node in graph.nodes:
        operands = [found[name] for name in node.inputs]
        found[node.output] = _node(graph, node, operands)
    return found


def _node(graph: Graph, node: Node, operands: list[Ints]) -> Ints:
    result = graph.values[node.output]
    x = operands[0]
    if isinstance(node, MatrixNode):
        return _matrix(graph, node, x)
    if isinstance(node, LutNode):
        index = x.astype(np.int64) - np.iinfo(x.dtype).min
        if node.table.ndim == 1:
            return node.table[index]
        return node.table[np.arange(x.shape[3]), index]
    if isinstance(node, BinaryNode):
        return _binary(graph, node, operands)
    if isinstance(node, PoolNode):
        return _pool(graph, node, x)
    if isinstance(node, MoveNode):
        flat = np.concatenate([o.reshape(len(o), -1) for o in operands], axis=1)
        moved = np.where(node.index < 0, node.fill, flat[:, np.maximum(node.index, 0)])
        return moved.astype(_dtype(result))
    raise TypeError(type(node))


def _dtype(value: Value) -> Any:
    return np.int8 if value.dtype == "s8" else np.uint8


def _saturate(real: NDArray[np.float32], value: Value) -> Ints:
    info = np.iinfo(_dtype(value))
    return np.clip(np.rint(real) + value.zero, info.min, info.max).astype(info.dtype)


def _windows(x: Ints, node: MatrixNode | PoolNode, kernel: tuple[int, int], fill: int) -> Ints:
    """[images, rows, columns, channels, kernel rows, kernel columns]."""
    top, left, bottom, right = node.pads
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x, pads, constant_values=fill)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, node.dilation, strict=True)]
    view = sliding_window_view(padded, reach, axis=(1, 2))
    return view[
        :, :: node.stride[0], :: node.stride[1], :, :: node.dilation[0], :: node.dilation[1]
    ]


def _matrix(graph: Graph, node: MatrixNode, x: Ints) -> Ints:
    source, result = graph.values[node.inputs[0]], graph.values[node.output]
    outputs, rows, columns, per_group = node.weights.shape
    windows = _windows(x, node, (rows, columns), source.zero).astype(np.int64) - source.zero
    width = outputs // node.groups
    parts = []
    for group in range(node.groups):
        taken = windows[:, :, :, group * per_group : (group + 1) * per_group]
        weights = node.weights[group * width : (group + 1) * width].astype(np.int64)
        parts.append(np.einsum("nhwcij,oijc->nhwo", taken, weights))
    sums = (np.concatenate(parts, axis=3) + node.bias).astype(np.int32)
    return _saturate(sums.astype(F32) * node.scale, result)


def _binary(graph: Graph, node: BinaryNode, operands: list[Ints]) -> Ints:
    values = [graph.values[name] for name in node.inputs]
    real = [
        (o.astype(np.int32) - v.zero).astype(F32) * F32(v.scale or 1)
        for o, v in zip(operands, values, strict=True)
    ]
    if node.constant is not None:
        centred = (node.constant.astype(np.int32) - node.constant_zero).astype(F32)
        real.append(centred * F32(node.constant_scale))
    op = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[node.op]
    result = graph.values[node.output]
    return _saturate(op(real[0], real[1]) / F32(result.scale or 1), result)


def _pool(graph: Graph, node: PoolNode, x: Ints) -> Ints:
    result = graph.values[node.output]
    if node.op == "max":
        return _windows(x, node, node.kernel, np.iinfo(x.dtype).min).max(axis=(4, 5))
    assert node.bias is not None
    assert node.scale is not None
    zero = graph.values[node.inputs[0]].zero
    sums = _windows(x, node, node.kernel, zero).sum(axis=(4, 5), dtype=np.int32) + node.bias
    return _saturate(sums.astype(F32) * node.scale, result)


class GraphBuilder:
    """Adds random nodes to a graph; every method returns the name of the new value."""

    def __init__(self, seed: int, shape: tuple[int, int, int], dtype: str = "s8") -> None:
        self.random = np.random.default_rng(seed)
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.input = self._value("x", shape, dtype)

    def graph(self, *outputs: str) -> Graph:
        return Graph((self.input,), outputs, tuple(self.nodes), self.values)

    def feed(self, images: int) -> dict[str, Ints]:
        value = self.values[self.input]
        info = np.iinfo(_dtype(value))
        shape = (images, *value.shape)
        return {
            self.input: self.random.integers(info.min, info.max, shape, info.dtype, endpoint=True)
        }

    def _value(self, name: str, shape: tuple[int, int, int], dtype: str = "s8") -> str:
        zero = int(self.random.integers(-9, 9)) + (128 if dtype == "u8" else 0)
        rows, columns, channels = shape
        onnx_shape = (channels, rows, columns)
        self.values[name] = Value(name, dtype, shape, 0.05, zero, name, onnx_shape, (1, 2, 0))
        return name

    def _add(self, node: Node, shape: tuple[int, int, int]) -> str:
        self.nodes.append(node)
        return self._value(node.output, shape)

    def _names(self, kind: str) -> tuple[str, str]:
        count = len(self.nodes)
        return f"{kind}_{count}", f"v{count}"

    def _strided(self, x: str, kernel, stride, dilation, pads) -> tuple[int, int]:  # type: ignore[no-untyped-def]
        rows, columns, _ = self.values[x].shape
        sizes = (rows + pads[0] + pads[2], columns + pads[1] + pads[3])
        return tuple(
            (size - (k - 1) * d - 1) // s + 1
            for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
        )  # type: ignore[return-value]

    def conv(  # type: ignore[no-untyped-def]
        self, x, outputs, kernel=(1, 1), stride=(1, 1), dilation=(1, 1), pads=(0,) * 4, groups=1
    ) -> str:
        name, output = self._names("Conv")
        per_group = self.values[x].shape[2] // groups
        weights = self.random.integers(-128, 128, (outputs, *kernel, per_group)).astype(np.int8)
        bias = self.random.integers(-2000, 2000, outputs).astype(np.int32)
        reach = 100.0 / (128 * 60 * np.sqrt(weights[0].size))
        scale = (self.random.uniform(0.5, 1.5, outputs) * reach).astype(F32)
        node = MatrixNode(
            name, (x,), output, weights, bias, scale, groups, stride, dilation, tuple(pads)
        )
        return self._add(node, (*self._strided(x, kernel, stride, dilation, pads), outputs))

    def lut(self, x: str, per_channel: bool = False) -> str:
        name, output = self._names("Lut")
        shape = self.values[x].shape
        size = (shape[2], 256) if per_channel else (256,)
        table = self.random.integers(-128, 128, size).astype(np.int8)
        return self._add(LutNode(name, (x,), output, table), shape)

    def binary(self, op: str, a: str, b: str) -> str:
        name, output = self._names(op)
        return self._add(BinaryNode(name, (a, b), output, op), self.values[a].shape)

    def constant(self, op: str, a: str, shape: tuple[int, int, int]) -> str:
        name, output = self._names(op)
        held = self.random.integers(-128, 128, shape).astype(np.int8)
        node = BinaryNode(name, (a,), output, op, held, 0.03, 4)
        return self._add(node, self.values[a].shape)

    def pool(self, op, x, kernel, stride=(1, 1), pads=(0,) * 4) -> str:  # type: ignore[no-untyped-def]
        name, output = self._names(op)
        size = kernel[0] * kernel[1]
        bias = np.array([-size * self.values[x].zero], np.int32)
        scale = np.array([1 / size], F32)
        node = PoolNode(name, (x,), output, op, kernel, stride, (1, 1), tuple(pads), bias, scale)
        shape = (*self._strided(x, kernel, stride, (1, 1), pads), self.values[x].shape[2])
        return self._add(node, shape)

    def concat(self, *xs: str, axis: int = 2) -> str:
        name, output = self._names("Concat")
        pieces, base = [], 0
        for x in xs:
            shape = self.values[x].shape
            pieces.append(base + np.arange(np.prod(shape)).reshape(shape))
            base += int(np.prod(shape))
        index = np.concatenate(pieces, axis=axis).astype(np.int32)
        return self._add(MoveNode(name, xs, output, index), index.shape)

    def mix(self, index: NDArray[np.integer[Any]], *xs: str) -> str:
        name, output = self._names("Mix")
        return self._add(MoveNode(name, xs, output, index.astype(np.int32), 3), index.shape)

    def move(self, x: str, index: NDArray[np.integer[Any]], fill: int = 0) -> str:
        name, output = self._names("Move")
        return self._add(MoveNode(name, (x,), output, index.astype(np.int32), fill), index.shape)
