"""Expand: operators written exactly as simpler ones, which the machine has.

A reduction over any axes becomes a global pool over their product, a norm the root of a reduction;
`arithmetic`, `norms`, `products`, `upsample`, `volumes` and `recurrent` hold further rewrites.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from pimc.frontend import arithmetic
from pimc.frontend.einsum import einsum
from pimc.frontend.emit.pool import reduced_axes, spatial_axes
from pimc.frontend.net import Net, Op
from pimc.frontend.norms import flat_layer_norm, gather_norms, mean_variance, one_image
from pimc.frontend.products import constant_product
from pimc.frontend.recurrent import write_recurrent
from pimc.frontend.upsample import conv_transpose, interpolate
from pimc.frontend.volumes import global_pool, reduced_volume, volume_conv, volume_pool
from pimc.frontend.writer import Writer

_FLOAT = onnx.TensorProto.FLOAT
_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceSum": "GlobalAveragePool"}
_POOLS |= {"ReduceMax": "GlobalMaxPool", "ReduceMin": "GlobalMaxPool"}


def expand(net: Net) -> None:
    """Rewrite ``net`` in place; what does not fit a rewrite stays for the checks to refuse."""
    gather_norms(net)
    net.ops = [part for op in net.ops for part in _written(net, op)]


def _written(net: Net, op: Op) -> list[Op]:
    """An operator as the machine has it; parts of other kinds may have rewrites of their own."""
    rewrite = None if op.domain else _REWRITES.get(op.op_type)
    results = [name for name in op.outputs if name]
    known = all(name in net.shapes for name in (*op.inputs[:1], *results))
    known &= net.types.get(op.outputs[0], _FLOAT) == _FLOAT  # whole numbers are the host's
    written = rewrite(Writer(net, op)) if rewrite and known else None
    if not written:
        return [op]
    return [
        part
        for new in written
        for part in ([new] if new.op_type == op.op_type else _written(net, new))
    ]


# ---------------------------------------------------------------------- reductions
def _reduction(write: Writer) -> list[Op] | None:
    """Over any axes but the batch: the reduced ones last, as one, under a global pool."""
    net, op, shape = write.net, write.op, write.shape()
    axes = reduced_axes(op, net)
    is_pool = op.op_type in ("ReduceMean", "ReduceMax") and spatial_axes(op, net)
    if is_pool and len(shape) == 5:
        return reduced_volume(write)
    if axes is None or is_pool or not axes or 0 in axes:
        return None
    kept = [axis for axis in range(1, len(shape)) if axis not in axes]
    order = [0, *kept, *sorted(axes)]
    rows = math.prod(shape[axis] for axis in kept)
    count = math.prod(shape[axis] for axis in axes)
    source = op.inputs[0]
    if order != sorted(order):
        source = write.add("Transpose", (source,), [shape[a] for a in order], "order", perm=order)
    source = write.reshape(source, (shape[0], rows, count), "flatten")
    if op.op_type == "ReduceMin":
        source = write.add("Neg", (source,), (shape[0], rows, count), "negative")
    pooled = write.add(_POOLS[op.op_type], (source,), (shape[0], rows, 1))
    if op.op_type == "ReduceMin":
        pooled = write.add("Neg", (pooled,), (shape[0], rows, 1), "positive")
    if op.op_type == "ReduceSum":
        factor = write.constant("count", np.array(count, np.float32))
        pooled = write.add("Mul", (pooled, factor), (shape[0], rows, 1), "sum")
    write.reshape(pooled, None, "unflatten")
    return write.ops


def _norm(write: Writer) -> list[Op] | None:
    """A sum of magnitudes or of squares, and for L2 its root."""
    op, shape = write.op, write.shape()
    kind, x = op.op_type, op.inputs[0]
    if kind == "ReduceL1":
        source = write.add("Abs", (x,), shape, "magnitude")
    else:
        source = write.add("Mul", (x, x), shape, "square")
    summed = write.net.shapes[op.output] if kind == "ReduceL2" else None
    total = write.add("ReduceSum", (source, *op.inputs[1:]), summed, "sum", **op.attributes)
    if kind == "ReduceL2":
        write.add("Sqrt", (total,), None)
    return write.ops


def _over_norm(write: Writer) -> list[Op] | None:
    """LpNormalization: the tensor times the reciprocal of its norm along an axis."""
    op, shape = write.op, write.shape()
    axis = int(op.attributes.get("axis", -1)) % len(shape)
    kind = "ReduceL1" if int(op.attributes.get("p", 2)) == 1 else "ReduceL2"
    along = write.constant("axis", np.array([axis], np.int64))
    one = [1 if at == axis else size for at, size in enumerate(shape)]
    norm = write.add(kind, (op.inputs[0], along), one, "norm", keepdims=1)
    inverse = write.add("Reciprocal", (norm,), one, "reciprocal")
    write.add("Mul", (op.inputs[0], inverse), None)
    return write.ops


def _over_root_mean_square(write: Writer) -> list[Op] | None:
    """RMSNormalization: squares, their mean, the reciprocal of its root, and the gain."""
    net, op, shape = write.net, write.op, write.shape()
    first, rank = int(op.attributes.get("axis", -1)) % len(shape), len(shape)
    if first == 0 or not net.is_constant(op.input(1)):
        return None
    one = [*shape[:first], *[1] * (rank - first)]
    along = write.constant("axes", np.arange(first, rank))
    epsilon = np.array(op.attributes.get("epsilon", 1e-5), np.float32)
    square = write.add("Mul", (op.inputs[0], op.inputs[0]), shape, "square")
    mean = write.add("ReduceMean", (square, along), one, "mean", keepdims=1)
    mean = write.add("Add", (mean, write.constant("epsilon", epsilon)), one, "shifted")
    root = write.add("Sqrt", (mean,), one, "root")
    inverse = write.add("Reciprocal", (root,), one, "reciprocal")
    normed = write.add("Mul", (op.inputs[0], inverse), shape, "normed")
    write.add("Mul", (normed, op.inputs[1]), None)
    return write.ops


# ---------------------------------------------------------------------- products
def _layer_norm(write: Writer) -> list[Op] | None:
    return one_image(write) or flat_layer_norm(write)


_REWRITES: dict[str, Callable[[Writer], list[Op] | None]] = {
    "Conv": volume_conv,
    "ConvTranspose": conv_transpose,
    "CumSum": arithmetic.running_sum,
    "Einsum": einsum,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _over_norm,
    "MeanVarianceNormalization": mean_variance,
    "MatMul": constant_product,
    "Mean": arithmetic.mean,
    "RMSNormalization": _over_root_mean_square,
    "ReduceLogSum": arithmetic.log_of_sum,
    "Resize": interpolate,
    "Trilu": arithmetic.triangle,
    "Where": arithmetic.choice,
    **dict.fromkeys(("AveragePool", "MaxPool"), volume_pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), global_pool),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), one_image),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), _norm),
    **dict.fromkeys(_POOLS, _reduction),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), write_recurrent),
}
