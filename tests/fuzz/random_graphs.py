"""Random networks: operators that the chip has and others, drawn with whatever fits what is there.

Every operator runs in onnxruntime as soon as it is drawn, so shapes are known, and what
onnxruntime refuses is drawn again. Old operator sets write attributes where new ones have inputs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]
LARGEST = 4096  # elements of a tensor
FARTHEST = 1e4  # magnitude of an element
RETRIES = 8
OPSETS = (7, 9, 10, 11, 12, 13, 13, 14, 15, 16, 17, 17, 18, 19, 20, 21, 22, 24)
INPUT_KINDS = (*(np.float32,) * 8, np.int64, np.uint8, np.int8, np.bool_, np.int32)
ODD_NAMES = """a A b B x/y X/Y x:0 x.0 x_0 x-0 input INPUT output logits batch N é ß 1 .. / ; " ` \\
    % host0 acc rows core.0 a/b/c/d x0_moved reference x* labels""".split()  # noqa: SIM905
ODD_NAMES += [" ", "a b", "tab\t", "long" * 60]
# from which operator set on the axes are an input; of others 18
AXES_ARE_INPUTS = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13}
Draw = Callable[["Drawer"], None]


class Drawer:
    """A network under construction, and the value that each of its tensors has on one input."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.numbers = np.random.default_rng(rng.randrange(1 << 32))
        self.opset = rng.choice(OPSETS)
        self.values: dict[str, Array] = {}
        self.constants: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    # -------------------------------------------------------------- parts
    def maybe(self, share: float) -> bool:
        return self.rng.random() < share

    def few(self, low: int = 1, high: int = 4) -> int:
        return self.rng.randint(low, high)

    def pick(self, rank: Sequence[int] = (), kind: Any = None) -> str:
        """A tensor; often one of the newest. Raises IndexError where none fits."""
        fits = [
            name
            for name, value in self.values.items()
            if (not rank or value.ndim in rank) and (kind is None or value.dtype == kind)
        ]
        return self.rng.choice(fits[-3:] if self.maybe(0.7) else fits)

    def constant(self, array: Any, kind: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, kind)
        return name

    def last(self) -> str:
        """The first result of the newest operator."""
        return self.nodes[-1].output[0]

    def noise(self, *shape: int, scale: float = 0.4) -> str:
        return self.constant(self.numbers.normal(0, scale, shape))

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> None:
        """Append an operator if onnxruntime runs it. Raises ValueError if it does not.

        farthest, not an attribute: the largest magnitude that its results may have.
        """
        if "Conv" in op and inputs[0] in self.values and not self.values[inputs[0]].size:
            raise ValueError("onnxruntime never ends a convolution of nothing")
        farthest = attributes.pop("farthest", FARTHEST)
        number = len(self.nodes)
        names = [f"t{number}_{at}" if at else f"t{number}" for at in range(outputs)]
        domain = attributes.pop("domain", "")
        given = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(op, inputs, names, f"{op}_{number}", domain=domain, **given)
        found = self.run([node], [name for name in dict.fromkeys(inputs) if name], names)
        if any(value.size > LARGEST for value in found):
            raise ValueError("too large")
        if any(v.dtype.kind == "f" and np.abs(v).max(initial=0) > farthest for v in found):
            raise ValueError("too far")
        if any(v.dtype.kind == "f" and np.isnan(v).any() for v in found):
            raise ValueError("not a number")
        self.nodes.append(node)
        self.values.update(zip(names, found, strict=True))

    def run(
        self, nodes: Sequence[onnx.NodeProto], inputs: Sequence[str], outputs: Sequence[str]
    ) -> list[Array]:
        """The results of nodes on the values that are there."""
        both = self.values | self.constants
        graph = helper.make_graph(
            nodes,
            "one",
            [port_of(n, both[n].dtype, both[n].shape) for n in inputs if n in self.values],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(both[n], n) for n in inputs if n in self.constants],
        )
        feeds = {name: both[name] for name in inputs if name in self.values}
        return run_model(self.model_of(graph), feeds)

    def model_of(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def axes(self, op: str, name: str, axes: Sequence[int], **attributes: Any) -> None:
        """An operator with axes, as this operator set writes them."""
        since = AXES_ARE_INPUTS.get(op, 18)
        if self.opset >= since:
            self.add(op, [name, self.constant(axes, np.int64)], **attributes)
        else:
            self.add(op, [name], axes=list(axes), **attributes)

    # -------------------------------------------------------------- the whole
    def input(self) -> None:
        """Add an input: mostly float images; sometimes row numbers, truth values, 8 bits."""
        name = f"x{len(self.inputs)}"
        kind = self.rng.choice(INPUT_KINDS)
        batch = self.rng.choice(("N", "N", "N", 1, 1, 2, 3))
        rank = self.rng.choice((2, 3, 4, 4, 4, 4, 5, 1))
        sizes = [self.few(1, 6 if axis == 1 or rank > 4 else 9) for axis in range(1, rank)]
        if self.inputs and self.maybe(0.4):  # as the first one, to be added to it
            first = self.inputs[0].type.tensor_type.shape.dim
            batch, sizes = first[0].dim_value or "N", [d.dim_value for d in first[1:]]
        shape = (1 if batch == "N" else batch, *sizes)
        if kind == np.float32:
            value = self.numbers.normal(0, 1, shape)
        else:
            value = self.numbers.integers(0, 2, shape)
        self.values[name] = np.asarray(value, kind)
        self.inputs.append(port_of(name, np.dtype(kind), (batch, *sizes)))

    def step(self, draws: Sequence[Draw]) -> None:
        """One more operator, if one of some draws fits."""
        for _ in range(RETRIES):
            with suppress(Exception):  # onnxruntime's errors have no common base below Exception
                self.rng.choice(draws)(self)
                return

    def model(self) -> onnx.ModelProto:
        """The network: unread tensors are outputs, and a few of the others."""
        read = {name for node in self.nodes for name in node.input}
        made = [name for node in self.nodes for name in node.output]
        ends = [n for n in made if n not in read and (self.values[n].size or self.maybe(0.02))][-4:]
        ends += [name for name in made if name in read and self.maybe(0.1)]
        if self.maybe(0.01):
            ends.append(self.rng.choice([port.name for port in self.inputs]))
        if self.constants and self.maybe(0.03):
            ends.append(self.rng.choice(list(self.constants)))
        if self.maybe(0.3):
            self.rng.shuffle(ends)
        both = self.values | self.constants
        outputs = [port_of(name, both[name].dtype, [None] * both[name].ndim) for name in ends]
        used = {name for node in self.nodes for name in _names(node)} | set(ends)
        weights = [numpy_helper.from_array(v, n) for n, v in self.constants.items() if n in used]
        nodes = self.nodes
        if self.maybe(0.1):
            nodes = [
                *(helper.make_node("Constant", [], [w.name], value=w) for w in weights),
                *nodes,
            ]
            weights = []
        model = self.model_of(helper.make_graph(nodes, "random", self.inputs, outputs, weights))
        if self.maybe(0.2):
            self.rename(model.graph)
        return model

    def rename(self, graph: onnx.GraphProto) -> None:
        """Give tensors and nodes names that differ little, or that files and texts cannot have."""
        if any(_bodies(node) for node in graph.node):
            return
        odd = self.rng.sample(ODD_NAMES, len(ODD_NAMES))
        new: dict[str, str] = {"": ""}
        tensors = [*graph.input, *graph.output, *graph.initializer]
        named = [*(t.name for t in tensors), *(n for node in graph.node for n in node.output)]
        for name in dict.fromkeys(named):
            new.setdefault(name, odd.pop() if odd and self.maybe(0.6) else name)
        for node in graph.node:
            node.input[:] = [new[name] for name in node.input]
            node.output[:] = [new[name] for name in node.output]
            node.name = self.rng.choice((node.name, "", "same", *ODD_NAMES))
        for tensor in tensors:
            tensor.name = new[tensor.name]


def random_model(rng: random.Random, draws: Sequence[Draw], largest: int = 8) -> onnx.ModelProto:
    """A network of one to ``largest`` operators, each by one of ``draws``."""
    while True:
        drawer = Drawer(rng)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            drawer.input()
        for _ in range(rng.randint(1, largest)):
            drawer.step(draws)
        model = drawer.model()
        if model.graph.output:
            return model


def run_model(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """All outputs, computed as written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def _names(node: onnx.NodeProto) -> list[str]:
    return [*node.input, *(name for body in _bodies(node) for n in body.node for name in _names(n))]


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def port_of(name: str, dtype: Any, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape))
