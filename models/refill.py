"""Refill: give a light model of the onnx wheel random weights that say something.

The nine light models ship with every weight 0.02, so any input gives the same output. Here each
ConstantOfShape becomes an initializer drawn from a seeded generator, by what consumes it:

    Conv, Gemm, MatMul weight          N(0, sqrt(2 / fan_in))
    BatchNormalization scale, variance U(0.8, 1.2)
    BatchNormalization bias, mean      N(0, 0.1)
    operand of a Mul                   U(0.8, 1.2)
    anything else (biases)             N(0, 0.05)

    python models/refill.py squeezenet /tmp/squeezenet.onnx [--seed 0] [--logits]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

LIGHT_MODELS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
IR_VERSION = 8  # initializers need not be graph inputs, and every onnxruntime reads it
_VIEWS = frozenset({"Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity"})
Array = npt.NDArray[np.float32]


def refill_light(name: str, seed: int = 0, *, logits: bool = False) -> onnx.ModelProto:
    """Return light model `name` with random weights; input 1x3x224x224, opset 9.

    logits: leave out the final Softmax, which saturates on random weights.
    Raises ValueError when the onnx package has no such light model.
    """
    if name not in LIGHT_MODELS:
        raise ValueError(f"no light model `{name}`; there are {', '.join(LIGHT_MODELS)}")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    fills = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for index, node in enumerate(fills):
        shape = tuple(int(size) for size in shapes[node.input[0]])
        generator = np.random.default_rng([seed, index])
        values = _draw(generator, shape, *_consumer(graph, node.output[0]))
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    if logits and graph.node[-1].op_type == "Softmax":
        softmax = graph.node.pop()
        graph.output[0].name = softmax.input[0]
    _drop_leftovers(graph)
    model.ir_version = IR_VERSION
    return model


def _consumer(graph: onnx.GraphProto, tensor: str) -> tuple[onnx.NodeProto, int]:
    """Return the node that computes with `tensor`, through views, and the input it is there."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == tensor:
                is_view = node.op_type in _VIEWS and position == 0
                return _consumer(graph, node.output[0]) if is_view else (node, position)
    raise ValueError(f"tensor `{tensor}` is not consumed by any node")


def _draw(
    generator: np.random.Generator, shape: tuple[int, ...], node: onnx.NodeProto, position: int
) -> Array:
    """Draw the values of a tensor that is input `position` of `node`."""
    op = node.op_type
    if op in ("Conv", "Gemm", "MatMul") and position == 1:
        values = generator.normal(0.0, math.sqrt(2.0 / _fan_in(node, shape)), shape)
    elif (op == "BatchNormalization" and position in (1, 4)) or op == "Mul":
        values = generator.uniform(0.8, 1.2, shape)
    else:
        deviation = 0.1 if op == "BatchNormalization" else 0.05
        values = generator.normal(0.0, deviation, shape)
    return values.astype(np.float32)


def _fan_in(node: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    """Return how many products one output of a Conv, Gemm or MatMul sums."""
    if node.op_type == "Conv":
        return math.prod(shape[1:])
    is_transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return shape[-1] if is_transposed else shape[-2]


def _drop_leftovers(graph: onnx.GraphProto) -> None:
    """Remove initializers that nothing reads any more, and graph inputs that are initializers."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    weights = {tensor.name for tensor in kept}
    inputs = [value for value in graph.input if value.name in used - weights]
    for field, values in ((graph.initializer, kept), (graph.input, inputs)):
        del field[:]
        field.extend(values)


def main() -> None:
    """Write one refilled model to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=LIGHT_MODELS)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logits", action="store_true", help="leave out the final Softmax")
    options = parser.parse_args()
    onnx.save(refill_light(options.name, options.seed, logits=options.logits), options.output)


if __name__ == "__main__":
    main()
