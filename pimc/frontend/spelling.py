"""Spelling: collects the ONNX operators that say the same as one operator of another domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from pimc.frontend.net import Array

WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
_SIMPLE = ("HardSwish", "Relu", "Sigmoid", "Tanh")
_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # channels, of images


class Spelling:
    """The operators that replace one node, and what is known of its inputs.

    Constants are named after the node's first result, operators after the node. note: what the
    user has to hear about, if anything; see `pimc.frontend.contrib`.
    """

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        assert node.graph is not None
        self.tape = ir.tape.Tape()
        self.note = ""
        self._constants: list[ir.Value] = []

    def input(self, position: int) -> ir.Value | None:
        """An input, None where it is absent."""
        inputs = self.node.inputs
        return inputs[position] if position < len(inputs) else None

    def has_output(self, position: int) -> bool:
        """Whether anybody reads an output."""
        if position >= len(self.node.outputs):
            return False
        value = self.node.outputs[position]
        return bool(value.uses()) or value.is_graph_output()

    def array(self, position: int) -> Array | None:
        """The value of an input that is a constant."""
        value = self.input(position)
        held = None if value is None else value.const_value
        return None if held is None else held.numpy()

    def number(self, name: str, default: float = 0.0) -> float:
        """An attribute that is a number."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else float(attribute.value)

    def attributes(self, *names: str) -> dict[str, Any]:
        """Those attributes of the node that it has."""
        return {n: self.node.attributes[n].value for n in names if n in self.node.attributes}

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        part: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Add an operator. part: what is added to the node's name."""
        name = f"{self.node.name}/{part}" if part else self.node.name
        return self.tape.op(op_type, inputs, attributes, domain=domain, name=name)

    def several(
        self, op_type: str, inputs: Sequence[ir.Value | None], results: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Add an operator with several results."""
        name = self.node.name
        return self.tape.op_multi_out(op_type, inputs, attributes, num_outputs=results, name=name)

    def dequantized(
        self, integers: ir.Value | None, scale: Array, zero: Array | None, axis: int
    ) -> ir.Value:
        """Constant integers as the floats they stand for, with parameters in all or along an axis.

        scale, zero: of one element, or of one for each along ``axis``.
        """
        count = max(scale.size, 1 if zero is None else zero.size)
        shape = (count,) if count > 1 else ()
        parameters = [
            self.constant("scale", np.broadcast_to(scale.reshape(-1), count).reshape(shape))
        ]
        if zero is not None:
            spread = np.broadcast_to(zero.reshape(-1), count).reshape(shape)
            parameters.append(self.constant("zero_point", spread))
        return self.op("DequantizeLinear", (integers, *parameters), "weights", axis=axis)

    def constant(self, wish: str, values: Any) -> ir.Value:
        """A constant; Python numbers are float32."""
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"{self.node.outputs[0].name}_{wish}"
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self._constants.append(value)
        return value

    def held(self, wish: str, values: Any) -> ir.Value:
        """A constant that stands in the graph at once."""
        value = self.constant(wish, values)
        self._register()
        return value

    def _register(self) -> None:
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        while self._constants:
            value = self._constants.pop()
            while value.name in graph.initializers:
                value.name = f"{value.name}_1"
            graph.register_initializer(value)

    def shaped(self, source: ir.Value, shape: Sequence[int], part: str) -> ir.Value:
        """A Reshape."""
        target = self.constant(f"{part}_shape", np.array(shape, np.int64))
        return self.op("Reshape", (source, target), part)

    def turned(self, source: ir.Value, order: Sequence[int], part: str) -> ir.Value:
        """A Transpose."""
        return self.op("Transpose", (source,), part, perm=list(order))

    def swapped(self, source: ir.Value, part: str) -> ir.Value | None:
        """The last two axes exchanged; None where the rank is not known."""
        sizes = shape_of(source)
        if sizes is None or len(sizes) < 2:
            return None
        order = [*range(len(sizes) - 2), len(sizes) - 1, len(sizes) - 2]
        return self.turned(source, order, part)

    def convolved(
        self, operands: Sequence[ir.Value | None], addend: ir.Value | None
    ) -> list[ir.Value | None] | None:
        """A convolution with the node's window, a sum and the node's activation."""
        result = self.op("Conv", operands, **self.attributes(*WINDOW, "group"))
        if addend is not None:
            result = self.op("Add", (result, addend), "sum")
        given = self.attributes("activation", "activation_params")
        parameters = given.get("activation_params", ())
        found = self.activated(result, given.get("activation", ""), parameters)
        return None if found is None else [found]

    def activated(
        self, source: ir.Value, kind: str, parameters: Sequence[float]
    ) -> ir.Value | None:
        """The activation of a fused operator; None for one that is not known."""
        if not kind:
            return source
        if kind in _SIMPLE:
            return self.op(kind, (source,), "activation")
        if kind == "Clip" and len(parameters) == 2:
            low, high = (
                self.constant(name, np.float32(value))
                for name, value in zip(("low", "high"), parameters, strict=True)
            )
            return self.op("Clip", (source, low, high), "activation")
        if kind in _PARAMETERS:
            given = dict(zip(_PARAMETERS[kind], map(float, parameters), strict=False))
            return self.op(kind, (source,), "activation", "", **given)
        return None

    def replace(self, results: Sequence[ir.Value | None]) -> None:
        """Put the operators in the node's place. results: of its outputs, None for unread ones."""
        graph = self.node.graph
        assert graph is not None
        self._register()
        pairs = zip(self.node.outputs, results, strict=False)
        old, new = zip(*(pair for pair in pairs if pair[1] is not None), strict=True)
        ir.convenience.replace_nodes_and_values(
            graph, self.node, [self.node], self.tape.nodes, old, new
        )


Speller = Callable[[Spelling], Sequence[ir.Value | None] | None]  # None leaves a node as it is


def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A shape all of whose sizes are known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(value.shape.numpy())
