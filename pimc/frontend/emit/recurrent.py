"""Emit recurrent cells: integer sums of the gates, and a Scan over integer rows.

Sums and states are whole numbers of 24 bits, which float32 holds exactly, on grids of powers of
two; what a table reads, and what crossbars read, is rounded to 8 bits. Every fragment of the body
is one instruction of the machine (`pimc.frontend.lower.recurrent` reads them back).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pimc.frontend.assign import from_range
from pimc.frontend.cells import Cell, Step, cell_of, split_node
from pimc.frontend.emit.builder import Builder
from pimc.frontend.net import ONNX_TYPES, Array, Op, QParams
from pimc.frontend.weights import largest_sum, matching, quantize_layer

WIDE = "s32"
_BITS = 24  # of the whole numbers that float32 holds
_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}
_REACH = {"Sigmoid": 6.0, "Tanh": 3.5}  # beyond, a step of the result in 8 bits is the most to err


def emit_recurrent(build: Builder, op: Op, per_channel: bool) -> None:
    """The product of the input for all steps, and a Scan of the cell."""
    _Layer(build, op, per_channel).write()


class _Layer:
    """One cell over a sequence while it is written.

    params: how each row is held. names: its tensor in the body. results: what is handed out for
    all steps: name in the body, name outside, element type. written: what has been computed.
    handed: rows that others read -> net tensor.
    """

    def __init__(self, build: Builder, op: Op, per_channel: bool) -> None:
        self.build, self.op, self.per_channel = build, op, per_channel
        self.cell: Cell = cell_of(op)
        used = {name for other in build.net.ops for name in other.inputs}
        used |= build.net.output_tensors()
        self.handed = {
            row: tensor
            for row, tensor in zip(self.cell.held, op.outputs, strict=True)
            if row == "y" or tensor in used
        }
        self.products = {row for step in self.cell.products for row in step.results}
        self.steps, self.batch, self.units = build.net.shapes[op.output]
        self.nodes: list[onnx.NodeProto] = []
        self.params: dict[str, QParams] = {}
        self.names: dict[str, str] = {}
        self.results: list[tuple[str, str, int]] = []
        self.written: dict[tuple[object, ...], str] = {}

    def write(self) -> None:
        """Add all nodes."""
        build, op, cell = self.build, self.op, self.cell
        x, weights, bias, *rest = op.inputs
        count = 2 * len(cell.products)
        sums = self._outside(f"{op.output}_sums", cell.gates * self.units)
        grid = self._sums("x", build.nodes, build.ints[x], build.qparams[x], (weights, bias), sums)
        self._choose_params(grid, rest[count:])
        row = self._name("x")
        self._gates(row, [f"x{gate}" for gate in range(cell.gates)])
        states = [self._first_row(*pair) for pair in zip(cell.kept, rest[count:], strict=True)]
        constants = list(zip(rest[:count:2], rest[1:count:2], strict=True))
        for step in cell.steps:
            if step.op == "MatMul":
                self._product(step, constants.pop(0))
            else:
                self._step(step)
        self._hand_out()
        self._scan(states, row, sums)

    # ------------------------------------------------------------------ how rows are held
    def _choose_params(self, grid: QParams, states: list[str]) -> None:
        """Parameters of all rows but the gates' products of the state."""
        build, cell = self.build, self.cell
        ranges = [self._first_range(name) for name in states]
        largest = max(abs(limit) for limits in ranges for limit in limits)
        state = _grid(self.steps + largest + 2)  # each step adds at most 1 to a state
        tensors = dict(zip(cell.held, self.op.outputs, strict=True))
        readers = {name: step.op for step in cell.steps for name in step.inputs}
        for gate in range(cell.gates):
            self.params[f"x{gate}"] = grid
        for step in cell.steps:
            row = step.results[0]
            if row in tensors:
                held, reach = build.qparams[tensors[row]], _REACH.get(readers.get(row, ""))
                self.params[row] = held if reach is None else _cut(held, reach)
            elif step.op in _FUNCTIONS:
                self.params[row] = _grid(1.0)
            elif step.op != "MatMul" and not self.products & set(step.inputs):
                self.params[row] = state
        for (row, following), limits in zip(cell.kept.items(), ranges, strict=True):
            if self.params[following].dtype != WIDE:
                self.params[following] = _with(self.params[following], *limits)
            self.params[row] = self.params[following]

    def _first_range(self, name: str) -> tuple[float, float]:
        """Limits of a state before the first step."""
        if not self.build.net.is_constant(name):
            return _range(self.build.qparams[name])
        values = self.build.net.constant(name)
        return float(values.min(initial=0)), float(values.max(initial=0))

    def _first_row(self, row: str, source: str) -> tuple[str, str]:
        """A kept row's name in the body, and a tensor with what it holds before the first step."""
        build, held, inner = self.build, self.params[row], self._name(row)
        if build.net.is_constant(source):
            values = _integers(build.net.constant(source), held)
            return inner, build.constant(f"{source}_quantized", values)
        real = build.dequantize(source, f"{self.op.name}/{row}")
        outside = build.unique(f"{inner}_first")
        build.declare_as(outside, (self.batch, self.units), self._type(row))
        self._hold(build.nodes, real, row, outside)
        return inner, outside

    # ------------------------------------------------------------------ pieces of the body
    def _name(self, row: str) -> str:
        """Declare the tensor of a row."""
        self.names[row] = self.build.unique(f"{self.op.output}/{row}")
        return self.names[row]

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))

    def _between(self, op_type: str, inputs: list[str], row: str, **attributes: Any) -> str:
        """Add a node on the way to a row; return its result."""
        output = self.build.unique(f"{self.names[row]}_{op_type.lower()}")
        self._node(op_type, inputs, output, **attributes)
        return output

    def _gates(self, source: str, rows: list[str]) -> None:
        self.nodes.append(split_node(source, [self._name(row) for row in rows]))

    def _sums(
        self,
        row: str,
        nodes: list[onnx.NodeProto],
        source: str,
        held: QParams,
        constants: tuple[str, str],
        result: str,
    ) -> QParams:
        """Integer product and bias, put on a grid that holds the largest possible sum.

        row: what is multiplied, for the name of the layer.
        """
        build = self.build
        weights, bias = (build.net.constant(name) for name in constants)
        layer = quantize_layer(weights, bias, held.scale, 1, self.per_channel)
        most = largest_sum(layer.weights, layer.bias, 1)
        grid = _grid(most * float(held.scale) * float(layer.weights.scale.max(initial=0)))
        stored = matching(layer.weights, held.dtype)
        scale = (held.scale * np.atleast_1d(stored.scale) / grid.scale).astype(np.float32)
        chain: list[tuple[str, list[Array | np.generic], dict[str, Any]]] = [
            ("MatMulInteger", [stored.values, held.zero_point, stored.zero.reshape(-1)[0]], {}),
            ("Add", [np.asarray(layer.bias)], {}),
            ("Cast", [], {"to": TensorProto.FLOAT}),
            ("Mul", [scale], {}),
            ("Round", [], {}),
            ("Cast", [], {"to": TensorProto.INT32}),
        ]
        for at, (op_type, values, given) in enumerate(chain):
            names = [build.constant(f"{result}_{op_type.lower()}{n}", v)
                     for n, v in enumerate(values)]  # fmt: skip
            output = result if at == len(chain) - 1 else build.unique(f"{result}_{at}")
            name = f"{self.op.name}/{row}" if at == 0 else output
            nodes.append(helper.make_node(op_type, [source, *names], [output], name, **given))
            source = output
        return grid

    def _product(self, step: Step, constants: tuple[str, str]) -> None:
        """Multiply a row of the state by its weights; row and sums are known outside, too."""
        row, count = step.inputs[0], len(step.results)
        sums = self._name(f"{row}_sums")
        grid = self._sums(row, self.nodes, self.names[row], self.params[row], constants, sums)
        self.params |= dict.fromkeys(step.results, grid)
        self._gates(sums, list(step.results))
        held = self._outside(f"{self.op.output}_{row}_fed", self.units, self.params[row].dtype)
        self.results.append((self.names[row], held, ONNX_TYPES[self.params[row].dtype]))
        outside = self._outside(f"{self.op.output}_{row}_sums", count * self.units)
        self.results.append((sums, outside, TensorProto.INT32))

    def _step(self, step: Step) -> None:
        """A table, or arithmetic on two rows; one that is there already is not written again."""
        row = step.results[0]
        if row == "c_out" and row not in self.handed:
            return
        if row not in self.params:  # a gate's sum times a factor of at most 1
            self.params[row] = self.params[(self.products & set(step.inputs)).pop()]
        key = (step.op, step.inputs, self.params[row])
        if key in self.written:
            self.names[row] = self.written[key]
            return
        self.written[key] = self._name(row)
        if step.op in _FUNCTIONS:
            self._table(step)
            return
        reals = [
            self._between("DequantizeLinear", [self.names[n], *self._parameters(n)], n)
            for n in step.inputs
        ]
        if step.op == "Mul":  # a Sum of one hinders onnxruntime's fusions (decision 0001)
            reals[0] = self._between("Sum", reals[:1], row)
        real = self._between("Sum" if step.op == "Add" else step.op, reals, row)
        self._hold(self.nodes, real, row, self.names[row])

    def _hold(self, nodes: list[onnx.NodeProto], real: str, row: str, output: str) -> None:
        """Add the nodes that make the integers of a row from a float tensor."""
        parameters = self._parameters(row)
        if self.params[row].dtype != WIDE:
            nodes.append(helper.make_node("QuantizeLinear", [real, *parameters], [output], output))
            return
        steps, whole = (self.build.unique(f"{output}_{end}") for end in ("steps", "whole"))
        nodes += [
            helper.make_node("Div", [real, *parameters], [steps], steps),
            helper.make_node("Round", [steps], [whole], whole),
            helper.make_node("Cast", [whole], [output], output, to=TensorProto.INT32),
        ]

    def _parameters(self, row: str) -> list[str]:
        """Scale, and zero point of what has one."""
        held, wish = self.params[row], f"{self.op.output}_cell"
        if held.dtype != WIDE:
            return list(self.build.parameters(wish, held))
        return [self.build.constant(f"{wish}_scale", np.float32(held.scale))]

    def _table(self, step: Step) -> None:
        """A function of the 256 values of a row, rounded from float64."""
        row, given = step.results[0], self.names[step.inputs[0]]
        source, result = self.params[step.inputs[0]], self.params[row]
        low, high = source.limits
        real = (np.arange(low, high + 1) - source.zero) * np.float64(source.scale)
        table = _integers(_FUNCTIONS[step.op](real), result)
        wide = self._between("Cast", [given], row, to=TensorProto.INT32)
        first = self.build.constant(f"{self.op.output}_first", np.int32(low))
        index = self._between("Sub", [wide, first], row)
        values = self.build.constant(f"{self.names[row]}_table", table)
        self._node("Gather", [values, index], self.names[row])

    # ------------------------------------------------------------------ the whole
    def _outside(self, wish: str, channels: int, dtype: str = WIDE) -> str:
        """A tensor [steps, batch, channels] of the reference."""
        name = self.build.unique(wish)
        elem_type = ONNX_TYPES.get(dtype, TensorProto.INT32)
        self.build.declare_as(name, (self.steps, self.batch, channels), elem_type)
        return name

    def _hand_out(self) -> None:
        """The held rows that others read."""
        for row, tensor in self.handed.items():
            kind = ONNX_TYPES[self.params[row].dtype]
            self.results.append((self.names[row], self.build.hold(tensor), kind))

    def _scan(self, states: list[tuple[str, str]], row: str, sums: str) -> None:
        kept = [(name, self._type(name)) for name in self.cell.kept]
        inputs = [
            helper.make_tensor_value_info(self.names[name], kind, None) for name, kind in kept
        ]
        inputs.append(helper.make_tensor_value_info(row, TensorProto.INT32, None))
        handed = [(self.names[self.cell.kept[name]], kind) for name, kind in kept]
        handed += [(inner, kind) for inner, _, kind in self.results]
        outputs = []
        for source, kind in handed:
            name = self.build.unique(f"{source}_out")
            self._node("Identity", [source], name)
            outputs.append(helper.make_tensor_value_info(name, kind, None))
        body = helper.make_graph(self.nodes, f"{self.op.name}/cell", inputs, outputs)
        last = [self.build.unique(f"{name}_last") for name, _ in states]
        self.build.node(
            "Scan",
            [*(first for _, first in states), sums],
            [*last, *(outside for _, outside, _ in self.results)],
            self.op.name,
            body=body,
            num_scan_inputs=1,
        )

    def _type(self, row: str) -> int:
        return ONNX_TYPES.get(self.params[row].dtype, TensorProto.INT32)


def _grid(largest: float) -> QParams:
    """32-bit numbers in steps of a power of two, of which ``largest`` takes at most 24 bits."""
    exponent = math.ceil(math.log2(max(largest, 1.0)))
    return QParams(np.float32(2.0 ** (exponent - _BITS)), 0, WIDE)


def _integers(real: Array, held: QParams) -> Array:
    """Real values as they are held."""
    if held.dtype != WIDE:
        return held.quantize(real)
    return np.rint(real / np.float64(held.scale)).astype(np.int32)


def _cut(held: QParams, reach: float) -> QParams:
    """The parameters for the part of a range that lies within -reach..reach."""
    low, high = _range(held)
    return from_range(max(low, -reach), min(high, reach), held.dtype)


def _with(held: QParams, least: float, most: float) -> QParams:
    """The parameters for a range and what lies between two further values."""
    low, high = _range(held)
    if low <= least and most <= high:
        return held
    return from_range(min(low, least), max(high, most), held.dtype)


def _range(held: QParams) -> tuple[float, float]:
    low, high = held.limits
    return (low - held.zero) * float(held.scale), (high - held.zero) * float(held.scale)
