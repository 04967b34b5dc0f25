"""QLinear: the integer operators of ONNX and com.microsoft in float terms.

Each handler takes one operator with constant parameters; what is not constant stays for the
checks to refuse.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pimc.frontend.annotator import Annotator, Handler
from pimc.frontend.net import Op, QParams


def qlinear_conv(work: Annotator, op: Op) -> bool:
    """QLinearConv with constant weights."""
    return _product(work, op, "Conv", op.input(8), op.input(6), op.input(7))


def qgemm(work: Annotator, op: Op) -> bool:
    """QGemm; without output scale its result is float."""
    return _product(work, op, "Gemm", op.input(6), op.input(7), op.input(8))


def qlinear_matmul(work: Annotator, op: Op) -> bool:
    """QLinearMatMul of two computed tensors, or with a constant second operand."""
    if op.inputs[3] not in work.net.constants:
        left, right = (_operand(work, *op.inputs[at : at + 3]) for at in (0, 3))
        y = work.scalar(op.inputs[6], op.input(7))
        if left is None or right is None or y is None:
            return False
        return work.emit(op, "MatMul", (left, right), y)
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


def qlinear_binary(work: Annotator, op: Op) -> bool:
    """QLinearAdd and QLinearMul."""
    left, right = _operand(work, *op.inputs[0:3]), _operand(work, *op.inputs[3:6])
    y = work.scalar(op.inputs[6], op.input(7))
    if left is None or right is None or y is None:
        return False
    return work.emit(op, op.op_type.removeprefix("QLinear"), (left, right), y)


def qlinear_unary(work: Annotator, op: Op) -> bool:
    """Operators of one tensor; those that put channels last are left alone."""
    source, y = _operand(work, *op.inputs[0:3]), work.scalar(op.inputs[3], op.input(4))
    if source is None or y is None or op.attributes.get("channels_last"):
        return False
    dropped = ("channels_last", "opset")
    attributes = {key: v for key, v in op.attributes.items() if key not in dropped}
    op_type = op.op_type.removeprefix("QLinear")
    return work.emit(replace(op, attributes=attributes), op_type, (source,), y)


def qlinear_concat(work: Annotator, op: Op) -> bool:
    """QLinearConcat, whose inputs come in triples."""
    y = work.scalar(op.inputs[0], op.inputs[1])
    triples = [op.inputs[at : at + 3] for at in range(2, len(op.inputs), 3)]
    sources = [_operand(work, *triple) for triple in triples]
    if y is None or None in sources:
        return False
    return work.emit(op, "Concat", tuple(name for name in sources if name), y)


def integer_product(work: Annotator, op: Op) -> bool:
    """MatMulInteger and ConvInteger: whole numbers, (x - x_zero) times (w - w_zero).

    With x read as scale * (x - x_zero), the weights are (w - w_zero) / scale.
    """
    net = work.net
    source, weights = op.inputs[0], op.inputs[1]
    if source not in work.dtypes or weights not in net.constants:
        return False
    held = net.qparams.get(work.views[source])
    points = [op.input(at) for at in (2, 3)]
    if any(name and name not in net.constants for name in points):
        return False
    zero = int(net.constants[points[0]].reshape(-1)[0]) if points[0] else 0
    scale = held.scale if held is not None and held.zero == zero else np.float32(1)
    view = work.view(source, QParams(scale, zero, work.dtypes[source]))
    values = net.constants[weights]
    point = net.constants[points[1]] if points[1] else np.zeros((), values.dtype)
    op_type = op.op_type.removesuffix("Integer")
    units = np.full(point.size, np.float32(1) / scale, np.float32)
    axis = 0 if op_type == "Conv" else values.ndim - 1
    work.emit(op, op_type, (view, work.hold(weights, units, point, axis)), None)
    work.sums.add(op.output)
    return True


QLINEAR: dict[str, Handler] = {
    "QLinearConv": qlinear_conv,
    "QGemm": qgemm,
    "QLinearMatMul": qlinear_matmul,
    "QLinearAdd": qlinear_binary,
    "QLinearMul": qlinear_binary,
    "QLinearConcat": qlinear_concat,
    "QLinearGlobalAveragePool": qlinear_unary,
    "QLinearAveragePool": qlinear_unary,
    "QLinearSigmoid": qlinear_unary,
    "QLinearLeakyRelu": qlinear_unary,
    "QLinearSoftmax": qlinear_unary,
    "MatMulInteger": integer_product,
    "ConvInteger": integer_product,
}
