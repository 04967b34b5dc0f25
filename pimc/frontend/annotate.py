"""Annotate: turn Q/DQ pairs and QLinear operators into float operators with known quantization.

QuantizeLinear on an activation becomes the ``qparams`` of the tensor it reads, DequantizeLinear
an alias of the tensor it reads, and on constants both become ``Quantized`` constants that keep
the user's integers. An integer tensor is from then on the float tensor it stands for, its *view*.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from pimc.frontend.annotator import WIDENED, Annotator, Handler
from pimc.frontend.net import DTYPE_NAMES, INT_NAMES, Array, Net, Op, QParams
from pimc.frontend.qlinear import QLINEAR
from pimc.frontend.simplify import drop_identities

_FLOAT = onnx.TensorProto.FLOAT
_KEPT_TYPES = ("int8", "uint8", "int32", *WIDENED)  # int32: a bias


def annotate(net: Net) -> None:
    """Rewrite ``net`` in place; what cannot be told so stays for the checks to refuse."""
    drop_identities(net)
    work = Annotator(net, _HANDLERS)
    for op in net.ops:
        work.visit(op)
    for name, origin in work.origin.items():
        if origin in net.qparams:
            net.qparams.setdefault(name, net.qparams[origin])
    if work.released:
        net.notes.warning(
            "F224",
            f"{len(work.released)} constants such as `{work.released[0]}` have scales for blocks, "
            "or more than 8 bits; they are taken as floats, and quantized again where they are "
            "weights",
        )
    net.ops = work.ops
    net.outputs = [replace(p, tensor=work.views.get(p.tensor, p.tensor)) for p in net.outputs]
    net.remove_unused()
    integers = {port.tensor for port in net.inputs if port.elem_type in INT_NAMES}
    net.is_quantized = bool(net.qparams.keys() - integers)


def _dequantize(work: Annotator, op: Op) -> bool:
    net = work.net
    source, scale, zero = op.inputs[0], op.inputs[1], op.input(2)
    if net.is_constant(source):
        return _dequantize_constant(work, op)
    if source in work.sums:
        return _scale_sums(work, op)
    if source not in work.dtypes:
        return False
    qparams = work.scalar(scale, zero, work.dtypes[source])
    if qparams is None:
        return False
    work.views[op.output] = work.view(source, qparams)
    return True


def _scale_sums(work: Annotator, op: Op) -> bool:
    """DequantizeLinear of 32-bit sums is a product with the scale."""
    net = work.net
    zero = net.constants.get(op.input(2), np.zeros(1)) if op.input(2) else np.zeros(1)
    if op.inputs[1] not in net.constants or net.constants[op.inputs[1]].size != 1 or np.any(zero):
        return False
    work.ops.append(replace(op, op_type="Mul", inputs=(work.views[op.inputs[0]], op.inputs[1])))
    return True


def _dequantize_constant(work: Annotator, op: Op) -> bool:
    net = work.net
    scale = net.constants.get(op.inputs[1])
    zero = net.constants.get(op.input(2)) if op.input(2) else None
    values = net.constants.get(op.inputs[0])
    if values is None or scale is None or (op.input(2) and zero is None):
        return False
    is_blocked = bool(op.attributes.get("block_size", 0)) or scale.ndim > 1
    if values.dtype.name in _KEPT_TYPES and not is_blocked:
        axis = int(op.attributes.get("axis", 1)) % max(values.ndim, 1)
        work.views[op.output] = work.hold(op.inputs[0], scale, zero, axis)
        return True
    folded = _evaluate(work, op)
    net.constants[op.output], net.shapes[op.output] = folded, folded.shape
    if folded.ndim > 1:
        work.released.append(op.inputs[0])
    return True


def _quantize(work: Annotator, op: Op) -> bool:
    net = work.net
    if net.is_constant(op.inputs[0]):
        folded = _evaluate(work, op)
        net.constants[op.output], net.shapes[op.output] = folded, folded.shape
        return True
    qparams = work.scalar(op.inputs[1], op.input(2))
    if qparams is None or (not op.input(2) and op.attributes.get("output_dtype", 0) != 0):
        return False
    name = work.views.get(op.inputs[0], op.inputs[0])
    if name not in net.qparams and work.is_only_quantized(op.inputs[0]):
        net.qparams[name] = qparams
    if net.qparams.get(name) == qparams:
        work.views[op.output] = name
        work.dtypes[op.output] = qparams.dtype
        return True
    work.ops.append(Op(op.name, "Identity", (name,), (op.output,)))
    work.result(op, qparams)
    return True


def _evaluate(work: Annotator, op: Op) -> Array:
    """Run one operator on constants."""
    net = work.net
    names = [name for name in op.inputs if name]
    # com.microsoft's forms of Q and DQ are ONNX's own, for types that those once lacked
    node = onnx.helper.make_node(op.op_type, op.inputs, op.outputs, **op.attributes)
    arrays = {name: net.constant(name) for name in names}
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in arrays.items()
        ],
        [onnx.helper.make_empty_tensor_value_info(op.output)],
    )
    opsets = [onnx.helper.make_opsetid("", net.opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    results: Any = ReferenceEvaluator(model).run(None, arrays)
    return np.asarray(results[0])


def _cast(work: Annotator, op: Op) -> bool:
    """A cast to float reads 8-bit integers in steps of 1, and 32-bit sums as they are."""
    source = op.inputs[0]
    if op.attributes.get("to") != _FLOAT:
        return False
    if source in work.sums:
        work.views[op.output] = work.views[source]
        return True
    if source not in work.dtypes:
        return False
    work.views[op.output] = work.view(source, QParams(np.float32(1), 0, work.dtypes[source]))
    return True


def _reshape_constant(work: Annotator, op: Op) -> bool:
    """Movement of a quantized constant moves its integers; per-channel ones only by Transpose."""
    net = work.net
    name = work.views.get(op.inputs[0], op.inputs[0])
    held = net.quantized.get(name)
    if held is None:
        return False
    axis = held.axis
    if op.op_type == "Transpose":
        order = list(op.attributes.get("perm", range(held.values.ndim)[::-1]))
        values = np.ascontiguousarray(held.values.transpose(order))
        axis = None if axis is None else order.index(axis)
    elif axis is None and op.output in net.shapes:
        values = held.values.reshape(net.shapes[op.output])
    else:
        folded = held.real().reshape(net.shapes[op.output])
        net.constants[op.output], net.shapes[op.output] = folded, folded.shape
        return True
    result = net.fresh(f"{op.output}_held")
    net.quantized[result] = replace(held, values=values, axis=axis)
    net.shapes[result], net.types[result] = values.shape, _FLOAT
    work.views[op.output] = result
    return True


def _gather(work: Annotator, op: Op) -> bool:
    """Rows of a quantized table are held as the table is, also where they are integers at first."""
    net = work.net
    values = net.constants.get(op.inputs[0])
    if values is not None and values.dtype in DTYPE_NAMES:
        meaning = work.meaning(op.output)
        if meaning is None:
            return False
        held = work.hold(op.inputs[0], np.asarray(meaning.scale), meaning.zero_point, None)
        return work.emit(op, "Gather", (held, *op.inputs[1:]), meaning)
    table = net.quantized.get(work.views.get(op.inputs[0], op.inputs[0]))
    if table is None:
        return False
    work.compute(op)
    dtype = DTYPE_NAMES.get(table.values.dtype)
    if table.scale.ndim == 0 and dtype is not None:
        net.qparams[op.output] = QParams(np.float32(table.scale), int(table.zero), dtype)
    return True


_HANDLERS: dict[str, Handler] = {
    **QLINEAR,
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "Cast": _cast,
    "Gather": _gather,
    **dict.fromkeys(("Transpose", "Reshape", "Squeeze", "Unsqueeze"), _reshape_constant),
}
