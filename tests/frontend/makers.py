"""Makers of small models: ONNX text for the graph, arrays for the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import numpy_helper, parser

Floats = NDArray[np.float32]


def make(
    signature: str, body: str, *, opset: int = 17, ir: int = 8, **constants: ArrayLike
) -> onnx.ModelProto:
    """A model from ONNX text, e.g. ``make("(float[N,4] x) => (float[N,2] y)", "y = Relu(x)")``.

    constants: initializers by name; Python floats become float32.
    """
    head = f'<ir_version: {ir}, opset_import: ["": {opset}, "com.microsoft": 1]>'
    model = parser.parse_model(f"{head} g {signature} {{ {body} }}")
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(_array(value), name))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def _array(value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def weights(*shape: int, seed: int = 0, scale: float = 0.3) -> Floats:
    """Normal noise."""
    return np.random.default_rng([seed, *shape]).normal(0, scale, shape).astype(np.float32)


def integers(*shape: int, seed: int = 0, dtype: str = "int8") -> NDArray[Any]:
    """All values of an integer type, the extreme ones included."""
    info = np.iinfo(dtype)
    random = np.random.default_rng([seed, *shape])
    return random.integers(info.min, info.max, shape, dtype, endpoint=True)
