"""Fold: onnxruntime computes the constants that onnx's own evaluator could not.

Quantized constants count as the floats that they stand for.
"""

from __future__ import annotations

import math

import onnx
from onnx import helper, numpy_helper

from isa.diagnostics import PimError
from pimc.frontend.net import Array, Net, Op, used_inputs
from pimc.frontend.session import open_session, runtime_error

_KEPT = frozenset(("QuantizeLinear", "DequantizeLinear"))  # the integers of the user's weights
_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform")
)
_LARGEST = 2**28  # elements of a result


def fold_constants(net: Net) -> None:
    """Turn operators on constants into constants, in place."""
    kept = []
    for op in net.ops:
        results = _folded(net, op)
        if results is None:
            kept.append(op)
            continue
        for name, values in zip(op.outputs, results, strict=True):
            net.constants[name], net.shapes[name] = values, values.shape
            net.types[name] = helper.np_dtype_to_tensor_dtype(values.dtype)
    net.ops = kept


def _folded(net: Net, op: Op) -> list[Array] | None:
    names = list(used_inputs(op))
    has_graphs = any(isinstance(value, onnx.GraphProto) for value in op.attributes.values())
    if op.domain or op.op_type in _KEPT | _RANDOM or has_graphs or not names:
        return None
    if not all(map(net.is_constant, names)) or not all(op.outputs):
        return None
    if any(math.prod(net.shapes.get(name, ())) > _LARGEST for name in op.outputs):
        return None
    try:
        return run_alone(op, {name: net.constant(name) for name in names}, net.opset)
    except PimError:
        return None  # the checks will name the node


def run_alone(op: Op, constants: dict[str, Array], opset: int) -> list[Array]:
    """The results of one operator on constants, by onnxruntime.

    Raises PimError F240 when onnxruntime does not know it, or cannot run it on these.
    """
    node = helper.make_node(op.op_type, op.inputs, op.outputs, domain=op.domain, **op.attributes)
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in op.outputs]
    graph = helper.make_graph([node], "constant", [], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    session = open_session(model)
    try:
        results: list[Array] = session.run(None, {})
    except Exception as error:  # onnxruntime's errors have no common base below Exception
        raise runtime_error("cannot compute a constant", error) from error
    return results
