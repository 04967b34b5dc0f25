"""Lower recurrent cells: gates' sums to MatrixNodes, the body of a Scan to a CellNode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from passes.graph import BinaryNode, CellNode, LutNode, MatrixNode, Value
from pimc.frontend.lower.matrix import bias_of, centred
from pimc.frontend.lower.model import ReferenceModel, attributes, reads_of
from pimc.frontend.lower.state import Info, State
from pimc.frontend.net import DTYPE_NAMES, INT_NAMES, QParams

_BINARY = {"Sum": "add", "Sub": "sub", "Mul": "mul"}
_WIDE = "s32"
_CHAIN = 6  # nodes from a product to its sums on their grid


def lower_sums(state: State, model: ReferenceModel, product: onnx.NodeProto) -> None:
    """MatMulInteger, Add, Cast, Mul, Round, Cast before a Scan: the gates' sums of the input."""
    info, held = state.infos[product.input[0]], state.held[product.input[0]].qparams
    known = held or QParams(np.float32(1), 0, info.dtype)
    source = state.value_of(product.input[0], len(info.shape) - 1)
    source = state.with_zero(source, replace(known, zero=int(model.array(product.input[2]))))
    sums = _chain(model, product)[-1].output[0]
    scan = model.readers[sums][0]
    body: onnx.GraphProto = attributes(scan)["body"]
    scale = _scale_of_gates(_inner(model, scan), body.input[list(scan.input).index(sums)].name)
    outputs = model.array(product.input[1]).shape[1]
    state.infos[sums] = Info(_WIDE, (*info.shape[:-1], outputs), info.batched)
    _add_matrix(state, model, product, source, sums, scale)


def _chain(model: ReferenceModel, product: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes from a product to its sums on their grid."""
    found = [product]
    while len(found) < _CHAIN:
        found.append(model.readers[found[-1].output[0]][0])
    return found


def _add_matrix(
    state: State,
    model: ReferenceModel,
    product: onnx.NodeProto,
    source: str,
    sums: str,
    scale: np.float32,
) -> str:
    """Add the MatrixNode of a product; return the value of ``sums``, a tensor of the reference."""
    _, add, _, mul, _, _ = _chain(model, product)
    weights = centred(model.array(product.input[1]), model.array(product.input[3]), 1)
    inputs, outputs = weights.shape
    name = state.make(sums, len(state.infos[sums].shape) - 1, QParams(scale, 0, _WIDE))
    state.nodes.append(
        MatrixNode(
            product.name,
            (source,),
            name,
            np.ascontiguousarray(weights.T).reshape(-1, 1, 1, inputs),
            bias_of(model.array(add.input[1]), outputs),
            np.atleast_1d(model.array(mul.input[1])).astype(np.float32),
        )
    )
    return name


def _inner(model: ReferenceModel, scan: onnx.NodeProto) -> ReferenceModel:
    """The body of a Scan as a model of its own, with the constants that it reads from around."""
    body = attributes(scan)["body"]
    names = dict.fromkeys(name for node in body.node for name in reads_of(node))
    inner = helper.make_model(body, opset_imports=model.proto.opset_import)
    inner.graph.initializer.extend(
        model.initializers[name] for name in names if model.is_constant(name)
    )
    return ReferenceModel(inner)


def _scale_of_gates(inner: ReferenceModel, sums: str) -> np.float32:
    """The scale of the gates that lie side by side in ``sums``: that of the first one."""
    gate = inner.readers[sums][0].output[0]
    dequantize = next(n for n in inner.readers[gate] if n.op_type == "DequantizeLinear")
    return np.float32(inner.array(dequantize.input[1]))


def lower_recurrent(state: State, model: ReferenceModel, scan: onnx.NodeProto) -> None:
    """A Scan over the gates' sums of the input: the matrices of the state, and the cell."""
    cell = _Cell(state, model, scan)
    sums = scan.input[-1]
    cell.split(state.value_of(sums, len(state.infos[sums].shape) - 1), cell.body.input[-1].name)
    for node in cell.inner.nodes:
        cell.read(node)
    state.nodes.append(cell.node(scan))


class _Cell:
    """A cell as it is read: the parts of a CellNode.

    kept: names in the body of the rows that last, and of those they become. outside: name in the
    body -> tensor of the reference with that row of all steps.
    """

    def __init__(self, state: State, model: ReferenceModel, scan: onnx.NodeProto) -> None:
        self.state, self.inner = state, _inner(model, scan)
        self.body: onnx.GraphProto = self.inner.proto.graph
        handed = [self.inner.makers[value.name].input[0] for value in self.body.output]
        names = [value.name for value in self.body.input]
        count = len(names) - 1
        self.kept = dict(zip(names[:count], handed[:count], strict=True))
        self.outside = dict(zip(handed[count:], scan.output[count:], strict=True))
        held = next(name for name in scan.output[count:] if name in state.infos)
        _, batch, units = state.infos[held].shape
        self.shape = (1, batch, units)
        self.inputs: list[str] = []
        self.slices: dict[str, tuple[str, int]] = {}
        self.steps: list[LutNode | BinaryNode] = []
        self.rows: dict[str, Value] = {}
        self.first = {
            name: self._first(model, tensor)
            for name, tensor in zip(names[:count], scan.input[:count], strict=True)
        }
        for value in self.body.input[:count]:
            self._add_row(value.name, INT_NAMES.get(value.type.tensor_type.elem_type, _WIDE))

    def node(self, scan: onnx.NodeProto) -> CellNode:
        """The finished node; its first result is that of the body."""
        made = {self._made(row): self._short(row) for row in self.outside if self._is_row(row)}
        kept = {
            self._short(name): (self.first[name], self._short(following))
            for name, following in self.kept.items()
        }
        output = next(name for name in made if made[name] not in kept)
        inputs, steps = tuple(self.inputs), tuple(self.steps)
        return CellNode(scan.name, inputs, output, self.rows, self.slices, kept, steps, made)

    def _first(self, model: ReferenceModel, tensor: str) -> NDArray[np.integer] | str:
        """Integers before the first step, or the value that has them, maybe in other parameters."""
        if model.is_constant(tensor):
            return np.asarray(model.array(tensor)).reshape(self.shape)
        if tensor not in self.state.held:  # a wide row: Cast of Round of Div of DequantizeLinear
            maker = model.makers[tensor]
            while maker.op_type != "DequantizeLinear":
                maker = model.makers[maker.input[0]]
            known = model.qparams(maker.input[1], maker.input[2])
            source = self.state.value_of(maker.input[0], 1)
            self.inputs.append(self.state.with_qparams(source, known))
        else:
            self.inputs.append(self.state.value_of(tensor, 1))
        return self.inputs[-1]

    def split(self, value: str, sums: str) -> None:
        """Take a value with gates side by side, ``sums`` in the body, for an input."""
        self.inputs.append(value)
        for number, name in enumerate(self.inner.readers[sums][0].output):
            self._add_row(name, _WIDE)
            self.slices[self._short(name)] = (value, number * self.shape[2])

    def read(self, node: onnx.NodeProto) -> None:
        """One node of the body, where it is the last of a fragment."""
        makers, output = self.inner.makers, node.output[0]
        if node.op_type == "MatMulInteger":
            self._read_product(node)
        elif node.op_type == "Gather":
            table = self.inner.array(node.input[0])
            source = makers[makers[node.input[1]].input[0]].input[0]
            self._add_row(output, DTYPE_NAMES.get(table.dtype, _WIDE))
            name = self._short(output)
            self.steps.append(LutNode(name, (self._short(source),), name, table))
        elif node.op_type == "QuantizeLinear":
            held = self.inner.qparams(node.input[1], node.input[2])
            self._read_binary(makers[node.input[0]], output, held.dtype)
        elif (divide := self._divided(node)) is not None:
            self._read_binary(makers[divide.input[0]], output, _WIDE)

    def _divided(self, cast: onnx.NodeProto) -> onnx.NodeProto | None:
        """The division behind a Round and a Cast; the sums of a product have none."""
        whole = self.inner.makers.get(cast.input[0])
        if cast.op_type != "Cast" or whole is None or whole.op_type != "Round":
            return None
        divide = self.inner.makers[whole.input[0]]
        return divide if divide.op_type == "Div" else None

    def _read_binary(self, node: onnx.NodeProto, output: str, dtype: str) -> None:
        """Arithmetic on two rows that DequantizeLinear reads, one maybe through a Sum of one."""
        sources = []
        for name in node.input:
            maker = self.inner.makers[name]
            if maker.op_type == "Sum":
                maker = self.inner.makers[maker.input[0]]
            sources.append(self._short(maker.input[0]))
        self._add_row(output, dtype)
        name, op = self._short(output), _BINARY[node.op_type]
        self.steps.append(BinaryNode(name, (sources[0], sources[1]), name, op))

    def _read_product(self, node: onnx.NodeProto) -> None:
        """The matrix of a row of the state: fed by the cell, its sums an input of the cell."""
        source, state = self._made(node.input[0]), self.state
        zero = int(self.inner.array(node.input[2]))
        state.values[source] = replace(state.values[source], zero=zero)
        sums = _chain(self.inner, node)[-1].output[0]
        outputs = self.inner.array(node.input[1]).shape[1]
        steps, batch, _ = state.infos[self.outside[node.input[0]]].shape
        state.infos[self.outside[sums]] = Info(_WIDE, (steps, batch, outputs), False)
        scale = _scale_of_gates(self.inner, sums)
        self.split(_add_matrix(state, self.inner, node, source, self.outside[sums], scale), sums)

    # ------------------------------------------------------------------ rows
    def _short(self, name: str) -> str:
        """The name of a row: what its tensor in the body is called behind that of the result."""
        return name.rpartition("/")[2]

    def _is_row(self, name: str) -> bool:
        """Whether a tensor of the body is a row, and not the sums of a product."""
        return self._short(name) in self.rows

    def _add_row(self, name: str, dtype: str) -> None:
        scale, zero = self._params(self.kept.get(name, name))
        short, order = self._short(name), (0, 1, 2)
        self.rows[short] = Value(
            short, dtype, self.shape, scale, zero, name, self.shape, order, False
        )

    def _params(self, name: str) -> tuple[float | None, int]:
        """Scale and zero point with which a row is made or read; no scale where no node says."""
        maker = self.inner.makers[name]
        nodes = [n for n in self.inner.readers.get(name, []) if n.op_type == "DequantizeLinear"]
        if maker.op_type == "QuantizeLinear":
            nodes.append(maker)
        for node in nodes:
            zero = int(self.inner.array(node.input[2])) if len(node.input) > 2 else 0
            return float(self.inner.array(node.input[1])), zero
        divide = self._divided(maker)
        return (None if divide is None else float(self.inner.array(divide.input[1]))), 0

    def _made(self, name: str) -> str:
        """The value that holds a row for all steps."""
        tensor, row = self.outside[name], self.rows[self._short(name)]
        if tensor not in self.state.held:
            scale = None if row.scale is None else np.float32(row.scale)
            held = None if scale is None else QParams(scale, row.zero, row.dtype)
            self.state.make(tensor, 2, held)
        return next(iter(self.state.held[tensor].values.values()))
