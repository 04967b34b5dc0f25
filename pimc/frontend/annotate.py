"""Annotate: turn Q/DQ pairs and QLinear operators into float operators with known quantization.

QuantizeLinear on an activation becomes the ``qparams`` of the tensor it reads, DequantizeLinear
an alias of the tensor it reads, and on constants both become ``Quantized`` constants that keep
the user's integers. An integer tensor is from then on the float tensor it stands for, its *view*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from pimc.frontend.net import (
    DTYPE_NAMES,
    INT_NAMES,
    MICROSOFT,
    Array,
    IntArray,
    Net,
    Op,
    QParams,
    Quantized,
)
from pimc.frontend.regions import PASSING
from pimc.frontend.simplify import drop_identities

_FLOAT = onnx.TensorProto.FLOAT
_INTS = INT_NAMES
_BIAS_TYPES = (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int32))
_DOMAINS = ("", MICROSOFT)  # onnxruntime's quantizer writes Q and DQ in its own domain too


def annotate(net: Net) -> None:
    """Rewrite ``net`` in place; what cannot be told so stays for the checks to refuse."""
    drop_identities(net)
    work = Annotator(net)
    for op in net.ops:
        work.visit(op)
    net.ops = work.ops
    net.outputs = [replace(p, tensor=work.views.get(p.tensor, p.tensor)) for p in net.outputs]
    net.remove_unused()


class Annotator:
    """One walk over the operators. views: integer tensor or alias -> float tensor it stands for."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.ops: list[Op] = []
        self.views: dict[str, str] = {}
        for port in net.inputs:
            if port.elem_type in _INTS:
                self.views[port.tensor] = port.tensor
                net.types[port.tensor] = _FLOAT

    def visit(self, op: Op) -> None:
        """Rewrite one operator."""
        handler = _HANDLERS.get(op.op_type) if op.domain in _DOMAINS else None
        if handler is not None and handler(self, op):
            return
        if op.op_type in PASSING | {"Concat"} and not op.domain and op.inputs[0] in self.views:
            self._pass_on(op)
            return
        self.ops.append(self._renamed(op))

    def _renamed(self, op: Op) -> Op:
        return replace(op, inputs=tuple(self.views.get(name, name) for name in op.inputs))

    def _pass_on(self, op: Op) -> None:
        """An operator that moves integers: its result is held as its input is."""
        net, op = self.net, self._renamed(op)
        sources = [name for name in op.inputs if not net.is_constant(name)]
        known = [net.qparams.get(name) for name in sources]
        if op.op_type == "Concat" and any(held != known[0] for held in known):
            self.ops.append(op)  # raw integers of different scales: refused by their type
            return
        for name in op.outputs:
            if name:
                self.views[name] = name
                net.types[name] = _FLOAT
                if known[0] is not None:
                    net.qparams[name] = known[0]
        self.ops.append(op)

    # ------------------------------------------------------------------ constants
    def scalar(self, scale: str, zero: str, dtype: np.dtype | None = None) -> QParams | None:
        """Per-tensor parameters from constant inputs; None when they are not that."""
        net = self.net
        if scale not in net.constants or (zero and zero not in net.constants):
            return None
        point = net.constants[zero] if zero else np.zeros((), dtype or np.uint8)
        steps = net.constants[scale]
        if steps.size != 1 or point.size != 1 or point.dtype not in DTYPE_NAMES:
            return None
        return QParams(
            np.float32(steps.reshape(())), int(point.reshape(())), DTYPE_NAMES[point.dtype]
        )

    def hold(self, values: str, scale: Array, zero: Array | None, axis: int | None) -> str:
        """Make a quantized constant of integers; return its name."""
        net = self.net
        name = net.fresh(f"{values}_held")
        integers: IntArray = net.constants[values]
        flat = np.asarray(scale, np.float32)
        flat = flat.reshape(()) if flat.size == 1 else flat.reshape(-1)
        points = np.zeros(flat.shape, integers.dtype) if zero is None else zero.reshape(flat.shape)
        along = None if flat.ndim == 0 else axis
        net.quantized[name] = Quantized(integers, flat, points, along)
        net.shapes[name], net.types[name] = integers.shape, _FLOAT
        return name

    # ------------------------------------------------------------------ activations
    def view(self, tensor: str, qparams: QParams) -> str:
        """The float tensor that integer ``tensor`` stands for under these parameters."""
        net = self.net
        name = self.views.get(tensor, tensor)
        if net.qparams.setdefault(name, qparams) == qparams:
            return name
        return self._reinterpreted(name, net.qparams[name], qparams)

    def _reinterpreted(self, name: str, held: QParams, wanted: QParams) -> str:
        """The same integers read differently: quantize with one pair, dequantize with another."""
        net = self.net
        raw, real = net.fresh(f"{name}_integers"), net.fresh(f"{name}_reinterpreted")
        for result in (raw, real):
            net.add_like(result, name)
        for op_type, source, result, qparams in (
            ("QuantizeLinear", name, raw, held),
            ("DequantizeLinear", raw, real, wanted),
        ):
            scale, zero = f"{result}_scale", f"{result}_zero_point"
            net.constants[scale], net.constants[zero] = (
                np.array(qparams.scale),
                qparams.zero_point,
            )
            net.shapes[scale] = net.shapes[zero] = ()
            self.ops.append(Op(f"{result}/{op_type}", op_type, (source, scale, zero), (result,)))
        return real

    def result(self, op: Op, qparams: QParams | None) -> None:
        """Note that an operator's integer result is its float result in these parameters."""
        self.views[op.output] = op.output
        self.net.types[op.output] = _FLOAT
        if qparams is not None:
            self.net.qparams[op.output] = qparams

    def emit(self, op: Op, op_type: str, inputs: tuple[str, ...], qparams: QParams | None) -> bool:
        """Add the float form of a QLinear operator."""
        self.result(op, qparams)
        self.ops.append(replace(op, op_type=op_type, inputs=inputs, domain=""))
        return True


def _dequantize(work: Annotator, op: Op) -> bool:
    net = work.net
    source, scale, zero = op.inputs[0], op.inputs[1], op.input(2)
    if net.is_constant(source):
        return _dequantize_constant(work, op)
    qparams = work.scalar(scale, zero, _int_dtype(net, source))
    if qparams is None:
        return False
    work.views[op.output] = work.view(source, qparams)
    return True


def _int_dtype(net: Net, tensor: str) -> np.dtype:
    """The integer type of a tensor whose DequantizeLinear has no zero point."""
    return np.dtype(np.int8 if net.types.get(tensor) == onnx.TensorProto.INT8 else np.uint8)


def _dequantize_constant(work: Annotator, op: Op) -> bool:
    net = work.net
    scale = net.constants.get(op.inputs[1])
    zero = net.constants.get(op.input(2)) if op.input(2) else None
    values = net.constants.get(op.inputs[0])
    if values is None or scale is None or (op.input(2) and zero is None):
        return False
    is_blocked = bool(op.attributes.get("block_size", 0)) or scale.ndim > 1
    if values.dtype in _BIAS_TYPES and not is_blocked:
        axis = int(op.attributes.get("axis", 1)) % max(values.ndim, 1)
        work.views[op.output] = work.hold(op.inputs[0], scale, zero, axis)
        return True
    folded = _evaluate(work, op)
    net.constants[op.output], net.shapes[op.output] = folded, folded.shape
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
    if net.qparams.setdefault(name, qparams) == qparams:
        work.views[op.output] = name
        return True
    work.ops.append(Op(op.name, "Identity", (name,), (op.output,)))
    work.result(op, qparams)
    return True


def _evaluate(work: Annotator, op: Op) -> Array:
    """Run one operator on constants."""
    net = work.net
    names = [name for name in op.inputs if name]
    node = onnx.helper.make_node(
        op.op_type, op.inputs, op.outputs, domain=op.domain, **op.attributes
    )
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
    """A cast of 8-bit integers to float reads them in steps of 1."""
    dtype = _INTS.get(work.net.types.get(op.inputs[0], 0))
    is_view = op.inputs[0] in work.views
    if op.attributes.get("to") != _FLOAT or not (dtype or is_view):
        return False
    if is_view:
        held = work.net.qparams.get(work.views[op.inputs[0]])
        ports = (p.elem_type for p in work.net.inputs if p.tensor == op.inputs[0])
        dtype = held.dtype if held else _INTS.get(next(ports, 0))
    if dtype is None:
        return False
    work.views[op.output] = work.view(op.inputs[0], QParams(np.float32(1), 0, dtype))
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


def _qlinear_conv(work: Annotator, op: Op) -> bool:
    return _product(work, op, "Conv", op.input(8), op.input(6), op.input(7))


def _qgemm(work: Annotator, op: Op) -> bool:
    return _product(work, op, "Gemm", op.input(6), op.input(7), op.input(8))


def _qlinear_matmul(work: Annotator, op: Op) -> bool:
    return _product(work, op, "MatMul", "", op.input(6), op.input(7))


def _product(work: Annotator, op: Op, op_type: str, bias: str, y_scale: str, y_zero: str) -> bool:
    """QLinearConv, QGemm or QLinearMatMul with constant weights."""
    net = work.net
    x = work.scalar(op.inputs[1], op.inputs[2])
    y = work.scalar(y_scale, y_zero) if y_scale else None
    constants = [net.constants.get(name) for name in op.inputs[3:6]]
    if x is None or (y_scale and y is None) or any(c is None for c in constants):
        return False
    weights, scale, zero = (np.asarray(c) for c in constants)
    is_transposed = op_type == "Conv" or bool(op.attributes.get("transB"))
    axis = weights.ndim - 1 if not is_transposed else 0
    points = np.broadcast_to(zero.reshape(-1), (max(scale.size, 1),)) if zero.size == 1 else zero
    inputs = [work.view(op.inputs[0], x), work.hold(op.inputs[3], scale, points, axis)]
    if bias:
        if bias not in net.constants:
            return False
        alpha = np.float32(op.attributes.get("alpha", 1.0))
        unit = (alpha * x.scale * scale).astype(np.float32)
        inputs.append(work.hold(bias, unit, None, net.constants[bias].ndim - 1))
    return work.emit(op, op_type, tuple(inputs), y)


def _operand(work: Annotator, tensor: str, scale: str, zero: str) -> str | None:
    """An input of a QLinear operator with its scale and zero point: a view or a constant."""
    net = work.net
    if tensor in net.constants:
        if scale not in net.constants or zero not in net.constants:
            return None
        return work.hold(tensor, net.constants[scale], net.constants[zero], None)
    qparams = work.scalar(scale, zero)
    return None if qparams is None else work.view(tensor, qparams)


def _qlinear_binary(work: Annotator, op: Op) -> bool:
    left, right = _operand(work, *op.inputs[0:3]), _operand(work, *op.inputs[3:6])
    y = work.scalar(op.inputs[6], op.input(7))
    if left is None or right is None or y is None:
        return False
    return work.emit(op, op.op_type.removeprefix("QLinear"), (left, right), y)


def _qlinear_unary(work: Annotator, op: Op) -> bool:
    source, y = _operand(work, *op.inputs[0:3]), work.scalar(op.inputs[3], op.input(4))
    if source is None or y is None or op.attributes.get("channels_last"):
        return False
    dropped = ("channels_last", "opset")
    attributes = {key: v for key, v in op.attributes.items() if key not in dropped}
    op_type = op.op_type.removeprefix("QLinear")
    return work.emit(replace(op, attributes=attributes), op_type, (source,), y)


def _qlinear_concat(work: Annotator, op: Op) -> bool:
    y = work.scalar(op.inputs[0], op.inputs[1])
    triples = [op.inputs[at : at + 3] for at in range(2, len(op.inputs), 3)]
    sources = [_operand(work, *triple) for triple in triples]
    if y is None or None in sources:
        return False
    return work.emit(op, "Concat", tuple(name for name in sources if name), y)


_HANDLERS: dict[str, Callable[[Annotator, Op], bool]] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "Cast": _cast,
    "QLinearConv": _qlinear_conv,
    "QGemm": _qgemm,
    "QLinearMatMul": _qlinear_matmul,
    "QLinearAdd": _qlinear_binary,
    "QLinearMul": _qlinear_binary,
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _qlinear_unary,
    "QLinearAveragePool": _qlinear_unary,
    "QLinearSigmoid": _qlinear_unary,
    "QLinearLeakyRelu": _qlinear_unary,
    "QLinearSoftmax": _qlinear_unary,
    "Transpose": _reshape_constant,
    "Reshape": _reshape_constant,
    "Squeeze": _reshape_constant,
    "Unsqueeze": _reshape_constant,
}
# operators that must be gone afterwards; the others in the table may stay as they are
QUANTIZED_OPS = tuple(sorted(n for n in _HANDLERS if n.startswith("QLinear") or n == "QGemm"))
