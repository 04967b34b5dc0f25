"""ResNet-20 for CIFAR-10 (He et al. 2016, section 4.2): 40.8 M multiplications, random weights."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
BLOCKS = 3  # in each of the three stages


class _Builder:
    """Nodes and weights of a float model, batch normalization already folded into the biases."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def weight(self, shape: tuple[int, ...], deviation: float) -> str:
        name = f"w{len(self.weights)}"
        values = self._rng.normal(0, deviation, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> str:
        weight = self.weight((outputs, inputs, size, size), math.sqrt(2 / (inputs * size * size)))
        bias = self.weight((outputs,), 0.05)
        pads = [size // 2] * 4
        return self.node("Conv", x, weight, bias, pads=pads, strides=[stride] * 2)


def resnet20(seed: int = 0) -> onnx.ModelProto:
    """Float model: input "image" [n, 3, 32, 32], output "logits" [n, 10]; projections by 1x1."""
    b = _Builder(seed)
    x = b.node("Relu", b.conv("image", 3, 16))
    inputs = 16
    for outputs in (16, 32, 64):
        for _ in range(BLOCKS):
            stride = 1 if inputs == outputs else 2
            y = b.node("Relu", b.conv(x, inputs, outputs, stride=stride))
            y = b.conv(y, outputs, outputs)
            side = x if stride == 1 else b.conv(x, inputs, outputs, size=1, stride=stride)
            x = b.node("Relu", b.node("Add", y, side))
            inputs = outputs
    x = b.node("Flatten", b.node("GlobalAveragePool", x))
    weight = b.weight((inputs, 10), math.sqrt(1 / inputs))
    logits = b.node("Gemm", x, weight, b.weight((10,), 0.05))
    b.nodes.append(helper.make_node("Identity", [logits], ["logits"]))
    shape = ["n", 3, SIDE, SIDE]
    graph = helper.make_graph(
        b.nodes,
        "resnet20",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        b.weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
