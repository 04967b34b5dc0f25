"""Arithmetic: small operators as sums and products with constants, which the machine has."""

from __future__ import annotations

import numpy as np
import onnx

from pimc.frontend.net import Array, Op
from pimc.frontend.regions import constant_axes
from pimc.frontend.writer import Writer

_FLOAT = onnx.TensorProto.FLOAT
LONGEST = 2**12  # elements that a running sum adds up: the matrix has the square of it


def choice(write: Writer) -> list[Op] | None:
    """A choice among constants, or a constant one of constants: products with 0 and 1, and sums."""
    net, op = write.net, write.op
    mask, *branches = op.inputs
    if any(name not in net.shapes for name in op.inputs):
        return None
    known = [net.is_constant(name) for name in branches]
    if all(known) and not net.is_constant(mask):
        is_table = net.shapes[mask] == net.shapes[op.output] and constant_axes(net, op) is not None
        return None if is_table else _among_constants(write)
    if net.is_constant(mask) and any(known) and not all(known):
        return _of_constant(write, known.index(True))
    return None


def _among_constants(write: Writer) -> list[Op] | None:
    """``mask * (a - b) + b``."""
    net, op = write.net, write.op
    first, second = (net.constant(name).astype(np.float32) for name in op.inputs[1:])
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    sizes = np.broadcast_shapes(net.shapes[op.inputs[0]], np.shape(first - second))
    real = write.add("Cast", op.inputs[:1], net.shapes[op.inputs[0]], "number", to=_FLOAT)
    difference = write.constant("difference", np.asarray(first - second))
    scaled = write.add("Mul", (real, difference), sizes, "scaled")
    write.add("Add", (scaled, write.constant("base", second)), None)
    return write.ops


def _of_constant(write: Writer, at: int) -> list[Op] | None:
    """``x * mask + a`` where more than one constant would have to be filled in."""
    net, op = write.net, write.op
    tensor = op.inputs[2 - at]
    mask = net.constant(op.inputs[0]).astype(bool)
    takes = ~mask if at else mask  # the constant
    sizes = np.broadcast_shapes(mask.shape, net.shapes[op.inputs[1 + at]])
    values = np.broadcast_to(net.constant(op.inputs[1 + at]), sizes)
    filled = np.where(takes, values, np.float32(0))
    if len(np.unique(values[np.broadcast_to(takes, sizes)])) < 2 or not np.isfinite(filled).all():
        return None
    kept = write.constant("kept", (~takes).astype(np.float32))
    shape = np.broadcast_shapes(net.shapes[tensor], mask.shape)
    masked = write.add("Mul", (tensor, kept), shape, "masked")
    write.add("Add", (masked, write.constant("filled", filled.astype(np.float32))), None)
    return write.ops


def running_sum(write: Writer) -> list[Op] | None:
    """CumSum along an axis: a product with a triangle of ones, turned to the last axis."""
    net, op, shape = write.net, write.op, write.shape()
    if not net.is_constant(op.inputs[1]) or len(shape) < 2:
        return None
    axis = int(np.reshape(net.constant(op.inputs[1]), ())) % len(shape)
    size = shape[axis]
    if axis == 0 or size > LONGEST:
        return None
    ones: Array = np.ones((size, size), np.float32)
    added = np.triu(ones, 1 if op.attributes.get("exclusive") else 0)
    weights = write.constant("ones", added.T.copy() if op.attributes.get("reverse") else added)
    order = [a for a in range(len(shape)) if a != axis] + [axis]
    turned = [shape[a] for a in order]
    source = op.inputs[0]
    if axis == len(shape) - 1:
        write.add("MatMul", (source, weights), None)
        return write.ops
    source = write.add("Transpose", (source,), turned, "turned", perm=order)
    summed = write.add("MatMul", (source, weights), turned, "sums")
    write.add("Transpose", (summed,), None, perm=[int(a) for a in np.argsort(order)])
    return write.ops


def triangle(write: Writer) -> list[Op] | None:
    """Trilu of a tensor: a product with zeros and ones."""
    net, op, shape = write.net, write.op, write.shape()
    if op.input(1) and not net.is_constant(op.inputs[1]):
        return None
    diagonal = int(np.reshape(net.constant(op.inputs[1]), ())) if op.input(1) else 0
    ones = np.ones(shape[-2:], np.float32)
    cut = np.triu(ones, diagonal) if op.attributes.get("upper", 1) else np.tril(ones, diagonal)
    write.add("Mul", (op.inputs[0], write.constant("kept", cut)), None)
    return write.ops


def mean(write: Writer) -> list[Op] | None:
    """Mean of several tensors: their sum over their number."""
    op = write.op
    shape = write.net.shapes[op.output]
    total = write.add("Sum", op.inputs, shape, "sum")
    share = write.constant("share", np.array(1 / len(op.inputs), np.float32))
    write.add("Mul", (total, share), None)
    return write.ops


def log_of_sum(write: Writer) -> list[Op] | None:
    """ReduceLogSum: the logarithm of a sum."""
    op = write.op
    shape = write.net.shapes[op.output]
    total = write.add("ReduceSum", op.inputs, shape, "sum", **op.attributes)
    write.add("Log", (total,), None)
    return write.ops
