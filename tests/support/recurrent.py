"""Models of one recurrent layer with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RESULTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}


@dataclass(frozen=True)
class Layer:
    """One LSTM, GRU or RNN.

    state: "" for none before the first step, "constant", or "input" for inputs of the model.
    outputs: those of its results that the model gives.
    """

    kind: str
    steps: int = 6
    batch: int = 1
    inputs: int = 4
    units: int = 5
    direction: str = "forward"
    bias: bool = True
    state: str = ""
    outputs: Sequence[str] = ()
    seed: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def model(self) -> onnx.ModelProto:
        """Input x [steps, batch, inputs], weights as constants."""
        constants = self._constants()
        ports = {"x": (self.steps, self.batch, self.inputs)}
        if self.state == "input":
            states = [name for name in constants if name.startswith("initial")]
            ports |= {name: constants.pop(name).shape for name in states}
        names = ["W", "R", "B", "", "initial_h", "initial_c"]
        known = {*constants, *ports}
        inputs = ["x", *(name if name in known else "" for name in names)]
        while not inputs[-1]:
            inputs.pop()
        wanted = self.outputs or RESULTS[self.kind]
        results = [name if name in wanted else "" for name in RESULTS[self.kind]]
        node = helper.make_node(
            self.kind,
            inputs,
            results,
            self.kind.lower(),
            hidden_size=self.units,
            direction=self.direction,
            **self.attributes,
        )
        last = [self.directions, self.batch, self.units]
        shapes = {"Y": [self.steps, *last], "Y_h": last, "Y_c": last}
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [node],
            "layer",
            [value(name, TensorProto.FLOAT, shape) for name, shape in ports.items()],
            [value(name, TensorProto.FLOAT, shapes[name]) for name in results if name],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opsets = [helper.make_opsetid("", 21)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _constants(self) -> dict[str, Floats]:
        random = np.random.default_rng(self.seed)
        rows, last = GATES[self.kind] * self.units, (self.directions, self.batch, self.units)
        shapes: dict[str, tuple[int, ...]] = {
            "W": (self.directions, rows, self.inputs),
            "R": (self.directions, rows, self.units),
        }
        if self.bias:
            shapes["B"] = (self.directions, 2 * rows)
        if self.state:
            shapes["initial_h"] = last
            if self.kind == "LSTM":
                shapes["initial_c"] = last
        return {
            name: random.normal(0, 0.6, shape).astype(np.float32) for name, shape in shapes.items()
        }

    def samples(self, count: int = 16) -> dict[str, Floats]:
        """Random inputs of the model; a leading size of 1 counts as the batch."""
        random = np.random.default_rng([self.seed, 1])
        found = {}
        for port in self.model().graph.input:
            sizes = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
            shape = (count, *sizes[sizes[0] == 1 :])
            found[port.name] = random.normal(0, 1, shape).astype(np.float32)
        return found
